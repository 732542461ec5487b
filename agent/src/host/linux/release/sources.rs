//! Where the contents of a release come from.

pub mod archive;
pub mod deb;
pub mod directory;
pub mod tree;
