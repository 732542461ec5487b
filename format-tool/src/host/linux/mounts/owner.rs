//! Which user namespace a mount namespace was made in. Anybody may make one, with mount namespaces in it where he mounts
//! what he likes on whatever he can reach; none of that reaches the others, nor keeps a directory from being removed.

use std::fs::{File, metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

mod calls {
    #![expect(unsafe_code, reason = "the owner of a namespace is asked by ioctl alone, which is a foreign call")]

    use std::fs::File;
    use std::os::fd::{AsRawFd, FromRawFd};

    // NS_GET_USERNS of linux/nsfs.h.
    nix::ioctl_none!(owning_user_namespace, 0xb7, 1);

    pub(super) fn owner(namespace: &File) -> nix::Result<File> {
        // SAFETY: the call takes no argument, and its answer is a descriptor that is this process's own and nobody else's.
        unsafe { owning_user_namespace(namespace.as_raw_fd()).map(|owner| File::from_raw_fd(owner)) }
    }
}

/// Whether a process's mount namespace is one that a user made beneath the user namespace of this process. One whose owner
/// is not told is none.
pub(super) fn is_beneath(process: &Path) -> bool {
    differs(process).unwrap_or(false)
}

fn differs(process: &Path) -> io::Result<bool> {
    let owner = calls::owner(&File::open(process.join("ns/mnt"))?)?.metadata()?;
    let own = metadata("/proc/self/ns/user")?;
    Ok((owner.dev(), owner.ino()) != (own.dev(), own.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_namespace_of_this_process_is_not_beneath_it() {
        assert!(!differs(Path::new("/proc/self")).unwrap());
    }
}
