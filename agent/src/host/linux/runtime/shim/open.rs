//! Files of /proc and of groups that are read of each run in every window: opened once, for opening costs several times as
//! much as reading. One that was opened stays that process's, or that group's, whoever gets its number or name afterwards:
//! then it does not answer any more.

use crate::host::linux::cgroup::text;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// Most files of one run: its group's list, and what some of its processes have read and written.
const MOST: usize = 8;

/// How many may be open at once, of all runs.
pub struct Room {
    open: AtomicUsize,
    most: usize,
}

impl Room {
    /// A quarter of the files that this process may open.
    pub fn new() -> Arc<Self> {
        let soft = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
        Arc::new(Self { open: AtomicUsize::new(0), most: usize::try_from(soft / 4).unwrap_or(usize::MAX) })
    }
}

struct Kept {
    path: PathBuf,
    file: File,
    /// Whether it was asked for in this reading.
    is_used: bool,
    room: Arc<Room>,
}

impl Kept {
    fn of(path: PathBuf, file: File, room: &Arc<Room>) -> Option<Self> {
        let taken = room.open.fetch_update(Relaxed, Relaxed, |open| (open < room.most).then_some(open + 1));
        taken.is_ok().then(|| Self { path, file, is_used: true, room: room.clone() })
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.room.open.fetch_sub(1, Relaxed);
    }
}

/// Those of one run.
pub struct Open {
    kept: Mutex<Vec<Kept>>,
    room: Arc<Room>,
}

impl Open {
    pub fn new(room: Arc<Room>) -> Self {
        Self { kept: Mutex::default(), room }
    }

    /// One reading. What is not asked for in it is closed.
    pub fn reading<T>(&self, read: impl FnOnce(&mut Reading) -> T) -> T {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter_mut().for_each(|kept| kept.is_used = false);
        let told = read(&mut Reading { kept: &mut kept, room: &self.room });
        kept.retain(|kept| kept.is_used);
        told
    }
}

pub struct Reading<'a> {
    kept: &'a mut Vec<Kept>,
    room: &'a Arc<Room>,
}

impl Reading<'_> {
    /// All that the file says now.
    ///
    /// # Errors
    /// As of opening and reading it.
    pub fn text(&mut self, path: &Path) -> io::Result<String> {
        if let Some(at) = self.kept.iter().position(|kept| kept.path == path) {
            if let Ok(text) = text(&self.kept[at].file) {
                self.kept[at].is_used = true;
                return Ok(text);
            }
            self.kept.swap_remove(at);
        }
        let file = File::open(path)?;
        let text = text(&file)?;
        if self.kept.len() < MOST {
            self.kept.extend(Kept::of(path.to_owned(), file, self.room));
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_again_stays_open_while_there_is_room_and_all_else_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |n: usize| folder.path().join(n.to_string());
        (0..12).for_each(|n| std::fs::write(path(n), n.to_string()).unwrap());
        let room = Arc::new(Room { open: AtomicUsize::new(0), most: 3 });
        let open = Open::new(room.clone());
        let read = |asked: std::ops::Range<usize>| {
            open.reading(|files| asked.map(|n| files.text(&path(n)).ok()).collect::<Vec<_>>())
        };
        let said = |asked: std::ops::Range<usize>| asked.map(|n| Some(n.to_string())).collect::<Vec<_>>();
        assert_eq!(read(0..2), said(0..2));
        // Only what is open still knows of it.
        (0..2).for_each(|n| std::fs::remove_file(path(n)).unwrap());
        assert_eq!(read(0..4), said(0..4));
        assert_eq!(room.open.load(Relaxed), 3);
        assert_eq!(read(1..4), said(1..4));
        assert_eq!(read(0..1), [None], "it was not asked for, and is gone");
        assert_eq!(room.open.load(Relaxed), 0);
        let roomy = Open::new(Arc::new(Room { open: AtomicUsize::new(0), most: 100 }));
        roomy.reading(|files| (2..12).for_each(|n| drop(files.text(&path(n)).unwrap())));
        assert_eq!(roomy.room.open.load(Relaxed), MOST);
        let room = roomy.room.clone();
        drop(roomy);
        assert_eq!(room.open.load(Relaxed), 0);
    }

    #[test]
    fn a_process_that_has_ended_does_not_answer_for_another_of_its_number() {
        let mut sleeps = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let open = Open::new(Room::new());
        let path = PathBuf::from(format!("/proc/{}/io", sleeps.id()));
        let read = || open.reading(|files| files.text(&path));
        assert!(read().unwrap().contains("read_bytes"));
        sleeps.kill().unwrap();
        sleeps.wait().unwrap();
        assert!(read().is_err());
    }
}
