//! The agent of a node: observe, plan, apply, report.

pub mod host;
