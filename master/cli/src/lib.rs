//! plat-cli
