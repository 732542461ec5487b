//! What a program sees of the machine's files: a tree of mounts of its own.

use super::{Bounds, Network};
use crate::host::linux::posix::{NO_SETUID, READ_ONLY, add_mount_attributes};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::CWD;
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

/// Folders that hold what people and services of the machine have, and sockets by which they are asked for things.
const PRIVATE: [&str; 3] = ["/home", "/root", "/run"];
/// Folders that are private ones in memory.
const TEMPORARY: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];
const SHARED_MEMORY_BYTES: u64 = 256 << 20;

#[derive(Default)]
pub struct Mounts {
    pub are_own: bool,
}

/// Gives this process mounts, System V objects and message queues of its own.
pub fn own() -> io::Result<()> {
    let own = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC;
    if nix::unistd::geteuid().is_root() {
        unshare(own)?;
    } else {
        let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
        unshare(own | CloneFlags::CLONE_NEWUSER)?;
        // As themselves: the process is nobody else in it.
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
        fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
    }
    // What is mounted or unmounted here is so here alone.
    Ok(mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?)
}

impl Mounts {
    /// `are_own` first. `hidden` are places, as [`super::hidden::places`] finds them.
    pub fn lay(&self, bounds: &Bounds, hidden: &[PathBuf]) -> io::Result<()> {
        // Held, each as it is: whatever is mounted over the way to it, it is put back there.
        let hold = |path: &PathBuf| {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            open_tree(CWD, path, flags).map(|held| (path.clone(), held))
        };
        let held: Vec<(PathBuf, OwnedFd)> = bounds.writable.iter().map(hold).collect::<Result<_, _>>()?;
        let private = super::hidden::places(PRIVATE.iter().map(Path::new))?;
        let emptied = outermost(private.iter().chain(hidden));
        let shown = shown(bounds, hidden, &emptied)?;
        let names = if bounds.network == Network::Same { resolver() } else { None };
        add_mount_attributes(Path::new("/"), READ_ONLY | NO_SETUID, true)?;
        empty("/tmp", "1777", bounds.tmp_bytes)?;
        if is_folder("/var/tmp") {
            mount_bind("/tmp", "/var/tmp")?;
        }
        if is_folder("/dev/shm") {
            empty("/dev/shm", "1777", SHARED_MEMORY_BYTES)?;
        }
        for path in &emptied {
            empty(path, "0755", 1 << 20)
                .map_err(|e| io::Error::new(e.kind(), format!("{} cannot be hidden: {e}", path.display())))?;
        }
        if let Some((path, text)) = names {
            fs::create_dir_all(path.parent().unwrap_or(&path))?;
            fs::write(path, text)?;
        }
        for (path, tree) in &shown {
            if tree.is_folder {
                fs::create_dir_all(path)?;
            } else {
                fs::create_dir_all(path.parent().unwrap_or(path))?;
                fs::File::create(path)?;
            }
            move_mount(&tree.held, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
            add_mount_attributes(path, READ_ONLY | NO_SETUID, true)?;
        }
        for (path, tree) in &held {
            fs::create_dir_all(path)?;
            move_mount(tree, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        }
        emptied.into_iter().try_for_each(|path| add_mount_attributes(path, READ_ONLY, false))
    }
}

/// What is put back where all is emptied.
struct Shown {
    held: OwnedFd,
    is_folder: bool,
}

/// What is visible and would not be: where it is, and where a link that would not be there leads to it.
fn shown(bounds: &Bounds, hidden: &[PathBuf], emptied: &[&Path]) -> io::Result<Vec<(PathBuf, Shown)>> {
    let temporary = TEMPORARY.map(Path::new);
    let mut all = Vec::new();
    for path in &bounds.visible {
        let places = super::hidden::places([path.as_path()].into_iter())?;
        let Some(place) = places.into_iter().find(|place| !hidden.iter().any(|above| place.starts_with(above))) else {
            continue;
        };
        let is_folder = is_folder(&place);
        let mut targets = BTreeSet::from([place.clone(), path.clone()]);
        targets.retain(|target| emptied.iter().chain(&temporary).any(|above| target.starts_with(above)));
        for target in targets {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
            all.push((target, Shown { held: open_tree(CWD, &place, flags)?, is_folder }));
        }
    }
    Ok(all)
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

/// What says where names are asked for, if that is where sockets are.
fn resolver() -> Option<(PathBuf, Vec<u8>)> {
    let path = fs::canonicalize("/etc/resolv.conf").ok().filter(|path| path.starts_with("/run"))?;
    let text = fs::read(&path).ok()?;
    Some((path, text))
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
