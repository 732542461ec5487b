//! A plan for people and for programs.

use crate::action::{Action, Kind, Namespace};
use crate::facts::{FileFact, Guard, LinkFact, LinkKind, Owner, Route};
use crate::plan::Plan;
use crate::thing::Uplink;
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

/// Sign and noun of an action.
fn noun(action: &Action) -> (char, &'static str) {
    match action {
        Action::AddGroup { .. } => ('+', "group"),
        Action::RemoveGroup { .. } => ('-', "group"),
        Action::AddUser(_) => ('+', "user"),
        Action::RemoveUser(_) => ('-', "user"),
        Action::MakeDirectory(_) | Action::FinishDirectory { .. } => ('+', "directory"),
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
        Action::AddAddress { .. } => ('+', "address"),
        Action::RemoveAddress { .. } => ('-', "address"),
        Action::AddLocalRoute { .. } => ('+', "local route"),
        Action::RemoveLocalRoute { .. } => ('-', "local route"),
        Action::AddRoute(_) => ('+', "route"),
        Action::RemoveRoute(_) => ('-', "route"),
        Action::SetSysctl { .. } => ('~', "kernel setting"),
        Action::SetGuard { from: None, .. } => ('+', "packet filter table"),
        Action::SetGuard { to: None, .. } => ('-', "packet filter table"),
        Action::SetGuard { .. } => ('~', "packet filter table"),
        Action::TakeUplink(_) => ('+', "uplink"),
        Action::ReturnUplink(_) => ('-', "uplink"),
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
    let (Some(first), Some(last)) = (run.first(), run.last()) else { return String::new() };
    let (sign, noun) = noun(first);
    match run.len() {
        1 => line(first),
        n => format!("{sign} {noun}: {n}, {} to {}", name(first), name(last)),
    }
}

fn name(action: &Action) -> String {
    match action {
        Action::AddGroup { name, .. }
        | Action::RemoveGroup { name, .. }
        | Action::AddLink { name, .. }
        | Action::RemoveLink { name, .. }
        | Action::SetNamespace { name, .. }
        | Action::SetLink { name, .. } => name.clone(),
        Action::AddUser(user) | Action::RemoveUser(user) => user.name.clone(),
        Action::MakeDirectory(d) | Action::RemoveDirectory(d) | Action::EraseDirectory(d) => {
            d.path.display().to_string()
        }
        Action::FinishDirectory { directory, .. } => directory.path.display().to_string(),
        Action::SetDirectory { path, .. } | Action::SetDiskLimit { path, .. } | Action::WriteFile { path, .. } => {
            path.display().to_string()
        }
        Action::AddRoute(route) | Action::RemoveRoute(route) => route.destination.to_string(),
        Action::SetSysctl { key, .. } => key.clone(),
        Action::SetGuard { .. } => "plat".into(),
        Action::TakeUplink(uplink) | Action::ReturnUplink(uplink) => uplink.link.clone(),
        Action::AddAddress { address, .. } | Action::RemoveAddress { address, .. } => address.to_string(),
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
        Action::AddGroup { gid, .. } | Action::RemoveGroup { gid, .. } => format!("gid {gid}"),
        Action::AddUser(user) | Action::RemoveUser(user) => {
            let groups: Vec<_> = user.groups.iter().map(String::as_str).collect();
            let groups = if groups.is_empty() { String::new() } else { format!(" groups {}", groups.join(",")) };
            format!("uid {} gid {} home {}{groups}", user.uid, user.gid, user.home.display())
        }
        Action::MakeDirectory(d) | Action::FinishDirectory { directory: d, .. } => {
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
        Action::SetSysctl { from, to, .. } => format!("{} -> {}", shown(from), shown(to)),
        Action::SetGuard { from, to } => guard_line(to.as_ref().or(from.as_ref())),
        Action::TakeUplink(uplink) => format!("to {}{}", uplink.bridge, uplink_line(uplink)),
        Action::ReturnUplink(uplink) => format!("from {}{}", uplink.bridge, uplink_line(uplink)),
        Action::SetLink { from, to, .. } => format!("{} -> {}", link_line(from), link_line(to)),
        Action::AddAddress { link, .. } | Action::RemoveAddress { link, .. } => format!("on {link}"),
        Action::AddLocalRoute { .. } | Action::RemoveLocalRoute { .. } => String::new(),
        Action::WriteFile { from, to, .. } => file_line(from.as_ref(), to.as_ref()),
    };
    format!("{sign} {noun} {} {details}", name(action)).trim_end().to_owned()
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
    let addresses = |state: &Namespace| {
        let inside = state.inside.as_ref();
        let all: Vec<_> =
            inside.into_iter().flat_map(|inside| &inside.addresses).map(|net| net.addr().to_string()).collect();
        all.join(",")
    };
    match (&from.inside, &to.inside) {
        (Some(_), Some(_)) => format!(" {} -> {}", addresses(from), addresses(to)),
        (None, Some(_)) => format!(" {}", addresses(to)),
        (_, None) => String::new(),
    }
}

fn route_line(route: &Route) -> String {
    route.via.map_or_else(|| format!("on {}", route.link), |via| format!("via {via} on {}", route.link))
}

fn shown(value: &str) -> &str {
    if value.is_empty() { "default" } else { value }
}

fn guard_line(guard: Option<&Guard>) -> String {
    guard.map_or_else(String::new, |guard| format!("{} rules, {} elements", guard.rules, guard.elements.len()))
}

fn uplink_line(uplink: &Uplink) -> String {
    let mut text = String::new();
    uplink.addresses.iter().for_each(|address| {
        let _ = write!(text, ", {address}");
    });
    uplink.routes.iter().for_each(|route| {
        let _ = write!(text, ", route to {}", route.destination);
    });
    if text.is_empty() { text } else { format!(" with {}", text.trim_start_matches(", ")) }
}

fn file_line(from: Option<&FileFact>, to: Option<&FileFact>) -> String {
    let lines = |file: Option<&FileFact>| file.map_or(0, |file| file.text.lines().count());
    match (from, to) {
        (Some(from), Some(to)) if from.text == to.text => {
            format!("{} -> {}", access(from.owner, from.mode), access(to.owner, to.mode))
        }
        (Some(_), Some(_)) => format!("{} lines -> {} lines", lines(from), lines(to)),
        _ => format!("{} lines", lines(from.or(to))),
    }
}

impl Kind {
    /// What people are told while actions of this kind are performed.
    pub fn doing(self) -> &'static str {
        match self {
            Self::AddAccounts => "making users",
            Self::RemoveAccounts => "removing users",
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
