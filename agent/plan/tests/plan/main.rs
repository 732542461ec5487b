//! The planner as specified: cases in folders, and properties over many histories.
#![allow(clippy::disallowed_methods, reason = "the planner does no I/O; its tests read their cases")]

mod cases;
mod changes;
mod formatted;
mod garbage;
mod inside;
mod kinds;
mod life;
mod properties;
mod rebuilds;
mod runs;
mod volumes;
mod world;
