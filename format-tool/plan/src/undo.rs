//! What was done, taken back.

use crate::action::{Action, Change, Namespace};
use crate::facts::{LinkFact, LinkKind};
use std::collections::BTreeSet;

/// The actions that take these back, last first. A link that comes back is told what it had been told of routers while it is
/// down: what went with it was said long before it went, and whoever is behind it may be waiting.
pub fn undoing(done: &[&Action]) -> Vec<Action> {
    let back = done.iter().rev().filter_map(|action| action.inverse());
    let (told, mut back): (Vec<_>, Vec<_>) = back.partition(is_told_anew);
    let links: BTreeSet<String> = told.iter().filter_map(Action::link).collect();
    let mut raised = Vec::new();
    let mut at = 0;
    for (n, action) in back.iter_mut().enumerate() {
        let Action::AddLink { name, link } = action else { continue };
        if links.contains(name) {
            at = n + 1;
            let lowered = LinkFact { up: false, ..link.clone() };
            let to = std::mem::replace(link, lowered.clone());
            let raise = Action::SetLink { name: name.clone(), from: lowered, to: to.clone() };
            raised.extend(to.up.then_some(raise));
        }
    }
    back.splice(at..at, told.into_iter().chain(raised));
    let (mtus, mut back): (Vec<_>, Vec<_>) = back.into_iter().partition(is_bridges_mtu);
    back.extend(mtus.into_iter().map(|back| as_found(back, done)));
    back
}

/// Whether of a bridge that stays only the MTU changes. It comes back last: where the kernel lets it follow its ports there is
/// nothing left to set then, and it goes on doing so.
fn is_bridges_mtu(action: &Action) -> bool {
    let Action::SetLink { from, to, .. } = action else { return false };
    let changes = from.mtu.zip(to.mtu).is_some_and(|(from, to)| from != to);
    changes && to.kind == LinkKind::Bridge && LinkFact { mtu: from.mtu, ..to.clone() } == *from
}

/// The last change of a link, to what it was before the first.
fn as_found(last: Action, done: &[&Action]) -> Action {
    let Action::SetLink { name, from, to } = last else { return last };
    let first = done.iter().find_map(|action| match action {
        Action::SetLink { name: changed, from, .. } if *changed == name => Some(from.clone()),
        _ => None,
    });
    let to = first.unwrap_or(to);
    Action::SetLink { name, from: LinkFact { mtu: from.mtu, ..to.clone() }, to }
}

/// Of a link that is not there yet, whether it listens to routers.
fn is_told_anew(action: &Action) -> bool {
    matches!(action, Action::SetSysctl { key, from, .. } if from.is_empty() && key.ends_with(".accept_ra"))
}

/// What undoing these does not bring back, in words: of what is taken away and made anew the facts do not say all.
pub fn left_out(done: &[&Action]) -> Vec<String> {
    let (mut out, mut made) = (LeftOut::default(), BTreeSet::new());
    for action in done {
        match action {
            Action::RemoveLink { name, .. } => out.links.push(name),
            Action::SetLink { name, from, to } if from.bridge.is_some() && from.bridge != to.bridge => {
                out.ports.push(name);
            }
            Action::ReturnUplink { uplink, alone: false } => out.ports.push(&uplink.link),
            Action::RemoveDirectory(directory) if !directory.half_made => {
                out.directories.push(directory.path.to_str().unwrap_or_default());
            }
            Action::SetNamespace { name, veth, state } => out.namespace((name, veth), state),
            // One that was made goes.
            Action::MakeDirectory(directory) => drop(made.insert(&directory.path)),
            Action::SetDiskLimit { path, file_system: Some(_), from, to: Some(to), .. }
                if from.is_none_or(|from| from == *to) && !made.contains(path) =>
            {
                out.projects.push(path.to_str().unwrap_or_default());
            }
            _ => {}
        }
    }
    out.in_words()
}

/// Most of one kind that are named.
const NAMED: usize = 10;

#[derive(Default)]
struct LeftOut<'a> {
    links: Vec<&'a str>,
    ports: Vec<&'a str>,
    /// Namespaces whose inner end was a port of a bridge in there.
    inner: Vec<&'a str>,
    namespaces: Vec<&'a str>,
    directories: Vec<&'a str>,
    /// Those that were taken into a partition's project, with all that is in them.
    projects: Vec<&'a str>,
    /// Pairs that had one end.
    whole: Vec<&'a str>,
    /// Those of which the other end was out of sight.
    gone: Vec<&'a str>,
}

