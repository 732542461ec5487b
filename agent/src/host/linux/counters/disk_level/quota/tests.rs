//! On a real file system on a loop device, mounted in a mount namespace of the test's own. Project quota is not in every
//! kernel: there it is only tried that nothing is made up.

use super::*;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::process::Command;

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_subvolume_of_btrfs_is_counted_by_its_quota_group() {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "this test needs root, and CI must have it");
        return;
    }
    let test = || {
        let nothing = None::<&str>;
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        mount(nothing, "/", nothing, MsFlags::MS_PRIVATE | MsFlags::MS_REC, nothing).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (image, top) = (folder.path().join("image"), folder.path().join("top"));
        std::fs::create_dir(&top).unwrap();
        std::fs::File::create(&image).unwrap().set_len(512 << 20).unwrap();
        run(Command::new("mkfs.btrfs").arg("-q").arg(&image));
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&top));
        let (part, plain) = (top.join("part"), top.join("plain"));
        run(Command::new("btrfs").args(["subvolume", "create"]).arg(&part));
        std::fs::create_dir(&plain).unwrap();
        let without = used(&part, 20_001);
        run(Command::new("btrfs").args(["quota", "enable"]).arg(&top));
        run(Command::new("dd")
            .args(["if=/dev/zero", "bs=1M", "count=8", "status=none", "conv=fsync"])
            .arg(format!("of={}", part.join("file").display())));
        run(Command::new("btrfs").args(["quota", "rescan", "-w"]).arg(&top));
        let figures = (without, used(&part, 20_001), used(&plain, 20_001));
        umount2(&top, MntFlags::MNT_DETACH).unwrap();
        figures
    };
    let (without, part, plain) = std::thread::spawn(test).join().unwrap();
    assert_eq!((without, plain), (None, None), "without quota, and of a plain directory, nothing is counted");
    let part = part.unwrap();
    assert!((8 << 20..9 << 20).contains(&part.bytes) && !part.may_be_less, "{part:?}");
}

#[test]
fn a_directory_without_a_project_is_not_counted() {
    let folder = tempfile::tempdir().unwrap();
    for project in [0, 20_001] {
        assert_eq!(used(folder.path(), project), None);
    }
}
