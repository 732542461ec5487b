//! Where the contents of a release come from.

pub mod archive;
pub mod crates;
pub mod deb;
pub mod directory;
mod fetch;
pub mod git;
pub mod npm;
pub mod oci;
pub mod pypi;
pub mod tools;
pub mod tree;
mod unpack;
