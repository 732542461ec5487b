//! The documents people write: read, laid over each other, explained, checked. Pure: whoever calls brings the text.
//!
//! Start with [`Release`]: [`Release::parse_yaml`] and [`Release::resolve`] read what a person wrote,
//! [`Release::from_canonical_json`] what the grid keeps. [`layer`] lays documents over each other, [`template`] renders,
//! [`parameters`] checks what a request says, [`schema`] is the JSON Schema for editors.
//!
//! Invariants: every way in passes the same checks; everything wrong is told at once, with file, line and column; no
//! secret is ever in a message. Nothing in here opens a file or a connection: other documents come from a closure.

pub mod layer;
pub mod parameters;
pub mod release;
pub mod schema;
pub mod template;
pub mod tree;
mod violation;
pub mod yaml;

pub use release::Release;
