//! Real file systems on loop devices, mounted in a mount namespace of each test's own. Without root or the programs that
//! make file systems these tests fail where `CI` is set, and say that they were skipped where it is not. The ignored ones
//! need a kernel with project quota, as Debian's is: `cargo test -p plat-tests --test guest` runs them on it.

mod mounted;
mod shared;

use super::*;
use mounted::{BTRFS, EXT4, EXT4_COUNTED, EXT4_QUOTA, Mounted, XFS, XFS_QUOTA, on, run};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fd::AsFd;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::process::Command;

const PROJECT: u32 = 20001;
const MIB: u64 = 1 << 20;

/// The whole life of a limited directory; `beyond` is what a write beyond the limit fails with.
fn live(mounted: &Mounted, beyond: &str) {
    mounted.make("part0").unwrap();
    let made = fs::metadata(mounted.top().join("part0")).unwrap();
    assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777), (0, 0, 0o1700));
    assert_eq!(mounted.make("part0").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    chown(mounted.top().join("part0"), Some(PROJECT), Some(PROJECT)).unwrap();
    assert_eq!(mounted.limit("part0"), None);

    mounted.set("part0", Some(8 * MIB)).unwrap();
    assert_eq!(mounted.limit("part0"), Some(8 * MIB));
    mounted.write("part0/small", 2).unwrap();
    let refused = mounted.write("part0/large", 16).unwrap_err();
    assert!(refused.contains(beyond), "{refused}");
    mounted.write("beside", 16).expect_err("the top is root's");

    mounted.set("part0", Some(40 * MIB)).unwrap();
    assert_eq!(mounted.limit("part0"), Some(40 * MIB));
    mounted.write("part0/large", 16).unwrap();
    let refused = mounted.write("part0/larger", 32).unwrap_err();
    assert!(refused.contains(beyond), "{refused}");

    mounted.set("part0", None).unwrap();
    assert_eq!(mounted.limit("part0"), None);
    mounted.write("part0/larger", 48).unwrap();

    assert_eq!(mounted.set("part0", Some(0)).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(mounted.limit("part0"), None);
    for name in ["small", "large", "larger"] {
        fs::remove_file(mounted.top().join("part0").join(name)).unwrap();
    }
    rustix::fs::unlinkat(mounted.at(""), "part0", AtFlags::REMOVEDIR).unwrap();
    mounted.make("part0").unwrap();
    assert_eq!(mounted.limit("part0"), None);
}

#[test]
fn a_subvolume_is_limited_and_removed_like_a_directory() {
    on(Some(BTRFS), |mounted| {
        run(Command::new("btrfs").args(["quota", "enable"]).arg(mounted.top())).unwrap();
        assert_eq!(mounted.means(), Ok(Means::Btrfs));
        live(mounted, "Disk quota exceeded");
    });
}

#[test]
fn a_plain_directory_on_btrfs_is_not_limited_by_mistake() {
    on(Some(BTRFS), |mounted| {
        run(Command::new("btrfs").args(["quota", "enable"]).arg(mounted.top())).unwrap();
        mounted.make("sub").unwrap();
        fs::create_dir(mounted.top().join("sub/plain")).unwrap();
        mounted.set("sub", Some(8 * MIB)).unwrap();
        assert_eq!(mounted.limit("sub/plain"), None);
        let why = mounted.set("sub/plain", Some(16 * MIB)).unwrap_err();
        assert!(why.to_string().contains("plain directory"), "{why}");
        assert_eq!(mounted.limit("sub"), Some(8 * MIB));
    });
}

#[test]
fn btrfs_without_quota_says_how_it_is_switched_on() {
    on(Some(BTRFS), |mounted| {
        let why = mounted.means().unwrap_err();
        assert_eq!(why, format!("quota is not switched on: `btrfs quota enable {}`", mounted.top().display()));
        make(Means::Btrfs, mounted.at("").as_fd(), OsStr::new("part0")).expect("a subvolume needs no quota");
        let top = mounted.at("part0");
        assert!(set(Means::Btrfs, top.as_fd(), PROJECT, Some(MIB), true).is_err(), "and no limit is set unseen");
    });
}

#[test]
fn tmpfs_and_a_mount_without_project_quota_say_what_is_missing() {
    on(None, |mounted| {
        let why = mounted.means().unwrap_err();
        assert!(why.starts_with("tmpfs has no limits by directory"), "{why}");
    });
    on(Some(EXT4), |mounted| {
        let why = mounted.means().unwrap_err();
        let kernel = why.starts_with("the kernel has no project quota");
        assert!(kernel || why.contains("is mounted without prjquota"), "{why}");
    });
}

#[test]
fn no_more_names_are_given_to_a_project_than_may_be_looked_at() {
    on(Some(XFS), |mounted| {
        let top = mounted.top();
        (0..5).for_each(|n| fs::create_dir_all(top.join(format!("part0/{n}/deep"))).unwrap());
        let directory = |path: &str| opened(mounted.at(path).as_fd()).unwrap();
        let given = || {
            let paths = (0..5).flat_map(|n| [format!("part0/{n}"), format!("part0/{n}/deep")]);
            paths.filter(|path| project::counts(&directory(path), PROJECT).unwrap()).count()
        };
        let part = directory("part0");
        let left = project::take_in::all(&part, PROJECT, 6).unwrap().unwrap();
        assert!(left.contains("no more than 6 names") && given() < 6, "{left}: {}", given());
        assert!(project::counts(&part, PROJECT).unwrap(), "what is made in it counts");
        assert_eq!(project::take_in::all(&part, PROJECT, usize::MAX).unwrap(), None);
        assert_eq!(given(), 10);
    });
}

/// What is in a directory before its first limit counts, and nothing that it points at.
fn take_in(mounted: &Mounted) {
    let top = mounted.top();
    mounted.make("part0").unwrap();
    fs::create_dir_all(top.join("part0/srv/deep")).unwrap();
    fs::create_dir(top.join("outside")).unwrap();
    fs::write(top.join("outside/file"), "x").unwrap();
    symlink(top.join("outside"), top.join("part0/srv/link")).unwrap();
    nix::unistd::mkfifo(&top.join("part0/srv/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    run(Command::new("chown").args(["-R", "-h", &PROJECT.to_string()]).arg(top.join("part0"))).unwrap();
    mounted.write("part0/srv/deep/before", 6).unwrap();
    // Deeper than there are handles for, mounted there, or somebody else's by another name.
    let deepest = deep(mounted, "part0/srv/deep");
    fs::create_dir(top.join("part0/srv/mounted")).unwrap();
    mount(Some(&top.join("outside")), &top.join("part0/srv/mounted"), None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .unwrap();
    fs::write(top.join("beside"), "x").unwrap();
    fs::hard_link(top.join("beside"), top.join("part0/srv/hard")).unwrap();

    mounted.set("part0", Some(8 * MIB)).unwrap();
    assert!(mounted.write("part0/srv/deep/after", 4).is_err(), "what was there before counts");
    let project = |path: &str| {
        let file = fs::File::open(top.join(path)).unwrap();
        calls::attributes(&file.into()).unwrap().project
    };
    assert_eq!((project("part0/srv/deep/before"), project("part0/srv/deep/after")), (PROJECT, PROJECT));
    assert_eq!((project("outside"), project("outside/file"), project("beside")), (0, 0, 0));
    assert_eq!(calls::attributes(&deepest).unwrap().project, PROJECT);
    let counts = |path: &str| counts(Means::Project, mounted.at(path).as_fd(), PROJECT).unwrap();
    assert!(counts("part0") && !counts("outside"));

    // The directory is another project's again: the limit does not hold for it, and is set anew as a whole.
    let part = opened(mounted.at("part0").as_fd()).unwrap();
    let mut attributes = calls::attributes(&part).unwrap();
    attributes.project = 0;
    calls::set_attributes(&part, &attributes).unwrap();
    assert!(!counts("part0"));
    mounted.set("part0", Some(12 * MIB)).unwrap();
    assert_eq!((mounted.limit("part0"), project("part0")), (Some(12 * MIB), PROJECT));
    assert!(counts("part0"));
    let zero = set(Means::Project, mounted.at("part0").as_fd(), 0, Some(MIB), true).unwrap_err();
    assert_eq!(zero.kind(), io::ErrorKind::InvalidInput);
    // What cannot be given keeps nothing else from it.
    fs::write(top.join("part0/srv/frozen"), "x").unwrap();
    let of_none = |path: &str| {
        let file: OwnedFd = fs::File::open(top.join(path)).unwrap().into();
        let mut attributes = calls::attributes(&file).unwrap();
        attributes.project = 0;
        calls::set_attributes(&file, &attributes).unwrap();
    };
    ["part0/srv/frozen", "part0/srv/deep/before", "part0"].into_iter().for_each(of_none);
    run(Command::new("chattr").arg("+i").arg(top.join("part0/srv/frozen"))).unwrap();
    let left = set(Means::Project, mounted.at("part0").as_fd(), PROJECT, Some(16 * MIB), true).unwrap();
    // xfs lets root give even that.
    assert!(left.map_or(project("part0/srv/frozen") == PROJECT, |why| why.contains("not permitted")));
    assert_eq!((mounted.limit("part0"), project("part0/srv/deep/before")), (Some(16 * MIB), PROJECT));
    run(Command::new("chattr").arg("-i").arg(top.join("part0/srv/frozen"))).unwrap();
    umount2(&top.join("part0/srv/mounted"), MntFlags::MNT_DETACH).unwrap();
    // The project's limit outlives the directory.
    mounted.set("part0", None).unwrap();
    run(Command::new("rm").arg("-r").arg(top.join("part0"))).unwrap();
}

/// Directories in each other, more than files can be open; a handle of the last.
fn deep(mounted: &Mounted, path: &str) -> OwnedFd {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let (_, most) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    (0..most.min(1100)).fold(opened(mounted.at(path).as_fd()).unwrap(), |at, _| {
        rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
        rustix::fs::openat(&at, "d", flags, Mode::empty()).unwrap()
    })
}

fn known_again(mounted: &Mounted, options: &str) {
    let named = || project::file_system(&opened(mounted.at("").as_fd()).unwrap()).unwrap();
    let first = named();
    assert!(first.trim_matches('0').len() > 4, "{first}");
    mounted.unmount();
    run(Command::new("mount").args(["-o", options]).arg(mounted.image()).arg(mounted.top())).unwrap();
    assert_eq!(named(), first);
}

#[test]
fn a_file_system_is_known_again_when_it_is_mounted_again() {
    on(Some(EXT4), |mounted| known_again(mounted, "loop"));
}

#[test]
#[ignore = "needs a kernel with project quota"]
fn a_directory_on_ext4_is_limited_by_project_quota() {
    on(Some(EXT4_QUOTA), |mounted| {
        assert_eq!(mounted.means(), Ok(Means::Project));
        take_in(mounted);
        live(mounted, "Disk quota exceeded");
        shared::lives(mounted);
    });
}

#[test]
#[ignore = "needs a kernel with project quota"]
fn a_directory_on_xfs_is_limited_by_project_quota() {
    on(Some(XFS_QUOTA), |mounted| {
        assert_eq!(mounted.means(), Ok(Means::Project));
        known_again(mounted, "loop,prjquota");
        take_in(mounted);
        live(mounted, "No space left on device");
        shared::lives(mounted);
    });
}

#[test]
#[ignore = "needs a kernel with project quota"]
fn file_systems_mounted_without_the_option_say_so() {
    for kind in [EXT4, EXT4_COUNTED, XFS] {
        on(Some(kind), |mounted| {
            let why = mounted.means().unwrap_err();
            assert!(why.contains("is mounted without prjquota"), "{why}");
        });
    }
}
