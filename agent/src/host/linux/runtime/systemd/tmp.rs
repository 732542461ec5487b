//! A partition's `tmp` where systemd can mount it from. systemd looks by its name for what it is told to mount and follows
//! links, and the tenant can make one there at any moment. So it is told of a place that is root's alone, at which the folder
//! is mounted that was found beneath the partition's own without following any.
//!
//! It is mounted while a program of the partition starts, and no longer: for each program systemd goes through all mounts that
//! there are, again and again, and with those of 500 partitions a start took it a third of a second. While no agent runs, the
//! next start of what fails is systemd's own, and those of all that runs are mounted ([`mount_all`]).

use super::names::{Names, TMP};
use crate::host::linux::confine::{Bounds, find_folder, tmp_of};
use crate::host::linux::disk::private_folder;
use crate::host::linux::process::boot_id;
use crate::host::linux::runtime::Records;
use crate::host::linux::shim::tree::Phase;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, umount2};
use plat_model::id::PartitionName;
use plat_model::problem::codes;
use plat_model::{Problem, Problems};
use rustix::mount::mount_bind;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// In a partition's folder beneath [`TMP`]: what the folder is mounted at, and a link that says where it is found.
const PLACE: &str = "tmp";
const FOUND: &str = "of";
/// Where earlier agents had the places; units that they started look there.
const EARLIER: &str = "/run/plat-tmp";

/// The places of one agent's partitions. All of it may wait for a disk.
pub struct Places {
    names: Names,
    /// How many programs of each are starting.
    starting: Mutex<BTreeMap<PartitionName, Arc<Mutex<usize>>>>,
    /// Whether what they are in is a mount of its own.
    is_apart: Mutex<bool>,
}

/// A place that is mounted as long as this is there.
pub struct Shown {
    places: Arc<Places>,
    partition: PartitionName,
}

impl Shown {
    pub fn path(&self) -> PathBuf {
        self.places.folder(&self.partition).join(PLACE)
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        let (places, partition) = (self.places.clone(), self.partition.clone());
        tokio::task::spawn_blocking(move || places.hide(&partition));
    }
}

impl Places {
    pub fn new(names: Names) -> Arc<Self> {
        Arc::new(Self { names, starting: Mutex::default(), is_apart: Mutex::default() })
    }

    /// Takes away what was mounted while no agent ran, but of partitions in which systemd is just starting something.
    pub fn take_over(&self, but: &BTreeSet<PartitionName>) {
        for folder in all(&self.names.tmp()) {
            let is_starting = but.iter().any(|partition| folder.ends_with(partition.as_str()));
            if !is_starting {
                let place = folder.join(PLACE);
                warn_of(&place, unmount(&place));
            }
        }
    }

    /// Mounts the folder that the partition has now; `None` if it has none.
    ///
    /// # Errors
    /// Why it cannot be mounted.
    pub fn show(self: &Arc<Self>, partition: &PartitionName, bounds: &Bounds) -> Result<Option<Shown>, String> {
        let wrong = |e: io::Error| format!("its tmp cannot be mounted: {e}");
        let Some((top, name)) = tmp_of(bounds) else { return Ok(None) };
        let Some(found) = find_folder(top, name).map_err(wrong)? else { return Ok(None) };
        let folder = self.folder(partition);
        let starting = self.starting(partition);
        let mut starting = lock(&starting);
        let mounted = self.hold().and_then(|()| {
            made_place(&folder)?;
            remember(&folder.join(FOUND), &top.join(name))?;
            mount(&found, &folder.join(PLACE))
        });
        mounted.map_err(wrong)?;
        *starting += 1;
        Ok(Some(Shown { places: self.clone(), partition: partition.clone() }))
    }

    /// One less of its programs is starting.
    fn hide(&self, partition: &PartitionName) {
        let starting = self.starting(partition);
        let mut starting = lock(&starting);
        *starting = starting.saturating_sub(1);
        if *starting == 0 {
            let place = self.folder(partition).join(PLACE);
            warn_of(&place, unmount(&place));
        }
    }

    /// Takes the place away, when nothing runs in the partition any more.
    pub fn leave(&self, partition: &PartitionName) -> Result<(), Problem> {
        let folder = self.folder(partition);
        let starting = self.starting(partition);
        let _turn = lock(&starting);
        let absent_is_fine = |went: io::Result<()>| match went {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        };
        let earlier = self.names.beneath(EARLIER).join(partition.as_str());
        let gone = unmount(&earlier)
            .and_then(|()| absent_is_fine(fs::remove_dir(earlier)))
            .and_then(|()| unmount(&folder.join(PLACE)))
            .and_then(|()| absent_is_fine(fs::remove_dir(folder.join(PLACE))))
            .and_then(|()| absent_is_fine(fs::remove_file(folder.join(FOUND))))
            .and_then(|()| absent_is_fine(fs::remove_file(folder.join(FOUND).with_extension("new"))))
            .and_then(|()| absent_is_fine(fs::remove_dir(&folder)));
        self.clear();
        gone.map_err(|e| {
            Problem::new(codes::SERVICE_START, format!("{} cannot be taken away", folder.display()))
                .because(e)
                .fix("unmount what is in it and remove the folder; it is tried again")
        })
    }

    fn hold(&self) -> io::Result<()> {
        let mut is_apart = lock(&self.is_apart);
        if !*is_apart {
            apart(Path::new(TMP))?;
            *is_apart = true;
        }
        Ok(())
    }

