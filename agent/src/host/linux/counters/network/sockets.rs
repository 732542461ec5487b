//! What goes through the sockets of a partition that shares the machine's network.
//!
//! A small program of the kernel's is attached to the group that all partitions' groups are in. For each packet of a
//! socket it adds the bytes to what the partition's group has sent or received (`docs/decisions/0018`). It stays while
//! that group does, the agent's end included, and so do its counts.

use super::Link;
use super::bpf::{self, Direction};
use super::program::counting;
use crate::host::linux::cgroup::number;
use crate::host::linux::process::boot_id;
use plat_model::id::PartitionName;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What the programs are called, by the form of what they count: another form has another name.
const NAMES: [(Direction, &str); 2] = [(Direction::Received, "plat_received_1"), (Direction::Sent, "plat_sent_1")];
const MAP_NAME: &str = "plat_traffic_1";

/// As many groups are counted at a time; node-format makes no more partitions.
const GROUPS: u32 = 32_768;

/// The counts of one agent's partitions.
#[derive(Default)]
pub struct Sockets {
    counting: Option<Counting>,
    /// The number of each partition's group when it was read last.
    groups: BTreeMap<PartitionName, u64>,
}

struct Counting {
    /// The number of the group that it is attached to.
    base: u64,
    map: OwnedFd,
    /// That of the map: no two of a boot have the same.
    number: u32,
}

/// Whether the same group was counted in another map before, so that nobody counted in between. In another boot, or for
/// another group, everything begins anew.
pub fn is_interrupted(before: &str, now: &str) -> bool {
    let parts = |identity: &str| -> Vec<String> { identity.splitn(3, ':').map(str::to_owned).collect() };
    match (&parts(before)[..], &parts(now)[..]) {
        ([boot, map, group], [boot_now, map_now, group_now]) => {
            boot == boot_now && group == group_now && map != map_now
        }
        _ => false,
    }
}

impl Sockets {
    /// Sees to it that what is in groups beside this one is counted from now on. What is counted already goes on.
    ///
    /// # Errors
    /// In words, for a person who reads why the traffic is unknown.
    pub fn watch(&mut self, group: &Path) -> Result<(), String> {
        let attached = Self::attached(group.parent().unwrap_or(group));
        let wrong = |why| format!("the kernel does not count what goes through its sockets: {why}");
        self.counting = None;
        self.counting = Some(attached.map_err(wrong)?);
        Ok(())
    }

    fn attached(base: &Path) -> io::Result<Counting> {
        let folder = File::open(base)?;
        let number = folder.metadata()?.ino();
        if let Some(counting) = Self::found(&folder, number)? {
            return Ok(counting);
        }
        // Killed between the two, or somebody has taken one away: then nobody knows what was not counted.
        Self::take_away(&folder)?;
        let map = bpf::make_map(MAP_NAME, GROUPS)?;
        for (direction, name) in NAMES {
            let program = bpf::load(name, direction, &counting(map.as_fd(), number, direction))?;
            bpf::attach(folder.as_fd(), direction, program.as_fd())?;
        }
        Self::found(&folder, number)?.ok_or_else(|| io::Error::other("its programs were taken away at once"))
    }

    /// What an earlier agent attached here.
    fn found(folder: &File, base: u64) -> io::Result<Option<Counting>> {
        let mut numbers = BTreeSet::new();
        for (direction, name) in NAMES {
            let all = bpf::attached(folder.as_fd(), direction)?;
            let mut own = all.into_iter().filter(|one| one.name == name);
            match (own.next().and_then(|one| one.map), own.next()) {
                (Some(number), None) => numbers.insert(number),
                _ => return Ok(None),
            };
        }
        match numbers.into_iter().collect::<Vec<_>>()[..] {
            [number] => Ok(Some(Counting { base, map: bpf::map(number)?, number })),
            _ => Ok(None),
        }
    }

    fn take_away(folder: &File) -> io::Result<()> {
        for (direction, name) in NAMES {
            for one in bpf::attached(folder.as_fd(), direction)?.into_iter().filter(|one| one.name == name) {
                bpf::detach(folder.as_fd(), direction, one.program.as_fd())?;
            }
        }
        Ok(())
    }

    /// What has gone through the sockets of a partition, whose group this is, if it has been made.
    ///
    /// # Errors
    /// As of [`Sockets::watch`], which comes first.
    pub fn read(&mut self, partition: &PartitionName, group: &Path) -> Result<Link, String> {
        let Some(counting) = &self.counting else { return Err("nobody counts what goes through its sockets".into()) };
        let identity = |group: &str| format!("{}:{}:{group}", boot_id(), counting.number);
        let Some(own) = number(group) else {
            return Ok(Link { identity: identity("none"), received: 0, sent: 0 });
        };
        let counted =
            bpf::look_up(counting.map.as_fd(), own).map_err(|e| format!("its sockets cannot be read: {e}"))?;
        // Nothing has been sent or received yet.
        let [received, sent] = counted.unwrap_or_default();
        self.groups.insert(partition.clone(), own);
        Ok(Link { identity: identity(&own.to_string()), received, sent })
    }

