//! Partitions with directories on other storage, and with a skeleton of the operator's.

use super::erasing::{give_to, is_as_formatted, noted};
use super::*;

fn entries(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn formatted(path: &Path, uid: u32) {
    fs::create_dir_all(path).unwrap();
    chown(path, Some(uid), Some(uid)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o750)).unwrap();
}

async fn erase(host: &LinuxHost) -> Result<(), Problem> {
    host.perform(&Action::Erase { partition: part() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_is_emptied_with_the_partition_and_stays_as_it_was_formatted() {
    if !root_is_here() {
        return;
    }
    let (own, other) = (UID + 40, UID + 41);
    let mut node = Node::new(Some(account(own)));
    let path = |name: &str| node.folder.path().join(name);
    // In a folder of the machine's, a mount, and where tenants' leftovers are looked for.
    let (plain, mounted, shared) = (path("disk/p0"), path("mounted"), tempfile::tempdir_in("/dev/shm").unwrap());
    let (behind, outside) = (path("behind"), path("outside"));
    fs::create_dir(&behind).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::create_dir(&mounted).unwrap();
    fs::write(outside.join("kept"), "x").unwrap();
    let mount = Bind::new(&behind, &mounted);
    let storage = [plain.clone(), mounted, shared.path().to_owned()];
    storage.iter().for_each(|directory| formatted(directory, own));
    node.storage = storage.to_vec();
    node.write_node_file();
    let host = node.occupied().await;
    let inodes = storage.each_ref().map(|directory| fs::metadata(directory).unwrap().ino());

    for directory in &storage {
        let theirs = directory.join("theirs/deep/er");
        fs::create_dir_all(&theirs).unwrap();
        fs::write(theirs.join("file"), "secret").unwrap();
        symlink(&outside, directory.join("link")).unwrap();
        chown(directory.join("theirs"), Some(other), Some(other)).unwrap();
        fs::set_permissions(directory.join("theirs"), fs::Permissions::from_mode(0o000)).unwrap();
        fs::set_permissions(directory, fs::Permissions::from_mode(0o777)).unwrap();
    }
    give_to(&plain, other);
    start(&host, &spec("writes", &format!("while :; do echo x >> {}/log; done", plain.display()))).await.unwrap();
    until("it writes", async || plain.join("log").exists()).await;

    erase(&host).await.unwrap();
    for (directory, inode) in storage.iter().zip(inodes) {
        let left = fs::metadata(directory).unwrap();
        assert_eq!((left.ino(), left.uid(), left.gid(), left.mode() & 0o7777), (inode, own, own, 0o750));
        assert_eq!(entries(directory), [""; 0], "{}", directory.display());
        assert_eq!(noted(directory), [""; 0]);
    }
    assert_eq!(entries(&outside), ["kept"]);
    is_as_formatted(&node.home(), own);
    drop(mount);
    node.storage = Vec::new();
    node.write_node_file();
    node.done(host).await;
}

fn flag(flag: &str, path: &Path) {
    let done = std::process::Command::new("chattr").arg(flag).arg(path).status().unwrap();
    assert!(done.success(), "chattr {flag} {}", path.display());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_immutable_or_append_only_is_erased_too() {
    if !root_is_here() {
        return;
    }
    let own = UID + 43;
    let mut node = Node::new(Some(account(own)));
    let storage = node.folder.path().join("storage");
    formatted(&storage, own);
    node.storage = vec![storage.clone()];
    node.write_node_file();
    let host = node.occupied().await;
    let left = tempfile::tempdir_in("/var/tmp").unwrap();
    let (left, _removed_already) = (left.path().to_owned(), left);
    chown(&left, Some(own), Some(own)).unwrap();
    for top in [&node.home(), &storage, &left] {
        let inside = top.join("deep/er");
        fs::create_dir_all(&inside).unwrap();
        for name in ["immutable", "log"] {
            fs::write(inside.join(name), "x").unwrap();
        }
        give_to(top, own);
        flag("+i", &inside.join("immutable"));
        flag("+a", &inside.join("log"));
        flag("+a", &inside);
        flag("+i", inside.parent().unwrap());
        flag("+i", top);
    }
    let held = fs::File::open(node.home()).unwrap();
    erase(&host).await.unwrap();
    is_as_formatted(&node.home(), own);
    assert_eq!(held.metadata().unwrap().nlink(), 0, "whoever holds the old one holds nothing of the new");
    assert_eq!(entries(&storage), [""; 0]);
    assert!(!left.exists());
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_kernel_does_not_let_it_clear_the_flags_the_partition_is_kept_and_the_way_out_told() {
    if !root_is_here() {
        return;
    }
    let node = Node::new(None);
    let program = node.folder.path().join("agent");
    let text = format!(
        "#!/bin/sh\nexec setpriv --bounding-set -linux_immutable {} \"$@\"\n",
        env!("CARGO_BIN_EXE_plat-agent")
    );
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let node_file = node.folder.path().join("node.json");
    let host = LinuxHost::open(LinuxConfig {
        state: node.state(),
        node_file,
        executable: program,
        network: Default::default(),
        clock: std::sync::Arc::new(plat_agent::clock::SystemClock),
        runtime: plat_agent::config::Runtime::Shim,
    })
    .await
    .unwrap();
    host.perform(&Action::Occupy { partition: part(), instance: instance(), secrets: BTreeMap::new() }).await.unwrap();
    let file = node.home().join("file");
    fs::write(&file, "x").unwrap();
    flag("+i", &file);
    let problem = erase(&host).await.unwrap_err();
    let left = if file.exists() { file } else { node.home().with_file_name(".erased-p0").join("file") };
    flag("-i", &left);
    assert_eq!(problem.code, codes::ERASE_FAILED);
    assert!(problem.todo.contains("lsattr") && problem.todo.contains("CAP_LINUX_IMMUTABLE"), "{problem}");
    assert!(!host.observe_partition(&part()).await.unwrap().occupant.unwrap().erased);
    erase(&host).await.unwrap();
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_that_cannot_be_emptied_keeps_the_partition_from_being_given_to_another() {
    if !root_is_here() {
        return;
    }
    let own = UID + 42;
    let mut node = Node::new(Some(account(own)));
    let (storage, outside) = (node.folder.path().join("storage"), node.folder.path().join("outside"));
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("kept"), "x").unwrap();
    node.storage = vec![storage.clone()];
    node.write_node_file();
    let host = node.occupied().await;
    let refused = async |todo: &str| {
        fs::write(node.home().join("file"), "x").unwrap();
        let problem = erase(&host).await.unwrap_err();
        assert_eq!(problem.code, codes::ERASE_FAILED, "{problem}");
        assert!(problem.what.contains("storage") && problem.todo.contains(todo), "{problem}");
        assert!(!host.observe_partition(&part()).await.unwrap().occupant.unwrap().erased);
        assert_eq!(entries(&outside), ["kept"]);
        // The rest is done all the same.
        is_as_formatted(&node.home(), own);
    };
    // Its disk is not mounted: what is on it would come back.
    refused("mount").await;
    symlink(&outside, &storage).unwrap();
    refused("").await;
    fs::remove_file(&storage).unwrap();
    formatted(&storage, own);
    fs::create_dir_all(storage.join("a/within")).unwrap();
    let mounted = Bind::new(&outside, &storage.join("a/within"));
    refused("unmount").await;
    drop(mounted);
    erase(&host).await.unwrap();
    let left = fs::metadata(&storage).unwrap();
    assert_eq!((left.uid(), left.mode() & 0o7777, entries(&storage).len()), (own, 0o750, 0));
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_is_emptied_where_a_partition_has_no_user_of_its_own_too() {
    let mut node = Node::new(None);
    let storage = node.folder.path().join("storage");
    fs::create_dir_all(storage.join("a/b")).unwrap();
    for path in ["a/b", "a", ""] {
        fs::set_permissions(storage.join(path), fs::Permissions::from_mode(0o000)).unwrap();
    }
    node.storage = vec![storage.clone()];
    node.write_node_file();
    let host = node.occupied().await;
    erase(&host).await.unwrap();
    assert_eq!(fs::metadata(&storage).unwrap().mode() & 0o7777, 0o750);
    assert_eq!(entries(&storage), [""; 0]);
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_the_storage_counts_as_disk() {
    let mut node = Node::new(None);
    let storage = node.folder.path().join("storage");
    fs::create_dir(&storage).unwrap();
    fs::write(storage.join("large"), vec![1; 3 << 20]).unwrap();
    node.storage = vec![storage];
    node.write_node_file();
    let host = node.occupied().await;
    let level = async || counters(&host).await.readings[&Meter::DiskByteSeconds].clone();
    until("the files are added up", async || matches!(level().await, Amount::Known(_))).await;
    let bytes = known(&counters(&host).await, Meter::DiskByteSeconds);
    assert!((3 << 20..4 << 20).contains(&bytes), "{bytes}");
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_partition_has_the_directories_that_node_json_names_with_their_modes() {
    let mut node = Node::new(is_root().then(|| account(UID + 43)));
    node.directories = [("data", 0o700), ("inbox", 0o1770), ("etc", 0o751)].map(|(n, m)| (n.to_owned(), m)).into();
    node.write_node_file();
    let host = node.occupied().await;
    fs::create_dir(node.home().join("srv")).unwrap();
    erase(&host).await.unwrap();
    assert_eq!(entries(&node.home()), ["data", "etc", "inbox"]);
    for (name, mode) in &node.directories {
        let made = fs::metadata(node.home().join(name)).unwrap();
        assert_eq!(made.mode() & 0o7777, *mode, "{name}");
        assert_eq!(made.uid(), node.account.as_ref().map_or(nix::unistd::geteuid().as_raw(), |account| account.uid));
    }
    assert_eq!(fs::metadata(node.home()).unwrap().mode() & 0o7777, 0o750);
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_partitions_all_have_a_limit_of_their_own_says_that_disk_is_enforced() {
    let mut node = Node::new(None);
    node.limits.disk_mib = Some(100);
    node.write_node_file();
    let host = node.open().await;
    assert!(!host.enforces().disk, "a number that no file system knows holds nobody");
    drop(host);
    let path = node.folder.path().join("node.json");
    let mut file = NodeFile::parse(&fs::read_to_string(&path).unwrap()).unwrap();
    file.skeleton.limited = true;
    fs::write(&path, file.to_json()).unwrap();
    assert!(node.open().await.enforces().disk);
}
