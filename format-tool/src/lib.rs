//! Makes a machine a node, and back: observes it, lets `node-format-plan` decide, performs the plan, observes again.
//!
//! Start with [`apply()`], the product; then [`Host`], which is Linux to the rest of the crate, and [`Record`], the file
//! that says what was made. [`format_folder`] is the same path without privileges: a node inside one folder.
//!
//! Invariants: no network connection is opened (netlink aside); a thing is in the record before it is made, and stays in
//! it until it is gone; whatever fails is undone in reverse; nothing that is not in the record is changed; everything is
//! written beneath directory handles, without following symbolic links.

mod apply;
mod folder;
mod host;
mod record;

pub use apply::{Applied, Progress, Wish, apply, drift, propose, roll_back};
pub use folder::{FolderNode, format_folder};
#[cfg(feature = "fake")]
pub use host::fake::{FakeHost, Fault, Killed};
pub use host::linux::LinuxHost;
pub use host::{Host, Outcome};
pub use record::{Epoch, Record};
