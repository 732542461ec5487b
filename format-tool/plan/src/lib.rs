//! What `node-format` decides: from the operator's settings, what was found on the machine and the record of what
//! was made before, the actions that turn the machine into a node (or back).
//!
//! Read in this order: [`Settings`] (what a person asks for) → [`Layout`] (every thing that must then exist, by name)
//! → [`HostFacts`] and [`Claims`] (what exists, and what of it is ours) → [`plan()`] (the difference) → [`Action`] (one
//! step with every choice made, and its inverse).
//!
//! Invariants: nothing in this crate performs I/O, reads a clock or rolls dice; the same input gives the same plan; the
//! plan of a satisfied machine is empty; a thing that is not claimed is never changed or removed; whatever makes a
//! plan impossible is a problem, and all of them are returned before the first effect.

pub mod action;
mod config;
mod effect;
pub mod facts;
mod forwarding;
mod guard;
mod init;
pub mod layout;
mod look;
mod plan;
mod render;
pub mod settings;
mod shares;
pub mod thing;
mod undo;

pub use action::{Action, Kind};
pub use config::{EXAMPLE, Places, parse, parse_with_places};
pub use facts::{HostFacts, Scope};
pub use forwarding::written_along;
pub use guard::link_local;
pub use init::{propose as proposal, scope as proposal_scope};
pub use layout::Layout;
pub use plan::{
    Consent, Contents, Forgotten, Plan, giving_back, lowered_above, needs_it_up, plan, privileges_lacking, rollback,
    rollback_scope, scope, still_used, strangers,
};
pub use render::{Detail, describe, render};
pub use settings::Settings;
pub use thing::{Claims, Thing};
pub use undo::{left_out, undoing};
