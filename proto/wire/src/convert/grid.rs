//! `grid.proto`: what people ask for. The views it answers with are made by the master from several rows.

use super::types::read_enum;
use super::{IntoModel, Place};
use crate::v1;
use plat_model::Problems;
use plat_model::id::{InstanceName, NodeId, ProjectName};
use plat_model::instance::Wish;
use std::time::Duration;

impl IntoModel for v1::InstanceKey {
    /// The project, if one is said, and the name.
    type Model = (Option<ProjectName>, InstanceName);
    fn read(self, at: &Place, problems: &mut Problems) -> Option<Self::Model> {
        let project = match self.project.as_str() {
            "" => Some(None),
            project => at.field("project").parse(project, ProjectName::parse, problems).map(Some),
        };
        let name = at.field("name").parse(&self.name, InstanceName::parse, problems);
        Some((project?, name?))
    }
}

impl IntoModel for v1::SetWishRequest {
    /// With how long it is to be kept before it is destroyed.
    type Model = (Option<ProjectName>, InstanceName, Wish, Duration);
    fn read(self, at: &Place, problems: &mut Problems) -> Option<Self::Model> {
        let wish = read_enum::<v1::Wish>(self.wish, &at.field("wish"), problems);
        let (project, name) = at.field("key").need(self.key, problems)?;
        let kept = Duration::from_secs(self.keep_seconds);
        let wish = wish?;
        if wish != Wish::Destroyed && !kept.is_zero() {
            problems.push(at.field("keep_seconds").wrong("only what is to be destroyed is kept before"));
        }
        Some((project, name, wish, kept))
    }
}

impl IntoModel for v1::NodeKey {
    type Model = NodeId;
    fn read(self, at: &Place, problems: &mut Problems) -> Option<NodeId> {
        at.field("node").parse(&self.node, NodeId::parse, problems)
    }
}
