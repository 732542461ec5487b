//! A folder as a store. Others may write to it too, and who puts something there may be root: nothing that they put there
//! leads out of it, or passes for what it is not.

use crate::host::linux::disk::random_hex;
use crate::host::linux::release::cache::pin::Pin;
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, ResolveFlags, fchmod, fsync, mkdirat, openat, openat2, renameat, unlinkat,
};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// How a path in the store is gone along.
const WITHIN: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

pub struct Folder(OwnedFd);

impl Folder {
    /// The folder at a path that its owner names, made if need be.
    pub fn open(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o755).create(path)?;
        Ok(Self(openat(CWD, path, FOLDER, Mode::empty())?))
    }

    /// Whether the store has the content, and it is that.
    pub fn has(&self, pin: &Pin) -> bool {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(file) = openat2(&self.0, pin.path(), flags, Mode::empty(), WITHIN) else { return false };
        let mut file = File::from(file);
        file.metadata().is_ok_and(|about| about.is_file()) && pin.measure(&mut file).is_ok_and(|found| &found == pin)
    }

    /// `path`: of plain names.
    pub fn put(&self, path: &str, from: &mut File) -> io::Result<()> {
        let (above, name) = path.rsplit_once('/').unwrap_or((".", path));
        let above = self.folder(above)?;
        let fresh = format!(".new-{}", random_hex(8).map_err(|e| io::Error::other(e.one_line()))?);
        let written = (|| {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut to = File::from(openat(&above, &fresh, flags, Mode::from_raw_mode(0o644))?);
            io::copy(from, &mut to)?;
            fchmod(&to, Mode::from_raw_mode(0o644))?;
            to.sync_all()?;
            renameat(&above, &fresh, &above, name)?;
            Ok(fsync(&above)?)
        })();
        if written.is_err() {
            let _ = unlinkat(&above, &fresh, AtFlags::empty());
        }
        written
    }

    /// A folder beneath, made if need be.
    fn folder(&self, path: &str) -> io::Result<OwnedFd> {
        let mut here = openat(&self.0, ".", FOLDER, Mode::empty())?;
        for name in Path::new(path).iter().filter(|name| *name != OsStr::new(".")) {
            match mkdirat(&here, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e.into()),
            }
            here = openat2(&here, name, FOLDER, Mode::empty(), WITHIN).map_err(|e| match e {
                Errno::LOOP => io::Error::other(format!("`{}` in it is a link", Path::new(name).display())),
                e => e.into(),
            })?;
        }
        Ok(here)
    }
}
