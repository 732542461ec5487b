//! What a node reports: of its instances with their services and promises, and of its releases.

use super::states::read_enum;
use crate::convert::{IntoModel, Place, bounded, owned};
use crate::limits::{SERVICES_MAX, TEXT_MAX};
use crate::v1;
use plat_model::id::{Digest, InstanceId, PromiseName, ServiceName};
use plat_model::instance::{InstanceStatus, PromiseStatus, ServiceKind, ServiceStatus};
use plat_model::parameters::Parameters;
use plat_model::release::Installation;
use plat_model::run::RUNS_MAX;
use plat_model::tree::{SAID_MAX, Said};
use plat_model::{Generation, Problems};

owned! {
    v1::ServiceStatus, ServiceStatus;
    v1::PromiseStatus, PromiseStatus;
    v1::InstanceStatus, InstanceStatus;
    v1::Installation, Installation;
}

impl From<&ServiceStatus> for v1::ServiceStatus {
    fn from(status: &ServiceStatus) -> Self {
        Self {
            name: status.name.to_string(),
            state: v1::ServiceState::from(status.state).into(),
            pid: status.pid,
            restarts: status.restarts,
            last_exit: bounded(&status.last_exit, TEXT_MAX),
            since_ms: status.since.0,
            kind: v1::ServiceKind::from(status.kind).into(),
            schedule: bounded(&status.schedule, TEXT_MAX),
            next_ms: status.next.map(|next| next.0),
            skipped: status.skipped,
        }
    }
}

impl IntoModel for v1::ServiceStatus {
    type Model = ServiceStatus;
    fn read(self, at: &Place, problems: &mut Problems) -> Option<ServiceStatus> {
        let name = at.field("name").parse(&self.name, ServiceName::parse, problems);
        let state = read_enum::<v1::ServiceState>(self.state, &at.field("state"), problems);
        let last_exit = at.field("last_exit").text(self.last_exit, TEXT_MAX, problems);
        let since = at.field("since_ms").time(self.since_ms, problems);
        let kind = match self.kind {
            0 => Some(ServiceKind::Service),
            said => read_enum::<v1::ServiceKind>(said, &at.field("kind"), problems),
        };
        let schedule = at.field("schedule").text(self.schedule, TEXT_MAX, problems);
        let next = match self.next_ms {
            None => Some(None),
            Some(next) => at.field("next_ms").time(next, problems).map(Some),
        };
        Some(ServiceStatus {
            name: name?,
            kind: kind?,
            state: state?,
            pid: self.pid,
            restarts: self.restarts,
            last_exit: last_exit?,
            since: since?,
            schedule: schedule?,
            next: next?,
            skipped: self.skipped,
        })
    }
}

impl From<&PromiseStatus> for v1::PromiseStatus {
    fn from(status: &PromiseStatus) -> Self {
        Self {
            name: status.name.to_string(),
            holds: status.holds,
            message: bounded(&status.message, TEXT_MAX),
            checked_ms: status.checked.0,
            since_ms: status.since.map(|since| since.0),
        }
    }
}

impl IntoModel for v1::PromiseStatus {
    type Model = PromiseStatus;
    fn read(self, at: &Place, problems: &mut Problems) -> Option<PromiseStatus> {
        let name = at.field("name").parse(&self.name, PromiseName::parse, problems);
        let message = at.field("message").text(self.message, TEXT_MAX, problems);
        let checked = at.field("checked_ms").time(self.checked_ms, problems);
        let since = match self.since_ms {
            None => Some(None),
            Some(since) => at.field("since_ms").time(since, problems).map(Some),
        };
        Some(PromiseStatus { name: name?, holds: self.holds, message: message?, checked: checked?, since: since? })
    }
}

impl From<&Said> for v1::Said {
    fn from(said: &Said) -> Self {
        Self { well: said.well, text: bounded(&said.text, SAID_MAX) }
    }
}

impl IntoModel for v1::Said {
    type Model = Said;
    fn read(self, at: &Place, problems: &mut Problems) -> Option<Said> {
        Some(Said { well: self.well, text: at.field("text").text(self.text, SAID_MAX, problems)? })
    }
}

impl From<&InstanceStatus> for v1::InstanceStatus {
    fn from(status: &InstanceStatus) -> Self {
        Self {
            id: status.id.to_string(),
            generation: status.generation.0,
            state: v1::InstanceState::from(status.state).into(),
            since_ms: status.since.0,
            detail: bounded(&status.detail, TEXT_MAX),
            problem: status.problem.as_ref().map(Into::into),
            connection_json: crate::convert::node::json(&status.connection),
            services: status.services.iter().map(Into::into).collect(),
            promises: status.promises.iter().map(Into::into).collect(),
            said: status.said.as_ref().map(Into::into),
            ran: status.ran.iter().map(Into::into).collect(),
            found: status.found,
        }
    }
}

impl IntoModel for v1::InstanceStatus {
    type Model = InstanceStatus;
    fn read(self, at: &Place, problems: &mut Problems) -> Option<InstanceStatus> {
        let id = at.field("id").parse(&self.id, InstanceId::parse, problems);
        let state = read_enum::<v1::InstanceState>(self.state, &at.field("state"), problems);
        let since = at.field("since_ms").time(self.since_ms, problems);
        let detail = at.field("detail").text(self.detail, TEXT_MAX, problems);
        let problem = at.field("problem").maybe(self.problem, problems);
        let connection = at.field("connection_json").parse(&self.connection_json, Parameters::parse_json, problems);
        let services = at.field("services").all(self.services, SERVICES_MAX, problems);
        let promises = at.field("promises").all(self.promises, SERVICES_MAX, problems);
        let said = at.field("said").maybe(self.said, problems);
        let ran = at.field("ran").all(self.ran, RUNS_MAX, problems);
        Some(InstanceStatus {
            id: id?,
            generation: Generation(self.generation),
            state: state?,
            since: since?,
            detail: detail?,
            problem: problem?,
            connection: connection?,
            services: services?,
            promises: promises?,
            said: said?,
            ran: ran?,
            found: self.found,
        })
    }
}

impl From<&Installation> for v1::Installation {
    fn from(installation: &Installation) -> Self {
        Self {
            digest: installation.digest.to_string(),
            state: v1::InstallState::from(installation.state).into(),
            progress: bounded(&installation.progress, TEXT_MAX),
            problem: installation.problem.as_ref().map(Into::into),
            rebuild: installation.rebuild,
        }
    }
}

impl IntoModel for v1::Installation {
    type Model = Installation;
    fn read(self, at: &Place, problems: &mut Problems) -> Option<Installation> {
        let digest = at.field("digest").parse(&self.digest, Digest::parse, problems);
        let state = read_enum::<v1::InstallState>(self.state, &at.field("state"), problems);
        let progress = at.field("progress").text(self.progress, TEXT_MAX, problems);
        let problem = at.field("problem").maybe(self.problem, problems);
        let rebuild = self.rebuild;
        Some(Installation { digest: digest?, state: state?, progress: progress?, problem: problem?, rebuild })
    }
}
