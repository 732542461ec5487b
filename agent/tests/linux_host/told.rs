//! What a build writes, read while it does and afterwards, through both parts of the agent.

use super::forged::{remote, settled};
use super::*;
use std::sync::Arc;
use tokio::sync::mpsc::Receiver;

fn of(digest: &Digest, lines: usize, follow: Follow) -> LogsAsked {
    LogsAsked { of: LogOf::Release(digest.clone()), lines, follow }
}

/// The lines that still come, to the end.
async fn rest(mut lines: Receiver<(ServiceName, String)>) -> Vec<String> {
    let mut texts = Vec::new();
    while let Some((name, text)) = lines.recv().await {
        assert_eq!(name.as_str(), LogOf::BUILD);
        texts.push(text);
    }
    texts
}

/// Up to this line.
async fn until_told(lines: &mut Receiver<(ServiceName, String)>, text: &str) {
    while lines.recv().await.expect("the build goes on").1 != text {}
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_build_writes_is_told_while_it_does_kept_and_gone_with_the_release() {
    let node = Node::new(None);
    let host = Arc::new(node.open().await);
    let outside = remote(&host).await;
    let source = archive(&node, &tar(&[("a/x", "x", tar::EntryType::Regular)]));
    let script = format!("echo one; echo '> doing evil'; {WAIT}; printf 'two\\033[31m\\n'");
    let document = document(source, &[&["sh", "-c", &script]]);
    let digest = Digest::parse(&hex(document.as_bytes())).unwrap();
    let problem = outside.logs(&of(&digest, 10, Follow::Yes)).await.unwrap_err();
    assert_eq!(problem.code, codes::NOT_FOUND);

    let followed = async {
        until("it is begun", async || outside.logs(&of(&digest, 10, Follow::No)).await.is_ok()).await;
        let mut lines = outside.logs(&of(&digest, 100, Follow::Yes)).await.unwrap();
        until_told(&mut lines, "one").await;
        until_told(&mut lines, " > doing evil").await;
        let ReleaseFact::Building(doing) = outside.observe_release(&digest).await else { panic!("it is built still") };
        assert!(doing.starts_with("running sh"), "{doing}");
        go_on(&node, &digest);
        rest(lines).await
    };
    let ((_, built), left) = tokio::join!(install(&host, &document), followed);
    built.unwrap();
    let end = ["two[31m".to_owned(), format!("> release {digest} is built")];
    assert_eq!(left, end);

    // Nobody waits for more of what has ended.
    let kept = rest(outside.logs(&of(&digest, 2, Follow::Yes)).await.unwrap()).await;
    assert_eq!(kept, end);
    let kept = rest(outside.logs(&of(&digest, 100, Follow::No)).await.unwrap()).await;
    assert_eq!(kept.iter().filter(|line| *line == "one").count(), 1, "{kept:?}");
    outside.perform(&Action::RemoveRelease { digest: digest.clone() }).await.unwrap();
    assert_eq!(outside.logs(&of(&digest, 10, Follow::No)).await.unwrap_err().code, codes::NOT_FOUND);
    drop(outside);
    settled(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_a_build_that_failed_says_how_and_ends_so() {
    let node = Node::new(None);
    let host = node.open().await;
    let source = archive(&node, &tar(&[("a/x", "x", tar::EntryType::Regular)]));
    let document = document(source, &[&["sh", "-c", "seq 20000; echo the compiler is missing; exit 2"]]);
    let (digest, built) = install(&host, &document).await;
    built.unwrap_err();
    let lines = rest(host.logs(&of(&digest, 100_000, Follow::Yes)).await.unwrap()).await;
    assert!(lines.len() < 10_000, "{}", lines.len());
    let at = lines.iter().position(|line| line == "the compiler is missing").expect("it is there");
    assert_eq!(lines[at - 1], "20000");
    assert!(lines.iter().any(|line| line.ends_with("lines are left out)")), "a flood is bounded");
    assert!(lines[at..].iter().any(|line| line.contains("P0403")), "{:?}", &lines[at..]);
}
