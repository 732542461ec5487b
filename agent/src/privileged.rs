//! The agent as two processes. One has root's rights and no network: it holds the host, and does what it is asked, each
//! action after `permit` has seen it. The other has the network and no rights: it knows the master, plans, and meters. A
//! socket is all that is between them.
//!
//! [`keep`] is root's part: it starts the other ([`network`]), serves it, and starts it again when it ends. Neither
//! outlives the other. Without root both are the same user's; the path is the same one.

mod client;
mod data;
mod handover;
mod heard;
mod network;
mod protocol;
mod rights;
mod root;
mod server;

pub use client::RemoteHost;
pub use data::{prepare, user};
pub use handover::{Giving, Taking, pair as handover};
pub use network::{Start, subcommand};
pub use rights::limit;
pub use root::keep;
pub use server::serve;
