//! The services on one listener. Every call passes the gate, which knows who calls before any service sees it.

mod admin;
mod gate;
mod grid;
mod node;
mod usage;
mod views;

use crate::grid::show::Page;
use crate::grid::{Caller, Grid};
use futures_util::{Stream, StreamExt};
use gate::Gate;
use plat_model::problem::codes;
use plat_model::{Problem, Problems};
use plat_wire::limits::{fitting, page_size};
use plat_wire::status::to_status;
use std::pin::Pin;
use std::sync::Arc;
use tonic::service::Routes;
use tonic::{Request, Status};

/// All services over a grid, behind the gate.
///
/// # Errors
/// [`codes::INTERNAL`] if the descriptors of the services cannot be read.
pub async fn routes(grid: Arc<Grid>) -> Result<Routes, Problem> {
    let (health, health_service) = tonic_health::server::health_reporter();
    for service in ["NodeService", "GridService", "AdminService", "UsageService"] {
        health.set_service_status(format!("plat.v1.{service}"), tonic_health::ServingStatus::Serving).await;
    }
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(plat_wire::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|e| Problem::new(codes::INTERNAL, "the services cannot be described").because(e))?;
    let routes = Routes::new(plat_wire::ends::node_server(node::Service(grid.clone())))
        .add_service(plat_wire::ends::grid_server(grid::Service(grid.clone())))
        .add_service(plat_wire::ends::admin_server(admin::Service(grid.clone())))
        .add_service(plat_wire::ends::usage_server(usage::Service(grid.clone())))
        .add_service(health_service)
        .add_service(reflection);
    let gate = Gate::new(grid);
    Ok(Routes::from(routes.prepare().into_axum_router().layer(tower::layer::layer_fn(move |inner| gate.before(inner)))))
}

/// A stream of answers as the generated services want it.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Who calls. A call that did not pass the gate has no caller and gets nothing.
fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    request
        .extensions()
        .get::<Caller>()
        .cloned()
        .ok_or_else(|| to_status(Problem::new(codes::DENIED, "the call did not pass the gate")))
}

fn answers<T, W>(stream: crate::grid::Stream<T>, write: fn(T) -> W) -> Answers<W>
where
    T: Send + 'static,
    W: 'static,
{
    Box::pin(stream.map(move |item| item.map(write).map_err(status)))
}

fn status(problems: impl Into<Problems>) -> Status {
    let problems = problems.into();
    for problem in &problems.0 {
        if problem.category() == plat_model::Category::Failed {
            tracing::error!(problem = problem.one_line(), "call failed");
        }
    }
    to_status(problems)
}

fn page(size: u32, token: String) -> Page {
    Page { size: page_size(size), token }
}

/// As many items of a page as fit in one message, and the next page's token: if some were left out, that of the last.
fn fit<M: prost::Message>(mut items: Vec<M>, next: String, token: impl Fn(&M) -> String) -> (Vec<M>, String) {
    let fitting = fitting(&items);
    if fitting == items.len() {
        return (items, next);
    }
    items.truncate(fitting);
    let next = items.last().map_or_else(String::new, token);
    (items, next)
}

/// An optional text: empty means that it is not said.
fn said<T>(text: &str, parse: fn(&str) -> Result<T, Problem>) -> Result<Option<T>, Problem> {
    if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}
