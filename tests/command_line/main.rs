//! What somebody at a terminal sees of `plat`: the real programs, a master on this machine, no node that runs.

mod credentials;
mod once;
mod printing;
mod words;
mod world;
