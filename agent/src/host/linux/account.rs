//! Becoming a partition's user, for good; and ending all that runs as one.

use super::posix::{Side, split};
use super::process::{Process, descendants, of_user};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{
    Gid, Pid, Uid, getegid, geteuid, getgroups, getresuid, setfsgid, setfsuid, setgroups, setresgid, setresuid,
};
use plat_model::Problem;
use plat_model::node::Account;
use plat_model::problem::codes;
use std::io;
use std::time::{Duration, Instant};

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
    refuse_root(account)?;
    setgroups(&groups_of(account))
        .and_then(|()| setresgid(gid, gid, gid))
        .and_then(|()| setresuid(uid, uid, uid))
        .map_err(|e| wrong(e.to_string()))
}

/// # Errors
/// [`codes::PRIVILEGE`] if the user is root: nothing of a partition or a build is.
pub fn refuse_root(account: &Account) -> Result<(), Problem> {
    if account.uid != 0 {
        return Ok(());
    }
    Err(Problem::new(codes::PRIVILEGE, format!("cannot become the user {} (uid 0)", account.user))
        .because("a partition's user must not be root")
        .fix("format the node again with users of the partitions' own"))
}

/// Lets this thread look up, make and remove files as `account` alone, in its own group: the kernel takes root's power over
/// files away with it. `None`, or who is not root: stays as it is.
///
/// # Errors
/// [`codes::PRIVILEGE`] if the kernel does not, or that user is root.
pub fn become_for_files(account: Option<&Account>) -> Result<(), Problem> {
    let Some(account) = account.filter(|_| geteuid().is_root()) else { return Ok(()) };
    refuse_root(account)?;
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    if set_for_files(uid, gid) {
        return Ok(());
    }
    Err(Problem::new(codes::PRIVILEGE, format!("cannot be the user {} (uid {uid}) to files", account.user))
        .because("the kernel did not change this thread's user for files")
        .fix("run the agent as root, or format this node without accounts"))
}

/// Does `what` with an account's rights over files and in its groups, in a process of one thread; which then has its own again.
pub fn with_files_of<T>(account: Option<&Account>, what: impl FnOnce() -> T) -> io::Result<T> {
    let Some(account) = account.filter(|_| geteuid().is_root()) else { return Ok(what()) };
    let own = getgroups()?;
    setgroups(&groups_of(account))?;
    become_for_files(Some(account)).map_err(io::Error::other)?;
    let done = what();
    if !set_for_files(geteuid(), getegid()) {
        return Err(io::Error::other("the kernel did not give this thread its own user for files back"));
    }
    setgroups(&own)?;
    Ok(done)
}

fn set_for_files(uid: Uid, gid: Gid) -> bool {
    setfsgid(gid);
    setfsuid(uid);
    // Each tells only who it was before.
    setfsgid(gid) == gid && setfsuid(uid) == uid
}

fn groups_of(account: &Account) -> Vec<Gid> {
    [account.gid].iter().chain(&account.groups).copied().map(Gid::from_raw).collect()
}

/// How long processes may take to end once they are killed.
const END: Duration = Duration::from_secs(10);

/// For root in a process of one thread: kills every process of the user, whoever started it.
///
/// # Errors
/// [`codes::ERASE_FAILED`] if some are left that the kernel does not end.
pub fn end_all_of(account: &Account) -> Result<(), Problem> {
    let until = Instant::now() + END;
    loop {
        if strike(account) && is_without_processes(account.uid) {
            return Ok(());
        }
        let left = of_user(account.uid);
        let Some(one) = left.first().map(|process| process.pid) else { return Ok(()) };
        if Instant::now() > until {
            return Err(Problem::new(codes::ERASE_FAILED, format!("processes of {} do not end", account.user))
                .because(format!("process {one} was killed and is still there"))
                .fix("find out what holds it, e.g. a file system that does not answer"));
        }
        left.into_iter().for_each(Process::kill);
        pause();
    }
}

/// For a process of one thread that takes in orphans: kills all that it has started, and what that has, and waits for it.
///
/// # Errors
/// As [`end_all_of`].
pub fn end_all_below() -> Result<(), Problem> {
    let until = Instant::now() + END;
    loop {
        for pid in descendants(std::process::id()) {
            let _ = i32::try_from(pid).map(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL));
        }
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => break,
                Err(nix::errno::Errno::ECHILD) => return Ok(()),
                Ok(_) | Err(_) => {}
            }
        }
        if Instant::now() > until {
            return Err(Problem::new(codes::ERASE_FAILED, "what was started does not end")
                .because("it was killed and is still there")
                .fix("find out what holds it, e.g. a file system that does not answer"));
        }
        pause();
    }
}

/// One signal reaches all processes of the user at the same instant, so that none can start another. It takes the
/// user's rights to send it, and so a child, which those processes may hold or kill: it is not waited for long. Whether it
/// was sent.
fn strike(account: &Account) -> bool {
    match split() {
        Ok(Side::Parent(child)) => {
            let until = Instant::now() + Duration::from_millis(100);
            loop {
                match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
                    Ok(WaitStatus::StillAlive) => {}
                    // Whoever was root and is no more cannot be traced, and so says what it did.
                    ended => return ended == Ok(WaitStatus::Exited(child, SENT)),
                }
                if Instant::now() > until {
                    let _ = kill(child, Signal::SIGKILL);
                }
                pause();
            }
        }
        Ok(Side::Child) => {
            let uid = Uid::from_raw(account.uid);
            let is_user = |ids: nix::unistd::ResUid| [ids.real, ids.effective, ids.saved] == [uid; 3];
            // To everybody that this process may signal: it must be nobody but the user by now.
            if assume(Some(account)).is_ok() && !uid.is_root() && getresuid().is_ok_and(is_user) {
                let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
                std::process::exit(SENT);
            }
            std::process::exit(0)
        }
        // Then they are killed one by one.
        Err(_) => false,
    }
}

/// What the process that strikes exits with.
const SENT: i32 = 3;

/// Whether the kernel finds no process of the user, those included that have ended and were not waited for. It takes a
/// thousandth of the time of looking at each of a thousand, and does not see who only could become the user again.
fn is_without_processes(uid: u32) -> bool {
    rustix::process::getpriority_user(rustix::process::Uid::from_raw(uid)) == Err(rustix::io::Errno::SRCH)
}

fn pause() {
    std::thread::park_timeout(Duration::from_millis(2));
}
