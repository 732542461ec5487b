//! What a record may be, and where it may lie.

use super::*;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};

fn epoch() -> Epoch {
    Epoch::new("boot", 1, Some(1))
}

const BRIDGE: &str = "{\"add\":{\"thing\":\"bridge\",\"name\":\"plat0\"}}\n";
const GROUP: &str = "{\"add\":{\"thing\":\"group\",\"name\":\"part0\",\"gid\":61000}}\n";
const FIRST: &str = "{\"record\":{\"version\":1,\"made_for_it\":[]}}\n";
const HERE: &str = "{\"epoch\":\"boot/1/1\"}\n";

#[test]
fn a_record_without_its_first_lines_is_refused_and_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("record");
    let read = |text: &str| {
        fs::write(&path, text).unwrap();
        Record::read(&path, &epoch())
    };
    for text in ["", FIRST.trim_end(), GROUP, &format!("{HERE}{GROUP}"), &format!("{FIRST}{BRIDGE}")] {
        let problem = read(text).unwrap_err();
        assert_eq!(problem.code, codes::RECORD, "{text}");
        assert!(problem.todo.contains("from a copy"), "{problem}");
    }
    assert!(read(&format!("{FIRST}{HERE}{FIRST}")).is_err(), "it has one beginning");
    // What a reboot does not take needs no boot.
    assert_eq!(read(&format!("{FIRST}{GROUP}{HERE}{BRIDGE}")).unwrap().claims().len(), 2);
}

#[test]
fn a_record_that_others_could_have_written_is_refused() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "this test needs root, and CI must run it");
        eprintln!("SKIPPED: this test needs root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (above, path) = (folder.path().join("above"), folder.path().join("above/format/record"));
    Record::open(&path, &epoch()).unwrap();
    let refused = |at: &Path| {
        for outcome in [Record::read(&path, &epoch()), Record::open(&path, &epoch())] {
            let problem = outcome.unwrap_err();
            assert!(problem.why.contains(&at.display().to_string()), "{problem}");
            assert!(problem.why.contains("others could write") && problem.todo.contains("chown root"), "{problem}");
        }
        assert!(Record::exists(&path).is_err() || at == path);
    };
    for at in [&above, &above.join("format"), &path] {
        chown(at, Some(61_000), None).unwrap();
        refused(at);
        chown(at, Some(0), None).unwrap();
        let mode = fs::metadata(at).unwrap().permissions();
        fs::set_permissions(at, fs::Permissions::from_mode(mode.mode() | 0o020)).unwrap();
        refused(at);
        fs::set_permissions(at, mode).unwrap();
    }
    Record::read(&path, &epoch()).unwrap();
    // Where nobody can replace what is another's, as in /tmp.
    fs::set_permissions(&above, fs::Permissions::from_mode(0o1777)).unwrap();
    Record::open(&path, &epoch()).unwrap();
}

#[test]
fn no_link_is_followed_to_a_record_and_no_pipe_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    symlink(outside.path(), folder.path().join("format")).unwrap();
    let path = folder.path().join("format/record");
    for outcome in [Record::read(&path, &epoch()), Record::open(&path, &epoch())] {
        assert!(outcome.unwrap_err().why.contains("no link is followed"));
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    let path = folder.path().join("record");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    symlink(outside.path().join("record"), &path).unwrap();
    assert!(Record::exists(&path).unwrap());
    let problem = Record::open(&path, &epoch()).unwrap_err();
    assert!(problem.why.contains("no link is followed"), "{problem}");
    fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(Record::read(&path, &epoch()).unwrap_err().why.contains("plain file"));
    assert!(Record::open(Path::new("/tmp/../tmp/record"), &epoch()).unwrap_err().why.contains(".."));
}

#[test]
fn only_directories_that_the_record_lies_in_go_with_it() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = folder.path().join("format/record");
    fs::create_dir(folder.path().join("format")).unwrap();
    fs::set_permissions(folder.path().join("format"), fs::Permissions::from_mode(0o700)).unwrap();
    let made = serde_json::to_string(&[folder.path().join("format"), other.path().to_path_buf()]).unwrap();
    fs::write(&path, format!("{}{HERE}", FIRST.replace("[]", &made))).unwrap();
    assert_eq!(Record::open(&path, &epoch()).unwrap().finish().unwrap(), None);
    assert!(other.path().exists() && !folder.path().join("format").exists());
}

