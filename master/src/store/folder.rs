//! The folder of a store: one process at a time, one engine, one version. What is wrong is said before an engine
//! touches anything.

use super::EngineKind;
use super::record::newer;
use plat_model::Problem;
use plat_model::problem::codes;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Version of what lies in the folder as a whole. Records have forms of their own.
const VERSION: u32 = 1;
/// Says version and engine: `plat-store 1 redb`.
const MARK: &str = "FORMAT";
const LOCK: &str = "LOCK";

/// A store's folder, locked while this value lives (the kernel unlocks it when the process dies, however it does).
pub(super) struct Folder {
    path: PathBuf,
    pub kind: EngineKind,
    _lock: File,
}

impl Folder {
    /// Opens the folder at `path`, or makes it. `kind` is wanted; without one, that of the folder, or the default.
    ///
    /// # Errors
    /// [`codes::STORE_VERSION`] for a newer folder, left untouched; [`codes::STORE_FAILED`] if another process has
    /// it, another engine is in it, or it cannot be read or written.
    pub fn open(path: &Path, kind: Option<EngineKind>) -> Result<Self, Problem> {
        let found = read_mark(path)?;
        if let (Some(found), Some(wanted)) = (found, kind)
            && found != wanted
        {
            return Err(cannot_open(path)
                .because(format!("it holds a store of engine `{found}`, and `{wanted}` is asked for"))
                .fix("ask for the engine that it has, or give another folder"));
        }
        make(path).map_err(failed(path))?;
        let lock = lock(path)?;
        let kind = match read_mark(path)? {
            Some(kind) => kind,
            None => {
                let kind = kind.unwrap_or_default();
                write_mark(path, kind)?;
                kind
            }
        };
        Ok(Self { path: path.to_owned(), kind, _lock: lock })
    }

    /// Where the engine keeps its files.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the folder's entries durable.
    pub fn sync(&self) -> Result<(), Problem> {
        sync_path(&self.path).map_err(failed(&self.path))
    }
}

/// Makes the folder and those above it that are missing, and makes their names durable.
fn make(path: &Path) -> std::io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|part| is_named(part) && !part.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    for made in missing {
        sync_path(above(made))?;
    }
    // Whoever made it before us may not have done so. We need not be allowed to read the folder above.
    match sync_path(above(path)) {
        Err(cause) if cause.kind() != ErrorKind::PermissionDenied => Err(cause),
        _ => Ok(()),
    }
}

fn is_named(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}

fn above(path: &Path) -> &Path {
    path.parent().filter(|above| is_named(above)).unwrap_or(Path::new(if path.has_root() { "/" } else { "." }))
}

fn read_mark(path: &Path) -> Result<Option<EngineKind>, Problem> {
    let mut text = String::new();
    match File::open(path.join(MARK)) {
        Ok(file) => file.take(200).read_to_string(&mut text).map_err(failed(path))?,
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(failed(path)(cause)),
    };
    let words: Vec<_> = text.split_whitespace().collect();
    let version = match words[..] {
        ["plat-store", version, ..] => version.parse::<u32>().ok(),
        _ => None,
    };
    if let Some(version) = version
        && version > VERSION
    {
        return Err(newer(format!("{} says version {version}, this one knows {VERSION}", path.join(MARK).display())));
    }
    match (version, words.get(2).and_then(|word| EngineKind::parse(word))) {
        (Some(VERSION), Some(kind)) => Ok(Some(kind)),
        _ => Err(cannot_open(path)
            .because(format!("{} does not say what it holds", path.join(MARK).display()))
            .fix("give the folder of a store, or one that is empty or missing")),
    }
}

/// The mark is there whole or not at all, and before anything else.
fn write_mark(path: &Path, kind: EngineKind) -> Result<(), Problem> {
    let fresh = path.join("FORMAT.new");
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(format!("plat-store {VERSION} {kind}\n").as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&fresh, path.join(MARK))?;
        sync_path(path)
    };
    write().map_err(failed(path))
}

fn lock(path: &Path) -> Result<File, Problem> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path.join(LOCK));
    let file = file.map_err(failed(path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(cannot_open(path)
            .because("another process has it open")
            .fix("stop the other master, or give this one a folder of its own")),
        Err(TryLockError::Error(cause)) => Err(failed(path)(cause)),
    }
}

pub(super) fn sync_path(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

pub(super) fn cannot_open(path: &Path) -> Problem {
    Problem::new(codes::STORE_FAILED, format!("cannot open the store in {}", path.display()))
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> Problem {
    move |cause| cannot_open(path).because(cause).fix("check the folder, its owner and the room on its disk")
}
