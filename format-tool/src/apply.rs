//! observe → plan → perform → observe again. Every refusal comes before the first effect; what fails is undone in
//! reverse.

mod undo;

use crate::host::{Host, Outcome};
use crate::record::Record;
use node_format_plan::thing::Thing;
use node_format_plan::{
    Action, Consent, Forgotten, HostFacts, Kind, Layout, Plan, Scope, plan, privileges_lacking, rollback,
    rollback_scope, scope, still_used, written_along,
};
use plat_model::problem::{Problem, Problems, codes};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// What the machine shall be.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// An empty one asks for the reset.
    pub layout: &'a Layout,
    pub consent: Consent,
}

impl<'a> Wish<'a> {
    pub fn new(layout: &'a Layout, consent: impl Into<Consent>) -> Self {
        Self { layout, consent: consent.into() }
    }
}

/// Told before each batch: what is done, and to how many things.
pub type Progress<'a> = &'a mut dyn FnMut(Kind, &[Action]);

/// What a run did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The plan that was performed.
    pub plan: Plan,
    /// What of it could not be done, and a partition's user may have kept from being done.
    pub excused: Vec<Problem>,
}

/// What there is to do, without doing it.
///
/// # Errors
/// Every reason why it must not be done.
pub fn propose(wish: Wish, host: &mut dyn Host, record: &Record) -> Result<Plan, Problems> {
    observe_and_plan(wish, host, record).map(|(plan, _)| plan)
}

/// How the machine differs from what it was formatted to: the plan that would repair it, without a word on who may.
///
/// # Errors
/// As [`propose`]: what is in the way of the repair.
pub fn drift(wish: Wish, host: &mut dyn Host, record: &Record) -> Result<Plan, Problems> {
    propose(wish, host, record)
}

fn observe_and_plan(wish: Wish, host: &mut dyn Host, record: &Record) -> Result<(Plan, HostFacts), Problems> {
    let facts = host.observe(&scope(wish.layout, record.claims()))?;
    let plan = plan(wish.layout, &facts, record.claims(), wish.consent)?;
    Ok((plan, facts))
}

/// Makes the machine what the wish says, or leaves it as it was.
///
/// # Errors
/// Refusals, before anything was done; [`codes::APPLY_FAILED`] when it failed and was undone; [`codes::UNDO_FAILED`],
/// besides, for each thing that could not be undone (it stays in the record, and the next run goes on from there).
pub fn apply(wish: Wish, host: &mut dyn Host, record: &mut Record, progress: Progress) -> Result<Applied, Problems> {
    let (plan, facts) = observe_and_plan(wish, host, record)?;
    let unchanged = plan.is_empty();
    carry_out(plan, facts, host, record, progress, &mut |host, record| verify(wish, host, record, unchanged))
}

/// Gives an uplink back that was not confirmed; nothing else is looked at or changed. It is never undone: the machine may be
/// reached by whatever came back. What did not is still in the record, and may be tried again.
///
/// # Errors
/// All that went wrong.
pub fn roll_back(host: &mut dyn Host, record: &mut Record) -> Result<Applied, Problems> {
    let facts = host.observe(&rollback_scope(record.claims()))?;
    let plan = rollback(&facts, record.claims())?;
    let mut problems = privileges_lacking(&plan, &facts);
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut work = Work::default();
    for batch in plan.actions.chunk_by(|a, b| a.kind() == b.kind()) {
        problems.extend(perform(batch, host, record, &BTreeSet::new(), &mut work).err());
    }
    // Of an interface that is gone, what it left on the bridge may not be: then it is tried again.
    if problems.is_empty() {
        record.strike(plan.forget.iter().cloned())?;
    }
    problems.none_or(Applied { plan, excused: work.excused })
}

/// Performs a plan whole, or undoes what of it was done.
fn carry_out(
    plan: Plan,
    facts: HostFacts,
    host: &mut dyn Host,
    record: &mut Record,
    progress: Progress,
    proof: &mut dyn FnMut(&mut dyn Host, &Record) -> Result<(), Problem>,
) -> Result<Applied, Problems> {
    let lacking = privileges_lacking(&plan, &facts);
    if !lacking.is_empty() {
        return Err(lacking);
    }
    let tenants = plan.tenants_links(&facts);
    // Of a large node they take as much memory as the plan, and there will be new ones.
    drop(facts);
    if let Some(lock) = record.children() {
        host.hold(lock)?;
    }
    host.clear(&plan.forget)?;
    let Forgotten { first, before_taking, last } = plan.forgotten();
    let gone: Vec<Thing> = first.into_iter().filter(|thing| record.claims().has(thing)).collect();
    record.strike(gone.iter().cloned())?;
    record.add(plan.known.iter().cloned())?;
    let made: BTreeSet<Thing> = plan.actions.iter().filter_map(Action::makes).collect();
    let is_meant = |thing: &&Thing| matches!(thing, Thing::Sysctl { .. } | Thing::User { .. } | Thing::Group { .. });
    let again = record.claims().iter().filter(|thing| is_meant(thing) && made.contains(thing)).cloned().collect();
    let touched: BTreeSet<Thing> = plan.actions.iter().filter_map(Action::removes).chain(made).collect();
    let has_along = |thing: &&Thing| matches!(thing, Thing::Sysctl { key, .. } if !written_along(key).is_empty());
    let settings =
        record.claims().iter().filter(|thing| has_along(thing) && touched.contains(thing)).cloned().collect();
    let (lost, cleared) = (plan.lost.clone(), plan.cleared.clone());
    let mut work = Work { gone, before_taking, again, settings, lost, cleared, ..Work::default() };
    let outcome = perform_all(&plan.actions, host, record, &tenants, progress, &mut work);
    let applied = match outcome.and_then(|()| proof(host, record)).and_then(|()| record.strike(last)) {
        Ok(()) => Ok(Applied { plan, excused: work.excused }),
        Err(problem) => Err(undo::undo(problem, &plan.actions, work, host, record, &tenants)),
    };
    // The record may be opened again by this process.
    host.let_go();
    applied
}

