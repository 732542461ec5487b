//! plat-document
