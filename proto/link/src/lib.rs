//! plat-link