fn perform_all(
    actions: &[Action],
    host: &mut dyn Host,
    record: &mut Record,
    tenants: &BTreeSet<String>,
    progress: Progress,
    work: &mut Work,
) -> Result<(), Problem> {
    for batch in actions.chunk_by(|a, b| a.kind() == b.kind()) {
        if host.interrupted() {
            return Err(
                Problem::new(codes::APPLY_FAILED, "the run was interrupted").because("a signal asked it to stop")
            );
        }
        if batch[0].kind() == Kind::RemoveAccounts {
            // Whose files are erased by now may have begun something since the first look.
            let gone = batch.iter().filter_map(removed_uid).collect();
            let seen = host.observe(&Scope { processes: gone, accounts: true, ..Scope::default() })?;
            let used = still_used(actions, &seen);
            used.none_or(()).map_err(Problems::into_one)?;
        }
        progress(batch[0].kind(), batch);
        if batch.iter().any(|action| action.takes().is_some()) {
            work.struck = std::mem::take(&mut work.before_taking);
            record.strike(work.struck.iter().cloned())?;
        }
        perform(batch, host, record, tenants, work)?;
    }
    Ok(())
}

/// One batch: into the record, onto the machine, out of the record. `tenants`: the links that partitions' users may let go.
fn perform(
    batch: &[Action],
    host: &mut dyn Host,
    record: &mut Record,
    tenants: &BTreeSet<String>,
    work: &mut Work,
) -> Result<(), Problem> {
    // A thing that is rewritten or made anew stays ours if that fails: only what is new can turn out not to be there.
    let fresh: Vec<bool> = batch.iter().map(|a| a.makes().is_some_and(|thing| !record.claims().has(&thing))).collect();
    record.add(batch.iter().filter_map(Action::makes))?;
    let Outcome { done, problem } = host.perform(batch);
    // The first that is not done may be half done.
    let begun = done.iter().take_while(|done| **done).count() + 1;
    work.erased.extend(batch.iter().take(begun).filter_map(erased));
    work.finished.extend(batch.iter().filter_map(finished));
    work.directories.extend(batch.iter().filter_map(partitions_directory));
    work.excused.extend(host.excused());
    // Of those that it leaves out nobody knows: what they make stays claimed, and the next plan forgets what is not there.
    let unknown = done.len() < batch.len();
    work.unknown |= unknown;
    let pairs = || batch.iter().zip(done.iter().copied());
    work.done.extend(done.iter().copied().chain(std::iter::repeat(false)).take(batch.len()));
    // What a partition's user can bring about at any moment, he can also keep from being mended: his directory, its limit,
    // his links. A failure with nothing left undone is none of those: something was done half-way.
    let his_alone = |action: &Action, fresh: bool| match action {
        Action::SetDirectory { .. } => action.is_tenants_doing(),
        // The first one is set on what he has not had.
        Action::SetDiskLimit { .. } => action.is_tenants_doing() && !fresh,
        Action::AddLink { .. } | Action::RemoveLink { .. } => false,
        other => other.link().is_some_and(|link| tenants.contains(&link)),
    };
    let undone = || pairs().zip(fresh.iter().copied()).filter(|((_, done), _)| !done);
    let excused =
        !unknown && undone().next().is_some() && undone().all(|((action, _), fresh)| his_alone(action, fresh));
    // Gone, or never made: neither is ours to keep in the record.
    let half_way = |action: &Action| problem.is_some() && action.clears().is_some();
    let gone = pairs().zip(fresh.iter().copied()).filter_map(|((action, done), fresh)| match (done, fresh) {
        (true, _) if half_way(action) => None, // What did not come back whole is still to come.
        (true, _) => action.removes(),
        (false, true) => action.makes(),
        (false, false) => None,
    });
    let settled = pairs().zip(fresh.iter().copied()).filter_map(|((action, done), fresh)| match (done, fresh) {
        (true, _) => action.settles(),
        (false, false) => action.keeps(),
        (false, true) => None,
    });
    let settled = record.add(settled);
    let struck = record.strike(gone).and(settled);
    match problem {
        Some(problem) if !excused => Err(problem),
        problem => {
            work.excused.extend(problem);
            struck
        }
    }
}

