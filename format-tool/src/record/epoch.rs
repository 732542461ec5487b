//! When and where links live: one boot of the machine, and in it one network namespace.

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socket};
use nix::{getsockopt_impl, sockopt_impl};
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What a link is gone with. In the record as `BOOT/NAMESPACE/COOKIE`, without the cookie where the kernel has none and
/// where an older node-format wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    boot: String,
    /// Inode of the network namespace. The next one gets the same as soon as this one is gone.
    namespace: u64,
    /// What the kernel gives to no other namespace in one boot (Linux 5.14).
    cookie: Option<u64>,
    /// Whether somebody says that there is no other any more.
    alone: bool,
}

sockopt_impl!(
    /// SO_NETNS_COOKIE of asm-generic/socket.h.
    Cookie,
    GetOnly,
    libc::SOL_SOCKET,
    libc::SO_NETNS_COOKIE,
    u64
);

impl Epoch {
    /// That of the calling thread.
    pub fn current() -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let cookie = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
            .and_then(|socket| getsockopt(&socket, Cookie));
        Self::new(boot.trim(), inode("/proc/thread-self/ns/net").unwrap_or(0), cookie.ok())
    }

    pub fn new(boot: impl Into<String>, namespace: u64, cookie: Option<u64>) -> Self {
        Self { boot: boot.into(), namespace, cookie, alone: false }
    }

    /// Whoever asks takes other namespaces of this boot to be gone, if `alone`, with all that was made in them.
    #[must_use]
    pub fn alone(self, alone: bool) -> Self {
        Self { alone, ..self }
    }

    /// Whether what was written in `written` is there now. The inode alone tells only where one of both has no cookie.
    pub(super) fn is(&self, written: &str) -> bool {
        self.place(written).is_some_and(|(namespace, cookie)| match (self.cookie, cookie) {
            (Some(own), Some(written)) => own == written,
            _ => self.namespace == namespace,
        })
    }

    /// The namespace of `written`, if it is another one of this boot and may be there still. It is known to be gone only
    /// where another one has its inode, or where all processes can be seen, none is in it, and it is mounted nowhere.
    pub(super) fn elsewhere(&self, written: &str) -> Option<u64> {
        let (namespace, _) = self.place(written)?;
        let gone = || namespace == self.namespace || (sees_all_processes() && is_gone(namespace));
        (!self.is(written) && !self.alone && !gone()).then_some(namespace)
    }

    /// Inode and cookie of a namespace of this boot.
    fn place(&self, written: &str) -> Option<(u64, Option<u64>)> {
        let place = written.strip_prefix(&self.boot)?.strip_prefix('/')?;
        match place.split_once('/') {
            None => Some((place.parse().ok()?, None)),
            Some((namespace, cookie)) => Some((namespace.parse().ok()?, Some(cookie.parse().ok()?))),
        }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}", self.boot, self.namespace)?;
        self.cookie.map_or(Ok(()), |cookie| write!(f, "/{cookie}"))
    }
}

/// PROC_PID_INIT_INO of linux/proc_ns.h: the namespace that all processes are in.
const FIRST_PROCESSES: u64 = 0xEFFF_FFFC;

/// Also where /proc hides those of others (hidepid), nobody but root sees what is in the first one's.
fn sees_all_processes() -> bool {
    inode("/proc/self/ns/pid").is_ok_and(|namespace| namespace == FIRST_PROCESSES) && inode("/proc/1/ns/net").is_ok()
}

/// Whether no thread is in it, and none sees it mounted: each may see other mounts.
fn is_gone(namespace: u64) -> bool {
    let mut seen = BTreeSet::new();
    let mut is_held = || {
        for process in entries(Path::new("/proc"))? {
            for thread in entries(&process.join("task"))? {
                if may_hold(&thread, namespace, &mut seen) {
                    return Ok(true);
                }
            }
        }
        Ok::<_, io::Error>(false)
    };
    is_held().is_ok_and(|is_held| !is_held)
}

/// Whether a thread may be in the namespace, or see it mounted. `seen`: the mount namespaces that were looked at.
fn may_hold(thread: &Path, namespace: u64, seen: &mut BTreeSet<u64>) -> bool {
    if may_be(&inode(thread.join("ns/net")), namespace) {
        return true;
    }
    let mounts = match inode(thread.join("ns/mnt")) {
        Ok(mounts) if seen.contains(&mounts) => return false,
        Ok(mounts) => mounts,
        Err(e) => return !has_ended(&e),
    };
    match fs::read(thread.join("mountinfo")) {
        Ok(all) => {
            seen.insert(mounts);
            String::from_utf8_lossy(&all).contains(&format!(" net:[{namespace}] "))
        }
        // One that has ended sees none.
        Err(e) => !has_ended(&e) && e.raw_os_error() != Some(libc::EINVAL),
    }
}

