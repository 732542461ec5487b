//! What the host does for whoever asks it: the part of the agent that talks to the network may be anybody's. Each action is
//! held against node.json, and against who is in the partition; all that could be forged is in this one table.

use crate::action::{Action, FileTemplate, Note, Publication, ReloadHow, Run, ServiceSpec};
use crate::facts::Occupant;
use crate::render::Upkeep;
use plat_document::Release;
use plat_document::release::{Check, Hooks, digest_of};
use plat_document::template::{Prepared, TEMPLATE_MAX};
use plat_model::Problem;
use plat_model::id::{Digest, PromiseName, ServiceName, shorten};
use plat_model::node::NodeFile;
use plat_model::parameters::Parameters;
use plat_model::problem::codes;
use plat_model::release::RELEASE_MAX;
use plat_model::run::RunEnd;
use plat_model::tree::SAID_MAX;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Longest time that anything may be given, in seconds: what release documents allow.
const SECONDS_MAX: u32 = 86_400;
/// Most files of one instance: of those that a document may have, and one for each secret.
const FILES_MAX: usize = 256 + SECRETS_MAX;
/// Most secrets of a document.
const SECRETS_MAX: usize = 64;
/// Most volumes of a document.
const VOLUMES_MAX: usize = 64;
/// Most services and promises of a document.
const PARTS_MAX: usize = 64;
/// Services of an instance about which something is remembered, and secrets, those of earlier releases among them.
const REMEMBERED_MAX: usize = 1024;
/// Most keys of an environment, or of what is published.
const KEYS_MAX: usize = 1024;
/// Longest fingerprint, name or key, in bytes.
const TEXT_MAX: usize = 256;
/// What an instance's hooks are called.
const HOOKS: [&str; 5] = ["init", "configure", "start", "stop", "clean"];
/// Most bytes, as JSON, of what keeps an instance up: its services, promises and what it publishes.
pub(crate) const UPKEEP_MAX: usize = 2 * RELEASE_MAX;
/// Marks the agent's own runs: nobody else may be taken for one.
const MARK: &str = "PLAT_RUN";

/// What an action is held against.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'a> {
    pub node: &'a NodeFile,
    /// Of the action's partition.
    pub occupant: Option<&'a Occupant>,
    /// What of that partition has a log of its own already: services, and by its name what was run to its end.
    pub logged: &'a BTreeSet<String>,
}

/// Whether an action is one that a plan could hold, on this ground.
///
/// # Errors
/// FORGED; BAD_VALUE for a release that no master of this version takes in.
pub fn permit(action: &Action, ground: Ground<'_>) -> Result<(), Problem> {
    allowed(action, ground).map_err(|why| {
        Problem::new(codes::FORGED, format!("the host does not do this: {}", shorten(&action.step())))
            .because(why)
            .fix("if nobody tampers with the agent this is a bug in it; see docs/errors/P0417.md")
    })?;
    match action {
        Action::InstallRelease { digest, document } => parse_release(digest, document).map(drop),
        _ => Ok(()),
    }
}

/// The release that a document is, after all checks by which a master takes one in.
///
/// # Errors
/// BAD_VALUE.
pub fn parse_release(digest: &Digest, document: &str) -> Result<Release, Problem> {
    Release::from_canonical_json(document).map_err(|problems| {
        let first = problems.0.first().map(Problem::one_line).unwrap_or_default();
        Problem::new(codes::BAD_VALUE, format!("release {} is none that this agent knows", digest.short()))
            .because(format!("{first} ({} problems in all)", problems.0.len()))
            .fix("bring the agent to the version of its master; if it is, see docs/errors/P0417.md")
    })
}

