//! Volumes: directories in a partition that are there, its user's alone, when anything of its instance runs.
//!
//! What is in a scratch one was left by whoever ran here, and may be hostile: root empties it, beneath directories that it
//! holds, as it empties a partition. What is made is made by a process that has become the user.

use super::empty::{empty, enter, remove};
use super::files::{open_top, parents};
use crate::host::linux::account::assume;
use crate::host::linux::disk::io_problem;
use nix::unistd::geteuid;
use plat_agent_plan::VOLUMES;
use plat_document::release::VolumeKind;
use plat_model::node::Account;
use plat_model::problem::codes;
use plat_model::{Problem, Problems};
use rustix::fs::{AtFlags, Mode, fchmod};
use rustix::io::{Errno, Result as Outcome};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

#[derive(Serialize, Deserialize)]
pub struct VolumesTask {
    pub directory: PathBuf,
    pub account: Option<Account>,
    pub volumes: BTreeMap<String, VolumeKind>,
}

impl VolumesTask {
    /// Removes those that are scratch with all that is in them, and makes what is missing. All problems at once.
    pub fn perform(&self) -> Result<(), Problem> {
        if !geteuid().is_root() {
            assume(self.account.as_ref())?;
        }
        let top = open_top(&self.directory)?;
        let mut problems = Problems::default();
        let at = |name: &str| self.directory.join(VOLUMES).join(name);
        for name in self.volumes.iter().filter(|(_, kind)| **kind == VolumeKind::Scratch).map(|(name, _)| name) {
            problems.keep(discard(&top, name).map_err(|e| {
                io_problem(codes::FILES_FAILED, format!("cannot empty {}", at(name).display()), &e.into())
                    .fix("look for what is mounted in it, or cannot be changed (`lsattr -aR`)")
            }));
        }
        problems.none_or(()).map_err(Problems::into_one)?;
        let mut problems = Problems::default();
        assume(self.account.as_ref())?;
        for name in self.volumes.keys() {
            problems.keep(made(&top, name).map_err(|e| {
                io_problem(codes::FILES_FAILED, format!("cannot make {}", at(name).display()), &e)
                    .fix("look for a link or file that is in the way, and remove it")
            }));
        }
        problems.none_or(()).map_err(Problems::into_one)
    }
}

/// Whatever is there by this name goes; a link itself, not where it leads.
fn discard(top: &OwnedFd, name: &str) -> Outcome<()> {
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    let folder = match entered(top, &CString::new(VOLUMES).map_err(|_| Errno::INVAL)?)? {
        Found::Folder(folder) => folder,
        // It is made anew below, or found to be in the way.
        Found::Nothing | Found::Other => return Ok(()),
    };
    match entered(&folder, &name)? {
        Found::Folder(volume) => {
            empty(&volume)?;
            remove(&folder, &name, AtFlags::REMOVEDIR)
        }
        Found::Other => remove(&folder, &name, AtFlags::empty()),
        Found::Nothing => Ok(()),
    }
}

enum Found {
    Folder(OwnedFd),
    /// No directory of this partition's file system.
    Other,
    Nothing,
}

fn entered(folder: &OwnedFd, name: &CStr) -> Outcome<Found> {
    match enter(folder, name) {
        Ok(found) => Ok(Found::Folder(found)),
        Err(Errno::NOENT) => Ok(Found::Nothing),
        Err(Errno::LOOP | Errno::NOTDIR) => Ok(Found::Other),
        Err(e) => Err(e),
    }
}

fn made(top: &OwnedFd, name: &str) -> io::Result<()> {
    let volume = parents(top, &Path::new(VOLUMES).join(name))?;
    Ok(fchmod(&volume, Mode::RWXU)?)
}
