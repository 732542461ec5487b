//! Which versions may talk: ours, the one before, and (as seen from the older side) the one after.
//!
//! Each call carries the revision of the wire that its caller speaks in the header `plat-version`. The revision grows
//! by one with every release in which a message or a call means something new. A call without the header is let pass:
//! it is from a tool that people use by hand, such as grpcurl.

use plat_model::problem::codes;
use plat_model::{Problem, Result};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{GrpcMethod, Request, Status};

/// Revision of the wire that this version speaks.
pub const REVISION: u32 = 1;
/// Name of the header.
pub const HEADER: &str = "plat-version";

/// Whether a peer of revision `theirs` may talk with one of `ours`.
///
/// # Errors
/// [`codes::VERSION_SKEW`] when they are more than one apart.
pub fn check(ours: u32, theirs: u32) -> Result<()> {
    if ours.abs_diff(theirs) <= 1 {
        return Ok(());
    }
    let older = if theirs < ours { "the caller" } else { "this side" };
    Err(Problem::new(codes::VERSION_SKEW, format!("revision {theirs} of the wire cannot talk with revision {ours}"))
        .because("one side may be at most one revision older than the other")
        .fix(format!("upgrade {older}, one release at a time")))
}

/// Client side: says our revision in every call, and sets the deadline of [`crate::limits::deadline`] where the caller
/// set none.
#[derive(Debug, Clone, Copy, Default)]
pub struct SayVersion;

impl Interceptor for SayVersion {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert(HEADER, MetadataValue::<Ascii>::from(REVISION));
        let method = request.extensions().get::<GrpcMethod<'static>>().map(GrpcMethod::method);
        if let Some(deadline) = method.and_then(crate::limits::deadline)
            && !request.metadata().contains_key("grpc-timeout")
        {
            request.set_timeout(deadline);
        }
        Ok(request)
    }
}

/// Server side: refuses a call of a revision that is too far from ours.
#[derive(Debug, Clone, Copy, Default)]
pub struct CheckVersion;

impl Interceptor for CheckVersion {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(said) = request.metadata().get(HEADER) {
            let revision = said.to_str().ok().and_then(|text| text.parse().ok()).ok_or_else(|| {
                Problem::new(codes::BAD_MESSAGE, format!("the header {HEADER} is not a number"))
                    .fix(format!("send the revision of the wire, {REVISION}, or leave the header out"))
            });
            revision.and_then(|theirs| check(REVISION, theirs)).map_err(crate::status::to_status)?;
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_talk_and_others_are_told_who_must_upgrade() {
        assert!([(5, 4), (5, 5), (5, 6)].into_iter().all(|(ours, theirs)| check(ours, theirs).is_ok()));
        assert!(check(5, 3).unwrap_err().todo.contains("the caller"));
        assert!(check(5, 7).unwrap_err().todo.contains("this side"));
    }

    #[test]
    fn a_call_says_its_revision_and_one_too_far_is_refused() {
        let mut request = Request::new(());
        request.extensions_mut().insert(GrpcMethod::new("plat.v1.NodeService", "Sync"));
        let said = SayVersion.call(request).unwrap();
        assert!(said.metadata().contains_key("grpc-timeout"));
        assert!(CheckVersion.call(said).is_ok());
        assert!(CheckVersion.call(Request::new(())).is_ok());
        for wrong in ["99", "-1", "one"] {
            let mut request = Request::new(());
            request.metadata_mut().insert(HEADER, wrong.parse().unwrap());
            assert!(CheckVersion.call(request).is_err(), "{wrong}");
        }
    }
}
