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

fn accounts<'a>(users: &[(&'a str, u32)], groups: &[(&'a str, u32)]) -> Accounts<'a> {
    Accounts { users: users.iter().copied().collect(), groups: groups.iter().copied().collect() }
}

#[test]
fn only_whole_names_are_taken_out_and_what_was_comes_back_as_it_was() {
    let root = Root::new();
    let passwd = "root:x:0:0::/root:/bin/sh\n# ours\npart1:x:1:1:Ann:/:/bin/zsh\npart10:x:2:2:part1:/:/x\n\n+::::::\n";
    root.write("passwd", passwd);
    root.write("shadow", "root:*:1::::::\npart1:$6$hash:7::::::\nshort\n");
    root.write("group", "kvm:x:5:part1,part10,ann\npart1:x:1:www\nw:x:7:part1");
    root.write("gshadow", "kvm:!:part1:part1,a\npart1:!::www\n");
    let part1 = accounts(&[("part1", 1)], &[("part1", 1)]);
    let taken = root.etc().remove(&part1).unwrap();
    assert_eq!(root.text("passwd"), passwd.replace("part1:x:1:1:Ann:/:/bin/zsh\n", ""));
    assert_eq!(root.text("shadow"), "root:*:1::::::\nshort\n");
    assert_eq!(root.text("group"), "kvm:x:5:part10,ann\nw:x:7:");
    assert_eq!(root.text("gshadow"), "kvm:!::a\n");
    assert_eq!(taken.accounts().users, part1.users);
    assert_eq!(taken.accounts().groups, part1.groups);
    root.etc().put(&taken, &part1).unwrap();
    let before_nis = passwd.replace("part1:x:1:1:Ann:/:/bin/zsh\n", "").replace("+", "part1:x:1:1:Ann:/:/bin/zsh\n+");
    assert_eq!(root.text("passwd"), before_nis);
    assert_eq!(root.text("shadow"), "root:*:1::::::\nshort\npart1:$6$hash:7::::::\n");
    assert_eq!(root.text("group"), "kvm:x:5:part10,ann,part1\nw:x:7:part1\npart1:x:1:www\n");
    assert_eq!(root.text("gshadow"), "kvm:!:part1:a,part1\npart1:!::www\n");
    root.etc().put(&taken, &part1).unwrap();
    assert_eq!(root.text("passwd"), before_nis, "whose name is there already is left alone");
}

#[test]
fn of_a_user_only_what_is_said_is_changed() {
    let root = Root::new();
    root.write("passwd", "part1:x:1:9:Ann:/old:/bin/zsh\npart10:x:2:2::/old:/x\n");
    root.write("shadow", "part1:$6$hash:7::::::\n");
    root.write("group", "www:x:5:ann,,part1,part10\nkvm:x:6:\n");
    root.write("gshadow", "www:!:part1:part1\nkvm:!::\n");
    let set = |from: &User, to: &User| root.etc().set(&[(from, to)], &mut Moved::new()).unwrap();
    set(&user(9, "/old", "www"), &user(1, "/new", "kvm"));
    assert_eq!(root.text("passwd"), "part1:x:1:1:Ann:/new:/bin/zsh\npart10:x:2:2::/old:/x\n");
    assert_eq!(root.text("shadow"), "part1:$6$hash:7::::::\n");
    assert_eq!(root.text("group"), "www:x:5:ann,part10\nkvm:x:6:part1\n");
    assert_eq!(root.text("gshadow"), "www:!:part1:\nkvm:!::part1\n");
}

fn user(gid: u32, home: &str, group: &str) -> User {
    User { name: "part1".into(), uid: 1, gid, home: home.into(), groups: [group.to_owned()].into() }
}

#[test]
fn what_is_taken_back_of_a_users_groups_is_taken_back_where_it_was_done() {
    let root = Root::new();
    root.write("passwd", "part1:x:1:9:Ann:/old:/bin/zsh\n");
    // Each file says something else of both groups.
    for (group, gshadow) in [
        ("www:x:5:ann,part1\nkvm:x:6:\n", "www:!::ann\nkvm:!::part1\n"),
        ("www:x:5:part1\nkvm:x:6:\n", "www:!::part1\nkvm:!::\n"),
        ("www:x:5:part1\nkvm:x:6:\n", ""),
    ] {
        root.write("group", group);
        root.write("gshadow", gshadow);
        let (from, to, mut moved) = (user(9, "/old", "www"), user(1, "/new", "kvm"), Moved::new());
        root.etc().set(&[(&from, &to)], &mut moved).unwrap();
        assert!(!root.text("group").contains("www:x:5:part1") && root.text("group").contains("kvm:x:6:part1"));
        root.etc().set(&[(&to, &from)], &mut moved).unwrap();
        assert_eq!((root.text("group").as_str(), root.text("gshadow").as_str()), (group, gshadow));
    }
    // Whom somebody else had taken out by then is not put back.
    root.write("group", "www:x:5:\nkvm:x:6:\n");
    let (from, to, mut moved) = (user(9, "/old", "www"), user(9, "/old", "kvm"), Moved::new());
    root.etc().set(&[(&from, &to)], &mut moved).unwrap();
    root.etc().set(&[(&to, &from)], &mut moved).unwrap();
    assert_eq!(root.text("group"), "www:x:5:\nkvm:x:6:\n");
}

#[test]
fn files_that_cannot_all_be_written_stay_as_they_were() {
    let root = Root::new();
    root.write("shadow", "part1:$6$hash:7::::::\n");
    root.write("passwd", "part1:x:1:1::/:/x\n");
    // What is to take the place of passwd, the last, cannot be made.
    fs::create_dir(root.path(".node-format-passwd")).unwrap();
    assert!(root.etc().remove(&accounts(&[("part1", 1)], &[])).is_err());
    assert_eq!(root.text("shadow"), "part1:$6$hash:7::::::\n");
}

#[test]
fn lines_that_other_programs_would_lose_are_found() {
    let plain = Root::new();
    plain.write("passwd", "root:x:0:0::/root:/bin/sh\n");
    plain.write("shadow", "root:*:1::::::\n");
    assert!(plain.etc().is_plain().unwrap());
    for (name, odd) in [
        ("passwd", "# people\n"),
        ("passwd", "\n"),
        ("passwd", "-badguy\n"),
        ("passwd", "+::::::\n"),
        ("passwd", "ann:x:one:1::/:/x\n"),
        ("shadow", "ann:*\n"),
        ("shadow", "carol:x:never:0:::::\n"),
        ("shadow", "dave:x:1:0:-1:7:::\n"),
        ("shadow", "eve:x:1 :0:::::\n"),
        ("group", "w\n"),
        ("gshadow", "w:!::\n\n"),
    ] {
        let root = Root::new();
        root.write(name, odd);
        assert!(!root.etc().is_plain().unwrap(), "{name} with {odd:?}");
    }
}

#[test]
fn an_account_of_the_name_with_another_number_stays_with_its_password() {
    let root = Root::new();
    let passwd = "part0:x:7001:7001::/home:/bin/sh\npart1:x:1:1::/:/x\n";
    root.write("passwd", passwd);
    root.write("shadow", "part0:$6$hash:1::::::\npart1:!:1::::::\n");
    root.write("group", "part0:x:7001:\nkvm:x:5:part0,part1\npart1:x:1:\n");
    root.write("gshadow", "part0:!::\nkvm:!::part0,part1\npart1:!::\n");
    let both = [("part0", 61_000), ("part1", 1)];
    root.etc().remove(&accounts(&both, &both)).unwrap();
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
    assert!(root.etc().remove(&Accounts::default()).is_err());
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
    root.etc().remove(&accounts(&[("part1", 1)], &[])).unwrap();
    assert_eq!(root.text("passwd"), "");
    let file = File::open(root.path("passwd")).unwrap();
    assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o640);
    for name in names {
        let mut value = [0; 8];
        let length = rustix::fs::fgetxattr(&file, name, &mut value[..]).unwrap();
        assert_eq!(&value[..length], b"kept", "{name}");
    }
}

#[test]
fn a_file_that_is_rewritten_is_read_by_nobody_who_could_not_read_it() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "this test needs root, and CI must run it");
        eprintln!("SKIPPED: this test needs root");
        return;
    }
    let root = Root::new();
    root.write("passwd", "part1:x:1:1::/:/x\n");
    root.write("shadow", "root:$6$hash:1::::::\npart1:!*:::::::\n");
    fs::set_permissions(root.path("shadow"), fs::Permissions::from_mode(0o640)).unwrap();
    // Whatever is made in it from now on, uid 53900 may read.
    let entries = [(1u16, 7u16, u32::MAX), (2, 4, 53_900), (4, 5, u32::MAX), (16, 5, u32::MAX), (32, 5, u32::MAX)];
    let mut list = 2u32.to_le_bytes().to_vec();
    for (tag, rights, id) in entries {
        list.extend(tag.to_le_bytes().into_iter().chain(rights.to_le_bytes()).chain(u32::to_le_bytes(id)));
    }
    rustix::fs::setxattr(root.path(""), "system.posix_acl_default", &list, XattrFlags::empty()).unwrap();
    assert!(!root.etc().is_plain().unwrap(), "other programs would have it on the new files");
    root.etc().remove(&accounts(&[("part1", 1)], &[])).unwrap();
    assert_eq!(root.text("shadow"), "root:$6$hash:1::::::\n");
    for (name, mode) in [("shadow", 0o640), ("passwd", 0o644)] {
        let path = root.path(name);
        assert!(rustix::fs::getxattr(&path, "system.posix_acl_access", &mut [0; 64][..]).is_err(), "{name}");
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, mode, "{name}");
    }
}

