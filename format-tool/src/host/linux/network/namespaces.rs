//! Network namespaces of partitions, as `ip netns` keeps them: a file in `/run/netns` that the namespace is mounted on,
//! with one pair of links to the bridge.

mod folder;
mod others;
mod taken;

pub(in crate::host::linux) use taken::Taken;

use super::connection::{Connection, Request};
use super::links::Ends;
use super::near::{Followed, Near};
use super::{addresses, links, perform, refused, remove_taps, routes, see, set_links};
use crate::host::Outcome;
use crate::host::linux::{failed, sysctls};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
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
            in_a_thread(|| {
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
    pub fn perform(&self, batch: &[Action], taken: &mut Taken, followed: &mut Followed) -> Outcome {
        let removes =
            |action: &Action| matches!(action, Action::SetNamespace { state, .. } if state.to.inside.is_none());
        if batch.first().is_some_and(removes) {
            return self.remove(batch, taken);
        }
        let mut done = vec![false; batch.len()];
        let problem = self.make_all(batch, &mut done, taken, followed).err();
        Outcome { done, problem }
    }

    /// Step by step for all of them at once: to the kernel each step is one question and many requests.
    fn make_all(&self, batch: &[Action], done: &mut [bool], taken: &mut Taken, followed: &mut Followed) -> Result<()> {
        let mut all = Vec::with_capacity(batch.len());
        for (action, done) in batch.iter().zip(done) {
            all.extend(self.begin(action, done)?);
        }
        // Half a pair is of no use: what is left of it goes. So does the whole one where there was none before the run.
        let gone = all.iter().filter(|making| making.outside.is_none() || !making.is_paired());
        let gone = gone.filter_map(|making| Some((making.veth, making.from.outside.clone()?)));
        let gone = gone.map(|(veth, link)| Action::RemoveLink { name: veth.into(), link });
        all_of(perform(&gone.collect::<Vec<_>>()))?;
        let pairs = all.iter().filter_map(|making| Some((making, making.outside?)));
        let (paired, single): (Vec<Pair>, Vec<Pair>) = pairs.partition(|(making, _)| making.is_paired());
        add_pairs(&single)?;
        let joined = paired.iter().chain(&single).map(|(making, outside)| Action::SetLink {
            name: making.veth.into(),
            from: making.from.outside.clone().filter(|_| making.is_paired()).unwrap_or_else(blank),
            to: (*outside).clone(),
        });
        all_of(set_links(&joined.collect::<Vec<_>>(), followed))?;
        for making in &all {
            let taken = taken.entry(making.name.into()).or_default();
            in_a_thread(|| enter(&making.namespace).and_then(|()| furnish(making.inside, taken)))
                .map_err(|e| why(e, making.action))?;
        }
        Ok(())
    }

    /// The namespace itself, where it is missing. `done`: whatever is made of it must be undone if the rest fails.
    fn begin<'a>(&self, action: &'a Action, done: &mut bool) -> Result<Option<Making<'a>>> {
        let Action::SetNamespace { name, veth, state } = action else { return Ok(None) };
        let (outside, Some(inside)) = (state.to.outside.as_ref(), &state.to.inside) else { return Ok(None) };
        let broken = |e: io::Error| failed(format!("cannot make namespace {name}"), e);
        if state.from.inside.is_none() {
            self.mount(name).map_err(broken)?;
        }
        *done = true;
        let opened = self.open(name).and_then(|opened| opened.ok_or_else(|| Errno::ENOENT.into()));
        let namespace = opened.map_err(broken)?;
        Ok(Some(Making { action, name, veth, from: &state.from, outside, inside, namespace }))
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
        in_a_thread(|| {
            for action in batch {
                let Action::SetNamespace { name, .. } = action else { continue };
                let Some(namespace) = self.open(name)? else { continue };
                enter(&namespace)?;
                taken.entry(name.clone()).or_default().extend(Inside::look()?);
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
        let mounted = in_a_thread(|| {
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
type Pair<'a> = (&'a Making<'a>, &'a LinkFact);

impl Making<'_> {
    fn is_paired(&self) -> bool {
        self.from.outside.is_some() && self.from.inside.as_ref().is_some_and(|inside| inside.link.is_some())
    }
}

fn add_pairs(single: &[Pair]) -> Result<()> {
    if single.is_empty() {
        return Ok(());
    }
    let pair = |connection: &Connection, (making, outside): &Pair| {
        let inner = (INNER, making.inside.link.as_ref().unwrap_or(outside));
        let outer = (making.veth, *outside);
        links::add_pair(&connection.handle, outer, inner, making.namespace.as_raw_fd())
    };
    let results = Connection::open().and_then(|mut connection| {
        let requests = single.iter().map(|making| pair(&connection, making)).collect();
        connection.call(requests)
    });
    let results = results.map_err(|e| failed("the network cannot be changed", e))?;
    let refusals =
        single.iter().zip(results).filter_map(|((making, _), result)| Some(refused(making.action, result.err()?)));
    refusals.map(Err).next().unwrap_or(Ok(()))
}

/// A pair's end as the kernel makes it.
fn blank() -> LinkFact {
    LinkFact { kind: LinkKind::Veth, up: false, bridge: None, group: 0, mac: [0; 6], mtu: None, isolated: false }
}

fn all_of(outcome: Outcome) -> Result<()> {
    outcome.problem.map_or(Ok(()), Err)
}

fn pair(action: &Action) -> Option<Action> {
    let Action::SetNamespace { veth, state, .. } = action else { return None };
    Some(Action::RemoveLink { name: veth.clone(), link: state.from.outside.clone()? })
}

/// A thread that entered another namespace can serve nobody else: it ends.
fn in_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let ended = std::thread::scope(|scope| scope.spawn(work).join());
    ended.unwrap_or_else(|_| Err(io::Error::other("a thread of node-format panicked")))
}

fn enter(namespace: &File) -> io::Result<()> {
    Ok(setns(namespace, CloneFlags::CLONE_NEWNET)?)
}

fn why(e: io::Error, action: &Action) -> Problem {
    match e.raw_os_error() {
        Some(errno) => refused(action, Errno::from_raw(errno)),
        None => failed("the network cannot be changed", e),
    }
}

/// The first refusal of all.
fn called(results: io::Result<Vec<std::result::Result<(), Errno>>>) -> io::Result<()> {
    results?.into_iter().try_for_each(|result| result.map_err(io::Error::from))
}

/// `outer`: of the machine's links.
fn look_inside(outer: &Ends) -> io::Result<(NamespaceFact, Others)> {
    let seen = see(&mut Connection::open()?)?;
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
    Ok((inside, others::others(&seen, &far)))
}

fn is_link_local(ip: std::net::IpAddr) -> bool {
    matches!(ip, std::net::IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// Makes the current namespace what it must be, from whatever it is. `taken`: from it, by this run.
fn furnish(wanted: &NamespaceFact, taken: &mut Inside) -> io::Result<()> {
    let (found, _) = look_inside(&Ends::new())?;
    let before = taken.settings();
    taken.note_settings();
    if !(found.routes.is_empty() && found.addresses.is_empty()) {
        taken.extend(Inside::look()?);
    }
    // Before there is a link that a router could be heard on.
    wanted.sysctls.iter().try_for_each(|(key, value)| sysctls::write(key, value))?;
    for (key, _, otherwise) in sysctls::OF_A_NAMESPACE.iter().filter(|(key, ..)| !wanted.sysctls.contains_key(*key)) {
        let guess = found.sysctls.contains_key(*key).then_some(*otherwise);
        let to = before.get(key).map(String::as_str).or(guess);
        to.map_or(Ok(()), |to| sysctls::write_if_there(key, to))?;
    }
    let mut connection = Connection::open()?;
    let all: Vec<links::Link> = links::all(&mut connection)?;
    let near = Near::new(&all, &addresses::all(&mut connection)?);
    let indexes: super::Indexes = all.iter().map(|link| (link.name.clone(), link.index)).collect();
    let index = |name: &str| indexes.get(name).copied().ok_or(Errno::ENODEV);
    let lo = index("lo")?;
    let inner = match index(INNER) {
        Err(_) if wanted.link.is_none() => 0, // Nothing is asked of it.
        found => found?,
    };
    let handle = connection.handle.clone();
    let mut requests: Vec<Request> = Vec::new();
    if wanted.lo_up && !found.lo_up {
        let up = rtnetlink::LinkUnspec::new_with_index(lo).up().build();
        requests.push(Box::pin(handle.link().set(up).execute()));
    }
    if let (Some(from), Some(to)) = (&found.link, &wanted.link) {
        requests.extend(links::set(&handle, inner, from, to, &indexes).unwrap_or_default());
        if from.up && to.up && from.mac != to.mac {
            requests.extend(taken.followed.follow(&handle, (INNER, inner), &near, to.mac));
        }
    }
    requests.extend(found.routes.difference(&wanted.routes).map(|route| routes::remove(&handle, inner, route)));
    requests.extend(found.addresses.difference(&wanted.addresses).map(|ip| addresses::remove(&handle, inner, *ip)));
    requests.extend(wanted.addresses.difference(&found.addresses).map(|ip| taken.add_address(&handle, inner, *ip)));
    // A router must be reachable before there is a way through it.
    let missing = wanted.routes.difference(&found.routes);
    let (through, direct): (Vec<_>, Vec<_>) = missing.partition(|route| route.via.is_some());
    requests.extend(direct.into_iter().chain(through).map(|route| taken.add_route(&handle, inner, route)));
    let (was, be) = (&found.local_routes, &wanted.local_routes);
    requests.extend(was.difference(be).map(|range| routes::remove_local(&handle, lo, *range)));
    requests.extend(be.difference(was).map(|range| routes::add_local(&handle, lo, *range)));
    if found.lo_up && !wanted.lo_up {
        let down = rtnetlink::LinkUnspec::new_with_index(lo).down().build();
        requests.push(Box::pin(handle.link().set(down).execute()));
    }
    called(connection.call(requests))
}
