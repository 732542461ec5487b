//! Templates into what an instance consists of. Files and what is published are prepared here and filled in on the host,
//! which alone knows secrets; arguments and environments, which other users of the machine may read, hold none.

use crate::action::{FileTemplate, Publication, ReloadHow, ReloadSpec, Run, ServiceSpec};
use crate::facts::Occupant;
use crate::fingerprint;
use crate::given::{Given, Place};
use crate::permit::{UPKEEP_MAX, json_bytes};
use crate::volumes::VOLUMES;
use plat_document::Release;
use plat_document::release::{Check, Hook, HttpCheck, Promise, Reload, Restart, Role, TcpCheck, VolumeKind};
use plat_document::template::{self, Context, Prepared};
use plat_model::id::{Digest, HookName, PromiseName, ServiceName};
use plat_model::instance::InstanceDesired;
use plat_model::node::NodePartition;
use plat_model::parameters::Parameters;
use plat_model::problem::codes;
use plat_model::schedule::Schedule;
use plat_model::{Problem, Problems};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// An instance with everything filled in: what is to be done for it is a matter of facts and time alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendered {
    pub files: Vec<FileTemplate>,
    pub init: Option<Run>,
    pub configure: Option<Run>,
    pub start: Option<Run>,
    pub stop: Option<Run>,
    pub clean: Option<Run>,
    pub volumes: BTreeMap<String, VolumeKind>,
    pub upkeep: Upkeep,
    /// Of the release, the files and the configure hook: when it changes, all of them are applied anew.
    pub configured: String,
}

/// What keeps an instance up once it is configured. It is written down, so that one that waits for another release is
/// looked after as before, whatever became of the document that it was made from.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Upkeep {
    pub services: Vec<ServiceSpec>,
    /// In boxes, for a map takes room for eleven where it has one, and a node may have a thousand of them.
    pub promises: BTreeMap<PromiseName, Box<RenderedPromise>>,
    pub publish: Publication,
    /// What every program of the instance finds in its environment.
    pub environment: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RenderedPromise {
    pub role: Role,
    pub check: Check,
    pub period_seconds: u32,
    pub timeout_seconds: u32,
    /// After the start of the services, before it is asked first.
    #[serde(default)]
    pub delay_seconds: u32,
    /// After the start of the services: before that they are not restarted for it.
    #[serde(default = "default_grace")]
    pub grace_seconds: u32,
    /// Failures in a row from which something follows. What an older agent wrote down does not say.
    #[serde(default = "default_threshold")]
    pub threshold: u32,
}

fn default_grace() -> u32 {
    10
}

fn default_threshold() -> u32 {
    3
}

/// The release that a `configured` fingerprint says was applied.
pub fn applied_release(configured: &str) -> Option<Digest> {
    Digest::parse(configured.split_once('/')?.0).ok()
}

/// Of a file that holds a secret and nothing else.
const SECRET_MODE: u32 = 0o400;

/// Where an instance speaks with its agent, beneath its partition's directory.
pub const SOCKET: &str = "run/plat.sock";

impl Rendered {
    /// A hook that may be asked for, if there is one of this name.
    pub(crate) fn asked(&self, hook: &HookName) -> Option<&Run> {
        match hook.as_str() {
            "configure" => self.configure.as_ref(),
            "start" => self.start.as_ref(),
            _ => None,
        }
    }

    /// Tells every program something that changes nothing of what it does: no fingerprint knows it, so that an agent
    /// that is the first to say it restarts nothing.
    fn tell(&mut self, key: &str, value: &str) {
        let hooks = [&mut self.init, &mut self.configure, &mut self.start, &mut self.stop, &mut self.clean];
        let hooks = hooks.into_iter().flatten().map(|run| &mut run.environment);
        let services = self.upkeep.services.iter_mut().flat_map(|spec| {
            let reload = match &mut spec.reload {
                Some(ReloadSpec { how: ReloadHow::Command(run), .. }) => Some(&mut run.environment),
                _ => None,
            };
            reload.into_iter().chain([&mut spec.environment])
        });
        for environment in hooks.chain(services).chain([&mut self.upkeep.environment]) {
            environment.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        }
    }
}

/// How long a command that makes a service reload may take, in seconds: as long as a stop without a word of it.
const RELOAD_SECONDS: u32 = 30;

/// What is compared to see whether a text is another: itself, or what it is made from where only the host knows it.
#[derive(Serialize)]
#[serde(untagged)]
enum Seen {
    Text(String),
    Template(Prepared),
}

