//! Network namespaces of partitions, as `ip netns` keeps them: a file in `/run/netns` that the namespace is mounted on,
//! with one pair of links to the bridge.

mod elsewhere;
mod entered;
mod failures;
mod folder;
mod furnish;
mod others;
mod taken;

pub(in crate::host::linux) use taken::Taken;

use super::changes::change;
use super::connection::Connection;
use super::links::Ends;
use super::near::Followed;
use super::{links, perform, refused, remove_taps, see};
use crate::host::Outcome;
use crate::host::linux::{failed, sysctls};
use elsewhere::{elsewhere, enter};
use failures::Failures;
use furnish::furnish;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use node_format_plan::Action;
use node_format_plan::action::{Change, Namespace};
use node_format_plan::facts::{LinkFact, LinkKind, NamespaceFact, Others};
use plat_model::problem::{Problem, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use taken::Inside;

/// The inner end of the pair.
const INNER: &str = "eth0";
/// What is in each namespace as soon as a tunnel's module is loaded (`net.core.fb_tunnels_only_for_init_net`).
const MADE_BY_THE_KERNEL: &[&str] =
    &["tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "sit0", "ip6tnl0", "ip6gre0", "ip6_vti0"];
const NONE: Option<&str> = None;
const PAIR: &str = "its pair of links";

/// Where they are kept.
pub(in crate::host::linux) struct Namespaces {
    folder: PathBuf,
}

impl Namespaces {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// What is in those of these that exist: its partition's, and what is there besides.
    pub fn observe(&self, names: &BTreeSet<String>) -> Result<BTreeMap<String, (NamespaceFact, Others)>> {
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        let outer = Connection::open().and_then(|mut connection| links::all(&mut connection));
        let seen = outer.map(|outer: Vec<_>| links::ends(&outer)).and_then(|outer| {
            elsewhere(|| {
                let look = |name: &String| {
                    let Some(namespace) = self.open(name)? else { return Ok(None) };
                    enter(&namespace)?;
                    Ok(Some((name.clone(), look_inside(&outer)?)))
                };
                names.iter().filter_map(|name| look(name).transpose()).collect::<io::Result<BTreeMap<_, _>>>()
            })
        });
        seen.map_err(|e| failed("namespaces cannot be looked into", e))
    }

    /// What stands where one of these must be, and is none. An empty file is what is left of a namespace that is gone.
    pub fn in_the_way(&self, names: &BTreeSet<String>) -> BTreeMap<String, String> {
        let what = |name: &String| {
            let found = fs::symlink_metadata(self.path(name)).ok()?;
            let what = match found.file_type() {
                kind if kind.is_dir() => "a directory",
                kind if kind.is_file() && (found.len() == 0 || matches!(self.open(name), Ok(Some(_)))) => {
                    return None;
                }
                kind if kind.is_file() => "a file with something in it",
                kind if kind.is_symlink() => "a symbolic link",
                _ => "something else",
            };
            Some((name.clone(), what.to_owned()))
        };
        names.iter().filter_map(what).collect()
    }

    /// Those of these that are mounted a second time, out of sight.
    pub fn mounted_again(&self, names: &BTreeSet<String>) -> Result<BTreeSet<String>> {
        if names.is_empty() {
            return Ok(BTreeSet::new());
        }
        folder::mounted_again(&self.folder, names).map_err(|e| failed("mounts cannot be looked at", e))
    }

    /// Performs actions that all make namespaces what they must be, or that all remove them. `taken`, `followed`: so far.
    /// Besides, what of others' could not come back.
    pub fn perform(&self, batch: &[Action], taken: &mut Taken, followed: &mut Followed) -> (Outcome, Vec<Problem>) {
        let removes =
            |action: &Action| matches!(action, Action::SetNamespace { state, .. } if state.to.inside.is_none());
        if batch.first().is_some_and(removes) {
            return (self.remove(batch, taken), Vec::new());
        }
        let mut done = vec![false; batch.len()];
        let (problem, left_out) = self.make_all(batch, &mut done, taken, followed).told();
        (Outcome { done, problem }, left_out)
    }

    /// Step by step for all of them at once: to the kernel each step is one question and many requests. One that fails keeps no
    /// other from being made.
    fn make_all<'a>(
        &self,
        batch: &'a [Action],
        done: &mut [bool],
        taken: &mut Taken,
        followed: &mut Followed,
    ) -> Failures<'a> {
        let mut failures = Failures::default();
        let mut all = Vec::with_capacity(batch.len());
        for (n, action) in batch.iter().enumerate() {
            let Action::SetNamespace { name, state, .. } = action else { continue };
            match self.begin(n, action, &mut done[n]) {
                Ok(making) => all.extend(making),
                Err(problem) => {
                    let lost = state.to.inside.as_ref().zip(taken.get(name));
                    let lost = lost.map(|(wanted, taken)| taken.all_of(wanted, state.from.inside.as_ref()));
                    failures.add(name, problem, lost.unwrap_or_default());
                }
            }
        }
        if failures.any() {
            all.retain(|making| {
                let waits = making.outside.is_some() && making.is_half_paired() && self.leave(making).is_ok();
                done[making.n] &= !waits;
                !waits
            });
        }
        // Half a pair is of no use: what is left of it goes. So does the whole one where there was none before the run.
        let gone = all.iter().filter(|making| making.outside.is_none() || !making.is_paired());
        let gone = gone.filter_map(|making| Some((making.name, making.veth, making.from.outside.clone()?)));
        let gone = gone.map(|(name, veth, link)| (name, Action::RemoveLink { name: veth.into(), link }));
        let (names, gone): (Vec<_>, Vec<_>) = gone.unzip();
        failures.of(&names, perform(&gone));
        let pairs = all.iter().filter_map(|making| Some((making, making.outside?)));
        let (paired, single): (Vec<Pair>, Vec<Pair>) = pairs.partition(|(making, _)| making.is_paired());
        let mut without = BTreeSet::new();
        match add_pairs(&single) {
            Ok(results) => {
                for ((making, _), result) in single.iter().zip(results) {
                    let Err(e) = result else { continue };
                    without.insert(making.name);
                    making.failed(e.into(), PAIR, taken, &mut failures);
                }
            }
            Err(e) => {
                let names: Vec<&str> = single.iter().map(|(making, _)| making.name).collect();
                let problem = Some(failed("the network cannot be changed", e));
                failures.of(&names, Outcome { done: Vec::new(), problem });
            }
        }
        let is_there = |making: &Making| !failures.has(making.name) && !without.contains(making.name);
        let joined = paired.iter().chain(single.iter().filter(|(making, _)| is_there(making)));
        let joined = joined.map(|(making, outside)| {
            let from = making.from.outside.clone().filter(|_| making.is_paired()).unwrap_or_else(blank);
            (making.name, Action::SetLink { name: making.veth.into(), from, to: (*outside).clone() })
        });
        let (names, joined): (Vec<_>, Vec<_>) = joined.unzip();
        let set = change(&joined, followed);
        let refused = set.problem(&joined, |_| false);
        let mut gone = if refused.is_some() { went_meanwhile(&all) } else { BTreeSet::new() };
        gone.retain(|name| !without.contains(name));
        let is_his = |(name, done): (&&str, &bool)| *done || gone.contains(name);
        if set.done.len() == names.len() && names.iter().zip(&set.done).all(is_his) {
            // With its own end whoever is root in there takes the pair away.
            without.extend(&gone);
            gone.iter().for_each(|name| failures.keep(name, vec![format!("{PAIR}, which went meanwhile")]));
            failures.besides(set.problem(&joined, |n| gone.contains(names[n])));
        } else {
            failures.of(&names, Outcome { done: set.done, problem: refused });
        }
        for making in all.iter().filter(|making| !without.contains(making.name)) {
            let inside = taken.entry(making.name.into()).or_default();
            let furnished = elsewhere(|| {
                enter(&making.namespace)?;
                Ok(furnish(making.inside, inside))
            });
            match furnished {
                Ok(Ok(furnished)) => {
                    let (his, refused): (Vec<_>, Vec<_>) =
                        furnished.refused.into_iter().partition(|(_, e)| making.may_be_kept(e));
                    failures.keep(making.name, his.into_iter().map(|(what, e)| format!("{what} ({e})")).collect());
                    let refusal = refused.into_iter().next().map(|(_, e)| why(e, making.action));
                    failures.furnished(making.name, refusal, furnished.left_out);
                }
                Ok(Err(e)) => making.failed(e, INNER, taken, &mut failures),
                Err(e) => {
                    let lost = inside.all_of(making.inside, making.from.inside.as_ref());
                    failures.add(making.name, why(e, making.action), lost);
                }
            }
        }
        failures
    }

    /// The namespace itself, where it is missing. `done`: whatever is made of it must be undone if the rest fails. One that is gone
    /// since it was looked at was not begun.
    fn begin<'a>(&self, n: usize, action: &'a Action, done: &mut bool) -> Result<Option<Making<'a>>> {
        let Action::SetNamespace { name, veth, state } = action else { return Ok(None) };
        let (outside, Some(inside)) = (state.to.outside.as_ref(), &state.to.inside) else { return Ok(None) };
        let broken = |e: io::Error| failed(format!("cannot make namespace {name}"), e);
        if state.from.inside.is_none() {
            self.mount(name).map_err(broken)?;
            *done = true;
        }
        let opened = self.open(name).and_then(|opened| opened.ok_or_else(|| Errno::ENOENT.into()));
        let namespace = opened.map_err(broken)?;
        *done = true;
        Ok(Some(Making { n, action, name, veth, from: &state.from, outside, inside, namespace }))
    }

    /// Of a run that is bound to fail nothing more is begun that it could not bring back: half a pair.
    fn leave(&self, making: &Making) -> io::Result<()> {
        if making.from.inside.is_none() { self.unmount(making.name) } else { Ok(()) }
    }

    fn remove(&self, batch: &[Action], taken: &mut Taken) -> Outcome {
        // What cannot be looked at comes back as far as the facts say.
        let _ = self.note(batch, taken);
        let pairs: Vec<Action> = batch.iter().filter_map(pair).collect();
        let gone = remove_taps(&pairs);
        if gone.problem.is_some() {
            return Outcome { done: vec![false; batch.len()], problem: gone.problem };
        }
        // One that cannot be removed keeps no other.
        let (mut done, mut problem) = (Vec::with_capacity(batch.len()), None);
        for action in batch {
            let removed = match action {
                Action::SetNamespace { name, .. } => {
                    self.unmount(name).map_err(|e| failed(format!("cannot remove namespace {name}"), e))
                }
                _ => Ok(()),
            };
            // What is not unmounted has its pair again; what is, undoing makes anew.
            let stays = removed.is_err() && self.pair_again(action, taken);
            done.push(!stays);
            problem = problem.or(removed.err());
        }
        Outcome { done, problem }
    }

    /// What these have, before they go.
    fn note(&self, batch: &[Action], taken: &mut Taken) -> io::Result<()> {
        elsewhere(|| {
            for action in batch {
                let Action::SetNamespace { name, state, .. } = action else { continue };
                let Some(namespace) = self.open(name)? else { continue };
                enter(&namespace)?;
                let taken = taken.entry(name.clone()).or_default();
                taken.extend(Inside::look()?);
                taken.local_routes.extend(state.from.inside.iter().flat_map(|inside| &inside.local_routes));
            }
            Ok(())
        })
    }

    /// Gives a namespace back the pair that it had. False: it is not there.
    fn pair_again(&self, action: &Action, taken: &mut Taken) -> bool {
        let Action::SetNamespace { name, veth, state } = action else { return true };
        if !matches!(self.open(name), Ok(Some(_))) {
            return false;
        }
        let alone = Namespace { outside: None, ..state.from.clone() };
        let state = Box::new(Change { from: alone, to: state.from.clone() });
        let back = Action::SetNamespace { name: name.clone(), veth: veth.clone(), state };
        // The next run mends what does not come back.
        let _ = self.make_all(&[back], &mut [false], taken, &mut Followed::default());
        true
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// `None`: there is no namespace of the name.
    fn open(&self, name: &str) -> io::Result<Option<File>> {
        let Some(file) = self.open_file(name)? else { return Ok(None) };
        Ok(is_namespace(&file)?.then_some(file))
    }

    /// `None`: there is nothing of the name, or a link or a socket.
    fn open_file(&self, name: &str) -> io::Result<Option<File>> {
        let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
        match File::options().read(true).custom_flags(flags).open(self.path(name)) {
            Ok(file) => Ok(Some(file)),
            Err(e) if matches!(e.raw_os_error(), Some(nix::libc::ENOENT | nix::libc::ELOOP | nix::libc::ENXIO)) => {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// What it is to be mounted on: a new file, or the empty one that is left of a namespace that is gone.
    fn place(&self, name: &str) -> io::Result<(File, bool)> {
        fs::create_dir_all(&self.folder)?;
        folder::share(&self.folder)?;
        match File::create_new(self.path(name)) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                let found =
                    self.open_file(name)?.map(|file| Ok::<_, io::Error>((is_left(&file)?, file))).transpose()?;
                let left = found.and_then(|(is_left, file)| is_left.then_some((file, false)));
                left.ok_or_else(|| {
                    io::Error::other("something of the name is there by now, which node-format did not make")
                })
            }
            made => Ok((made?, true)),
        }
    }

    /// Leaves nothing behind when it fails.
    fn mount(&self, name: &str) -> io::Result<()> {
        let (file, is_new) = self.place(name)?;
        let at = format!("/proc/self/fd/{}", file.as_raw_fd());
        let mounted = elsewhere(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let namespace = Path::new("/proc/thread-self/ns/net");
            Ok(mount(Some(namespace), at.as_str(), NONE, MsFlags::MS_BIND, NONE)?)
        });
        if mounted.is_err() && is_new {
            let _ = fs::remove_file(self.path(name));
        }
        mounted
    }

    /// What then comes to light, a namespace or a file of somebody else's, stays.
    fn unmount(&self, name: &str) -> io::Result<()> {
        let path = self.path(name);
        match umount2(&path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            // It was not mounted any more, or never came so far.
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(e) => return Err(e.into()),
        }
        match self.open_file(name)? {
            Some(file) if is_left(&file)? => match fs::remove_file(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
                // It is mounted a second time, out of sight: the plan says so.
                Err(e) if e.kind() == io::ErrorKind::ResourceBusy => Ok(()),
                removed => removed,
            },
            _ => Ok(()),
        }
    }
}

