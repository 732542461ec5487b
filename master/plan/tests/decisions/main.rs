//! What the master decides, as sentences.

mod access;
mod cases;
mod given;
mod ledger;
mod placement;
mod properties;
mod reports;
mod requests;
mod tokens;
