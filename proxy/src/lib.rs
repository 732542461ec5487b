//! plat-proxy
