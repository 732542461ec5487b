//! The folder that a release is laid into: nothing that is laid there, links included, reaches out of it.

use crate::host::linux::disk::io_problem;
use crate::host::linux::partition::empty::empty;
use crate::host::linux::partition::files::open_top;
use plat_model::Problem;
use plat_model::problem::codes;
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Uid, chownat, fchmod, fstat, linkat, mkdirat,
    openat, openat2, readlinkat, renameat_with, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::ffi::{CStr, OsStr};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

/// Deepest folder of a release.
pub const DEPTH_MAX: usize = 200;
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Which absolute links are made relative.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Links {
    All,
    /// The others are the node's.
    ToWhatIsThere,
}

/// A folder of the release, held.
pub struct Tree {
    top: OwnedFd,
}

impl Tree {
    /// Opens `into` beneath `staging`, making it.
    pub fn open(staging: &Path, into: &str) -> Result<Self, Problem> {
        let top = open_top(staging)?;
        let wrong = |e: &io::Error| io_problem(codes::BUILD_FAILED, format!("cannot make `{into}` in the release"), e);
        let here = Self { top };
        let top = here.folder(Path::new(into)).map_err(|e| wrong(&e))?;
        Ok(Self { top })
    }

    /// Opens a folder, making it and its parents; links within the tree are followed, none leads out of it.
    fn folder(&self, path: &Path) -> io::Result<OwnedFd> {
        let mut walked = PathBuf::new();
        let mut here = openat(&self.top, ".", FOLDER, Mode::empty())?;
        for part in path.components() {
            let Component::Normal(name) = part else {
                return Err(io::Error::other("the path is not relative and plain"));
            };
            walked.push(name);
            if walked.components().count() > DEPTH_MAX {
                return Err(io::Error::other("it is nested too deeply"));
            }
            match mkdirat(&here, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e.into()),
            }
            here = openat2(&self.top, &walked, FOLDER, Mode::empty(), ResolveFlags::BENEATH)?;
        }
        Ok(here)
    }

    /// A folder beneath, as a tree of its own; it is made if need be.
    pub fn below(&self, path: &Path) -> io::Result<Self> {
        Ok(Self { top: self.folder(path)? })
    }

    /// The contents of a file of at most so many bytes; `None` if there is none.
    pub fn read(&self, path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.file(path)? else { return Ok(None) };
        let mut contents = Vec::new();
        File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?.take(most + 1).read_to_end(&mut contents)?;
        if contents.len() as u64 > most {
            return Err(io::Error::other(format!("{} has more than {most} bytes", path.display())));
        }
        Ok(Some(contents))
    }

    /// Returns whether there is such a file.
    pub fn make_executable(&self, path: &Path) -> io::Result<bool> {
        let Some(file) = self.file(path)? else { return Ok(false) };
        fs::set_permissions(format!("/proc/self/fd/{}", file.as_raw_fd()), fs::Permissions::from_mode(0o755))?;
        Ok(true)
    }

    /// The handle of a file, if it is one, reached without leaving the tree.
    fn file(&self, path: &Path) -> io::Result<Option<OwnedFd>> {
        let held = match openat2(&self.top, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::BENEATH)
        {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            opened => opened?,
        };
        let is_file = FileType::from_raw_mode(fstat(&held)?.st_mode) == FileType::RegularFile;
        Ok(is_file.then_some(held))
    }

    pub fn make_folder(&self, path: &Path) -> io::Result<()> {
        self.folder(path).map(|_| ())
    }

    /// The parent's folder and the name in it; what had the name is removed, unless it is a folder.
    fn slot<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        let name = path.file_name().ok_or_else(|| io::Error::other("the path names nothing"))?;
        let folder = self.folder(path.parent().unwrap_or(Path::new("")))?;
        match unlinkat(&folder, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok((folder, name)),
            Err(e) => Err(e.into()),
        }
    }

    /// Returns how many bytes were written.
    pub fn write(&self, path: &Path, executable: bool, contents: &mut dyn Read) -> io::Result<u64> {
        let (folder, name) = self.slot(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = if executable { 0o755 } else { 0o644 };
        let mut file = File::from(openat(&folder, name, flags, Mode::from_raw_mode(mode))?);
        fchmod(&file, Mode::from_raw_mode(mode))?;
        io::copy(contents, &mut file)
    }

    pub fn link(&self, path: &Path, target: &Path) -> io::Result<()> {
        let (folder, name) = self.slot(path)?;
        Ok(symlinkat(target, &folder, name)?)
    }

    /// A second name for the file `of`, which is in the tree.
    pub fn hard_link(&self, path: &Path, of: &Path) -> io::Result<()> {
        let name = of.file_name().ok_or_else(|| io::Error::other("the link's target names nothing"))?;
        let from = self.folder(of.parent().unwrap_or(Path::new("")))?;
        let (folder, new) = self.slot(path)?;
        Ok(linkat(&from, name, &folder, new, AtFlags::empty())?)
    }

    /// What a path names, if anything is there; of a link, the link.
    pub fn kind(&self, path: &Path) -> io::Result<Option<FileType>> {
        let Some((folder, name)) = self.there(path)? else { return Ok(None) };
        match statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Removes what a path names, with all that is in it. Nothing need be there.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        match self.there(path)? {
            Some((folder, name)) => remove(&folder, name),
            None => Ok(()),
        }
    }

    /// Removes all that is in a folder. It need not be there.
    pub fn clear(&self, path: &Path) -> io::Result<()> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let folder = match openat2(&self.top, path, FOLDER, Mode::empty(), ResolveFlags::BENEATH) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            opened => opened?,
        };
        entries(&folder)?.iter().try_for_each(|(name, _)| remove(&folder, OsStr::from_bytes(name.to_bytes())))
    }

    /// The folder that holds `path`, if it is there, and the name in it.
    fn there<'a>(&self, path: &'a Path) -> io::Result<Option<(OwnedFd, &'a OsStr)>> {
        let name = path.file_name().ok_or_else(|| io::Error::other("the path names nothing"))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        match openat2(&self.top, parent, FOLDER, Mode::empty(), ResolveFlags::BENEATH) {
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            opened => Ok(Some((opened?, name))),
        }
    }

    /// Moves all that is in another tree here. Nothing of these names may be here yet.
    pub fn adopt(&self, other: &Self) -> io::Result<()> {
        for (name, _) in entries(&other.top)? {
            let name = name.as_c_str();
            renameat_with(&other.top, name, &self.top, name, RenameFlags::NOREPLACE).map_err(|e| match e {
                Errno::EXIST => {
                    let name = name.to_string_lossy();
                    io::Error::other(format!("`{name}` is there already; give it a folder of its own with `into`"))
                }
                other => other.into(),
            })?;
        }
        Ok(())
    }

    /// The first link, if there is one, that leads out of the tree. Dangling links lead nowhere.
    pub fn link_that_leaves(&self) -> io::Result<Option<PathBuf>> {
        let mut found = None;
        self.each_link(|path, _| {
            match openat2(&self.top, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::BENEATH) {
                Err(Errno::XDEV) if found.is_none() => found = Some(path.to_owned()),
                _ => {}
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Makes absolute links relative: the tree is a system's root, moved.
    pub fn root_links(&self, which: Links) -> io::Result<()> {
        let mut absolute = Vec::new();
        self.each_link(|path, target| {
            if target.is_absolute() {
                absolute.push((path.to_owned(), target.to_owned()));
            }
            Ok(())
        })?;
        for (path, target) in absolute {
            let inside = target.strip_prefix("/").unwrap_or(&target).to_owned();
            let there =
                openat2(&self.top, &inside, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT);
            if which == Links::All || there.is_ok() {
                let up: PathBuf = path.parent().into_iter().flat_map(Path::components).map(|_| "..").collect();
                self.link(&path, &up.join(inside))?;
            }
        }
        Ok(())
    }

    fn each_link(&self, mut what: impl FnMut(&Path, &Path) -> io::Result<()>) -> io::Result<()> {
        let mut folders = vec![PathBuf::new()];
        while let Some(path) = folders.pop() {
            let here = openat(
                &self.top,
                if path.as_os_str().is_empty() { Path::new(".") } else { &path },
                FOLDER | OFlags::NOFOLLOW,
                Mode::empty(),
            )?;
            for (name, kind) in entries(&here)? {
                let path = path.join(OsStr::from_bytes(name.to_bytes()));
                match kind {
                    FileType::Directory => folders.push(path),
                    FileType::Symlink => {
                        let target = readlinkat(&here, name.as_c_str(), Vec::new())?;
                        what(&path, Path::new(OsStr::from_bytes(target.to_bytes())))?;
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// Removes a name with all that is beneath it; no link is followed.
fn remove(folder: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(e) => return Err(e.into()),
    }
    empty(&openat(folder, name, FOLDER | OFlags::NOFOLLOW, Mode::empty())?)?;
    Ok(unlinkat(folder, name, AtFlags::REMOVEDIR)?)
}

fn entries(folder: &OwnedFd) -> io::Result<Vec<(std::ffi::CString, FileType)>> {
    let mut all = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name: &CStr = entry.file_name();
        if name != c"." && name != c".." {
            let mode = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode;
            all.push((name.to_owned(), FileType::from_raw_mode(mode)));
        }
    }
    Ok(all)
}

/// Makes a finished tree read-only, and the agent's own where another user built it: the builder of the next release
/// must not be able to change this one. Nothing but files, folders and links may be in it.
pub fn seal(folder: &OwnedFd, builder: Option<u32>) -> io::Result<()> {
    seal_below(folder, builder, &mut BTreeSet::new())
}

/// `done`: files of several names that were sealed under another one.
fn seal_below(folder: &OwnedFd, builder: Option<u32>, done: &mut BTreeSet<u64>) -> io::Result<()> {
    for (name, _) in entries(folder)? {
        let shown = name.to_string_lossy();
        // From here on it is this one, whatever is done to the name.
        let held = openat(folder, name.as_c_str(), OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let stat = fstat(&held)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if stat.st_nlink > 1 && kind == FileType::RegularFile && !done.insert(stat.st_ino) {
            continue;
        }
        if builder.is_some_and(|uid| stat.st_uid != uid) {
            return Err(io::Error::other(format!("{shown} is not the builder's")));
        }
        own(&held, builder)?;
        match kind {
            FileType::Symlink => {}
            FileType::Directory => {
                let below = openat(folder, name.as_c_str(), FOLDER | OFlags::NOFOLLOW, Mode::empty())?;
                let found = fstat(&below)?;
                if (found.st_dev, found.st_ino) != (stat.st_dev, stat.st_ino) {
                    return Err(io::Error::other(format!("{shown} is changed while it is sealed")));
                }
                seal_below(&below, builder, done)?;
            }
            FileType::RegularFile => {
                let bits = if stat.st_mode & 0o111 != 0 { 0o555 } else { 0o444 };
                // By its handle: one without the right to read is enough.
                fs::set_permissions(format!("/proc/self/fd/{}", held.as_raw_fd()), fs::Permissions::from_mode(bits))?;
            }
            _ => return Err(io::Error::other(format!("{shown} is neither file, folder nor link"))),
        }
    }
    own(folder, builder)?;
    Ok(fchmod(folder, Mode::from_raw_mode(0o755))?)
}

/// Takes from the builder what is held.
fn own(held: &OwnedFd, builder: Option<u32>) -> io::Result<()> {
    if builder.is_none() {
        return Ok(());
    }
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    Ok(chownat(held, c"", Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::EMPTY_PATH)?)
}