#[test]
fn of_a_directory_that_was_made_for_the_record_and_holds_something_else_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plat/format/record");
    let record = Record::open(&path, &epoch()).unwrap();
    fs::create_dir(folder.path().join("plat/agent")).unwrap();
    assert_eq!(record.finish().unwrap(), Some(folder.path().join("plat")));
    assert!(!folder.path().join("plat/format").exists());
}

#[test]
fn a_run_that_is_just_ending_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("format/record");
    let ending = std::cell::RefCell::new(Some(Record::open(&path, &epoch()).unwrap()));
    let ends = || drop(ending.borrow_mut().take());
    Record::open_waiting(&path, &epoch(), ends).unwrap();
    assert!(ending.borrow().is_none(), "the first was at work");
}

#[test]
fn a_run_that_removes_the_record_and_its_directory_while_it_is_waited_for_leaves_a_new_one_to_make() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plat/format/record");
    let ending = std::cell::RefCell::new(Some(Record::open(&path, &epoch()).unwrap()));
    let ends = || drop(ending.borrow_mut().take().unwrap().finish().unwrap());
    let mut next = Record::open_waiting(&path, &epoch(), ends).unwrap();
    next.add([Thing::Group { name: "part0".into(), gid: 61_000 }]).unwrap();
    assert_eq!(Record::read(&path, &epoch()).unwrap().claims().len(), 1);
    next.strike([Thing::Group { name: "part0".into(), gid: 61_000 }]).unwrap();
    next.finish().unwrap();
    assert!(!folder.path().join("plat").exists(), "it knows which directories it made");
}

#[test]
fn files_beside_the_record_with_its_name_are_somebodys() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let others = ["plat.new", "plat.children", "plat.record.new", "plat.record.children"];
    others.iter().for_each(|name| fs::write(folder.path().join(name), "kept").unwrap());
    let mut record = Record::open(&folder.path().join("plat.record"), &epoch()).unwrap();
    record.add([Thing::Group { name: "part0".into(), gid: 61_000 }]).unwrap();
    record.finish().unwrap();
    let mut record = Record::open(&folder.path().join("plat.record"), &epoch()).unwrap();
    record.strike([Thing::Group { name: "part0".into(), gid: 61_000 }]).unwrap();
    record.finish().unwrap();
    others.iter().for_each(|name| assert_eq!(fs::read_to_string(folder.path().join(name)).unwrap(), "kept"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), others.len());
}

#[test]
fn what_could_not_be_written_whole_is_taken_back() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "this test needs root, and CI must run it");
        eprintln!("SKIPPED: this test needs root");
        return;
    }
    let on_a_small_disk = || {
        use nix::mount::{MsFlags, mount};
        const NONE: Option<&str> = None;
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).unwrap();
        let folder = tempfile::tempdir().unwrap();
        mount(Some("tmpfs"), folder.path(), Some("tmpfs"), MsFlags::empty(), Some("size=64k,mode=0700")).unwrap();
        let path = folder.path().join("record");
        let group = |gid| Thing::Group { name: format!("part{gid}"), gid };
        let mut record = Record::open(&path, &epoch()).unwrap();
        record.add([group(0)]).unwrap();
        let problem = record.add((1..10_000).map(group)).unwrap_err();
        assert_eq!(problem.code, codes::RECORD, "{problem}");
        assert_eq!(record.claims().len(), 1, "nothing of it is made");
        record.add([group(10_000)]).unwrap();
        let read = Record::read(&path, &epoch()).unwrap();
        assert_eq!(read.claims(), record.claims());
        assert_eq!(read.claims().len(), 2);
        drop((record, read));
        nix::mount::umount(folder.path()).unwrap();
    };
    std::thread::spawn(on_a_small_disk).join().unwrap();
}

