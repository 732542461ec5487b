//! plat-tests
