//! Hooks that people ask for. A wish that happens once is a number that grows: the instance's node runs each number at most
//! once, and says what became of it.

use crate::change::Change;
use crate::decision::Decision;
use crate::record::{Key, Record};
use crate::request::{being_destroyed, document, no_instance};
use crate::state::State;
use plat_document::release::Hooks;
use plat_model::id::{HookName, InstanceId, InstanceName, NodeId, ProjectName};
use plat_model::instance::{Instance, Wish};
use plat_model::problem::{Problem, codes};
use plat_model::run::{RUNS_MAX, RunWanted};
use plat_model::time::Timestamp;

/// Asks for a run of a hook; its number.
///
/// # Errors
/// [`codes::NOT_FOUND`] if there is no such instance, or its release has no such hook that may be asked for;
/// [`codes::DESTROYED`]; [`codes::NOT_RUNNING`] if it is not to run, or is on no node; [`codes::VERSION_SKEW`] if its node's
/// agent knows nothing of this; [`codes::TOO_MANY`] past [`RUNS_MAX`] that are not over, and when there is no number left.
pub fn run_hook(
    state: &State,
    project: &ProjectName,
    name: &InstanceName,
    hook: &HookName,
    now: Timestamp,
) -> Result<Decision<(InstanceId, u64)>, Problem> {
    let old = state.instance(project, name).ok_or_else(|| no_instance(project, name))?;
    if old.wish == Wish::Destroyed {
        return Err(being_destroyed(old));
    }
    has_hook(state, old, hook)?;
    can_run(state, old)?;
    // A master that was restored from a copy may have forgotten numbers that its node has not.
    let newest = old.runs.last().map_or(0, |run| run.number).max(ran(state, old));
    let mut runs: Vec<RunWanted> = open(state, old).cloned().collect();
    let too_many = || {
        Problem::new(codes::TOO_MANY, format!("no more runs of hook `{hook}` of `{project}/{name}` can be asked for"))
    };
    if runs.len() >= RUNS_MAX {
        return Err(too_many()
            .because(format!("{RUNS_MAX} runs are asked for already and not over"))
            .fix(format!("wait for them; `plat show {name}` tells what became of the last ones")));
    }
    // Only a node that says what is not so comes to this.
    let number = newest.checked_add(1).ok_or_else(|| {
        too_many()
            .because(format!("its node says that it has run number {newest}, and there is no greater one"))
            .fix("destroy it, and request it on a node that you trust")
    })?;
    runs.push(RunWanted { number, hook: hook.clone() });
    let new = Instance { runs, generation: old.generation.next(), changed: now, ..old.clone() };
    let read = vec![Key::Instance(old.id.clone()), Key::Release(old.release.clone())];
    Ok(Decision::new(vec![Change::put(Record::Instance(new))], read, (old.id.clone(), number)))
}

/// The runs of an instance that its node has not said the end of.
pub(crate) fn open<'s>(state: &'s State, instance: &'s Instance) -> impl Iterator<Item = &'s RunWanted> {
    let ran = ran(state, instance);
    instance.runs.iter().filter(move |run| run.number > ran)
}

/// The number of the last run that is known to be over.
fn ran(state: &State, instance: &Instance) -> u64 {
    state.statuses.get(&instance.id).and_then(|status| status.ran.last()).map_or(0, |run| run.number)
}

fn has_hook(state: &State, instance: &Instance, hook: &HookName) -> Result<(), Problem> {
    let Instance { project, name, .. } = instance;
    let asked = document(state, &instance.release)?.hooks.asked();
    if asked.contains(&hook.as_str()) && instance.rides.is_none() {
        return Ok(());
    }
    let why = match (Hooks::ASKED.contains(&hook.as_str()), &instance.rides) {
        (_, Some(_)) => "it is in another instance, and has no hooks of its own".to_owned(),
        (true, None) => "its release has no such hook".to_owned(),
        (false, None) => {
            format!("only {} may be asked for: their work may be done again at any time", Hooks::ASKED.join(", "))
        }
    };
    Err(Problem::new(codes::NOT_FOUND, format!("`{project}/{name}` has no hook `{hook}` to be asked for"))
        .because(why)
        .fix(match asked.as_slice() {
            [] => "its release has none that may be asked for".to_owned(),
            asked => format!("it has {}", asked.join(", ")),
        }))
}

fn can_run(state: &State, instance: &Instance) -> Result<(), Problem> {
    let Instance { project, name, .. } = instance;
    let not = |why: &str, todo: String| {
        Problem::new(codes::NOT_RUNNING, format!("no hook of `{project}/{name}` can be run now")).because(why).fix(todo)
    };
    if instance.leaving.is_some() {
        return Err(not("it is to be destroyed, and stopped until then", format!("`plat undestroy {name}`")));
    }
    if instance.wish != Wish::Started {
        return Err(not("it is to be stopped", format!("start it first: `plat start {name}`")));
    }
    let Some(place) = &instance.placement else {
        return Err(not("it is on no node yet", format!("`plat explain instance {name}` tells why")));
    };
    knows(state, &place.node)
}

/// Whether the agent of a node does what is asked for once.
///
/// # Errors
/// [`codes::VERSION_SKEW`].
pub fn knows(state: &State, node: &NodeId) -> Result<(), Problem> {
    if state.nodes.get(node).is_some_and(|node| node.inventory.does_once) {
        return Ok(());
    }
    Err(Problem::new(codes::VERSION_SKEW, format!("the agent of node `{node}` does nothing that is asked for once"))
        .because("it is older than the master, or has not reported since it was upgraded")
        .fix("upgrade it, wait until it is online, and ask again"))
}
