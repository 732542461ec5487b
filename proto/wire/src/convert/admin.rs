//! `admin.proto`: the ledger as it is exported.

use super::{IntoModel, Place, owned};
use crate::limits::USAGE_RECORDS_MAX;
use crate::v1;
use plat_model::Problems;
use plat_model::id::{Digest, NodeId, ProjectName};
use plat_model::usage::{LedgerEntry, LedgerLine};

owned! {
    v1::LedgerLine, LedgerLine;
    v1::LedgerEntry, LedgerEntry;
}

impl From<&LedgerLine> for v1::LedgerLine {
    fn from(line: &LedgerLine) -> Self {
        Self { project: line.project.to_string(), record: Some((&line.record).into()) }
    }
}

impl IntoModel for v1::LedgerLine {
    type Model = LedgerLine;
    fn read(self, at: &Place, problems: &mut Problems) -> Option<LedgerLine> {
        let project = at.field("project").parse(&self.project, ProjectName::parse, problems);
        let record = at.field("record").need(self.record, problems);
        Some(LedgerLine { project: project?, record: record? })
    }
}

impl From<&LedgerEntry> for v1::LedgerEntry {
    fn from(entry: &LedgerEntry) -> Self {
        Self {
            node: entry.node.to_string(),
            sequence: entry.sequence,
            booked_ms: entry.booked.0,
            hash: entry.hash.to_string(),
            lines: entry.lines.iter().map(Into::into).collect(),
        }
    }
}

impl IntoModel for v1::LedgerEntry {
    type Model = LedgerEntry;
    fn read(self, at: &Place, problems: &mut Problems) -> Option<LedgerEntry> {
        let node = at.field("node").parse(&self.node, NodeId::parse, problems);
        let booked = at.field("booked_ms").time(self.booked_ms, problems);
        let hash = at.field("hash").parse(&self.hash, Digest::parse, problems);
        let lines = at.field("lines").all(self.lines, USAGE_RECORDS_MAX, problems);
        Some(LedgerEntry { node: node?, sequence: self.sequence, booked: booked?, hash: hash?, lines: lines? })
    }
}
