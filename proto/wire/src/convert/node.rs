//! `node.proto`: what an agent reports and what it is told.

use super::types::read_enum;
use super::{IntoModel, Place, owned};
use crate::limits::{INSTANCES_MAX, PROBLEMS_MAX, RELEASES_MAX, USAGE_REPORTS_MAX};
use crate::v1;
use plat_model::id::{Digest, InstanceId, InstanceName, PartitionName, ProjectName};
use plat_model::instance::InstanceDesired;
use plat_model::node::NodeReport;
use plat_model::parameters::Parameters;
use plat_model::release::RELEASE_MAX;
use plat_model::run::RUNS_MAX;
use plat_model::tree::SHARED_MAX;
use plat_model::usage::UsageReport;
use plat_model::{Generation, Problems, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

owned! { v1::InstanceBody, InstanceDesired; }

/// What an agent has: bodies by generation, and documents. Only what differs is sent to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Held {
    pub instances: BTreeMap<InstanceId, Generation>,
    pub releases: BTreeSet<Digest>,
}

/// A `SyncRequest` as far as it could be read: one bad part does not keep the others from being taken in.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReadSync {
    pub report: NodeReport,
    pub held: Held,
    /// What was not taken in, and why; goes back to the agent in `SyncResponse.refused`.
    pub refused: Problems,
}

impl ReadSync {
    /// Takes in all that is right. A list past its limit is refused whole.
    pub fn from_wire(wire: v1::SyncRequest) -> Self {
        let root = Place::root();
        let mut read = Self::default();
        let refused = &mut read.refused;
        read.report.generation = Generation(wire.generation);
        read.report.inventory = wire.inventory.and_then(|wire| wire.read(&root.field("inventory"), refused));
        read.report.installations = good(wire.installations, &root.field("installations"), RELEASES_MAX, refused);
        read.report.instances = good(wire.instances, &root.field("instances"), INSTANCES_MAX, refused);
        let at = root.field("held_instances");
        if at.count(wire.held_instances.len(), INSTANCES_MAX, refused) {
            for (n, held) in wire.held_instances.iter().enumerate() {
                if let Some(id) = at.nth(n).parse(&held.id, InstanceId::parse, refused) {
                    read.held.instances.insert(id, Generation(held.generation));
                }
            }
        }
        let at = root.field("held_releases");
        if at.count(wire.held_releases.len(), RELEASES_MAX, refused) {
            for (n, digest) in wire.held_releases.iter().enumerate() {
                read.held.releases.extend(at.nth(n).parse(digest, Digest::parse, refused));
            }
        }
        refused.0.truncate(PROBLEMS_MAX);
        read
    }
}

/// The good ones of a list; each bad one is noted.
fn good<W: IntoModel>(wire: Vec<W>, at: &Place, max: usize, problems: &mut Problems) -> Vec<W::Model> {
    if !at.count(wire.len(), max, problems) {
        return Vec::new();
    }
    wire.into_iter().enumerate().filter_map(|(n, one)| one.read(&at.nth(n), problems)).collect()
}

impl IntoModel for v1::SyncRequest {
    type Model = (NodeReport, Held);
    fn read(self, _: &Place, problems: &mut Problems) -> Option<(NodeReport, Held)> {
        let read = ReadSync::from_wire(self);
        let whole = read.refused.is_empty();
        problems.extend(read.refused);
        whole.then_some((read.report, read.held))
    }
}

/// The `SyncRequest` that says `report` and `held`.
pub fn sync_request(report: &NodeReport, held: &Held) -> v1::SyncRequest {
    v1::SyncRequest {
        generation: report.generation.0,
        inventory: report.inventory.as_ref().map(Into::into),
        installations: report.installations.iter().map(Into::into).collect(),
        instances: report.instances.iter().map(Into::into).collect(),
        held_instances: held
            .instances
            .iter()
            .map(|(id, generation)| v1::HeldInstance { id: id.to_string(), generation: generation.0 })
            .collect(),
        held_releases: held.releases.iter().map(ToString::to_string).collect(),
    }
}

/// Parameters as a field holds them: none at all is the empty text.
pub(in crate::convert) fn json(parameters: &Parameters) -> String {
    if parameters.is_empty() { String::new() } else { parameters.to_json() }
}

impl From<&InstanceDesired> for v1::InstanceBody {
    fn from(desired: &InstanceDesired) -> Self {
        Self {
            id: desired.id.to_string(),
            project: desired.project.to_string(),
            name: desired.name.to_string(),
            partition: desired.partition.to_string(),
            generation: desired.generation.0,
            release: desired.release.to_string(),
            parameters_json: json(&desired.parameters),
            wish: v1::Wish::from(desired.wish).into(),
            resources: Some(desired.resources.into()),
            bang: desired.bang,
            shared: desired.shared.iter().map(Into::into).collect(),
            runs: desired.runs.iter().map(Into::into).collect(),
        }
    }
}

