//! A plan for people and for programs.

use crate::action::{Action, Kind, Namespace, User};
use crate::facts::{AddressFact, FileFact, Guard, LinkFact, LinkKind, NamespaceFact, Owner, Route};
use crate::plan::Plan;
use crate::thing::Uplink;
use ipnet::IpNet;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// How much a text says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// One line for each kind of thing.
    Kinds,
    /// One line for each thing.
    Things,
}

/// The plan as text, a line ending each: `+` makes, `-` removes, `~` changes, `!` says what is left as it is.
pub fn render(plan: &Plan, detail: Detail) -> String {
    let mut text = String::new();
    match detail {
        Detail::Things => plan.actions.iter().for_each(|action| {
            let _ = writeln!(text, "{}", line(action));
        }),
        Detail::Kinds => plan.actions.chunk_by(|a, b| noun(a) == noun(b)).for_each(|run| {
            let _ = writeln!(text, "{}", summary(run));
        }),
    }
    for note in &plan.notes {
        let _ = writeln!(text, "! {note}");
    }
    if plan.actions.is_empty() {
        text.push_str("nothing to do\n");
    }
    text
}

/// How much there is to do, in words: as many of each sign as the list shows.
pub(crate) fn count(actions: &[Action]) -> String {
    let of = |sign: char| actions.iter().filter(|action| noun(action).0 == sign).count();
    format!("{} to make, {} to change, {} to remove", of('+'), of('~'), of('-'))
}

/// Sign and noun of an action.
fn noun(action: &Action) -> (char, &'static str) {
    match action {
        Action::AddGroup { .. } => ('+', "group"),
        Action::RemoveGroup { .. } => ('-', "group"),
        Action::AddUser(_) => ('+', "user"),
        Action::RemoveUser(_) => ('-', "user"),
        Action::SetUser { .. } => ('~', "user"),
        Action::MakeDirectory(_) | Action::FinishDirectory(_) => ('+', "directory"),
        Action::RemoveDirectory(_) => ('-', "directory"),
        Action::EraseDirectory(_) => ('-', "directory with all in it"),
        Action::SetDirectory { .. } => ('~', "directory"),
        Action::SetDiskLimit { .. } => ('~', "disk limit"),
        Action::AddLink { link, .. } => ('+', link_noun(link)),
        Action::RemoveLink { link, .. } => ('-', link_noun(link)),
        Action::SetNamespace { state, .. } if state.to.inside.is_none() => ('-', "namespace"),
        Action::SetNamespace { state, .. } if state.from.inside.is_none() => ('+', "namespace"),
        Action::SetNamespace { .. } => ('~', "namespace"),
        Action::SetLink { .. } => ('~', "link"),
        Action::AddAddress(_) => ('+', "address"),
        Action::RemoveAddress(_) => ('-', "address"),
        Action::AddLocalRoute { .. } => ('+', "local route"),
        Action::RemoveLocalRoute { .. } => ('-', "local route"),
        Action::AddRoute(_) => ('+', "route"),
        Action::RemoveRoute(_) => ('-', "route"),
        Action::SetSysctl { .. } => ('~', "kernel setting"),
        Action::SetGuard { from: None, .. } => ('+', "packet filter table"),
        Action::SetGuard { to: None, .. } => ('-', "packet filter table"),
        Action::SetGuard { .. } => ('~', "packet filter table"),
        Action::TakeUplink(_) => ('+', "uplink"),
        Action::FinishUplink { .. } => ('~', "uplink"),
        Action::ReturnUplink { .. } | Action::DropUplink { .. } => ('-', "uplink"),
        Action::KeepUplink { .. } => ('+', "uplink"),
        Action::WriteFile { to: None, .. } => ('-', "file"),
        Action::WriteFile { from: None, .. } => ('+', "file"),
        Action::WriteFile { .. } => ('~', "file"),
    }
}

fn link_noun(link: &LinkFact) -> &'static str {
    match link.kind {
        LinkKind::Bridge => "bridge",
        LinkKind::Tap(_) => "tap",
        LinkKind::Tun(_) => "tun",
        LinkKind::Veth | LinkKind::Other(_) => "link",
    }
}

