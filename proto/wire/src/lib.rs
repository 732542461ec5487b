//! plat-wire
