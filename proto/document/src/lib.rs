//! The documents people write: read, laid over each other, explained, checked. Pure: whoever calls brings the text.

pub mod release;

pub use release::Release;
