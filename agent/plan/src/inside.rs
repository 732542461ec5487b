//! What an instance says and asks over its own socket: one JSON object on each line, answered by one.
//!
//! `{"v": 1, "ask": "get"}` is answered by `{"v": 1, "ok": …}`, or by `{"v": 1, "problem": {…}}`. What the agent knows is
//! answered at once; what is the grid's to decide goes to the master.

use crate::action::Note;
use crate::facts::Occupant;
use plat_model::id::{InstanceId, InstanceName};
use plat_model::instance::{InstanceDesired, Wish};
use plat_model::parameters::Parameters;
use plat_model::problem::{Problem, codes};
use plat_model::resources::Resources;
use plat_model::tree::{ChildAsk, Kind, SAID_MAX, Said, TreeAsk};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Version of what is said.
pub const VERSION: u64 = 1;
/// Longest line in bytes, either way: the largest parameters, written out with every character escaped, and the rest.
pub const LINE_MAX: usize = 1024 * 1024;

/// What an instance asks.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ask {
    /// What it is to be, and what it has published.
    Get {},
    /// Publishes these keys, and takes back those that are null; of a shared instance in it, these and no others.
    Publish {
        connection: Map<String, Value>,
        #[serde(default)]
        shared: Option<InstanceId>,
    },
    /// How it is, in its own words.
    Status { well: bool, text: String },
    /// Creates or changes a child, and tells how it is.
    Request {
        name: InstanceName,
        #[serde(default)]
        release: Option<String>,
        #[serde(default)]
        parameters: Option<Map<String, Value>>,
        #[serde(default)]
        resources: Option<Resources>,
        #[serde(default)]
        wish: Option<Wish>,
        #[serde(default)]
        shared: bool,
        #[serde(default)]
        on: Option<InstanceName>,
    },
    /// All children.
    Children {},
    /// Every instance of its tree is to be configured again.
    Bang {},
}

/// What an ask comes to.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Now(Value),
    /// To be written down; then the answer is empty.
    Note(Note),
    /// To be asked of the master, whose word is the answer.
    Master(TreeAsk),
}

/// Reads a line.
///
/// # Errors
/// [`codes::BAD_MESSAGE`] if it is not an ask of this version.
pub fn parse(line: &[u8]) -> Result<Ask, Problem> {
    let wrong = |why: String| {
        Problem::new(codes::BAD_MESSAGE, "what the instance asks cannot be understood")
            .because(why)
            .fix("write one JSON object on each line, e.g. {\"v\": 1, \"ask\": \"get\"}; see docs/releases.md")
    };
    let mut map: Map<String, Value> = serde_json::from_slice(line).map_err(|e| wrong(e.to_string()))?;
    match map.remove("v").as_ref().and_then(Value::as_u64) {
        Some(VERSION) => {}
        Some(other) => return Err(wrong(format!("it is of version {other}; this agent speaks {VERSION}"))),
        None => return Err(wrong("it does not say its version, `v`".into())),
    }
    serde_json::from_value(Value::Object(map)).map_err(|e| wrong(e.to_string()))
}

/// What `ask` comes to, said by the instance `desired`, of which `occupant` is known.
///
/// # Errors
/// [`codes::TOO_LARGE`], [`codes::BAD_VALUE`]; [`codes::NOT_FOUND`] for a shared instance that is not in it;
/// [`codes::DESTROYED`] once it is being destroyed.
pub fn answer(ask: Ask, desired: &InstanceDesired, occupant: &Occupant) -> Result<Answer, Problem> {
    if desired.wish == Wish::Destroyed && ask != (Ask::Get {}) {
        return Err(Problem::new(codes::DESTROYED, "the instance is being destroyed")
            .because("nothing that it says or asks for would be left"));
    }
    match ask {
        Ask::Get {} => Ok(Answer::Now(known(desired, occupant))),
        Ask::Publish { connection, shared: Some(shared) } => {
            if !desired.shared.iter().any(|one| one.id == shared) {
                return Err(Problem::new(codes::NOT_FOUND, format!("shared instance {shared} is not in this one"))
                    .because("it was never, or it has been destroyed")
                    .fix("look again at which are: `plat-instance shared`"));
            }
            Ok(Answer::Master(TreeAsk::Publish { shared, connection: Parameters::new(connection)? }))
        }
        Ask::Publish { connection, shared: None } => {
            let mut spoken = occupant.spoken.as_map().clone();
            for (key, value) in connection {
                match value {
                    Value::Null => drop(spoken.remove(&key)),
                    value => drop(spoken.insert(key, value)),
                }
            }
            let spoken = Parameters::new(spoken)?;
            occupant.connection.with(&spoken)?;
            Ok(noted(occupant, spoken, occupant.said.clone()))
        }
        Ask::Status { text, .. } if text.len() > SAID_MAX => {
            Err(Problem::new(codes::TOO_LARGE, "the instance says too much of itself")
                .because(format!("{} bytes; {SAID_MAX} are allowed", text.len()))
                .fix("write the rest to a log"))
        }
        Ask::Status { well, text } => Ok(noted(occupant, occupant.spoken.clone(), Some(Said { well, text }))),
        Ask::Request { name, release, parameters, resources, wish, shared, on } => {
            let kind = match (shared, on) {
                (true, on) => Kind::Shared { on },
                (false, None) => Kind::Own,
                (false, Some(_)) => {
                    return Err(Problem::new(codes::BAD_VALUE, "only a shared instance is in another one")
                        .fix("say `shared` too, or leave `on` out"));
                }
            };
            let parameters = parameters.map(Parameters::new).transpose()?;
            Ok(Answer::Master(TreeAsk::Request(Box::new(ChildAsk {
                name,
                release,
                parameters,
                resources,
                wish,
                kind,
            }))))
        }
        Ask::Children {} => Ok(Answer::Master(TreeAsk::Children)),
        Ask::Bang {} => Ok(Answer::Master(TreeAsk::Bang)),
    }
}

/// What is said already is not written down again.
fn noted(occupant: &Occupant, spoken: Parameters, said: Option<Said>) -> Answer {
    if (&spoken, &said) == (&occupant.spoken, &occupant.said) {
        return Answer::Now(json!({}));
    }
    Answer::Note(Note::Told { instance: occupant.instance.clone(), spoken, said })
}

fn known(desired: &InstanceDesired, occupant: &Occupant) -> Value {
    json!({
        "instance": { "id": desired.id, "name": desired.name, "project": desired.project },
        "wish": desired.wish,
        "parameters": desired.parameters,
        "shared": desired.shared,
        "published": occupant.spoken,
        "bang": desired.bang,
    })
}

/// The line that answers.
pub fn reply(said: &Result<Value, Problem>) -> String {
    let said = match said {
        Ok(value) => json!({ "v": VERSION, "ok": value }),
        Err(problem) => json!({ "v": VERSION, "problem": problem }),
    };
    format!("{said}\n")
}