fn is_namespace(file: &File) -> io::Result<bool> {
    Ok(i128::from(rustix::fs::fstatfs(file)?.f_type) == i128::from(nix::libc::NSFS_MAGIC))
}

/// Whether it is an empty file, as one is that a namespace was mounted on.
fn is_left(file: &File) -> io::Result<bool> {
    let found = file.metadata()?;
    Ok(found.is_file() && found.len() == 0 && !is_namespace(file)?)
}

/// A namespace that is being made what it must be.
struct Making<'a> {
    /// Its place in the batch.
    n: usize,
    action: &'a Action,
    name: &'a str,
    veth: &'a str,
    from: &'a Namespace,
    /// `None`: there is to be no pair.
    outside: Option<&'a LinkFact>,
    inside: &'a NamespaceFact,
    namespace: File,
}

/// One that is to have its pair, and the outer end of that.
type Pair<'m, 'a> = (&'m Making<'a>, &'a LinkFact);

impl<'a> Making<'a> {
    /// Whether whoever is root in a namespace that was there already may have kept it so: not where the kernel cannot do it, or the
    /// machine has no room.
    fn may_be_kept(&self, e: &io::Error) -> bool {
        let machines = [Errno::EOPNOTSUPP, Errno::EAFNOSUPPORT, Errno::EPROTONOSUPPORT];
        let machines =
            machines.into_iter().chain([Errno::EPERM, Errno::ENOMEM, Errno::ENOBUFS, Errno::EMFILE, Errno::ENFILE]);
        let errno = e.raw_os_error().map(Errno::from_raw);
        self.from.inside.is_some() && errno.is_some_and(|errno| !machines.into_iter().any(|other| other == errno))
    }

    /// Nothing else is done to it.
    fn failed(&self, e: io::Error, what: &str, taken: &Taken, failures: &mut Failures<'a>) {
        let inside = taken.get(self.name);
        let lost = inside.map(|inside| inside.all_of(self.inside, self.from.inside.as_ref())).unwrap_or_default();
        if self.may_be_kept(&e) {
            failures.keep(self.name, vec![format!("{what} ({e})")]);
            failures.furnished(self.name, None, lost);
        } else {
            failures.add(self.name, why(e, self.action), lost);
        }
    }

    fn is_half_paired(&self) -> bool {
        self.from.outside.is_some() && !self.is_paired()
    }

    fn is_paired(&self) -> bool {
        self.from.outside.is_some() && self.from.inside.as_ref().is_some_and(|inside| inside.link.is_some())
    }
}

/// Those of these whose pair is gone by now, though it was there, or was made.
fn went_meanwhile<'a>(all: &[Making<'a>]) -> BTreeSet<&'a str> {
    let links = Connection::open().and_then(|mut connection| links::all(&mut connection));
    let Ok(links) = links else { return BTreeSet::new() };
    let is_there = |veth: &str| links.iter().any(|link: &links::Link| link.name == veth);
    let gone = all.iter().filter(|making| making.from.inside.is_some() && making.outside.is_some());
    gone.filter(|making| !is_there(making.veth)).map(|making| making.name).collect()
}