/// Whether a thread may be in the namespace: one that has ended is in none, and one that may not be looked at in any.
fn may_be(seen: &io::Result<u64>, namespace: u64) -> bool {
    match seen {
        Ok(inode) => *inode == namespace,
        Err(e) => !has_ended(e),
    }
}

fn has_ended(e: &io::Error) -> bool {
    e.kind() == ErrorKind::NotFound || e.raw_os_error() == Some(libc::ESRCH)
}

/// What is in a folder of /proc by number; nothing if whose folder it is has ended.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let is_number = |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes()[0].is_ascii_digit());
    let all = fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    match all {
        Err(e) if has_ended(&e) => Ok(Vec::new()),
        all => all.map(|all: Vec<PathBuf>| all.into_iter().filter(is_number).collect()),
    }
}

fn inode(path: impl AsRef<Path>) -> io::Result<u64> {
    fs::metadata(path).map(|found| found.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_some_process_is_in_is_there() {
        let here = Epoch::current();
        let elsewhere = Epoch::new(here.boot.clone(), here.namespace + 1, Some(0));
        assert_eq!(elsewhere.elsewhere(&here.to_string()), Some(here.namespace));
    }

    #[test]
    fn neither_our_own_nor_one_that_is_gone_nor_one_of_another_boot_is_elsewhere() {
        let here = Epoch::current();
        assert_eq!(here.elsewhere(&here.to_string()), None);
        let gone = here.elsewhere(&format!("{}/{}", here.boot, u64::MAX));
        // Where not all processes are seen, nobody can tell.
        assert_eq!(gone.is_none(), sees_all_processes());
        assert_eq!(Epoch::new("another boot", 0, None).elsewhere(&here.to_string()), None);
        assert_eq!(here.elsewhere("nonsense"), None);
    }

    #[test]
    fn a_namespace_with_the_number_of_one_that_is_gone_is_another() {
        let now = Epoch::new("boot", 7, Some(31));
        assert!(now.is("boot/7/31") && !now.is("boot/7/30") && !now.is("another boot/7/31"));
        assert_eq!(now.elsewhere("boot/7/30"), None, "its number is ours now, so it is gone");
        // What was written without a cookie, or is read without one, has its number alone.
        assert!(now.is("boot/7") && !now.is("boot/8"));
        assert!(Epoch::new("boot", 7, None).is("boot/7/31"));
        assert_eq!(now.to_string(), "boot/7/31");
        assert_eq!(Epoch::new("boot", 7, None).to_string(), "boot/7");
    }

    #[test]
    fn the_kernel_gives_each_namespace_a_cookie_of_its_own() {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "this test needs root, and CI must run it");
            eprintln!("SKIPPED: this test needs root");
            return;
        }
        let in_a_new_one = || {
            let thread = std::thread::spawn(|| {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                Epoch::current()
            });
            thread.join().unwrap()
        };
        let (first, second) = (in_a_new_one(), in_a_new_one());
        assert!(first.cookie.is_some() && !second.is(&first.to_string()), "{first} {second}");
    }

    #[test]
    fn a_namespace_that_is_mounted_where_another_thread_sees_it_is_there() {
        use nix::mount::{MsFlags, mount};
        use nix::sched::{CloneFlags, setns, unshare};
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "this test needs root, and CI must run it");
            eprintln!("SKIPPED: this test needs root");
            return;
        }
        const NONE: Option<&str> = None;
        let (tell, told) = std::sync::mpsc::channel();
        let (end, ends) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let own = fs::File::open("/proc/thread-self/ns/net").unwrap();
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).unwrap();
            mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).unwrap();
            let at = tempfile::NamedTempFile::new().unwrap();
            mount(Some("/proc/thread-self/ns/net"), at.path(), NONE, MsFlags::MS_BIND, NONE).unwrap();
            let namespace = inode("/proc/thread-self/ns/net").unwrap();
            setns(own, CloneFlags::CLONE_NEWNET).unwrap();
            tell.send((namespace, rustix::thread::gettid().as_raw_nonzero())).unwrap();
            let _ = ends.recv();
            nix::mount::umount(at.path()).unwrap();
        });
        let (namespace, id) = told.recv().unwrap();
        let mut seen = BTreeSet::new();
        assert!(!may_hold(Path::new("/proc/thread-self"), namespace, &mut seen));
        assert!(may_hold(&Path::new("/proc/self/task").join(id.to_string()), namespace, &mut seen));
        assert!(!is_gone(namespace));
        drop(end);
        thread.join().unwrap();
    }

    #[test]
    fn whoever_may_not_be_looked_at_may_be_anywhere() {
        let failed = |errno| Err(io::Error::from_raw_os_error(errno));
        assert!(may_be(&failed(libc::EACCES), 7) && may_be(&failed(libc::EPERM), 7));
        assert!(!may_be(&failed(libc::ENOENT), 7) && !may_be(&failed(libc::ESRCH), 7));
        assert!(may_be(&Ok(7), 7) && !may_be(&Ok(8), 7));
    }
}