impl<'a> LeftOut<'a> {
    fn namespace(&mut self, (name, veth): (&'a str, &'a str), Change { from, to }: &Change<Namespace>) {
        let bridge = |namespace: &Namespace| namespace.outside.as_ref().and_then(|link| link.bridge.clone());
        match (&from.outside, &from.inside) {
            (None, _) => {}
            (Some(_), None) => self.gone.push(veth),
            (Some(_), Some(inside)) if inside.link.is_none() => {
                self.whole.push(veth);
                self.links.push(veth);
            }
            _ if to.outside.is_none() => self.links.push(veth),
            _ if bridge(from).is_some() && bridge(from) != bridge(to) => self.ports.push(veth),
            _ => {}
        }
        let inner = |namespace: &Namespace| namespace.inside.as_ref().and_then(|inside| inside.link.clone());
        if let (Some(was), Some(is)) = (inner(from), inner(to)) {
            self.inner.extend((was.bridge.is_some() && was.bridge != is.bridge).then_some(name));
        }
        self.namespaces.extend((from.inside.is_some() && to.inside.is_none()).then_some(name));
    }

    fn in_words(self) -> Vec<String> {
        let all = [
            (self.gone, "links whose other end was in no namespace of a partition"),
            (self.whole, "pairs of links of which one end was missing, and is there now"),
            (
                self.links,
                "what node-format does not know of links that were made anew (queues of `tc`, aliases, other settings of a link, \
                 flags of a port), if somebody set it",
            ),
            (self.ports, "flags of ports that left their bridge meanwhile (`bridge link`), if somebody set them"),
            (self.inner, "flags of eth0 as a port that left its bridge meanwhile, if somebody set them, in namespaces"),
            (
                self.namespaces,
                "what node-format does not know of namespaces that were made anew (settings of the kernel, rules, packet filters), \
                 if somebody set it, and whoever runs in the old ones",
            ),
            (
                self.directories,
                "what node-format does not know of directories that were made anew (quota groups, where else they were mounted), if \
                 somebody set it, and whoever had the old ones open",
            ),
            (
                self.projects,
                "the projects that these directories, and what is in them, had on ext4 or xfs (`lsattr -pd`): they have the partition's",
            ),
        ];
        let meant = all.into_iter().filter(|(names, _)| !names.is_empty());
        meant.map(|(names, what)| format!("{what}: {}", listed(&names))).collect()
    }
}

