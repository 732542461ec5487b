//! A plan for people and for programs.

use crate::action::{Action, Kind};
use crate::facts::{LinkFact, LinkKind, Owner};
use crate::plan::Plan;
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
        Action::MakeDirectory(_) => ('+', "directory"),
        Action::RemoveDirectory(_) => ('-', "directory"),
        Action::EraseDirectory(_) => ('-', "directory with all in it"),
        Action::SetDirectory { .. } => ('~', "directory"),
        Action::AddBridge { .. } => ('+', "bridge"),
        Action::RemoveBridge { .. } => ('-', "bridge"),
        Action::AddTap { .. } => ('+', "tap"),
        Action::RemoveTap { .. } => ('-', "tap"),
        Action::SetLink { .. } => ('~', "link"),
        Action::AddAddress { .. } => ('+', "address"),
        Action::RemoveAddress { .. } => ('-', "address"),
        Action::AddLocalRoute { .. } => ('+', "local route"),
        Action::RemoveLocalRoute { .. } => ('-', "local route"),
        Action::WriteNodeFile { from: None, .. } => ('+', "file"),
        Action::WriteNodeFile { to: None, .. } => ('-', "file"),
        Action::WriteNodeFile { .. } => ('~', "file"),
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
        | Action::AddBridge { name, .. }
        | Action::RemoveBridge { name, .. }
        | Action::AddTap { name, .. }
        | Action::RemoveTap { name, .. }
        | Action::SetLink { name, .. } => name.clone(),
        Action::AddUser(user) | Action::RemoveUser(user) => user.name.clone(),
        Action::MakeDirectory(d) | Action::RemoveDirectory(d) | Action::EraseDirectory(d) => {
            d.path.display().to_string()
        }
        Action::SetDirectory { path, .. } | Action::WriteNodeFile { path, .. } => path.display().to_string(),
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
        Action::MakeDirectory(d) | Action::RemoveDirectory(d) | Action::EraseDirectory(d) => access(d.owner, d.mode),
        Action::SetDirectory { from, to, .. } => format!("{} -> {}", access(from.0, from.1), access(to.0, to.1)),
        Action::AddBridge { link, .. }
        | Action::RemoveBridge { link, .. }
        | Action::AddTap { link, .. }
        | Action::RemoveTap { link, .. } => link_line(link),
        Action::SetLink { from, to, .. } => format!("{} -> {}", link_line(from), link_line(to)),
        Action::AddAddress { link, .. } | Action::RemoveAddress { link, .. } => format!("on {link}"),
        Action::AddLocalRoute { .. } | Action::RemoveLocalRoute { .. } => String::new(),
        Action::WriteNodeFile { from, to, .. } => file_line(from.as_deref(), to.as_deref()),
    };
    format!("{sign} {noun} {} {details}", name(action)).trim_end().to_owned()
}

fn access(owner: Owner, mode: u32) -> String {
    format!("{}:{} {mode:04o}", owner.uid, owner.gid)
}

fn link_line(link: &LinkFact) -> String {
    let mut text = String::from(if link.up { "up" } else { "down" });
    if let LinkKind::Tap(Some(uid)) = link.kind {
        let _ = write!(text, " owner {uid}");
    }
    if let Some(bridge) = &link.bridge {
        let _ = write!(text, " bridge {bridge}");
    }
    if link.group != 0 {
        let _ = write!(text, " group {}", link.group);
    }
    let mac: Vec<_> = link.mac.iter().map(|byte| format!("{byte:02x}")).collect();
    let _ = write!(text, " mac {}", mac.join(":"));
    text
}

fn file_line(from: Option<&str>, to: Option<&str>) -> String {
    let lines = |text: Option<&str>| text.map_or(0, |text| text.lines().count());
    match (from, to) {
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
            Self::AddBridges => "making bridges",
            Self::RemoveBridges => "removing bridges",
            Self::AddTaps => "making taps",
            Self::RemoveTaps => "removing taps",
            Self::SetLinks => "changing links",
            Self::AddAddresses => "adding addresses",
            Self::RemoveAddresses => "removing addresses",
            Self::AddRoutes => "adding routes",
            Self::RemoveRoutes => "removing routes",
            Self::WriteNodeFile => "writing the node file",
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