#[test]
fn what_somebody_noted_on_a_file_keeps_other_programs_from_writing_it() {
    let root = Root::new();
    root.write("passwd", "root:x:0:0::/root:/bin/sh\n");
    let plain = || root.etc().is_plain().unwrap();
    let file = File::open(root.path("passwd")).unwrap();
    // Root's, and whoever can set flags.
    let noted = rustix::fs::fsetxattr(&file, "security.plat", b"kept", XattrFlags::empty()).is_ok();
    assert!(noted != plain(), "{noted}");
    let _ = rustix::fs::fremovexattr(&file, "security.plat");
    assert!(plain());
    let Ok(flags) = rustix::fs::ioctl_getflags(&file) else { return };
    rustix::fs::ioctl_setflags(&file, flags | rustix::fs::IFlags::NODUMP).unwrap();
    assert!(!plain());
    root.write("shadow", "part1:!*:::::::\n");
    root.write("passwd", "part1:x:1:1::/:/x\n");
    root.etc().remove(&accounts(&[("part1", 1)], &[])).unwrap();
    let file = File::open(root.path("passwd")).unwrap();
    assert!(rustix::fs::ioctl_getflags(&file).unwrap().contains(rustix::fs::IFlags::NODUMP));
}

#[test]
fn what_a_killed_run_left_is_cleared_away_and_nothing_of_somebody_elses() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "this test needs root, and CI must run it");
        eprintln!("SKIPPED: this test needs root");
        return;
    }
    let root = Root::new();
    root.write("passwd", "ann:x:2:2::/:/x\n");
    root.write("shadow", "ann:!*:::::::\npart1:!*:::::::\nbob:$6$hash:7::::::\n");
    root.write("group", "kvm:x:5:ann,part1,bob\n");
    root.write("gshadow", "kvm:!::part1\npart1:!*::\n");
    root.write(".node-format-shadow", "secrets");
    symlink(root.path("passwd"), root.path(".node-format-passwd")).unwrap();
    fs::create_dir(root.path(".node-format-group")).unwrap();
    root.write(".node-format-gshadow", "of another user");
    std::os::unix::fs::chown(root.path(".node-format-gshadow"), Some(61_000), None).unwrap();
    root.etc().clear(&Accounts::default()).unwrap();
    assert!(!root.path(".node-format-shadow").exists());
    assert!(fs::symlink_metadata(root.path(".node-format-passwd")).unwrap().is_symlink());
    assert!(root.path(".node-format-group").is_dir() && root.path(".node-format-gshadow").is_file());
    fs::remove_dir(root.path(".node-format-group")).unwrap();
    let forgotten = accounts(&[("ann", 1), ("part1", 1), ("bob", 3)], &[("part1", 1)]);
    root.etc().clear(&forgotten).unwrap();
    assert_eq!(root.text("passwd"), "ann:x:2:2::/:/x\n");
    assert_eq!(root.text("shadow"), "ann:!*:::::::\nbob:$6$hash:7::::::\n");
    assert_eq!(root.text("group"), "kvm:x:5:ann,bob\n");
    assert_eq!(root.text("gshadow"), "kvm:!::\n");
}