fn allowed(action: &Action, ground: Ground<'_>) -> Result<(), String> {
    let Ground { node, occupant, .. } = ground;
    if let Some(name) = action.partition() {
        ensure(node.partition(name).is_some(), || format!("node.json has no partition {name}"))?;
    }
    // Who is in the partition, for what is done for somebody.
    let held = || occupant.filter(|occupant| !occupant.erased).ok_or_else(|| "nobody is in the partition".to_owned());
    match action {
        Action::InstallRelease { digest, document } => {
            ensure(document.len() <= RELEASE_MAX, || "the document is too large".into())?;
            ensure(digest_of(document) == *digest, || "the document is another than its digest says".into())
        }
        Action::RemoveRelease { .. } | Action::NoteUnused { .. } | Action::NoteUsed { .. } => Ok(()),
        Action::RemoveContent { path } => plain(path),
        Action::Occupy { secrets, .. } => {
            ensure(secrets.len() <= SECRETS_MAX, || "too many secrets".into())?;
            let known = occupant.map_or(0, |occupant| occupant.secrets.len());
            ensure(known + secrets.len() <= REMEMBERED_MAX, || "too many secrets in all".into())?;
            secrets.iter().try_for_each(|(name, length)| {
                variable(name)?;
                ensure((8..=128).contains(length), || format!("a secret of {length} characters"))
            })
        }
        Action::Limit { partition, resources } => {
            held()?;
            let own = node.partition(partition).map(|partition| partition.limits).unwrap_or_default();
            ensure(resources.within(own) == *resources, || "more than the partition was formatted with".into())
        }
        Action::PrepareVolumes { volumes, .. } => {
            held()?;
            ensure(volumes.len() <= VOLUMES_MAX, || format!("{} volumes", volumes.len()))?;
            volumes.keys().try_for_each(|name| variable(name))
        }
        Action::WriteFiles { files, .. } => write_files(files, held()?),
        Action::Note { note, .. } => noted(note, held()?),
        Action::Publish { publication, .. } => published(publication, held()?),
        Action::RunHook { run: hook, .. } => {
            held()?;
            ensure(HOOKS.contains(&hook.name.as_str()), || format!("there is no hook `{}`", shorten(&hook.name)))?;
            run(hook)
        }
        Action::RunAsked { number, run: hook, .. } => {
            let newest = held()?.asked.newest();
            ensure(*number > newest, || format!("run {number}, after run {newest}"))?;
            let asked = Hooks::ASKED.contains(&hook.name.as_str());
            ensure(asked, || format!("nobody may ask for hook `{}`", shorten(&hook.name)))?;
            run(hook)
        }
        Action::StartService { spec, .. } => {
            one_more(ground.logged, spec.name.as_str())?;
            service(spec, held()?)
        }
        Action::StopService { .. } => Ok(()),
        Action::Reload { service, run: of, how, .. } => {
            held()?;
            text(of)?;
            if let ReloadHow::Command(told) = how {
                one_more(ground.logged, &told.name)?;
            }
            reload(service.as_str(), how)
        }
        Action::CheckPromise { promise, of, check: asked, timeout_seconds, environment, .. } => {
            held()?;
            text(of)?;
            if let Check::Exec(_) = asked {
                one_more(ground.logged, &promise_log(promise))?;
            }
            check(asked)?;
            seconds(*timeout_seconds)?;
            variables(environment)
        }
        Action::Erase { .. } => Ok(()),
        // What the last one left must not be the next one's.
        Action::Free { .. } => {
            ensure(occupant.is_none_or(|occupant| occupant.erased), || "the partition has not been erased".into())
        }
    }
}

fn write_files(files: &[FileTemplate], occupant: &Occupant) -> Result<(), String> {
    ensure(files.len() <= FILES_MAX, || format!("{} files", files.len()))?;
    let mut paths = BTreeSet::new();
    files.iter().try_for_each(|file| {
        plain(&file.path)?;
        ensure(paths.insert(&file.path), || format!("`{}` twice", shorten(&file.path)))?;
        ensure(file.mode & !0o750 == 0, || format!("a file of mode {:o}", file.mode))?;
        template(&file.template, occupant)
    })
}

