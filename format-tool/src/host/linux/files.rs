//! Files: read whole, replaced by one rename each. Those of a batch are on the disk together at its end.

use super::attributes::{self, Kept};
use super::directories::Tree;
use super::{failed, told_together};
use crate::host::Outcome;
use indexmap::IndexSet;
use node_format_plan::action::{ON_ITS_WAY, Purpose};
use node_format_plan::facts::{FileFact, Owner};
use node_format_plan::{Action, Thing};
use plat_model::problem::{Problem, Result, codes};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Longest file that is read, in bytes: `node.json` of 10,000 partitions has about 10 MiB.
const SIZE_MAX: u64 = 64 << 20;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// Nothing is followed, nor waited for.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// What is at the path of a file.
pub(super) enum Found {
    Nothing,
    File(FileFact),
    /// Something that node-format writes none of: its kind.
    Other(&'static str),
}

pub(super) fn read(tree: &mut Tree, path: &Path) -> Result<Found> {
    let wrong = |why: String| Problem::new(codes::FILE, format!("{} cannot be read", path.display())).because(why);
    let (parent, name) = match tree.parent(path) {
        Ok(found) => found,
        // What is in the way is a fact of the path it stands at.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Found::Nothing),
        Err(e) => return Err(wrong(e.to_string())),
    };
    let file = match open(parent, name).map_err(|e| wrong(e.to_string()))? {
        Opened::Nothing => return Ok(Found::Nothing),
        Opened::Other(kind) => return Ok(Found::Other(kind)),
        Opened::File(file) => file,
    };
    let found = file.metadata().map_err(|e| wrong(e.to_string()))?;
    let mut text = String::new();
    file.take(SIZE_MAX).read_to_string(&mut text).map_err(|e| wrong(e.to_string()))?;
    let owner = Owner { uid: found.uid(), gid: found.gid() };
    Ok(Found::File(FileFact { owner, mode: found.mode() & 0o7777, text }))
}

/// What a name in a directory is that was to be a file's.
enum Opened {
    Nothing,
    File(File),
    Other(&'static str),
}

/// Nothing but a file is opened: a device may begin something, and a pipe tell whoever waits at it.
fn open(parent: &OwnedFd, name: &OsStr) -> std::io::Result<Opened> {
    let is_file = |kind| kind == FileType::RegularFile;
    let kind = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(Opened::Nothing),
        found => FileType::from_raw_mode(found?.st_mode),
    };
    if !is_file(kind) {
        return Ok(Opened::Other(in_words(kind)));
    }
    match rustix::fs::openat(parent, name, READ, Mode::empty()) {
        Err(Errno::NOENT) => Ok(Opened::Nothing),
        Err(Errno::LOOP) => Ok(Opened::Other(in_words(FileType::Symlink))),
        Err(Errno::NXIO) => Ok(Opened::Other(in_words(FileType::Socket))),
        opened => {
            let opened = opened?;
            let kind = FileType::from_raw_mode(rustix::fs::fstat(&opened)?.st_mode);
            Ok(if is_file(kind) { Opened::File(opened.into()) } else { Opened::Other(in_words(kind)) })
        }
    }
}

/// With its article.
pub(super) fn in_words(kind: FileType) -> &'static str {
    match kind {
        FileType::Symlink => "a symbolic link",
        FileType::RegularFile => "a file",
        FileType::Directory => "a directory",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Unknown => "something else",
    }
}

/// What files had besides their texts that a run removed.
pub(super) type Taken = BTreeMap<PathBuf, Kept>;

