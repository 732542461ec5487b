//! What the master decides, as sentences.

mod access;
#[expect(clippy::disallowed_methods, reason = "cases are read from files; the decisions are not")]
mod cases;
mod given;
mod ledger;
#[expect(clippy::disallowed_types, reason = "how long a decision takes is measured")]
mod placement;
mod properties;
mod rebuilds;
mod reports;
mod requests;
mod runs;
mod tokens;
mod trees;
