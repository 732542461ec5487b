//! How two processes of the grid reach and recognise each other: mutual TLS 1.3, one identity in each certificate,
//! a gRPC server over any stream of connections and a channel over any connector.
//!
//! Start with [`credentials`] (what a process is known by), then [`tls`] (whom it trusts), then [`serve()`] and
//! [`dial()`].
//!
//! Invariants: only [`peer`] reads certificates; a certificate says who its holder is and nothing about what it may
//! do; a private key never leaves its process but to its own file; a session is never resumed, so that every
//! connection shows a certificate that is good now.

pub mod backoff;
pub mod credentials;
pub mod dial;
pub mod peer;
pub mod serve;
pub mod tls;

pub use backoff::Backoff;
pub use credentials::{Credentials, Key};
pub use dial::{Address, DialSettings, Trust, dial, tcp};
pub use peer::PeerIdentity;
pub use serve::{Most, Peer, ServeSettings, listen, serve};
