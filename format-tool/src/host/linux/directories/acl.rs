//! The access control lists of a directory: who else may come in, and what is put on whatever is made in it.

use rustix::fd::OwnedFd;
use rustix::fs::{fgetxattr, fremovexattr};
use rustix::io::{Errno, Result};
use std::ffi::CStr;

const LISTS: [&CStr; 2] = [c"system.posix_acl_access", c"system.posix_acl_default"];

/// Whether there is one.
pub(super) fn is_on(directory: &OwnedFd) -> bool {
    LISTS.iter().any(|list| fgetxattr(directory, *list, &mut [0u8; 0]).is_ok())
}

/// Takes them away.
pub(super) fn remove(directory: &OwnedFd) -> Result<()> {
    LISTS.iter().try_for_each(|list| match fremovexattr(directory, *list) {
        Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => Ok(()),
        Err(other) => Err(other),
    })
}