fn summary(run: &[Action]) -> String {
    let names: Vec<String> = run.iter().map(name).collect();
    let in_order = |a: &&String, b: &&String| in_natural_order(a, b);
    match (run, names.iter().min_by(in_order), names.iter().max_by(in_order)) {
        ([one], ..) => line(one),
        ([first, ..], Some(least), Some(greatest)) => {
            let (sign, noun) = noun(first);
            format!("{sign} {noun}: {}, {least} to {greatest}", run.len())
        }
        _ => String::new(),
    }
}

/// Addresses by their value; the rest as text in which digits are numbers.
fn in_natural_order(a: &str, b: &str) -> Ordering {
    match (a.parse::<IpNet>(), b.parse::<IpNet>()) {
        (Ok(a), Ok(b)) => a.cmp(&b),
        _ => pieces(a).cmp(&pieces(b)),
    }
}

/// Each piece of text with the number after it.
fn pieces(text: &str) -> Vec<(&str, u64)> {
    let is_digit = |c: char| c.is_ascii_digit();
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (words, after) = rest.split_at(rest.find(is_digit).unwrap_or(rest.len()));
        let (digits, after) = after.split_at(after.find(|c| !is_digit(c)).unwrap_or(after.len()));
        pieces.push((words, digits.parse().unwrap_or(0)));
        rest = after;
    }
    pieces
}

fn name(action: &Action) -> String {
    match action {
        Action::AddGroup { name, .. }
        | Action::RemoveGroup { name, .. }
        | Action::AddLink { name, .. }
        | Action::RemoveLink { name, .. }
        | Action::SetNamespace { name, .. }
        | Action::SetLink { name, .. } => name.clone(),
        Action::AddUser(user) | Action::RemoveUser(user) | Action::SetUser { to: user, .. } => user.name.clone(),
        Action::MakeDirectory(d)
        | Action::FinishDirectory(d)
        | Action::RemoveDirectory(d)
        | Action::EraseDirectory(d) => d.path.display().to_string(),
        Action::SetDirectory { path, .. } | Action::SetDiskLimit { path, .. } | Action::WriteFile { path, .. } => {
            path.display().to_string()
        }
        Action::AddRoute(route) | Action::RemoveRoute(route) => route.destination.to_string(),
        Action::SetSysctl { key, .. } => key.clone(),
        Action::SetGuard { .. } => "plat".into(),
        Action::TakeUplink(uplink) | Action::FinishUplink { uplink, .. } | Action::ReturnUplink { uplink, .. } => {
            uplink.link.clone()
        }
        Action::DropUplink { uplink, .. } | Action::KeepUplink { uplink, .. } => uplink.link.clone(),
        Action::AddAddress(found) | Action::RemoveAddress(found) => found.address.to_string(),
        Action::AddLocalRoute { range } | Action::RemoveLocalRoute { range } => range.to_string(),
    }
}

/// One action as its line in a plan.
pub fn describe(action: &Action) -> String {
    line(action)
}

