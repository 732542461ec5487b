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
/// [`codes::UNKNOWN_TOKEN`], [`codes::EXPIRED_TOKEN`], [`codes::USED_TOKEN`]; [`codes::IN_USE`] if the last operator
/// would be one no more.
pub fn login(
    state: &State,
    claim: &Claim<'_>,
    serial: &str,
    now: Timestamp,
) -> Result<Decision<(UserName, String)>, Problem> {
    let token = spendable(state, claim, now)?;
    let Purpose::User { name, role } = &token.purpose else { return Err(wrong_purpose("a user")) };
    if let Some(given) = &token.given {
        let stands = |serial: &&String| state.users.get(name).is_some_and(|u| !u.revoked && u.accepts(serial));
        let serial = given.serials.first().filter(stands).ok_or_else(|| used_up(token))?;
        return Ok(Decision::nothing((name.clone(), serial.clone())));
    }
    let read = match state.users.get(name) {
        Some(before) if *role != Role::Operator => another_operator(state, before)?,
        _ => Vec::new(),
    };
    let user =
        User { name: name.clone(), role: role.clone(), serial: serial.to_string(), renewed: None, revoked: false };
    let spent = spent(token, format!("user/{name}"), claim, vec![serial.to_string()], now);
    let changes = vec![spent, Change::put(Record::User(user))];
    Ok(Decision::new(changes, read, (name.clone(), serial.to_string())))
}

/// What a decision relies on that makes `user` an operator no more: the operators there are.
///
/// # Errors
/// [`codes::IN_USE`] if it is the last one.
fn another_operator(state: &State, user: &User) -> Result<Vec<Key>, Problem> {
    let is_operator = |user: &&User| user.role == Role::Operator && !user.revoked;
    if !is_operator(&user) {
        return Ok(Vec::new());
    }
    let operators: Vec<Key> =
        state.users.values().filter(is_operator).map(|user| Key::User(user.name.clone())).collect();
    if operators.len() == 1 {
        return Err(Problem::new(codes::IN_USE, format!("`{}` is the last operator", user.name))
            .because("without one, nobody could make another")
            .fix("make another operator first (`plat token create --user NAME --operator`)"));
    }
    Ok(operators)
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
    let user =
        User { name: name.clone(), role: Role::Operator, serial: serial.to_string(), renewed: None, revoked: false };
    Ok(Decision::new(vec![Change::put(Record::User(user))], Vec::new(), name))
}

/// Makes an operator, or gives one new credentials, for whoever holds the stopped master's data: the way back into a
/// grid that has no operator whose credentials are good.
///
/// # Errors
/// [`codes::EXISTS`] if the name is that of a user who is something else.
pub fn recover_operator(state: &State, name: UserName, serial: &str) -> Result<Decision<UserName>, Problem> {
    if let Some(user) = state.users.get(&name).filter(|user| !user.revoked && user.role != Role::Operator) {
        return Err(Problem::new(codes::EXISTS, format!("user `{name}` exists already, as {}", user.role))
            .fix("name another one with --name"));
    }
    let serial = serial.to_string();
    let user = User { name: name.clone(), role: Role::Operator, serial, renewed: None, revoked: false };
    Ok(Decision::new(vec![Change::put(Record::User(user))], Vec::new(), name))
}

/// Issues a new certificate to a user who shows one that counts. That one goes on to count until the next renewal, by
/// when it has ended: programs that run are not cut off, and a lost answer locks nobody out.
///
/// # Errors
/// [`codes::NOT_FOUND`], [`codes::REVOKED`]; [`codes::STALE_CERTIFICATE`] if the present one does not count.
pub fn renew_user(state: &State, user: &UserName, present: &str, new: &str) -> Result<Decision<()>, Problem> {
    let row = state.users.get(user).ok_or_else(|| no_user(user))?;
    let refused = |code, why: &str| {
        Problem::new(code, format!("this certificate of user `{user}` is not accepted any more"))
            .because(why)
            .fix("ask an operator for a new token")
    };
    if row.revoked {
        return Err(refused(codes::REVOKED, "an operator revoked it"));
    }
    if !row.accepts(present) {
        return Err(refused(codes::STALE_CERTIFICATE, "a newer one has been issued"));
    }
    let renewed = User { serial: present.to_string(), renewed: Some(new.to_string()), ..row.clone() };
    Ok(Decision::new(vec![Change::put(Record::User(renewed))], Vec::new(), ()))
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
    let read = another_operator(state, row)?;
    Ok(Decision::new(vec![Change::put(Record::User(revoked.clone()))], read, revoked))
}
