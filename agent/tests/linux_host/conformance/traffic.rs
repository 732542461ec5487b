//! What goes through the sockets of a partition in the machine's network.

use super::*;
use crate::namespace::Namespace;
use crate::wires::{echo, in_network, inside, join};

/// A script that sends this many datagrams of 1,000 bytes and takes them back.
fn talks(to: &str, port: u16, times: u32) -> String {
    let talk = format!(
        "exec 3<>/dev/udp/{to}/{port}; for i in $(seq {times}); do printf %1000s x >&3; head -c 1000 <&3 >/dev/null; done"
    );
    format!("bash -c '{talk}'")
}

/// With the headers of IPv4 and UDP.
const DATAGRAM: u64 = 1000 + 20 + 8;

/// Received, sent, and both.
async fn bytes(host: &LinuxHost) -> [u64; 3] {
    let counters = counters(host).await;
    [Meter::NetworkReceivedBytes, Meter::NetworkSentBytes, Meter::NetworkBytes].map(|meter| known(&counters, meter))
}

fn both_ways(datagrams: u64) -> [u64; 3] {
    [1, 1, 2].map(|ways| ways * datagrams * DATAGRAM)
}

async fn counted(node: Node, far: u16, at_home: u16) {
    let mut host = node.occupied().await;
    assert_eq!(bytes(&host).await, both_ways(0), "nothing yet, and that is known");
    begin(&host, &node, &spec("talks", &talks("10.9.0.2", far, 20))).await.unwrap();
    ended(&host, "talks").await;
    assert_eq!(bytes(&host).await, both_ways(20));
    begin(&host, &node, &spec("stays", &talks("127.0.0.1", at_home, 20))).await.unwrap();
    ended(&host, "stays").await;
    assert_eq!(bytes(&host).await, both_ways(20), "the loopback's leave nothing");
    host.runtime().run(&place(&node), &program(&talks("10.9.0.2", far, 5), 60)).await.unwrap();
    assert_eq!(bytes(&host).await, both_ways(25), "hooks too");

    // What goes on while the agent is away, in a service that it started before.
    let (go, done) = (node.home().join("go"), node.home().join("done"));
    let talk = talks("10.9.0.2", far, 30);
    let script = format!("until [ -e {} ]; do sleep 0.02; done; {talk}; > {}", go.display(), done.display());
    begin(&host, &node, &spec("away", &script)).await.unwrap();
    drop(host);
    fs::write(go, "").unwrap();
    until("it has talked", async || done.exists()).await;
    host = node.open().await;
    assert_eq!(bytes(&host).await, both_ways(55));
    node.done(host).await;
}

pub async fn what_goes_through_sockets_is_counted_to_the_byte_also_while_no_agent_is_there(node: Node) {
    if !root_is_here() {
        return;
    }
    let other = Namespace::new();
    match node.runtime {
        // It is asked to run things in the machine's network: the one that this is in.
        Runtime::Systemd => {
            static LINK: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
            let _one_at_a_time = LINK.lock().await;
            let own = Path::new("/proc/self/ns/net");
            join(own, other.file());
            counted(node, echo(other.file(), "10.9.0.2"), echo(own, "127.0.0.1")).await;
            inside(own, "ip link delete eth0");
        }
        _ => {
            let own = Namespace::new();
            join(own.file(), other.file());
            let (far, at_home) = (echo(other.file(), "10.9.0.2"), echo(own.file(), "127.0.0.1"));
            in_network(own.file(), async || counted(node, far, at_home).await);
        }
    }
}