fn seen(template: &Prepared) -> Result<Seen, Problem> {
    Ok(match template.secrets().is_empty() {
        true => Seen::Text(template.fill(&BTreeMap::new())?),
        false => Seen::Template(template.clone()),
    })
}

/// Renders one instance for its partition.
///
/// # Errors
/// Every template that fails, by its place in the document.
pub fn render(
    place: &Place,
    partition: &NodePartition,
    desired: &InstanceDesired,
    release: &Release,
    occupant: &Occupant,
) -> Result<Rendered, Problems> {
    let parameters = plat_document::parameters::check(release, &desired.parameters)?;
    let volumes: BTreeMap<_, _> = release.volumes.iter().map(|(name, volume)| (name.clone(), volume.kind)).collect();
    let public = context(place, partition, desired, parameters, &volumes);
    let mut problems = Problems::default();
    let base = environment(&public);
    let (files, contents) = files(release, &public, &occupant.secrets, &mut problems);
    let mut hook = |name: &str, hook: &Option<Hook>| {
        let hook = hook.as_ref()?;
        let at = format!("hooks.{name}");
        let command = command(&hook.command, &public, &at, &mut problems);
        let environment = overlay(&base, &hook.environment, &public, &at, &mut problems);
        let (directory, timeout_seconds) = (hook.directory.clone(), hook.timeout_seconds);
        Some(Run { name: name.into(), command, environment, directory, timeout_seconds })
    };
    let (init, configure) = (hook("init", &release.hooks.init), hook("configure", &release.hooks.configure));
    let (start, stop) = (hook("start", &release.hooks.start), hook("stop", &release.hooks.stop));
    let clean = hook("clean", &release.hooks.clean);
    // Parameters count by themselves only where a hook could read them.
    let read_by_hook = configure.as_ref().map(|run| (run, desired.parameters.to_json()));
    // What a service uses that does not say which files.
    let whole = format!("{}/{}", desired.release, fingerprint::of(&(&contents, &read_by_hook)));
    // A bang, and others that are shared, have the hook run; they restart nothing by themselves.
    let configured = match &read_by_hook {
        Some(read) if desired.bang > 0 || !desired.shared.is_empty() => {
            format!("{}/{}", desired.release, fingerprint::of(&(&contents, read, desired.bang, &desired.shared)))
        }
        _ => whole.clone(),
    };
    let services = release
        .services
        .iter()
        .map(|(name, service)| {
            let at = format!("services.{name}");
            let mut spec = ServiceSpec {
                name: name.clone(),
                instance: desired.id.clone(),
                command: command(&service.command, &public, &at, &mut problems),
                environment: overlay(&base, &service.environment, &public, &at, &mut problems),
                directory: service.directory.clone(),
                stop_signal: service.stop_signal,
                stop_timeout_seconds: service.stop_timeout_seconds,
                kind: service.kind,
                watchdog_seconds: service.watchdog_seconds,
                fingerprint: String::new(),
                reload: None,
                restart: Restart::Always,
                schedule: None,
            };
            // What it uses of all that is configured.
            let used = match &service.files {
                None => whole.clone(),
                Some(names) => {
                    let used = contents.iter().filter(|(path, ..)| names.contains(path));
                    format!("{}/{}", desired.release, fingerprint::of(&used.collect::<Vec<_>>()))
                }
            };
            let how = service.reload.as_ref().map(|reload| match reload {
                Reload::Signal(signal) => ReloadHow::Signal(*signal),
                Reload::Command(templates) => ReloadHow::Command(Run {
                    name: format!("reload-{name}"),
                    command: command(templates, &public, &format!("{at}.reload"), &mut problems),
                    environment: spec.environment.clone(),
                    directory: String::new(),
                    timeout_seconds: RELOAD_SECONDS,
                }),
            });
            // With a way to reload, only another release is a change that takes a restart.
            let restarts = if how.is_some() { desired.release.to_string() } else { used.clone() };
            spec.fingerprint = match &partition.namespace {
                None => fingerprint::of(&(&spec, &restarts)),
                // A process stays where it was started: another namespace takes another start.
                Some(namespace) => fingerprint::of(&(&spec, &restarts, namespace)),
            };
            // What follows from an end, and when it runs, is no reason for another start.
            spec.reload = how.map(|how| ReloadSpec { how, files: used });
            spec.restart = service.restart();
            let schedule =
                service.schedule.as_deref().map(|text| schedule(text).map_err(|problem| within(problem, &at)));
            spec.schedule = schedule.and_then(|schedule| problems.keep(schedule));
            spec
        })
        .collect();
    let promises = release
        .promises
        .iter()
        .filter_map(|(name, promise)| {
            let rendered = rendered_promise(name, promise, &public, &mut problems)?;
            Some((name.clone(), Box::new(rendered)))
        })
        .collect();
    let publish = publish(release, &public, &occupant.secrets, &mut problems);
    let upkeep = Upkeep { services, promises, publish, environment: base };
    let mut rendered = Rendered { files, init, configure, start, stop, clean, volumes, upkeep, configured };
    rendered.tell("PLAT_SOCKET", &format!("{}/{SOCKET}", public.partition.directory));
    let bytes = json_bytes(&rendered.upkeep);
    if bytes > UPKEEP_MAX {
        let problem = Problem::new(codes::TOO_LARGE, "the services, promises and what is published are too large")
            .because(format!("{bytes} bytes with all filled in, {UPKEEP_MAX} are allowed"))
            .fix("write large parameters to a file of the release, and read it from there");
        problems.push(problem);
    }
    problems.none_or(rendered)
}

