//! What goes through a partition's links.
//!
//! A partition with a network namespace of its own has all its traffic there, and what its links have counted is its: of
//! all but the loopback, whose bytes leave nothing. Of one that shares the machine's network its [`sockets`] are counted,
//! and what is behind its tap and its tun by those.
//!
//! A link that is made again starts from zero. It then has another number, or another namespace, or has counted less than
//! before, for a link never counts backwards.

mod bpf;
mod links;
mod program;
mod sockets;

use super::super::namespace::Network;
use super::super::process::boot_id;
use links::{dump, named};
use nix::sched::{CloneFlags, setns};
use plat_model::id::PartitionName;
use plat_model::node::NodePartition;
use serde::{Deserialize, Serialize};
use sockets::Sockets;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

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

impl Link {
    fn seen_from_the_other_end(&self) -> Self {
        Self { identity: self.identity.clone(), received: self.sent, sent: self.received }
    }
}

/// The traffic of one instance: sums of differences.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    pub received: u64,
    pub sent: u64,
    /// A map would take a kilobyte for the one or two that there are.
    #[serde(with = "few")]
    links: Box<[(String, Link)]>,
}

/// As a map.
mod few {
    use super::{Link, Links};
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(links: &[(String, Link)], to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(links.iter().map(|(name, link)| (name, link)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Box<[(String, Link)]>, D::Error> {
        Ok(Links::deserialize(from)?.into_iter().collect())
    }
}

impl Traffic {
    /// What was counted before was not this instance's, or cannot be told.
    pub fn from_here(links: Links) -> Self {
        Self { received: 0, sent: 0, links: links.into_iter().collect() }
    }

    /// Goes on from the same links, and from zero.
    pub fn anew(self) -> Self {
        Self { received: 0, sent: 0, ..self }
    }

    /// False: some of what went through since the reading before was not counted by anybody.
    pub fn add(&mut self, now: Links) -> bool {
        let mut is_whole = true;
        for (name, link) in &now {
            let before = self.links.iter().find(|(known, _)| known == name).map(|(_, link)| link);
            if name == SOCKETS {
                // It had a namespace until now: what went through there is counted.
                let Some(before) = before else { continue };
                let went_back = before.received > link.received || before.sent > link.sent;
                is_whole &= !sockets::is_interrupted(&before.identity, &link.identity);
                is_whole &= before.identity != link.identity || !went_back;
            }
            let goes_on = before.filter(|before| {
                before.identity == link.identity && before.received <= link.received && before.sent <= link.sent
            });
            self.received += link.received - goes_on.map_or(0, |before| before.received);
            self.sent += link.sent - goes_on.map_or(0, |before| before.sent);
        }
        // One that is gone now is another when it comes back.
        self.links = now.into_iter().collect();
        is_whole
    }
}

/// The way that a partition's traffic goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// By the links in its own network namespace, which this file leads to.
    Own(PathBuf),
    /// By sockets in the machine's network, and by these links of the machine, a tap and a tun: what the partition sends by
    /// them they receive.
    Shared(Vec<String>),
    /// Nobody knows, for this reason.
    Unknown(String),
}

impl Way {
    pub fn of(partition: &NodePartition) -> Self {
        let tun = partition.tun.as_ref().map(|tun| &tun.name);
        match &partition.namespace {
            Some(file) => Self::Own(file.clone()),
            None => Self::Shared(partition.tap.iter().chain(tun).cloned().collect()),
        }
    }
}

/// Reads what partitions have sent and received.
pub struct NetworkMeter {
    machine: Network,
    namespaces: Namespaces,
    sockets: Mutex<Sockets>,
}

impl NetworkMeter {
    /// Of partitions that share this network, or have one of their own.
    pub fn new(machine: Network) -> Self {
        Self { machine, namespaces: Namespaces::default(), sockets: Mutex::default() }
    }

    fn sockets(&self) -> MutexGuard<'_, Sockets> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that sockets of groups beside this one are counted from now on.
    pub fn begin(&self, group: &Path) {
        // Each reading says so too.
        if let Err(why) = self.sockets().watch(group) {
            tracing::warn!(why, "network bytes of partitions without a namespace are unknown");
        }
    }

    /// The partition is free.
    pub fn forget(&self, partition: &PartitionName) {
        self.sockets().forget(partition);
    }

    /// The machine's, of these names alone if there are any.
    fn links(&self, names: Option<&[String]>) -> Result<Links, String> {
        let read = self.machine.within(|| {
            let (boot, inode) = (boot_id(), std::fs::metadata("/proc/thread-self/ns/net")?.ino());
            let identity = |index| format!("{boot}:{inode}:{index}");
            names.map_or_else(|| dump(identity), |names| named(names, identity))
        });
        read.map_err(|why| format!("the machine's links cannot be read: {why}"))
    }

    /// A look at all partitions, one after the other.
    pub fn look(&self) -> Look<'_> {
        Look { meter: self, is_thorough: true, watched: None, machine: None }
    }

    /// A look at one: what was attached to a group that still stands is taken for being so, and no other's links are read.
    pub fn glance(&self) -> Look<'_> {
        Look { is_thorough: false, ..self.look() }
    }
}

