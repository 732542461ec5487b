//! The four files of the user database, rewritten whole beneath the lock that every tool on them takes
//! (`/etc/.pwd.lock`, as lckpwdf), each replaced by one rename. They are opened in a held directory: a root that stands for
//! a machine's may hold links that lead out of it, and pipes that nobody writes to.

mod attributes;
#[cfg(test)]
mod tests;

use super::super::directories::Tree;
use super::super::failed;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use plat_model::problem::{Problem, Result, codes};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Mode, OFlags};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest file of the user database that is read, in bytes.
const SIZE_MAX: u64 = 64 << 20;
/// How long another program may hold the database, as lckpwdf(3) waits.
const LOCK_MAX: Duration = Duration::from_secs(15);
/// How often it is tried.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const LOCK: &str = ".pwd.lock";

/// What the programs that make users read and write.
const ALL: [&str; 6] = ["passwd", "shadow", "group", "gshadow", "subuid", "subgid"];
/// What they read of the system's own besides.
const DEFAULTS: [&str; 1] = ["login.defs"];

/// A user or group by what it is known by.
pub(super) type Identity<'a> = (&'a str, u32);

/// The directory `/etc` of a root file system.
pub(super) struct Etc {
    /// `None`: there is none.
    held: Option<OwnedFd>,
    path: PathBuf,
    is_the_machines: bool,
}

impl Etc {
    /// # Errors
    /// If it is there and is no directory, or a symbolic link.
    pub fn open(root: &Path, tree: &Tree) -> Result<Self> {
        let path = root.join("etc");
        let held = match tree.open_directory(Path::new("/etc")) {
            Err(rustix::io::Errno::NOENT) => None,
            opened => Some(opened.map_err(|e| unusable(&path, e.into()))?),
        };
        Ok(Self { held, path, is_the_machines: tree.is_the_machines() })
    }

    /// Programs that are started follow links: whatever they would read or write must be plain files.
    ///
    /// # Errors
    /// If something else is there. Who is not root sees less, and changes none of them.
    pub fn check(&self) -> Result<()> {
        if !rustix::process::geteuid().is_root() {
            return Ok(());
        }

        let backups = ALL.map(|name| format!("{name}-"));
        let others = DEFAULTS.into_iter().chain(backups.iter().map(String::as_str));
        let others = others.filter(|_| !self.is_the_machines);
        ALL.into_iter().chain([LOCK]).chain(others).try_for_each(|name| self.open_file(name).map(drop))
    }

    /// The text of a file; none if there is no such file.
    pub fn read(&self, name: &str) -> Result<String> {
        self.open_file(name)?.map_or_else(|| Ok(String::new()), |file| self.text(name, file))
    }

    fn text(&self, name: &str, file: File) -> Result<String> {
        let wrong = |why: String| {
            Problem::new(codes::FILE, format!("{} cannot be read", self.path.join(name).display())).because(why)
        };
        let mut text = String::new();
        // Names and numbers are ASCII; a comment in another encoding must survive a rewrite, so it is refused, not mangled.
        let length = file.take(SIZE_MAX + 1).read_to_string(&mut text).map_err(|e| wrong(e.to_string()))?;
        if length as u64 > SIZE_MAX {
            return Err(wrong("it is larger than 64 MiB".into()));
        }
        Ok(text)
    }

    fn open_file(&self, name: &str) -> Result<Option<File>> {
        let Some(held) = &self.held else { return Ok(None) };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match rustix::fs::openat(held, name, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => Ok(None),
            opened => {
                let opened = opened.map_err(std::io::Error::from).map(File::from).and_then(plain);
                opened.map(Some).map_err(|e| unusable(&self.path.join(name), e))
            }
        }
    }

    /// Takes users and groups out of every file, those of the name that have the number. The file that says whether there
    /// is such a user, or such a group, is rewritten last: whoever was killed before is done with only then.
    pub fn remove(&self, users: &BTreeSet<Identity>, groups: &BTreeSet<Identity>) -> Result<()> {
        let _lock = self.lock()?;
        let (passwd, group) = (self.read("passwd")?, self.read("group")?);
        let gone = Gone {
            users: names_gone(&passwd, users),
            groups: names_gone(&group, groups),
            numbered_users: users,
            numbered_groups: groups,
        };
        let (shadow, gshadow) = (self.read("shadow")?, self.read("gshadow")?);
        for (name, text) in [("shadow", shadow), ("gshadow", gshadow), ("group", group), ("passwd", passwd)] {
            let new = gone.taken_out(&text, name);
            if new != text {
                self.replace(name, &new)
                    .map_err(|e| failed(format!("cannot rewrite {}", self.path.join(name).display()), e))?;
            }
        }
        Ok(())
    }