/// What came of the batches so far.
#[derive(Default)]
struct Work {
    /// Of the actions so far, in their order.
    done: Vec<bool>,
    excused: Vec<Problem>,
    /// Whether of some action nobody knows if it took effect.
    unknown: bool,
    /// Partitions' directories that were to be erased: what was in them does not come back.
    erased: Vec<PathBuf>,
    /// Those that were half-made, and were made whole, or begun to be.
    finished: Vec<PathBuf>,
    /// All of them that it was at work on.
    directories: Vec<PathBuf>,
    /// What was not there any more, at least by its name, and was struck out.
    gone: Vec<Thing>,
    /// See [`Forgotten::before_taking`].
    before_taking: Vec<Thing>,
    /// What of that was struck out.
    struck: Vec<Thing>,
    /// What was ours and is made again, as the record knew it: settings of the kernel that were somebody else's again, accounts that
    /// somebody took away.
    again: Vec<Thing>,
    /// Settings of the kernel that others change along with, as the record knew them: what those were before may be told anew.
    settings: Vec<Thing>,
    /// See [`Plan::lost`].
    lost: Vec<String>,
    /// See [`Plan::cleared`].
    cleared: Vec<String>,
}

impl Work {
    /// What undoing these does not bring back, in words: what went along with what was taken away, whosever it is.
    fn lost(&self, done: &[&Action]) -> Option<String> {
        let takes = |action: &Action| match action {
            Action::RemoveLink { .. } | Action::RemoveAddress(_) => true,
            Action::ReturnUplink { .. } | Action::DropUplink { .. } | Action::KeepUplink { .. } => true,
            // Undone, they may be the last of their link.
            Action::AddAddress(_) | Action::TakeUplink(_) | Action::FinishUplink { .. } => true,
            Action::SetLink { from, to, .. } => {
                let is_another = from.mtu.zip(to.mtu).is_some_and(|(was, mtu)| mtu != was);
                // Once it is set, a bridge follows its ports no more.
                let is_kept = from.mtu.is_none() && to.mtu.is_some();
                from.mac != to.mac || (from.up && !to.up) || from.bridge != to.bridge || is_another || is_kept
            }
            // A bridge takes no larger packets than a port of its does.
            Action::AddLink { link, .. } => link.bridge.is_some() && link.mtu.is_some(),
            Action::SetNamespace { state, .. } => state.from.outside.is_some() || state.to.inside.is_none(),
            other => other.kind() == Kind::SetSysctls,
        };
        if self.lost.is_empty() || !done.iter().copied().any(takes) {
            return None;
        }
        let named = self.lost.iter().take(NAMED).cloned().collect::<Vec<_>>().join("; ");
        let more = self.lost.len().saturating_sub(NAMED);
        let more = if more > 0 { format!("; and {more} more, which `plan` named") } else { String::new() };
        Some(format!("what may have gone along: {named}{more}"))
    }

    /// What of it was left as it is, in words.
    fn kept(&self) -> Option<String> {
        let has_any = !self.excused.is_empty();
        has_any.then(|| format!("what a partition's user can keep as it is: {}", some(&self.excused)))
    }
}

/// Most of what went along, or was left undone, that is named in one sentence.
const NAMED: usize = 10;

fn some(problems: &[Problem]) -> String {
    let named: Vec<String> = problems.iter().take(NAMED).map(Problem::one_line).collect();
    let more = problems.len().saturating_sub(NAMED);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    format!("{}{more}", named.join("; "))
}

/// A second look: the plan must be empty now.
fn verify(wish: Wish, host: &mut dyn Host, record: &Record, unchanged: bool) -> Result<(), Problem> {
    if unchanged {
        return Ok(()); // The first look was the proof.
    }
    let failed = || Problem::new(codes::APPLY_FAILED, "the machine is not as it was made");
    let left = propose(wish, host, record).map_err(|problems| failed().because(problems.into_one().one_line()))?;
    // What a partition's user may change at any moment is no proof of anything.
    match left.beyond_tenants() {
        None => Ok(()),
        Some(_) => {
            let text = node_format_plan::render(&left, node_format_plan::Detail::Kinds);
            Err(failed().because(text.trim_end()).fix("find what else changes these things on this machine"))
        }
    }
}

fn removed_uid(action: &Action) -> Option<u32> {
    if let Action::RemoveUser(user) = action { Some(user.uid) } else { None }
}

fn erased(action: &Action) -> Option<PathBuf> {
    if let Action::EraseDirectory(directory) = action { Some(directory.path.clone()) } else { None }
}

fn finished(action: &Action) -> Option<PathBuf> {
    if let Action::FinishDirectory(directory) = action { Some(directory.path.clone()) } else { None }
}

fn partitions_directory(action: &Action) -> Option<PathBuf> {
    match action {
        Action::MakeDirectory(one)
        | Action::FinishDirectory(one)
        | Action::RemoveDirectory(one)
        | Action::EraseDirectory(one) => one.partition.then(|| one.path.clone()),
        _ => None,
    }
}
