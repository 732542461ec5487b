//! Releases: built, published, removed.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_built_and_published_read_only_and_removed() {
    let mut node = Node::new(None);
    node.builder = is_root().then(|| account(UID + 3));
    node.write_node_file();
    let host = node.open().await;
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    let plain = tar(&[
        ("app-1/bin/", "", Directory),
        ("app-1/bin/run", "#!/bin/sh\necho hi\n", Regular),
        ("app-1/again", "app-1/bin/run", Link),
        ("app-1/sh", "bin/run", Symlink),
    ]);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&plain).unwrap();
    let document = document(
        archive(&node, &packed.finish().unwrap()),
        &[&["sh", "-c", "id -u > built; env > environment; echo {{ release.directory }} > place"]],
    );
    let (digest, done) = install(&host, &document).await;
    done.unwrap();
    assert_eq!(host.observe_release(&digest).await, ReleaseFact::Installed);
    assert_eq!(host.observe_releases().await.unwrap(), std::slice::from_ref(&digest));
    let folder = node.folder.path().join("releases").join(digest.as_str());
    assert_eq!(fs::metadata(folder.join("bin/run")).unwrap().mode() & 0o7777, 0o555, "no setuid, no write");
    assert_eq!(fs::metadata(folder.join("bin")).unwrap().mode() & 0o7777, 0o755);
    assert_eq!(fs::metadata(folder.join("bin/run")).unwrap().uid(), nix::unistd::geteuid().as_raw());
    assert_eq!(fs::read_to_string(folder.join("place")).unwrap().trim(), folder.display().to_string());
    if is_root() {
        assert_eq!(fs::read_to_string(folder.join("built")).unwrap().trim(), (UID + 3).to_string());
    }
    assert!(!fs::read_to_string(folder.join("environment")).unwrap().contains("CARGO"));
    install(&host, &document).await.1.unwrap();
    host.perform(&Action::RemoveRelease { digest: digest.clone() }).await.unwrap();
    assert_eq!(host.observe_release(&digest).await, ReleaseFact::Absent);
    assert_eq!(unfinished(&node), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_command_holds_nothing_up_leaves_nothing_running_and_reaches_no_other_release() {
    if !root_is_here() {
        return;
    }
    let mut node = Node::new(None);
    node.builder = Some(account(UID + 20));
    node.write_node_file();
    let host = node.open().await;
    let source = archive(&node, &tar(&[("a/x", "x", tar::EntryType::Regular)]));
    // It waits until another release is begun, tries to stop whoever watches it, and puts something everywhere.
    let script = "i=0; while [ $(ls -d ../.unfinished-* | wc -l) -lt 2 ] && [ $i -lt 200 ]; do sleep 0.01; i=$((i+1)); done; \
        for d in ../.unfinished-*; do [ $d -ef . ] || touch $d/intruder; done; \
        ls ../.packages && exit 1; kill -STOP $PPID; setsid sleep 600 & exit 0";
    let hostile = document(source.clone(), &[&["sh", "-c", script]]);
    let other = document(source, &[&["sh", "-c", "[ ! -e intruder ]"]]);
    let digest = Digest::parse(&hex(hostile.as_bytes())).unwrap();
    let second = async {
        until("the first one's command runs", async || {
            matches!(host.observe_release(&digest).await, ReleaseFact::Building(what) if what.starts_with("running"))
        })
        .await;
        install(&host, &other).await.1
    };
    let (first, second) = tokio::join!(install(&host, &hostile), second);
    first.1.unwrap();
    second.unwrap();
    assert_eq!(running_as(UID + 20), [0; 0]);
    let folder = node.folder.path().join("releases").join(digest.as_str());
    assert_eq!(fs::metadata(folder.join("x")).unwrap().uid(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_built_as_root_beside_partitions_that_have_users() {
    if !root_is_here() {
        return;
    }
    let node = Node::new(Some(account(UID + 21)));
    let host = node.open().await;
    let source = archive(&node, &tar(&[("a/x", "x", tar::EntryType::Regular)]));
    let problem = install(&host, &document(source, &[])).await.1.unwrap_err();
    assert_eq!(problem.code, codes::PRIVILEGE);
    assert!(problem.to_string().contains("[builder]"), "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_build_of_a_killed_agent_left_is_no_release_and_goes_with_the_next_agent() {
    let mut node = Node::new(None);
    node.builder = is_root().then(|| account(UID + 22));
    node.write_node_file();
    let host = node.open().await;
    let source = archive(&node, &tar(&[("a/x", "x", tar::EntryType::Regular)]));
    let script = format!("mkdir -p deep/er; echo x > deep/er/file; chmod 500 deep/er deep; echo > begun; {WAIT}");
    let document = document(source, &[&["sh", "-c", &script]]);
    let digest = Digest::parse(&hex(document.as_bytes())).unwrap();
    let releases = node.folder.path().join("releases");
    let begun = || {
        let entries = fs::read_dir(&releases).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).find(|path| path.join("begun").exists())
    };
    let left = releases.join(".unfinished-left");
    // Whoever ends in an orderly way removes what is where he made it.
    let moved_away = async {
        until("its command runs", async || begun().is_some()).await;
        fs::rename(begun().unwrap(), &left).unwrap();
    };
    tokio::select! {
        (_, done) = install(&host, &document) => panic!("it has ended: {done:?}"),
        () = moved_away => {}
    }
    drop(host);
    assert!(left.join("deep/er/file").exists() && unfinished(&node) >= 1);

    let host = node.open().await;
    assert_eq!(host.observe_releases().await.unwrap(), []);
    assert_eq!(host.observe_release(&digest).await, ReleaseFact::Absent);
    until("what is left is removed", async || unfinished(&node) == 0).await;
    let again = async {
        until("its command runs again", async || begun().is_some()).await;
        go_on(&node, &digest);
    };
    let ((_, done), ()) = tokio::join!(install(&host, &document), again);
    done.unwrap();
    assert_eq!(host.observe_releases().await.unwrap(), [digest]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_reaches_out_is_refused_and_nothing_is_published() {
    let node = Node::new(None);
    let host = node.open().await;
    use tar::EntryType::{Char, Regular, Symlink};
    let hostile: [&[(&str, &str, tar::EntryType)]; 6] = [
        &[("a/../../evil", "x", Regular)],
        &[("/evil", "x", Regular)],
        &[("a/link", "/etc/passwd", Symlink)],
        &[("a/link", "../../..", Symlink)],
        &[("a/b/l", "../..", Symlink), ("a/m", "b/l/..", Symlink)],
        &[("a/null", "", Char)],
    ];
    for entries in hostile {
        let (digest, done) = install(&host, &document(archive(&node, &tar(entries)), &[])).await;
        assert_eq!(done.unwrap_err().code, codes::BAD_ARCHIVE, "{entries:?}");
        assert_eq!(host.observe_release(&digest).await, ReleaseFact::Absent);
    }
    assert!(!node.folder.path().join("evil").exists());
    until("what was begun is removed", async || unfinished(&node) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_checksum_and_a_failing_build_say_what_failed() {
    let node = Node::new(None);
    let host = node.open().await;
    let good = archive(&node, &tar(&[("a/x", "x", tar::EntryType::Regular)]));
    let mut wrong = good.clone();
    wrong["app"]["archive"]["sha256"] = "0".repeat(64).into();
    let problem = install(&host, &document(wrong, &[])).await.1.unwrap_err();
    assert_eq!((problem.code, problem.at.as_str()), (codes::SOURCE_CHECKSUM, "sources.app"));
    let problem =
        install(&host, &document(good, &[&["sh", "-c", "echo the compiler is missing; exit 2"]])).await.1.unwrap_err();
    assert_eq!((problem.code, problem.at.as_str()), (codes::BUILD_FAILED, "build.commands[0]"));
    assert!(problem.why.contains("exit code 2") && problem.why.contains("the compiler is missing"), "{problem}");
    until("what was begun is removed", async || unfinished(&node) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_copied_and_a_link_out_of_it_is_refused() {
    let node = Node::new(None);
    let host = node.open().await;
    let from = node.folder.path().join("from");
    fs::create_dir_all(from.join("sub")).unwrap();
    fs::write(from.join("sub/file"), "x").unwrap();
    symlink("file", from.join("sub/link")).unwrap();
    let source = |path: &Path| serde_json::json!({"own": {"directory": {"path": path, "into": "share"}}});
    let (digest, done) = install(&host, &document(source(&from), &[])).await;
    done.unwrap();
    let link = node.folder.path().join("releases").join(digest.as_str()).join("share/sub/link");
    assert_eq!(fs::read_to_string(link).unwrap(), "x");
    symlink("../../node.json", from.join("sub/out")).unwrap();
    let (_, done) = install(&host, &document(source(&from), &[&["true"]])).await;
    assert_eq!(done.unwrap_err().code, codes::BAD_ARCHIVE);
}

/// Needs the Debian package archive.
#[tokio::test(flavor = "multi_thread")]
async fn redis_is_installed_from_its_real_packages_and_runs() {
    let mut node = Node::new(None);
    node.builder = is_root().then(|| account(UID + 4));
    node.write_node_file();
    let host = node.occupied().await;
    let source = serde_json::json!({"redis": {"deb": {"packages": ["redis-server", "redis-tools"]}}});
    let (digest, done) = install(&host, &document(source, &[])).await;
    done.unwrap_or_else(|problem| panic!("{problem}"));
    let folder = node.folder.path().join("releases").join(digest.as_str());
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.join(".plat-release.json")).unwrap()).unwrap();
    let names: Vec<&str> =
        manifest["sources"]["redis"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    println!("{names:?}");
    assert!(names.contains(&"redis-tools") && names.iter().any(|n| n.starts_with("liblzf")), "{names:?}");
    let libraries = format!("{0}/usr/lib/x86_64-linux-gnu:{0}/usr/lib/aarch64-linux-gnu", folder.display());
    let mut spec = spec("redis", "");
    let bin = |name: &str| folder.join("usr/bin").join(name).display().to_string();
    let socket = node.home().join("redis.sock").display().to_string();
    spec.command = ["redis-server", "--port", "0", "--unixsocket", &socket, "--save", ""].map(String::from).to_vec();
    spec.command[0] = bin("redis-server");
    spec.environment.insert("LD_LIBRARY_PATH".into(), libraries.clone());
    start(&host, &spec).await.unwrap();
    let promise = PromiseName::parse("ping").unwrap();
    let check = Check::Exec(vec![bin("redis-cli"), "-s".into(), socket, "ping".into()]);
    let environment = BTreeMap::from([("LD_LIBRARY_PATH".to_owned(), libraries)]);
    let ask = Action::CheckPromise {
        partition: part(),
        promise: promise.clone(),
        of: String::new(),
        check,
        timeout_seconds: 5,
        environment,
    };
    until("redis answers", async || {
        host.perform(&ask).await.unwrap();
        let fact = host.observe_partition(&part()).await.unwrap().promises[&promise].clone();
        fact.holds && fact.message == "PONG"
    })
    .await;
    node.done(host).await;
}
