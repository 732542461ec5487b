//! Becoming a partition's user, for good.

use nix::unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid};
use plat_model::Problem;
use plat_model::node::Account;
use plat_model::problem::codes;

/// Turns this process into `account`'s, with its own group and no other: what groups the host may have put the user
/// into gives a partition nothing. `None`: stays as it is. There is no way back.
///
/// # Errors
/// [`codes::PRIVILEGE`] if this process may not.
pub fn assume(account: Option<&Account>) -> Result<(), Problem> {
    let Some(account) = account else { return Ok(()) };
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    if !geteuid().is_root() && geteuid() == uid {
        return Ok(());
    }
    let wrong = |why: String| {
        Problem::new(codes::PRIVILEGE, format!("cannot become the user {} (uid {uid})", account.user))
            .because(why)
            .fix("run the agent as root, or format this node without accounts")
    };
    if uid.is_root() {
        return Err(wrong("a partition's user must not be root".into()));
    }
    setgroups(&[gid])
        .and_then(|()| setresgid(gid, gid, gid))
        .and_then(|()| setresuid(uid, uid, uid))
        .map_err(|e| wrong(e.to_string()))
}