fn noted(note: &Note, occupant: &Occupant) -> Result<(), String> {
    match note {
        Note::Configured { fingerprint, upkeep: kept } => {
            text(fingerprint)?;
            upkeep(kept, occupant)
        }
        Note::KeptUp(kept) => upkeep(kept, occupant),
        // The host alone says what is published: it fills it in.
        Note::Published(_) => Err("what is published is filled in by the host".into()),
        Note::Reloaded { service, loaded } => {
            text(&loaded.run)?;
            text(&loaded.files)?;
            one_service_more(&occupant.reloaded, service)
        }
        Note::Done { service, fingerprint } => {
            text(fingerprint)?;
            one_service_more(&occupant.done, service)
        }
        Note::Timed { service, .. } => one_service_more(&occupant.timers, service),
        // Of an instance that is gone it changes nothing.
        Note::Told { spoken, said, .. } => {
            Parameters::new(spoken.as_map().clone()).map_err(|problem| problem.what)?;
            let long = said.as_ref().is_some_and(|said| said.text.len() > SAID_MAX);
            ensure(!long, || "an instance says too much of itself".into())
        }
        Note::Prepared { volumes } => text(volumes),
        // How one that has begun went is for the host to say: it ran it.
        Note::RunBegun(_) => Err("that a run begins is written down by the host".into()),
        Note::RunOver(result) => {
            let never = matches!(result.end, RunEnd::Interrupted | RunEnd::NotRun);
            ensure(never && result.tail.is_empty(), || "how a run ended is written down by the host".into())?;
            let (number, asked) = (result.number, &occupant.asked);
            let open = asked.begun.as_ref().map_or(number > asked.newest(), |begun| begun.number == number);
            ensure(open, || format!("run {number} is over, or another has begun"))?;
            text(&result.how)
        }
        Note::Initialised | Note::Started | Note::Stopped | Note::Revived { .. } => Ok(()),
        Note::Untimed | Note::Cleaned => Ok(()),
    }
}

/// No more is remembered of services than there can be.
fn one_service_more<T>(of: &BTreeMap<ServiceName, T>, service: &ServiceName) -> Result<(), String> {
    ensure(of.len() < REMEMBERED_MAX || of.contains_key(service), || format!("more than {REMEMBERED_MAX} services"))
}

/// No more logs are kept than there can be.
fn one_more(logged: &BTreeSet<String>, name: &str) -> Result<(), String> {
    ensure(logged.len() < REMEMBERED_MAX || logged.contains(name), || format!("more than {REMEMBERED_MAX} logs"))
}

fn upkeep(kept: &Upkeep, occupant: &Occupant) -> Result<(), String> {
    let bytes = json_bytes(kept);
    ensure(bytes <= UPKEEP_MAX, || format!("{bytes} bytes to keep an instance up"))?;
    ensure(kept.services.len() <= PARTS_MAX, || format!("{} services", kept.services.len()))?;
    ensure(kept.promises.len() <= PARTS_MAX, || format!("{} promises", kept.promises.len()))?;
    kept.services.iter().try_for_each(|spec| service(spec, occupant))?;
    kept.promises.values().try_for_each(|promise| {
        check(&promise.check)?;
        seconds(promise.timeout_seconds)
    })?;
    published(&kept.publish, occupant)?;
    variables(&kept.environment)
}

fn published(publication: &Publication, occupant: &Occupant) -> Result<(), String> {
    ensure(publication.values.len() <= KEYS_MAX, || format!("{} keys", publication.values.len()))?;
    text(&publication.fingerprint)?;
    publication.values.values().try_for_each(|value| template(value, occupant))
}

fn template(template: &Prepared, occupant: &Occupant) -> Result<(), String> {
    ensure(template.size() <= TEMPLATE_MAX, || "a template is too large".into())?;
    let foreign = template.secrets().iter().find(|name| !occupant.secrets.contains(*name));
    foreign.map_or(Ok(()), |name| Err(format!("the instance has no secret `{}`", shorten(name))))
}

