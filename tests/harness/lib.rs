//! What the tests of the whole grid share. `tests/` sees everything, and nobody sees it.

pub mod binaries;
pub mod daemon;
pub mod debian;
pub mod eventually;
pub mod examples;
pub mod grid;
pub mod guest;
pub mod invariants;
pub mod machine;
pub mod namespace;
pub mod plat;
pub mod relay;
pub mod source;
