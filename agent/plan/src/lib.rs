//! The decisions of a node: what is desired and what is there, turned into what to do next, what it waits for, and what
//! to report. Functions of values: no I/O, no clock, no randomness.
//!
//! Start with [`facts`] and [`action`]: what goes in and what comes out. [`plan_partition`] walks an instance through
//! its life; [`plan_release`] a release; [`plan_garbage`] says what of the store goes; [`plan`] is the union of both over a node.
//!
//! Invariants: a satisfied state gives no action; a plan leaves its executor no choice; what happens in one partition
//! never changes the plan of another; secrets go into files and what is published, never into arguments.

#![forbid(unsafe_code)]

pub mod action;
pub mod facts;
pub mod inside;

mod asked;
mod backoff;
mod clocks;
#[cfg(feature = "fake")]
mod effect;
mod fingerprint;
mod garbage;
mod given;
mod moment;
mod node;
mod partition;
mod permit;
mod promises;
mod release;
mod render;
mod results;
mod services;
mod status;
mod teardown;
mod timers;
mod volumes;

pub use action::Action;
pub use asked::{Asked, Begun as RunBegun};
pub use clocks::Clocks;
#[cfg(feature = "fake")]
pub use effect::{Begun, End, Outcomes};
pub use facts::{PartitionFact, ReleaseFact};
pub use garbage::{Disk, GarbagePlan, KeepPolicy, StoreFacts, Stored, StoredFact, is_roomier, plan_garbage, shortage};
pub use given::{Given, Place, instance_of};
pub use moment::{Moment, Steady};
pub use node::{NodeFacts, NodePlan, plan, releases_in_use};
pub use partition::{PartitionPlan, plan_partition, plan_rendered};
pub use permit::{Ground, json_bytes, parse_release, permit, promise_log};
pub use release::{
    InUse, Rebuild, ReleaseGiven, ReleasePlan, Settled, Settling, Unremoved, plan_release, plan_unsettled,
};
pub use render::{Rendered, RenderedPromise, SOCKET, Upkeep, applied_release, render, render_given};
pub use results::{PromiseFact, Stretch};
pub use timers::Timer;
pub use volumes::{VOLUMES, ready as volumes_ready};
