//! What a partition is held to.

use super::*;

/// So many processes at once, none of which ends by itself: however slow the machine is, all are there together.
pub fn at_once(count: u32) -> Run {
    let script = "i=0; all=; while [ $i -lt COUNT ]; do sleep 600 & all=\"$all $!\"; i=$((i+1)); done; kill $all";
    program(&script.replace("COUNT", &count.to_string()), 60)
}

pub async fn what_is_said_to_be_enforced_is(node: Node) {
    let host = node.occupied().await;
    let place = place(&node);
    let many = at_once(40);
    let asked = Resources { processes: Some(10), ..Resources::default() };
    let enforced = host.runtime().limit(&place, asked).await.unwrap();
    assert!(enforced.processes.is_none_or(|most| most == 10));
    let ran = host.runtime().run(&place, &many).await.unwrap();
    assert_eq!(ran.exit.to_string() != "exit code 0", enforced.processes.is_some(), "{:?}", ran.tail);
    // As much as it may hold, and as much again.
    let asked = Resources { memory_mib: Some(64), ..Resources::default() };
    let enforced = host.runtime().limit(&place, asked).await.unwrap();
    let large = program("head -c 134217728 /dev/zero | tail -c 134217728 > /dev/null", 60);
    let ran = host.runtime().run(&place, &large).await.unwrap();
    assert_eq!(ran.exit.to_string() != "exit code 0", enforced.memory_mib.is_some(), "{ran:?}");
    let unlimited = host.runtime().limit(&place, Resources::default()).await.unwrap();
    assert_eq!(unlimited, Resources::default());
    let ran = host.runtime().run(&place, &many).await.unwrap();
    assert_eq!(ran.exit.to_string(), "exit code 0", "{:?}", ran.tail);
    node.done(host).await;
}

/// What systemd says of a partition's slice that no file of the kernel says everywhere.
fn slice_says(node: &Node, property: &str) -> String {
    let show = ["show", "--value", "--property", property, &format!("plat-{}-p0.slice", node.id())].map(str::to_owned);
    let said = std::process::Command::new("systemctl").args(show).output().unwrap();
    String::from_utf8(said.stdout).unwrap().trim().to_owned()
}

pub async fn the_next_instance_is_held_to_nothing_that_the_last_one_was(node: Node) {
    let host = node.occupied().await;
    let asked = Resources { processes: Some(10), memory_mib: Some(64), ..Resources::default() };
    host.perform(&Action::Limit { partition: part(), resources: asked }).await.unwrap();
    if node.runtime == Runtime::Systemd {
        assert_eq!((slice_says(&node, "TasksMax"), slice_says(&node, "MemoryMax")), ("10".into(), "67108864".into()));
    }
    host.perform(&Action::Erase { partition: part() }).await.unwrap();
    host.perform(&Action::Free { partition: part() }).await.unwrap();
    drop(host);
    let host = node.occupied().await;
    assert_eq!(host.observe_partition(&part()).await.unwrap().limits, Some(Resources::default()));
    let many = at_once(40);
    let ran = host.runtime().run(&place(&node), &many).await.unwrap();
    assert_eq!(ran.exit.to_string(), "exit code 0", "{:?}", ran.tail);
    if node.runtime == Runtime::Systemd {
        let now = ["TasksMax", "MemoryMax", "CPUQuotaPerSecUSec"].map(|property| slice_says(&node, property));
        assert_eq!(now, ["infinity"; 3]);
    }
    node.done(host).await;
}
