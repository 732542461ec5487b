//! What an instance asks of the master through its node, and what it is told.

use super::node::json;
use super::types::read_enum;
use super::{IntoModel, Place};
use crate::limits::TEXT_MAX;
use crate::v1;
use crate::v1::for_instance_request::Ask as Wire;
use plat_model::Problems;
use plat_model::id::{InstanceId, InstanceName, NAME_MAX};
use plat_model::instance::Wish;
use plat_model::parameters::Parameters;
use plat_model::tree::{Child, ChildAsk, Kind, SharedDesired, TREE_MAX, TreeAsk};

impl From<&SharedDesired> for v1::SharedInstance {
    fn from(shared: &SharedDesired) -> Self {
        Self { id: shared.id.to_string(), name: shared.name.to_string(), parameters_json: json(&shared.parameters) }
    }
}

impl IntoModel for v1::SharedInstance {
    type Model = SharedDesired;
    fn read(self, at: &Place, problems: &mut Problems) -> Option<SharedDesired> {
        let id = at.field("id").parse(&self.id, InstanceId::parse, problems);
        let name = at.field("name").parse(&self.name, InstanceName::parse, problems);
        let parameters = at.field("parameters_json").parse(&self.parameters_json, Parameters::parse_json, problems);
        Some(SharedDesired { id: id?, name: name?, parameters: parameters? })
    }
}

/// Where a requested instance is to be, from the two fields that say it.
pub fn kind(shared: bool, on: &str, at: &Place, problems: &mut Problems) -> Option<Kind> {
    match (shared, on) {
        (false, "") => Some(Kind::Own),
        (false, _) => {
            problems.push(at.field("on").wrong("only a shared instance is in another one").fix("say `shared` too"));
            None
        }
        (true, "") => Some(Kind::Shared { on: None }),
        (true, on) => Some(Kind::Shared { on: Some(at.field("on").parse(on, InstanceName::parse, problems)?) }),
    }
}

fn unkind(kind: &Kind) -> (bool, String) {
    match kind {
        Kind::Own => (false, String::new()),
        Kind::Shared { on } => (true, on.as_ref().map_or_else(String::new, ToString::to_string)),
    }
}

/// The request that an instance's node makes for it.
pub fn for_instance(instance: &InstanceId, ask: &TreeAsk) -> v1::ForInstanceRequest {
    let ask = match ask {
        TreeAsk::Request(ask) => {
            let (shared, on) = unkind(&ask.kind);
            Wire::Request(v1::ChildRequest {
                name: ask.name.to_string(),
                release: ask.release.clone().unwrap_or_default(),
                parameters_json: ask.parameters.as_ref().map(json),
                resources: ask.resources.map(Into::into),
                wish: ask.wish.map_or(v1::Wish::Unspecified, v1::Wish::from).into(),
                shared,
                on,
            })
        }
        TreeAsk::Children => Wire::Children(v1::ListChildren {}),
        TreeAsk::Publish { shared, connection } => {
            Wire::Publish(v1::PublishShared { shared: shared.to_string(), connection_json: json(connection) })
        }
        TreeAsk::Bang => Wire::Bang(v1::Bang {}),
    };
    v1::ForInstanceRequest { instance: instance.to_string(), ask: Some(ask) }
}

impl IntoModel for v1::ForInstanceRequest {
    type Model = (InstanceId, TreeAsk);
    fn read(self, at: &Place, problems: &mut Problems) -> Option<Self::Model> {
        let instance = at.field("instance").parse(&self.instance, InstanceId::parse, problems);
        let ask = match self.ask {
            Some(Wire::Request(ask)) => {
                ask.read(&at.field("request"), problems).map(|ask| TreeAsk::Request(Box::new(ask)))
            }
            Some(Wire::Children(v1::ListChildren {})) => Some(TreeAsk::Children),
            Some(Wire::Publish(wire)) => {
                let at = at.field("publish");
                let shared = at.field("shared").parse(&wire.shared, InstanceId::parse, problems);
                let connection =
                    at.field("connection_json").parse(&wire.connection_json, Parameters::parse_json, problems);
                shared.zip(connection).map(|(shared, connection)| TreeAsk::Publish { shared, connection })
            }
            Some(Wire::Bang(v1::Bang {})) => Some(TreeAsk::Bang),
            None => {
                problems.push(at.wrong("an instance asks for nothing that this version knows"));
                None
            }
        };
        Some((instance?, ask?))
    }
}

impl IntoModel for v1::ChildRequest {
    type Model = ChildAsk;
    fn read(self, at: &Place, problems: &mut Problems) -> Option<ChildAsk> {
        let name = at.field("name").parse(&self.name, InstanceName::parse, problems);
        // A digest has one digit more than a name may have bytes.
        let release = at.field("release").text(self.release, NAME_MAX + 1, problems);
        let place = at.field("parameters_json");
        let parameters = match self.parameters_json {
            Some(text) => place.parse(&text, Parameters::parse_json, problems).map(Some),
            None => Some(None),
        };
        let resources = at.field("resources").maybe(self.resources, problems);
        let wish = match self.wish {
            0 => Some(None),
            wish => read_enum::<v1::Wish>(wish, &at.field("wish"), problems).map(Some),
        };
        let kind = kind(self.shared, &self.on, at, problems);
        Some(ChildAsk {
            name: name?,
            release: release.map(|text| Some(text).filter(|text| !text.is_empty()))?,
            parameters: parameters?,
            resources: resources?,
            wish: wish?,
            kind: kind?,
        })
    }
}

impl From<&Child> for v1::Child {
    fn from(child: &Child) -> Self {
        Self {
            name: child.name.to_string(),
            instance: child.instance.to_string(),
            id: child.id.to_string(),
            wish: v1::Wish::from(child.wish).into(),
            state: v1::InstanceState::from(child.state).into(),
            current: child.current,
            detail: super::bounded(&child.detail, TEXT_MAX),
            problem: child.problem.as_ref().map(Into::into),
            connection_json: json(&child.connection),
        }
    }
}

impl IntoModel for v1::Child {
    type Model = Child;
    fn read(self, at: &Place, problems: &mut Problems) -> Option<Child> {
        let name = at.field("name").parse(&self.name, InstanceName::parse, problems);
        let instance = at.field("instance").parse(&self.instance, InstanceName::parse, problems);
        let id = at.field("id").parse(&self.id, InstanceId::parse, problems);
        let wish: Option<Wish> = read_enum::<v1::Wish>(self.wish, &at.field("wish"), problems);
        let state = read_enum::<v1::InstanceState>(self.state, &at.field("state"), problems);
        let detail = at.field("detail").text(self.detail, TEXT_MAX, problems);
        let problem = at.field("problem").maybe(self.problem, problems);
        let connection = at.field("connection_json").parse(&self.connection_json, Parameters::parse_json, problems);
        Some(Child {
            name: name?,
            instance: instance?,
            id: id?,
            wish: wish?,
            state: state?,
            current: self.current,
            detail: detail?,
            problem: problem?,
            connection: connection?,
        })
    }
}

impl IntoModel for v1::ForInstanceResponse {
    type Model = Vec<Child>;
    fn read(self, at: &Place, problems: &mut Problems) -> Option<Vec<Child>> {
        at.field("children").all(self.children, TREE_MAX, problems)
    }
}
