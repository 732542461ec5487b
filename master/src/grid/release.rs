//! Releases, and on which nodes they are to be.

use super::show::{self, Page, ReleaseView};
use super::{Caller, Grid};
use plat_master_plan::access::Subject;
use plat_master_plan::decision::Decision;
use plat_master_plan::rebuild::{self, Rebuild};
use plat_master_plan::release::{self, Targets};
use plat_model::id::{Digest, NodeId, ReleaseName};
use plat_model::release::SupplyState;
use plat_model::{Problem, Problems};
use std::collections::BTreeSet;

impl Grid {
    /// Adds a release document, under its own name or another one.
    ///
    /// # Errors
    /// All that is wrong with the document.
    pub async fn add_release(
        &self,
        caller: &Caller,
        name: Option<&ReleaseName>,
        document: &str,
    ) -> Result<ReleaseView, Problems> {
        let mut document = plat_document::Release::parse_yaml(document, "release")?;
        if let Some(name) = name {
            document.name = name.clone();
        }
        let digest = self.change(caller, &Subject::Grid, |state, now| Ok(release::add(state, &document, now)?)).await?;
        let snapshot = self.store.snapshot();
        let view = show::release(&snapshot.state, &digest, show::Detail::Whole);
        self.store.settled(snapshot.revision).await?;
        view.ok_or_else(|| show::no_release(digest.short()).into())
    }

    /// All releases, in the order of their digests.
    ///
    /// # Errors
    /// The caller may not, or the store failed.
    pub async fn releases(&self, caller: &Caller, page: &Page) -> Result<(Vec<ReleaseView>, String), Problem> {
        self.look(caller, &Subject::Grid, |state| {
            let (digests, next) = page.of(&state.releases, Digest::parse, |release| release.digest.clone())?;
            let views = digests.iter().filter_map(|digest| show::release(state, digest, show::Detail::Summary));
            Ok((views.map(|view| show::for_role(view, caller)).collect(), next))
        })
        .await
    }

    /// One release with its document, by name, digest or the beginning of that.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub async fn release(&self, caller: &Caller, text: &str) -> Result<ReleaseView, Problem> {
        self.look(caller, &Subject::Grid, |state| {
            let digest = release::resolve(state, text)?;
            let view = show::release(state, &digest, show::Detail::Whole).ok_or_else(|| show::no_release(text))?;
            Ok(show::for_role(view, caller))
        })
        .await
    }

    /// Makes a release available on nodes, or removes it from them.
    ///
    /// # Errors
    /// As [`release::supply`].
    pub async fn supply(
        &self,
        caller: &Caller,
        text: &str,
        targets: &Targets,
        wanted: SupplyState,
    ) -> Result<(Digest, Vec<NodeId>), Problems> {
        self.change(caller, &Subject::Grid, |state, _| {
            let digest = release::resolve(state, text)?;
            let decision = release::supply(state, &digest, targets, wanted)?;
            Ok(Decision { changes: decision.changes, read: decision.read, answer: (digest, decision.answer) })
        })
        .await
    }

    /// Has nodes build a release again; none named: all that it is to be on.
    ///
    /// # Errors
    /// As [`rebuild::rebuild`].
    pub async fn rebuild(
        &self,
        caller: &Caller,
        text: &str,
        nodes: &BTreeSet<NodeId>,
    ) -> Result<(Digest, Vec<Rebuild>), Problems> {
        self.change(caller, &Subject::Grid, |state, now| {
            let digest = release::resolve(state, text)?;
            let Decision { changes, read, answer } = rebuild::rebuild(state, &digest, nodes, now)?;
            Ok(Decision { changes, read, answer: (digest, answer) })
        })
        .await
    }
}
