//! Where the record is. Its directory is held, and no symbolic link is followed to it. Who could write it could have root
//! remove whatever it names: what root believes is root's, with all that it lies in.

use super::wrong;
use node_format_plan::action::ON_ITS_WAY;
use plat_model::problem::{Problem, Result};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const FILE: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);
/// Longest record that is read, in bytes: 10,000 partitions need about 10 MiB.
const SIZE_MAX: u64 = 256 << 20;

/// How often the record's directory is made anew because another run, which ends, removes it.
pub(super) const TRIES: usize = 10;

/// A directory that is held, and a name in it.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    directory: OwnedFd,
}

impl Place {
    /// `None`: its directory is not there.
    ///
    /// # Errors
    /// If something on the way is no directory, or cannot be trusted.
    pub fn find(path: &Path) -> Result<Option<Self>> {
        Self::walk(path, |_, _, _| Ok(None))
    }

    /// Makes the directories that are missing (0700 the last); says which.
    ///
    /// # Errors
    /// As [`Place::find`]; if they cannot be made.
    pub fn make(path: &Path) -> Result<(Self, Vec<PathBuf>)> {
        let mut made = Vec::new();
        for _ in 0..TRIES {
            let place = Self::walk(path, |above, name, directory| {
                let mode = Mode::from_raw_mode(if path.parent() == Some(directory) { 0o700 } else { 0o755 });
                let is_new = match rustix::fs::mkdirat(above, name, mode) {
                    Ok(()) => true,
                    // Another run was faster.
                    Err(Errno::EXIST) => false,
                    // Another run has removed what it would be in.
                    Err(Errno::NOENT) => return Ok(None),
                    Err(e) => return Err(e),
                };
                let opened = match rustix::fs::openat(above, name, DIRECTORY | OFlags::RDONLY, Mode::empty()) {
                    Err(Errno::NOENT) => return Ok(None),
                    opened => opened?,
                };
                if is_new {
                    made.push(directory.to_path_buf());
                    // Whatever the umask says.
                    rustix::fs::fchmod(&opened, mode)?;
                }
                Ok(Some(opened))
            });
            let place = place.inspect_err(|_| _ = remove_empty(made.iter().rev()).next())?;
            if let Some(place) = place {
                return Ok((place, made));
            }
        }
        Err(wrong(path, "its directory was removed again and again").fix("wait until other runs have ended"))
    }

