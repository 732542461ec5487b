//! Gives a directory and all beneath it to a project. Its owner may be at work in it: he can make it as deep as he likes,
//! mount there, move directories about. None of that keeps the rest of it, or another partition, from being limited.

use super::super::calls;
use super::{INHERIT, mark};
use crate::host::linux::mounts::mount_of;
use crate::host::linux::place::{Place, place};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::io;

/// How often it is begun anew because directories were moved meanwhile. What was given before is passed over fast.
const TRIES: usize = 5;
const FILE: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);
const DIRECTORY: OFlags = FILE.union(OFlags::DIRECTORY);

/// From the top down: what is made in a directory meanwhile inherits, and nothing can be moved in from one that is not yet
/// of the project (EXDEV). Returns why some of it could not be given, or was not: no more than `most` names are looked at.
///
/// # Errors
/// If the directory itself cannot be given.
pub(in super::super) fn all(top: &OwnedFd, project: u32, most: usize) -> io::Result<Option<String>> {
    let mut more = most;
    for _ in 0..TRIES {
        let mut walk = Walk { project, mount: mount_of(top)?, more, left: None };
        let whole = walk.whole(top)?;
        if walk.more == 0 {
            return Ok(Some(format!("no more than {most} names in it are given to its project again")));
        }
        if whole {
            return Ok(walk.left);
        }
        more = walk.more;
    }
    Ok(Some("directories in it were moved again and again while it was walked through".into()))
}

struct Walk {
    project: u32,
    mount: u64,
    /// How many names may still be looked at.
    more: usize,
    /// Why something could not be given, the first time.
    left: Option<String>,
}

/// A directory on the way down, without a handle: there may be more of them than files that can be open.
struct Level {
    place: Place,
    /// The directories in it that are still to be given.
    inner: Vec<CString>,
}

impl Walk {
    /// False: a directory was moved away while it was walked through.
    fn whole(&mut self, top: &OwnedFd) -> io::Result<bool> {
        mark(top, self.project, INHERIT)?;
        let mut at = top.try_clone()?;
        let mut levels = vec![self.read(top)?];
        while let Some(level) = levels.last_mut().filter(|_| self.more > 0) {
            if let Some(name) = level.inner.pop() {
                if let Some((inner, level)) = self.enter(&at, &name) {
                    levels.push(level);
                    at = inner;
                }
                continue;
            }
            levels.pop();
            let Some(above) = levels.last() else { break };
            let up = rustix::fs::openat(&at, c"..", DIRECTORY, Mode::empty());
            match up.and_then(|up| Ok((place(&up)?, up))) {
                Ok((place, up)) if place == above.place => at = up,
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Gives a directory; what is in it is to follow.
    fn enter(&mut self, above: &OwnedFd, name: &CStr) -> Option<(OwnedFd, Level)> {
        let inner = self.opened(above, name, DIRECTORY)?;
        let level = mark(&inner, self.project, INHERIT).and_then(|()| self.read(&inner));
        self.kept(level).map(|level| (inner, level))
    }

    /// Gives the files in a directory, and says what directories there are.
    fn read(&mut self, directory: &OwnedFd) -> io::Result<Level> {
        let mut level = Level { place: place(directory)?, inner: Vec::new() };
        for entry in Dir::read_from(directory.as_fd())? {
            let entry = entry?;
            let name = entry.file_name();
            self.more = self.more.saturating_sub(1);
            if self.more == 0 {
                break;
            }
            let is_directory = match entry.file_type() {
                _ if matches!(name.to_bytes(), b"." | b"..") => false,
                FileType::Directory => true,
                FileType::RegularFile | FileType::Unknown => self.file(directory, name),
                // The others take no space to speak of, and opening them may have effects.
                _ => false,
            };
            if is_directory {
                level.inner.push(name.to_owned());
            }
        }
        Ok(level)
    }

    /// Whether it is a directory after all.
    fn file(&mut self, directory: &OwnedFd, name: &CStr) -> bool {
        let Some(file) = self.opened(directory, name, FILE) else { return false };
        let wanted = StatxFlags::TYPE | StatxFlags::NLINK | StatxFlags::UID;
        let found = rustix::fs::statx(&file, c"", AtFlags::EMPTY_PATH, wanted).map_err(io::Error::from);
        let Some(found) = self.kept(found) else { return false };
        match FileType::from_raw_mode(found.stx_mode.into()) {
            FileType::Directory => return true,
            // By another name it may lie anywhere: somebody else's would count for him whose directory this is.
            FileType::RegularFile if found.stx_nlink > 1 && found.stx_uid != self.project => {}
            FileType::RegularFile => {
                let is_his = found.stx_uid == self.project;
                let marked = if is_his { mark(&file, self.project, 0) } else { self.mark_here(directory, name, &file) };
                self.kept(marked);
            }
            _ => {}
        }
        false
    }

    /// Gives somebody else's file, which is to have this name alone. Its other names may have come and gone meanwhile: then it is
    /// given back.
    fn mark_here(&self, directory: &OwnedFd, name: &CStr, file: &OwnedFd) -> io::Result<()> {
        let before = calls::attributes(file)?.project;
        mark(file, self.project, 0)?;
        let now = rustix::fs::fstat(file)?;
        let here = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
        let is_here = here.is_ok_and(|here| (here.st_dev, here.st_ino) == (now.st_dev, now.st_ino));
        if is_here && now.st_nlink == 1 { Ok(()) } else { mark(file, before, 0) }
    }

    /// What is there, if it is of the same mount.
    fn opened(&mut self, above: &OwnedFd, name: &CStr, flags: OFlags) -> Option<OwnedFd> {
        match rustix::fs::openat(above, name, flags, Mode::empty()) {
            Ok(opened) => {
                self.kept(mount_of(&opened).map_err(io::Error::from)).filter(|on| *on == self.mount).map(|_| opened)
            }
            // Gone, or become something else.
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO | Errno::NOTDIR) => None,
            Err(e) => {
                // Another's mount may be closed to everybody but him.
                let path =
                    rustix::fs::openat(above, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
                match path.and_then(mount_of) {
                    Ok(on) if on != self.mount => None,
                    _ => self.kept(Err(e.into())),
                }
            }
        }
    }

    /// Notes a failure, and goes on without.
    fn kept<T>(&mut self, outcome: io::Result<T>) -> Option<T> {
        outcome.inspect_err(|e| _ = self.left.get_or_insert_with(|| e.to_string())).ok()
    }
}
