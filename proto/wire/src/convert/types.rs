//! `types.proto`: the words that more than one service uses.

mod states;
mod status;
mod usage;

pub(super) use states::read_enum;

use super::{IntoModel, Place, bounded, owned};
use crate::limits::{ADDRESSES_MAX, LABEL_TEXT_MAX, LABELS_MAX, PROBLEM_TEXT_MAX, PROBLEMS_MAX, TEXT_MAX};
use crate::v1;
use plat_model::id::{NodeId, PartitionName, PartitionRef};
use plat_model::instance::PlacementRules;
use plat_model::node::{Inventory, PARTITIONS_MAX, PartitionOffer, TROUBLES_MAX};
use plat_model::resources::{Enforced, Resources};
use plat_model::{Code, Problem, Problems, Waiting};
use std::collections::BTreeMap;
use std::net::IpAddr;

owned! {
    v1::Problem, Problem;
    v1::Problems, Problems;
    v1::Resources, Resources;
    v1::PartitionRef, PartitionRef;
    v1::PlacementRules, PlacementRules;
    v1::Waiting, Waiting;
    v1::PartitionOffer, PartitionOffer;
    v1::Inventory, Inventory;
}

impl From<&Problem> for v1::Problem {
    fn from(problem: &Problem) -> Self {
        let text = |text: &str| bounded(text, PROBLEM_TEXT_MAX);
        Self {
            code: problem.code.to_string(),
            what: text(&problem.what),
            why: text(&problem.why),
            todo: text(&problem.todo),
            at: text(&problem.at),
        }
    }
}

impl IntoModel for v1::Problem {
    type Model = Problem;
    fn read(self, at: &Place, problems: &mut Problems) -> Option<Problem> {
        let code = Code::parse(&self.code);
        if code.is_none() {
            problems.push(at.field("code").wrong("a problem has no code such as P0312"));
        }
        let mut text = |name, text| at.field(name).text(text, PROBLEM_TEXT_MAX, problems);
        let (what, why) = (text("what", self.what), text("why", self.why));
        let (todo, place) = (text("todo", self.todo), text("at", self.at));
        Some(Problem { code: code?, what: what?, why: why?, todo: todo?, at: place? })
    }
}

impl From<&Problems> for v1::Problems {
    fn from(problems: &Problems) -> Self {
        Self { problems: problems.0.iter().take(PROBLEMS_MAX).map(Into::into).collect() }
    }
}

impl IntoModel for v1::Problems {
    type Model = Problems;
    fn read(self, at: &Place, problems: &mut Problems) -> Option<Problems> {
        at.field("problems").all(self.problems, PROBLEMS_MAX, problems).map(Problems)
    }
}

impl From<&Resources> for v1::Resources {
    fn from(r: &Resources) -> Self {
        let Resources { cpu_millis, memory_mib, disk_mib, processes } = *r;
        Self { cpu_millis, memory_mib, disk_mib, processes }
    }
}

impl IntoModel for v1::Resources {
    type Model = Resources;
    fn read(self, _: &Place, _: &mut Problems) -> Option<Resources> {
        let Self { cpu_millis, memory_mib, disk_mib, processes } = self;
        Some(Resources { cpu_millis, memory_mib, disk_mib, processes })
    }
}

impl From<&PartitionRef> for v1::PartitionRef {
    fn from(place: &PartitionRef) -> Self {
        Self { node: place.node.to_string(), partition: place.partition.to_string() }
    }
}

impl IntoModel for v1::PartitionRef {
    type Model = PartitionRef;
    fn read(self, at: &Place, problems: &mut Problems) -> Option<PartitionRef> {
        let node = at.field("node").parse(&self.node, NodeId::parse, problems);
        let partition = at.field("partition").parse(&self.partition, PartitionName::parse, problems);
        Some(PartitionRef { node: node?, partition: partition? })
    }
}

impl From<&PlacementRules> for v1::PlacementRules {
    fn from(rules: &PlacementRules) -> Self {
        Self {
            node: rules.node.as_ref().map(ToString::to_string).unwrap_or_default(),
            labels: rules.labels.clone().into_iter().collect(),
            enforced: names(rules.enforced),
        }
    }
}

impl IntoModel for v1::PlacementRules {
    type Model = PlacementRules;
    fn read(self, at: &Place, problems: &mut Problems) -> Option<PlacementRules> {
        let node = match self.node.as_str() {
            "" => Some(None),
            node => at.field("node").parse(node, NodeId::parse, problems).map(Some),
        };
        let enforced = enforced(self.enforced, &at.field("enforced"), problems);
        let at = at.field("labels");
        let ordered: BTreeMap<_, _> = self.labels.into_iter().collect();
        let labels = at.each(ordered.into_iter().collect(), LABELS_MAX, problems, |(key, value), at, problems| {
            if key.is_empty() {
                problems.push(at.wrong("a label has no name"));
            }
            let key = at.text(key, LABEL_TEXT_MAX, problems);
            let value = at.text(value, LABEL_TEXT_MAX, problems);
            Some((key.filter(|key| !key.is_empty())?, value?))
        });
        Some(PlacementRules { node: node?, labels: labels?.into_iter().collect(), enforced: enforced? })
    }
}

