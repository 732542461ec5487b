//! What the tests of the whole grid share. `tests/` sees everything, and nobody sees it.

pub mod binaries;
pub mod daemon;
pub mod eventually;
pub mod grid;
pub mod invariants;
pub mod machine;
pub mod namespace;
pub mod plat;
pub mod relay;
pub mod source;
