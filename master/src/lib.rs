//! The master: holds releases and requests, decides what runs where, tells nodes, books usage.

pub mod clock;
pub mod grid;
pub mod keyfile;
pub mod pki;
pub mod rounds;
pub mod rpc;
pub mod store;
