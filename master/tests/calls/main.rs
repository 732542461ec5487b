//! A real master on loopback, called over real TLS by everybody who may and who may not.

mod access;
mod bounds;
mod enrol;
mod logs;
mod requests;
mod rounds;
mod sizes;
mod trees;
mod world;
