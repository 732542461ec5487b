//! Cases in folders: `release.yaml`, `desired.json` and `facts.json` in, `plan.txt` out. `PLAT_BLESS=1` writes
//! `plan.txt` anew; a change of it is reviewed like code.

use crate::world::{World, at, part};
use plat_agent_plan::action::Note;
use plat_agent_plan::facts::{Ending, Failure, Occupant, ServiceFact, ServiceRun};
use plat_agent_plan::{
    Action, Asked, Given, PartitionFact, PromiseFact, ReleaseFact, Timer, plan_partition, render, volumes_ready,
};
use plat_document::Release;
use plat_document::template::Prepared;
use plat_model::instance::{InstanceDesired, ServiceKind};
use plat_model::parameters::Secret;
use plat_model::problem::codes;
use plat_model::resources::Resources;
use plat_model::{Problem, Timestamp};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Facts {
    now: Timestamp,
    /// The wall clock was set back by so many seconds after all else of this; the steady one was not.
    #[serde(default)]
    set_back_seconds: u64,
    /// Likewise forward.
    #[serde(default)]
    set_forward_seconds: u64,
    installed: bool,
    #[serde(default)]
    occupant: Option<OccupantText>,
    #[serde(default)]
    services: BTreeMap<String, ServiceText>,
    #[serde(default)]
    promises: BTreeMap<String, PromiseText>,
    #[serde(default)]
    failure: Option<FailureText>,
    /// What it is held to.
    #[serde(default)]
    limits: Resources,
    /// The agent has just been started.
    #[serde(default)]
    limits_unknown: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct OccupantText {
    instance: String,
    secrets: BTreeMap<String, String>,
    initialised: bool,
    /// `current` stands for the fingerprint of this very release and these parameters.
    configured: String,
    started: bool,
    ready: bool,
    revivals: u32,
    /// One-shots that have succeeded with the current fingerprint.
    done: Vec<String>,
    timers: BTreeMap<String, Timer>,
    asked: Asked,
    /// `current` stands for the volumes of this very release.
    prepared: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "lowercase")]
enum EndingText {
    Success,
    #[default]
    Failure,
    Told,
}