/// [`render`] for what a plan is given; `None` while there is nothing to render with.
pub fn render_given(given: &Given<'_>) -> Option<Result<Rendered, Problem>> {
    let (desired, release) = (given.desired?, given.release?);
    let occupant = given.fact.occupant.as_ref().filter(|occupant| occupant.instance == desired.id)?;
    Some(render(given.place, given.partition, desired, release, occupant).map_err(Problems::into_one))
}

fn context(
    place: &Place,
    partition: &NodePartition,
    desired: &InstanceDesired,
    parameters: Parameters,
    volumes: &BTreeMap<String, VolumeKind>,
) -> Context {
    let user = partition.account.as_ref().map_or_else(|| partition.name.to_string(), |account| account.user.clone());
    let directory = place.partition_directory(&partition.name);
    let volumes = volumes.keys().map(|name| (name.clone(), format!("{directory}/{VOLUMES}/{name}"))).collect();
    Context {
        volumes,
        parameters,
        shared: desired.shared.clone(),
        secrets: BTreeMap::new(),
        instance: template::InstanceFacts {
            id: desired.id.clone(),
            name: desired.name.clone(),
            project: desired.project.clone(),
        },
        partition: template::PartitionFacts {
            name: partition.name.clone(),
            user,
            address: partition.address(),
            ipv4: partition.ipv4().and_then(|address| match address {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(_) => None,
            }),
            directory,
            storage: partition.storage.iter().map(|directory| directory.display().to_string()).collect(),
            resource_file: partition.resource_file.as_ref().map(|file| file.display().to_string()),
        },
        release: template::ReleaseFacts {
            directory: place.release_directory(&desired.release),
            digest: desired.release.clone(),
        },
        node: template::NodeFacts { name: place.node.clone() },
    }
}

