//! Whether somebody gave a bridge its hardware address, which sysfs alone tells.

use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

/// `NET_ADDR_SET` (linux/netdevice.h).
const GIVEN: &str = "3";

/// Of these bridges, those that nobody gave one, or that cannot be looked at.
pub(super) fn not_given<'a>(bridges: impl Iterator<Item = &'a String>) -> BTreeSet<String> {
    let mut bridges = bridges.peekable();
    if bridges.peek().is_none() {
        return BTreeSet::new();
    }
    let sysfs = of_this_namespace().or_else(|_| File::open("/sys").map(OwnedFd::from));
    let is_given = |name: &String| {
        let told = sysfs.as_ref().ok().and_then(|sysfs| read(sysfs, name).ok());
        told.is_some_and(|text| text.trim() == GIVEN)
    };
    bridges.filter(|name| !is_given(name)).cloned().collect()
}

/// A sysfs of this thread's network namespace, mounted nowhere: what is on /sys may be another one's.
fn of_this_namespace() -> io::Result<OwnedFd> {
    let context = fsopen("sysfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

fn read(sysfs: &OwnedFd, bridge: &str) -> io::Result<String> {
    let path = format!("devices/virtual/net/{bridge}/addr_assign_type");
    let mut file = File::from(openat(sysfs, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?);
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}
