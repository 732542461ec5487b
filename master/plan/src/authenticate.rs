//! Who a certificate's holder is: the certificate says a name, the name's row says whether it counts and what it may.

use crate::state::State;
use plat_model::identity::Identity;
use plat_model::principal::Principal;
use plat_model::problem::{Problem, codes};

/// The principal behind a checked certificate of this grid, by its identity and serial number (lower-case hex).
///
/// # Errors
/// [`codes::REVOKED`] if its row is revoked, [`codes::STALE_CERTIFICATE`] if the row names another certificate,
/// [`codes::NO_CERTIFICATE`] if there is no such row, or a master's certificate is used to call.
pub fn authenticate(state: &State, identity: &Identity, serial_hex: &str) -> Result<Principal, Problem> {
    let unknown = || {
        Problem::new(codes::NO_CERTIFICATE, format!("{identity} is not known in this grid"))
            .because("its certificate is of this grid's CA, but the grid has no record of its holder")
            .fix("ask an operator for a new token")
    };
    let revoked = || {
        Problem::new(codes::REVOKED, format!("{identity} is not accepted any more"))
            .because("an operator revoked it")
            .fix("ask an operator for a new token")
    };
    let stale = || {
        Problem::new(codes::STALE_CERTIFICATE, format!("this certificate of {identity} is not accepted any more"))
            .because("a newer one has been issued to it and used")
            .fix("use the newer one; if nobody here has it, the key may be in other hands: revoke it")
    };
    match identity {
        Identity::Master => Err(unknown()),
        Identity::User(name) => {
            let user = state.users.get(name).ok_or_else(unknown)?;
            if user.revoked {
                return Err(revoked());
            }
            if !user.accepts(serial_hex) {
                return Err(stale());
            }
            Ok(Principal::User { name: user.name.clone(), role: user.role.clone() })
        }
        Identity::Node(id) => {
            let node = state.nodes.get(id).ok_or_else(unknown)?;
            if node.revoked {
                return Err(revoked());
            }
            if !node.certificates.accepted.iter().any(|serial| serial == serial_hex) {
                return Err(stale());
            }
            Ok(Principal::Node(node.id.clone()))
        }
        Identity::Rejoin(id) => {
            let node = state.nodes.get(id).ok_or_else(unknown)?;
            if node.revoked {
                return Err(revoked());
            }
            if node.certificates.rejoin != serial_hex {
                return Err(stale());
            }
            Ok(Principal::Rejoin(node.id.clone()))
        }
    }
}
