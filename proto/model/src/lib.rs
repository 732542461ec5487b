//! The words of the grid: identifiers, numbers with units, states, who asks, and the one shape of failure.
//!
//! Start with [`problem`] (how anything fails), then [`id`] (what strings are legal), then [`node`] and
//! [`instance`] (what master and agents tell each other).
//!
//! Invariants: a value of a type in here is legal; only `parse` makes one from outside bytes. Nothing in this crate
//! performs I/O, spawns a task or reads a clock.

pub mod id;
pub mod identity;
pub mod instance;
pub mod node;
pub mod parameters;
pub mod principal;
pub mod problem;
pub mod release;
pub mod resources;
pub mod run;
pub mod schedule;
pub mod time;
pub mod tree;
pub mod usage;
pub mod waiting;

mod generation;

pub use generation::Generation;
pub use problem::{Category, Code, Problem, Problems, Result};
pub use time::Timestamp;
pub use waiting::Waiting;
