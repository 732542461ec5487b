//! On folders of their own.

use super::*;

#[test]
fn what_came_to_be_mounted_on_a_directory_is_not_changed() {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "this test needs root, and CI must run it");
        eprintln!("SKIPPED: this test needs root");
        return;
    }
    let test = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        const NONE: Option<&str> = None;
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).unwrap();
        let (root, foreign) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (at, owner) = (root.path().join("part0"), Owner { uid: 61_000, gid: 61_000 });
        std::fs::create_dir(&at).unwrap();
        mount(Some(foreign.path()), &at, NONE, MsFlags::MS_BIND, NONE).unwrap();
        let mut tree = Tree::open(root.path()).unwrap();
        let path = PathBuf::from("/part0");
        let set = Action::SetDirectory { path: path.clone(), from: (Owner::default(), 0o755), to: (owner, 0o750) };
        assert!(tree.perform(&set).unwrap_err().todo.contains("mounted"));
        let limit = Action::SetDiskLimit { path, id: 61_000, file_system: None, from: None, to: Some(1) };
        let why = crate::host::linux::disk::perform(&mut tree, &limit).unwrap_err().why;
        assert!(why.contains("mounted there"), "{why}");
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&foreign.path().metadata().unwrap()), 0);
        umount2(&at, MntFlags::empty()).unwrap();
        tree.perform(&set).unwrap();
    });
    test.join().unwrap();
}

#[test]
fn a_directory_that_cannot_be_made_whole_is_not_there_nor_what_a_killed_run_left_of_it() {
    let root = tempfile::tempdir().unwrap();
    let owner = Owner { uid: rustix::process::getuid().as_raw(), gid: rustix::process::getgid().as_raw() };
    let make = |inside: [&str; 2]| {
        let (path, inner) = (PathBuf::from("/part0"), Inner { owner, mode: 0o700 });
        let inside = inside.into_iter().map(|name| (name.to_owned(), inner)).collect();
        let (mode, partition, limited, half_made) = (0o700, true, false, false);
        Action::MakeDirectory(Directory { path, owner, mode, inside, partition, limited, half_made })
    };
    let names = || std::fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name());
    std::fs::create_dir_all(root.path().join(".node-format-part0/first")).unwrap();
    let mut tree = Tree::open(root.path()).unwrap();
    assert!(tree.perform(&make(["first", "missing/second"])).is_err());
    assert_eq!(names().count(), 0);
    tree.perform(&make(["first", "second"])).unwrap();
    assert!(names().eq(["part0"]) && root.path().join("part0/second").is_dir());
    // Somebody else's is nothing of ours, nor replaced by it.
    assert!(tree.perform(&make(["first", "second"])).is_err());
    assert!(names().eq(["part0"]));
    std::fs::create_dir_all(root.path().join(".node-format-part1/first")).unwrap();
    tree.clear(&[Thing::PartitionDirectory { path: "/part1".into() }]).unwrap();
    assert!(names().eq(["part0"]));
}
