//! What a partition's user has left outside its partition, where every user of the machine may leave something.

use super::empty::{empty, enter, remove as remove_name};
use crate::host::linux::confine::TEMPORARY;
use crate::host::linux::disk::io_problem;
use crate::host::linux::posix::{Ipc, remove_ipc};
use plat_model::Problem;
use plat_model::problem::codes;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fstat, openat, statat};
use rustix::io::{Errno, Result as Outcome};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// Folders that anybody may write. The last is there where message queues are mounted.
const SHARED: [&str; 4] = [TEMPORARY[0], TEMPORARY[1], TEMPORARY[2], "/dev/mqueue"];
/// Users below are the machine's own.
const FIRST_UID: u32 = 1000;
/// Device and inode.
type Id = (u64, u64);
/// Looks at one folder: more than one are needed where removing disturbs a listing.
const LOOKS: u32 = 100;

/// Removes all of the user's in the shared folders but the directories `kept`, and its System V objects. For root, when
/// no process of the user is left that could add more.
///
/// # Errors
/// [`codes::ERASE_FAILED`] if something of the user's stays: its next holder could read it.
pub fn remove(uid: u32, kept: &[PathBuf]) -> Result<(), Problem> {
    if uid < FIRST_UID {
        return Ok(());
    }
    let identity = |path| statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).map(|stat| (stat.st_dev, stat.st_ino));
    let kept: Vec<Id> = kept.iter().filter_map(|path| identity(path).ok()).collect();
    for shared in SHARED {
        sweep(shared, uid, &kept).map_err(|e| {
            io_problem(codes::ERASE_FAILED, format!("cannot remove what uid {uid} has left in {shared}"), &e.into())
                .fix("look for what is mounted there, and unmount it; clear what is immutable with `chattr -ia`")
        })?;
    }
    for (kind, list) in [(Ipc::Memory, "shm"), (Ipc::Semaphores, "sem"), (Ipc::Queue, "msg")] {
        // Where the kernel has none of it, nothing can have been left.
        for id in owned(&fs::read_to_string(format!("/proc/sysvipc/{list}")).unwrap_or_default(), uid) {
            match remove_ipc(kind, id).map_err(|e| (Errno::from_io_error(&e), e)) {
                // Or removed by whoever else it belonged to.
                Ok(()) | Err((Some(Errno::INVAL | Errno::IDRM), _)) => {}
                Err((_, e)) => {
                    let what = format!("cannot remove {kind:?} {id} of uid {uid}");
                    return Err(io_problem(codes::ERASE_FAILED, what, &e));
                }
            }
        }
    }
    Ok(())
}

fn sweep(shared: &str, uid: u32, kept: &[Id]) -> Outcome<()> {
    let folder = match openat(CWD, shared, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    for _ in 0..LOOKS {
        if !remove_some(&folder, uid, kept)? {
            return Ok(());
        }
    }
    Err(Errno::BUSY)
}

/// Whether there was something of the user's.
fn remove_some(folder: &OwnedFd, uid: u32, kept: &[Id]) -> Outcome<bool> {
    let mut any = false;
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let Ok(stat) = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        if stat.st_uid != uid || kept.contains(&(stat.st_dev, stat.st_ino)) {
            continue;
        }
        any = true;
        // The folders are sticky: nobody but this user, of whom no process is left, could exchange it now.
        let removed = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => enter(folder, name).and_then(|below| match fstat(&below)?.st_uid == uid {
                true => empty(&below).and_then(|()| remove_name(folder, name, AtFlags::REMOVEDIR)),
                false => Ok(()),
            }),
            _ => remove_name(folder, name, AtFlags::empty()),
        };
        match removed {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(any)
}

/// The ids in a list of `/proc/sysvipc` that a user owns or has made.
fn owned(list: &str, uid: u32) -> Vec<i32> {
    let mut lines = list.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let Some(head) = lines.next() else { return Vec::new() };
    let columns: Vec<usize> = (0..head.len()).filter(|n| matches!(head[*n], "uid" | "cuid")).collect();
    let is_owned = |line: &Vec<&str>| columns.iter().any(|n| line.get(*n).is_some_and(|id| id.parse() == Ok(uid)));
    lines.filter(is_owned).filter_map(|line| line.get(1)?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_found_by_owner_and_by_maker() {
        let list = "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n\
                    0          3   600          1  20001  20001  20001  20001  0  1\n\
                    0          4   600          1  20002  20001  20001  20001  0  1\n\
                    0      20001   600          1  20002  20001  20002  20001  0  1\n";
        assert_eq!(owned(list, 20001), [3, 4]);
        assert_eq!(owned("", 20001), [0; 0]);
    }
}
