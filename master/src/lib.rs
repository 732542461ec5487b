//! plat-master
