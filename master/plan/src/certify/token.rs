//! Tokens: made, taken back, spent once.

use super::{TOKEN_VALIDITY_MAX, TOKENS_MAX};
use crate::change::Change;
use crate::decision::Decision;
use crate::record::{Given, Key, Purpose, Record, Token};
use crate::state::State;
use plat_model::id::{Digest, TokenId};
use plat_model::problem::{Problem, codes};
use plat_model::time::Timestamp;
use std::time::Duration;

/// What somebody shows who wants to be let in.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    pub token: &'a TokenId,
    pub secret_hash: &'a Digest,
    /// Hash of the public keys that he wants certified.
    pub keys: &'a Digest,
}

/// Makes a token. Its id and secret are random and new; only the secret's hash comes in.
///
/// # Errors
/// [`codes::BAD_VALUE`] for a validity of zero or above [`TOKEN_VALIDITY_MAX`]; [`codes::EXISTS`] if a node of the name
/// it is for is enrolled, a user of the name has another role, or the id is taken; [`codes::TOO_MANY`] past [`TOKENS_MAX`].
pub fn create_token(
    state: &State,
    id: TokenId,
    secret_hash: Digest,
    purpose: Purpose,
    valid: Duration,
    now: Timestamp,
) -> Result<Decision<Token>, Problem> {
    if valid.is_zero() || valid > TOKEN_VALIDITY_MAX {
        return Err(Problem::new(codes::BAD_VALUE, "a token cannot be valid for that long")
            .because(format!("{} s; 1 to {} s are possible", valid.as_secs(), TOKEN_VALIDITY_MAX.as_secs()))
            .fix("ask for a time in that range"));
    }
    if state.tokens.contains_key(&id) {
        return Err(Problem::new(codes::EXISTS, "a token of this id exists already").fix("try again"));
    }
    if state.tokens.len() >= TOKENS_MAX {
        return Err(Problem::new(codes::TOO_MANY, "there are too many tokens")
            .because(format!("{TOKENS_MAX} are allowed; old ones are removed some time after they expire"))
            .fix("make fewer tokens, or wait until old ones are gone"));
    }
    let read = match &purpose {
        Purpose::Node(None) => Vec::new(),
        Purpose::Node(Some(name)) => {
            if state.nodes.get(name).is_some_and(|node| !node.revoked) {
                return Err(Problem::new(codes::EXISTS, format!("node `{name}` is enrolled already"))
                    .fix(format!("choose another name, or `plat node revoke {name}` first")));
            }
            vec![Key::Node(name.clone())]
        }
        Purpose::User { name, role } => {
            if let Some(user) = state.users.get(name).filter(|user| !user.revoked && user.role != *role) {
                return Err(Problem::new(codes::EXISTS, format!("user `{name}` exists already, as {}", user.role))
                    .because(format!("the token would make it {role}, and end the credentials that it has"))
                    .fix(format!("choose another name, or `plat user revoke {name}` first")));
            }
            vec![Key::User(name.clone())]
        }
    };
    let expires = now.plus(valid);
    let token = Token { id, secret_hash, purpose, created: now, expires, used: None, given: None, revoked: false };
    Ok(Decision::new(vec![Change::put(Record::Token(token.clone()))], read, token))
}

/// Takes a token back: it cannot be used any more. What was made with it stays.
///
/// # Errors
/// [`codes::NOT_FOUND`].
pub fn revoke_token(state: &State, id: &TokenId) -> Result<Decision<Token>, Problem> {
    let token = state.tokens.get(id).ok_or_else(|| {
        Problem::new(codes::NOT_FOUND, format!("there is no token `{id}`")).fix("see `plat token list`")
    })?;
    let revoked = Token { revoked: true, ..token.clone() };
    if token.revoked {
        return Ok(Decision::nothing(revoked));
    }
    Ok(Decision::new(vec![Change::put(Record::Token(revoked.clone()))], Vec::new(), revoked))
}

/// Finds a token that can be spent now, or was spent for these very keys (then [`Token::given`] says on what). A wrong
/// secret and an unknown id are told apart for nobody.
pub(super) fn spendable<'s>(state: &'s State, claim: &Claim<'_>, now: Timestamp) -> Result<&'s Token, Problem> {
    let unknown = || {
        Problem::new(codes::UNKNOWN_TOKEN, "the token is not known here")
            .because("it was never made, has been taken back, or was copied incompletely")
            .fix("ask an operator for a new one (`plat token create`)")
    };
    let found = state.tokens.get(claim.token).filter(|token| same(&token.secret_hash, claim.secret_hash));
    let token = found.ok_or_else(unknown)?;
    if token.revoked {
        return Err(unknown());
    }
    if token.used.is_some() && token.given.as_ref().is_none_or(|given| given.keys != *claim.keys) {
        return Err(used_up(token));
    }
    if now >= token.expires {
        return Err(Problem::new(codes::EXPIRED_TOKEN, "the token has expired")
            .because(format!("it was good until {}", token.expires))
            .fix("ask an operator for a new one (`plat token create`)"));
    }
    Ok(token)
}

pub(super) fn used_up(token: &Token) -> Problem {
    let why = token.used.as_ref().map_or(String::new(), |(when, by)| format!("by {by} at {when}; "));
    Problem::new(codes::USED_TOKEN, "the token has been used already")
        .because(format!("{why}a token is good once"))
        .fix("ask an operator for a new one; if nobody here used it, tell them")
}

/// Compares without telling by its duration how much of the two is equal.
fn same(one: &Digest, other: &Digest) -> bool {
    let pairs = one.as_str().bytes().zip(other.as_str().bytes());
    pairs.fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

/// The token as it is once `by` has used it and was given certificates of these serial numbers.
pub(super) fn spent(token: &Token, by: String, claim: &Claim<'_>, serials: Vec<String>, now: Timestamp) -> Change {
    let given = Some(Given { keys: claim.keys.clone(), serials });
    Change::put(Record::Token(Token { used: Some((now, by)), given, ..token.clone() }))
}

/// A token that was made for something else.
pub(super) fn wrong_purpose(what_for: &str) -> Problem {
    Problem::new(codes::UNKNOWN_TOKEN, format!("the token is not one for {what_for}"))
        .because("it was made for something else")
        .fix("ask an operator for one of the right kind (`plat token create`)")
}
