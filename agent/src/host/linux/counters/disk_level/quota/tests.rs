//! On a real file system on a loop device, mounted in a mount namespace of the test's own. The ignored ones need a kernel with
//! project quota, as Debian's is: `cargo test -p plat-tests --test guest` runs them on it.

use super::*;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::process::Command;

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Writes so many MiB and waits for the disk.
fn write(file: &Path, mib: u32) {
    let count = format!("count={mib}");
    run(Command::new("dd")
        .args(["if=/dev/zero", "bs=1M", &count, "status=none", "conv=fsync"])
        .arg(format!("of={}", file.display())));
}

/// What a test finds on a new file system that this command makes.
fn on<T: Send + 'static>(make: &'static [&str], options: &'static str, test: fn(&Path) -> T) -> T {
    let within = move || {
        let nothing = None::<&str>;
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        mount(nothing, "/", nothing, MsFlags::MS_PRIVATE | MsFlags::MS_REC, nothing).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (image, top) = (folder.path().join("image"), folder.path().join("top"));
        std::fs::create_dir(&top).unwrap();
        std::fs::File::create(&image).unwrap().set_len(512 << 20).unwrap();
        run(Command::new(make[0]).args(&make[1..]).arg(&image));
        run(Command::new("mount").args(["-o", options]).arg(&image).arg(&top));
        let found = test(&top);
        umount2(&top, MntFlags::MNT_DETACH).unwrap();
        found
    };
    std::thread::spawn(within).join().unwrap()
}

const PROJECT: u32 = 20_001;

#[test]
fn a_subvolume_of_btrfs_is_counted_by_its_quota_group() {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "this test needs root, and CI must have it");
        return;
    }
    let (without, part, plain) = on(&["mkfs.btrfs", "-q"], "loop", |top| {
        let (part, plain) = (top.join("part"), top.join("plain"));
        run(Command::new("btrfs").args(["subvolume", "create"]).arg(&part));
        std::fs::create_dir(&plain).unwrap();
        let without = used(&part, PROJECT);
        run(Command::new("btrfs").args(["quota", "enable"]).arg(top));
        write(&part.join("file"), 8);
        run(Command::new("btrfs").args(["quota", "rescan", "-w"]).arg(top));
        (without, used(&part, PROJECT), used(&plain, PROJECT))
    });
    assert_eq!((without, plain), (None, None), "without quota, and of a plain directory, nothing is counted");
    let part = part.unwrap();
    assert!((8 << 20..9 << 20).contains(&part.bytes) && !part.may_be_less, "{part:?}");
}

#[test]
fn a_directory_without_a_project_is_not_counted() {
    let folder = tempfile::tempdir().unwrap();
    for project in [0, PROJECT] {
        assert_eq!(used(folder.path(), project), None);
    }
}

/// As node-format makes and limits one, by the tool that everybody has for it.
fn of_a_project(top: &Path) {
    let (part, plain) = (top.join("part"), top.join("plain"));
    std::fs::create_dir(&part).unwrap();
    std::fs::create_dir(&plain).unwrap();
    assert_eq!(used(&part, PROJECT), None, "it is of no project yet");
    let change = |flag: &str, project: &str| run(Command::new("chattr").args([flag, "-p", project]).arg(&part));
    change("+P", &PROJECT.to_string());
    let counted = || used(&part, PROJECT).unwrap();
    assert!(counted().may_be_less && counted().bytes < 1 << 20, "{:?}", counted());
    write(&part.join("file"), 8);
    write(&plain.join("file"), 8);
    std::fs::rename(plain.join("file"), top.join("beside")).unwrap();
    assert!((8 << 20..9 << 20).contains(&counted().bytes), "{:?}", counted());
    assert_eq!((used(&plain, PROJECT), used(&part, PROJECT + 1), used(&part, 0)), (None, None, None));
    // What is open and has no name holds its room still.
    let open = std::fs::File::open(part.join("file")).unwrap();
    std::fs::remove_file(part.join("file")).unwrap();
    assert!(counted().bytes >= 8 << 20, "{:?}", counted());
    drop(open);
    // What is made in it is not taken in any more.
    change("-P", &PROJECT.to_string());
    assert_eq!(used(&part, PROJECT), None);
}

#[test]
#[ignore = "needs a kernel with project quota"]
fn a_directory_of_ext4_is_counted_by_its_project() {
    on(&["mkfs.ext4", "-q", "-O", "quota,project"], "loop,prjquota", of_a_project);
}

#[test]
#[ignore = "needs a kernel with project quota"]
fn a_directory_of_xfs_is_counted_by_its_project() {
    on(&["mkfs.xfs", "-q"], "loop,prjquota", of_a_project);
}
