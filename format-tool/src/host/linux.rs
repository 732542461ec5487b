//! Linux. One match: each kind of action has a file of its own.

mod accounts;
mod attributes;
mod directories;
mod disk;
mod files;
mod guard;
mod mounts;
mod network;
mod place;
mod processes;
mod program;
mod quota;
mod signals;
mod sysctls;
mod tap;

use super::{Host, Outcome};
use node_format_plan::facts::{Kernel, Machine, Others, Owner, Presence, Privileges, Subordinate};
use node_format_plan::{Action, HostFacts, Kind, Scope, Thing};
use plat_model::problem::{Problem, Result, codes};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::Builder;

/// The machine that this process runs on; its files perhaps beneath another root.
pub struct LinuxHost {
    root: PathBuf,
    tree: directories::Tree,
    signals: Option<Arc<signals::Stop>>,
    /// What the programs that are started must keep open.
    held: Option<fs::File>,
    excused: Vec<Problem>,
    /// What was taken out of the user database, should it have to come back.
    taken: accounts::Entries,
    /// Who was put into which groups, or taken out, should that have to be taken back.
    moved: accounts::Moved,
    /// What files had that were removed, should they have to come back.
    taken_files: files::Taken,
    /// What was taken out of namespaces, should it have to come back.
    taken_inside: network::Taken,
    /// For link-local addresses.
    followed: network::Followed,
    /// For the settings of the kernel.
    begun: sysctls::Begun,
}

impl LinuxHost {
    /// All paths are taken to lie beneath `root`, users are looked up and made in it; links are those of the current
    /// network namespace whatever the root.
    ///
    /// # Errors
    /// If `root` is not a directory that can be opened, or what is written beneath it would lie outside.
    pub fn new(root: &Path) -> Result<Self> {
        // Whoever names the root may do so through links; beneath it none is followed.
        let root = &root
            .canonicalize()
            .map_err(|e| Problem::new(codes::FILE, format!("{} cannot be opened", root.display())).because(e))?;
        let is_link = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_symlink());
        let mut on_the_way = ["etc", "run", "run/netns", "var", "var/lib"].into_iter().map(|path| root.join(path));
        if root != Path::new("/")
            && let Some(link) = on_the_way.find(is_link)
        {
            return Err(Problem::new(codes::FILE, format!("{} cannot stand for a machine's root", root.display()))
                .because(format!("{} is a symbolic link, which may lead out of it", link.display()))
                .fix("give the root of a file system with directories there"));
        }
        Ok(Self {
            root: root.to_path_buf(),
            tree: directories::Tree::open(root)?,
            signals: None,
            held: None,
            excused: Vec::new(),
            taken: accounts::Entries::default(),
            moved: accounts::Moved::new(),
            taken_files: files::Taken::default(),
            taken_inside: network::Taken::default(),
            followed: network::Followed::default(),
            begun: sysctls::Begun::default(),
        })
    }

    /// From now on SIGINT and SIGTERM do not end the process: a run stops at its next batch, or in the middle of erasing, and is
    /// undone.
    ///
    /// # Errors
    /// If the signals cannot be caught.
    pub fn stop_on_signals(&mut self) -> Result<()> {
        let signals = Arc::new(signals::Stop::catch()?);
        self.tree.stop_on(signals.clone());
        self.signals = Some(signals);
        Ok(())
    }

    fn namespaces(&self) -> network::Namespaces {
        network::Namespaces::new(self.beneath_root(Path::new("/run/netns")))
    }

    /// Where a path of the configuration is for the rest of the system.
    pub fn beneath_root(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// What a machine is known by; empty if it has none.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn machine_id(&mut self) -> Result<String> {
        Ok(match files::read(&mut self.tree, Path::new("/etc/machine-id"))? {
            files::Found::File(file) => file.text.trim().to_owned(),
            files::Found::Nothing | files::Found::Other(_) => String::new(),
        })
    }

    /// Everything but the network.
    fn observe_here(&mut self, scope: &Scope) -> Result<HostFacts> {
        let directories::Seen { paths, mounted, mounted_on } = self.tree.observe(scope)?;
        let inside = self.namespaces().observe(&scope.namespaces)?;
        let others = inside.iter().filter(|(_, (_, others))| *others != Others::default());
        let others_inside = others.map(|(name, (_, others))| (name.clone(), others.clone())).collect();
        let namespaces = inside.into_iter().map(|(name, (found, _))| (name, found)).collect();
        let mut facts = HostFacts {
            caller: Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() },
            privileges: privileges(),
            machine: machine(),
            kernel: kernel(),
            paths,
            mounted,
            mounted_on,
            sysctls: sysctls::observe(&scope.sysctls),
            namespaces,
            others_inside,
            not_namespaces: self.namespaces().in_the_way(&scope.namespaces),
            mounted_again: self.namespaces().mounted_again(&scope.namespaces)?,
            entered: self.namespaces().entered(&scope.leaving_namespaces),
            ..HostFacts::default()
        };
        disk::observe(&self.tree, &scope.disk, &mut facts);
        for path in &scope.files {
            match files::read(&mut self.tree, path)? {
                files::Found::Nothing => {}
                files::Found::File(file) => drop(facts.files.insert(path.clone(), file)),
                files::Found::Other(kind) => drop(facts.not_files.insert(path.clone(), kind.into())),
            }
        }
        if !scope.guard.is_empty() && facts.kernel.nft == Presence::Present {
            facts.guard = guard::observe(&scope.guard)?;
        }
        if scope.accounts {
            let found = accounts::observe(&self.root, &self.tree)?;
            (facts.users, facts.groups, facts.other_lists) = (found.users, found.groups, found.other_lists);
            (facts.other_uids, facts.other_gids) = (found.other_uids, found.other_gids);
            (facts.left_in_shadow, facts.left_in_gshadow) = (found.left_in_shadow, found.left_in_gshadow);
            (facts.subordinate_uids, facts.subordinate_gids) = (found.subordinate_uids, found.subordinate_gids);
        }
        if !scope.processes.is_empty() {
            let whose = |range: &&Subordinate| {
                let uid = facts.users.get(&range.owner).map(|user| user.uid).or_else(|| range.owner.parse().ok());
                uid.is_some_and(|uid| scope.processes.contains(&uid))
            };
            let ranges: Vec<_> = facts.subordinate_uids.iter().filter(whose).map(|r| (r.first, r.count)).collect();
            facts.busy_uids = processes::busy_uids(&scope.processes, &ranges)?;
        }
        Ok(facts)
    }
}

