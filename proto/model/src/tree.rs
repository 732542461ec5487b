//! What an instance may ask of the grid for itself and for those it asked for: its tree.

use crate::id::{InstanceId, InstanceName};
use crate::instance::{InstanceState, Wish};
use crate::parameters::Parameters;
use crate::problem::Problem;
use crate::resources::Resources;
use serde::{Deserialize, Serialize};

/// Most instances of one tree, with the one at its top.
pub const TREE_MAX: usize = 100;
/// Deepest tree: an instance that people asked for is at 1.
pub const DEPTH_MAX: usize = 8;
/// Most shared instances in one instance.
pub const SHARED_MAX: usize = 1000;
/// Most that the parameters of all shared instances in one may take together, as JSON, in bytes.
pub const SHARED_BYTES: usize = 1024 * 1024;
/// Longest text that an instance says of itself, in bytes.
pub const SAID_MAX: usize = 1024;

/// Who asked for an instance, and under which name: the key by which it finds it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    pub instance: InstanceId,
    pub name: InstanceName,
}

/// Where a requested instance is to be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Kind {
    /// In a partition of its own.
    #[default]
    Own,
    /// In another instance, which accepts such: this one, or one of the release that is asked for.
    Shared { on: Option<InstanceName> },
}

/// A shared instance, as the one that it is in is told of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SharedDesired {
    pub id: InstanceId,
    pub name: InstanceName,
    /// With the defaults of the release's `shared` filled in.
    pub parameters: Parameters,
}

/// What an instance says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    pub well: bool,
    /// At most [`SAID_MAX`] bytes.
    pub text: String,
}

/// What an instance asks of the master.
#[derive(Debug, Clone, PartialEq)]
pub enum TreeAsk {
    /// Creates or changes a child.
    Request(Box<ChildAsk>),
    /// All children.
    Children,
    /// What a shared instance in it is to be reached by.
    Publish { shared: InstanceId, connection: Parameters },
    /// Has every instance of its tree look at everything again.
    Bang,
}

/// What a child is to be. What is `None` takes the default of a new one, and stays as it is of an existing one.
#[derive(Debug, Clone, PartialEq)]
pub struct ChildAsk {
    /// Among the children of the instance that asks.
    pub name: InstanceName,
    /// Name, digest or the beginning of that.
    pub release: Option<String>,
    pub parameters: Option<Parameters>,
    pub resources: Option<Resources>,
    pub wish: Option<Wish>,
    pub kind: Kind,
}

/// A child as its parent sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Child {
    /// As its parent calls it.
    pub name: InstanceName,
    /// As the project calls it.
    pub instance: InstanceName,
    pub id: InstanceId,
    pub wish: Wish,
    pub state: InstanceState,
    /// Whether its state is about what was asked for last.
    pub current: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    pub connection: Parameters,
}
