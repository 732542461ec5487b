//! Whose words may be asked for.

use crate::request::document;
use crate::state::State;
use plat_document::release::Hooks;
use plat_model::id::{HookName, ServiceName};
use plat_model::instance::Instance;
use plat_model::problem::{Problem, codes};

/// Whether an instance may have what this service, or this hook, wrote: of one that it never had nobody need wait for a word.
///
/// # Errors
/// [`codes::NOT_FOUND`] if neither its release nor what its node last told has it.
pub fn can_write(
    state: &State,
    instance: &Instance,
    service: Option<&ServiceName>,
    hook: Option<&HookName>,
) -> Result<(), Problem> {
    // Without its document nothing can be told to be wrong, and what was written may be the way to see why.
    let Ok(document) = document(state, &instance.release) else { return Ok(()) };
    if let Some(hook) = hook {
        let has = hooks(&document.hooks);
        return if has.contains(&hook.as_str()) { Ok(()) } else { Err(none(instance, "hook", hook.as_str(), &has)) };
    }
    let Some(service) = service else { return Ok(()) };
    // Those that run may still be of the release before.
    let told = state.statuses.get(&instance.id).into_iter().flat_map(|status| &status.services);
    if document.services.contains_key(service) || told.map(|one| &one.name).any(|name| name == service) {
        return Ok(());
    }
    let has: Vec<_> = document.services.keys().map(ServiceName::as_str).collect();
    Err(none(instance, "service", service.as_str(), &has))
}

fn hooks(hooks: &Hooks) -> Vec<&'static str> {
    let all = [
        ("init", &hooks.init),
        ("configure", &hooks.configure),
        ("start", &hooks.start),
        ("stop", &hooks.stop),
        ("clean", &hooks.clean),
    ];
    all.into_iter().filter(|(_, hook)| hook.is_some()).map(|(name, _)| name).collect()
}

fn none(instance: &Instance, what: &str, name: &str, has: &[&str]) -> Problem {
    let Instance { project, name: of, .. } = instance;
    Problem::new(codes::NOT_FOUND, format!("`{project}/{of}` has no {what} `{name}`"))
        .because("its release has none of that name")
        .fix(match has {
            [] => format!("its release has no {what}s"),
            has => format!("it has {}", has.join(", ")),
        })
}
