//! What root's part keeps of root's rights, and why. What it starts has no more: what is not here is gone for good.

use rustix::thread::{CapabilitySet, CapabilitySets};
use std::io;

/// Each with its reason.
const NEEDED: &[(CapabilitySet, &str)] = &[
    (CapabilitySet::CHOWN, "files of a new partition, of a build, and of the network part are given to their users"),
    (CapabilitySet::DAC_OVERRIDE, "folders of partitions, control groups and logs are others' than root's"),
    (CapabilitySet::FOWNER, "what a tenant left is made removable, whatever mode it has"),
    (CapabilitySet::FSETID, "modes of what is unpacked and sealed are set as they are to be"),
    (CapabilitySet::KILL, "services, hooks and all that runs as a partition's user are ended"),
    (CapabilitySet::SETGID, "each process of an instance, of a build, and the network part becomes its own user"),
    (CapabilitySet::SETUID, "the same"),
    (CapabilitySet::LINUX_IMMUTABLE, "what a tenant could mark as unchangeable is erased all the same"),
    (
        CapabilitySet::SYS_ADMIN,
        "namespaces are entered, builds get mounts of their own, limits of the disk and counts of traffic read, objects of System V removed",
    ),
    (
        CapabilitySet::NET_ADMIN,
        "the empty network of a build is given its loopback, and the kernel the program that counts partitions' traffic",
    ),
    (CapabilitySet::SYS_CHROOT, "namespaces are entered together with their file systems"),
    (CapabilitySet::SYS_PTRACE, "counters and marks of processes of other users are read in /proc"),
    (CapabilitySet::SYS_RESOURCE, "the agent's own records are written also where a limit of the disk is reached"),
    (CapabilitySet::NET_BIND_SERVICE, "on a node without users, services of root listen below port 1024"),
];

/// Gives up everything else. Where this process is not root's there is nothing to give up.
///
/// # Errors
/// If the kernel refuses.
pub fn limit() -> io::Result<()> {
    let needed = NEEDED.iter().fold(CapabilitySet::empty(), |all, (one, _)| all | *one);
    for capability in CapabilitySet::all().difference(needed).iter() {
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // One that this kernel does not know, or somebody who has none to give.
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::PERM) => {}
            Err(e) => return Err(e.into()),
        }
    }
    let now = rustix::thread::capabilities(None)?;
    let kept = CapabilitySets {
        effective: now.effective & needed,
        permitted: now.permitted & needed,
        inheritable: CapabilitySet::empty(),
    };
    Ok(rustix::thread::set_capabilities(None, kept)?)
}