    /// With the last place goes what they are in, unless another agent has some there.
    fn clear(&self) {
        let mut is_apart = lock(&self.is_apart);
        let everybodys = Path::new(TMP);
        let is_last = fs::remove_dir(self.names.tmp()).is_ok();
        if is_last
            && fs::read_dir(everybodys).is_ok_and(|mut others| others.next().is_none())
            && unmount(everybodys).is_ok()
        {
            let _another_one_is_faster = fs::remove_dir(everybodys);
            *is_apart = false;
        }
    }

    fn folder(&self, partition: &PartitionName) -> PathBuf {
        self.names.tmp().join(partition.as_str())
    }

    fn starting(&self, partition: &PartitionName) -> Arc<Mutex<usize>> {
        lock(&self.starting).entry(partition.clone()).or_default().clone()
    }
}

/// Mounts the places of the agent that keeps its state there, which has ended: systemd starts by itself what fails then, and
/// finds them. Those of partitions in which units of its run; each is looked for anew, as the partition has it now, and what
/// is not there is left out.
///
/// # Errors
/// PREREQUISITE for each that cannot be mounted, BAD_STATE_FILE where it cannot be read what runs; the others are.
pub fn mount_all(state: &Path) -> Result<(), Problems> {
    let state = state.canonicalize().unwrap_or_else(|_| state.to_owned());
    let (mut problems, mut folders) = (Problems::default(), all(&Names::of(&state).tmp()));
    let records = Records::new(&state);
    folders.retain(|folder| {
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        problems.keep(PartitionName::parse(name).and_then(|partition| keeps_units(&records, &partition))) == Some(true)
    });
    if !folders.is_empty() {
        apart(Path::new(TMP))
            .map_err(|e| Problem::new(codes::PREREQUISITE, format!("{TMP} cannot be mounted")).because(e))?;
    }
    for folder in folders {
        let mounted = || -> io::Result<()> {
            made_place(&folder)?;
            let path = match fs::read_link(folder.join(FOUND)) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
                path => path?,
            };
            let (Some(top), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
            let Some(found) = find_folder(top, Path::new(name))? else { return Ok(()) };
            mount(&found, &folder.join(PLACE))
        };
        if let Err(e) = mounted() {
            let problem = Problem::new(codes::PREREQUISITE, format!("{} cannot be mounted", folder.display()));
            problems
                .push(problem.because(e).fix("start the agent: it starts what systemd cannot start again by itself"));
        }
    }
    problems.none_or(())
}

/// Whether units of this boot run in the partition, as far as its records know.
fn keeps_units(records: &Records, partition: &PartitionName) -> Result<bool, Problem> {
    let boot = boot_id();
    for service in records.services(partition)? {
        let run = records.run(partition, &service)?;
        if run.is_some_and(|run| run.systemd.is_some() && run.phase != Phase::Ended && run.boot == boot) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Makes a partition's folder, with the place in it. What is mounted at the folder itself may be the tenant's.
fn made_place(folder: &Path) -> io::Result<()> {
    unmount(folder)?;
    made(&folder.join(PLACE))
}

/// Makes the folder a mount of its own: what is mounted in it later no namespace is told of that there is by then, and each unit
/// that runs has one. Those that are made meanwhile have copies.
fn apart(folder: &Path) -> io::Result<()> {
    let is_mounted = || -> io::Result<bool> {
        let all = fs::read_to_string("/proc/self/mountinfo")?;
        Ok(all.lines().any(|line| line.split(' ').nth(4).is_some_and(|place| Path::new(place) == folder)))
    };
    made(folder)?;
    let change = |from: Option<&Path>, flags| Ok(nix::mount::mount(from, folder, None::<&str>, flags, None::<&str>)?);
    if !is_mounted()? {
        change(Some(folder), MsFlags::MS_BIND)?;
    }
    change(None, MsFlags::MS_PRIVATE)
}

fn made(folder: &Path) -> io::Result<()> {
    private_folder(folder).map_err(|problem| io::Error::other(problem.one_line()))
}

/// Has the link lead there.
fn remember(link: &Path, target: &Path) -> io::Result<()> {
    match fs::read_link(link) {
        Ok(there) if there == target => return Ok(()),
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let new = link.with_extension("new");
    match fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    symlink(target, &new)?;
    fs::rename(&new, link)
}

/// Another than what is there, if that is another: the tenant may have made a new one.
fn mount(found: &OwnedFd, place: &Path) -> io::Result<()> {
    let (wanted, there) = (rustix::fs::fstat(found)?, fs::symlink_metadata(place)?);
    if (wanted.st_dev, wanted.st_ino) == (there.dev(), there.ino()) {
        return Ok(());
    }
    unmount(place)?;
    // What the kernel follows here is the handle, whatever its name has become.
    mount_bind(format!("/proc/self/fd/{}", found.as_raw_fd()), place)?;
    Ok(nix::mount::mount(None::<&str>, place, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)?)
}

/// All that is mounted there.
fn unmount(place: &Path) -> io::Result<()> {
    loop {
        match umount2(place, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // Nothing is.
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(e) => return Err(e.into()),
        }
    }
}

/// What is in a folder, if it is there.
fn all(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// A place that stays mounted costs systemd time, and nothing else: it is root's who finds what is mounted there.
fn warn_of(place: &Path, went: io::Result<()>) {
    if let Err(why) = went {
        tracing::warn!(place = %place.display(), %why, "it cannot be taken away, and starts take longer; it is tried when the next is over");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
