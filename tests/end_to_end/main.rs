//! The grid by its real programs: each node in namespaces of its own, joined to one master by mTLS over veth links.

mod builds;
mod examples;
mod grid;
mod killed;
mod load;
mod lock;
mod logs;
mod namespaces;
mod postgresql;
mod refusals;
mod runs;
mod tree;
