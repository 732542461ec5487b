//! node-format-plan
