//! A partition is given back as it was formatted.

use super::*;

async fn erased_whole(node: Node) {
    let host = node.occupied().await;
    start(&host, &spec("db", "trap '' TERM; while :; do sleep 1; done")).await.unwrap();
    let pid = running(&fact(&host, "db").await);
    let script = "mkdir -p a/b/c etc; touch 'odd\nname' -- '-rf' \"$(printf '\\377')\" a/b/c/f; ln -s / etc/root; chmod 0 a/b/c a/b a .; \
        mkdir deep; cd deep; i=0; while [ $i -lt 10000 ]; do mkdir x; cd ./x; i=$((i+1)); done";
    let script = format!(
        "perl -e 'mkdir \"deep\"; chdir \"deep\"; for (1..10000) {{ mkdir \"x\"; chdir \"x\" }}'; {}",
        script.split("mkdir deep").next().unwrap()
    );
    let run = Run {
        name: "init".into(),
        command: vec!["/bin/sh".into(), "-c".into(), script],
        environment: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
        directory: String::new(),
        timeout_seconds: 60,
    };
    host.perform(&Action::RunHook { partition: part(), run }).await.unwrap();
    host.perform(&Action::Erase { partition: part() }).await.unwrap();
    assert!(!alive(pid));
    let mut left: Vec<String> =
        fs::read_dir(node.home()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, ["etc", "log", "run", "srv", "tmp", "var"]);
    assert_eq!(fs::metadata(node.home().join("etc")).unwrap().mode() & 0o7777, 0o750);
    let occupant = host.observe_partition(&part()).await.unwrap().occupant.unwrap();
    assert!(occupant.erased && occupant.secrets.is_empty());
    assert!(known(&counters(&host).await, Meter::CpuMicros) > 0);
    host.perform(&Action::Free { partition: part() }).await.unwrap();
    assert!(host.observe_partition(&part()).await.unwrap().occupant.is_none());
    assert!(read(&host).await.is_none());
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn erasing_leaves_nothing_however_deep_or_odd() {
    erased_whole(Node::new(is_root().then(|| account(UID + 2)))).await;
}

/// A POSIX access control list that gives `uid` everything, as the kernel keeps it.
fn access_list(uid: u32) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, rights, id) in
        [(1u16, 7u16, u32::MAX), (2, 7, uid), (4, 7, u32::MAX), (16, 7, u32::MAX), (32, 0, u32::MAX)]
    {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(rights.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// Opens the home to another user in every way that its owner can.
pub fn give_to(home: &Path, uid: u32) {
    fs::set_permissions(home, fs::Permissions::from_mode(0o777)).unwrap();
    for name in ["system.posix_acl_access", "system.posix_acl_default"] {
        rustix::fs::setxattr(home, name, &access_list(uid), rustix::fs::XattrFlags::empty()).unwrap();
    }
    rustix::fs::setxattr(home, "user.note", b"x", rustix::fs::XattrFlags::empty()).unwrap();
}

pub fn noted(path: &Path) -> Vec<String> {
    let mut list = vec![0; 4096];
    let length = rustix::fs::listxattr(path, &mut list[..]).unwrap();
    let names = list[..length].split(|b| *b == 0).map(|name| String::from_utf8_lossy(name).into_owned());
    names.filter(|name| name.starts_with("user.") || name.starts_with("system.")).collect()
}

pub fn is_as_formatted(home: &Path, uid: u32) {
    let made = fs::metadata(home).unwrap();
    assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777), (uid, uid, 0o750));
    assert_eq!(noted(home), [""; 0]);
    let mut names: Vec<_> =
        fs::read_dir(home).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["etc", "log", "run", "srv", "tmp", "var"]);
    for name in names {
        let made = fs::metadata(home.join(&name)).unwrap();
        assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777), (uid, uid, 0o750), "{name}");
        assert_eq!(noted(&home.join(name)), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_tenant_has_nothing_in_common_with_the_last() {
    if !root_is_here() {
        return;
    }
    let (own, other) = (UID + 10, UID + 11);
    let node = Node::new(Some(account(own)));
    let host = node.occupied().await;
    let home = node.home();
    give_to(&home, other);
    let held = fs::File::open(&home).unwrap();
    // Of another user, so that the partition's own could not remove it.
    let theirs = home.join("theirs");
    fs::create_dir_all(theirs.join("deep/deeper")).unwrap();
    fs::write(theirs.join("deep/file"), "x").unwrap();
    for path in ["theirs", "theirs/deep", "theirs/deep/deeper", "theirs/deep/file"] {
        chown(home.join(path), Some(other), Some(other)).unwrap();
    }
    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o700)).unwrap();
    symlink(node.folder.path().join("node.json"), home.join("link")).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o000)).unwrap();
    host.perform(&Action::Erase { partition: part() }).await.unwrap();
    is_as_formatted(&home, own);
    // What was held open leads to no directory that there still is.
    assert_ne!(held.metadata().unwrap().ino(), fs::metadata(&home).unwrap().ino());
    assert_eq!(held.metadata().unwrap().nlink(), 0);
    assert!(node.folder.path().join("node.json").exists());
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tenant_left_elsewhere_on_the_machine_goes_with_it() {
    use std::os::unix::process::CommandExt;
    if !root_is_here() {
        return;
    }
    let own = UID + 18;
    let node = Node::new(Some(account(own)));
    let host = node.occupied().await;
    let (kept, shared) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(kept.path().join("file"), "x").unwrap();
    let name = shared.path().file_name().unwrap().to_str().unwrap().to_owned();
    let script = format!(
        "umask 0; for d in /tmp /var/tmp /dev/shm; do mkdir -p $d/{name}-left/deep/er; echo x > $d/{name}-left/deep/file; \
         echo x > $d/{name}-file; ln -s {kept} $d/{name}-link; chmod 0 $d/{name}-left; done; \
         perl -e 'shmget(0, 4096, 01666) // die; semget(0, 1, 01666) // die; msgget(0, 01666) // die'",
        kept = kept.path().display()
    );
    let made = std::process::Command::new("/bin/sh").args(["-c", &script]).uid(own).gid(own).status().unwrap();
    assert!(made.success());
    let objects = || {
        let lists = ["shm", "sem", "msg"].map(|list| fs::read_to_string(format!("/proc/sysvipc/{list}")).unwrap());
        lists.iter().flat_map(|list| list.lines()).filter(|line| line.contains(&own.to_string())).count()
    };
    assert_eq!(objects(), 3);
    host.perform(&Action::Erase { partition: part() }).await.unwrap();
    assert_eq!(objects(), 0);
    for folder in ["/tmp", "/var/tmp", "/dev/shm"] {
        for left in ["left", "file", "link"] {
            assert!(fs::symlink_metadata(format!("{folder}/{name}-{left}")).is_err(), "{folder} {left}");
        }
    }
    assert!(kept.path().join("file").exists() && shared.path().exists());
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_was_cut_off_is_finished_by_the_next() {
    if !root_is_here() {
        return;
    }
    let node = Node::new(Some(account(UID + 12)));
    let host = node.occupied().await;
    let (home, aside) = (node.home(), node.home().with_file_name(".erased-p0"));
    fs::create_dir(home.join("full")).unwrap();
    fs::write(home.join("full/file"), "x").unwrap();
    fs::rename(&home, &aside).unwrap();
    host.perform(&Action::Erase { partition: part() }).await.unwrap();
    is_as_formatted(&home, UID + 12);
    assert!(!aside.exists());
    fs::create_dir_all(aside.join("full/deep")).unwrap();
    host.perform(&Action::Erase { partition: part() }).await.unwrap();
    is_as_formatted(&home, UID + 12);
    assert!(!aside.exists());
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_a_mount_stays_one_and_a_mount_in_it_is_not_entered() {
    if !root_is_here() {
        return;
    }
    let own = UID + 13;
    let node = Node::new(Some(account(own)));
    let (disk, outside) = (node.folder.path().join("disk"), node.folder.path().join("outside"));
    fs::create_dir_all(disk.join("a/b")).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("kept"), "x").unwrap();
    let mounted = Bind::new(&disk, &node.home());
    give_to(&node.home(), UID + 14);
    let host = node.occupied().await;
    host.perform(&Action::Erase { partition: part() }).await.unwrap();
    is_as_formatted(&node.home(), own);
    assert_eq!(fs::metadata(&disk).unwrap().ino(), fs::metadata(node.home()).unwrap().ino());
    drop(mounted);

    let within = node.home().join("a/within");
    fs::create_dir_all(&within).unwrap();
    let mounted = Bind::new(&outside, &within);
    let problem = host.perform(&Action::Erase { partition: part() }).await.unwrap_err();
    assert_eq!(problem.code, codes::ERASE_FAILED);
    assert!(outside.join("kept").exists());
    drop(mounted);
    // Where it was when it was moved aside with the partition.
    let _ = nix::mount::umount2(
        &node.home().with_file_name(".erased-p0").join("a/within"),
        nix::mount::MntFlags::MNT_DETACH,
    );
    host.perform(&Action::Erase { partition: part() }).await.unwrap();
    is_as_formatted(&node.home(), own);
    node.done(host).await;
}
