//! Metering: counters read at the ends of aligned windows, turned into records of what was used in between.
//!
//! Totals (CPU, I/O, network, wall time) are counted from the last reading that is durable in the outbox, so that
//! nothing is lost or counted twice however often the agent stops. Levels (memory, disk) are integrated over the
//! samples that the agent took, from the level that stands with the last reading; over longer than three samples without
//! one they are unknown, and said to be.

mod count;
mod meter;

pub(crate) use count::Baseline;
pub use meter::{Arrival, Metering};
