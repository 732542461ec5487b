//! What agents call: the stream of nudges, the report and its answer.

use super::relay::{LogAsk, LogOf, LogText, LogsWanted};
use super::request::{self, Key};
use super::show::{self, NodeView, Page};
use super::stream::send;
use super::{Caller, Grid, Stream, Topic};
use crate::store::CommitError;
use plat_master_plan::absorb::Own;
use plat_master_plan::access::{Subject, authorize};
use plat_master_plan::desired::{self, Index};
use plat_master_plan::{Expected, absorb, logs, release, run};
use plat_model::id::{Digest, InstanceId, NodeId};
use plat_model::instance::InstanceDesired;
use plat_model::node::NodeReport;
use plat_model::problem::codes;
use plat_model::{Generation, Problem};
use plat_wire::limits::LIST_BYTES;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a node is told in answer to its report.
#[derive(Debug)]
pub struct Synced {
    pub index: Index,
    /// Of those instances that the node does not hold in this generation, as far as one answer has room.
    pub bodies: Vec<InstanceDesired>,
    /// Of those releases that the node does not hold, as far as one answer has room.
    pub documents: BTreeMap<Digest, String>,
    /// What of the report was not accepted.
    pub refused: Vec<Problem>,
}

impl Grid {
    /// The generation of what the calling node is to hold, now and each time that it grows, and the logs that are wanted
    /// from it. The node counts as online as long as the stream is open.
    ///
    /// # Errors
    /// The caller may not.
    pub fn watch_node(self: &Arc<Self>, caller: &Caller) -> Result<Stream<(Generation, Vec<LogsWanted>)>, Problem> {
        let node = caller.node()?.clone();
        let state = self.store.snapshot().state;
        authorize(&state, &caller.principal, caller.rpc, &Subject::Node(node.clone()))?;
        let here = self.presence.enter(&node, self.now());
        let (grid, mut logs) = (self.clone(), self.relay.attach(&node));
        self.stream(caller, |to| async move {
            let _here = here;
            let mut changes = grid.nudges.subscribe(Topic::Desired(node.clone()));
            let mut wanted = Vec::new();
            loop {
                let snapshot = grid.store.snapshot();
                let generation = desired::generation(&snapshot.state, &node);
                grid.store.settled(snapshot.revision).await?;
                if !send(&to, (generation, std::mem::take(&mut wanted))).await {
                    return Ok(());
                }
                tokio::select! {
                    () = changes.changed() => {}
                    Some(one) = logs.recv() => wanted.push(one),
                }
            }
        })
    }

    /// Takes in what a node reports, and answers with what it is to hold. Only what changed reaches the store, and the
    /// audit log only if the node's own shape changed: the rest is state, not somebody's act.
    ///
    /// # Errors
    /// The caller may not, the store failed, or `OVERLOADED` if the node's own shape, or what is wrong with it, changes all
    /// the time. What is wrong with parts of the report is in the answer.
    pub async fn sync(
        &self,
        caller: &Caller,
        report: &NodeReport,
        held: &BTreeMap<InstanceId, Generation>,
        held_releases: &BTreeSet<Digest>,
    ) -> Result<Synced, Problem> {
        let node = caller.node()?.clone();
        self.presence.synced(&node, self.now(), report.generation);
        let refused = self.absorb(caller, &node, report).await?;
        let snapshot = self.store.snapshot();
        let index = desired::index(&snapshot.state, &node);
        let (documents, bodies) = desired::lacking(&snapshot.state, &index, held, held_releases, LIST_BYTES);
        self.store.settled(snapshot.revision).await?;
        Ok(Synced { index, bodies, documents, refused })
    }

    async fn absorb(&self, caller: &Caller, node: &NodeId, report: &NodeReport) -> Result<Vec<Problem>, Problem> {
        let subject = Subject::Node(node.clone());
        let mut counted = false;
        for _ in 0..super::TRIES {
            let snapshot = self.store.snapshot();
            authorize(&snapshot.state, &caller.principal, caller.rpc, &subject)?;
            let now = self.now();
            let mut absorbed = absorb::absorb(&snapshot.state, node, report, now);
            if absorbed.changes.is_empty() {
                return Ok(absorbed.refused);
            }
            if let Some(own) = absorbed.own
                && !std::mem::replace(&mut counted, true)
            {
                match own {
                    Own::Shape => self.reshaped.take(node)?,
                    Own::Troubles => self.troubled.take(node)?,
                }
            }
            if absorbed.own == Some(Own::Shape) {
                let entry = plat_master_plan::Record::Audit(super::audit(caller, &subject, now));
                absorbed.changes.push(plat_master_plan::Change::put(entry));
            }
            let expected = Expected { at: snapshot.revision, read: absorbed.read };
            match self.store.commit(expected, absorbed.changes).await {
                Ok(_) => return Ok(absorbed.refused),
                Err(CommitError::Conflict(_)) => {}
                Err(CommitError::Failed(problem)) => return Err(problem),
            }
        }
        Err(Problem::new(codes::CONFLICT, format!("the report of `{node}` cannot be taken in"))
            .because("what it is about is being changed all the time")
            .fix("send it again"))
    }

