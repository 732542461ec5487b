//! What goes through the sockets of a partition that shares the machine's network.
//!
//! A small program of the kernel's is attached to the group that all partitions' groups are in. For each packet of a
//! socket it adds the bytes to what the partition's group has sent or received (`docs/decisions/0018`). It stays while
//! that group does, the agent's end included, and so do its counts.

use super::Link;
use super::bpf::{self, Direction};
use super::program::{GONE, counting};
use crate::host::linux::cgroup::number;
use crate::host::linux::process::boot_id;
use plat_model::id::PartitionName;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What the programs are called, with the form of what they count: another form has another digit.
const NAMES: [(Direction, &str, &str); 2] =
    [(Direction::Received, "plat_received_", "2"), (Direction::Sent, "plat_sent_", "2")];
const MAP_NAME: &str = "plat_traffic_2";

/// As many groups are known at a time.
const GROUPS: u32 = 32_768;

/// As many of them are of instances that are gone; the rest is for partitions, of which a node has fewer.
const GONE_MAX: usize = 16_384;

/// Groups that are gone are looked for once in so many times that it is seen to: in an hour of windows of a minute.
const TIDY_EVERY: u32 = 60;

/// The counts of one agent's partitions.
#[derive(Default)]
pub struct Sockets {
    counting: Option<Counting>,
    /// The number of each partition's group when it was read last.
    groups: BTreeMap<PartitionName, u64>,
    /// How often it was seen to.
    watched: u32,
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
        if self.watched.is_multiple_of(TIDY_EVERY) {
            self.tidy(group);
        }
        self.watched = self.watched.wrapping_add(1);
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
        for (direction, name, form) in NAMES {
            let program = bpf::load(&format!("{name}{form}"), direction, &counting(map.as_fd(), number, direction))?;
            bpf::attach(folder.as_fd(), direction, program.as_fd())?;
        }
        Self::found(&folder, number)?.ok_or_else(|| io::Error::other("its programs were taken away at once"))
    }

    /// What an earlier agent attached here.
    fn found(folder: &File, base: u64) -> io::Result<Option<Counting>> {
        let mut numbers = BTreeSet::new();
        for (direction, name, form) in NAMES {
            let all = bpf::attached(folder.as_fd(), direction)?;
            let mut own = all.into_iter().filter(|one| one.name.strip_prefix(name) == Some(form));
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

    /// Of every form.
    fn take_away(folder: &File) -> io::Result<()> {
        for (direction, name, _) in NAMES {
            for one in bpf::attached(folder.as_fd(), direction)?.into_iter().filter(|one| one.name.starts_with(name)) {
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
        if counted == Some(GONE) {
            // It could not be removed when the one before was freed, and is the next one's.
            let zero = bpf::put_in(counting.map.as_fd(), own, [0, 0]);
            zero.map_err(|e| format!("its sockets are held up as those of one that is gone: {e}"))?;
        }
        // Nothing has been sent or received yet.
        let [received, sent] = counted.filter(|counted| *counted != GONE).unwrap_or_default();
        if self.groups.get(partition) != Some(&own) {
            self.groups.insert(partition.clone(), own);
        }
        Ok(Link { identity: identity(&own.to_string()), received, sent })
    }

    /// Another group may stand where the one stood that is counted in.
    pub fn is_watched(&self, group: &Path) -> bool {
        let base = group.parent().and_then(number);
        self.counting.as_ref().is_some_and(|counting| Some(counting.base) == base)
    }

    /// The partition is free: its group has gone, or goes. Sockets of it may be in others' hands.
    pub fn forget(&mut self, partition: &PartitionName) {
        if let (Some(own), Some(counting)) = (self.groups.remove(partition), &self.counting)
            && let Err(why) = bpf::put_in(counting.map.as_fd(), own, GONE)
        {
            tracing::warn!(%partition, %why, "sockets that others have of it are not closed");
        }
    }

    /// Ends groups that are no more: an agent that was killed had not come to that. Of too many that are gone the oldest are
    /// forgotten.
    fn tidy(&self, group: &Path) {
        let (Some(counting), Some(base)) = (&self.counting, group.parent()) else { return };
        // Before the groups: one that is made meanwhile is not known, and is not taken for gone.
        let known = bpf::keys(counting.map.as_fd());
        let numbers =
            || fs::read_dir(base)?.map(|entry| Ok(entry?.metadata()?.ino())).collect::<io::Result<BTreeSet<u64>>>();
        // Else all were taken for gone.
        let Ok(there) = numbers() else { return };
        let gone: BTreeSet<u64> = known.into_iter().filter(|key| !there.contains(key)).collect();
        let too_many = gone.len().saturating_sub(GONE_MAX);
        for (n, key) in gone.into_iter().enumerate() {
            if n < too_many {
                bpf::take_out(counting.map.as_fd(), key);
            } else if let Err(why) = bpf::put_in(counting.map.as_fd(), key, GONE) {
                tracing::warn!(%why, "sockets of an instance that is gone are not closed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::path::PathBuf;
    use std::process::{Command, Stdio};

    /// A group with another one in it, in version 2; both go with the test.
    struct Groups(PathBuf);

    impl Groups {
        fn new(name: &str) -> Option<Self> {
            if !nix::unistd::geteuid().is_root() {
                assert!(std::env::var_os("CI").is_none(), "this test needs root, and CI must have it");
                return None;
            }
            let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
            let is_version_2 = |mount: &&Path| mount.join("cgroup.controllers").exists();
            let Some(root) = mounts.into_iter().find(is_version_2) else {
                assert!(std::env::var_os("CI").is_none(), "this test needs cgroup v2, and CI must have it");
                return None;
            };
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
    fn groups_that_are_gone_stay_so_and_one_that_is_not_there_yet_has_no_traffic() {
        let Some(groups) = Groups::new("gone") else { return };
        let mut sockets = Sockets::default();
        sockets.watch(&groups.part()).unwrap();
        let map = sockets.counting.as_ref().unwrap().map.try_clone().unwrap();
        let own = number(&groups.part()).unwrap();
        for group in [own, 1] {
            bpf::put_in(map.as_fd(), group, [7, 8]).unwrap();
        }
        sockets.tidy(&groups.part());
        let has = |group| bpf::look_up(map.as_fd(), group).unwrap();
        assert_eq!((has(own), has(1)), (Some([7, 8]), Some(GONE)));
        let link = sockets.read(&part(), &groups.part()).unwrap();
        assert_eq!((link.received, link.sent), (7, 8));
        // One whose group could not be removed: who comes next has it.
        sockets.forget(&part());
        assert_eq!(has(own), Some(GONE));
        let next = sockets.read(&part(), &groups.part()).unwrap();
        assert_eq!((next.received, next.sent, has(own)), (0, 0, Some([0, 0])));
        fs::remove_dir(groups.part()).unwrap();
        let none = sockets.read(&part(), &groups.part()).unwrap();
        assert_eq!((none.received, none.sent), (0, 0));
        sockets.forget(&part());
        assert_eq!(has(own), Some(GONE));
    }

    #[test]
    fn a_socket_whose_instance_is_gone_sends_nothing_more() {
        let Some(groups) = Groups::new("handed") else { return };
        let mut sockets = Sockets::default();
        sockets.watch(&groups.part()).unwrap();
        // Nobody answers at the address; what is sent goes as far as the link.
        let script = format!(
            "echo $$ > {}/cgroup.procs; ip link add name x0 type veth peer name y0; ip link set x0 up; ip link set y0 up
             ip address add 10.8.0.1/24 dev x0; exec bash -c '
             exec 3>/dev/udp/10.8.0.2/9; printf x >&3 && echo sent; read; printf x >&3 && echo sent again || echo refused'",
            groups.part().display()
        );
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-ec", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(said.next().unwrap().unwrap(), "sent");
        assert_eq!(sockets.read(&part(), &groups.part()).unwrap().sent, 29, "a byte and its headers");
        sockets.forget(&part());
        child.stdin.take().unwrap().write_all(b"go on\n").unwrap();
        assert_eq!(said.next().unwrap().unwrap(), "refused");
        child.wait().unwrap();
    }
}
