//! Adding up the files of one directory, some at a time.

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, openat, statat};
use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// Entries between two pauses of a millisecond: at most some 100,000 entries a second.
const BURST: u32 = 100;
/// Names of folders that are remembered at once, over all levels, and for each level if those above took all.
const NAMES: usize = 50_000;
const NAMES_LEAST: usize = 64;
/// Files of several names that are remembered; of more, each name counts its share.
const LINKS: usize = 500_000;

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

/// A walk of the files beneath one directory; a file with several names counts once. What is moved while it is counted
/// may be missed: then it is less than there is, never more, and what is left is counted all the same.
pub struct Walk {
    top: OwnedFd,
    device: u64,
    here: OwnedFd,
    way: Vec<Level>,
    sum: Sum,
}

impl Walk {
    pub fn begin(directory: &Path) -> rustix::io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let top = openat(rustix::fs::CWD, directory, flags, Mode::empty())?;
        let here = open(&top, c".")?;
        let stat = fstat(&top)?;
        let sum = Sum { bytes: stat.st_blocks as u64 * 512, ..Sum::default() };
        let way = vec![Level { id: id(&top)?, name: c".".into(), left: Vec::new(), more: Some(0) }];
        Ok(Self { top, device: stat.st_dev, here, way, sum })
    }

    /// Goes on, until a folder is done after `until`. The bytes that the files hold on disk, when all are counted.
    pub fn go_on(&mut self, until: Instant) -> rustix::io::Result<Option<u64>> {
        let Self { top, device, here, way, sum } = self;
        while let Some(level) = way.last_mut() {
            if Instant::now() >= until {
                return Ok(None);
            }
            if let Some(name) = level.left.pop() {
                sum.names -= 1;
                // Gone, made into something else since it was listed, or not to be read: nothing of it is counted.
                let Ok(below) = open(here, &name) else { continue };
                let id = id(&below)?;
                if id.0 == *device {
                    *here = below;
                    way.push(Level { id, name, left: Vec::new(), more: Some(0) });
                }
            } else if let Some(counted) = level.more.take() {
                // One that cannot be listed is counted as empty.
                if let Ok((left, more)) = sum.list(here, counted) {
                    (level.left, level.more) = (left, more);
                }
            } else {
                way.pop();
                let from = here.try_clone().map_err(|_| rustix::io::Errno::MFILE)?;
                *here = back(top, from, way, sum)?;
            }
        }
        Ok(Some(sum.bytes))
    }
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

    fn add_up(directory: &Path) -> u64 {
        let mut walk = Walk::begin(directory).unwrap();
        let now = Instant::now();
        // A turn that is over before it begins counts nothing, and loses nothing.
        assert_eq!(walk.go_on(now).unwrap(), None);
        walk.go_on(now + Duration::from_secs(3600)).unwrap().unwrap()
    }

    #[test]
    fn a_file_with_two_names_counts_once_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("a/b");
        std::fs::create_dir_all(&below).unwrap();
        std::fs::write(below.join("file"), vec![1; 1 << 20]).unwrap();
        std::fs::hard_link(below.join("file"), folder.path().join("again")).unwrap();
        std::os::unix::fs::symlink("/usr", folder.path().join("link")).unwrap();
        let sum = add_up(folder.path());
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