impl Host for LinuxHost {
    fn observe(&mut self, scope: &Scope) -> Result<HostFacts> {
        // The network's tables are the longest answer, and nobody else waits for the kernel as long.
        std::thread::scope(|threads| {
            // Where a thread is refused, one comes after the other.
            let network = scope.network.then(|| Builder::new().spawn_scoped(threads, network::observe).ok());
            let mut facts = self.observe_here(scope)?;
            if let Some(seen) = network {
                let panicked = |_| Err(failed("the network cannot be looked at", "a thread of node-format panicked"));
                let seen = seen.map_or_else(network::observe, |seen| seen.join().unwrap_or_else(panicked))?;
                (facts.links, facts.addresses) = (seen.links, seen.addresses);
                (facts.local_routes, facts.routes) = (seen.local_routes, seen.routes);
                (facts.announced, facts.leases, facts.ways) = (seen.announced, seen.leases, seen.ways);
                (facts.odd, facts.doubled, facts.refused) = (seen.odd, seen.doubled, seen.refused);
                (facts.further, facts.stacked, facts.set_frames) = (seen.further, seen.stacked, seen.set_frames);
                facts.indexes = seen.indexes;
                (facts.without_own_mac, facts.unknown_mac) = (seen.without_own_mac, seen.unknown_mac);
            }
            Ok(facts)
        })
    }

