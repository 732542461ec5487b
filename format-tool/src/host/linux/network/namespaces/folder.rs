//! The folder that namespaces are mounted in, and what is mounted there.

use crate::host::linux::mounts::{mount_of, unescaped};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

const NONE: Option<&str> = None;

/// Makes of the folder what `ip netns add` does: a shared mount of its own. Where it lies on none that is shared, `ip` would do
/// so later, and lay over what is mounted in it by then a second mount of each, beneath which nobody comes to the first.
pub(super) fn share(folder: &Path) -> io::Result<()> {
    let held = mount_of(File::open(folder)?)?;
    let mounts = mounts()?;
    let is_shared = mounts.iter().any(|mount| mount.id == held && mount.shared);
    if is_shared || mounts.iter().any(|mount| mount.at.starts_with(folder)) {
        return Ok(());
    }
    mount(Some(folder), folder, NONE, MsFlags::MS_BIND, NONE)?;
    mount(NONE, folder, NONE, MsFlags::MS_SHARED, NONE).map_err(|e| {
        let _ = umount2(folder, MntFlags::UMOUNT_NOFOLLOW);
        e.into()
    })
}

/// Of these namespaces, those that are mounted more than once in the folder.
pub(super) fn mounted_again(folder: &Path, names: &BTreeSet<String>) -> io::Result<BTreeSet<String>> {
    let mounts = mounts()?;
    let times = |path: &Path| mounts.iter().filter(|mount| mount.at == path).count();
    Ok(names.iter().filter(|name| times(&folder.join(name)) > 1).cloned().collect())
}

struct Mount {
    id: u64,
    at: PathBuf,
    shared: bool,
}

/// Those that this process sees.
fn mounts() -> io::Result<Vec<Mount>> {
    let text = fs::read("/proc/thread-self/mountinfo")?;
    Ok(text.split(|byte| *byte == b'\n').filter_map(read).collect())
}

fn read(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let at = unescaped(fields.nth(3)?);
    // Its options come first, then what it is to other mounts, up to a dash.
    let mut told = fields.skip(1).take_while(|field| *field != b"-");
    Some(Mount { id, at, shared: told.any(|field| field.starts_with(b"shared:")) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_mount_is_told_from_one_that_only_takes_from_others() {
        let line =
            |tags: &str| format!("36 35 98:0 /mnt1 /mnt\\0402 rw,noatime {tags}- ext3 /dev/shared:1 rw").into_bytes();
        let told = |tags: &str| read(&line(tags)).map(|mount| (mount.id, mount.at, mount.shared)).unwrap();
        assert_eq!(told("shared:1 master:7 "), (36, PathBuf::from("/mnt 2"), true));
        assert!(!told("master:7 ").2 && !told("").2);
        assert!(read(b"").is_none());
    }
}
