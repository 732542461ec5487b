//! GridService: wire → model → one verb of the grid → wire.

use super::views::{explanation, instance, node, release};
use super::{Answers, answers, caller, fit, page, said, status};
use crate::grid::{Grid, InstanceKey, LogAsk, LogText, Outcome, RequestAsk};
use plat_master_plan::rebuild::Rebuild;
use plat_master_plan::release::Targets;
use plat_model::id::{HookName, InstanceName, NodeId, ProjectName, ReleaseName, ServiceName};
use plat_model::instance::{PlacementRules, Wish};
use plat_model::parameters::Parameters;
use plat_model::principal::Principal;
use plat_model::problem::codes;
use plat_model::release::SupplyState;
use plat_model::{Problem, Problems};
use plat_wire::IntoModel;
use plat_wire::limits::log_lines;
use plat_wire::v1;
use plat_wire::v1::grid_service_server::GridService;
use std::collections::BTreeSet;
use std::sync::Arc;
use tonic::{Request, Response, Status};

pub(super) struct Service(pub Arc<Grid>);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl GridService for Service {
    async fn who_am_i(&self, request: Request<v1::WhoAmIRequest>) -> Answer<v1::WhoAmIResponse> {
        let Principal::User { name, role } = caller(&request)?.principal else {
            return Err(status(Problem::new(codes::DENIED, "only users are somebody here")));
        };
        let (role, project) = super::views::role(&role);
        Ok(Response::new(v1::WhoAmIResponse {
            grid: self.0.name().to_string(),
            user: name.to_string(),
            role,
            project,
            master_version: env!("CARGO_PKG_VERSION").into(),
        }))
    }

    async fn add_release(&self, request: Request<v1::AddReleaseRequest>) -> Answer<v1::ReleaseView> {
        let caller = caller(&request)?;
        let ask = request.into_inner();
        let name = said(&ask.name, ReleaseName::parse).map_err(status)?;
        let view = self.0.add_release(&caller, name.as_ref(), &ask.document).await.map_err(status)?;
        Ok(Response::new(release(view)))
    }

    async fn list_releases(&self, request: Request<v1::ListRequest>) -> Answer<v1::ListReleasesResponse> {
        let caller = caller(&request)?;
        let ask = request.into_inner();
        let (views, next) = self.0.releases(&caller, &page(ask.page_size, ask.page_token)).await.map_err(status)?;
        let (releases, next) = fit(views.into_iter().map(release).collect(), next, |view| view.digest.clone());
        Ok(Response::new(v1::ListReleasesResponse { releases, next_page_token: next }))
    }

    async fn show_release(&self, request: Request<v1::ShowReleaseRequest>) -> Answer<v1::ReleaseView> {
        let caller = caller(&request)?;
        let view = self.0.release(&caller, &request.into_inner().release).await.map_err(status)?;
        Ok(Response::new(release(view)))
    }

    async fn supply(&self, request: Request<v1::SupplyRequest>) -> Answer<v1::SupplyResponse> {
        let caller = caller(&request)?;
        let ask = request.into_inner();
        let targets = targets(&ask).map_err(status)?;
        let wanted = if ask.remove { SupplyState::Removed } else { SupplyState::Available };
        let (digest, nodes) = self.0.supply(&caller, &ask.release, &targets, wanted).await.map_err(status)?;
        let nodes = nodes.iter().map(ToString::to_string).collect();
        Ok(Response::new(v1::SupplyResponse { digest: digest.to_string(), nodes }))
    }

    async fn rebuild_release(&self, request: Request<v1::RebuildReleaseRequest>) -> Answer<v1::RebuildReleaseResponse> {
        let caller = caller(&request)?;
        let ask = request.into_inner();
        let nodes = nodes(&ask.nodes).map_err(status)?;
        let (digest, nodes) = self.0.rebuild(&caller, &ask.release, &nodes).await.map_err(status)?;
        let nodes = nodes.into_iter().map(|Rebuild { node, asked, why, number }| v1::NodeRebuild {
            node: node.to_string(),
            asked,
            why,
            number,
        });
        Ok(Response::new(v1::RebuildReleaseResponse { digest: digest.to_string(), nodes: nodes.collect() }))
    }

