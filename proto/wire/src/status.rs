//! How a failure travels: [`Problem`]s in the details of a gRPC status, in the standard form (`google.rpc.Status`
//! with one `Any`), so that nothing of them is lost. A status without them comes from a proxy, from tonic or from the
//! transport; it becomes a problem too.

use crate::convert::IntoModel;
use crate::limits::MAX_STATUS_DETAILS;
use crate::v1;
use plat_model::id::shorten;
use plat_model::problem::codes;
use plat_model::{Category, Code, Problem, Problems};
use prost::Message;
use std::error::Error;
use tonic::Status;

const TYPE_URL: &str = "type.googleapis.com/plat.v1.Problems";

/// `google.rpc.Status`, by its field numbers.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// The gRPC code that a category of failures has.
pub fn grpc_code(category: Category) -> tonic::Code {
    match category {
        Category::Invalid => tonic::Code::InvalidArgument,
        Category::Unauthenticated => tonic::Code::Unauthenticated,
        Category::Denied => tonic::Code::PermissionDenied,
        Category::NotFound => tonic::Code::NotFound,
        Category::Conflict => tonic::Code::FailedPrecondition,
        Category::Exhausted => tonic::Code::ResourceExhausted,
        Category::TimedOut => tonic::Code::DeadlineExceeded,
        Category::Unavailable => tonic::Code::Unavailable,
        Category::Failed => tonic::Code::Internal,
    }
}

/// The status that tells one problem or several. The first one's category decides its code. Details are bounded to
/// [`MAX_STATUS_DETAILS`]: past it the longest reasons are cut at their start, then problems are left out and counted.
pub fn to_status(problems: impl Into<Problems>) -> Status {
    let mut problems = problems.into();
    if problems.is_empty() {
        problems.push(Problem::new(codes::INTERNAL, "something failed without saying what"));
    }
    let first = &problems.0[0];
    let code = grpc_code(first.category());
    let message = shorten(&first.one_line());
    let mut wire = v1::Problems::from(&problems);
    if wire.encoded_len() > MAX_STATUS_DETAILS {
        shrink(&mut wire);
    }
    let details = vec![prost_types::Any { type_url: TYPE_URL.into(), value: wire.encode_to_vec() }];
    let details = RpcStatus { code: code.into(), message: message.clone(), details };
    Status::with_details(code, message, details.encode_to_vec().into())
}

fn shrink(wire: &mut v1::Problems) {
    for problem in &mut wire.problems {
        for text in [&mut problem.what, &mut problem.why, &mut problem.todo, &mut problem.at] {
            *text = crate::convert::bounded(text, 2 * 1024);
        }
    }
    let mut left_out = 0;
    while wire.encoded_len() > MAX_STATUS_DETAILS - 512 && wire.problems.len() > 1 {
        wire.problems.pop();
        left_out += 1;
    }
    if left_out > 0 {
        let more = Problem::new(codes::TOO_LARGE, format!("{left_out} more problems were found and are not shown"));
        wire.problems.push(more.fix("solve those that are shown and ask again").into());
    }
}

/// All that a status tells.
pub fn to_problems(status: &Status) -> Problems {
    told(status).unwrap_or_else(|| guessed(status).into())
}

/// The same as one problem.
pub fn to_problem(status: &Status) -> Problem {
    to_problems(status).into_one()
}

/// The problems in its details.
fn told(status: &Status) -> Option<Problems> {
    let details = RpcStatus::decode(status.details()).ok()?;
    let any = details.details.into_iter().find(|any| any.type_url == TYPE_URL)?;
    let problems = v1::Problems::decode(any.value.as_slice()).ok()?.into_model().ok()?;
    (!problems.is_empty()).then_some(problems)
}

/// A status that no part of the grid made. If a [`Problem`] is among its causes (our connector puts one there) it is
/// that; else the code decides.
fn guessed(status: &Status) -> Problem {
    let mut causes = Vec::new();
    let mut cause = status.source();
    while let Some(error) = cause {
        if let Some(problem) = error.downcast_ref::<Problem>() {
            return problem.clone();
        }
        let text = error.to_string();
        if !text.is_empty() && !causes.contains(&text) {
            causes.push(text);
        }
        cause = error.source();
    }
    let (code, what, todo) = general(status, &causes);
    let mut problem = Problem::new(code, what).fix(todo);
    let message = shorten(status.message());
    if !causes.contains(&message) {
        problem = problem.because(message);
    }
    causes.iter().fold(problem, |problem, cause| problem.because(shorten(cause)))
}

fn general(status: &Status, causes: &[String]) -> (Code, &'static str, &'static str) {
    use tonic::Code as Grpc;
    let says = |text: &str| status.message().contains(text) || causes.iter().any(|cause| cause.contains(text));
    match status.code() {
        Grpc::Cancelled if says("Timeout expired") => deadline(),
        Grpc::DeadlineExceeded => deadline(),
        Grpc::OutOfRange | Grpc::ResourceExhausted if says("message length too large") => {
            (codes::TOO_LARGE, "a message is larger than its limit", "ask for less at a time")
        }
        Grpc::ResourceExhausted => (codes::OVERLOADED, "the other side is overloaded", "try again later"),
        Grpc::Unauthenticated => (codes::NO_CERTIFICATE, "the other side does not know who calls", "log in again"),
        Grpc::PermissionDenied => (codes::DENIED, "the other side refused the call", "ask an operator"),
        Grpc::NotFound => (codes::NOT_FOUND, "the other side does not know what was named", "check its name"),
        Grpc::AlreadyExists => (codes::EXISTS, "it exists already", "choose another name"),
        Grpc::FailedPrecondition | Grpc::Aborted => (codes::CONFLICT, "the state of things forbids it", "look again"),
        Grpc::InvalidArgument | Grpc::OutOfRange => {
            (codes::BAD_MESSAGE, "the other side did not understand the call", "upgrade the older side")
        }
        Grpc::Unimplemented => (
            codes::VERSION_SKEW,
            "the other side does not know this call",
            "upgrade the older side, or check the address",
        ),
        Grpc::DataLoss => (codes::INTERNAL, "the other side lost data", "read its log"),
        Grpc::Internal if !says("h2 protocol error") && !says("error reading a body") => {
            (codes::INTERNAL, "the other side failed", "read its log")
        }
        // What is left is the transport: refused, reset, closed in the middle of a call.
        _ => (codes::UNREACHABLE, "the other side cannot be reached", "check its address, and that it runs"),
    }
}

fn deadline() -> (Code, &'static str, &'static str) {
    (codes::DEADLINE, "the other side did not answer in time", "try again; it may be repeated without harm")
}

#[cfg(test)]
mod tests;
