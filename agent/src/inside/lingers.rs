//! One who sends along with what he says what takes days to close, to sockets that cannot refuse it.

use super::*;
use crate::aside::By;
use crate::aside::tests::{lingering, within};
use crate::clock::SystemClock;
use crate::host::fake::FakeHost;
use plat_model::node::NodeFile;
use rustix::net::SendFlags;
use std::net::TcpStream;
use std::path::Path;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

struct Street {
    host: Arc<FakeHost>,
    inside: Arc<Inside>,
    parts: [NodePartition; 2],
    /// Ends that are never read.
    held: Vec<TcpStream>,
}

impl Street {
    async fn new() -> Self {
        let parts = ["part0", "part1"].map(|name| NodePartition::bare(PartitionName::parse(name).unwrap()));
        let node = NodeFile { partitions: parts.to_vec(), ..NodeFile::bare(Path::new("/srv/plat")) };
        let host = Arc::new(FakeHost::new(node, Arc::new(SystemClock)));
        host.reached_by(By::Tenants);
        let nobody: AskMaster = Arc::new(|_, _| Box::pin(async { Ok(Vec::new()) }));
        let inside = Arc::new(Inside::new(host.clone(), Arc::new(|_| None), nobody));
        let street = Self { host, inside, parts, held: Vec::new() };
        for part in &street.parts {
            street.keep(part).await;
        }
        street
    }

    async fn keep(&self, part: &NodePartition) {
        let instance = InstanceId::parse(&"a".repeat(32)).unwrap();
        assert_eq!(self.inside.keep(part, Some(&instance)).await, None);
    }

    /// Before anybody has a chance to take it, the agent's thread being this one, it is the last of its kind.
    fn attack(&mut self, text: &str) -> std::os::unix::net::UnixStream {
        let stream = self.host.speak(&self.parts[0].name).unwrap();
        self.held.push(lingering().send(&stream, text).unwrap());
        stream
    }

    /// The same with what a reader passes over, unless he asks for it.
    fn attack_out_of_band(&mut self) -> std::os::unix::net::UnixStream {
        let stream = self.host.speak(&self.parts[0].name).unwrap();
        self.held.push(lingering().send_by(&stream, "!", SendFlags::OOB).unwrap());
        rustix::io::write(&stream, b"{\"v\": 1, ").unwrap();
        stream
    }

    /// Asks, and is answered.
    async fn is_heard(&self, part: usize) {
        let mut stream = UnixStream::from_std(self.host.speak(&self.parts[part].name).unwrap()).unwrap();
        stream.write_all(b"{\"v\": 1, \"ask\": \"get\"}\n").await.unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).await.unwrap();
        assert!(line.contains("problem"), "{line}");
    }
}

/// On one thread, as the agent is.
fn on_a_street(test: impl AsyncFnOnce(Street) + Send + 'static) {
    within(60, move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { test(Street::new().await).await });
    });
}

#[test]
fn what_comes_along_keeps_nobody_waiting() {
    on_a_street(async |mut street| {
        let mut attacks = Vec::new();
        for _ in 0..2 * serve::CONNECTIONS {
            attacks.push(street.attack("{\"v\": 1, "));
            street.is_heard(1).await;
        }
        // Nor the one who sent it: his threads have ended, and with them he has his places again.
        street.is_heard(0).await;
        for attack in attacks {
            let mut attack = UnixStream::from_std(attack).unwrap();
            let mut line = String::new();
            let _closed = BufReader::new(&mut attack).read_line(&mut line).await;
            assert_eq!(line, "", "it was answered");
        }
    });
}

#[test]
fn what_comes_along_out_of_band_keeps_nobody_waiting() {
    on_a_street(async |mut street| {
        let mut attacks = Vec::new();
        for _ in 0..2 * serve::CONNECTIONS {
            attacks.push(street.attack_out_of_band());
            street.is_heard(1).await;
        }
        street.is_heard(0).await;
    });
}

#[test]
fn what_waits_in_a_queue_keeps_nobody_waiting_when_the_socket_goes() {
    on_a_street(async |mut street| {
        for _ in 0..20 {
            let (_one, _other) = (street.attack("{"), street.attack("{"));
            // Not one of the two was taken.
            street.inside.renew(&street.parts[0].name);
            street.is_heard(1).await;
            street.keep(&street.parts[0]).await;
        }
        street.is_heard(0).await;
        let (_one, part) = (street.attack("{"), street.parts[0].clone());
        street.inside.keep(&part, None).await;
        street.is_heard(1).await;
    });
}

#[test]
fn places_are_the_partitions_and_not_its_sockets() {
    on_a_street(async |street| {
        let part = &street.parts[0];
        let places = street.inside.places(&part.name);
        let silent: Vec<_> = (0..serve::CONNECTIONS).map(|_| street.host.speak(&part.name).unwrap()).collect();
        while places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        street.inside.renew(&part.name);
        street.keep(part).await;
        assert!(Arc::ptr_eq(&places, &street.inside.places(&part.name)));
        // When their threads have ended they are free again, and only then.
        street.is_heard(0).await;
        drop(silent);
        while places.available_permits() < serve::CONNECTIONS - 1 {
            tokio::task::yield_now().await;
        }
    });
}