    type ReleaseLogStream = Answers<v1::LogLines>;
    async fn release_log(&self, request: Request<v1::ReleaseLogRequest>) -> Answer<Self::ReleaseLogStream> {
        let caller = caller(&request)?;
        let ask = request.into_inner();
        let node = NodeId::parse(&ask.node).map_err(status)?;
        let lines = LogAsk { lines: log_lines(ask.lines), follow: ask.follow, ..LogAsk::default() };
        let stream = self.0.release_log(&caller, &ask.release, &node, lines).await.map_err(status)?;
        Ok(Response::new(answers(stream, log_lines_of)))
    }

    async fn request(&self, request: Request<v1::RequestRequest>) -> Answer<v1::InstanceView> {
        let caller = caller(&request)?;
        let wire = request.into_inner();
        let outcome = if wire.dry_run { Outcome::DryRun } else { Outcome::Commit };
        let ask = request_ask(wire).map_err(status)?;
        let view = self.0.request(&caller, ask, outcome).await.map_err(status)?;
        Ok(Response::new(instance(view)))
    }

    async fn set_wish(&self, request: Request<v1::SetWishRequest>) -> Answer<v1::InstanceView> {
        let caller = caller(&request)?;
        let (project, name, wish, kept) = request.into_inner().into_model().map_err(status)?;
        let view = self.0.set_wish(&caller, &InstanceKey { project, name }, wish, kept).await.map_err(status)?;
        Ok(Response::new(instance(view)))
    }

    async fn run_hook(&self, request: Request<v1::RunHookRequest>) -> Answer<v1::RunHookResponse> {
        let caller = caller(&request)?;
        let (project, name, hook) = request.into_inner().into_model().map_err(status)?;
        let asked = self.0.run_hook(&caller, &InstanceKey { project, name }, &hook).await;
        let (number, view) = asked.map_err(status)?;
        Ok(Response::new(v1::RunHookResponse { number, instance: Some(instance(view)) }))
    }

    async fn list_instances(&self, request: Request<v1::ListInstancesRequest>) -> Answer<v1::ListInstancesResponse> {
        let caller = caller(&request)?;
        let ask = request.into_inner();
        let project = said(&ask.project, ProjectName::parse).map_err(status)?;
        let page = page(ask.page_size, ask.page_token);
        let (views, next) = self.0.instances(&caller, project.as_ref(), &page).await.map_err(status)?;
        let token = |view: &v1::InstanceView| format!("{}/{}", view.project, view.name);
        let (instances, next) = fit(views.into_iter().map(instance).collect(), next, token);
        Ok(Response::new(v1::ListInstancesResponse { instances, next_page_token: next }))
    }

    async fn show_instance(&self, request: Request<v1::InstanceKey>) -> Answer<v1::InstanceView> {
        let caller = caller(&request)?;
        let key = key(request.into_inner()).map_err(status)?;
        Ok(Response::new(instance(self.0.instance(&caller, &key).await.map_err(status)?)))
    }

    type WatchInstanceStream = Answers<v1::InstanceView>;
    async fn watch_instance(&self, request: Request<v1::InstanceKey>) -> Answer<Self::WatchInstanceStream> {
        let caller = caller(&request)?;
        let key = key(request.into_inner()).map_err(status)?;
        let stream = self.0.watch_instance(&caller, &key).await.map_err(status)?;
        Ok(Response::new(answers(stream, instance)))
    }

    type WatchGridStream = Answers<v1::GridNudge>;
    async fn watch_grid(&self, request: Request<v1::WatchGridRequest>) -> Answer<Self::WatchGridStream> {
        let stream = self.0.watch_grid(&caller(&request)?).await.map_err(status)?;
        Ok(Response::new(answers(stream, |revision| v1::GridNudge { revision })))
    }

    async fn explain_instance(&self, request: Request<v1::InstanceKey>) -> Answer<v1::Explanation> {
        let caller = caller(&request)?;
        let key = key(request.into_inner()).map_err(status)?;
        let (view, verdicts) = self.0.explain(&caller, &key).await.map_err(status)?;
        Ok(Response::new(explanation(view, verdicts)))
    }

