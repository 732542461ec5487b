//! What the other tests stand on.

use plat_tests::eventually::eventually;
use plat_tests::namespace::{Namespace, root_or_skip};
use std::time::Duration;

#[test]
fn a_namespace_has_links_users_folders_and_processes_of_its_own_and_leaves_none() {
    if !root_or_skip("the test of namespaces") {
        return;
    }
    let hub = Namespace::new("hub0");
    hub.sh("ip link add br0 type bridge && ip link set br0 up && ip addr add fd00:5::1/64 dev br0 nodad");
    let node = Namespace::new("node0");
    node.plug_into(&hub);
    node.sh("ip addr add fd00:5::2/64 dev uplink nodad");
    // Nothing listens there: a refusal is an answer, silence is none.
    let answer = node.sh("(exec 3<>/dev/tcp/fd00:5::1/9) 2>&1 || true");
    assert!(answer.contains("refused"), "{answer}");

    node.sh("mkdir -p /var/lib/plat /srv/plat && echo node:x:19999:19999::/:/bin/sh >> /etc/passwd && id node");
    assert!(!std::fs::read_to_string("/etc/passwd").unwrap().contains("node:x:19999"));
    assert!(node.path("/srv/plat").is_dir() && !std::path::Path::new("/srv/plat").exists());

    node.sh("setsid setpriv --reuid 19999 sleep 1000 < /dev/null > /dev/null 2>&1 &");
    let sleeping = eventually("running", Duration::from_secs(5), || node.processes_of(19999).pop().ok_or("no process"));
    let host = node.host_pid(sleeping).expect("the host sees it too");
    drop(node);
    let process = format!("/proc/{host}/stat");
    eventually("gone", Duration::from_secs(5), || match std::fs::read_to_string(&process) {
        Ok(stat) if !stat.contains(") Z ") => Err(stat),
        _ => Ok(()),
    });
}
