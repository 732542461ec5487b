//! The four files of the user database, rewritten whole beneath the lock that every tool on them takes
//! (`/etc/.pwd.lock`, as lckpwdf), each replaced by one rename. They are opened in a held directory: a root that stands for
//! a machine's may hold links that lead out of it, and pipes that nobody writes to.

mod lines;
#[cfg(test)]
mod tests;
mod unmade;

use super::super::attributes;
use super::super::directories::Tree;
use super::super::failed;
use super::super::files::{new_name, or_left};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use node_format_plan::Action;
use node_format_plan::action::User;
use plat_model::problem::{Problem, Result, codes};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use lines::{Accounts, Entries, Moved, SHELL, Texts, fields, identity, left, number};

/// Longest file of the user database that is read, in bytes.
const SIZE_MAX: u64 = 64 << 20;
/// How long another program may hold the database, as lckpwdf(3) waits.
const LOCK_MAX: Duration = Duration::from_secs(15);
/// How often it is tried.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const LOCK: &str = ".pwd.lock";

/// What says who there is, in the order that it is written in.
const DATABASE: [&str; 4] = ["shadow", "gshadow", "group", "passwd"];
/// What the programs that make users read and write.
const ALL: [&str; 6] = ["passwd", "shadow", "group", "gshadow", "subuid", "subgid"];
/// What they read of the system's own besides.
const DEFAULTS: [&str; 1] = ["login.defs"];

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

    /// Takes accounts out of every file; returns what it took.
    pub fn remove(&self, accounts: &Accounts) -> Result<Entries> {
        let mut taken = Entries::default();
        self.rewrite(|texts| taken = lines::take_out(texts, accounts))?;
        Ok(taken)
    }

    /// Puts what there is of these accounts into every file.
    pub fn put(&self, entries: &Entries, accounts: &Accounts) -> Result<()> {
        self.rewrite(|texts| entries.put_into(texts, accounts))
    }

    /// Puts these new accounts into every file, but for one whose number somebody has by now.
    pub fn put_new(&self, entries: &Entries, accounts: &Accounts) -> Result<()> {
        self.rewrite(|texts| entries.put_into(texts, &lines::still_free(texts, accounts)))
    }

    /// Takes out what there is by now, and was not before, of accounts that these actions did not make as they were to.
    pub fn unmake(&self, before: &Texts, actions: &[Action]) -> Result<()> {
        self.rewrite(|texts| unmade::take_out(texts, before, actions))
    }

    /// Gives users other groups, another first group and another home; takes back what was `moved` before.
    pub fn set(&self, changes: &[(&User, &User)], moved: &mut Moved) -> Result<()> {
        self.rewrite(|texts| lines::set(texts, changes, moved))
    }

    /// Takes away what a run that was killed left: files on their way, and of these accounts those that are half made.
    pub fn clear(&self, accounts: &Accounts) -> Result<()> {
        let left: Vec<&str> = DATABASE.into_iter().filter(|name| self.is_left(name)).collect();
        if let Some(held) = self.held.as_ref().filter(|_| !left.is_empty()) {
            let _lock = self.lock()?;
            for name in left.into_iter().filter(|name| self.is_left(name)) {
                let new = new_name(OsStr::new(name));
                let at = self.path.join(&new);
                rustix::fs::unlinkat(held, &new, AtFlags::empty())
                    .map_err(|e| failed(format!("cannot remove {}", at.display()), e))?;
            }
        }
        if accounts.users.is_empty() && accounts.groups.is_empty() {
            return Ok(());
        }
        let texts = self.texts()?;
        let half_made = lines::half_made(accounts, &texts);
        match half_made.users.is_empty() && half_made.groups.is_empty() {
            true => Ok(()),
            false => self.remove(&half_made).map(drop),
        }
    }

    /// Whether a file of root's own is there that was to take this one's place.
    fn is_left(&self, name: &str) -> bool {
        let found = self.held.as_ref().map(|held| {
            let new = new_name(OsStr::new(name));
            rustix::fs::statat(held, new, AtFlags::SYMLINK_NOFOLLOW)
        });
        matches!(found, Some(Ok(found)) if found.st_uid == 0
            && FileType::from_raw_mode(found.st_mode) == FileType::RegularFile)
    }

    /// Whether a program that reads accounts and writes the files anew leaves all else in them as it is.
    pub fn is_plain(&self) -> Result<bool> {
        // Such a program would have it on the new ones.
        if self.held.as_ref().is_some_and(attributes::hands_lists_on) {
            return Ok(false);
        }
        for name in DATABASE {
            let attributed = self.open_file(name)?.is_some_and(|file| !attributes::is_usual(&file));
            if attributed || !lines::is_plain(name, &self.read(name)?) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Changes the four files under the lock; if one cannot be written, those that were come back. The file that says whether
    /// there is such a user, or such a group, is rewritten last: whoever was killed before is done with only then. No shadow
    /// is made for a machine that has none.
    fn rewrite(&self, edit: impl FnOnce(&mut Texts)) -> Result<()> {
        let _lock = self.lock()?;
        let mut texts = self.texts()?;
        let before = texts.clone();
        edit(&mut texts);
        let changed: Vec<&str> = DATABASE.into_iter().filter(|name| texts.get(name) != before.get(name)).collect();
        for (n, name) in changed.iter().enumerate() {
            if let Err(e) = self.replace(name, &texts[name]) {
                let mut why = e.to_string();
                for done in changed[..n].iter().rev() {
                    if let Err(e) = self.replace(done, &before[done]) {
                        why.push_str(&format!("; nor could {} be put back: {e}", self.path.join(done).display()));
                    }
                }
                return Err(failed(format!("cannot rewrite {}", self.path.join(name).display()), why));
            }
        }
        Ok(())
    }

    /// Of the four files those that there are, and those that there must be.
    pub fn texts(&self) -> Result<Texts> {
        let mut texts = Texts::new();
        for name in DATABASE {
            if matches!(name, "passwd" | "group") || self.open_file(name)?.is_some() {
                texts.insert(name, self.read(name)?);
            }
        }
        Ok(texts)
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
        let old = match rustix::fs::openat(held, name, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => None,
            opened => Some(plain(File::from(opened?))?),
        };
        let new = new_name(OsStr::new(name));
        match rustix::fs::unlinkat(held, &new, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(other) => return Err(other.into()),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(held, &new, flags, Mode::from_raw_mode(0o600))?);
        let begun = attributes::take_lists(&file).map_err(std::io::Error::from);
        let begun = begun.and_then(|()| old.as_ref().map_or(Ok(()), |old| attributes::copy_flags(old, &file)));
        let written = begun.and_then(|()| file.write_all(text.as_bytes())).and_then(|()| {
            match &old {
                None => rustix::fs::fchmod(&file, Mode::from_raw_mode(0o644))?,
                Some(old) => {
                    let found = old.metadata()?;
                    fchown(&file, Some(found.uid()), Some(found.gid()))?;
                    attributes::copy(old, &file)?;
                    // Of a list of access control it says what the list may give at most.
                    file.set_permissions(found.permissions())?;
                }
            }
            file.sync_all()?;
            Ok(rustix::fs::renameat(held, &new, held, name)?)
        });
        written.map_err(|e| or_left(e, rustix::fs::unlinkat(held, &new, AtFlags::empty()), &new))
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