fn service(spec: &ServiceSpec, occupant: &Occupant) -> Result<(), String> {
    ensure(spec.instance == occupant.instance, || format!("instance {} is not in the partition", spec.instance))?;
    let bytes = json_bytes(spec);
    ensure(bytes <= UPKEEP_MAX, || format!("a service of {bytes} bytes"))?;
    command(&spec.command)?;
    variables(&spec.environment)?;
    within(&spec.directory)?;
    seconds(spec.stop_timeout_seconds)?;
    seconds(spec.watchdog_seconds.unwrap_or_default())?;
    text(&spec.fingerprint)?;
    spec.reload.as_ref().map_or(Ok(()), |read| {
        text(&read.files)?;
        reload(spec.name.as_str(), &read.how)
    })
}

fn reload(service: &str, how: &ReloadHow) -> Result<(), String> {
    match how {
        ReloadHow::Signal(_) => Ok(()),
        ReloadHow::Command(told) => {
            ensure(told.name == format!("reload-{service}"), || "it is called as no reload is".into())?;
            run(told)
        }
    }
}

fn run(run: &Run) -> Result<(), String> {
    command(&run.command)?;
    within(&run.directory)?;
    variables(&run.environment)?;
    seconds(run.timeout_seconds)
}

/// Names the log of a promise that is a program.
pub fn promise_log(promise: &PromiseName) -> String {
    format!("promise-{promise}")
}

/// How many bytes it is where it is written down.
pub fn json_bytes(value: &impl Serialize) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX, |text| text.len())
}

fn check(check: &Check) -> Result<(), String> {
    match check {
        Check::Exec(arguments) => command(arguments),
        Check::Http(http) => ensure(http.url.starts_with("http://"), || "a check of what is no http:// URL".into()),
        Check::Tcp(tcp) => no_nul(&tcp.address),
    }
}

fn command(arguments: &[String]) -> Result<(), String> {
    let first = arguments.first().ok_or("a command without a program")?;
    ensure(first.starts_with('/'), || format!("`{}` is not an absolute path", shorten(first)))?;
    arguments.iter().try_for_each(|argument| no_nul(argument))
}

fn variables(environment: &BTreeMap<String, String>) -> Result<(), String> {
    ensure(environment.len() <= KEYS_MAX, || format!("{} variables", environment.len()))?;
    environment.iter().try_for_each(|(name, value)| {
        variable(name)?;
        ensure(name != MARK, || format!("the variable {MARK} is the agent's own"))?;
        no_nul(value)
    })
}

fn variable(name: &str) -> Result<(), String> {
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let fine = !name.is_empty() && name.len() <= TEXT_MAX && name.chars().all(letter);
    ensure(fine && !name.starts_with(|c: char| c.is_ascii_digit()), || format!("the name `{}`", shorten(name)))
}

/// A path within a folder, and nothing else.
fn plain(path: &str) -> Result<(), String> {
    let part = |part: &str| !matches!(part, "" | "." | "..") && part.len() <= 255;
    let fine = path.len() <= 1024 && path.split('/').all(part) && !path.chars().any(char::is_control);
    ensure(fine, || format!("`{}` is not a path within the folder", shorten(path)))
}

/// The same, or the folder itself.
fn within(path: &str) -> Result<(), String> {
    if path.is_empty() { Ok(()) } else { plain(path) }
}

fn seconds(seconds: u32) -> Result<(), String> {
    ensure(seconds <= SECONDS_MAX, || format!("{seconds} s are longer than anything may take"))
}

fn text(text: &str) -> Result<(), String> {
    ensure(text.len() <= TEXT_MAX && !text.chars().any(char::is_control), || "a text that no plan holds".into())
}

fn no_nul(text: &str) -> Result<(), String> {
    ensure(!text.contains('\0'), || "a text with a NUL".into())
}

fn ensure(fine: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if fine { Ok(()) } else { Err(why()) }
}