impl EndingText {
    fn ending(self) -> Ending {
        match self {
            Self::Success => Ending::Success,
            Self::Failure => Ending::Failure,
            Self::Told => Ending::Told,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceText {
    /// `current`, or anything else for one of before.
    fingerprint: String,
    running_since: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    #[serde(default)]
    how: EndingText,
    #[serde(default)]
    short_runs: u32,
    #[serde(default)]
    last_exit: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PromiseText {
    holds: bool,
    checked: Timestamp,
    /// It was asked of an earlier run of the services.
    #[serde(default)]
    of_before: bool,
    /// It was asked of what the services are to be started from.
    #[serde(default)]
    of_built: bool,
    #[serde(default)]
    held: bool,
    #[serde(default)]
    failures: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FailureText {
    step: String,
    attempts: u32,
    at: Timestamp,
}

fn read(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap_or_else(|why| panic!("{}/{name}: {why}", folder.display()))
}

fn run(folder: &Path) -> String {
    let release = Release::parse_yaml(&read(folder, "release.yaml"), "release.yaml").unwrap();
    let desired: String = read(folder, "desired.json").replace("RELEASE", release.digest().as_str());
    let desired: InstanceDesired = serde_json::from_str(&desired).unwrap();
    let text: Facts = serde_json::from_str(&read(folder, "facts.json")).unwrap();
    let world = World::new(1);
    let mut occupant = text.occupant.map(|text| Occupant {
        secrets: text.secrets.keys().cloned().collect(),
        initialised: text.initialised,
        configured: text.configured,
        started: text.started,
        ready: text.ready,
        revivals: text.revivals,
        done: text.done.iter().map(|name| (name.parse().unwrap(), "current".to_owned())).collect(),
        timers: text.timers.into_iter().map(|(name, timer)| (name.parse().unwrap(), timer)).collect(),
        asked: text.asked,
        prepared: text.prepared,
        ..Occupant::new(plat_model::id::InstanceId::parse(&text.instance).unwrap())
    });
    let partition = &world.file.partitions[0];
    let rendered = occupant.as_ref().and_then(|o| render(&world.place, partition, &desired, &release, o).ok());
    if let (Some(occupant), Some(rendered)) = (&mut occupant, &rendered) {
        if occupant.configured == "current" {
            occupant.configured.clone_from(&rendered.configured);
            occupant.upkeep = Some(Box::new(rendered.upkeep.clone()));
        }
        if occupant.prepared == "current" {
            occupant.prepared = volumes_ready(&rendered.volumes);
        }
        for spec in &rendered.upkeep.services {
            occupant.done.entry(spec.name.clone()).and_modify(|of| of.clone_from(&spec.fingerprint));
        }
        if occupant.ready {
            occupant.published.clone_from(&rendered.upkeep.publish.fingerprint);
        }
    }
    let services = text.services.into_iter().map(|(name, text)| {
        let spec = rendered.as_ref().and_then(|r| r.upkeep.services.iter().find(|spec| spec.name.as_str() == name));
        let current = spec.map(|spec| spec.fingerprint.clone()).filter(|_| text.fingerprint == "current");
        let state = match (text.running_since, text.ended_at) {
            (Some(since), _) => ServiceRun::Running { pid: 7, since: at(since) },
            (None, Some(ended)) => ServiceRun::Ended { at: at(ended), how: text.how.ending() },
            (None, None) => ServiceRun::Unknown,
        };
        let (fingerprint, run) = (current.unwrap_or(text.fingerprint), format!("run of {name}"));
        let (short_runs, last_exit) = (text.short_runs, text.last_exit);
        let fact = ServiceFact { short_runs, last_exit, ..ServiceFact::started(fingerprint, run, state) };
        (name.parse().unwrap(), fact)
    });
    let failures = text.failure.into_iter().map(|text| Failure {
        step: text.step,
        problem: Problem::new(codes::HOOK_FAILED, "a step failed"),
        attempts: text.attempts,
        at: at(text.at),
    });
    let failures = failures.collect();
    let limits = (!text.limits_unknown).then_some(text.limits);
    let mut fact =
        PartitionFact { occupant, limits, services: services.collect(), failures, ..PartitionFact::default() };
    let (runs, built) = (fact.runs(), fact.built());
    let promises = text.promises.into_iter().map(|(name, text)| {
        let PromiseText { holds, checked, of_before, of_built, held, failures } = text;
        let of = match (of_before, of_built) {
            (true, _) => String::new(),
            (false, true) => built.clone(),
            (false, false) => runs.clone(),
        };
        let said = PromiseFact::after(None, &of, holds, String::new(), at(checked));
        (name.parse().unwrap(), PromiseFact { failures, held, history: Vec::new(), ..said })
    });
    fact.promises = promises.collect();
    let mut now = at(text.now);
    now.wall = now.wall.minus(Duration::from_secs(text.set_back_seconds));
    now.wall = now.wall.plus(Duration::from_secs(text.set_forward_seconds));
    let installed = if text.installed { ReleaseFact::Installed } else { ReleaseFact::Absent };
    let given = Given {
        place: &world.place,
        partition,
        desired: Some(&desired),
        release: Some(&release),
        release_fact: &installed,
        fact: &fact,
        previous: None,
        now,
    };
    assert_eq!(partition.name, part(0));
    let plan = plan_partition(&given);
    let mut out = String::new();
    for action in &plan.actions {
        writeln!(out, "{}", line(action)).unwrap();
    }
    for waiting in &plan.waiting {
        writeln!(out, "waiting: {} on {}", waiting.who, waiting.on).unwrap();
    }
    if let Some(wake_at) = plan.wake_at {
        writeln!(out, "wake at {}", Timestamp(wake_at.0.cast_signed())).unwrap();
    }
    if let Some(status) = plan.status {
        writeln!(out, "state: {}", status.state).unwrap();
        if let Some(problem) = status.problem {
            writeln!(out, "problem: {}", problem.one_line()).unwrap();
        }
        for one in status.services.iter().filter(|one| one.kind == ServiceKind::Oneshot) {
            let next = one.next.map(|next| format!(", next at {next}")).unwrap_or_default();
            let skipped = if one.skipped > 0 { format!(", {} skipped", one.skipped) } else { String::new() };
            writeln!(out, "{}: {:?}{next}{skipped}", one.name, one.state).unwrap();
        }
    }
    // Digests change with every version of the document's form; they say nothing here.
    out.replace(release.digest().as_str(), "RELEASE").replace(release.digest().short(), "RELEASE")
}

/// With secrets that are called what they are.
fn filled(template: &Prepared) -> String {
    let secrets = template.secrets().iter().map(|name| (name.clone(), Secret::new(format!("<{name}>"))));
    template.fill(&secrets.collect()).unwrap()
}

fn line(action: &Action) -> String {
    match action {
        Action::WriteFiles { files, .. } => {
            let files = files.iter().map(|file| format!("{} {:o} {:?}", file.path, file.mode, filled(&file.template)));
            format!("write files: {}", files.collect::<Vec<_>>().join(", "))
        }
        Action::StartService { spec, .. } => format!("start service {}: {}", spec.name, spec.command.join(" ")),
        Action::RunHook { run, .. } => format!("run hook {}: {}", run.name, run.command.join(" ")),
        Action::PrepareVolumes { volumes, .. } => format!("prepare volumes {volumes:?}"),
        Action::RunAsked { run, .. } => format!("{}: {}", action.step(), run.command.join(" ")),
        Action::CheckPromise { promise, check, .. } => format!("check promise {promise}: {check:?}"),
        Action::Note { note: Note::Timed { service, timer }, .. } => {
            format!("note Timed {service} after {}, {} skipped", timer.after, timer.skipped)
        }
        Action::Limit { resources, .. } => {
            format!("limit to {}", serde_json::to_string(resources).unwrap())
        }
        Action::Note { note: Note::RunOver(run), .. } => {
            format!("note run {} of {}, {}: {}", run.number, run.hook, run.end, run.how)
        }
        Action::Note { note, .. } => {
            format!("note {}", format!("{note:?}").split(['(', ' ']).next().unwrap_or_default())
        }
        other => other.step(),
    }
}

#[test]
fn every_case_gives_its_plan() {
    let cases = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut folders: Vec<_> = fs::read_dir(cases).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(folders.len() >= 8, "cases are missing");
    let mut wrong = Vec::new();
    for folder in folders {
        let got = run(&folder);
        if std::env::var_os("PLAT_BLESS").is_some() {
            fs::write(folder.join("plan.txt"), &got).unwrap();
        }
        let expected = fs::read_to_string(folder.join("plan.txt")).unwrap_or_default();
        if got != expected {
            wrong.push(format!("{}\n--- expected\n{expected}--- got\n{got}", folder.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
