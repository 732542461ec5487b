//! What was used, and what it costs.

use super::stream::send;
use super::{Caller, Grid, Stream, request};
use crate::store::CommitError;
use plat_master_plan::access::{Subject, authorize};
use plat_master_plan::ledger::{Booking, SKEW_MAX, WINDOW_MAX, book};
use plat_master_plan::record::{MeterSum, RateCard};
use plat_master_plan::statement::{self, Statement};
use plat_master_plan::{Expected, view};
use plat_model::id::{InstanceId, InstanceName, NodeId, ProjectName};
use plat_model::problem::codes;
use plat_model::time::Period;
use plat_model::usage::{Amount, LedgerEntry, Meter, UsageReport};
use plat_model::{Problem, Problems, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Ledger entries read at once.
const ENTRIES: usize = 256;

/// Longest time between two ends of which use is asked for: as long as one line's window may be.
const SPAN_MAX: Duration = WINDOW_MAX;

/// Which use is asked for.
#[derive(Debug, Clone)]
pub struct Query {
    /// `None`: of all that the caller may see.
    pub project: Option<ProjectName>,
    pub instance: Option<InstanceName>,
    pub start: Option<Timestamp>,
    pub end: Option<Timestamp>,
}

/// The use of one meter by one instance.
#[derive(Debug, Clone, PartialEq)]
pub struct UsageSum {
    pub project: ProjectName,
    pub instance: InstanceId,
    /// Empty if it is not known any more.
    pub name: String,
    pub meter: Meter,
    pub sum: MeterSum,
}

type Sums = BTreeMap<(ProjectName, InstanceId, Meter), MeterSum>;

impl Grid {
    /// Books a node's usage reports, in order. Answers up to which number all is booked.
    ///
    /// # Errors
    /// `LEDGER_GAP` if the first does not follow what is booked; the store's. What was booked before stays so.
    pub async fn push_usage(&self, caller: &Caller, reports: &[UsageReport]) -> Result<u64, Problem> {
        let node = caller.node()?.clone();
        self.presence.seen(&node, self.now());
        for report in reports {
            self.book(caller, &node, report).await?;
        }
        self.look(caller, &Subject::Node(node.clone()), |state| Ok(state.tails.get(&node).map_or(0, |t| t.sequence)))
            .await
    }

    async fn book(&self, caller: &Caller, node: &NodeId, report: &UsageReport) -> Result<(), Problem> {
        for _ in 0..super::TRIES {
            let snapshot = self.store.snapshot();
            authorize(&snapshot.state, &caller.principal, caller.rpc, &Subject::Node(node.clone()))?;
            let (changes, read) = match book(&snapshot.state, node, report, self.now())? {
                Booking::Duplicate { .. } => return Ok(()),
                Booking::Booked { changes, read, refused } => {
                    for problem in refused {
                        tracing::warn!(%node, sequence = report.sequence, problem = problem.one_line(), "usage refused");
                    }
                    (changes, read)
                }
            };
            match self.store.commit(Expected { at: snapshot.revision, read }, changes).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict(_)) => {}
                Err(CommitError::Failed(problem)) => return Err(problem),
            }
        }
        Err(Problem::new(codes::CONFLICT, format!("the usage of `{node}` cannot be booked"))
            .because("its ledger is being written all the time")
            .fix("send it again"))
    }

    /// Sums of use: over whole months from the running sums, over other times from the ledger itself.
    ///
    /// # Errors
    /// The caller may not see the project; `BAD_VALUE` past 100 days between the ends; `OVERLOADED` while another such
    /// question of his is being answered; or the store failed.
    pub async fn usage(&self, caller: &Caller, query: &Query) -> Result<Vec<UsageSum>, Problem> {
        let subject = query.project.clone().map_or(Subject::Grid, Subject::Project);
        let (state, who) = (self.store.snapshot().state, &caller.principal);
        self.look(caller, &subject, |_| Ok(())).await?;
        let project = query.project.as_ref();
        let mut names = BTreeMap::new();
        let mut sums = Sums::new();
        let first = Period::of(Timestamp::ZERO);
        for sum in view::sums(&state, who, project, first, Period::of(Timestamp(i64::MAX / 2_000_000))) {
            names.insert(sum.instance.clone(), sum.name.clone());
            if query.start.is_none() && query.end.is_none() {
                for (meter, amount) in &sum.meters {
                    let key = (sum.project.clone(), sum.instance.clone(), *meter);
                    add(sums.entry(key).or_default(), amount);
                }
            }
        }
        if query.start.is_some() || query.end.is_some() {
            // Walking the ledger costs what has been booked, whoever asks.
            let _turn = self.scans.take(who)?;
            self.add_ledger(query, |project| view::sees(who, project), &mut sums).await?;
        }
        let shown = sums.into_iter().map(|((project, instance, meter), sum)| {
            let name = names.get(&instance).or(state.instances.get(&instance).map(|i| &i.name));
            UsageSum { project, meter, sum, name: name.map_or_else(String::new, ToString::to_string), instance }
        });
        let asked = query.instance.as_ref();
        Ok(shown.filter(|sum| asked.is_none_or(|asked| asked.as_str() == sum.name)).collect())
    }

    async fn add_ledger(
        &self,
        query: &Query,
        sees: impl Fn(&ProjectName) -> bool + Send,
        sums: &mut Sums,
    ) -> Result<(), Problem> {
        let (start, end) = (query.start.unwrap_or(Timestamp::ZERO), query.end.unwrap_or(self.now()));
        if end.since(start) > SPAN_MAX {
            let days = SPAN_MAX.as_secs() / 86400;
            return Err(Problem::new(codes::BAD_VALUE, "the time that is asked for is too long")
                .because(format!("use between two times is looked up for at most {days} days at once"))
                .fix(format!("say a time from which on, at most {days} days before the end, or no times at all")));
        }
        let nodes: Vec<(NodeId, u64)> =
            self.store.snapshot().state.tails.iter().map(|(node, tail)| (node.clone(), tail.sequence)).collect();
        for (node, last) in nodes {
            let mut after = self.booked_before(&node, last, start.minus(SKEW_MAX)).await?;
            while after < last {
                let entries = self.store.ledger(Some(node.clone()), after, ENTRIES).await?;
                let Some(newest) = entries.last() else { break };
                after = newest.sequence;
                for line in entries.iter().flat_map(|entry| &entry.lines) {
                    let of_project = query.project.as_ref().is_none_or(|asked| asked == &line.project);
                    let within = (start..end).contains(&line.record.window.start);
                    if !(of_project && within && sees(&line.project)) {
                        continue;
                    }
                    for (meter, amount) in &line.record.amounts {
                        let key = (line.project.clone(), line.record.instance.clone(), *meter);
                        let sum = sums.entry(key).or_default();
                        match amount {
                            Amount::Known(amount) => sum.amount = sum.amount.saturating_add(*amount),
                            Amount::Unknown(why) => {
                                sum.unknown_windows += 1;
                                sum.unknown_reason.clone_from(why);
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// The last entry of a node that was booked before a time, found by halving: a node's entries are booked in order.
    async fn booked_before(&self, node: &NodeId, last: u64, time: Timestamp) -> Result<u64, Problem> {
        let (mut before, mut from) = (0, last + 1);
        while from - before > 1 {
            let middle = before + (from - before) / 2;
            let entry = self.store.ledger(Some(node.clone()), middle - 1, 1).await?;
            if entry.first().is_some_and(|entry| entry.booked < time) {
                before = middle;
            } else {
                from = middle;
            }
        }
        Ok(before)
    }

    /// The statement of a project for a period; for the present one, what it would be now.
    ///
    /// # Errors
    /// The caller may not see the project, or the store failed.
    pub async fn statement(
        &self,
        caller: &Caller,
        said: Option<&ProjectName>,
        period: Option<Period>,
    ) -> Result<Statement, Problem> {
        let project = request::project(caller, said)?;
        let period = period.unwrap_or_else(|| Period::of(self.now()));
        let subject = Subject::Project(project.clone());
        self.look(caller, &subject, |state| statement::statement(state, &project, period)).await
    }

    /// Sets what use costs from a point in time on.
    ///
    /// # Errors
    /// As [`statement::set_rate_card`].
    pub async fn set_rate_card(&self, caller: &Caller, card: &RateCard) -> Result<RateCard, Problems> {
        self.change(caller, &Subject::Grid, |state, _| statement::set_rate_card(state, card.clone())).await
    }

    /// What use costs at a point in time.
    ///
    /// # Errors
    /// `NOT_FOUND` if nothing is set for it.
    pub async fn rate_card(&self, caller: &Caller, at: Option<Timestamp>) -> Result<RateCard, Problem> {
        let period = Period::of(at.unwrap_or_else(|| self.now()));
        self.look(caller, &Subject::Grid, |state| {
            statement::card_for(state, period).cloned().ok_or_else(|| {
                Problem::new(codes::NOT_FOUND, format!("there is no rate card for {period}"))
                    .because("none was set that begins before its end")
                    .fix("set one with `plat rates set`")
            })
        })
        .await
    }

    /// The ledger as it was booked, after an entry; of one node, or of all, node by node.
    ///
    /// # Errors
    /// `OVERLOADED` if the caller has too many streams.
    pub async fn export_ledger(
        self: &Arc<Self>,
        caller: &Caller,
        node: Option<NodeId>,
        after: u64,
    ) -> Result<Stream<LedgerEntry>, Problem> {
        self.look(caller, &Subject::Grid, |_| Ok(())).await?;
        let nodes = match node {
            Some(node) => vec![node],
            None => self.store.snapshot().state.tails.keys().cloned().collect(),
        };
        let grid = self.clone();
        self.stream(caller, |to| async move {
            for node in nodes {
                let mut after = after;
                loop {
                    let entries = grid.store.ledger(Some(node.clone()), after, ENTRIES).await?;
                    let Some(last) = entries.last() else { break };
                    after = last.sequence;
                    for entry in entries {
                        if !send(&to, entry).await {
                            return Ok(());
                        }
                    }
                }
            }
            Ok(())
        })
    }
}

fn add(sum: &mut MeterSum, more: &MeterSum) {
    sum.amount = sum.amount.saturating_add(more.amount);
    sum.unknown_windows += more.unknown_windows;
    sum.adjustment = sum.adjustment.saturating_add(more.adjustment);
    if !more.unknown_reason.is_empty() {
        sum.unknown_reason.clone_from(&more.unknown_reason);
    }
}
