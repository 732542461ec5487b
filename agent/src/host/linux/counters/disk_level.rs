//! How much disk a partition holds: a walk of its files, now and then, at low priority.

use plat_model::id::PartitionName;
use plat_model::usage::Amount;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, openat, statat};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A walk is repeated after this, or after fifty times as long as it took, if that is more.
const PERIOD: Duration = Duration::from_secs(60);
/// Entries between two pauses of a millisecond: at most some 100,000 entries a second.
const BURST: u32 = 100;
/// Names of folders that are remembered at once, over all levels, and for each level if those above took all.
const NAMES: usize = 50_000;
const NAMES_LEAST: usize = 64;
/// Files of several names that are remembered; of more, each name counts its share.
const LINKS: usize = 500_000;

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
    /// The newest level of all of its directories; starts another walk when it is due.
    pub fn read(&self, partition: &PartitionName, directories: Vec<PathBuf>) -> Amount {
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(partition.clone()).or_default();
        if !known.walking && known.next.is_none_or(|next| next <= Instant::now()) {
            known.walking = true;
            let (this, partition) = (self.clone(), partition.clone());
            std::thread::spawn(move || this.walk(partition, &directories));
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

    fn walk(&self, partition: PartitionName, directories: &[PathBuf]) {
        // This thread's own: Linux gives each thread its priority.
        let _ = rustix::process::setpriority_process(None, 19);
        let started = Instant::now();
        let level: Result<u64, _> = directories.iter().map(|directory| add_up(directory)).sum();
        let level = level.map_err(|e| format!("the partition's files cannot be added up: {e}"));
        let next = Instant::now() + PERIOD.max(started.elapsed() * 50);
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get_mut(&partition) {
            *known = Known { level: Some(level), next: Some(next), walking: false };
        }
    }
}

fn open(folder: &OwnedFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    openat(folder, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Device and inode.
type Id = (u64, u64);

fn id(folder: &OwnedFd) -> rustix::io::Result<Id> {
    let stat = fstat(folder)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// A folder on the way down.
struct Level {
    id: Id,
    /// Its name in the one above.
    name: CString,
    /// Folders in it that are still to be entered.
    left: Vec<CString>,
    /// How many of its entries have been counted, if there are more.
    more: Option<usize>,
}

/// What has been counted so far.
#[derive(Default)]
struct Sum {
    bytes: u64,
    /// Files of several names that were counted under one of them.
    links: BTreeSet<u64>,
    seen: u32,
    /// Names of folders that are remembered.
    names: usize,
}

/// Bytes that the files beneath `directory` hold on disk; a file with several names counts once. What is moved while it
/// is counted may be missed: then it is less than there is, never more, and what is left is counted all the same.
fn add_up(directory: &Path) -> rustix::io::Result<u64> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = openat(rustix::fs::CWD, directory, flags, Mode::empty())?;
    let mut here = open(&top, c".")?;
    let stat = fstat(&top)?;
    let mut sum = Sum { bytes: stat.st_blocks as u64 * 512, ..Sum::default() };
    let mut way = vec![Level { id: id(&top)?, name: c".".into(), left: Vec::new(), more: Some(0) }];
    while let Some(level) = way.last_mut() {
        if let Some(name) = level.left.pop() {
            sum.names -= 1;
            // Gone, made into something else since it was listed, or not to be read: nothing of it is counted.
            let Ok(below) = open(&here, &name) else { continue };
            let id = id(&below)?;
            if id.0 == stat.st_dev {
                here = below;
                way.push(Level { id, name, left: Vec::new(), more: Some(0) });
            }
        } else if let Some(counted) = level.more.take() {
            // One that cannot be listed is counted as empty.
            if let Ok((left, more)) = sum.list(&here, counted) {
                (level.left, level.more) = (left, more);
            }
        } else {
            way.pop();
            here = back(&top, here, &mut way, &mut sum)?;
        }
    }
    Ok(sum.bytes)
}

/// Up from `here` to the last folder of `way`. Where it is no longer above, because somebody moved one of them: down to
/// it again from the top, as far as that leads. What cannot be reached leaves the way.
fn back(top: &OwnedFd, here: OwnedFd, way: &mut Vec<Level>, sum: &mut Sum) -> rustix::io::Result<OwnedFd> {
    let is = |folder: &OwnedFd, level: &Level| id(folder).is_ok_and(|id| id == level.id);
    let Some(last) = way.last() else { return Ok(here) };
    if let Ok(above) = open(&here, c"..")
        && is(&above, last)
    {
        return Ok(above);
    }
    let (mut found, mut depth) = (open(top, c".")?, 1);
    for level in &way[1..] {
        match open(&found, &level.name) {
            Ok(below) if is(&below, level) => (found, depth) = (below, depth + 1),
            _ => break,
        }
    }
    sum.names -= way.drain(depth..).map(|lost| lost.left.len()).sum::<usize>();
    Ok(found)
}

impl Sum {
    /// Counts the entries of a folder but for the first `counted`; the folders among them, as many as may be remembered,
    /// and how many entries that makes if there are more.
    fn list(&mut self, folder: &OwnedFd, counted: usize) -> rustix::io::Result<(Vec<CString>, Option<usize>)> {
        let room = NAMES.saturating_sub(self.names).max(NAMES_LEAST);
        let mut folders = Vec::new();
        for (n, entry) in Dir::read_from(folder)?.enumerate().skip(counted) {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            self.seen = self.seen.wrapping_add(1);
            if self.seen.is_multiple_of(BURST) {
                std::thread::park_timeout(Duration::from_millis(1));
            }
            let Ok(stat) = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            let bytes = stat.st_blocks as u64 * 512;
            self.bytes += match stat.st_nlink {
                names if !is_folder && names > 1 && self.links.len() >= LINKS => bytes / names,
                names if !is_folder && names > 1 && !self.links.insert(stat.st_ino) => 0,
                _ => bytes,
            };
            if is_folder {
                folders.push(name.to_owned());
                if folders.len() >= room {
                    self.names += folders.len();
                    return Ok((folders, Some(n + 1)));
                }
            }
        }
        self.names += folders.len();
        Ok((folders, None))
    }
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
        let sum = add_up(folder.path()).unwrap();
        assert!((1 << 20..(1 << 20) + 100_000).contains(&sum), "{sum}");
    }

    #[test]
    fn what_is_moved_while_it_is_counted_costs_no_more_than_itself() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a/b/c", "x"] {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        let top = open(&openat(rustix::fs::CWD, folder.path(), OFlags::PATH, Mode::empty()).unwrap(), c".").unwrap();
        let level = |name: &CStr, folder: &OwnedFd| Level {
            id: id(folder).unwrap(),
            name: name.into(),
            left: vec![c"left".into()],
            more: None,
        };
        let a = open(&top, c"a").unwrap();
        let b = open(&a, c"b").unwrap();
        let c = open(&b, c"c").unwrap();
        let mut way = vec![level(c".", &top), level(c"a", &a), level(c"b", &b)];
        let mut sum = Sum { names: 3, ..Sum::default() };
        // From a/b/c, which is elsewhere now, back to a/b, which is where it was.
        std::fs::rename(folder.path().join("a/b/c"), folder.path().join("x/c")).unwrap();
        let here = back(&top, c, &mut way, &mut sum).unwrap();
        assert_eq!((id(&here).unwrap(), way.len(), sum.names), (id(&b).unwrap(), 3, 3));
        // And from a/b, when that is elsewhere, to what there still is of the way.
        let c = open(&open(&top, c"x").unwrap(), c"c").unwrap();
        std::fs::rename(folder.path().join("a/b"), folder.path().join("x/b")).unwrap();
        let here = back(&top, c, &mut way, &mut sum).unwrap();
        assert_eq!((id(&here).unwrap(), way.len(), sum.names), (id(&a).unwrap(), 2, 2));
    }

    #[test]
    fn a_listing_that_is_cut_off_goes_on_where_it_ended() {
        let folder = tempfile::tempdir().unwrap();
        for n in 0..200 {
            std::fs::create_dir(folder.path().join(n.to_string())).unwrap();
        }
        let top = open(&openat(rustix::fs::CWD, folder.path(), OFlags::PATH, Mode::empty()).unwrap(), c".").unwrap();
        let mut sum = Sum { names: NAMES, ..Sum::default() };
        let (mut all, mut counted) = (BTreeSet::new(), Some(0));
        while let Some(from) = counted {
            let (folders, more) = sum.list(&top, from).unwrap();
            assert!(folders.len() <= NAMES_LEAST);
            all.extend(folders);
            counted = more;
        }
        assert_eq!((all.len(), sum.seen), (200, 200));
    }
}
