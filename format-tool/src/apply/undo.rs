//! What a run that fails has done, taken back.

use super::{Work, perform, some};
use crate::host::Host;
use crate::record::Record;
use node_format_plan::facts::PathFact;
use node_format_plan::thing::{Thing, Uplink};
use node_format_plan::{Action, Scope, giving_back, left_out, rollback_scope, undoing};
use plat_model::problem::{Problem, Problems, codes};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Which of these are half-made, as far as they can be looked at.
fn half_made(paths: Vec<PathBuf>, host: &mut dyn Host) -> Vec<PathBuf> {
    let scope = Scope { paths: paths.into_iter().collect(), ..Scope::default() };
    let seen = if scope.paths.is_empty() { None } else { host.observe(&scope).ok() };
    let is_half_made = |fact: &PathFact| matches!(fact, PathFact::Directory { half_made: true, .. });
    let paths = seen.into_iter().flat_map(|seen| seen.paths);
    paths.filter(|(_, fact)| is_half_made(fact)).map(|(path, _)| path).collect()
}

fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn taken(action: &Action) -> Option<String> {
    if let Action::TakeUplink(uplink) = action { Some(uplink.link.clone()) } else { None }
}

/// What came back to a bridge of an uplink, in words. From a bridge that was made for it, it is gone again.
fn finished_uplink(action: &Action, done: &[&Action]) -> Option<String> {
    let Action::FinishUplink { uplink: Uplink { link, bridge, .. }, alone } = action else { return None };
    let is_new = done.iter().any(|action| matches!(action, Action::AddLink { name, .. } if name == bridge));
    (!is_new && !alone).then(|| format!("what came back to {bridge} of the uplink {link}, which stays"))
}

/// An uplink that stood alone and was taken: undone, it has all of its own network again.
fn taken_alone(action: &Action) -> Option<&str> {
    if let Action::FinishUplink { uplink, alone: true } = action { Some(&uplink.link) } else { None }
}

/// An uplink that stood alone and was given back: that is not undone, so it has all of its own network.
fn returned_alone(action: &Action) -> Option<&str> {
    if let Action::ReturnUplink { uplink, alone: true } = action { Some(&uplink.link) } else { None }
}

/// An uplink that this run took alone had the settings of a port since another run: with its own network come its own.
/// Besides, what of others' goes with that.
fn with_its_own_settings(
    action: &Action,
    alone: &BTreeSet<&str>,
    host: &mut dyn Host,
    record: &Record,
) -> (Vec<Action>, Vec<String>) {
    if let Action::ReturnUplink { uplink, .. } = action
        && alone.contains(uplink.link.as_str())
        && let Ok(facts) = host.observe(&rollback_scope(record.claims()))
    {
        let plan = giving_back(uplink, &facts, record.claims());
        return (plan.actions, plan.notes);
    }
    (vec![action.clone()], Vec::new())
}

/// An uplink that somebody would have to confirm, if nobody has: who waited to give it back has ended by now.
fn unconfirmed(action: &Action, record: &Record) -> Option<String> {
    let Action::TakeUplink(uplink) = action else { return None };
    let confirmed = record.claims().has(&Thing::UplinkConfirmed { link: uplink.link.clone() });
    (uplink.carries && !confirmed).then(|| uplink.link.clone())
}

