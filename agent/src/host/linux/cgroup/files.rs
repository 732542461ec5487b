//! Files of groups that are read in every window: opened once, for opening costs several times as much as reading.

use super::hierarchy::{Counter, Reader};
use rustix::fs::{CWD, Mode, OFlags, fstat, openat, stat};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// What fits is read at once.
const READ: usize = 4096;

/// A file of one group, which stays that group's when another is made in its place.
struct Kept {
    file: File,
    /// The group's inode.
    group: u64,
}

/// Keeps files open while there is room for that; what finds none is opened for each reading.
pub struct OpenFiles {
    kept: Mutex<BTreeMap<String, BTreeMap<Counter, Kept>>>,
    most: usize,
}

impl OpenFiles {
    /// Takes at most half of the files that this process may open.
    pub fn new() -> Self {
        let soft = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
        Self { kept: Mutex::default(), most: usize::try_from(soft / 2).unwrap_or(usize::MAX) }
    }

    /// The group's inode, and what it has counted. `None` if there is no such group, or it does not say.
    pub fn read(&self, partition: &str, folder: &Path, counter: Counter, reader: Reader) -> Option<(u64, u64)> {
        let mut all = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = all.get(partition).and_then(|files| files.get(&counter)) {
            // A group that was removed does not answer.
            if let Ok(text) = text(&kept.file) {
                return Some((kept.group, (reader.parse)(&text)?));
            }
        }
        let fresh = open(folder, reader.file).ok();
        let read = fresh.as_ref().and_then(|kept| Some((kept.group, (reader.parse)(&text(&kept.file).ok()?)?)));
        let held: usize = if all.contains_key(partition) { 0 } else { all.values().map(BTreeMap::len).sum() };
        match fresh.filter(|_| held < self.most) {
            Some(kept) => drop(all.entry(partition.to_owned()).or_default().insert(counter, kept)),
            None => drop(all.get_mut(partition).and_then(|files| files.remove(&counter))),
        }
        read
    }

    /// The partition's groups go.
    pub fn forget(&self, partition: &str) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).remove(partition);
    }
}

/// The number that tells a group from one that is made in its place; `None` if there is no such group.
pub fn number(folder: &Path) -> Option<u64> {
    Some(stat(folder).ok()?.st_ino)
}

fn open(folder: &Path, file: &str) -> rustix::io::Result<Kept> {
    let held = openat(CWD, folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let group = fstat(&held)?.st_ino;
    let file = openat(&held, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(Kept { file: File::from(file), group })
}

/// All that a file says. What the kernel makes at the moment it gives out in pieces, none of them less than half a page but the
/// last.
pub fn text(file: &File) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    loop {
        let at = bytes.len();
        bytes.resize(at + READ, 0);
        let read = file.read_at(&mut bytes[at..], at as u64)?;
        bytes.truncate(at + read);
        if read < READ / 2 {
            return String::from_utf8(bytes).map_err(std::io::Error::other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::linux::cgroup::hierarchy::unified;

    #[test]
    fn a_file_stays_open_as_long_as_its_group_answers_and_there_is_room() {
        let folder = tempfile::tempdir().unwrap();
        let memory = unified(Counter::Memory, "memory").unwrap();
        let (full, roomy) = (OpenFiles { most: 0, ..OpenFiles::new() }, OpenFiles::new());
        let read = |files: &OpenFiles| files.read("p0", folder.path(), Counter::Memory, memory).map(|(_, bytes)| bytes);
        let path = folder.path().join("memory.current");
        assert_eq!((read(&full), read(&roomy)), (None, None), "there is no group yet");
        std::fs::write(&path, "7\n").unwrap();
        assert_eq!((read(&full), read(&roomy)), (Some(7), Some(7)));
        // Only what was kept open still knows of it.
        std::fs::remove_file(&path).unwrap();
        assert_eq!((read(&full), read(&roomy)), (None, Some(7)));
        roomy.forget("p0");
        assert_eq!(read(&roomy), None);
        let long = format!("{}9\n", " ".repeat(3 * READ));
        std::fs::write(&path, long).unwrap();
        assert_eq!(read(&roomy), Some(9));
    }
}
