//! What goes through a partition's links.
//!
//! A partition with a network namespace of its own has all its traffic there, and what its links have counted is its: of
//! all but the loopback, whose bytes leave nothing. A partition that shares the machine's network is not counted: its tap
//! and tun carry only what is behind them, and what its processes send and receive beside that nobody keeps apart.
//!
//! A link that is made again starts from zero. It then has another number, or another namespace, or has counted less than
//! before, for a link never counts backwards.

mod links;

use super::super::process::boot_id;
use links::dump;
use nix::sched::{CloneFlags, setns};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};

/// One reading of the links of a partition, by their names.
pub type Links = BTreeMap<String, Link>;

/// What a link has counted since it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub identity: String,
    /// Bytes that the partition received.
    pub received: u64,
    /// Bytes that it sent.
    pub sent: u64,
}

/// The traffic of one instance: sums of differences.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    pub received: u64,
    pub sent: u64,
    links: Links,
}

impl Traffic {
    /// What was counted before was not this instance's, or cannot be told.
    pub fn from_here(links: Links) -> Self {
        Self { received: 0, sent: 0, links }
    }

    /// Goes on from the same links, and from zero.
    pub fn anew(self) -> Self {
        Self::from_here(self.links)
    }

    pub fn add(&mut self, now: Links) {
        for (name, link) in &now {
            let before = self.links.get(name).filter(|before| {
                before.identity == link.identity && before.received <= link.received && before.sent <= link.sent
            });
            self.received += link.received - before.map_or(0, |before| before.received);
            self.sent += link.sent - before.map_or(0, |before| before.sent);
        }
        // One that is gone now is another when it comes back.
        self.links = now;
    }
}

/// Who asks for a namespace's links, and where the answer goes.
type Question = (PathBuf, Sender<Result<Links, String>>);

/// Reads links in other namespaces: a thread of its own enters one after the other, and does nothing else.
#[derive(Default)]
pub struct Namespaces {
    reader: Mutex<Option<Sender<Question>>>,
}

impl Namespaces {
    /// # Errors
    /// In words, for a person who reads why the traffic is unknown.
    pub fn read(&self, file: &Path) -> Result<Links, String> {
        let (send, answer) = channel();
        let question = (file.to_owned(), send);
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = match reader.as_ref().map(|reader| reader.send(question.clone())) {
            Some(Ok(())) => true,
            // None yet, or it has ended.
            _ => {
                let (send, questions) = channel();
                std::thread::spawn(move || answer_all(&questions));
                let asked = send.send(question).is_ok();
                *reader = Some(send);
                asked
            }
        };
        drop(reader);
        let lost = || "the thread that reads network namespaces has ended".to_owned();
        if asked { answer.recv().map_err(|_| lost())? } else { Err(lost()) }
    }
}

fn answer_all(questions: &Receiver<Question>) {
    let home = File::open("/proc/thread-self/ns/net");
    let mut away = false;
    loop {
        let question = questions.try_recv().or_else(|_| {
            // While nobody asks, no namespace is held that somebody may want to be gone.
            if let (Ok(home), true) = (&home, away) {
                away = setns(home, CloneFlags::CLONE_NEWNET).is_err();
            }
            questions.recv()
        });
        let Ok((file, answer)) = question else { return };
        let links = read_in(&file);
        away = true;
        let _nobody_waits = answer.send(links);
    }
}

/// For a thread that is nowhere in particular: it stays in the namespace.
fn read_in(file: &Path) -> Result<Links, String> {
    let wrong = |why: &dyn std::fmt::Display| format!("the network namespace {} cannot be read: {why}", file.display());
    let handle = File::open(file).map_err(|e| wrong(&e))?;
    let inode = handle.metadata().map_err(|e| wrong(&e))?.ino();
    setns(&handle, CloneFlags::CLONE_NEWNET).map_err(|e| wrong(&e))?;
    let boot = boot_id();
    dump(|index| format!("{boot}:{inode}:{index}")).map_err(|e| wrong(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(identity: &str, received: u64, sent: u64) -> Links {
        [("eth0".to_owned(), Link { identity: identity.into(), received, sent })].into()
    }

    #[test]
    fn a_link_that_is_made_again_loses_nothing_and_counts_nothing_twice() {
        let mut traffic = Traffic::from_here(links("one", 100, 10));
        traffic.add(links("one", 150, 30));
        assert_eq!((traffic.received, traffic.sent), (50, 20));
        traffic.add(links("two", 400, 40));
        assert_eq!((traffic.received, traffic.sent), (450, 60), "larger than before, but another link");
        traffic.add(links("two", 5, 4));
        assert_eq!((traffic.received, traffic.sent), (455, 64), "a link never counts backwards");
        traffic.add(Links::new());
        traffic.add(links("two", 5, 4));
        assert_eq!((traffic.received, traffic.sent), (460, 68), "it was gone in between");
    }
}