pub(super) fn perform(tree: &mut Tree, batch: &[Action], taken: &mut Taken) -> Outcome {
    let mut lacking = Vec::new();
    for (n, action) in batch.iter().enumerate() {
        let Action::WriteFile { path, purpose, from, to } = action else { continue };
        // The agent waits for `node.json`, so that takes its place whole even the first time.
        let way = match (from, purpose) {
            (Some(_), _) => Way::Over,
            (None, Purpose::Node) => Way::WholeAtOnce,
            (None, _) => Way::InPlace,
        };
        let result = match to {
            Some(file) => write(tree, path, file, (way, taken.remove(path)))
                .map(|without| lacking.extend(attributes::without(path, &without))),
            None => remove(tree, path).map(|kept| taken.extend(kept.map(|kept| (path.clone(), kept)))),
        };
        if let Err(e) = result {
            let problem = failed(format!("cannot write {}", path.display()), e);
            return Outcome::first(n, batch.len(), told_together([problem].into_iter().chain(lacking)));
        }
    }
    let problem = settle(tree, batch).err().or_else(|| told_together(lacking.into_iter()));
    Outcome::first(batch.len(), batch.len(), problem)
}

/// What a whole batch needs at its end: the disk, and systemd where units changed.
fn settle(tree: &mut Tree, batch: &[Action]) -> Result<()> {
    let Some(Action::WriteFile { path, purpose, .. }) = batch.first() else { return Ok(()) };
    let synced = match tree.parent(path) {
        Ok((parent, _)) => rustix::fs::openat(parent, ".", DIRECTORY, Mode::empty()).and_then(rustix::fs::syncfs),
        Err(Errno::NOENT) => Ok(()), // The file was gone with its directory.
        Err(e) => Err(e),
    };
    synced.map_err(|e| failed("files cannot be brought to the disk", e))?;
    if *purpose == Purpose::Unit && Path::new("/run/systemd/system").exists() && tree.is_the_machines() {
        let systemctl = super::program::find("systemctl").unwrap_or_else(|| "/usr/bin/systemctl".into());
        let status = std::process::Command::new(systemctl).arg("daemon-reload").status();
        if !status.as_ref().is_ok_and(std::process::ExitStatus::success) {
            let why = status.map_or_else(|e| e.to_string(), |status| status.to_string());
            return Err(failed("systemd does not read its units again", why));
        }
    }
    Ok(())
}

/// Removes a file, with what a killed run left beside it; what it had besides its text. One that is gone is removed.
fn remove(tree: &mut Tree, path: &Path) -> std::io::Result<Option<Kept>> {
    let (parent, name) = match tree.parent(path) {
        Ok(found) => found,
        Err(Errno::NOENT) => return Ok(None),
        // Behind it the file may be, and nobody would know it any more.
        Err(Errno::NOTDIR | Errno::LOOP) => {
            let why = "something that is no directory is on the way: put the directory back, or remove what is there";
            return Err(std::io::Error::other(why));
        }
        Err(e) => return Err(e.into()),
    };
    // No partition's user can set any.
    let (found, mut room) = (open_own(parent, name)?, usize::MAX);
    unlink(parent, &new_name(name))?;
    unlink(parent, name)?;
    Ok(found.map(|file| Kept::of(&file, &mut room)))
}

/// A file of ours, to be replaced or removed; `None`: it is gone.
///
/// # Errors
/// If something else has come into its place: that is somebody else's.
fn open_own(parent: &OwnedFd, name: &OsStr) -> std::io::Result<Option<File>> {
    match open(parent, name)? {
        Opened::Nothing => Ok(None),
        Opened::File(file) => Ok(Some(file)),
        Opened::Other(kind) => {
            Err(std::io::Error::other(format!("it is {kind} by now, no file of node-format's: see what changes it")))
        }
    }
}

/// Where a file or directory is made before it takes its place.
pub(super) fn new_name(name: &OsStr) -> OsString {
    let mut new = OsString::from(ON_ITS_WAY);
    new.push(name);
    new
}

/// Whether the path is one of these, or on its way to be.
pub(super) fn is_one_of(all: &IndexSet<PathBuf>, path: &Path) -> bool {
    let whole = || path.file_name()?.to_str()?.strip_prefix(ON_ITS_WAY).map(|name| path.with_file_name(name));
    all.contains(path) || whole().is_some_and(|whole| all.contains(&whole))
}

