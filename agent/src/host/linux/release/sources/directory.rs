//! A folder on the node, copied.
//!
//! The checksum of a folder is the SHA-256 of, for each entry in the order of its path's bytes: `d`, `f`, `x` (an
//! executable file) or `l`, the path, a zero byte, and for a file or link the SHA-256 (hexadecimal) of its contents or
//! target; then a zero byte.

use super::fetch::{self, checksum};
use super::tree::{DEPTH_MAX, Tree};
use super::unpack::Room;
use crate::host::linux::disk::io_problem;
use crate::host::linux::release::build::Ingredient;
use crate::host::linux::task::Line;
use plat_model::Problem;
use plat_model::problem::codes;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, readlinkat, statat};
use sha2::{Digest, Sha256};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub fn lay(path: &str, sha256: Option<&str>, tree: &Tree, line: &Line) -> Result<Vec<Ingredient>, Problem> {
    line.progress(format!("> copying {path}"))?;
    let top = Path::new(path);
    if !top.is_absolute() {
        return Err(
            Problem::new(codes::SOURCE_FETCH, format!("cannot copy {path}")).because("it is not an absolute path")
        );
    }
    let found = copy(top, tree).map_err(|e| io_problem(codes::SOURCE_FETCH, format!("cannot copy {path}"), &e))?;
    if let Some(expected) = sha256.filter(|expected| !found.eq_ignore_ascii_case(expected)) {
        return Err(Problem::new(codes::SOURCE_CHECKSUM, format!("{path} is not what the release says"))
            .because(format!("its SHA-256 is {found}, expected {expected}"))
            .fix("check the folder; if its contents are right, put their checksum into the release"));
    }
    match tree.link_that_leaves() {
        Ok(None) => Ok(vec![Ingredient { name: path.to_owned(), version: String::new(), sha256: found }]),
        Ok(Some(link)) => Err(Problem::new(codes::BAD_ARCHIVE, format!("cannot copy {path}"))
            .because(format!("the link {} in it leads out of it", link.display()))),
        Err(e) => Err(io_problem(codes::SOURCE_FETCH, format!("cannot copy {path}"), &e)),
    }
}

/// Copies a folder and gives its checksum: as much of it as a source may have.
pub fn copy(top: &Path, tree: &Tree) -> io::Result<String> {
    let from = Copied { top: fetch::open(top, FOLDER)? };
    let mut paths = Vec::new();
    let mut room = Room::of_a_source();
    from.list(&from.top, Path::new(""), &mut room, &mut paths)?;
    paths.sort_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
    let mut hash = Sha256::new();
    for path in paths {
        let (letter, contents) = from.lay(&path, tree, &mut room)?;
        hash.update(letter);
        hash.update(path.as_os_str().as_encoded_bytes());
        hash.update([0]);
        hash.update(contents);
        hash.update([0]);
    }
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The folder that is copied, held: nothing in it is reached over a link.
struct Copied {
    top: OwnedFd,
}

impl Copied {
    fn open(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        Ok(openat2(&self.top, path, flags | OFlags::CLOEXEC, Mode::empty(), within)?)
    }

    fn list(&self, here: &OwnedFd, below: &Path, room: &mut Room, paths: &mut Vec<PathBuf>) -> io::Result<()> {
        if below.components().count() > DEPTH_MAX {
            return Err(io::Error::other("it is nested too deeply"));
        }
        for entry in Dir::read_from(here)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let path = below.join(name);
            room.entry(&path)?;
            let kind = FileType::from_raw_mode(statat(here, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode);
            if kind == FileType::Directory {
                let folder = openat(here, name, FOLDER | OFlags::NOFOLLOW, Mode::empty())?;
                self.list(&folder, &path, room, paths)?;
            }
            paths.push(path);
        }
        Ok(())
    }

    /// Lays one entry; what of it goes into the checksum.
    fn lay(&self, path: &Path, tree: &Tree, room: &mut Room) -> io::Result<(&'static str, String)> {
        let held = self.open(path, OFlags::PATH | OFlags::NOFOLLOW)?;
        let about = fstat(&held)?;
        match FileType::from_raw_mode(about.st_mode) {
            FileType::Directory => {
                tree.make_folder(path)?;
                Ok(("d", String::new()))
            }
            FileType::Symlink => {
                let target = readlinkat(&held, c"", Vec::new())?;
                let target = Path::new(OsStr::from_bytes(target.to_bytes()));
                tree.link(path, target)?;
                Ok(("l", Sha256::digest(target.as_os_str().as_bytes()).iter().map(|b| format!("{b:02x}")).collect()))
            }
            FileType::RegularFile => {
                let mut file = File::from(self.open(path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK)?);
                let sum = checksum(&mut file)?;
                file.rewind()?;
                let executable = about.st_mode & 0o100 != 0;
                room.write(tree, path, executable, &mut file)?;
                Ok((if executable { "x" } else { "f" }, sum))
            }
            _ => Err(io::Error::other(format!("{} is neither file, folder nor link", path.display()))),
        }
    }
}
