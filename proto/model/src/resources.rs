//! Amounts with their units, and sums that cannot overflow.

use serde::{Deserialize, Serialize};

/// What an instance asks for, or what a partition or node offers. `None` asks for nothing in particular, or offers an
/// amount that is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// Thousandths of a core: `1500` is one and a half.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u32>,
    /// Mebibytes of memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u32>,
    /// Mebibytes of disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_mib: Option<u32>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u32>,
}

impl Resources {
    fn each(self, other: Self, f: fn(Option<u32>, Option<u32>) -> Option<u32>) -> Self {
        Self {
            cpu_millis: f(self.cpu_millis, other.cpu_millis),
            memory_mib: f(self.memory_mib, other.memory_mib),
            disk_mib: f(self.disk_mib, other.disk_mib),
            processes: f(self.processes, other.processes),
        }
    }

    /// The sum; an amount not asked for counts as zero.
    pub fn plus(self, other: Self) -> Self {
        self.each(other, |a, b| match (a, b) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or(0).saturating_add(b.unwrap_or(0))),
        })
    }

    /// Each amount of `self`, but no more than that of `most`; all of `most` where `self` has none.
    pub fn within(self, most: Self) -> Self {
        self.each(most, |asked, most| match (asked, most) {
            (Some(asked), Some(most)) => Some(asked.min(most)),
            (asked, most) => asked.or(most),
        })
    }

    /// Each amount of `self`, or where it has none that of `other`.
    pub fn or(self, other: Self) -> Self {
        self.each(other, |a, b| a.or(b))
    }

    /// Which amounts of `asked` are larger than what is offered here, e.g. `memory: 4096 MiB asked, 512 MiB free`.
    /// An amount that is not known here bounds nothing.
    pub fn shortfalls(self, asked: Self) -> Vec<String> {
        [
            ("cpu", "m", self.cpu_millis, asked.cpu_millis),
            ("memory", " MiB", self.memory_mib, asked.memory_mib),
            ("disk", " MiB", self.disk_mib, asked.disk_mib),
            ("processes", "", self.processes, asked.processes),
        ]
        .into_iter()
        .filter_map(|(name, unit, have, want)| {
            let (have, want) = (have?, want?);
            (want > have).then(|| format!("{name}: {want}{unit} asked, {have}{unit} free"))
        })
        .collect()
    }

    /// What is left after `used` is taken away; never below zero.
    pub fn minus(self, used: Self) -> Self {
        self.each(used, |have, used| have.map(|have| have.saturating_sub(used.unwrap_or(0))))
    }
}

/// What somebody is held to: what a node can hold its partitions to, or what it must.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Enforced {
    pub cpu: bool,
    pub memory: bool,
    pub disk: bool,
    pub processes: bool,
    /// No amount: its services see and change nothing of the machine but what is theirs or everybody's, in all the ways that
    /// are known for it.
    pub confinement: bool,
}

impl Enforced {
    fn each(self) -> [(&'static str, bool); 5] {
        [
            ("cpu", self.cpu),
            ("memory", self.memory),
            ("disk", self.disk),
            ("processes", self.processes),
            ("confinement", self.confinement),
        ]
    }

    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// What they are called.
    pub fn names(self) -> Vec<&'static str> {
        self.each().into_iter().filter_map(|(name, is)| is.then_some(name)).collect()
    }

    /// Which of `asked` are not here.
    pub fn lacks(self, asked: Self) -> Vec<&'static str> {
        let both = self.each().into_iter().zip(asked.each());
        both.filter_map(|((name, here), (_, asked))| (asked && !here).then_some(name)).collect()
    }

    /// With what has this name; `None` if nothing has.
    pub fn with(mut self, name: &str) -> Option<Self> {
        let field = match name {
            "cpu" => &mut self.cpu,
            "memory" => &mut self.memory,
            "disk" => &mut self.disk,
            "processes" => &mut self.processes,
            "confinement" => &mut self.confinement,
            _ => return None,
        };
        *field = true;
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays_within_what_may_be_had() {
        let asked = Resources { memory_mib: Some(1024), cpu_millis: Some(500), ..Resources::default() };
        let most = Resources { memory_mib: Some(512), cpu_millis: Some(800), processes: Some(9), disk_mib: None };
        let both = Resources { memory_mib: Some(512), cpu_millis: Some(500), processes: Some(9), disk_mib: None };
        assert_eq!(asked.within(most), both);
    }

    #[test]
    fn an_unknown_offer_bounds_nothing_and_a_known_one_does() {
        let offer = Resources { memory_mib: Some(512), ..Resources::default() };
        let ask = Resources { memory_mib: Some(1024), cpu_millis: Some(500), ..Resources::default() };
        assert_eq!(offer.shortfalls(ask), ["memory: 1024 MiB asked, 512 MiB free"]);
        assert!(offer.minus(offer).shortfalls(Resources::default()).is_empty());
    }
}
