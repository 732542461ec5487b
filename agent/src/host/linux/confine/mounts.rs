//! What a program sees of the machine's files: a tree of mounts of its own.

use super::{Bounds, Tmp};
use crate::host::linux::account::with_files_of;
use crate::host::linux::posix::{NO_SETUID, READ_ONLY, Side, add_mount_attributes, split};
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitStatus, waitpid};
use plat_model::node::Account;
use rustix::fs::{CWD, FileType, Mode as FileMode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount, mount_bind, mount_change, move_mount,
    open_tree,
};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, sendto, socket};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Folders that hold what people and services of the machine have, and sockets by which they are asked for things.
pub const PRIVATE: [&str; 3] = ["/home", "/root", "/run"];
/// Folders that are private ones: the first two are one.
pub const TEMPORARY: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];
/// Most bytes of what is in a program's `/dev/shm`.
pub const SHARED_MEMORY_BYTES: u64 = 1 << 30;
/// Most bytes of what is in its `/tmp`, where it was to be a folder of its own that is not there.
pub const TMP_BYTES: u64 = 64 << 20;

/// What is at a place with all that is mounted there, as a mount that is nowhere yet.
const TREE: OpenTreeFlags =
    OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC).union(OpenTreeFlags::AT_RECURSIVE);

#[derive(Default)]
pub struct Mounts {
    pub are_own: bool,
}

/// Gives this process mounts, System V objects and message queues of its own.
pub fn own() -> io::Result<()> {
    if nix::unistd::geteuid().is_root() {
        unshare(OWN)?;
        return keep_to_itself();
    }
    try_as_user()?;
    own_as_user()
}

/// Some machines let one begin a namespace of users and not finish it, and a process that has begun could not go back. So
/// another one tries it, once for all that are forked afterwards.
pub fn try_as_user() -> io::Result<()> {
    static TRIED: OnceLock<Result<(), i32>> = OnceLock::new();
    let tried = || other_tries(own_as_user).map_err(|e| e.raw_os_error().unwrap_or(libc::EPERM));
    TRIED.get_or_init(tried).map_err(io::Error::from_raw_os_error)
}

const OWN: CloneFlags = CloneFlags::CLONE_NEWNS.union(CloneFlags::CLONE_NEWIPC);

fn own_as_user() -> io::Result<()> {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    unshare(OWN | CloneFlags::CLONE_NEWUSER)?;
    // As themselves: the process is nobody else in it.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
    keep_to_itself()
}

/// What is mounted or unmounted here is so here alone.
fn keep_to_itself() -> io::Result<()> {
    Ok(mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?)
}

/// Whether it goes well in another process.
fn other_tries(what: fn() -> io::Result<()>) -> io::Result<()> {
    match split()? {
        Side::Child => std::process::exit(what().map_or_else(|e| e.raw_os_error().unwrap_or(libc::EPERM), |()| 0)),
        Side::Parent(child) => match waitpid(child, None)? {
            WaitStatus::Exited(_, 0) => Ok(()),
            WaitStatus::Exited(_, number) => Err(io::Error::from_raw_os_error(number)),
            _ => Err(io::Error::other("the process that tried it was killed")),
        },
    }
}

impl Mounts {
    /// `are_own` first. `hidden` are places, as [`super::hidden::places`] finds them; what is visible is so to `user`. Why
    /// processes of other users are seen, if they are.
    pub fn lay(&self, bounds: &Bounds, hidden: &[PathBuf], user: Option<&Account>) -> io::Result<Option<io::Error>> {
        // Who is held to these mounts may go through what is made here.
        let mask = umask(Mode::from_bits_truncate(0o022));
        let laid = self.lay_all(bounds, hidden, user);
        umask(mask);
        laid
    }

