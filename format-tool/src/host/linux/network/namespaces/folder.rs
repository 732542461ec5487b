//! The folder that namespaces are mounted in, and what is mounted there.

use crate::host::linux::mounts::{lines, mount_of};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;

/// What this process sees.
const MOUNTS: &str = "/proc/thread-self/mountinfo";
const NONE: Option<&str> = None;

/// Makes of the folder what `ip netns add` does: a shared mount of its own. Where it lies on none that is shared, `ip` would do
/// so later, and lay over what is mounted in it by then a second mount of each, beneath which nobody comes to the first.
pub(super) fn share(folder: &Path) -> io::Result<()> {
    let held = mount_of(File::open(folder)?)?;
    let text = fs::read(MOUNTS)?;
    if lines(&text).any(|mount| (mount.id == held && mount.is_shared) || mount.at.starts_with(folder)) {
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
    let text = fs::read(MOUNTS)?;
    let (mut once, mut again) = (BTreeSet::new(), BTreeSet::new());
    for mount in lines(&text).filter(|mount| mount.at.parent() == Some(folder)) {
        let name = mount.at.file_name().and_then(|name| name.to_str()).filter(|name| names.contains(*name));
        again.extend(name.filter(|name| !once.insert((*name).to_owned())).map(str::to_owned));
    }
    Ok(again)
}