impl IntoModel for v1::InstanceBody {
    type Model = InstanceDesired;
    fn read(self, at: &Place, problems: &mut Problems) -> Option<InstanceDesired> {
        let id = at.field("id").parse(&self.id, InstanceId::parse, problems);
        let project = at.field("project").parse(&self.project, ProjectName::parse, problems);
        let name = at.field("name").parse(&self.name, InstanceName::parse, problems);
        let partition = at.field("partition").parse(&self.partition, PartitionName::parse, problems);
        let release = at.field("release").parse(&self.release, Digest::parse, problems);
        let parameters = at.field("parameters_json").parse(&self.parameters_json, Parameters::parse_json, problems);
        let wish = read_enum::<v1::Wish>(self.wish, &at.field("wish"), problems);
        let resources = at.field("resources").maybe(self.resources, problems)?.unwrap_or_default();
        let shared = at.field("shared").all(self.shared, SHARED_MAX, problems);
        let runs = at.field("runs").all(self.runs, RUNS_MAX, problems);
        Some(InstanceDesired {
            id: id?,
            project: project?,
            name: name?,
            partition: partition?,
            generation: Generation(self.generation),
            release: release?,
            parameters: parameters?,
            wish: wish?,
            resources,
            bang: self.bang,
            shared: shared?,
            runs: runs?,
        })
    }
}

impl IntoModel for v1::ReleaseBody {
    type Model = (Digest, String);
    fn read(self, at: &Place, problems: &mut Problems) -> Option<(Digest, String)> {
        let digest = at.field("digest").parse(&self.digest, Digest::parse, problems);
        let document = at.field("document").text(self.document, RELEASE_MAX, problems);
        Some((digest?, document?))
    }
}

/// What a `SyncResponse` says is desired: the index of all, and the bodies of what the agent lacks.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DesiredIndex {
    pub generation: Generation,
    pub instances: BTreeMap<InstanceId, Generation>,
    pub releases: BTreeSet<Digest>,
    /// How often each was to be built again, of those that were.
    pub rebuilds: BTreeMap<Digest, u64>,
    pub bodies: Vec<InstanceDesired>,
    pub documents: Vec<(Digest, String)>,
    /// Parts of the report that the master did not accept.
    pub refused: Problems,
    /// The master's clock when it answered; `None`: an older one does not say.
    pub now: Option<Timestamp>,
}

impl IntoModel for v1::SyncResponse {
    type Model = DesiredIndex;
    fn read(self, at: &Place, problems: &mut Problems) -> Option<DesiredIndex> {
        let place = at.field("instances");
        let instances = place.each(self.instances, INSTANCES_MAX, problems, |one, at, problems| {
            Some((at.parse(&one.id, InstanceId::parse, problems)?, Generation(one.generation)))
        });
        let place = at.field("releases");
        let releases = place.each(self.releases, RELEASES_MAX, problems, |digest, at, problems| {
            at.parse(&digest, Digest::parse, problems)
        });
        let place = at.field("rebuilds");
        let rebuilds = place.each(self.rebuilds, RELEASES_MAX, problems, |one, at, problems| {
            Some((at.field("digest").parse(&one.digest, Digest::parse, problems)?, one.number))
        });
        let bodies = at.field("bodies").all(self.bodies, INSTANCES_MAX, problems);
        let documents = at.field("documents").all(self.documents, RELEASES_MAX, problems);
        let refused = at.field("refused").all(self.refused, PROBLEMS_MAX, problems);
        Some(DesiredIndex {
            generation: Generation(self.generation),
            instances: instances?.into_iter().collect(),
            releases: releases?.into_iter().collect(),
            rebuilds: rebuilds?.into_iter().collect(),
            bodies: bodies?,
            documents: documents?,
            refused: Problems(refused?),
            now: (self.now_ms != 0).then_some(Timestamp(self.now_ms)),
        })
    }
}

impl IntoModel for v1::PushUsageRequest {
    type Model = Vec<UsageReport>;
    fn read(self, at: &Place, problems: &mut Problems) -> Option<Vec<UsageReport>> {
        let at = at.field("reports");
        let reports: Vec<UsageReport> = at.all(self.reports, USAGE_REPORTS_MAX, problems)?;
        if reports.windows(2).any(|pair| pair[0].sequence >= pair[1].sequence) {
            problems.push(at.wrong("usage reports are not in order of their numbers"));
            return None;
        }
        Some(reports)
    }
}