/// The least that programs expect. A release's own programs come before the machine's. What only some partitions have
/// is left out of the others'.
fn environment(context: &Context) -> BTreeMap<String, String> {
    let (release, home) = (&context.release.directory, &context.partition.directory);
    let storage = Some(context.partition.storage.join(":")).filter(|list| !list.is_empty());
    let resource_file = context.partition.resource_file.clone();
    let own = ["usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin"];
    let own: Vec<String> = own.iter().map(|folder| format!("{release}/{folder}")).collect();
    let path = format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", own.join(":"));
    [
        ("HOME", home.clone()),
        ("LANG", "C.UTF-8".to_owned()),
        ("LOGNAME", context.partition.user.clone()),
        ("PATH", path),
        ("TMPDIR", format!("{home}/tmp")),
        ("USER", context.partition.user.clone()),
    ]
    .into_iter()
    .chain(storage.map(|list| ("PLAT_STORAGE", list)))
    .chain(resource_file.map(|file| ("PLAT_RESOURCE_FILE", file)))
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// The files, and of each what is compared.
fn files(
    release: &Release,
    context: &Context,
    secrets: &BTreeSet<String>,
    problems: &mut Problems,
) -> (Vec<FileTemplate>, Vec<(String, u32, Seen)>) {
    let (mut files, mut contents) = (Vec::new(), Vec::new());
    let mut add = |path: &String, mode: u32, (template, seen): (Prepared, Seen)| {
        contents.push((path.clone(), mode, seen));
        files.push(FileTemplate { path: path.clone(), mode, template });
    };
    for (path, file) in &release.files {
        let at = format!("files.{path}");
        let mode = u32::from_str_radix(&file.mode, 8).ok().filter(|mode| mode & !0o750 == 0).ok_or_else(|| {
            Problem::new(codes::BAD_VALUE, format!("the mode of file `{path}` cannot be used"))
                .because("it is not octal, or gives more than 0750 does")
                .at(&at)
        });
        let template = prepare(&file.template, context, secrets).map_err(|problem| within(problem, &at));
        if let (Some(mode), Some(template)) = (problems.keep(mode), problems.keep(template)) {
            add(path, mode, template);
        }
    }
    for (name, path) in release.secrets.iter().filter_map(|(name, spec)| Some((name, spec.file.as_ref()?))) {
        let template = Prepared::secret(name);
        add(path, SECRET_MODE, (template.clone(), Seen::Template(template)));
    }
    (files, contents)
}

/// A template as it goes to the host, and what is compared of it.
fn prepare(template: &str, context: &Context, secrets: &BTreeSet<String>) -> Result<(Prepared, Seen), Problem> {
    let template = Prepared::new(template, context, secrets)?;
    let seen = seen(&template)?;
    Ok((template, seen))
}

fn command(templates: &[String], context: &Context, at: &str, problems: &mut Problems) -> Vec<String> {
    let at = format!("{at}.command");
    let rendered = template::render_list(templates, context).map_err(|problem| within(problem, &at));
    let command = problems.keep(rendered).unwrap_or_default();
    if let Some(first) = command.first().filter(|first| !first.starts_with('/')) {
        let shown = plat_model::id::shorten(first);
        problems.push(
            Problem::new(codes::BAD_VALUE, format!("`{shown}` is not an absolute path"))
                .because("a program is run by its whole path, so that nothing else is found in its place")
                .fix("write `{{ release.directory }}/…`, or an absolute path of the machine")
                .at(at),
        );
    }
    command
}

fn overlay(
    base: &BTreeMap<String, String>,
    own: &BTreeMap<String, String>,
    context: &Context,
    at: &str,
    problems: &mut Problems,
) -> BTreeMap<String, String> {
    let rendered = template::render_map(own, context).map_err(|p| within(p, &format!("{at}.environment")));
    let mut environment = base.clone();
    environment.extend(problems.keep(rendered).unwrap_or_default());
    environment
}

fn rendered_promise(
    name: &PromiseName,
    promise: &Promise,
    context: &Context,
    problems: &mut Problems,
) -> Option<RenderedPromise> {
    let at = format!("promises.{name}");
    let mut text = |template: &str| problems.keep(template::render(template, context).map_err(|p| within(p, &at)));
    let check = match &promise.check {
        Check::Http(http) => Check::Http(HttpCheck { url: text(&http.url)?, status: http.status }),
        Check::Tcp(tcp) => Check::Tcp(TcpCheck { address: text(&tcp.address)?, port: text(&tcp.port)? }),
        Check::Exec(templates) => Check::Exec(command(templates, context, &at, problems)),
    };
    let (period_seconds, timeout_seconds) = (promise.period_seconds.max(1), promise.timeout_seconds.max(1));
    Some(RenderedPromise {
        role: promise.role,
        check,
        period_seconds,
        timeout_seconds,
        delay_seconds: promise.delay_seconds.unwrap_or(0),
        grace_seconds: promise.grace_seconds(),
        threshold: promise.threshold(),
    })
}

fn publish(release: &Release, context: &Context, secrets: &BTreeSet<String>, problems: &mut Problems) -> Publication {
    let (mut values, mut all) = (BTreeMap::new(), BTreeMap::new());
    for (key, text) in &release.publish {
        let at = format!("publish.{key}");
        let template = prepare(text, context, secrets).map_err(|problem| within(problem, &at));
        if let Some((template, seen)) = problems.keep(template) {
            // Without secrets it is known here.
            let value = if let Seen::Text(text) = &seen { Prepared::verbatim(text) } else { template };
            values.insert(key.clone(), value);
            all.insert(key, seen);
        }
    }
    Publication { values, fingerprint: fingerprint::of(&all) }
}

fn schedule(text: &str) -> Result<Schedule, Problem> {
    Schedule::parse(text).map_err(|why| Problem::new(codes::BAD_VALUE, "`schedule` is not one").because(why))
}

fn within(problem: Problem, at: &str) -> Problem {
    let inner = problem.at.clone();
    problem.at(if inner.is_empty() {
        at.to_owned()
    } else {
        format!("{at}{}{inner}", if inner.starts_with('[') { "" } else { "." })
    })
}

impl Upkeep {
    /// The specification of a service by its name.
    pub(crate) fn service(&self, name: &ServiceName) -> Option<&ServiceSpec> {
        self.services.iter().find(|spec| &spec.name == name)
    }
}
