//! On a folder that stands for a root file system.

use super::*;
use rustix::fs::XattrFlags;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

struct Root(tempfile::TempDir);

impl Root {
    fn new() -> Self {
        let root = Self(tempfile::tempdir().unwrap());
        fs::create_dir(root.0.path().join("etc")).unwrap();
        root
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("etc").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn etc(&self) -> Etc {
        Etc::open(self.0.path(), &Tree::open(self.0.path()).unwrap()).unwrap()
    }
}

#[test]
fn only_whole_names_are_taken_out() {
    let (users, groups) = (BTreeSet::from([("part1", 1)]), BTreeSet::from([("part1", 1)]));
    let gone = Gone {
        users: BTreeSet::from(["part1"]),
        groups: BTreeSet::from(["part1"]),
        numbered_users: &users,
        numbered_groups: &groups,
    };
    let passwd = "root:x:0:0::/root:/bin/sh\npart1:x:1:1::/:/x\npart10:x:2:2:part1:/:/x\n";
    assert_eq!(gone.taken_out(passwd, "passwd"), passwd.replace("part1:x:1:1::/:/x\n", ""));
    let group = "kvm:x:5:part1,part10,ann\npart1:x:1:\nw:x:7:part1\n";
    assert_eq!(gone.taken_out(group, "group"), "kvm:x:5:part10,ann\nw:x:7:\n");
    assert_eq!(gone.taken_out("kvm:!:part1:part1,a\n", "gshadow"), "kvm:!::a\n");
}

#[test]
fn an_account_of_the_name_with_another_number_stays_with_its_password() {
    let root = Root::new();
    let passwd = "part0:x:7001:7001::/home:/bin/sh\npart1:x:1:1::/:/x\n";
    root.write("passwd", passwd);
    root.write("shadow", "part0:$6$hash:1::::::\npart1:!:1::::::\n");
    root.write("group", "part0:x:7001:\nkvm:x:5:part0,part1\npart1:x:1:\n");
    root.write("gshadow", "part0:!::\nkvm:!::part0,part1\npart1:!::\n");
    let both = BTreeSet::from([("part0", 61_000), ("part1", 1)]);
    root.etc().remove(&both, &both).unwrap();
    assert_eq!(root.text("passwd"), "part0:x:7001:7001::/home:/bin/sh\n");
    assert_eq!(root.text("shadow"), "part0:$6$hash:1::::::\n");
    assert_eq!(root.text("group"), "part0:x:7001:\nkvm:x:5:part0\n");
    assert_eq!(root.text("gshadow"), "part0:!::\nkvm:!::part0\n");
}

#[test]
fn nothing_but_plain_files_of_the_root_is_opened() {
    for name in ["passwd", "shadow", "group", "gshadow", "subuid", LOCK, "shadow-", "login.defs"] {
        let root = Root::new();
        root.write("passwd", "part1:x:1:1::/:/x\n");
        let outside = tempfile::NamedTempFile::new().unwrap();
        let _ = fs::remove_file(root.path(name));
        symlink(outside.path(), root.path(name)).unwrap();
        let problem = root.etc().check().unwrap_err();
        assert!(problem.what.contains(name) && problem.why.contains("link"), "{problem}");
        fs::remove_file(root.path(name)).unwrap();
        nix::unistd::mkfifo(&root.path(name), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(root.etc().check().unwrap_err().why.contains("plain file"));
    }
    let root = Root::new();
    let outside = tempfile::tempdir().unwrap();
    symlink(outside.path().join("made"), root.path(LOCK)).unwrap();
    assert!(root.etc().remove(&BTreeSet::new(), &BTreeSet::new()).is_err());
    assert!(!outside.path().join("made").exists(), "no file is made through a link");
}

#[test]
fn a_file_that_is_rewritten_keeps_its_mode_and_attributes() {
    let root = Root::new();
    root.write("passwd", "part1:x:1:1::/:/x\n");
    fs::set_permissions(root.path("passwd"), fs::Permissions::from_mode(0o640)).unwrap();
    let file = File::open(root.path("passwd")).unwrap();
    // One for root and one for everybody, whichever the file system knows.
    let set = |name: &str| rustix::fs::fsetxattr(&file, name, b"kept", XattrFlags::empty()).is_ok();
    let names: Vec<&str> = ["user.plat", "security.plat"].into_iter().filter(|name| set(name)).collect();
    assert!(!names.is_empty() || !rustix::process::geteuid().is_root(), "no attribute could be tried");
    root.etc().remove(&BTreeSet::from([("part1", 1)]), &BTreeSet::new()).unwrap();
    assert_eq!(root.text("passwd"), "");
    let file = File::open(root.path("passwd")).unwrap();
    assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o640);
    for name in names {
        let mut value = [0; 8];
        let length = rustix::fs::fgetxattr(&file, name, &mut value[..]).unwrap();
        assert_eq!(&value[..length], b"kept", "{name}");
    }
}