    /// Another group may stand where the one stood that is counted in.
    pub fn is_watched(&self, group: &Path) -> bool {
        let base = group.parent().and_then(number);
        self.counting.as_ref().is_some_and(|counting| Some(counting.base) == base)
    }

    /// The partition is free: its group has gone, or goes.
    pub fn forget(&mut self, partition: &PartitionName) {
        if let (Some(own), Some(counting)) = (self.groups.remove(partition), &self.counting) {
            bpf::take_out(counting.map.as_fd(), own);
        }
    }

    /// Forgets groups that are no more: an agent that was killed had not come to that.
    pub fn tidy(&self, group: &Path) {
        let (Some(counting), Some(base)) = (&self.counting, group.parent()) else { return };
        let there =
            fs::read_dir(base).into_iter().flatten().flatten().filter_map(|entry| Some(entry.metadata().ok()?.ino()));
        let there: BTreeSet<u64> = there.collect();
        for gone in bpf::keys(counting.map.as_fd()).into_iter().filter(|key| !there.contains(key)) {
            bpf::take_out(counting.map.as_fd(), gone);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A group with another one in it, in version 2; both go with the test.
    struct Groups(PathBuf);

    impl Groups {
        fn new(name: &str) -> Option<Self> {
            if !nix::unistd::geteuid().is_root() {
                assert!(std::env::var_os("CI").is_none(), "this test needs root, and CI must have it");
                return None;
            }
            let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
            let root = mounts
                .into_iter()
                .find(|mount| mount.join("cgroup.procs").exists() && mount.join("cgroup.controllers").exists())?;
            let base = root.join(format!("plat-test-{name}-{}", std::process::id()));
            fs::create_dir_all(base.join("part0")).unwrap();
            Some(Self(base))
        }

        fn part(&self) -> PathBuf {
            self.0.join("part0")
        }
    }

    impl Drop for Groups {
        fn drop(&mut self) {
            let _ = fs::remove_dir(self.part());
            let _ = fs::remove_dir(&self.0);
        }
    }

    fn part() -> PartitionName {
        PartitionName::parse("part0").unwrap()
    }

    fn identity(sockets: &mut Sockets, groups: &Groups) -> String {
        sockets.read(&part(), &groups.part()).unwrap().identity
    }

    #[test]
    fn what_is_attached_once_stays_and_half_of_it_is_made_whole() {
        let Some(groups) = Groups::new("attached") else { return };
        let mut sockets = Sockets::default();
        assert!(sockets.read(&part(), &groups.part()).is_err() && !sockets.is_watched(&groups.part()));
        sockets.watch(&groups.part()).unwrap();
        assert!(sockets.is_watched(&groups.part()));
        let first = identity(&mut sockets, &groups);
        // Another agent, and the same one again.
        let mut other = Sockets::default();
        for sockets in [&mut other, &mut sockets] {
            sockets.watch(&groups.part()).unwrap();
            assert_eq!(identity(sockets, &groups), first);
        }
        let folder = File::open(&groups.0).unwrap();
        let sent = bpf::attached(folder.as_fd(), Direction::Sent).unwrap().pop().unwrap();
        bpf::detach(folder.as_fd(), Direction::Sent, sent.program.as_fd()).unwrap();
        sockets.watch(&groups.part()).unwrap();
        assert_ne!(identity(&mut sockets, &groups), first, "nobody counted what was sent in between");
        for direction in [Direction::Received, Direction::Sent] {
            assert_eq!(bpf::attached(folder.as_fd(), direction).unwrap().len(), 1);
        }
    }

    #[test]
    fn groups_that_are_gone_are_forgotten_and_one_that_is_not_there_yet_has_no_traffic() {
        let Some(groups) = Groups::new("gone") else { return };
        let mut sockets = Sockets::default();
        sockets.watch(&groups.part()).unwrap();
        let map = sockets.counting.as_ref().unwrap().map.try_clone().unwrap();
        let own = number(&groups.part()).unwrap();
        for group in [own, 1] {
            bpf::put_in(map.as_fd(), group, [7, 8]).unwrap();
        }
        sockets.tidy(&groups.part());
        assert_eq!(bpf::keys(map.as_fd()), [own]);
        let link = sockets.read(&part(), &groups.part()).unwrap();
        assert_eq!((link.received, link.sent), (7, 8));
        sockets.forget(&part());
        assert!(bpf::keys(map.as_fd()).is_empty());
        fs::remove_dir(groups.part()).unwrap();
        let none = sockets.read(&part(), &groups.part()).unwrap();
        assert_eq!((none.received, none.sent), (0, 0));
    }
}
