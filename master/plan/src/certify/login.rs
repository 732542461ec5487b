//! A person's way in.

use super::no_user;
use super::token::{spendable, spent, wrong_purpose};
use crate::change::Change;
use crate::decision::Decision;
use crate::record::{Key, Purpose, Record, User};
use crate::state::State;
use plat_model::id::{Digest, TokenId, UserName};
use plat_model::principal::Role;
use plat_model::problem::{Problem, codes};
use plat_model::time::Timestamp;

/// Exchanges a user's token for a certificate with this serial number. The role is the token's; a certificate that the
/// user had before does not count any more.
///
/// # Errors
/// [`codes::UNKNOWN_TOKEN`], [`codes::EXPIRED_TOKEN`], [`codes::USED_TOKEN`].
pub fn login(
    state: &State,
    token_id: &TokenId,
    secret_hash: &Digest,
    serial: &str,
    now: Timestamp,
) -> Result<Decision<UserName>, Problem> {
    let token = spendable(state, token_id, secret_hash, now)?;
    let Purpose::User { name, role } = &token.purpose else { return Err(wrong_purpose("a user")) };
    let user = User { name: name.clone(), role: role.clone(), serial: serial.to_string(), revoked: false };
    let changes = vec![spent(token, format!("user/{name}"), now), Change::put(Record::User(user))];
    Ok(Decision::new(changes, Vec::new(), name.clone()))
}

/// Makes the operator that a grid begins with, whose certificate is written when the grid is made.
///
/// # Errors
/// [`codes::EXISTS`] if there is a user already.
pub fn first_operator(state: &State, name: UserName, serial: &str) -> Result<Decision<UserName>, Problem> {
    if !state.users.is_empty() {
        return Err(Problem::new(codes::EXISTS, "the grid has users already")
            .fix("have an operator make a token (`plat token create --user`)"));
    }
    let user = User { name: name.clone(), role: Role::Operator, serial: serial.to_string(), revoked: false };
    Ok(Decision::new(vec![Change::put(Record::User(user))], Vec::new(), name))
}

/// Refuses a user from now on.
///
/// # Errors
/// [`codes::NOT_FOUND`]; [`codes::IN_USE`] for the last operator, since nobody could let another one in.
pub fn revoke_user(state: &State, user: &UserName) -> Result<Decision<User>, Problem> {
    let row = state.users.get(user).ok_or_else(|| no_user(user))?;
    let revoked = User { revoked: true, ..row.clone() };
    if row.revoked {
        return Ok(Decision::nothing(revoked));
    }
    let operators = || state.users.values().filter(|user| user.role == Role::Operator && !user.revoked);
    let mut read = Vec::new();
    if row.role == Role::Operator {
        if operators().count() == 1 {
            return Err(Problem::new(codes::IN_USE, format!("`{user}` is the last operator"))
                .because("without one, nobody could make another")
                .fix("make another operator first (`plat token create --user`)"));
        }
        read.extend(operators().map(|user| Key::User(user.name.clone())));
    }
    Ok(Decision::new(vec![Change::put(Record::User(revoked.clone()))], read, revoked))
}
