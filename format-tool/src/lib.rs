//! node-format