#[test]
fn behind_what_is_there_in_part_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("record"), "half").unwrap();
    // One that can be neither written to nor made shorter.
    let mut file = File::open(folder.path().join("record")).unwrap();
    let mut torn = false;
    assert!(write_whole(&mut file, "line\n", &mut torn).is_err() && torn);
    let mut file = fs::OpenOptions::new().append(true).open(folder.path().join("record")).unwrap();
    assert!(write_whole(&mut file, "line\n", &mut torn).is_err());
    assert_eq!(fs::read_to_string(folder.path().join("record")).unwrap(), "half");
}

#[test]
fn a_run_that_was_killed_before_its_record_or_after_it_leaves_no_directory_that_it_told_of() {
    for ended in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("above/format/record");
        drop(Record::open(&path, &epoch()).unwrap());
        // As a run has it that was killed before it gave the record its name, or after it took that away.
        let aside = path.with_file_name(".node-format-record.new");
        fs::rename(&path, &aside).unwrap();
        if ended {
            fs::remove_file(path.with_file_name(".node-format-record.children")).unwrap();
        }
        Record::clear_left(&path, &epoch()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        // The next run that goes on knows as much.
        drop(Record::open(&path, &epoch()).unwrap());
        fs::rename(&path, &aside).unwrap();
        let record = Record::open(&path, &epoch()).unwrap();
        Record::clear_left(&path, &epoch()).unwrap();
        assert!(path.exists(), "where there is a record nothing is left of another");
        record.finish().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[test]
fn what_is_known_of_a_setting_replaces_what_was_known_before_and_older_records_know_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("record");
    let setting = |more: &str| {
        format!("{{\"add\":{{\"thing\":\"sysctl\",\"key\":\"net.ipv6.conf.plat0.accept_ra\",\"was\":\"1\"{more}}}}}\n")
    };
    let last = |lines: &str| {
        fs::write(&path, format!("{FIRST}{HERE}{lines}")).unwrap();
        let record = Record::read(&path, &epoch()).unwrap();
        let known: Vec<_> = record.claims().iter().cloned().collect();
        let [Thing::Sysctl { last, .. }] = known.as_slice() else { panic!("{known:?}") };
        last.0.clone()
    };
    let (about_to, done) = (setting(",\"last\":\"0\""), setting(",\"last\":\"2\""));
    assert_eq!(last(&setting("")), None);
    assert_eq!(last(&about_to), Some("0".into()));
    assert_eq!(last(&format!("{about_to}{done}")), Some("2".into()));
    // What is struck out is the thing, whatever is known of it.
    let gone = setting("").replace("add", "gone");
    fs::write(&path, format!("{FIRST}{HERE}{done}{gone}")).unwrap();
    assert!(Record::read(&path, &epoch()).unwrap().claims().is_empty());
}

#[test]
fn a_record_that_cannot_be_made_short_is_whole_and_the_run_has_not_failed() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let path = folder.path().join("record");
    let group = |gid| Thing::Group { name: format!("part{gid}"), gid };
    let mut record = Record::open(&path, &epoch()).unwrap();
    record.add([group(61_000), group(61_001)]).unwrap();
    record.strike([group(61_000)]).unwrap();
    let in_the_way = folder.path().join(".node-format-record.new");
    fs::create_dir_all(in_the_way.join("in")).unwrap();
    assert_eq!(record.finish().unwrap(), None);
    assert!(Record::read(&path, &epoch()).unwrap().claims().iter().eq([&group(61_001)]));
    let long = fs::read_to_string(&path).unwrap().lines().count();
    fs::remove_dir_all(in_the_way).unwrap();
    Record::open(&path, &epoch()).unwrap().finish().unwrap();
    assert!(fs::read_to_string(&path).unwrap().lines().count() < long);
}