    /// All nodes.
    ///
    /// # Errors
    /// The caller may not, or the store failed.
    pub async fn nodes(&self, caller: &Caller, page: &Page) -> Result<(Vec<NodeView>, String), Problem> {
        self.look(caller, &Subject::Grid, |state| {
            let (ids, next) = page.of(&state.nodes, NodeId::parse, |node| node.id.clone())?;
            Ok((ids.iter().filter_map(|id| show::node(state, id, self)).collect(), next))
        })
        .await
    }

    /// One node.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub async fn node(&self, caller: &Caller, node: &NodeId) -> Result<NodeView, Problem> {
        let subject = Subject::Node(node.clone());
        self.look(caller, &subject, |state| show::node(state, node, self).ok_or_else(|| show::no_node(node))).await
    }

    /// The last lines that an instance's services wrote, fetched from its node.
    ///
    /// # Errors
    /// `NOT_FOUND`, also of a service or hook that it does not have; `UNREACHABLE` while its node is not connected;
    /// `OVERLOADED`.
    pub async fn logs(
        self: &Arc<Self>,
        caller: &Caller,
        key: &Key,
        ask: LogAsk,
    ) -> Result<Stream<Vec<LogText>>, Problem> {
        let project = request::project(caller, key.project.as_ref())?;
        let (id, node) = self
            .look(caller, &Subject::Instance(project.clone()), |state| {
                let instance = state.instance(&project, &key.name).ok_or_else(|| show::no_instance(key))?;
                let place = instance.placement.as_ref().ok_or_else(|| {
                    Problem::new(codes::NOT_FOUND, format!("`{project}/{}` has no logs yet", key.name))
                        .because("it waits for a place")
                        .fix("see `plat explain instance`")
                })?;
                // A promise, when promises are asked about, has no log.
                if !ask.promises {
                    logs::can_write(state, instance, ask.service.as_ref(), ask.hook.as_ref())?;
                }
                // An older agent would take it for a question about services.
                if ask.hook.is_some() {
                    run::knows(state, &place.node)?;
                }
                Ok((instance.id.clone(), place.node.clone()))
            })
            .await?;
        let reader = self.relay.open(&node, LogOf::Instance(id), ask)?;
        self.stream(caller, |to| reader.read(to))
    }

    /// The last lines of what a node wrote down while it built a release.
    ///
    /// # Errors
    /// `NOT_FOUND`, also where the node has not begun to build it; `UNREACHABLE` while the node is not connected;
    /// `VERSION_SKEW` of an agent that does not tell; `OVERLOADED`.
    pub async fn release_log(
        self: &Arc<Self>,
        caller: &Caller,
        text: &str,
        node: &NodeId,
        ask: LogAsk,
    ) -> Result<Stream<Vec<LogText>>, Problem> {
        let digest = self
            .look(caller, &Subject::Node(node.clone()), |state| {
                let digest = release::resolve(state, text)?;
                state.nodes.get(node).ok_or_else(|| show::no_node(node))?;
                run::knows(state, node)?;
                Ok(digest)
            })
            .await?;
        let reader = self.relay.open(node, LogOf::Release(digest), ask)?;
        self.stream(caller, |to| reader.read(to))
    }

    /// Passes on what a node sends for those who asked. Returns when nobody reads any more, or the node has ended.
    ///
    /// # Errors
    /// `NOT_YOURS` for a ticket of another node, or of an instance that this node does not hold.
    pub async fn push_logs(
        &self,
        caller: &Caller,
        chunks: impl futures_util::Stream<Item = Result<super::relay::Chunk, Problem>> + Send + Unpin,
    ) -> Result<(), Problem> {
        let node = caller.node()?;
        let state = self.store.snapshot().state;
        authorize(&state, &caller.principal, caller.rpc, &Subject::Node(node.clone()))?;
        let holds = |of: &LogOf| match of {
            LogOf::Instance(instance) => {
                let state = self.store.snapshot().state;
                state.placed.get(node).is_some_and(|on| on.contains(instance))
            }
            // How this node built it, whether or not it is to be there any more.
            LogOf::Release(_) => true,
        };
        tokio::select! {
            biased;
            problem = self.ended(caller) => Err(problem),
            problem = self.closed() => Err(problem),
            passed = self.relay.pass(node, chunks, holds) => passed,
        }
    }
}