fn names(enforced: Enforced) -> Vec<String> {
    enforced.names().into_iter().map(str::to_owned).collect()
}

fn enforced(names: Vec<String>, at: &Place, problems: &mut Problems) -> Option<Enforced> {
    let with = |all: Option<Enforced>, name: String| {
        let known = all?.with(&name);
        if known.is_none() {
            let what = format!("there is no amount `{}`", plat_model::id::shorten(&name));
            problems.push(at.wrong(what).fix("they are cpu, memory, disk, processes and confinement"));
        }
        known
    };
    names.into_iter().fold(Some(Enforced::default()), with)
}

impl From<&Waiting> for v1::Waiting {
    fn from(waiting: &Waiting) -> Self {
        let text = |text: &str| bounded(text, TEXT_MAX);
        let Waiting { who, on, since, todo } = waiting;
        Self { who: text(who), on: text(on), since_ms: since.0, todo: text(todo) }
    }
}

impl IntoModel for v1::Waiting {
    type Model = Waiting;
    fn read(self, at: &Place, problems: &mut Problems) -> Option<Waiting> {
        let since = at.field("since_ms").time(self.since_ms, problems);
        let mut text = |name, text| at.field(name).text(text, TEXT_MAX, problems);
        let (who, on, todo) = (text("who", self.who), text("on", self.on), text("todo", self.todo));
        Some(Waiting { who: who?, on: on?, since: since?, todo: todo? })
    }
}

impl From<&PartitionOffer> for v1::PartitionOffer {
    fn from(offer: &PartitionOffer) -> Self {
        Self {
            name: offer.name.to_string(),
            addresses: offer.addresses.iter().map(ToString::to_string).collect(),
            limits: Some(offer.limits.into()),
        }
    }
}

impl IntoModel for v1::PartitionOffer {
    type Model = PartitionOffer;
    fn read(self, at: &Place, problems: &mut Problems) -> Option<PartitionOffer> {
        let name = at.field("name").parse(&self.name, PartitionName::parse, problems);
        let addresses = at.field("addresses").each(self.addresses, ADDRESSES_MAX, problems, |text, at, problems| {
            let address = text.parse::<IpAddr>();
            problems.keep(address.map_err(|why| at.wrong("an address is not an IP address").because(why)))
        });
        let limits = at.field("limits").maybe(self.limits, problems)?.unwrap_or_default();
        Some(PartitionOffer { name: name?, addresses: addresses?, limits })
    }
}

/// Longest name of a runtime, in bytes.
const RUNTIME_MAX: usize = 16;

impl From<&Inventory> for v1::Inventory {
    fn from(inventory: &Inventory) -> Self {
        Self {
            capacity: Some(inventory.capacity.into()),
            partitions: inventory.partitions.iter().map(Into::into).collect(),
            enforced: names(inventory.enforced),
            runtime: inventory.runtime.clone(),
            does_once: inventory.does_once,
            troubles: inventory.troubles.iter().map(Into::into).collect(),
        }
    }
}

impl IntoModel for v1::Inventory {
    type Model = Inventory;
    fn read(self, at: &Place, problems: &mut Problems) -> Option<Inventory> {
        let capacity = at.field("capacity").maybe(self.capacity, problems)?.unwrap_or_default();
        if self.runtime.len() > RUNTIME_MAX || !self.runtime.bytes().all(|b| b.is_ascii_lowercase()) {
            problems.push(at.field("runtime").wrong("it is no word in small letters"));
            return None;
        }
        // What a newer node enforces besides is not asked for here.
        let enforced = self.enforced.iter().fold(Enforced::default(), |all, name| all.with(name).unwrap_or(all));
        let troubles = at.field("troubles").all(self.troubles, TROUBLES_MAX, problems)?;
        let at = at.field("partitions");
        let partitions = at.all(self.partitions, PARTITIONS_MAX, problems)?;
        let mut seen = std::collections::BTreeSet::new();
        for (n, offer) in partitions.iter().enumerate() {
            if !seen.insert(&offer.name) {
                at.nth(n).twice(offer.name.as_str(), problems);
                return None;
            }
        }
        drop(seen);
        let (runtime, does_once) = (self.runtime, self.does_once);
        Some(Inventory { capacity, partitions, enforced, runtime, does_once, troubles })
    }
}