#[test]
fn without_a_shadow_a_user_who_is_only_a_member_is_half_made() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "this test needs root, and CI must run it");
        eprintln!("SKIPPED: this test needs root");
        return;
    }
    let root = Root::new();
    for name in ["shadow", "gshadow"] {
        let _ = fs::remove_file(root.path(name));
    }
    root.write("passwd", "ann:x:2:2::/:/x\n");
    root.write("group", "kvm:x:5:ann,part1,bob\n");
    root.etc().clear(&accounts(&[("ann", 1), ("part1", 1)], &[])).unwrap();
    assert_eq!(root.text("group"), "kvm:x:5:ann,bob\n");
    assert!(!root.path("shadow").exists());
}

#[test]
fn what_a_program_that_was_killed_gave_a_group_is_taken_away() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "this test needs root, and CI must run it");
        eprintln!("SKIPPED: this test needs root");
        return;
    }
    let root = Root::new();
    root.write("passwd", "ann:x:2:2::/:/x\n");
    root.write("shadow", "ann:!*:::::::\n");
    root.write("group", "kvm:x:5:ann,part1\n");
    root.write("gshadow", "kvm:!::part1\n");
    root.etc().clear(&accounts(&[("part1", 1)], &[])).unwrap();
    assert_eq!(root.text("group"), "kvm:x:5:ann\n");
    assert_eq!(root.text("gshadow"), "kvm:!::\n");
}

#[test]
fn new_accounts_take_nobodys_name_or_number_and_no_group_gets_somebody_else() {
    let root = Root::new();
    let passwd = "part0:x:7001:7001::/home:/bin/sh\nann:x:1:33::/:/x\n";
    root.write("passwd", passwd);
    root.write("shadow", "");
    root.write("group", "kvm:x:5:\nwww:x:2:\n");
    let user = |n: u32| {
        let (name, groups) = (format!("part{n}"), ["kvm".to_owned()].into());
        Action::AddUser(User { name, uid: n, gid: n, home: "/home".into(), groups })
    };
    let group = |gid| Action::AddGroup { name: format!("part{gid}"), gid, members: [].into() };
    let actions = [group(2), group(3), user(0), user(1), user(3)];
    let all: Vec<&Action> = actions.iter().collect();
    root.etc().put_new(&Entries::new(&all), &Accounts::of(actions.iter())).unwrap();
    assert_eq!(root.text("passwd"), format!("{passwd}part3:x:3:3:Plat:/home:/usr/sbin/nologin\n"));
    assert_eq!(root.text("shadow"), "part3:!*:::::::\n");
    assert_eq!(root.text("group"), "kvm:x:5:part3\nwww:x:2:\npart3:x:3:\n");
}
