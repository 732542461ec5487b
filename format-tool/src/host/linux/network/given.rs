//! Whether somebody gave a bridge its hardware address, which sysfs alone tells.

use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

/// `NET_ADDR_SET` (linux/netdevice.h).
const GIVEN: &str = "3";

/// Of these bridges, those that nobody gave one, and those that cannot be looked at, and why.
pub(super) fn not_given<'a>(bridges: impl Iterator<Item = &'a String>) -> (BTreeSet<String>, BTreeMap<String, String>) {
    let mut bridges = bridges.peekable();
    if bridges.peek().is_none() {
        return Default::default();
    }
    told(bridges, of_this_namespace().or_else(|_| File::open("/sys").map(OwnedFd::from)))
}

fn told<'a>(
    bridges: impl Iterator<Item = &'a String>,
    sysfs: io::Result<OwnedFd>,
) -> (BTreeSet<String>, BTreeMap<String, String>) {
    let (mut not_given, mut unknown) = (BTreeSet::new(), BTreeMap::new());
    for name in bridges {
        match sysfs.as_ref().map_err(io::Error::to_string).and_then(|sysfs| read(sysfs, name)) {
            Ok(text) if text.trim() == GIVEN => {}
            Ok(_) => drop(not_given.insert(name.clone())),
            Err(why) => drop(unknown.insert(name.clone(), why)),
        }
    }
    (not_given, unknown)
}

/// A sysfs of this thread's network namespace, mounted nowhere: what is on /sys may be another one's.
fn of_this_namespace() -> io::Result<OwnedFd> {
    let context = fsopen("sysfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

fn read(sysfs: &OwnedFd, bridge: &str) -> Result<String, String> {
    let path = format!("devices/virtual/net/{bridge}/addr_assign_type");
    let wrong = |e: io::Error| format!("/sys/{path}: {e}");
    let opened = openat(sysfs, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(io::Error::from);
    let mut text = String::new();
    opened.and_then(|file| File::from(file).read_to_string(&mut text)).map_err(wrong)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_bridge_that_cannot_be_looked_at_is_none_without_an_address() {
        let folder = tempfile::tempdir().unwrap();
        let bridges = ["given", "least", "unseen"].map(str::to_owned);
        for (name, kind) in bridges.iter().zip(["3\n", "0\n"]) {
            let place = folder.path().join("devices/virtual/net").join(name);
            fs::create_dir_all(&place).unwrap();
            fs::write(place.join("addr_assign_type"), kind).unwrap();
        }
        let (not_given, unknown) = told(bridges.iter(), File::open(folder.path()).map(OwnedFd::from));
        assert_eq!(not_given, BTreeSet::from(["least".to_owned()]));
        assert_eq!(unknown.keys().collect::<Vec<_>>(), ["unseen"]);
        assert!(unknown["unseen"].contains("unseen/addr_assign_type: No such file"), "{unknown:?}");
        let (not_given, unknown) = told(bridges.iter(), Err(io::ErrorKind::PermissionDenied.into()));
        assert_eq!((not_given.len(), unknown.len()), (0, 3), "no sysfs at all");
    }
}
