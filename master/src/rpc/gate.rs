//! The gate before every service: who calls, whether callers of his kind may make this call at all, how often nobody
//! may call, and the span that the call runs in. One place, so that no service can forget it; a call that is not in the
//! access table is refused.

use crate::grid::{Bucket, Caller, Grid, block};
use plat_link::Peer;
use plat_model::Problem;
use plat_model::principal::{Principal, Role};
use plat_model::problem::codes;
use plat_wire::status::to_status;
use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tracing::Instrument;

/// Calls a second, and at once, that one address may make without a certificate. A handshake costs about 0.3 ms of a
/// core, a signature less; a rack of nodes behind one address still joins within seconds.
const NOBODY: (f64, f64) = (20.0, 100.0);

/// Calls a second, and at once, that one member may make: far more than people and their scripts do, far fewer than the
/// master answers. Operators have no bound.
const MEMBER: (f64, f64) = (500.0, 2000.0);

const HEALTH: &str = "grpc.health.v1.Health/";
const REFLECTION: &str = "grpc.reflection.v1.ServerReflection/";

#[derive(Clone)]
pub(super) struct Gate {
    grid: Arc<Grid>,
    nobody: Arc<Bucket<IpAddr>>,
    members: Arc<Bucket<Principal>>,
}

/// A service behind the gate.
#[derive(Clone)]
pub(super) struct Gated<S> {
    gate: Gate,
    inner: S,
}

/// What the gate found.
enum Found {
    Caller(Box<Caller>),
    /// Health or reflection: no verb of the grid is behind it.
    Open,
}

impl Gate {
    pub(super) fn new(grid: Arc<Grid>) -> Self {
        let (nobody, members) = (Bucket::new(NOBODY.0, NOBODY.1), Bucket::new(MEMBER.0, MEMBER.1));
        Self { grid, nobody: Arc::new(nobody), members: Arc::new(members) }
    }

    pub(super) fn before<S>(&self, inner: S) -> Gated<S> {
        Gated { gate: self.clone(), inner }
    }

    fn find(&self, rpc: &str, peer: Option<&Peer>) -> Result<Found, Problem> {
        if rpc.starts_with(HEALTH) {
            self.slow_down(peer)?;
            return Ok(Found::Open);
        }
        if rpc.starts_with(REFLECTION) {
            self.grid.known(peer)?;
            return Ok(Found::Open);
        }
        let caller = self.grid.admit(rpc, peer)?;
        match &caller.principal {
            Principal::Anonymous => self.slow_down(peer)?,
            member @ Principal::User { role: Role::Member(_), .. } => self.members.take(member)?,
            _ => {}
        }
        Ok(Found::Caller(Box::new(caller)))
    }

    fn slow_down(&self, peer: Option<&Peer>) -> Result<(), Problem> {
        match peer {
            Some(Peer { identity: None, remote }) => self.nobody.take(&block(remote.ip())),
            Some(_) => Ok(()),
            None => Err(Problem::new(codes::NO_CERTIFICATE, "nobody knows where the call came from")),
        }
    }
}

impl<S, B, R> Service<Request<B>> for Gated<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: Default + Send + 'static,
{
    type Response = Response<R>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let rpc = request.uri().path().trim_start_matches('/').to_owned();
        // tonic puts what the connection says of its peer here.
        let peer = request.extensions().get::<Peer>().cloned();
        // Nobody but this gate says who calls.
        request.extensions_mut().remove::<Caller>();
        let found = match self.gate.find(&rpc, peer.as_ref()) {
            Ok(found) => found,
            Err(problem) => {
                let from = peer.map(|peer| peer.remote.ip());
                tracing::info!(rpc = %plat_model::id::shorten(&rpc), ?from, problem = problem.one_line(), "call refused");
                return Box::pin(std::future::ready(Ok(to_status(problem).into_http())));
            }
        };
        // The clone is what `poll_ready` has not been asked of; the one that is ready is used.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let Found::Caller(caller) = found else { return Box::pin(inner.call(request)) };
        let span = tracing::info_span!("call", rpc = caller.rpc, who = %caller.principal);
        request.extensions_mut().insert((*caller).clone());
        let grid = self.gate.grid.clone();
        let call = async move {
            if let Err(problem) = grid.first_use(&caller).await {
                return Ok(to_status(problem).into_http());
            }
            inner.call(request).await
        };
        Box::pin(call.instrument(span))
    }
}
