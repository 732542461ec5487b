//! The decisions of a node: what is desired and what is there, turned into what to do next, what it waits for, and what
//! to report. Functions of values: no I/O, no clock, no randomness.

pub mod action;
pub mod facts;

pub use action::Action;
pub use facts::{PartitionFact, ReleaseFact};