/// One look at all partitions: what is the same for all of them is asked once.
pub struct Look<'a> {
    meter: &'a NetworkMeter,
    is_thorough: bool,
    /// Whether sockets are counted.
    watched: Option<Result<(), String>>,
    /// The links of the machine's network.
    machine: Option<Result<Links, String>>,
}

impl Look<'_> {
    /// `group` is the control group that all of the partition is in, or why there is none.
    ///
    /// # Errors
    /// In words, for a person who reads why the traffic is unknown.
    pub fn read(&mut self, partition: &PartitionName, way: &Way, group: Result<&Path, &str>) -> Result<Links, String> {
        match way {
            Way::Own(file) => self.meter.namespaces.read(file),
            Way::Shared(links) => self.shared(partition, links, group),
            Way::Unknown(why) => Err(why.clone()),
        }
    }

    fn shared(
        &mut self,
        partition: &PartitionName,
        links: &[String],
        group: Result<&Path, &str>,
    ) -> Result<Links, String> {
        let ungrouped = |why| format!("there is no control group to tell its sockets from others' by: {why}");
        let group = group.map_err(ungrouped)?;
        let mut sockets = self.meter.sockets();
        let is_watched = |sockets: &mut Sockets| match !self.is_thorough && sockets.is_watched(group) {
            true => Ok(()),
            false => sockets.watch(group),
        };
        self.watched.get_or_insert_with(|| is_watched(&mut sockets)).clone()?;
        let mut all = Links::from([(SOCKETS.to_owned(), sockets.read(partition, group)?)]);
        if !links.is_empty() {
            let names = (!self.is_thorough).then_some(links);
            let machine =
                self.machine.get_or_insert_with(|| self.meter.links(names)).as_ref().map_err(String::clone)?;
            let of = |name: &String| Some((name.clone(), machine.get(name)?.seen_from_the_other_end()));
            all.extend(links.iter().filter_map(of));
        }
        Ok(all)
    }
}

/// Longer than a link's name can be.
const SOCKETS: &str = "sockets of its group";

/// Who asks for a namespace's links, and where the answer goes.
type Question = (PathBuf, Sender<Result<Links, String>>);

/// Reads links in other namespaces: a thread of its own enters one after the other, and does nothing else.
#[derive(Default)]
struct Namespaces {
    reader: Mutex<Option<Sender<Question>>>,
}

impl Namespaces {
    /// # Errors
    /// In words, for a person who reads why the traffic is unknown.
    fn read(&self, file: &Path) -> Result<Links, String> {
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

    fn sockets(identity: &str, received: u64) -> Links {
        [(SOCKETS.to_owned(), Link { identity: identity.into(), received, sent: 0 })].into()
    }

    #[test]
    fn what_was_counted_in_a_namespace_is_not_counted_again_as_of_sockets() {
        let mut traffic = Traffic::from_here(links("one", 100, 0));
        assert!(traffic.add(links("one", 150, 0)) && traffic.add(sockets("boot:1:7", 150)));
        assert_eq!(traffic.received, 50);
        traffic.add(sockets("boot:1:7", 160));
        assert_eq!(traffic.received, 60);
    }

    #[test]
    fn a_count_that_was_taken_away_is_said_once_and_another_group_is_none() {
        let mut traffic = Traffic::from_here(sockets("boot:1:none", 0));
        assert!(traffic.add(sockets("boot:1:7", 30)), "the group was made since");
        assert!(!traffic.add(sockets("boot:2:7", 5)) && traffic.add(sockets("boot:2:7", 6)));
        assert_eq!(traffic.received, 36);
        // Who took the group away began another epoch.
        assert!(traffic.add(sockets("boot:2:8", 1)) && traffic.add(sockets("next boot:1:8", 1)));
        assert_eq!(traffic.received, 38);
    }
}
