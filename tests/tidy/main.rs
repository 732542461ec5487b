//! The rules of the house, as tests: no root, seconds.

mod access;
mod arrows;
mod codes;
mod licences;
mod sizes;
mod words;