    fn lay_all(&self, bounds: &Bounds, hidden: &[PathBuf], user: Option<&Account>) -> io::Result<Option<io::Error>> {
        // Held, each as it is: whatever is mounted over the way to it, it is put back there.
        let mut held = Vec::new();
        for path in &bounds.writable {
            held.push((path.clone(), hold(path)?));
        }
        let tmp = own_tmp(bounds)?;
        let private = super::hidden::places(PRIVATE.iter().map(Path::new))?;
        let emptied = outermost(private.iter().chain(hidden));
        add_mount_attributes(Path::new("/"), READ_ONLY | NO_SETUID, true)?;
        for path in &bounds.readable {
            match hold(path) {
                Ok(tree) => held.push((path.clone(), tree)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        let shown = shown(bounds, hidden, &emptied, user)?;
        match (tmp, &bounds.tmp) {
            (Some(tree), _) => put(&tree, Path::new(TEMPORARY[0]))?,
            (None, Tmp::Memory(bytes)) => empty(TEMPORARY[0], "1777", *bytes)?,
            (None, Tmp::Within(_)) => empty(TEMPORARY[0], "1777", TMP_BYTES)?,
        }
        if is_folder(TEMPORARY[1]) {
            mount_bind(TEMPORARY[0], TEMPORARY[1])?;
        }
        if is_folder("/dev/shm") {
            empty("/dev/shm", "1777", SHARED_MEMORY_BYTES)?;
        }
        for path in &emptied {
            empty(path, "0755", 1 << 20)
                .map_err(|e| io::Error::new(e.kind(), format!("{} cannot be hidden: {e}", path.display())))?;
        }
        for (path, tree) in shown.iter().chain(&held) {
            make_place(path, tree)?;
            put(tree, path)?;
        }
        emptied.into_iter().try_for_each(|path| add_mount_attributes(path, READ_ONLY, false))?;
        Ok(own_processes_alone().err())
    }
}

/// What is visible and would not be: where it is, and where a link that would not be there leads to it. What the user may not
/// come to where it is stays away: put elsewhere, it would be beneath nothing that keeps them from it.
fn shown(
    bounds: &Bounds,
    hidden: &[PathBuf],
    emptied: &[&Path],
    user: Option<&Account>,
) -> io::Result<Vec<(PathBuf, OwnedFd)>> {
    if bounds.visible.is_empty() {
        return Ok(Vec::new());
    }
    let temporary = TEMPORARY.map(Path::new);
    let is_hidden = |place: &Path| hidden.iter().any(|above| place.starts_with(above));
    let found = with_files_of(user, || bounds.visible.iter().map(|path| (path, find(path))).collect::<Vec<_>>())?;
    let mut all = Vec::new();
    for (path, found) in found {
        let Some((place, file)) = found?.filter(|(place, _)| !is_hidden(place)) else { continue };
        let mut targets = BTreeSet::from([place, path.clone()]);
        targets.retain(|target| emptied.iter().chain(&temporary).any(|above| target.starts_with(above)));
        for target in targets {
            all.push((target, open_tree(&file, "", TREE | OpenTreeFlags::AT_EMPTY_PATH)?));
        }
    }
    Ok(all)
}

/// Where a path leads whoever looks, and what is there; `None` if nowhere.
fn find(path: &Path) -> io::Result<Option<(PathBuf, OwnedFd)>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = fs::canonicalize(path).and_then(|place| {
        // Whatever is put in its way meanwhile.
        let file = openat2(CWD, &place, flags, FileMode::empty(), ResolveFlags::NO_SYMLINKS)?;
        Ok((place, file))
    });
    match found {
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::PermissionDenied
            ) =>
        {
            Ok(None)
        }
        found => found.map(Some),
    }
}

/// The files beneath a path with all that is mounted there, wherever else they are put.
fn hold(path: &Path) -> io::Result<OwnedFd> {
    Ok(open_tree(CWD, path, TREE)?)
}

fn put(tree: &OwnedFd, path: &Path) -> io::Result<()> {
    Ok(move_mount(tree, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// What is to be mounted on, if it was emptied.
fn make_place(path: &Path, tree: &OwnedFd) -> io::Result<()> {
    if fs::symlink_metadata(path).is_ok() {
        return Ok(());
    }
    if FileType::from_raw_mode(fstat(tree)?.st_mode) == FileType::Directory {
        return fs::create_dir_all(path);
    }
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    fs::File::create(path).map(drop)
}

/// The folder for what is temporary, wherever else it is put.
fn own_tmp(bounds: &Bounds) -> io::Result<Option<OwnedFd>> {
    let this = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let Some((top, name)) = tmp_of(bounds) else { return Ok(None) };
    find_folder(top, name)?.map(|folder| Ok(open_tree(&folder, "", this)?)).transpose()
}

/// Where the folder for what is temporary is, and how it is called there, if it is to be one of the program's own. Nothing is
/// made in it: what has to be put back beneath `/tmp` needs a `/tmp` of nobody's.
pub fn tmp_of(bounds: &Bounds) -> Option<(&Path, &Path)> {
    let (Tmp::Within(name), Some(top)) = (&bounds.tmp, bounds.writable.first()) else { return None };
    let mut kept = [&bounds.writable, &bounds.readable, &bounds.visible, &bounds.hidden].into_iter().flatten();
    let is_clear = !kept.any(|path| TEMPORARY.iter().any(|folder| path.starts_with(folder)));
    is_clear.then_some((top, Path::new(name)))
}

/// A folder in another that somebody may change meanwhile; `None` if none is there.
pub fn find_folder(top: &Path, name: &Path) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = match openat(CWD, top, flags, FileMode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        top => top?,
    };
    match openat2(&top, name, flags, FileMode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS) {
        // A link there leads nowhere.
        Err(Errno::LOOP | Errno::NOENT | Errno::NOTDIR | Errno::XDEV | Errno::ACCESS) => Ok(None),
        found => Ok(Some(found?)),
    }
}

/// A list of processes with those of other users left out: for root, who alone can have a new one.
fn own_processes_alone() -> io::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    // The word, not the number: kernels that know it keep it from all other lists.
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(mount("proc", "/proc", "proc", flags, c"hidepid=invisible")?)
}

/// Those that are beneath none of the others, nor of what is temporary: what is beneath goes with it.
fn outermost<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> Vec<&'a Path> {
    let mut sorted: Vec<&Path> = paths.map(PathBuf::as_path).collect();
    // Each after what it is beneath.
    sorted.sort();
    let mut kept: Vec<&Path> = Vec::new();
    for path in sorted {
        let is_gone = |above: &Path| is_folder(above) && path.starts_with(above);
        if !kept.iter().any(|above| path.starts_with(above)) && !TEMPORARY.iter().any(|above| is_gone(Path::new(above)))
        {
            kept.push(path);
        }
    }
    kept
}

fn is_folder(path: impl AsRef<Path>) -> bool {
    fs::symlink_metadata(path).is_ok_and(|about| about.is_dir())
}

/// A new empty folder in memory over what is there.
fn empty(path: impl AsRef<Path>, mode: &str, bytes: u64) -> io::Result<()> {
    let options = std::ffi::CString::new(format!("mode={mode},size={bytes}"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    Ok(mount("tmpfs", path.as_ref(), "tmpfs", flags, options.as_c_str())?)
}

/// Where it is said how names are asked for, if that is where sockets are.
pub fn resolver() -> Option<PathBuf> {
    let path = fs::canonicalize("/etc/resolv.conf").ok().filter(|path| path.starts_with("/run"))?;
    // The folder: the file is replaced whenever the machine's network changes.
    path.parent().filter(|folder| *folder != Path::new("/run")).map(Path::to_owned)
}

/// Switches on the loopback of this process's network namespace.
pub fn loopback_up() -> io::Result<()> {
    const NEW_LINK: u16 = 16;
    const REQUEST_AND_ACKNOWLEDGE: u16 = 1 | 4;
    const LOOPBACK: i32 = 1;
    const UP: u32 = 1;
    // Its protocol 0 is that of links and routes.
    let link = socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    // struct nlmsghdr, struct ifinfomsg.
    let mut message = Vec::with_capacity(32);
    message.extend(32_u32.to_ne_bytes());
    message.extend(NEW_LINK.to_ne_bytes());
    message.extend(REQUEST_AND_ACKNOWLEDGE.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([0; 4]);
    message.extend(LOOPBACK.to_ne_bytes());
    message.extend(UP.to_ne_bytes());
    message.extend(UP.to_ne_bytes());
    sendto(&link, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut answer = [0; 64];
    let (got, _) = recv(&link, &mut answer[..], RecvFlags::empty())?;
    // struct nlmsgerr after the head: zero, or an error number below it.
    match answer.get(16..20).filter(|_| got >= 20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(number) => Err(io::Error::from_raw_os_error(-number)),
        None => Err(io::Error::other("the kernel gave no answer")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beneath_what_is_emptied_goes_with_it() {
        let paths = ["/srv/a/b", "/home", "/srv/a", "/srv/ab", "/srv/a", "/home/x/y", "/tmp/x"].map(PathBuf::from);
        let kept = outermost(paths.iter());
        assert_eq!(kept, ["/home", "/srv/a", "/srv/ab"].map(Path::new));
    }
}
