//! The proxy: the SLAP protocol over HTTP, in front of a master or with one inside, for software that speaks it already.
//!
//! This crate has its place and its arrows (model, wire, link, and the master as a library) and nothing else yet.
