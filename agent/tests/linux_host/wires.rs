//! Networks of the tests' own, and what is sent through them.

use super::*;
use std::net::UdpSocket;

/// Runs a script in a network namespace.
pub fn inside(namespace: &Path, script: &str) {
    let enter = format!("--net={}", namespace.display());
    let ran = std::process::Command::new("nsenter").args([&enter, "--", "sh", "-ec", script]).output().unwrap();
    assert!(ran.status.success(), "{script}: {}", String::from_utf8_lossy(&ran.stderr));
}

/// A pair of links, one end for the partition and one for whom it talks to. Both namespaces go with the test.
pub fn join(own: &Path, other: &Path) {
    let links = format!(
        "ip link add eth0 type veth peer name far; ip link set far netns {}; ip link set eth0 up; \
         ip address add 10.9.0.1/24 dev eth0",
        other.display()
    );
    inside(own, &links);
    inside(other, "ip link set far up; ip address add 10.9.0.2/24 dev far");
}

pub fn socket(namespace: &Path, address: &str) -> UdpSocket {
    std::thread::scope(|threads| {
        let bound = threads.spawn(|| {
            nix::sched::setns(fs::File::open(namespace).unwrap(), nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            UdpSocket::bind((address, 0)).unwrap()
        });
        bound.join().unwrap()
    })
}

/// Sends back what comes, until the test ends.
pub fn echo(namespace: &Path, address: &str) -> u16 {
    let socket = socket(namespace, address);
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut buffer = [0; 2000];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], from);
        }
    });
    port
}

/// Runs a test in a network of its own, that of the agent and of all that it starts.
pub fn in_network(namespace: &Path, test: impl AsyncFnOnce() + Send) {
    std::thread::scope(|threads| {
        let within = threads.spawn(|| {
            nix::sched::setns(fs::File::open(namespace).unwrap(), nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(test());
        });
        within.join().unwrap();
    });
}