    /// Down from the root of the file system, one name at a time.
    fn walk(
        path: &Path,
        mut missing: impl FnMut(&OwnedFd, &OsStr, &Path) -> rustix::io::Result<Option<OwnedFd>>,
    ) -> Result<Option<Self>> {
        let unusable = |at: &Path, e: Errno| wrong(path, format!("{}: {}", at.display(), said(e)));
        let above = path.parent().filter(|_| path.file_name().is_some());
        let above = above.ok_or_else(|| wrong(path, "it is no path of a file"))?;
        let (mut at, mut walked) = (PathBuf::new(), None::<OwnedFd>);
        for component in above.components() {
            let opened = match (component, &walked) {
                (Component::RootDir, None) => rustix::fs::open("/", DIRECTORY | OFlags::PATH, Mode::empty()).map(Some),
                (Component::Normal(name), Some(above)) => {
                    match rustix::fs::openat(above, name, DIRECTORY | OFlags::PATH, Mode::empty()) {
                        Err(Errno::NOENT) => missing(above, name, &at.join(name)),
                        opened => opened.map(Some),
                    }
                }
                _ => return Err(wrong(path, "it is not absolute, or holds `..`")),
            };
            at.push(component);
            let Some(opened) = opened.map_err(|e| unusable(&at, e))? else { return Ok(None) };
            let found = rustix::fs::fstat(&opened).map_err(|e| unusable(&at, e))?;
            trust(path, &at, &found)?;
            walked = Some(opened);
        }
        Ok(walked.map(|directory| Self { path: path.to_path_buf(), directory }))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its directory, to be locked.
    pub fn lockable(&self) -> io::Result<File> {
        Ok(rustix::fs::openat(&self.directory, ".", DIRECTORY | OFlags::RDONLY, Mode::empty())?.into())
    }

    /// Whether its path still leads to the directory that is held.
    pub fn is_there(&self) -> io::Result<bool> {
        let held = rustix::fs::fstat(&self.directory)?;
        let above = self.path.parent().unwrap_or(&self.path);
        match rustix::fs::lstat(above) {
            Ok(found) => Ok((found.st_dev, found.st_ino) == (held.st_dev, held.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Whether there is anything of the record's name.
    pub fn is_taken(&self) -> Result<bool> {
        match rustix::fs::statat(&self.directory, self.name(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(wrong(&self.path, e)),
        }
    }

    /// The text of the record; `None` if there is none.
    pub fn read(&self) -> Result<Option<String>> {
        self.text(self.name())
    }

    fn text(&self, name: &OsStr) -> Result<Option<String>> {
        let file = match self.open(name, OFlags::RDONLY) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(|e| wrong(&self.path, e))?,
        };
        trust(&self.path, &self.path, &rustix::fs::fstat(&file).map_err(|e| wrong(&self.path, e))?)?;
        let mut text = String::new();
        let length = file.take(SIZE_MAX + 1).read_to_string(&mut text).map_err(|e| wrong(&self.path, e))?;
        if length as u64 > SIZE_MAX {
            return Err(wrong(&self.path, "it is larger than 256 MiB"));
        }
        Ok(Some(text))
    }

    /// To write at its end.
    pub fn append(&self) -> io::Result<File> {
        self.open(self.name(), OFlags::WRONLY | OFlags::APPEND)
    }

    /// A file beside the record, made where it is missing.
    pub fn beside(&self, name: &OsStr) -> io::Result<File> {
        self.open(name, OFlags::WRONLY | OFlags::CREATE)
    }

    /// Puts another text in the place of the record, whole or not at all; the file is open for writing at its end.
    pub fn replace(&self, text: &str) -> io::Result<File> {
        let new = self.new_name();
        self.remove(&new);
        let mut file = self.open(&new, OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL)?;
        let whole = file.write_all(text.as_bytes()).and_then(|()| file.sync_data());
        let placed =
            whole.and_then(|()| Ok(rustix::fs::renameat(&self.directory, &new, &self.directory, self.name())?));
        placed.inspect_err(|_| self.remove(&new))?;
        self.lockable()?.sync_all()?;
        Ok(file)
    }

    /// Makes the record one that is on its way to be none: what directories were made for it is still to be read.
    pub fn put_aside(&self) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.directory, self.name(), &self.directory, self.new_name())?)
    }

    /// Removes the record that was put aside.
    pub fn clear(&self) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.directory, self.new_name(), AtFlags::empty())?)
    }

    /// Whether a file is there that a killed run left beside where the record is to be.
    pub fn is_left(&self) -> Result<bool> {
        let is_there = |name: OsString| match rustix::fs::statat(&self.directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(wrong(&self.path, e)),
        };
        Ok(is_there(self.new_name())? || is_there(self.name_with(super::locks::CHILDREN))?)
    }

    /// The text of a record that is none yet, or no more; empty where there is a record, or no such text.
    pub fn left(&self) -> Result<String> {
        if self.is_taken()? {
            return Ok(String::new());
        }
        Ok(self.text(&self.new_name())?.unwrap_or_default())
    }

    /// Removes a file beside the record; what stays is of no meaning.
    pub fn remove(&self, name: &OsStr) {
        let _ = rustix::fs::unlinkat(&self.directory, name, AtFlags::empty());
    }

    /// The name of a file beside the record: nobody else's begins so.
    pub fn name_with(&self, ending: &str) -> OsString {
        let mut name = OsString::from(ON_ITS_WAY);
        name.push(self.name());
        name.push(".");
        name.push(ending);
        name
    }

    fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }

    /// Where it is written before it takes its place.
    fn new_name(&self) -> OsString {
        self.name_with("new")
    }

    /// Nothing but a plain file, which nobody waits for.
    fn open(&self, name: &OsStr, flags: OFlags) -> io::Result<File> {
        let file = rustix::fs::openat(&self.directory, name, FILE | flags, Mode::from_raw_mode(0o600));
        let file = File::from(file.map_err(|e| match e {
            Errno::LOOP | Errno::NXIO | Errno::ISDIR => io::Error::other(said(e)),
            e => e.into(),
        })?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a plain file")) }
    }
}

/// Removes these directories, up to the first that holds something; gives those that stay.
pub(super) fn remove_empty<'a>(directories: impl Iterator<Item = &'a PathBuf>) -> impl Iterator<Item = &'a PathBuf> {
    directories.skip_while(|directory| std::fs::remove_dir(directory).is_ok())
}

fn said(e: Errno) -> String {
    match e {
        Errno::LOOP | Errno::NOTDIR => "it is a symbolic link or a file, and no link is followed".into(),
        Errno::NXIO | Errno::ISDIR => "it is not a plain file".into(),
        e => e.to_string(),
    }
}

/// Root trusts what no other user can write or replace.
fn trust(record: &Path, at: &Path, found: &Stat) -> Result<()> {
    // In a directory like /tmp nobody can replace what is another's.
    let writable = found.st_mode & 0o022 != 0 && found.st_mode & 0o1000 == 0;
    if !rustix::process::geteuid().is_root() || (found.st_uid == 0 && !writable) {
        return Ok(());
    }
    let mode = found.st_mode & 0o7777;
    let why = format!(
        "{} belongs to uid {} and has mode {mode:04o}: others could write what root believes",
        at.display(),
        found.st_uid
    );
    let problem: Problem = wrong(record, why);
    Err(problem.fix("see who changed that; if the record is as node-format wrote it, `chown root` and `chmod go-w` it, or give it a place that only root can write (`paths.record`)"))
}
