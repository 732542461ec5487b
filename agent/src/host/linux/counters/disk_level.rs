//! How much disk a partition holds: a walk of its files, now and then, at low priority.

use plat_model::id::PartitionName;
use plat_model::usage::Amount;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, openat, statat};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A walk is repeated after this, or after fifty times as long as it took, if that is more.
const PERIOD: Duration = Duration::from_secs(60);
/// Entries between two pauses of a millisecond: at most some 100,000 entries a second.
const BURST: u32 = 100;

#[derive(Default, Clone)]
struct Known {
    level: Option<Result<u64, String>>,
    next: Option<Instant>,
    walking: bool,
}

/// The last walk of each partition.
#[derive(Default, Clone)]
pub struct DiskLevels {
    known: Arc<Mutex<BTreeMap<PartitionName, Known>>>,
}

impl DiskLevels {
    /// The newest level; starts another walk when it is due.
    pub fn read(&self, partition: &PartitionName, directory: PathBuf) -> Amount {
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(partition.clone()).or_default();
        if !known.walking && known.next.is_none_or(|next| next <= Instant::now()) {
            known.walking = true;
            let (this, partition) = (self.clone(), partition.clone());
            std::thread::spawn(move || this.walk(partition, &directory));
        }
        match &known.level {
            Some(Ok(bytes)) => Amount::Known(*bytes),
            Some(Err(why)) => Amount::Unknown(why.clone()),
            None => Amount::Unknown("the partition's files have not been added up yet".into()),
        }
    }

    pub fn forget(&self, partition: &PartitionName) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(partition);
    }

    fn walk(&self, partition: PartitionName, directory: &PathBuf) {
        // This thread's own: Linux gives each thread its priority.
        let _ = rustix::process::setpriority_process(None, 19);
        let started = Instant::now();
        let level = add_up(directory).map_err(|e| format!("the partition's files cannot be added up: {e}"));
        let next = Instant::now() + PERIOD.max(started.elapsed() * 50);
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get_mut(&partition) {
            *known = Known { level: Some(level), next: Some(next), walking: false };
        }
    }
}

fn open(folder: &OwnedFd, name: &std::ffi::CStr) -> rustix::io::Result<OwnedFd> {
    openat(folder, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Bytes that the files beneath `directory` hold on disk; a file with several names counts once.
fn add_up(directory: &PathBuf) -> rustix::io::Result<u64> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut here = openat(rustix::fs::CWD, directory, flags, Mode::empty())?;
    let top = fstat(&here)?;
    let (mut sum, mut seen, mut links) = (top.st_blocks as u64 * 512, 0, BTreeSet::new());
    // Of each directory on the way down: which it is, and what in it is still to be entered.
    let mut way = vec![((top.st_dev, top.st_ino), list(&here, &mut sum, &mut links, &mut seen)?)];
    while let Some((_, left)) = way.last_mut() {
        if let Some(name) = left.pop() {
            match open(&here, &name) {
                Ok(below) => {
                    let stat = fstat(&below)?;
                    if stat.st_dev == top.st_dev {
                        here = below;
                        way.push(((stat.st_dev, stat.st_ino), list(&here, &mut sum, &mut links, &mut seen)?));
                    }
                }
                // Gone, or made into something else, since it was listed.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(e) => return Err(e),
            }
            continue;
        }
        way.pop();
        if let Some((expected, _)) = way.last() {
            here = open(&here, c"..")?;
            let stat = fstat(&here)?;
            // Somebody moved it elsewhere meanwhile: up from there is not the way it was entered.
            if *expected != (stat.st_dev, stat.st_ino) {
                return Err(Errno::AGAIN);
            }
        }
    }
    Ok(sum)
}

fn list(
    folder: &OwnedFd,
    sum: &mut u64,
    links: &mut BTreeSet<u64>,
    seen: &mut u32,
) -> rustix::io::Result<Vec<CString>> {
    let mut folders = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        *seen += 1;
        if seen.is_multiple_of(BURST) {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        let Ok(stat) = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if is_folder || stat.st_nlink < 2 || links.insert(stat.st_ino) {
            *sum += stat.st_blocks as u64 * 512;
        }
        if is_folder {
            folders.push(name.to_owned());
        }
    }
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_two_names_counts_once_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("a/b");
        std::fs::create_dir_all(&below).unwrap();
        std::fs::write(below.join("file"), vec![1; 1 << 20]).unwrap();
        std::fs::hard_link(below.join("file"), folder.path().join("again")).unwrap();
        std::os::unix::fs::symlink("/usr", folder.path().join("link")).unwrap();
        let sum = add_up(&folder.path().to_owned()).unwrap();
        assert!((1 << 20..(1 << 20) + 100_000).contains(&sum), "{sum}");
    }
}
