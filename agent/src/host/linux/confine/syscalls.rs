//! System calls that no program within bounds has a use for, or only to break out of them.

use super::Modes;
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};
use std::collections::BTreeMap;
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

/// Added to each number by the ABI x32, which some kernels have.
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;

/// A list of filters for each kind of sockets, for those that may not set every mode. Made once: processes that are forked
/// afterwards have them.
static MADE: [OnceLock<Result<Vec<BpfProgram>, String>>; 2] = [OnceLock::new(), OnceLock::new()];

fn made(sockets: Sockets) -> io::Result<&'static [BpfProgram]> {
    let kept = match sockets {
        Sockets::Internet => &MADE[0],
        Sockets::Local => &MADE[1],
    };
    let filters = kept.get_or_init(|| make(sockets, Modes::Plain).map_err(|e| e.to_string()));
    filters.as_deref().map_err(|why| io::Error::other(why.clone()))
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
    let apply =
        |filters: &[BpfProgram]| filters.iter().try_for_each(|filter| apply_filter(filter).map_err(io::Error::other));
    match modes {
        Modes::Plain => apply(made(sockets)?),
        Modes::Any => apply(&make(sockets, modes)?),
    }
}

fn make(sockets: Sockets, modes: Modes) -> io::Result<Vec<BpfProgram>> {
    let denied = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = FORBIDDEN.iter().map(|call| (*call, Vec::new())).collect();
    for (call, argument) in MODES.iter().filter(|_| modes == Modes::Plain) {
        let with = |bit: u64| holds(*argument, SeccompCmpOp::MaskedEq(bit), bit);
        rules.insert(*call, vec![with(libc::S_ISUID.into())?, with(libc::S_ISGID.into())?]);
    }
    let namespaces = NAMESPACES.iter().map(|flag| {
        let flag = u64::from(flag.unsigned_abs());
        holds(0, SeccompCmpOp::MaskedEq(flag), flag)
    });
    rules.insert(libc::SYS_clone, namespaces.collect::<Result<_, _>>()?);
    let other = |(_, family): &(&str, i32)| condition(0, SeccompCmpOp::Ne, u64::from(family.unsigned_abs()));
    let other = sockets.families().iter().map(other).collect::<Result<_, _>>()?;
    let other = vec![SeccompRule::new(other).map_err(io::Error::other)?];
    let families = BTreeMap::from([(libc::SYS_socket, other)]);
    // A mode is all that is to be looked for in how a file is opened.
    let unknown = UNKNOWN.iter().filter(|call| modes == Modes::Plain || **call != libc::SYS_openat2);
    let unknown = unknown.map(|call| (*call, Vec::new())).collect();
    Ok(vec![
        filter(rules, denied)?,
        // As on a kernel that does not have them.
        filter(families, SeccompAction::Errno(libc::EAFNOSUPPORT.unsigned_abs()))?,
        filter(unknown, SeccompAction::Errno(libc::ENOSYS.unsigned_abs()))?,
    ])
}

/// An argument, of which the lower half counts, compares so.
fn holds(argument: u8, how: SeccompCmpOp, with: u64) -> io::Result<SeccompRule> {
    SeccompRule::new(vec![condition(argument, how, with)?]).map_err(io::Error::other)
}

fn condition(argument: u8, how: SeccompCmpOp, with: u64) -> io::Result<SeccompCondition> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, how, with).map_err(io::Error::other)
}

fn filter(mut rules: BTreeMap<i64, Vec<SeccompRule>>, answer: SeccompAction) -> io::Result<BpfProgram> {
    #[cfg(target_arch = "x86_64")]
    rules.append(&mut rules.iter().map(|(call, rule)| (call + X32, rule.clone())).collect());
    let machine = std::env::consts::ARCH.try_into().map_err(io::Error::other)?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, answer, machine).map_err(io::Error::other)?;
    filter.try_into().map_err(io::Error::other)
}
