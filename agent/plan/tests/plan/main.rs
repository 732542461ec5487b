//! The planner as specified: cases in folders, and properties over many histories.

mod cases;
mod life;
mod properties;
mod world;
