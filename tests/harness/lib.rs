//! What the tests of the whole grid share. `tests/` sees everything, and nobody sees it.

pub mod source;