pub(crate) fn listed(names: &[impl AsRef<str>]) -> String {
    let named = names.iter().take(NAMED).map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::{Change, Directory};
    use crate::describe;
    use crate::facts::{LinkKind, NamespaceFact, Route};
    use std::collections::BTreeMap;

    fn all(actions: &[Action]) -> Vec<&Action> {
        actions.iter().collect()
    }

    #[test]
    fn a_link_that_comes_back_hears_no_router_before_it_is_told_to_hear_none() {
        let gone = |link: &str| {
            let [was, from, to] = ["1", "0", ""].map(String::from);
            let key = format!("net.ipv6.conf.{link}.accept_ra");
            Action::SetSysctl { key, was, from, to, along: BTreeMap::new(), last: Change::default() }
        };
        let remove = |name: &str, kind: LinkKind, up: bool| {
            let link = LinkFact { kind, up, bridge: None, group: 0, mac: [0; 6], mtu: None, isolated: false };
            Action::RemoveLink { name: name.into(), link }
        };
        let destination = "10.9.0.0/24".parse().unwrap();
        let route = Route { destination, link: "part0".into(), via: None, metric: 0, source: None, onlink: false };
        let tap = LinkKind::Tap(Some(20_000));
        let done = [
            gone("part0"),
            gone("part1"),
            Action::RemoveRoute(route),
            remove("part0", tap.clone(), true),
            remove("part1", tap, false),
            remove("plat0", LinkKind::Bridge, true),
        ];
        let back: Vec<String> = undoing(&all(&done)).iter().map(describe).collect();
        let order = [
            "+ bridge plat0 up",
            "+ tap part1 down owner 20000",
            "+ tap part0 down owner 20000",
            "~ kernel setting net.ipv6.conf.part1.accept_ra default -> 0",
            "~ kernel setting net.ipv6.conf.part0.accept_ra default -> 0",
            "~ link part0 down owner 20000 -> up owner 20000",
            "+ route 10.9.0.0/24 on part0",
        ];
        assert_eq!(back, order);
        // What was not removed was not told otherwise.
        assert_eq!(undoing(&all(&done[..2])), done[..2].iter().rev().filter_map(Action::inverse).collect::<Vec<_>>());
    }

    #[test]
    fn a_bridge_gets_its_mtu_back_when_its_ports_have_theirs() {
        let link =
            |kind, up, mtu| LinkFact { kind, up, bridge: None, group: 0, mac: [0; 6], mtu: Some(mtu), isolated: false };
        let set = |name: &str, from, to| Action::SetLink { name: name.into(), from, to };
        let bridge = |up, mtu| link(LinkKind::Bridge, up, mtu);
        let tap = |mtu| link(LinkKind::Tap(None), true, mtu);
        let done = [
            set("part0", tap(1500), tap(1400)),
            set("plat0", bridge(false, 1500), bridge(true, 1500)),
            set("plat0", bridge(true, 1500), bridge(true, 1400)),
        ];
        let back: Vec<String> = undoing(&all(&done)).iter().map(describe).collect();
        // It is left as it was found, down.
        let order = [
            "~ link plat0 up mtu 1500 -> down mtu 1500",
            "~ link part0 up mtu 1400 -> up mtu 1500",
            "~ link plat0 down mtu 1400 -> down mtu 1500",
        ];
        assert_eq!(back, order);
    }

    #[test]
    fn what_does_not_come_back_of_what_is_made_anew_is_said() {
        let link = |kind, bridge: Option<&str>| LinkFact {
            kind,
            up: true,
            bridge: bridge.map(String::from),
            group: 0,
            mac: [0; 6],
            mtu: None,
            isolated: false,
        };
        let veth = |bridge| Some(link(LinkKind::Veth, Some(bridge)));
        let inside = |link| Some(NamespaceFact { link, ..NamespaceFact::default() });
        let set = |n: u32, from: (Option<LinkFact>, Option<NamespaceFact>), to: (_, _)| Action::SetNamespace {
            name: format!("part{n}"),
            veth: format!("part-v{n}"),
            state: Box::new(Change {
                from: Namespace { outside: from.0, inside: from.1 },
                to: Namespace { outside: to.0, inside: to.1 },
            }),
        };
        let eth0 = || inside(Some(link(LinkKind::Veth, None)));
        let tap = |bridge| link(LinkKind::Tap(None), bridge);
        let moved = |from, to| Action::SetLink { name: "tap0".into(), from: tap(from), to: tap(to) };
        let made = Action::AddLink { name: "tap1".into(), link: tap(Some("br0")) };
        // What is new is gone again, and what stays where it is loses nothing.
        let new = [
            made.clone(),
            moved(None, Some("br0")),
            moved(Some("br0"), Some("br0")),
            set(0, (None, None), (veth("br0"), eth0())),
            set(1, (veth("br0"), eth0()), (veth("br0"), eth0())),
            set(2, (None, inside(None)), (veth("br0"), eth0())),
        ];
        assert_eq!(left_out(&all(&new)), [""; 0]);
        let removed = (0..12).map(|n| Action::RemoveLink { name: format!("tap{n}"), link: tap(None) });
        let others = [
            moved(Some("br0"), None),
            set(0, (veth("br0"), eth0()), (None, None)),
            set(1, (veth("br0"), eth0()), (veth("br1"), eth0())),
            set(2, (veth("br0"), inside(None)), (veth("br0"), eth0())),
            set(3, (veth("br0"), None), (veth("br0"), eth0())),
            set(4, (veth("br0"), inside(veth("brx"))), (veth("br0"), eth0())),
        ];
        let directory = |half_made| Directory { path: "/srv/part7".into(), half_made, ..Directory::default() };
        let removed = removed.chain([true, false].map(|half_made| Action::RemoveDirectory(directory(half_made))));
        let removed: Vec<Action> = others.into_iter().chain(removed).collect();
        let said = left_out(&all(&removed));
        let named: Vec<&str> = said.iter().map(|what| what.rsplit_once(": ").unwrap().1).collect();
        let links = "part-v0, part-v2, tap0, tap1, tap2, tap3, tap4, tap5, tap6, tap7 and 4 more";
        assert_eq!(named, ["part-v3", "part-v2", links, "tap0, part-v1", "part4", "part0", "/srv/part7"]);
    }
    #[test]
    fn what_becomes_a_projects_is_so_afterwards_unless_it_was_made_for_that() {
        let limit = |path: &str, file_system: Option<&str>, from, to| Action::SetDiskLimit {
            path: path.into(),
            id: 20_000,
            file_system: file_system.map(String::from),
            from,
            to,
        };
        let made = Action::MakeDirectory(Directory { path: "/srv/new".into(), ..Directory::default() });
        let done = [
            made,
            limit("/srv/new", Some("ext4"), None, Some(8)),
            limit("/srv/old", Some("ext4"), None, Some(8)),
            limit("/srv/out", Some("ext4"), Some(8), Some(8)),
            limit("/srv/more", Some("ext4"), Some(8), Some(9)),
            limit("/srv/less", Some("ext4"), Some(8), None),
            limit("/srv/subvolume", None, None, Some(8)),
        ];
        let said = left_out(&all(&done));
        assert!(said.len() == 1 && said[0].ends_with(": /srv/old, /srv/out"), "{said:?}");
    }
}
