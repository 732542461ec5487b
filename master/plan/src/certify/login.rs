//! A person's way in.

use super::no_user;
use super::token::{Claim, spendable, spent, used_up, wrong_purpose};
use crate::change::Change;
use crate::decision::Decision;
use crate::record::{Key, Purpose, Record, User};
use crate::state::State;
use plat_model::id::UserName;
use plat_model::principal::Role;
use plat_model::problem::{Problem, codes};
use plat_model::time::Timestamp;

/// Exchanges a user's token for a certificate with this serial number. The role is the token's; a certificate that the
/// user had before does not count any more. Answers the serial number to use, too: when the same keys come again, the
/// answer to the first time got lost, and that of the first time is said again.
///
/// # Errors
/// [`codes::UNKNOWN_TOKEN`], [`codes::EXPIRED_TOKEN`], [`codes::USED_TOKEN`].
pub fn login(
    state: &State,
    claim: &Claim<'_>,
    serial: &str,
    now: Timestamp,
) -> Result<Decision<(UserName, String)>, Problem> {
    let token = spendable(state, claim, now)?;
    let Purpose::User { name, role } = &token.purpose else { return Err(wrong_purpose("a user")) };
    if let Some(given) = &token.given {
        let stands = |serial: &&String| state.users.get(name).is_some_and(|u| !u.revoked && u.serial == **serial);
        let serial = given.serials.first().filter(stands).ok_or_else(|| used_up(token))?;
        return Ok(Decision::nothing((name.clone(), serial.clone())));
    }
    let user = User { name: name.clone(), role: role.clone(), serial: serial.to_string(), revoked: false };
    let spent = spent(token, format!("user/{name}"), claim, vec![serial.to_string()], now);
    let changes = vec![spent, Change::put(Record::User(user))];
    Ok(Decision::new(changes, Vec::new(), (name.clone(), serial.to_string())))
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