    fn perform(&mut self, batch: &[Action]) -> Outcome {
        let Some(first) = batch.first() else { return Outcome::first(0, 0, None) };
        if matches!(first.kind(), Kind::AddBridges | Kind::AddTaps) {
            self.begun.make_links(batch);
        }
        match first.kind() {
            Kind::AddAccounts => accounts::add(&self.root, &self.tree, batch, self.held.as_ref(), &self.taken),
            Kind::RemoveAccounts => accounts::remove(&self.root, &self.tree, batch, &mut self.taken),
            Kind::SetAccounts => accounts::set(&self.root, &self.tree, batch, &mut self.moved),
            Kind::RemoveDirectories => {
                let outcome = one_by_one(batch, |action| self.tree.perform(action));
                with_further(outcome, self.tree.lacking())
            }
            // All are tried: what a failed removal brings back is to come back as far as it can, and what is made in vain is
            // taken away again.
            Kind::MakeDirectories | Kind::SetDirectories => {
                let outcome = each(batch, |action| self.tree.perform(action));
                with_further(outcome, self.tree.lacking())
            }
            Kind::SetDiskLimits => each(batch, |action| {
                self.excused.extend(disk::perform(&mut self.tree, action)?);
                Ok(())
            }),
            Kind::SetSysctls => each(batch, |action| sysctls::perform(action, &mut self.begun)),
            Kind::SetGuard => one_by_one(batch, |action| guard::perform(action, self.held.as_ref())),
            Kind::MoveUplink => move_uplinks(batch),
            Kind::AddNamespaces | Kind::RemoveNamespaces => {
                let namespaces = self.namespaces();
                let (outcome, left_out) = namespaces.perform(batch, &mut self.taken_inside, &mut self.followed);
                self.excused.extend(left_out);
                outcome
            }
            Kind::AddTaps => {
                let (outcome, left_out) = network::add_taps(batch);
                self.excused.extend(left_out);
                outcome
            }
            Kind::RemoveTaps => network::remove_taps(batch),
            Kind::SetLinks => network::set_links(batch, &mut self.followed),
            Kind::AddBridges
            | Kind::RemoveBridges
            | Kind::AddAddresses
            | Kind::RemoveAddresses
            | Kind::AddRoutes
            | Kind::RemoveRoutes => network::perform(batch),
            Kind::WriteFiles(_) => files::perform(&mut self.tree, batch, &mut self.taken_files),
        }
    }

    fn excused(&mut self) -> Vec<Problem> {
        std::mem::take(&mut self.excused)
    }

    fn clear(&mut self, forgotten: &[Thing]) -> Result<()> {
        files::clear(&mut self.tree, forgotten)?;
        self.tree.clear(forgotten)?;
        accounts::clear(&self.root, &self.tree, forgotten)
    }

    fn hold(&mut self, lock: &fs::File) -> Result<()> {
        self.held = Some(lock.try_clone().map_err(|e| failed("the record's lock cannot be kept", e))?);
        Ok(())
    }

    fn let_go(&mut self) {
        self.held = None;
        self.begun = sysctls::Begun::default();
        self.moved.clear();
        self.taken_files = files::Taken::default();
        self.tree.let_go();
        self.taken_inside = network::Taken::default();
        self.followed = network::Followed::default();
    }

    fn interrupted(&mut self) -> bool {
        self.signals.as_ref().is_some_and(|signals| signals.came())
    }
}

/// So many of the failures of one batch are named.
const NAMED: usize = 8;

/// Each by itself; the first failure is told in full, of the others what failed.
fn each(batch: &[Action], mut perform: impl FnMut(&Action) -> Result<()>) -> Outcome {
    let (mut done, mut problem, mut failed) = (Vec::with_capacity(batch.len()), None::<Problem>, 0);
    for action in batch {
        let result = perform(action);
        done.push(result.is_ok());
        failed += usize::from(result.is_err());
        match (&mut problem, result) {
            (_, Ok(())) => {}
            (Some(first), Err(more)) if failed <= NAMED => first.why.push_str(&format!("; besides, {}", more.what)),
            (Some(_), Err(_)) => {}
            (none, Err(first)) => *none = Some(first),
        }
    }
    if let Some(first) = problem.as_mut().filter(|_| failed > NAMED) {
        first.why.push_str(&format!("; and {} more", failed - NAMED));
    }
    Outcome { done, problem }
}

/// Most failures that are told together.
const TOLD: usize = 10;

