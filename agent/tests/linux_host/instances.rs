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
        let file = FileTemplate { path: path.into(), mode: 0o640, template: Prepared::verbatim("secret") };
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
        assert_eq!(write(path).await.unwrap_err().code, codes::FORGED, "{path}");
    }
    node.done(host).await;
}

/// A template that nobody had to prepare.
fn template(text: &str, secrets: &[&str]) -> Prepared {
    serde_json::from_value(serde_json::json!({"text": text, "secrets": secrets})).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_filled_in_on_the_host_and_never_said_by_it() {
    let node = Node::new(is_root().then(|| account(UID)));
    let host = node.occupied().await;
    let own = FileTemplate { path: "etc/own".into(), mode: 0o400, template: Prepared::secret("password") };
    let conf = template("password={{ secrets.password }}\n", &["password"]);
    let conf = FileTemplate { path: "etc/conf".into(), mode: 0o640, template: conf };
    let written = host.perform(&Action::WriteFiles { partition: part(), files: vec![own, conf] }).await;
    written.unwrap();
    let secret = fs::read_to_string(node.home().join("etc/own")).unwrap();
    assert_eq!(secret.len(), 24);
    assert_eq!(fs::metadata(node.home().join("etc/own")).unwrap().mode() & 0o7777, 0o400);
    assert_eq!(fs::read_to_string(node.home().join("etc/conf")).unwrap(), format!("password={secret}\n"));
    let said = async || format!("{:?}", host.observe_partition(&part()).await.unwrap());
    assert!(said().await.contains("password") && !said().await.contains(&secret));

    // What cannot be filled in is told without what was to be filled in, and nothing is written.
    for text in ["{{ secrets.password|int }}", "{{ secrets[secrets.password] }}", "{{ secrets.password.x.y }}"] {
        let file = |path: &str, text| FileTemplate { path: path.into(), mode: 0o640, template: text };
        let files = vec![file("etc/first", Prepared::verbatim("x")), file("etc/b", template(text, &["password"]))];
        let problem = host.perform(&Action::WriteFiles { partition: part(), files }).await.unwrap_err();
        assert!(!format!("{problem:?}{problem}").contains(&secret), "{problem}");
        assert!(!node.home().join("etc/first").exists());
    }

    // Only what is published is known to who asks.
    let values = [("url".to_owned(), template("db://{{ secrets.password }}@here", &["password"]))].into();
    let publication = Publication { values, fingerprint: "first".into() };
    host.perform(&Action::Publish { partition: part(), publication }).await.unwrap();
    let occupant = host.observe_partition(&part()).await.unwrap().occupant.unwrap();
    assert_eq!(occupant.connection.as_map()["url"], format!("db://{secret}@here"));
    assert_eq!((occupant.ready, occupant.published.as_str()), (true, "first"));
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_takes_all_that_it_can_get_takes_it_from_its_user() {
    let node = Node::new(is_root().then(|| account(UID)));
    let host = node.occupied().await;
    let hostile = "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}";
    let file = FileTemplate { path: "etc/large".into(), mode: 0o640, template: template(hostile, &[]) };
    let problem = host.perform(&Action::WriteFiles { partition: part(), files: vec![file] }).await.unwrap_err();
    assert_eq!(problem.code, codes::BAD_TEMPLATE);
    assert!(!node.home().join("etc/large").exists());
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
    assert_eq!(first.secrets, ["password".to_owned()].into());
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
    let host = node.open().await;
    let mut events = host.events();
    node.write_node_file();
    let told = tokio::time::timeout(Duration::from_secs(5), events.recv()).await.unwrap();
    assert_eq!(told, Some(Event::NodeFile));
    assert_eq!(host.node().await.unwrap().partitions.len(), 1);
    fs::write(node.folder.path().join("node.json"), "{}").unwrap();
    assert_eq!(host.node().await.unwrap_err().code, codes::NO_NODE_FILE);
}
