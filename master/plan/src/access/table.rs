//! The access table itself.

use super::{Ownership, Row};
use plat_model::principal::PrincipalKind::{self, Anonymous, Billing, Member, Node, Operator, Rejoin};

const OPERATOR: &[PrincipalKind] = &[Operator];
const PEOPLE: &[PrincipalKind] = &[Operator, Member];
const PAYERS: &[PrincipalKind] = &[Operator, Member, Billing];
const CERTIFIED: &[PrincipalKind] = &[Node, Rejoin, Operator, Member, Billing];
const NODE: &[PrincipalKind] = &[Node];
const NOBODY_YET: &[PrincipalKind] = &[Anonymous];

const fn may(rpc: &'static str, kinds: &'static [PrincipalKind], ownership: Ownership) -> Row {
    Row { rpc, kinds, ownership }
}

/// Every call there is, with who may make it.
pub const TABLE: &[Row] = &[
    may("plat.v1.GridService/WhoAmI", PAYERS, Ownership::Nothing),
    may("plat.v1.GridService/AddRelease", OPERATOR, Ownership::Nothing),
    may("plat.v1.GridService/ListReleases", PEOPLE, Ownership::Nothing),
    may("plat.v1.GridService/ShowRelease", PEOPLE, Ownership::Nothing),
    may("plat.v1.GridService/Supply", OPERATOR, Ownership::Nothing),
    may("plat.v1.GridService/RebuildRelease", OPERATOR, Ownership::Nothing),
    may("plat.v1.GridService/ReleaseLog", OPERATOR, Ownership::Nothing),
    may("plat.v1.GridService/Request", PEOPLE, Ownership::Project),
    may("plat.v1.GridService/SetWish", PEOPLE, Ownership::Project),
    may("plat.v1.GridService/RunHook", PEOPLE, Ownership::Project),
    may("plat.v1.GridService/ListInstances", PEOPLE, Ownership::Visible),
    may("plat.v1.GridService/ShowInstance", PEOPLE, Ownership::Project),
    may("plat.v1.GridService/WatchInstance", PEOPLE, Ownership::Project),
    may("plat.v1.GridService/WatchGrid", PEOPLE, Ownership::Visible),
    may("plat.v1.GridService/ExplainInstance", PEOPLE, Ownership::Project),
    may("plat.v1.GridService/Logs", PEOPLE, Ownership::Project),
    may("plat.v1.GridService/ListNodes", OPERATOR, Ownership::Nothing),
    may("plat.v1.GridService/ShowNode", OPERATOR, Ownership::Nothing),
    may("plat.v1.NodeService/Enroll", NOBODY_YET, Ownership::Nothing),
    may("plat.v1.NodeService/Renew", CERTIFIED, Ownership::Itself),
    may("plat.v1.NodeService/Watch", NODE, Ownership::Itself),
    may("plat.v1.NodeService/Sync", NODE, Ownership::Itself),
    may("plat.v1.NodeService/PushUsage", NODE, Ownership::Itself),
    may("plat.v1.NodeService/PushLogs", NODE, Ownership::Itself),
    may("plat.v1.NodeService/ForInstance", NODE, Ownership::Itself),
    may("plat.v1.AdminService/Login", NOBODY_YET, Ownership::Nothing),
    may("plat.v1.AdminService/CreateToken", OPERATOR, Ownership::Nothing),
    may("plat.v1.AdminService/ListTokens", OPERATOR, Ownership::Nothing),
    may("plat.v1.AdminService/RevokeToken", OPERATOR, Ownership::Nothing),
    may("plat.v1.AdminService/RevokeNode", OPERATOR, Ownership::Nothing),
    may("plat.v1.AdminService/LabelNode", OPERATOR, Ownership::Nothing),
    may("plat.v1.AdminService/RevokeUser", OPERATOR, Ownership::Nothing),
    may("plat.v1.AdminService/ListUsers", OPERATOR, Ownership::Nothing),
    may("plat.v1.AdminService/Audit", OPERATOR, Ownership::Nothing),
    may("plat.v1.UsageService/QueryUsage", PAYERS, Ownership::Visible),
    may("plat.v1.UsageService/ShowStatement", PAYERS, Ownership::Project),
    may("plat.v1.UsageService/SetRateCard", OPERATOR, Ownership::Nothing),
    may("plat.v1.UsageService/ShowRateCard", PAYERS, Ownership::Nothing),
    may("plat.v1.UsageService/ExportLedger", &[Operator, Billing], Ownership::Nothing),
];

/// The line of a call, by its whole name.
pub fn row(rpc: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.rpc == rpc)
}