/// Takes away what a killed run left beside files that are forgotten.
pub(super) fn clear(tree: &mut Tree, forgotten: &[Thing]) -> Result<()> {
    forgotten.iter().try_for_each(|thing| {
        let Thing::File { path } = thing else { return Ok(()) };
        match tree.parent(path).and_then(|(parent, name)| unlink(parent, &new_name(name))) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
            Err(e) => Err(failed(format!("what a killed run left beside {} cannot be removed", path.display()), e)),
        }
    })
}

fn unlink(parent: &OwnedFd, name: &OsStr) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(other) => Err(other),
    }
}

/// How a file takes its place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Where there is none, and nobody waits for it: it needs no other name until it is whole.
    InPlace,
    /// Where there is none. One that came meanwhile is somebody else's.
    WholeAtOnce,
    /// In the place of one that is there.
    Over,
}

/// With what the file had that it replaces, or that it is made anew of: `kept`. What of that it then lacks, in words.
fn write(
    tree: &mut Tree,
    path: &Path,
    wanted: &FileFact,
    (way, mut kept): (Way, Option<Kept>),
) -> std::io::Result<Vec<String>> {
    let (parent, name) = tree.parent(path)?;
    let old = if way == Way::Over { open_own(parent, name)? } else { None };
    let name_now = if way == Way::InPlace { name.to_os_string() } else { new_name(name) };
    if way != Way::InPlace {
        unlink(parent, &name_now)?;
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(parent, &name_now, flags, Mode::from_raw_mode(0o600))?);
    let begun = attributes::take_lists(&file).map_err(std::io::Error::from).and_then(|()| {
        kept.iter_mut().for_each(|kept| kept.begin(&file));
        old.as_ref().map_or(Ok(()), |old| attributes::copy_flags(old, &file))
    });
    let written = begun.and_then(|()| file.write_all(wanted.text.as_bytes())).and_then(|()| {
        // Whatever the umask says; whoever may read it, reads it whole.
        super::directories::own(&file, wanted.owner)?;
        old.map_or(Ok(()), |old| attributes::copy(&old, &file))?;
        let lacking = kept.map_or_else(|| Ok(Vec::new()), |kept| kept.put_on(&file))?;
        // Of a list of access control it says what the list may give at most.
        rustix::fs::fchmod(&file, Mode::from_raw_mode(wanted.mode))?;
        match way {
            Way::InPlace => {}
            Way::WholeAtOnce => put_new(parent, &name_now, name)?,
            Way::Over => rustix::fs::renameat(parent, &name_now, parent, name)?,
        }
        Ok(lacking)
    });
    written.map_err(|e| or_left(e, rustix::fs::unlinkat(parent, &name_now, AtFlags::empty()), &name_now))
}

/// Why a file was not written, and that it stays where it was on its way if it does.
pub(super) fn or_left(e: std::io::Error, removed: rustix::io::Result<()>, name: &OsStr) -> std::io::Error {
    match removed {
        Ok(()) | Err(Errno::NOENT) => e,
        Err(why) => std::io::Error::new(e.kind(), format!("{e}; {} stays beside it: {why}", name.display())),
    }
}

/// Gives a file its name, which nothing must have.
fn put_new(parent: &OwnedFd, now: &OsStr, name: &OsStr) -> rustix::io::Result<()> {
    match rustix::fs::renameat_with(parent, now, parent, name, RenameFlags::NOREPLACE) {
        // Not every file system knows that (nfs).
        Err(Errno::INVAL) => {
            rustix::fs::linkat(parent, now, parent, name, AtFlags::empty())?;
            rustix::fs::unlinkat(parent, now, AtFlags::empty())
        }
        renamed => renamed,
    }
}
