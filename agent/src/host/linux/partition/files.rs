//! Filling in templates and writing files beneath a partition: by a process that has become its user, and never through a
//! link. A template that takes all that it can get takes it from that user.

use crate::host::linux::account::assume;
use crate::host::linux::disk::io_problem;
use plat_agent_plan::action::{FileTemplate, Publication};
use plat_model::node::Account;
use plat_model::parameters::{Parameters, Secret};
use plat_model::problem::codes;
use plat_model::{Problem, Problems};
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, ResolveFlags, fchmod, fsync, mkdirat, openat, openat2, renameat, unlinkat,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

#[derive(Serialize, Deserialize)]
pub struct WriteTask {
    pub directory: PathBuf,
    pub account: Option<Account>,
    pub files: Vec<FileTemplate>,
    pub secrets: Secrets,
}

/// Secrets on their way to a process that becomes their owner's.
#[derive(Serialize, Deserialize)]
pub struct Secrets(BTreeMap<String, String>);

impl Secrets {
    pub fn of(all: &BTreeMap<String, Secret>) -> Self {
        Self(all.iter().map(|(name, secret)| (name.clone(), secret.reveal().to_owned())).collect())
    }

    fn take(&self) -> BTreeMap<String, Secret> {
        self.0.iter().map(|(name, text)| (name.clone(), Secret::new(text.clone()))).collect()
    }
}

#[derive(Serialize, Deserialize)]
pub struct FillTask {
    pub account: Option<Account>,
    pub publication: Publication,
    pub secrets: Secrets,
}

impl FillTask {
    /// What is published.
    pub fn perform(&self) -> Result<Parameters, Problem> {
        assume(self.account.as_ref())?;
        self.publication.fill(&self.secrets.take())
    }
}

impl WriteTask {
    /// Replaces each file as a whole; parents are made. All problems at once.
    pub fn perform(&self) -> Result<(), Problem> {
        assume(self.account.as_ref())?;
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o027));
        let top = open_top(&self.directory)?;
        let mut problems = Problems::default();
        let secrets = self.secrets.take();
        let filled = self.files.iter().map(|file| {
            let contents = file.template.fill(&secrets).map_err(|problem| problem.at(format!("files.{}", file.path)));
            Some((file, problems.keep(contents)?))
        });
        // None is written before all are known.
        let filled: Option<Vec<_>> = filled.collect();
        for (file, contents) in filled.into_iter().flatten() {
            problems.keep(write(&top, file, contents.as_bytes()).map_err(|e| {
                io_problem(codes::FILES_FAILED, format!("cannot write {}/{}", self.directory.display(), file.path), &e)
                    .fix("look for links or files that are in the way, and remove them")
            }));
        }
        problems.none_or(()).map_err(Problems::into_one)
    }
}

/// A partition's directory, held: whatever is moved about in it, this stays the same one.
pub fn open_top(directory: &Path) -> Result<OwnedFd, Problem> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, directory, flags, Mode::empty()).map_err(|e| {
        io_problem(codes::FILES_FAILED, format!("cannot open {}", directory.display()), &e.into())
            .fix("run `node-format verify`: the partition's directory is not as it was formatted")
    })
}

/// Opens a directory beneath `top`, making what is missing; a link on the way is an error.
pub fn parents(top: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let mut here = openat2(top, ".", flags, Mode::empty(), beneath)?;
    for part in path.components() {
        let Component::Normal(name) = part else { return Err(io::Error::other("the path is not relative and plain")) };
        here = match openat2(&here, name, flags, Mode::empty(), beneath) {
            Err(rustix::io::Errno::NOENT) => {
                match mkdirat(&here, name, Mode::from_raw_mode(0o750)) {
                    Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                    Err(e) => return Err(e.into()),
                }
                openat2(&here, name, flags, Mode::empty(), beneath)?
            }
            other => other?,
        };
    }
    Ok(here)
}

fn write(top: &OwnedFd, file: &FileTemplate, contents: &[u8]) -> io::Result<()> {
    let path = Path::new(&file.path);
    let Some(Component::Normal(name)) = path.components().next_back() else {
        return Err(io::Error::other("the path names no file"));
    };
    let folder = parents(top, path.parent().unwrap_or(Path::new("")))?;
    let fresh = format!(".plat-{}.new", std::process::id());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let _ = unlinkat(&folder, &fresh, AtFlags::empty());
    let made = openat(&folder, &fresh, flags, Mode::from_raw_mode(0o600))?;
    let written = (|| {
        let mut made = File::from(made);
        made.write_all(contents)?;
        fchmod(&made, Mode::from_raw_mode(file.mode & 0o750))?;
        fsync(&made)?;
        // Over a link this replaces the link itself; over a folder it fails.
        renameat(&folder, &fresh, &folder, name)?;
        Ok(())
    })();
    if written.is_err() {
        let _ = unlinkat(&folder, &fresh, AtFlags::empty());
    }
    written
}
