//! Whose the agent's data folder is. The keys, what is desired and the outbox are the network part's; `host`, with the
//! instances' secrets, is root's. The folder is root's and sticky: in it each user makes and removes his own files, and
//! nobody moves another's away.

use plat_model::Problem;
use plat_model::node::Account;
use plat_model::problem::codes;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Uid, chownat, fchmod, fchown, fstat, mkdirat, openat, statat,
};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Who the part with the network is unless the settings say otherwise.
const USER: &str = "plat-agent";
/// Of the data folder, where two users share it.
const SHARED: u32 = 0o1770;

/// The user of the part with the network; `None`: it stays this process's own.
///
/// # Errors
/// PRIVILEGE if the settings name one that there is not, or root.
pub fn user(named: Option<&str>) -> Result<Option<Account>, Problem> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    let name = named.unwrap_or(USER);
    let wrong = |why: String| {
        Problem::new(codes::PRIVILEGE, format!("the part with the network cannot be the user {name}"))
            .because(why)
            .fix("make the user (`systemd-sysusers`, or `useradd --system plat-agent`), or name another as `user` in agent.toml")
    };
    match nix::unistd::User::from_name(name) {
        Ok(Some(found)) if found.uid.is_root() => Err(wrong("that is root".into())),
        Ok(Some(found)) => {
            Ok(Some(Account { user: found.name, uid: found.uid.as_raw(), gid: found.gid.as_raw(), groups: Vec::new() }))
        }
        Ok(None) if named.is_none() => Ok(None),
        Ok(None) => Err(wrong("there is no such user".into())),
        Err(e) => Err(wrong(e.to_string())),
    }
}

/// Makes the data folder, and gives the user what is his. For root: one that has been shared before is held to be in that
/// user's hands, so nothing in it is touched but what only root can have made.
///
/// # Errors
/// BAD_STATE_FILE if it is not root's, or what is in it is not what it was.
pub fn prepare(data: &Path, user: Option<&Account>) -> Result<(), Problem> {
    let Some(user) = user else { return Ok(()) };
    let wrong = |e: io::Error| {
        Problem::new(codes::BAD_STATE_FILE, format!("the data folder {} cannot be used", data.display()))
            .because(e)
            .fix("it must be root's, as must be `host` in it; see docs/operations/nodes.md")
    };
    let above = data.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("/"));
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(above).map_err(wrong)?;
    share(data, user).map_err(wrong)
}

fn share(data: &Path, user: &Account) -> io::Result<()> {
    made(mkdirat(CWD, data, Mode::from_raw_mode(0o700)))?;
    // The folder itself may be elsewhere: where it is said to be is in nobody's hands but root's.
    let top = folder_of_root(CWD, &data.canonicalize()?)?;
    made(mkdirat(&top, "host", Mode::from_raw_mode(0o700)))?;
    fchmod(folder_of_root(&top, Path::new("host"))?, Mode::from_raw_mode(0o700))?;
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let now = fstat(&top)?;
    if now.st_mode & 0o7777 == SHARED && now.st_gid == user.gid {
        return Ok(());
    }
    // From here on nobody but root changes anything in it.
    fchmod(&top, Mode::from_raw_mode(0o700))?;
    for entry in Dir::read_from(&top)? {
        let entry = entry?;
        let found = statat(&top, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
        // One with a second name may be somebody else's.
        if FileType::from_raw_mode(found.st_mode) == FileType::RegularFile && found.st_nlink == 1 {
            chownat(&top, entry.file_name(), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
    }
    fchown(&top, None, Some(gid))?;
    fchmod(&top, Mode::from_raw_mode(SHARED))?;
    Ok(())
}

fn made(made: rustix::io::Result<()>) -> io::Result<()> {
    match made {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn folder_of_root(beneath: impl std::os::fd::AsFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = openat(beneath, path, flags, Mode::empty())?;
    match fstat(&folder)?.st_uid {
        0 => Ok(folder),
        uid => Err(io::Error::other(format!("{} belongs to the user {uid}", path.display()))),
    }
}

/// A lock that is held for as long as the file is open: two agents on one data folder would each give its partitions away.
///
/// # Errors
/// CONFLICT if another process holds it; FILE.
pub fn lock(path: &Path) -> Result<File, Problem> {
    let wrong =
        |why: io::Error| Problem::new(codes::FILE, format!("`{}` cannot be locked", path.display())).because(why);
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(wrong)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::Error(why)) => Err(wrong(why)),
        Err(std::fs::TryLockError::WouldBlock) => Err(Problem::new(
            codes::CONFLICT,
            "another agent runs on this data folder",
        )
        .because(format!("it holds `{}`", path.display()))
        .fix("end it first (`systemctl stop plat-agent`), or give this one a data folder of its own in agent.toml")),
    }
}