fn line(action: &Action) -> String {
    let (sign, noun) = noun(action);
    let details = match action {
        Action::AddGroup { gid, members, .. } | Action::RemoveGroup { gid, members, .. } => {
            let members = if members.is_empty() { String::new() } else { format!(" members {}", listed(members)) };
            format!("gid {gid}{members}")
        }
        Action::AddUser(user) | Action::RemoveUser(user) => {
            let groups =
                if user.groups.is_empty() { String::new() } else { format!(" groups {}", listed(&user.groups)) };
            format!("uid {} gid {} home {}{groups}", user.uid, user.gid, user.home.display())
        }
        Action::SetUser { from, to } => user_line(from, to),
        Action::MakeDirectory(d) | Action::FinishDirectory(d) => {
            let inside: Vec<_> = d.inside.keys().map(String::as_str).collect();
            let inside = if inside.is_empty() { String::new() } else { format!(" with {}", inside.join(" ")) };
            access(d.owner, d.mode) + &inside
        }
        Action::RemoveDirectory(d) | Action::EraseDirectory(d) => access(d.owner, d.mode),
        Action::SetDiskLimit { from, to, .. } => {
            let size = |mib: &Option<u32>| mib.map_or("none".into(), |mib| format!("{mib} MiB"));
            format!("{} -> {}", size(from), size(to))
        }
        Action::SetDirectory { from, to, .. } => format!("{} -> {}", access(from.0, from.1), access(to.0, to.1)),
        Action::AddLink { link, .. } | Action::RemoveLink { link, .. } => link_line(link),
        Action::SetNamespace { veth, state, .. } => format!("by {veth}{}", namespace_line(&state.from, &state.to)),
        Action::AddRoute(route) | Action::RemoveRoute(route) => route_line(route),
        Action::SetSysctl { from, to, .. } if to.is_empty() => format!("{}, which goes with its link", shown(from)),
        Action::SetSysctl { was, from, to, along, .. } => {
            format!("{} -> {}{}", shown(from), shown(to), along_line(along, to == was))
        }
        Action::SetGuard { from, to } => guard_line(from.as_ref(), to.as_ref()),
        Action::TakeUplink(uplink) => format!("to {}{}", uplink.bridge, uplink_line(uplink)),
        Action::FinishUplink { uplink, .. } => format!("whole on {}{}", uplink.bridge, uplink_line(uplink)),
        Action::ReturnUplink { uplink, .. } => format!("from {}{}", uplink.bridge, uplink_line(uplink)),
        Action::DropUplink { left, .. } | Action::KeepUplink { left, .. } => {
            format!("left behind on {}{}", left.bridge, uplink_line(left))
        }
        Action::SetLink { from, to, .. } => format!("{} -> {}", link_line(from), link_line(to)),
        Action::AddAddress(found) | Action::RemoveAddress(found) => address_line(found),
        Action::AddLocalRoute { .. } | Action::RemoveLocalRoute { .. } => String::new(),
        Action::WriteFile { from, to, .. } => file_line(from.as_ref(), to.as_ref()),
    };
    format!("{sign} {noun} {} {details}", name(action)).trim_end().to_owned()
}

fn listed(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(",")
}

fn user_line(from: &User, to: &User) -> String {
    let or_none = |text: String| if text.is_empty() { "none".into() } else { text };
    let shown = |user: &User| {
        let groups = or_none(listed(&user.groups));
        [("gid", user.gid.to_string()), ("home", user.home.display().to_string()), ("groups", groups)]
    };
    let pairs = shown(from).into_iter().zip(shown(to)).filter(|(from, to)| from != to);
    pairs.map(|((what, from), (_, to))| format!("{what} {from} -> {to}")).collect::<Vec<_>>().join(", ")
}

fn access(owner: Owner, mode: u32) -> String {
    format!("{}:{} {mode:04o}", owner.uid, owner.gid)
}

fn link_line(link: &LinkFact) -> String {
    let mut text = String::from(if link.up { "up" } else { "down" });
    if let LinkKind::Tap(Some(uid)) | LinkKind::Tun(Some(uid)) = link.kind {
        let _ = write!(text, " owner {uid}");
    }
    if let Some(bridge) = &link.bridge {
        let _ = write!(text, " bridge {bridge}");
    }
    if link.group != 0 {
        let _ = write!(text, " group {}", link.group);
    }
    if link.isolated {
        text.push_str(" isolated");
    }
    if let Some(mtu) = link.mtu {
        let _ = write!(text, " mtu {mtu}");
    }
    if link.mac != [0; 6] {
        let mac: Vec<_> = link.mac.iter().map(|byte| format!("{byte:02x}")).collect();
        let _ = write!(text, " mac {}", mac.join(":"));
    }
    text
}

fn namespace_line(from: &Namespace, to: &Namespace) -> String {
    let addresses = |inside: &NamespaceFact| {
        let all: Vec<_> = inside.addresses.iter().map(|net| net.addr().to_string()).collect();
        all.join(",")
    };
    match (&from.inside, &to.inside) {
        (Some(old), Some(new)) => {
            let or_none = |text: String| if text.is_empty() { "none".into() } else { text };
            let changed = || format!(" {} -> {}", or_none(addresses(old)), or_none(addresses(new)));
            let addresses = (old.addresses != new.addresses).then(changed);
            let mtus = [(&from.outside, &to.outside), (&old.link, &new.link)];
            let mtus =
                mtus.map(|(from, to)| (from.as_ref().and_then(|link| link.mtu), to.as_ref().and_then(|link| link.mtu)));
            let mtu = mtus.into_iter().filter_map(|(from, to)| from.zip(to)).find(|(from, to)| from != to);
            let mtu = mtu.map(|(from, to)| format!(" mtu {from} -> {to}"));
            let link = from.outside != to.outside || old.link != new.link;
            let routes = (&old.routes, &old.local_routes) != (&new.routes, &new.local_routes);
            let settings = (old.lo_up, &old.sysctls) != (new.lo_up, &new.sysctls);
            let all = [(link, "link"), (routes, "routes"), (settings, "settings")];
            let differ: Vec<_> = all.into_iter().filter(|(differs, _)| *differs).map(|(_, what)| what).collect();
            let others = (!differ.is_empty()).then(|| format!(" other {}", differ.join(", ")));
            addresses.into_iter().chain(mtu).chain(others).collect::<Vec<_>>().join(",")
        }
        (None, Some(new)) => format!(" {}", addresses(new)),
        (_, None) => String::new(),
    }
}

