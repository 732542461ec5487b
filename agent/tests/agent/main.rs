//! The whole agent over loopback: real TLS, a master that keeps what it is told in maps, a fake host.

mod absence;
mod binary;
mod burst;
mod enrolment;
mod groups;
mod master;
mod meters;
mod older;
mod parts;
mod rebuilds;
mod rig;
mod runs;
mod strikes;
mod troubles;
mod work;
