//! What is printed, as stable documents: the `json` and `yaml` outputs are these, the tables are drawn from them.
//! Keys are only ever added.

use plat_wire::v1;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

mod admin;
mod run;

pub use admin::{
    AuditView, LedgerLineView, MeView, NewTokenView, RateCardView, StatementView, TokenView, UsageView, UserView,
};
pub use run::{RebuildView, RunView};

/// Milliseconds since the epoch as RFC 3339; nothing for 0.
pub fn time(ms: i64) -> Option<String> {
    (ms != 0).then(|| plat_model::Timestamp(ms).to_string())
}

fn object(json: &str) -> Map<String, Value> {
    serde_json::from_str(json).unwrap_or_default()
}

fn lower<E: std::fmt::Debug>(value: Result<E, impl Sized>) -> String {
    value.map_or_else(|_| "unknown".to_owned(), |value| format!("{value:?}").to_lowercase())
}

#[derive(Debug, Clone, Serialize)]
pub struct ProblemView {
    pub code: String,
    pub what: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    #[serde(rename = "try", skip_serializing_if = "String::is_empty")]
    pub todo: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub at: String,
}

impl From<v1::Problem> for ProblemView {
    fn from(p: v1::Problem) -> Self {
        Self { code: p.code, what: p.what, why: p.why, todo: p.todo, at: p.at }
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct InstanceView {
    pub id: String,
    pub project: String,
    pub name: String,
    pub release: String,
    pub release_digest: String,
    /// `started`, `stopped` or `destroyed`.
    pub wish: String,
    /// What has become of it: `waiting`, `installing`, `starting`, `ready`, …
    pub state: String,
    pub since: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
    pub node: Option<String>,
    pub partition: Option<String>,
    pub generation: u64,
    pub created: Option<String>,
    /// When it is to be destroyed, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaves: Option<String>,
    pub parameters: Map<String, Value>,
    /// What it publishes.
    pub connection: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<ProblemView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<WaitingView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub promises: Vec<PromiseView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installation: Option<InstallationView>,
    /// What it says of itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub said: Option<SaidView>,
    /// The last runs of hooks that were asked for and are over, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ran: Vec<RunView>,
    /// The instance that asked for it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub parent: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<String>,
    /// Of a shared one, the instance that it is in.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub on: String,
    /// The shared ones in it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shared: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct SaidView {
    pub well: bool,
    pub text: String,
}

/// An instance in a list of several projects.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct InProject<'a>(pub &'a InstanceView);

/// One line that a service wrote.
#[derive(Debug, Clone, Serialize)]
pub struct LogLineView {
    pub service: String,
    pub text: String,
}

impl From<v1::LogLine> for LogLineView {
    fn from(line: v1::LogLine) -> Self {
        Self { service: line.service, text: line.text }
    }
}

/// Checks of one promise in a row that said the same.
#[derive(Debug, Clone, Serialize)]
pub struct ResultView {
    pub promise: String,
    pub said: String,
}

impl From<v1::LogLine> for ResultView {
    fn from(line: v1::LogLine) -> Self {
        Self { promise: line.service, said: line.text }
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct WaitingView {
    pub who: String,
    pub on: String,
    pub since: Option<String>,
    #[serde(rename = "try", skip_serializing_if = "String::is_empty")]
    pub todo: String,
}

#[derive(Debug, Clone, Serialize)]
pub struct ServiceView {
    pub name: String,
    /// `service` or `oneshot`.
    pub kind: String,
    pub state: String,
    pub pid: Option<u32>,
    pub restarts: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_exit: String,
    pub since: Option<String>,
    /// Of what runs at times: which, and when next.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub schedule: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Times that passed because it was running.
    #[serde(skip_serializing_if = "is_zero")]
    pub skipped: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl From<v1::ServiceStatus> for ServiceView {
    fn from(status: v1::ServiceStatus) -> Self {
        let kind = match v1::ServiceKind::try_from(status.kind) {
            Ok(v1::ServiceKind::Unspecified) => "service".to_owned(),
            kind => lower(kind),
        };
        Self {
            name: status.name,
            kind,
            state: lower(v1::ServiceState::try_from(status.state)),
            pid: status.pid,
            restarts: status.restarts,
            last_exit: status.last_exit,
            since: time(status.since_ms),
            schedule: status.schedule,
            next: status.next_ms.and_then(time),
            skipped: status.skipped,
        }
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct PromiseView {
    pub name: String,
    pub holds: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When the check was made that this was told after.
    pub checked: Option<String>,
    /// Since when it has held, or not held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct InstallationView {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node: String,
    pub state: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub progress: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<ProblemView>,
    /// The last wish to build it again that the node has acted on.
    #[serde(skip)]
    pub rebuild: u64,
}

impl InstallationView {
    fn of(node: String, installation: Option<v1::Installation>) -> Self {
        let installation = installation.unwrap_or_default();
        let state = match v1::InstallState::try_from(installation.state) {
            Ok(v1::InstallState::Unspecified) => "absent".to_owned(),
            state => lower(state),
        };
        let (progress, problem) = (installation.progress, installation.problem.map(Into::into));
        Self { node, state, progress, problem, rebuild: installation.rebuild }
    }
}

impl From<v1::InstanceView> for InstanceView {
    fn from(view: v1::InstanceView) -> Self {
        let status = view.status.unwrap_or_default();
        let state = match v1::InstanceState::try_from(status.state) {
            Ok(v1::InstanceState::Unspecified) => "waiting".to_owned(),
            state => lower(state),
        };
        let (node, partition) = view.placement.map_or((None, None), |at| (Some(at.node), Some(at.partition)));
        Self {
            id: view.id,
            project: view.project,
            name: view.name,
            release: view.release_name,
            release_digest: view.release,
            wish: lower(v1::Wish::try_from(view.wish)),
            state,
            since: time(status.since_ms),
            detail: status.detail,
            node,
            partition,
            generation: view.generation,
            created: time(view.created_ms),
            leaves: time(view.leaves_ms),
            parameters: object(&view.parameters_json),
            connection: object(&status.connection_json),
            problem: status.problem.map(Into::into),
            waiting: view
                .waiting
                .into_iter()
                .map(|w| WaitingView { who: w.who, on: w.on, since: time(w.since_ms), todo: w.todo })
                .collect(),
            services: status.services.into_iter().map(Into::into).collect(),
            promises: status
                .promises
                .into_iter()
                .map(|p| PromiseView {
                    name: p.name,
                    holds: p.holds,
                    message: p.message,
                    checked: time(p.checked_ms),
                    since: p.since_ms.and_then(time),
                })
                .collect(),
            installation: view.installation.map(|i| InstallationView::of(String::new(), Some(i))),
            ran: status.ran.into_iter().map(Into::into).collect(),
            said: status.said.map(|said| SaidView { well: said.well, text: said.text }),
            parent: view.parent,
            children: view.children,
            on: view.on,
            shared: view.shared,
        }
    }
}

/// A document that was checked here and is good.
#[derive(Debug, Clone, Serialize)]
pub struct CheckView {
    pub file: String,
    pub name: String,
    pub digest: String,
}

#[derive(Debug, Clone, Serialize)]
pub struct ReleaseView {
    pub name: String,
    pub digest: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub title: String,
    pub added: Option<String>,
    pub instances: u32,
    /// Supplied to all nodes, those to come included.
    pub all_nodes: bool,
    pub nodes: Vec<InstallationView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<Value>,
}

impl From<v1::ReleaseView> for ReleaseView {
    fn from(view: v1::ReleaseView) -> Self {
        Self {
            name: view.name,
            digest: view.digest,
            title: view.title,
            added: time(view.added_ms),
            instances: view.instances,
            all_nodes: view.all_nodes,
            nodes: view.installations.into_iter().map(|i| InstallationView::of(i.node, i.installation)).collect(),
            document: serde_json::from_str(&view.document).ok(),
        }
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct NodeView {
    pub name: String,
    /// `online`, `silent` or `revoked`.
    pub state: String,
    pub labels: BTreeMap<String, String>,
    pub enrolled: Option<String>,
    pub last_seen: Option<String>,
    pub generation_desired: u64,
    pub generation_reported: u64,
    /// What keeps its services running; nothing where an older agent does not say.
    pub runtime: Option<String>,
    /// What every partition is held to.
    pub enforced: Vec<String>,
    /// What is wrong with it as a whole, a full disk or a wrong clock.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<ProblemView>,
    pub partitions: Vec<PartitionView>,
    pub releases: Vec<NodeReleaseView>,
}

#[derive(Debug, Clone, Serialize)]
pub struct PartitionView {
    pub name: String,
    pub addresses: Vec<String>,
    /// `project/name`, or nothing while it is free.
    pub instance: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct NodeReleaseView {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    pub digest: String,
    pub wanted: bool,
    #[serde(flatten)]
    pub installation: InstallationView,
}

impl From<v1::NodeView> for NodeView {
    fn from(view: v1::NodeView) -> Self {
        let state = match (view.revoked, view.online) {
            (true, _) => "revoked",
            (false, true) => "online",
            (false, false) => "silent",
        };
        Self {
            name: view.id,
            state: state.into(),
            labels: view.labels.into_iter().collect(),
            enrolled: time(view.enrolled_ms),
            last_seen: time(view.last_seen_ms),
            generation_desired: view.generation_desired,
            generation_reported: view.generation_reported,
            runtime: Some(view.runtime).filter(|runtime| !runtime.is_empty()),
            enforced: view.enforced,
            troubles: view.troubles.into_iter().map(Into::into).collect(),
            partitions: view
                .partitions
                .into_iter()
                .map(|p| PartitionView {
                    name: p.name,
                    addresses: p.addresses,
                    instance: (!p.instance_name.is_empty())
                        .then(|| format!("{}/{}", p.instance_project, p.instance_name)),
                })
                .collect(),
            releases: view
                .installations
                .into_iter()
                .map(|i| NodeReleaseView {
                    name: String::new(),
                    digest: i.installation.as_ref().map(|x| x.digest.clone()).unwrap_or_default(),
                    wanted: i.wanted,
                    installation: InstallationView::of(String::new(), i.installation),
                })
                .collect(),
        }
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct ExplanationView {
    pub instance: InstanceView,
    pub nodes: Vec<VerdictView>,
}

#[derive(Debug, Clone, Serialize)]
pub struct VerdictView {
    pub node: String,
    pub chosen: bool,
    pub reasons: Vec<String>,
}

impl From<v1::Explanation> for ExplanationView {
    fn from(e: v1::Explanation) -> Self {
        Self {
            instance: e.instance.unwrap_or_default().into(),
            nodes: e
                .nodes
                .into_iter()
                .map(|n| VerdictView { node: n.node, chosen: n.chosen, reasons: n.reasons })
                .collect(),
        }
    }
}