fn add_pairs(single: &[Pair]) -> io::Result<Vec<std::result::Result<(), Errno>>> {
    if single.is_empty() {
        return Ok(Vec::new());
    }
    let pair = |connection: &Connection, (making, outside): &Pair| {
        let inner = (INNER, making.inside.link.as_ref().unwrap_or(outside));
        let outer = (making.veth, *outside);
        links::add_pair(&connection.handle, outer, inner, making.namespace.as_raw_fd())
    };
    let mut connection = Connection::open()?;
    let requests = single.iter().map(|making| pair(&connection, making)).collect();
    connection.call(requests)
}

/// A pair's end as the kernel makes it.
fn blank() -> LinkFact {
    LinkFact { kind: LinkKind::Veth, up: false, bridge: None, group: 0, mac: [0; 6], mtu: None, isolated: false }
}

fn pair(action: &Action) -> Option<Action> {
    let Action::SetNamespace { veth, state, .. } = action else { return None };
    Some(Action::RemoveLink { name: veth.clone(), link: state.from.outside.clone()? })
}

fn why(e: io::Error, action: &Action) -> Problem {
    match e.raw_os_error() {
        Some(errno) => refused(action, Errno::from_raw(errno)),
        None => failed("the network cannot be changed", e),
    }
}

/// `outer`: of the machine's links.
fn look_inside(outer: &Ends) -> io::Result<(NamespaceFact, Others)> {
    let seen = see(&mut Connection::open_within()?)?;
    let far: BTreeMap<&str, &String> = others::far_ends(&seen.ends, outer);
    let own = |ip| !is_link_local(ip);
    let on_it = seen.addresses.iter().filter(|found| found.link == INNER && !found.leased && own(found.address.addr()));
    let inside = NamespaceFact {
        lo_up: seen.links.get("lo").is_some_and(|lo| lo.up),
        addresses: on_it.map(|found| found.address).collect(),
        routes: seen.routes.iter().filter(|route| route.link == INNER).cloned().collect(),
        // What somebody adds an address to `lo` for, the kernel routes there by itself.
        local_routes: seen.marked_routes.iter().copied().filter(|range| !range.addr().is_loopback()).collect(),
        link: seen.links.get(INNER).cloned(),
        outside: far.get(INNER).map(|name| (*name).clone()),
        sysctls: sysctls::OF_A_NAMESPACE.iter().filter_map(|(key, value, _)| sysctls::set_to(key, value)).collect(),
    };
    let others = others::others(&seen, &far);
    let is_port = inside.link.as_ref().is_some_and(|link| link.bridge.is_some());
    let of_bridge = if is_port { others::set_for_a_port()? } else { BTreeSet::new() };
    Ok((inside, Others { of_bridge, ..others }))
}

fn is_link_local(ip: std::net::IpAddr) -> bool {
    matches!(ip, std::net::IpAddr::V6(ip) if ip.is_unicast_link_local())
}