    fn lock(&self) -> Result<File> {
        let path = self.path.join(LOCK);
        let wrong = |why: String| failed(format!("the user database cannot be locked ({})", path.display()), why);
        let held = self.held.as_ref().ok_or_else(|| wrong("there is no such directory".into()))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(held, LOCK, flags, Mode::from_raw_mode(0o600)).map_err(std::io::Error::from);
        let file = opened.map(File::from).and_then(plain).map_err(|e| wrong(e.to_string()))?;
        let whole = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        let start = Instant::now();
        loop {
            match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole)) {
                Ok(_) => return Ok(file),
                Err(e) if !matches!(e, Errno::EAGAIN | Errno::EACCES) => return Err(wrong(e.to_string())),
                Err(e) if start.elapsed() > LOCK_MAX => return Err(wrong(format!("another program holds it ({e})"))),
                Err(_) => std::thread::park_timeout(LOOK_EVERY),
            }
        }
    }

    /// With owner, mode, label and all else that says who may read it.
    fn replace(&self, name: &str, text: &str) -> std::io::Result<()> {
        let held = self.held.as_ref().ok_or(std::io::ErrorKind::NotFound)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let old = plain(File::from(rustix::fs::openat(held, name, flags, Mode::empty())?))?;
        let found = old.metadata()?;
        let new = format!("{name}.plat-new");
        match rustix::fs::unlinkat(held, &new, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(other) => return Err(other.into()),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(held, &new, flags, Mode::from_raw_mode(0o600))?);
        let written = file.write_all(text.as_bytes()).and_then(|()| {
            fchown(&file, Some(found.uid()), Some(found.gid()))?;
            file.set_permissions(found.permissions())?;
            attributes::copy(&old, &file)?;
            file.sync_all()?;
            Ok(rustix::fs::renameat(held, &new, held, name)?)
        });
        if written.is_err() {
            let _ = rustix::fs::unlinkat(held, &new, AtFlags::empty());
        }
        written
    }
}

fn unusable(path: &Path, why: std::io::Error) -> Problem {
    let link = matches!(why.raw_os_error(), Some(libc::ELOOP | libc::ENOTDIR | libc::ENXIO));
    let why = if link { "it is not a plain file, and no symbolic link is followed".into() } else { why.to_string() };
    Problem::new(codes::FILE, format!("{} cannot be used", path.display()))
        .because(why)
        .fix("put the file itself there, then run it again")
}

fn plain(file: File) -> std::io::Result<File> {
    if file.metadata()?.is_file() { Ok(file) } else { Err(std::io::Error::other("it is not a plain file")) }
}

/// Those of these names that are nobody's any more once the lines of the name and number are gone.
fn names_gone<'a>(text: &str, gone: &BTreeSet<Identity<'a>>) -> BTreeSet<&'a str> {
    let lines = || text.lines().filter_map(identity);
    let stay: BTreeSet<&str> = lines().filter(|line| !gone.contains(line)).map(|(name, _)| name).collect();
    let there: BTreeSet<Identity> = lines().collect();
    gone.iter().filter(|one| there.contains(*one)).map(|(name, _)| *name).filter(|name| !stay.contains(name)).collect()
}

/// Of a line of passwd or group.
fn identity(line: &str) -> Option<Identity<'_>> {
    let mut fields = line.split(':');
    Some((fields.next()?, fields.nth(1)?.parse().ok()?))
}

/// What is to be taken out.
struct Gone<'a> {
    users: BTreeSet<&'a str>,
    groups: BTreeSet<&'a str>,
    numbered_users: &'a BTreeSet<Identity<'a>>,
    numbered_groups: &'a BTreeSet<Identity<'a>>,
}

impl Gone<'_> {
    /// The file without the lines of those, and without the users as members (group, gshadow) or administrators (gshadow).
    fn taken_out(&self, text: &str, file: &str) -> String {
        let from = match file {
            "group" => 3,
            "gshadow" => 2,
            _ => usize::MAX,
        };
        let numbered = |line: &str, gone: &BTreeSet<Identity>| identity(line).is_some_and(|line| gone.contains(&line));
        let named = |line: &str, gone: &BTreeSet<&str>| gone.contains(line.split(':').next().unwrap_or_default());
        let goes = |line: &str| match file {
            "passwd" => numbered(line, self.numbered_users),
            "group" => numbered(line, self.numbered_groups),
            "shadow" => named(line, &self.users),
            _ => named(line, &self.groups),
        };
        let kept = text.lines().filter(|line| !goes(line));
        kept.map(|line| {
            let fields = line.split(':').enumerate().map(|(n, field)| {
                if n < from || !field.split(',').any(|member| self.users.contains(member)) {
                    return field.to_owned();
                }
                field.split(',').filter(|member| !self.users.contains(member)).collect::<Vec<_>>().join(",")
            });
            fields.collect::<Vec<_>>().join(":") + "\n"
        })
        .collect()
    }
}