fn route_line(route: &Route) -> String {
    route.via.map_or_else(|| format!("on {}", route.link), |via| format!("via {via} on {}", route.link))
}

/// Said is only what differs from what node-format makes.
fn address_line(found: &AddressFact) -> String {
    let AddressFact { link, address, bound_only, .. } = found;
    let otherwise = match (bound_only, AddressFact::ours(link, *address).bound_only) {
        (false, true) => ", for the kernel to choose",
        (true, false) => ", for binding alone",
        _ => "",
    };
    format!("on {link}{otherwise}")
}

/// What comes back with a setting that goes back, now or one day.
fn along_line(along: &BTreeMap<String, String>, now: bool) -> String {
    let all: Vec<_> = along.iter().map(|(key, value)| format!("{key} {value}")).collect();
    match (all.is_empty(), now) {
        (true, _) => String::new(),
        (false, true) => format!(" with {}", all.join(", ")),
        (false, false) => format!(" (and back with {})", all.join(", ")),
    }
}

fn shown(value: &str) -> &str {
    if value.is_empty() { "default" } else { value }
}

fn guard_line(from: Option<&Guard>, to: Option<&Guard>) -> String {
    let size = |guard: &Guard| format!("{} rules, {} elements", guard.rules, guard.elements.len());
    match (from, to) {
        (Some(from), Some(to)) if size(from) != size(to) => format!("{} -> {}", size(from), size(to)),
        (Some(from), Some(to)) => {
            format!("{} -> other {}", size(from), if from.elements == to.elements { "rules" } else { "elements" })
        }
        _ => from.or(to).map(size).unwrap_or_default(),
    }
}

fn uplink_line(uplink: &Uplink) -> String {
    let all = uplink.carried();
    if all.is_empty() { String::new() } else { format!(" with {}", all.join(", ")) }
}

fn file_line(from: Option<&FileFact>, to: Option<&FileFact>) -> String {
    let lines = |file: &FileFact| format!("{} lines", file.text.lines().count());
    let (Some(from), Some(to)) = (from, to) else { return from.or(to).map_or_else(|| "0 lines".into(), lines) };
    let text = match (from.text == to.text, lines(from) == lines(to)) {
        (true, _) => None,
        (false, true) => Some("other text".to_owned()),
        (false, false) => Some(format!("{} -> {}", lines(from), lines(to))),
    };
    let (old, new) = (access(from.owner, from.mode), access(to.owner, to.mode));
    let access = (old != new).then(|| format!("{old} -> {new}"));
    [text, access].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

impl Kind {
    /// What people are told while actions of this kind are performed.
    pub fn doing(self) -> &'static str {
        match self {
            Self::AddAccounts => "making users",
            Self::RemoveAccounts => "removing users",
            Self::SetAccounts => "changing users",
            Self::MakeDirectories => "making directories",
            Self::RemoveDirectories => "removing directories",
            Self::SetDirectories => "changing directories",
            Self::SetDiskLimits => "limiting disk space",
            Self::SetSysctls => "setting the kernel",
            Self::AddBridges => "making bridges",
            Self::RemoveBridges => "removing bridges",
            Self::AddTaps => "making taps",
            Self::RemoveTaps => "removing taps",
            Self::SetLinks => "changing links",
            Self::AddNamespaces => "making namespaces",
            Self::RemoveNamespaces => "removing namespaces",
            Self::SetGuard => "setting the packet filter",
            Self::MoveUplink => "moving the uplink",
            Self::AddAddresses => "adding addresses",
            Self::RemoveAddresses => "removing addresses",
            Self::AddRoutes => "adding routes",
            Self::RemoveRoutes => "removing routes",
            Self::WriteFiles(_) => "writing files",
        }
    }
}

