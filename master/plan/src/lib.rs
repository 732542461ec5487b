//! The decisions of the centre. Everything here is a function of values: no I/O, no clock, no randomness; ids, serial
//! numbers and the time come in with the ask. A decision answers with the changes to commit and the records that it
//! relied on ([`Decision`]); whoever calls commits them against the snapshot, and decides again if that moved.
//!
//! Read in this order:
//!
//! 1. What there is: [`record`] (what the master knows, record by record), [`change`] (the only way state moves),
//!    [`state`] (all of it as one value with indexes), [`decision`].
//! 2. Who asks: [`authenticate`] (from a certificate to a principal), [`access`] (who may call what), [`certify`] (who
//!    gets a certificate), [`view`] (what a caller sees).
//! 3. From a wish to a node: [`release`], [`request`], [`tree`] (what instances ask for), [`allocate`], [`desired`].
//! 4. From a node's report to the truth: [`absorb`], [`ledger`], [`statement`].
//! 5. The rounds: [`allocate`], [`expire`].
//!
//! Invariants: a generation never goes back; a partition holds at most one instance; capacity is never exceeded,
//! counting what is still being destroyed; the ledger only grows; what is asked twice is decided once.

pub mod absorb;
pub mod access;
pub mod allocate;
pub mod authenticate;
pub mod certify;
pub mod change;
pub mod decision;
pub mod desired;
pub mod expire;
pub mod ledger;
pub mod logs;
pub mod rebuild;
pub mod record;
pub mod release;
pub mod request;
pub mod run;
pub mod state;
pub mod statement;
pub mod tree;
pub mod view;

mod leave;

pub use change::{Change, Expected};
pub use decision::Decision;
pub use record::{Key, Record};
pub use state::State;