    type LogsStream = Answers<v1::LogLines>;
    async fn logs(&self, request: Request<v1::LogsRequest>) -> Answer<Self::LogsStream> {
        let caller = caller(&request)?;
        let ask = request.into_inner();
        let key = key(ask.key.unwrap_or_default()).map_err(status)?;
        let service = said(&ask.service, ServiceName::parse).map_err(status)?;
        let hook = said(&ask.hook, HookName::parse).map_err(status)?;
        let ask = LogAsk { service, hook, lines: log_lines(ask.lines), follow: ask.follow, promises: ask.promises };
        let stream = self.0.logs(&caller, &key, ask).await.map_err(status)?;
        Ok(Response::new(answers(stream, log_lines_of)))
    }

    async fn list_nodes(&self, request: Request<v1::ListRequest>) -> Answer<v1::ListNodesResponse> {
        let caller = caller(&request)?;
        let ask = request.into_inner();
        let (views, next) = self.0.nodes(&caller, &page(ask.page_size, ask.page_token)).await.map_err(status)?;
        let (nodes, next) = fit(views.into_iter().map(node).collect(), next, |view| view.id.clone());
        Ok(Response::new(v1::ListNodesResponse { nodes, next_page_token: next }))
    }

    async fn show_node(&self, request: Request<v1::NodeKey>) -> Answer<v1::NodeView> {
        let caller = caller(&request)?;
        let id = request.into_inner().into_model().map_err(status)?;
        Ok(Response::new(node(self.0.node(&caller, &id).await.map_err(status)?)))
    }
}

fn key(wire: v1::InstanceKey) -> Result<InstanceKey, Problems> {
    let (project, name) = wire.into_model()?;
    Ok(InstanceKey { project, name })
}

fn targets(ask: &v1::SupplyRequest) -> Result<Targets, Problems> {
    match (ask.all_nodes, ask.nodes.is_empty()) {
        (true, true) => Ok(Targets::All),
        (false, false) => Ok(Targets::Nodes(nodes(&ask.nodes)?)),
        _ => Err(Problem::new(codes::BAD_VALUE, "it is not clear on which nodes the release is to be")
            .fix("name nodes, or say all of them")
            .into()),
    }
}

/// Nodes by their names.
fn nodes(names: &[String]) -> Result<BTreeSet<NodeId>, Problems> {
    let mut problems = Problems::default();
    let nodes = names.iter().filter_map(|node| problems.keep(NodeId::parse(node))).collect();
    problems.none_or(nodes)
}

fn request_ask(wire: v1::RequestRequest) -> Result<RequestAsk, Problems> {
    let mut problems = Problems::default();
    let at = |problem: Problem, field: &str| problem.at(field);
    let project = problems.keep(said(&wire.project, ProjectName::parse).map_err(|p| at(p, "project")));
    let name = problems.keep(InstanceName::parse(&wire.name).map_err(|p| at(p, "name")));
    let parameters = wire.parameters_json.as_deref().map(Parameters::parse_json).transpose();
    let parameters = problems.keep(parameters.map_err(|p| at(p, "parameters")));
    let mut model = |result: Result<PlacementRules, Problems>| result.map_err(|all| problems.extend(all)).ok();
    let rules = wire.rules.map(|rules| model(rules.into_model()));
    let resources = wire.resources.map(|wire| wire.into_model().map_err(|all| problems.extend(all)).ok());
    let wish = match v1::Wish::try_from(wire.wish) {
        Ok(v1::Wish::Unspecified) => None,
        Ok(v1::Wish::Started) => Some(Wish::Started),
        Ok(v1::Wish::Stopped) => Some(Wish::Stopped),
        Ok(v1::Wish::Destroyed) => Some(Wish::Destroyed),
        Err(_) => {
            problems.push(Problem::new(codes::BAD_MESSAGE, "there is no such wish").at("wish"));
            None
        }
    };
    let kind = plat_wire::convert::kind(wire.shared, &wire.on, &plat_wire::Place::root(), &mut problems);
    let (Some(project), Some(name), Some(parameters)) = (project, name, parameters) else { return Err(problems) };
    problems.none_or(RequestAsk {
        key: InstanceKey { project, name },
        release: Some(wire.release).filter(|release| !release.is_empty()),
        parameters,
        rules: rules.flatten(),
        resources: resources.flatten(),
        wish,
        kind: kind.unwrap_or_default(),
    })
}

fn log_lines_of(lines: Vec<LogText>) -> v1::LogLines {
    v1::LogLines {
        lines: lines.into_iter().map(|line| v1::LogLine { service: line.service, text: line.text }).collect(),
    }
}
