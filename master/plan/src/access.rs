//! Who may call what: one table, and the one function that reads it. What is not in the table is denied.

use crate::state::State;
use plat_model::id::{NodeId, ProjectName, UserName};
use plat_model::principal::{Principal, PrincipalKind, Role};
use plat_model::problem::{Problem, codes};

mod table;

pub use table::{TABLE, row};

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Service and method, e.g. `plat.v1.GridService/Request`.
    pub rpc: &'static str,
    /// Who may call it at all.
    pub kinds: &'static [PrincipalKind],
    pub ownership: Ownership,
}

/// Of what a caller must be the owner. Operators, and those who read usage of all projects, own every project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// Nothing that belongs to anyone is touched.
    Nothing,
    /// The project that the call names. A member must name its own.
    Project,
    /// The project that the call names; without one the answer holds what the caller may see (see [`crate::view`]).
    Visible,
    /// The node or user that calls: it speaks of itself and nobody else.
    Itself,
}

/// What a call is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    Grid,
    Project(ProjectName),
    /// An instance of this project.
    Instance(ProjectName),
    Node(NodeId),
    User(UserName),
}

/// Whether `who` may call `rpc` about `subject`. The caller's row is looked at again, so that a stream that was opened
/// before a revocation ends with the next message that is authorized.
///
/// # Errors
/// [`codes::DENIED`]; [`codes::REVOKED`] once the caller's row is revoked.
pub fn authorize(state: &State, who: &Principal, rpc: &str, subject: &Subject) -> Result<(), Problem> {
    let denied = |why: String| {
        Problem::new(codes::DENIED, format!("{who} may not call {}", plat_model::id::shorten(rpc)))
            .because(why)
            .fix("ask an operator of the grid, or use other credentials")
    };
    let Some(row) = row(rpc) else { return Err(denied("nobody may: it is not in the access table".into())) };
    if !row.kinds.contains(&who.kind()) {
        return Err(denied(format!("it is not for callers of the kind {:?}", who.kind())));
    }
    still_stands(state, who)?;
    match row.ownership {
        Ownership::Nothing => Ok(()),
        Ownership::Itself => match (who, subject) {
            (Principal::Node(own) | Principal::Rejoin(own), Subject::Node(node)) if own == node => Ok(()),
            (Principal::User { name: own, .. }, Subject::User(user)) if own == user => Ok(()),
            _ => Err(denied("a caller speaks only of itself".into())),
        },
        Ownership::Project | Ownership::Visible => match (who, subject) {
            (Principal::User { role: Role::Operator | Role::Billing, .. }, _) => Ok(()),
            (_, Subject::Grid) if row.ownership == Ownership::Visible => Ok(()),
            (Principal::User { role: Role::Member(own), .. }, Subject::Project(asked) | Subject::Instance(asked))
                if own == asked =>
            {
                Ok(())
            }
            (Principal::User { role: Role::Member(own), .. }, _) => {
                Err(denied(format!("a member of `{own}` owns nothing else")))
            }
            _ => Err(denied("it is not the caller's own".into())),
        },
    }
}

/// Whether the row that a principal was made from still says the same.
fn still_stands(state: &State, who: &Principal) -> Result<(), Problem> {
    let stands = match who {
        Principal::Anonymous | Principal::Master => true,
        Principal::User { name, role } => state.users.get(name).is_some_and(|user| !user.revoked && &user.role == role),
        Principal::Node(id) | Principal::Rejoin(id) => state.nodes.get(id).is_some_and(|node| !node.revoked),
        Principal::Instance(id) => state.instances.contains_key(id),
    };
    if stands {
        return Ok(());
    }
    Err(Problem::new(codes::REVOKED, format!("{who} is not accepted any more"))
        .because("an operator revoked it or changed what it is")
        .fix("ask an operator for a new token"))
}
