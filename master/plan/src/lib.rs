//! plat-master-plan
