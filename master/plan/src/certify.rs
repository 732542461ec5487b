//! Who gets a certificate: tokens, and the rows that certificates count by. Keys and signatures are the shell's; in
//! here a certificate is its serial number.

use plat_model::id::{NodeId, UserName};
use plat_model::problem::{Problem, codes};
use std::time::Duration;

mod login;
mod node;
mod token;

pub use login::{first_operator, login, recover_operator, renew_user, revoke_user};
pub use node::{NewSerials, enroll, label_node, rejoin, renew, revoke_node, used};
pub use token::{Claim, create_token, revoke_token};

/// How long a node's certificate is good. Renewed at half of it.
pub const NODE_VALIDITY: Duration = Duration::from_secs(24 * 3600);
/// How long a rejoin certificate is good: how long a node may sleep and still come back by itself.
pub const REJOIN_VALIDITY: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long a user's certificate is good.
pub const USER_VALIDITY: Duration = Duration::from_secs(30 * 24 * 3600);
/// Longest validity of a token.
pub const TOKEN_VALIDITY_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// Validity of a token unless it is asked for otherwise.
pub const TOKEN_VALIDITY: Duration = Duration::from_secs(3600);
/// Most tokens at one time.
pub const TOKENS_MAX: usize = 10_000;
/// Most labels of a node.
pub const LABELS_MAX: usize = 64;
/// Longest label key or value, in bytes.
pub const LABEL_BYTES_MAX: usize = 63;

fn no_node(node: &NodeId) -> Problem {
    Problem::new(codes::NOT_FOUND, format!("there is no node `{node}`")).fix("see `plat node list`")
}

fn no_user(user: &UserName) -> Problem {
    Problem::new(codes::NOT_FOUND, format!("there is no user `{user}`")).fix("see `plat user list`")
}
