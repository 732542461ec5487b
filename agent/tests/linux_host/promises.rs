//! Promises: asked, and remembered.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_promises_have_said_is_known_to_an_agent_that_is_started_again() {
    let node = Node::new(None);
    let host = node.occupied().await;
    let promise = PromiseName::parse("answers").unwrap();
    let ask = |code: u32| Action::CheckPromise {
        partition: part(),
        promise: promise.clone(),
        of: "these runs".into(),
        check: Check::Exec(vec!["/bin/sh".into(), "-c".into(), format!("echo said; exit {code}")]),
        timeout_seconds: 5,
        environment: BTreeMap::new(),
    };
    for code in [0, 0, 1] {
        host.perform(&ask(code)).await.unwrap();
    }
    let before = host.observe_partition(&part()).await.unwrap().promises;
    let fact = &before[&promise];
    assert_eq!((fact.holds, fact.held, fact.failures, fact.of.as_str()), (false, true, 1, "these runs"));
    assert_eq!(
        fact.history.iter().map(|stretch| (stretch.holds, stretch.times)).collect::<Vec<_>>(),
        [(true, 2), (false, 1)]
    );
    drop(host);
    // As after kill -9: nothing was told to the host of before.
    let host = node.open().await;
    assert_eq!(host.observe_partition(&part()).await.unwrap().promises, before);
    host.perform(&Action::Erase { partition: part() }).await.unwrap();
    assert!(host.observe_partition(&part()).await.unwrap().promises.is_empty());
    node.done(host).await;
}

/// A process of the user that holds everything else of that user still, again and again.
fn oppressor(uid: u32) -> std::process::Child {
    use std::os::unix::process::CommandExt;
    let script = "while :; do kill -STOP -1; done";
    std::process::Command::new("/bin/sh").args(["-c", script]).uid(uid).gid(uid).spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_who_holds_the_agents_processes_still_keeps_nothing_from_going_on() {
    if !root_is_here() {
        return;
    }
    let own = UID + 15;
    let node = Node::new(Some(account(own)));
    let host = node.occupied().await;
    // It accepts, by its queue, and never answers.
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", server.local_addr().unwrap());
    let mut hostile = oppressor(own);
    let promise = PromiseName::parse("held").unwrap();
    let check = Check::Http(HttpCheck { url, status: 200 });
    let environment = BTreeMap::new();
    let ask = Action::CheckPromise {
        partition: part(),
        promise: promise.clone(),
        of: String::new(),
        check,
        timeout_seconds: 1,
        environment,
    };
    host.perform(&ask).await.unwrap();
    let fact = host.observe_partition(&part()).await.unwrap().promises[&promise].clone();
    assert!(!fact.holds && fact.message.contains("took too long"), "{}", fact.message);
    host.perform(&Action::Erase { partition: part() }).await.unwrap();
    assert!(!alive(hostile.id()));
    hostile.wait().unwrap();
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn promises_are_asked_over_the_network_and_by_programs() {
    let node = Node::new(None);
    let host = node.occupied().await;
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in server.incoming().flatten() {
            let mut stream = stream;
            let _ = std::io::Read::read(&mut stream, &mut [0; 1024]);
            let _ = stream.write_all(
                b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            );
        }
    });
    let ask = async |name: &str, check: Check| {
        let promise = PromiseName::parse(name).unwrap();
        let environment = BTreeMap::new();
        let action = Action::CheckPromise {
            partition: part(),
            promise: promise.clone(),
            of: String::new(),
            check,
            timeout_seconds: 2,
            environment,
        };
        host.perform(&action).await.unwrap();
        let fact = host.observe_partition(&part()).await.unwrap().promises[&promise].clone();
        (fact.holds, fact.message, fact.failures)
    };
    let url = format!("http://127.0.0.1:{port}/");
    let (holds, message, _) = ask("moved", Check::Http(HttpCheck { url: url.clone(), status: 302 })).await;
    assert!(holds, "{message}");
    let (holds, message, _) = ask("ok", Check::Http(HttpCheck { url, status: 200 })).await;
    assert!(!holds && message.contains("302"), "{message}");
    let tcp = |port: u16| Check::Tcp(TcpCheck { address: "127.0.0.1".into(), port: port.to_string() });
    assert!(ask("tcp", tcp(port)).await.0);
    assert!(!ask("closed", tcp(1)).await.0);
    assert_eq!(ask("closed", tcp(1)).await.2, 2);
    let exec = |script: &str| Check::Exec(vec!["/bin/sh".into(), "-c".into(), script.into()]);
    assert_eq!(ask("yes", exec("echo fine")).await, (true, "fine".into(), 0));
    assert_eq!(ask("no", exec("echo broken; exit 4")).await, (false, "exit code 4: broken".into(), 1));
    let (holds, message, _) = ask("slow", exec("sleep 60")).await;
    assert!(!holds && message.contains("2 s"), "{message}");
    assert!(!ask("none", Check::Exec(vec!["/nowhere".into()])).await.0);
    node.done(host).await;
}
