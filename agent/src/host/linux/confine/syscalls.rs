//! System calls that no program within bounds has a use for, or only to break out of them.

use super::Modes;
use super::filter::{Answer, Unmade, When, filter};
use nix::libc;
use seccompiler::{BpfProgram, apply_filter};
use std::io;
use std::sync::OnceLock;

/// Which sockets may be made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sockets {
    /// Those of programs: between those of this machine, of the internet, and to the kernel about networks.
    Internet,
    /// Of the family that has paths for addresses alone.
    Local,
}

/// Their families.
pub const FAMILIES: [(&str, i32); 4] = [
    ("AF_UNIX", libc::AF_UNIX),
    ("AF_INET", libc::AF_INET),
    ("AF_INET6", libc::AF_INET6),
    ("AF_NETLINK", libc::AF_NETLINK),
];

impl Sockets {
    fn families(self) -> &'static [(&'static str, i32)] {
        match self {
            Self::Internet => &FAMILIES,
            Self::Local => &FAMILIES[..1],
        }
    }
}

/// Of who administers the machine, mounts, traces others, or loads code into the kernel; and large parts of the kernel that
/// few programs use and that all can do without.
const FORBIDDEN: &[i64] = &[
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_fanotify_init,
    libc::SYS_open_by_handle_at,
    libc::SYS_vhangup,
];

/// Those of them that systemd's `@system-service` has, as systemd calls them; but for those that its own filters of namespaces
/// answer.
pub const FORBIDDEN_SERVICES: [&str; 9] = [
    "@keyring",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "kcmp",
    "process_madvise",
    "process_vm_readv",
    "process_vm_writev",
    "userfaultfd",
];

/// What a process may not be split off with. One of time cannot be asked for so.
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// Modes of files are the argument of this number. The last one is newer than some systems' headers.
const MODES: &[(i64, u8)] = &[
    (libc::SYS_fchmod, 1),
    (libc::SYS_fchmodat, 2),
    (libc::SYS_mknodat, 2),
    (libc::SYS_openat, 3),
    (452, 2),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chmod, 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_creat, 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, 2),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mknod, 1),
];

/// What these ask for is behind a pointer, where a filter cannot look: as on a kernel that does not have them yet, programs
/// ask in the way of before.
const UNKNOWN: &[i64] = &[libc::SYS_clone3, libc::SYS_openat2];

/// A filter for each kind of sockets, for those that may not set every mode. Made once: processes that are forked afterwards
/// have them.
static MADE: [OnceLock<Result<BpfProgram, Unmade>>; 2] = [OnceLock::new(), OnceLock::new()];

fn made(sockets: Sockets) -> Result<&'static BpfProgram, Unmade> {
    let kept = match sockets {
        Sockets::Internet => &MADE[0],
        Sockets::Local => &MADE[1],
    };
    kept.get_or_init(|| make(sockets, Modes::Plain)).as_ref().map_err(|why| *why)
}

/// Makes ready what most programs are forbidden, so that none of those that are forked has to.
pub fn prepare() {
    // What is wrong with it is told whenever it is to be used.
    let _ = made(Sockets::Internet);
}

/// Forbids them to this process and all that it starts, for good. No new privileges first.
///
/// # Errors
/// If this kernel has no filters, or they are not known for this kind of machine.
pub fn forbid(sockets: Sockets, modes: Modes) -> io::Result<()> {
    match modes {
        Modes::Plain => apply_filter(made(sockets).map_err(io::Error::other)?),
        Modes::Any => apply_filter(&make(sockets, modes).map_err(io::Error::other)?),
    }
    .map_err(io::Error::other)
}

fn make(sockets: Sockets, modes: Modes) -> Result<BpfProgram, Unmade> {
    let denied = Answer::Error(libc::EPERM);
    // As on a kernel that does not have them. A mode is all that is to be looked for in how a file is opened.
    let unknown = UNKNOWN.iter().filter(|call| modes == Modes::Plain || **call != libc::SYS_openat2);
    let unknown = unknown.map(|call| (*call, (When::Always, Answer::Error(libc::ENOSYS))));
    let mode = libc::S_ISUID | libc::S_ISGID;
    let modes = MODES.iter().filter(|_| modes == Modes::Plain);
    let modes = modes.map(|(call, argument)| (*call, (When::Any(*argument, mode), denied)));
    let namespaces = NAMESPACES.iter().fold(0, |all, flag| all | flag.unsigned_abs());
    let families = sockets.families().iter().map(|(_, family)| family.unsigned_abs()).collect();
    let rules = FORBIDDEN.iter().map(|call| (*call, (When::Always, denied)));
    filter(rules.chain(unknown).chain(modes).chain([
        (libc::SYS_clone, (When::Any(0, namespaces), denied)),
        (libc::SYS_socket, (When::NoneOf(0, families), Answer::Error(libc::EAFNOSUPPORT))),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_filter_for_every_kind_of_program() {
        for sockets in [Sockets::Internet, Sockets::Local] {
            for modes in [Modes::Plain, Modes::Any] {
                make(sockets, modes).unwrap();
            }
        }
    }
}
