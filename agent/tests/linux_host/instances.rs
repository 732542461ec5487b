//! An instance in its partition: who it is, what it writes, what runs as its user.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn files_are_written_by_the_user_and_never_through_a_link() {
    if !root_is_here() {
        return;
    }
    let node = Node::new(Some(account(UID)));
    let host = node.occupied().await;
    let outside = node.folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o777)).unwrap();
    let write = async |path: &str| {
        let file = RenderedFile { path: path.into(), mode: 0o640, contents: "secret".into() };
        host.perform(&Action::WriteFiles { partition: part(), files: vec![file] }).await
    };
    write("etc/sub/app.conf").await.unwrap();
    let made = fs::metadata(node.home().join("etc/sub/app.conf")).unwrap();
    assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777), (UID, UID, 0o640));

    // A file that is a link to elsewhere is replaced, not followed.
    fs::write(outside.join("victim"), "kept").unwrap();
    symlink(outside.join("victim"), node.home().join("etc/link")).unwrap();
    write("etc/link").await.unwrap();
    assert_eq!(fs::read_to_string(outside.join("victim")).unwrap(), "kept");
    assert_eq!(fs::read_to_string(node.home().join("etc/link")).unwrap(), "secret");

    // A folder that was swapped for a link is refused.
    fs::rename(node.home().join("etc"), node.home().join("moved")).unwrap();
    symlink(&outside, node.home().join("etc")).unwrap();
    let problem = write("etc/app.conf").await.unwrap_err();
    assert_eq!(problem.code, codes::FILES_FAILED);
    assert!(!outside.join("app.conf").exists());
    for path in ["../outside/x", "/etc/x", ""] {
        assert_eq!(write(path).await.unwrap_err().code, codes::FILES_FAILED, "{path}");
    }
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partitions_programs_run_as_its_user_with_nothing_inherited() {
    if !root_is_here() {
        return;
    }
    let node = Node::new(Some(account(UID + 1)));
    let host = node.occupied().await;
    let run = Run {
        name: "init".into(),
        command: vec![
            "/bin/sh".into(),
            "-c".into(),
            "id -u; id -G; pwd; umask; grep NoNewPrivs /proc/self/status; ls /proc/self/fd | wc -l; env | sort; exit 3"
                .into(),
        ],
        environment: BTreeMap::from([("A".to_owned(), "b".to_owned())]),
        directory: String::new(),
        timeout_seconds: 10,
    };
    let problem = host.perform(&Action::RunHook { partition: part(), run }).await.unwrap_err();
    assert_eq!(problem.code, codes::HOOK_FAILED);
    let uid = (UID + 1).to_string();
    let lines: Vec<&str> = problem.why.lines().collect();
    let home = node.home().display().to_string();
    assert_eq!(lines[..6], ["exit code 3", &uid, &uid, &home, "0027", "NoNewPrivs:\t1"], "{problem}");
    assert_eq!(lines[6], "4", "input, output, errors and ls's own: {problem}");
    assert!(
        lines[7..].iter().all(|l| l.starts_with("A=") || l.starts_with("PLAT_RUN=") || l.starts_with("PWD=")),
        "{problem}"
    );
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_takes_too_long_is_killed_with_all_it_started() {
    let node = Node::new(None);
    let host = node.occupied().await;
    let script = "setsid sleep 600 & echo $! > child; sleep 600";
    let run = Run {
        name: "init".into(),
        command: vec!["/bin/sh".into(), "-c".into(), script.into()],
        environment: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
        directory: String::new(),
        timeout_seconds: 1,
    };
    let problem = host.perform(&Action::RunHook { partition: part(), run }).await.unwrap_err();
    assert!(problem.why.contains("longer than 1 s"), "{problem}");
    let child: u32 = fs::read_to_string(node.home().join("child")).unwrap().trim().parse().unwrap();
    assert!(!alive(child));
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_occupants_record_and_secrets_survive_and_another_is_refused() {
    let node = Node::new(None);
    let host = node.occupied().await;
    host.perform(&Action::Note { partition: part(), note: Note::Initialised }).await.unwrap();
    let first = host.observe_partition(&part()).await.unwrap().occupant.unwrap();
    assert_eq!(first.secrets["password"].reveal().len(), 24);
    let path = node.state().join("host/occupants");
    assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, 0o600);
    drop(host);
    let host = node.occupied().await;
    assert_eq!(host.observe_partition(&part()).await.unwrap().occupant.unwrap(), first);
    let other = InstanceId::parse(&"b".repeat(32)).unwrap();
    let occupy = Action::Occupy { partition: part(), instance: other, secrets: BTreeMap::new() };
    assert_eq!(host.perform(&occupy).await.unwrap_err().code, codes::CONFLICT);
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_json_written_anew_is_told_and_read() {
    let node = Node::new(None);
    let host = node.open();
    let mut events = host.events();
    node.write_node_file();
    let told = tokio::time::timeout(Duration::from_secs(5), events.recv()).await.unwrap();
    assert_eq!(told, Some(Event::NodeFile));
    assert_eq!(host.node().await.unwrap().partitions.len(), 1);
    fs::write(node.folder.path().join("node.json"), "{}").unwrap();
    assert_eq!(host.node().await.unwrap_err().code, codes::NO_NODE_FILE);
}
