//! plat-agent-plan