/// What was done, and what is to be told besides.
fn with_further(Outcome { done, problem }: Outcome, further: Vec<Problem>) -> Outcome {
    Outcome { done, problem: told_together(problem.into_iter().chain(further)) }
}

/// The first failure in full, of the others what failed and why.
fn told_together(mut problems: impl Iterator<Item = Problem>) -> Option<Problem> {
    let mut first = problems.next()?;
    for more in problems.by_ref().take(TOLD - 1) {
        first.why.push_str(&format!("; besides, {}", more.one_line()));
    }
    match problems.count() {
        0 => {}
        more => first.why.push_str(&format!("; and {more} more")),
    }
    Some(first)
}

/// In order, up to the first failure. What takes several steps counts as done once it is begun: taking it back undoes
/// whatever there is of it.
fn move_uplinks(batch: &[Action]) -> Outcome {
    for (n, action) in batch.iter().enumerate() {
        if let Err(network::NotMoved { problem, begun }) = network::move_uplink(action) {
            return Outcome::first(n + usize::from(begun), batch.len(), Some(problem));
        }
    }
    Outcome::first(batch.len(), batch.len(), None)
}

/// In order, up to the first failure.
fn one_by_one(batch: &[Action], mut perform: impl FnMut(&Action) -> Result<()>) -> Outcome {
    for (n, action) in batch.iter().enumerate() {
        if let Err(problem) = perform(action) {
            return Outcome::first(n, batch.len(), Some(problem));
        }
    }
    Outcome::first(batch.len(), batch.len(), None)
}

fn failed(what: impl Into<String>, why: impl std::fmt::Display) -> Problem {
    Problem::new(codes::APPLY_FAILED, what).because(why)
}

fn privileges() -> Privileges {
    const CAP_NET_ADMIN: u32 = 12;
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    Privileges { root: rustix::process::geteuid().is_root(), net_admin: bits >> CAP_NET_ADMIN & 1 == 1 }
}

fn machine() -> Machine {
    let cpus = std::thread::available_parallelism().ok().and_then(|n| u32::try_from(n.get()).ok());
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: Option<u64> = total.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    Machine {
        cpu_millis: cpus.map(|n| n.saturating_mul(1000)),
        memory_mib: kib.and_then(|kib| u32::try_from(kib / 1024).ok()),
    }
}

fn kernel() -> Kernel {
    let presence = |path: &str| if Path::new(path).exists() { Presence::Present } else { Presence::Absent };
    Kernel {
        tun: presence("/dev/net/tun"),
        ipv6: presence("/proc/sys/net/ipv6"),
        nft: if guard::program().is_some() { Presence::Present } else { Presence::Absent },
        systemd: presence("/run/systemd/system"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_nothing_else_from_being_done_and_all_are_told() {
        let batch = [1, 2, 3].map(|gid| Action::AddGroup { name: format!("g{gid}"), gid, members: [].into() });
        let outcome = each(&batch, |action| match action {
            Action::AddGroup { gid: 2, .. } => Ok(()),
            Action::AddGroup { name, .. } => Err(failed(format!("{name} cannot be made"), "it is there")),
            _ => Ok(()),
        });
        assert_eq!(outcome.done, [false, true, false]);
        let problem = outcome.problem.unwrap();
        assert_eq!(
            (problem.what.as_str(), problem.why.as_str()),
            ("g1 cannot be made", "it is there; besides, g3 cannot be made")
        );
    }

    #[test]
    fn failures_that_are_told_together_are_bounded() {
        let failures = |amount: usize| (0..amount).map(|n| failed(format!("g{n} cannot be made"), format!("why {n}")));
        assert_eq!(told_together(failures(0)), None);
        assert_eq!(told_together(failures(1)).unwrap(), failed("g0 cannot be made", "why 0"));
        let all = told_together(failures(12)).unwrap();
        assert!(all.why.starts_with("why 0; besides, P0504: g1 cannot be made (why 1); besides, "), "{}", all.why);
        assert!(all.why.ends_with("g9 cannot be made (why 9); and 2 more"), "{}", all.why);
    }
}
