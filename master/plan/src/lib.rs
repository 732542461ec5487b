//! The decisions of the centre. Everything here is a function of values: no I/O, no clock, no randomness; ids and the
//! time come in with the ask.
//!
//! Read [`record`] (what the master knows, as records), [`state`] (all of them as one value with indexes), [`change`]
//! (the only way state moves), then the decisions.

pub mod change;
pub mod record;
pub mod state;

pub use change::{Change, Expected};
pub use record::{Key, Record};
pub use state::State;
