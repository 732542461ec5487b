//! Directories beneath a held handle. No symbolic link is followed anywhere on the way (openat2 with RESOLVE_BENEATH and
//! RESOLVE_NO_SYMLINKS), for the owner of a partition may put one where we walk.

use super::failed;
use node_format_plan::{Action, Directory, Owner, PathFact};
use plat_model::problem::{Problem, Result, codes};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How many parents' handles are kept: a walk in order needs the last few.
const HANDLES: usize = 8;
/// Deepest tree that is erased.
const DEPTH_MAX: usize = 200;

pub(super) struct Tree {
    root: OwnedFd,
    parents: BTreeMap<PathBuf, OwnedFd>,
}

impl Tree {
    pub fn open(root: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, Mode::empty())
            .map_err(|e| Problem::new(codes::FILE, format!("{} cannot be opened", root.display())).because(e))?;
        Ok(Self { root, parents: BTreeMap::new() })
    }

    fn openat2(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let relative = path.strip_prefix("/").unwrap_or(path);
        let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat2(&self.root, relative, flags, Mode::empty(), resolve)
    }

    /// The handle of the directory above, and the last name of the path.
    pub fn parent<'p>(&mut self, path: &'p Path) -> rustix::io::Result<(&OwnedFd, &'p std::ffi::OsStr)> {
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::INVAL) };
        if !self.parents.contains_key(above) {
            if self.parents.len() >= HANDLES {
                self.parents.clear();
            }
            let handle = self.openat2(above, OFlags::PATH)?;
            self.parents.insert(above.to_path_buf(), handle);
        }
        self.parents.get(above).map(|handle| (handle, name)).ok_or(Errno::NOENT)
    }

    /// What is at each path; a path that is missing does not exist.
    pub fn observe(&mut self, paths: &BTreeSet<PathBuf>, contents: &BTreeSet<PathBuf>) -> BTreeMap<PathBuf, PathFact> {
        self.parents.clear();
        let facts = paths.iter().filter_map(|path| {
            let seen = self
                .parent(path)
                .and_then(|(parent, name)| rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW));
            let unknown = |why: Errno| PathFact::Unknown { why: why.to_string() };
            let fact = match seen {
                // A link on the way is a fact of the path it stands at.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return None,
                Err(why) => unknown(why),
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Directory => {
                    let kind = match FileType::from_raw_mode(stat.st_mode) {
                        FileType::Symlink => "a symbolic link",
                        FileType::RegularFile => "a file",
                        _ => "something else",
                    };
                    PathFact::Other { kind: kind.into() }
                }
                Ok(stat) => {
                    let stranger = contents.contains(path).then(|| self.stranger(path, paths)).transpose();
                    let owner = Owner { uid: stat.st_uid, gid: stat.st_gid };
                    stranger.map_or_else(unknown, |stranger| PathFact::Directory {
                        owner,
                        mode: stat.st_mode & 0o7777,
                        stranger: stranger.flatten(),
                    })
                }
            };
            Some((path.clone(), fact))
        });
        facts.collect()
    }

    /// The name of something in a directory that is none of the paths.
    fn stranger(&self, path: &Path, paths: &BTreeSet<PathBuf>) -> rustix::io::Result<Option<String>> {
        for entry in Dir::new(self.openat2(path, OFlags::RDONLY)?)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            let known = matches!(name, b"." | b"..") || paths.contains(&path.join(std::ffi::OsStr::from_bytes(name)));
            if !known {
                return Ok(Some(plat_model::id::shorten(&String::from_utf8_lossy(name))));
            }
        }
        Ok(None)
    }

    pub fn perform(&mut self, action: &Action) -> Result<()> {
        let (verb, path, result) = match action {
            Action::MakeDirectory(directory) => ("make", &directory.path, self.make(directory)),
            Action::RemoveDirectory(directory) => ("remove", &directory.path, self.remove(&directory.path)),
            Action::EraseDirectory(directory) => ("erase", &directory.path, self.erase(&directory.path)),
            Action::SetDirectory { path, to, .. } => ("change", path, self.set(path, to.0, to.1)),
            _ => return Ok(()),
        };
        result.map_err(|e| failed(format!("cannot {verb} directory {}", path.display()), e))
    }

    fn make(&mut self, directory: &Directory) -> rustix::io::Result<()> {
        let (parent, name) = self.parent(&directory.path)?;
        rustix::fs::mkdirat(parent, name, Mode::RWXU)?;
        let open = || {
            rustix::fs::openat(
                parent,
                name,
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )
        };
        let owned = open().and_then(|made| give(&made, directory.owner, directory.mode));
        if owned.is_err() {
            rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?;
        }
        owned
    }

    fn set(&mut self, path: &Path, owner: Owner, mode: u32) -> rustix::io::Result<()> {
        give(&self.openat2(path, OFlags::RDONLY)?, owner, mode)
    }

    fn remove(&mut self, path: &Path) -> rustix::io::Result<()> {
        self.parents.remove(path);
        let (parent, name) = self.parent(path)?;
        rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
    }

    fn erase(&mut self, path: &Path) -> rustix::io::Result<()> {
        let directory = self.openat2(path, OFlags::RDONLY)?;
        let device = rustix::fs::fstat(&directory)?.st_dev;
        erase_contents(directory, device, DEPTH_MAX)?;
        self.remove(path)
    }
}

fn give(directory: &OwnedFd, owner: Owner, mode: u32) -> rustix::io::Result<()> {
    let found = rustix::fs::fstat(directory)?;
    if (found.st_uid, found.st_gid) != (owner.uid, owner.gid) {
        rustix::fs::fchown(directory, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))?;
    }
    rustix::fs::fchmod(directory, Mode::from_raw_mode(mode))
}

/// Removes all that is in a directory, of its file system only: what is mounted in it is not the partition's.
fn erase_contents(directory: OwnedFd, device: u64, depth: usize) -> rustix::io::Result<()> {
    let entries = Dir::read_from(directory.as_fd())?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&directory, name, flags, Mode::empty()) {
            Ok(inner) => {
                if rustix::fs::fstat(&inner)?.st_dev != device {
                    return Err(Errno::XDEV);
                }
                erase_contents(inner, device, depth.checked_sub(1).ok_or(Errno::NAMETOOLONG)?)?;
                rustix::fs::unlinkat(&directory, name, AtFlags::REMOVEDIR)?;
            }
            Err(Errno::NOTDIR | Errno::LOOP) => rustix::fs::unlinkat(&directory, name, AtFlags::empty())?,
            Err(other) => return Err(other),
        }
    }
    Ok(())
}