#[test]
fn what_was_made_for_a_record_goes_with_it_where_its_disk_is_mounted_elsewhere_by_then() {
    let folder = tempfile::tempdir().unwrap();
    let now = folder.path().join("disk");
    fs::create_dir_all(now.join("var")).unwrap();
    let path = now.join("var/lib/plat/format/record");
    drop(Record::open(&path, &epoch()).unwrap());
    // As whoever made it saw them, to whom the root was a disk of his.
    let text = fs::read_to_string(&path).unwrap();
    let shown = now.display().to_string();
    fs::write(&path, text.replace(&shown, &format!("/mnt/image{shown}"))).unwrap();
    assert_eq!(Record::open(&path, &epoch()).unwrap().finish().unwrap(), None);
    assert!(now.join("var").exists() && !now.join("var/lib").exists());
    // As somebody to whom the disk has another name altogether.
    drop(Record::open(&path, &epoch()).unwrap());
    let text = fs::read_to_string(&path).unwrap().replace(&shown, "/mnt/image");
    fs::write(&path, &text).unwrap();
    assert_eq!(Record::open(&path, &epoch()).unwrap().finish().unwrap(), None);
    assert!(now.join("var").exists() && !now.join("var/lib").exists());
    // An older record does not say by what they are known: they are named.
    drop(Record::open(&path, &epoch()).unwrap());
    let (before, after) = text.split_once("\"known_by\":[").unwrap();
    fs::write(&path, format!("{before}{}", after.split_once("]],").unwrap().1)).unwrap();
    let left = Record::open(&path, &epoch()).unwrap().finish().unwrap();
    assert_eq!(left.as_deref(), path.parent());
    fs::remove_dir_all(now.join("var/lib")).unwrap();
    // With one that was moved its directory goes, and nothing of the place that it came to.
    drop(Record::open(&path, &epoch()).unwrap());
    let copy = folder.path().join("copy/var/lib/plat");
    fs::create_dir_all(&copy).unwrap();
    fs::rename(path.parent().unwrap(), copy.join("format")).unwrap();
    assert_eq!(Record::open(&copy.join("format/record"), &epoch()).unwrap().finish().unwrap(), None);
    assert!(copy.exists() && !copy.join("format").exists() && !now.join("var/lib").exists());
    // Also by another name, where another one has the old name by now.
    drop(Record::open(&path, &epoch()).unwrap());
    fs::rename(path.parent().unwrap(), folder.path().join("state")).unwrap();
    fs::remove_dir(now.join("var/lib/plat")).unwrap();
    fs::create_dir(now.join("var/lib/plat")).unwrap();
    let left = Record::open(&folder.path().join("state/record"), &epoch()).unwrap().finish().unwrap();
    assert_eq!(left, Some(now.join("var/lib")), "somebody's own is in it");
    assert!(now.join("var/lib/plat").exists() && !folder.path().join("state").exists());
    fs::remove_dir_all(now.join("var/lib")).unwrap();
    // Where the record itself was moved, nothing of that place was made for it, whatever it is called; what was, is named.
    for place in ["other/place", "plat/format"] {
        drop(Record::open(&now.join("var/lib/plat/format/record"), &epoch()).unwrap());
        let there = folder.path().join(place);
        fs::create_dir_all(&there).unwrap();
        fs::set_permissions(&there, fs::Permissions::from_mode(0o700)).unwrap();
        fs::rename(now.join("var/lib/plat/format/record"), there.join("record")).unwrap();
        let left = Record::open(&there.join("record"), &epoch()).unwrap().finish().unwrap();
        assert!(there.exists() && left == Some(now.join("var/lib/plat/format")), "{left:?}");
        fs::remove_dir_all(now.join("var/lib")).unwrap();
    }
}

#[test]
fn a_record_that_lost_what_it_had_when_it_was_written_as_a_whole_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("format/record");
    let mut record = Record::open(&path, &epoch()).unwrap();
    let user = |n: u32| Thing::User { name: format!("part{n}"), uid: 61_000 + n };
    record.add((0..3).map(user)).unwrap();
    record.finish().unwrap();
    let mut record = Record::open(&path, &epoch()).unwrap();
    record.add([user(3)]).unwrap();
    drop(record);
    let text = fs::read_to_string(&path).unwrap();
    let read = |end: usize| {
        fs::write(&path, &text[..end]).unwrap();
        Record::read(&path, &epoch()).map(|record| record.claims().len())
    };
    let ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at + 1).collect();
    // The last may not have come to the disk whole.
    assert_eq!((read(ends[5]).unwrap(), read(ends[5] - 1).unwrap(), read(ends[4]).unwrap()), (4, 3, 3));
    for end in [ends[4] - 1, ends[3], ends[2], ends[1]] {
        let problem = read(end).unwrap_err();
        assert!(problem.code == codes::RECORD && problem.why.contains("cut off"), "{problem}");
    }
}