/// The form of the plan for programs (`-o json`); version 1.
impl serde::Serialize for Plan {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("version", &1)?;
        map.serialize_entry("actions", &self.actions)?;
        map.serialize_entry("forget", &self.forget)?;
        map.serialize_entry("notes", &self.notes)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::Change;

    fn tap(n: u32) -> Action {
        let link = LinkFact {
            kind: LinkKind::Tap(None),
            up: true,
            bridge: None,
            group: 0,
            mac: [0; 6],
            mtu: None,
            isolated: false,
        };
        Action::AddLink { name: format!("part{n}"), link }
    }

    fn address(text: &str) -> Action {
        Action::AddAddress(AddressFact::ours("plat0", text.parse().unwrap()))
    }

    #[test]
    fn a_summary_names_the_first_and_the_last_as_a_person_counts() {
        // As text, part9 is the last.
        let taps: Vec<_> = [0, 1, 10, 22, 9].map(tap).into();
        let addresses = ["10.0.0.9/32", "10.0.0.10/32", "fd00::1b:1/128", "fd00::a:1/128"].map(address);
        let plan = Plan { actions: taps.into_iter().chain(addresses).collect(), ..Plan::default() };
        let summary = "+ tap: 5, part0 to part22\n+ address: 4, 10.0.0.9/32 to fd00::1b:1/128\n";
        assert_eq!(render(&plan, Detail::Kinds), summary);
    }

    #[test]
    fn as_much_is_counted_as_the_list_shows() {
        let (none, along) = (String::new(), BTreeMap::new());
        let (key, to, last) = ("k".into(), "1".into(), Change::default());
        let sysctl = Action::SetSysctl { key, was: none.clone(), from: none, to, along, last };
        let guard =
            |rules| Guard { fingerprint: "f".into(), rules, elements: Default::default(), script: String::new() };
        let changed = Action::SetGuard { from: Some(guard(1)), to: Some(guard(2)) };
        let plan = Plan { actions: vec![sysctl, changed, tap(0), tap(1).inverse().unwrap()], ..Plan::default() };
        assert_eq!(plan.count(), "1 to make, 2 to change, 1 to remove");
    }

    #[test]
    fn a_change_says_what_differs() {
        let guard = |fingerprint: &str, rules, elements: &[&str]| Guard {
            fingerprint: fingerprint.into(),
            rules,
            elements: elements.iter().map(|text| (*text).to_owned()).collect(),
            script: String::new(),
        };
        let line = |from: &Guard, to: &Guard| guard_line(Some(from), Some(to));
        let old = guard("a", 3, &["own x"]);
        assert_eq!(line(&old, &guard("a", 2, &[])), "3 rules, 1 elements -> 2 rules, 0 elements");
        assert_eq!(line(&old, &guard("b", 3, &["own x"])), "3 rules, 1 elements -> other rules");
        assert_eq!(line(&old, &guard("b", 3, &["own y"])), "3 rules, 1 elements -> other elements");

        let file = |mode, text: &str| FileFact { owner: Owner { uid: 0, gid: 0 }, mode, text: text.into() };
        let line = |from: &FileFact, to: &FileFact| file_line(Some(from), Some(to));
        let old = file(0o644, "a\nb\n");
        assert_eq!(line(&old, &file(0o644, "a\n")), "2 lines -> 1 lines");
        assert_eq!(line(&old, &file(0o644, "a\nc\n")), "other text");
        assert_eq!(line(&old, &file(0o600, "a\nc\n")), "other text, 0:0 0644 -> 0:0 0600");
        assert_eq!(line(&old, &file(0o600, "a\nb\n")), "0:0 0644 -> 0:0 0600");

        let inside = NamespaceFact { lo_up: true, ..NamespaceFact::default() };
        let space = |inside: &NamespaceFact| Namespace { outside: None, inside: Some(inside.clone()) };
        let line = |to: &NamespaceFact| namespace_line(&space(&inside), &space(to));
        let addresses = ["10.0.0.2/16".parse().unwrap()].into();
        assert_eq!(line(&NamespaceFact { addresses, ..inside.clone() }), " none -> 10.0.0.2");
        let local_routes = ["fd00::/65".parse().unwrap()].into();
        assert_eq!(line(&NamespaceFact { local_routes, lo_up: false, ..inside.clone() }), " other routes, settings");
    }
}
