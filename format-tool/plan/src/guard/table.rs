//! A table of the packet filter: its script, and what a listing of it must show.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{IpAddr, Ipv6Addr};

/// A part of a set's element. Ranges are from the first to the last, both in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Uids(u32, u32),
    Link(String),
    Mac([u8; 6]),
    Addresses(IpAddr, IpAddr),
    /// IPv6 addresses where the packet filter sees plain bits.
    Bits(Ipv6Addr, Ipv6Addr),
}

impl Part {
    /// As a script has it.
    fn script(&self) -> String {
        match self {
            Self::Link(name) => format!("\"{name}\""),
            Self::Bits(first, last) => span(format!("{:#034x}", first.to_bits()), format!("{:#034x}", last.to_bits())),
            other => other.listed(),
        }
    }

    /// As facts have it.
    fn listed(&self) -> String {
        match self {
            Self::Uids(first, last) => span(first.to_string(), last.to_string()),
            Self::Link(name) => name.clone(),
            Self::Mac(mac) => mac.map(|byte| format!("{byte:02x}")).join(":"),
            Self::Addresses(first, last) => span(first.to_string(), last.to_string()),
            Self::Bits(first, last) => span(first.to_string(), last.to_string()),
        }
    }

    fn is_range(&self) -> bool {
        match self {
            Self::Uids(first, last) => first != last,
            Self::Addresses(first, last) => first != last,
            Self::Bits(first, last) => first != last,
            Self::Link(_) | Self::Mac(_) => false,
        }
    }
}

fn span(first: String, last: String) -> String {
    if first == last { first } else { format!("{first}-{last}") }
}

#[derive(Debug)]
struct Set {
    name: String,
    /// What its elements are: `type ...` or `typeof ...`. With a colon it is a map.
    kind: String,
    elements: BTreeSet<Vec<Part>>,
}

impl Set {
    fn element(&self, parts: &[Part], text: impl Fn(&Part) -> String) -> String {
        let texts: Vec<String> = parts.iter().map(text).collect();
        match texts.split_last() {
            Some((value, key)) if self.kind.contains(" : ") => format!("{} : {value}", key.join(" . ")),
            _ => texts.join(" . "),
        }
    }
}

#[derive(Debug)]
struct Chain {
    name: &'static str,
    /// Where the kernel enters it; `None`: other chains do.
    hook: Option<&'static str>,
    rules: Vec<String>,
}

/// A table named `plat`.
#[derive(Debug)]
pub(super) struct Table {
    family: &'static str,
    sets: Vec<Set>,
    chains: Vec<Chain>,
}

impl Table {
    pub(super) fn new(family: &'static str) -> Self {
        Self { family, sets: Vec::new(), chains: Vec::new() }
    }

    /// Adds a set, and says whether it holds anything: an empty one is left out, and so must be what speaks of it.
    pub(super) fn set(&mut self, name: String, kind: String, elements: impl IntoIterator<Item = Vec<Part>>) -> bool {
        let elements: BTreeSet<Vec<Part>> = elements.into_iter().collect();
        let holds = !elements.is_empty();
        if holds {
            self.sets.push(Set { name, kind, elements });
        }
        holds
    }

    /// Chains that others go to come before those.
    pub(super) fn chain(&mut self, name: &'static str, hook: Option<&'static str>, rules: Vec<String>) {
        self.chains.push(Chain { name, hook, rules });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chains.is_empty()
    }

    pub(super) fn rules(&self) -> u32 {
        self.chains.iter().map(|chain| u32::try_from(chain.rules.len()).unwrap_or(u32::MAX)).sum()
    }

    /// Each as `SET ELEMENT`.
    pub(super) fn elements(&self) -> impl Iterator<Item = String> {
        self.sets.iter().flat_map(|set| {
            set.elements.iter().map(|parts| format!("{} {}", set.name, set.element(parts, Part::listed)))
        })
    }

    /// What makes the table anew, whether there is one or not.
    pub(super) fn script(&self, fingerprint: &str) -> String {
        let family = self.family;
        let mut text = format!("add table {family} plat\ndelete table {family} plat\ntable {family} plat {{\n");
        let _ = writeln!(text, "\tcomment \"node-format {fingerprint}\"");
        for set in &self.sets {
            let word = if set.kind.contains(" : ") { "map" } else { "set" };
            let _ = writeln!(text, "\t{word} {} {{\n\t\t{}", set.name, set.kind);
            if set.elements.iter().flatten().any(Part::is_range) {
                text.push_str("\t\tflags interval\n");
            }
            let elements: Vec<String> = set.elements.iter().map(|parts| set.element(parts, Part::script)).collect();
            let _ = writeln!(text, "\t\telements = {{ {} }}\n\t}}", elements.join(",\n\t\t\t"));
        }
        for chain in &self.chains {
            let _ = writeln!(text, "\tchain {} {{", chain.name);
            if let Some(hook) = chain.hook {
                let _ = writeln!(text, "\t\ttype {hook}; policy accept;");
            }
            chain.rules.iter().for_each(|rule| text.push_str(&format!("\t\t{rule}\n")));
            text.push_str("\t}\n");
        }
        text.push_str("}\n");
        text
    }
}
