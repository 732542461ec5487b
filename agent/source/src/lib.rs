//! What the packages that a release names by name are: resolved by the package tools of a machine, on a node when a
//! release is built, or by a person who locks a release beforehand.
//!
//! Start with [`Apt`]. It decides what the tools are asked and what their answers mean; who runs them, and with which
//! limits, is its caller's business ([`Tools`]).
//!
//! Invariants: none of the machine's settings that could run a program is used; nothing is installed; what counts as there
//! already is the machine's base system, not what somebody has installed on it.

#![forbid(unsafe_code)]

mod apt;
mod system;

pub use apt::{Apt, Package, Ran, Tools};
pub use system::{System, here};