/// Takes back what of these actions was done, last first. Goes on after a failure and reports all.
pub(super) fn undo(
    cause: Problem,
    actions: &[Action],
    begun: Work,
    host: &mut dyn Host,
    record: &mut Record,
    tenants: &BTreeSet<String>,
) -> Problems {
    let done: Vec<&Action> = actions.iter().zip(&begun.done).filter(|(_, done)| **done).map(|(one, _)| one).collect();
    let back = undoing(&done);
    const NEXT: &str = "see to the cause, then run `node-format apply` to go on or `node-format reset` to go back";
    let mut problems = Problems::default();
    let mut work = Work::default();
    let alone: BTreeSet<&str> = done.iter().filter_map(|action| taken_alone(action)).collect();
    let returned: BTreeSet<&str> = done.iter().filter_map(|action| returned_alone(action)).collect();
    let (mut kept, mut but) = (BTreeSet::new(), Vec::new());
    if begun.unknown {
        let what = "whether the last step took effect is not known, so it was not undone";
        problems.push(Problem::new(codes::UNDO_FAILED, what).because(&cause.why).fix(NEXT));
    }
    for batch in back.chunk_by(|a, b| a.kind() == b.kind()) {
        for link in batch.iter().filter_map(|action| unconfirmed(action, record)) {
            but.push(format!("{link}, which keeps its own network: nobody had confirmed the other one"));
            kept.insert(link);
        }
        // An interface that could not be taken again, or is not, keeps its own settings: with others it would lose what it has.
        // One that was returned alone keeps its IPv6.
        let its_own = |action: &Action| match action {
            Action::SetSysctl { key, .. } => action.link().is_some_and(|link| {
                kept.contains(&link) || (returned.contains(link.as_str()) && key.ends_with(".disable_ipv6"))
            }),
            _ => false,
        };
        let is_left = |action: &Action| its_own(action) || taken(action).is_some_and(|link| kept.contains(&link));
        let batch = batch.iter().filter(|action| !is_left(action));
        let (batch, others): (Vec<_>, Vec<_>) =
            batch.map(|action| with_its_own_settings(action, &alone, host, record)).unzip();
        let batch: Vec<Action> = batch.into_iter().flatten().collect();
        but.extend(others.into_iter().flatten());
        let parts = batch.chunk_by(|a, b| a.kind() == b.kind());
        for (part, problem) in
            parts.filter_map(|part| Some((part, perform(part, host, record, tenants, &mut work).err()?)))
        {
            kept.extend(part.iter().filter_map(taken));
            let what = "something that had been done could not be undone";
            problems.push(Problem::new(codes::UNDO_FAILED, what).because(problem.one_line()).fix(NEXT));
        }
    }
    but.extend(done.iter().filter_map(|action| finished_uplink(action, &done)));
    if problems.is_empty() {
        but.extend(alone.union(&returned).map(|link| format!("{link}, which has all of its own network again")));
    }
    but.extend(begun.lost(&done));
    but.extend(left_out(&done));
    but.extend((!begun.cleared.is_empty()).then(|| format!("what was taken out first {}", begun.cleared.join("; "))));
    if !begun.finished.is_empty() {
        but.push(format!("what was made of half-made partitions, which stays: {}", listed(&begun.finished)));
    }
    // What they name is there again.
    let again = begun.again.into_iter().filter(|thing| !record.claims().has(thing)).collect::<Vec<_>>();
    let mut settings = begun.settings;
    settings.retain(|thing| problems.is_empty() && record.claims().has(thing));
    let known = begun.gone.into_iter().filter(|thing| !record.claims().has(thing)).collect::<Vec<_>>();
    if let Err(problem) = record.add(begun.struck.into_iter().chain(known).chain(again).chain(settings)) {
        problems.push(problem);
    }
    let is_undone = problems.is_empty() && begun.erased.is_empty();
    but.extend(work.kept());
    let undone = match (is_undone, but.is_empty()) {
        (false, true) => String::new(),
        (false, false) => format!("; nor does this come back: {}", but.join("; and ")),
        (true, true) => "; the machine is as it was before the run".into(),
        (true, false) => format!("; the machine is as it was before the run but for {}", but.join("; and for ")),
    };
    let undone = match begun.erased.as_slice() {
        [] => undone,
        lost => format!("{undone}; erasing had begun, and files that are gone do not come back: {}", listed(lost)),
    };
    let undone = match half_made(begun.directories, host).as_slice() {
        [] => undone,
        left => format!("{undone}; until the next `apply` makes them whole these are root's: {}", listed(left)),
    };
    let undone = match begun.excused.is_empty() {
        true => undone,
        false => format!(
            "; left undone before that, for a partition's user can keep it so: {}{undone}",
            some(&begun.excused)
        ),
    };
    let todo = if cause.todo.is_empty() { "see to the cause, then run it again".into() } else { cause.todo };
    let problem = Problem::new(codes::APPLY_FAILED, cause.what).because(format!("{}{undone}", cause.why)).fix(todo);
    let mut all = Problems::from(problem);
    all.extend(problems);
    all
}
