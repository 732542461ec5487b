//! A program as a transient unit: what systemd is told of it. Pure.

mod bounds;

use crate::host::linux::runtime::{Confinement, Place, stop_signal};
use plat_agent_plan::action::{Run, ServiceSpec};
use plat_document::release::{Restart, ServiceKind};
use plat_model::resources::Resources;
use std::collections::BTreeMap;
use std::path::Path;

pub use bounds::missing;

/// A property of a unit, as systemd's bus names it.
pub type Property = (&'static str, Value);

/// Its value, in the shapes that systemd's properties have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Flag(bool),
    Signal(i32),
    Word(u32),
    Number(u64),
    Text(String),
    Texts(Vec<String>),
    /// A program with its arguments, taken as they are.
    Command(Vec<String>),
    /// What alone is allowed.
    Allowed(Vec<&'static str>),
    /// What is taken away again of what alone is allowed.
    Denied(Vec<&'static str>),
    /// Files of variables, which must be there.
    Files(Vec<String>),
    /// Fields of all that is logged.
    Fields(Vec<String>),
    /// Paths, each with options of its own.
    Pairs(Vec<(String, String)>),
    /// Paths that are seen, with all that is mounted in them.
    Binds(Vec<Bind>),
}

/// A path that is seen, where it is or elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    pub from: String,
    pub to: String,
    /// Without it the unit cannot be started.
    pub is_needed: bool,
}

/// What else a unit is made of.
#[derive(Clone, Copy)]
pub struct Around<'a> {
    pub slice: &'a str,
    /// The file with its variables.
    pub environment: &'a Path,
    /// What is its `/tmp`; `None`: one in memory.
    pub tmp: Option<&'a Path>,
    /// The number of systemd's.
    pub version: u32,
}

/// How long a unit may take until its program is executed. Once it has become its user, that user's other processes may hold
/// it, as long as they like.
pub const START_SECONDS: u32 = 30;
/// The first version of systemd that kills at once what takes longer.
const WITH_KILLS: u32 = 246;
/// "No limit", as systemd says it.
const INFINITY: u64 = u64::MAX;
/// How long systemd waits before it starts again what failed while the agent is away. The agent, where it is there, has
/// taken the unit away by then.
const RESTART_MICROS: u64 = 15_000_000;
/// The longest such pause, where systemd makes them longer each time, and after how many it is reached.
const RESTART_LONGEST: (u64, u32) = (300_000_000, 6);
/// The first version of systemd that does.
const WITH_STEPS: u32 = 254;
/// Most lines of a service that the journal takes in half a minute.
const LOG_BURST: u32 = 300_000;
/// What systemd would add to an environment.
const ADDED: [&str; 11] = [
    "HOME",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LANG",
    "LOGNAME",
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
    "PATH",
    "SHELL",
    "SYSTEMD_EXEC_PID",
    "USER",
];

/// A service that outlives the agent.
pub fn unit_of(place: &Place, spec: &ServiceSpec, confinement: &Confinement, around: Around<'_>) -> Vec<Property> {
    let partition = &place.partition.name;
    let restart = match spec.restart {
        // Each of its runs is the plan's.
        _ if spec.kind != ServiceKind::Service => "no",
        Restart::Always => "always",
        Restart::OnFailure => "on-failure",
        Restart::Never => "no",
    };
    let mut unit = program(&spec.command, &spec.environment, confinement, around);
    unit.extend([
        ("Description", text(format!("{} of partition {partition}", spec.name))),
        ("WorkingDirectory", text(working_directory(place, &spec.directory))),
        ("KillSignal", Value::Signal(stop_signal(spec.stop_signal) as i32)),
        ("TimeoutStopUSec", Value::Number(micros(spec.stop_timeout_seconds))),
        // How it ended stays to be read, however long the agent is away.
        ("RemainAfterExit", Value::Flag(restart != "always")),
        ("Restart", text(restart)),
        ("RestartUSec", Value::Number(RESTART_MICROS)),
        ("StartLimitIntervalUSec", Value::Number(0)),
        ("StandardOutput", text("journal")),
        ("StandardError", text("journal")),
        ("SyslogIdentifier", text(&spec.name)),
        (
            "LogExtraFields",
            Value::Fields(vec![
                format!("PLAT_INSTANCE={}", spec.instance),
                format!("PLAT_PARTITION={partition}"),
                format!("PLAT_SERVICE={}", spec.name),
            ]),
        ),
        ("LogRateLimitIntervalUSec", Value::Number(30_000_000)),
        ("LogRateLimitBurst", Value::Word(LOG_BURST)),
    ]);
    if let Some(seconds) = spec.watchdog_seconds {
        unit.push(("WatchdogUSec", Value::Number(micros(seconds))));
        // Any of its processes may say that it is alive.
        unit.push(("NotifyAccess", text("all")));
    }
    if around.version >= WITH_STEPS {
        unit.push(("RestartMaxDelayUSec", Value::Number(RESTART_LONGEST.0)));
        unit.push(("RestartSteps", Value::Word(RESTART_LONGEST.1)));
    }
    unit
}

/// A program that is run to its end; its output goes where whoever starts it says.
pub fn run_of(place: &Place, run: &Run, confinement: &Confinement, around: Around<'_>) -> Vec<Property> {
    let mut unit = program(&run.command, &run.environment, confinement, around);
    unit.extend([
        ("Description", text(format!("{} of partition {}", run.name, place.partition.name))),
        ("WorkingDirectory", text(working_directory(place, &run.directory))),
        ("TimeoutStopUSec", Value::Number(micros(2))),
        ("RuntimeMaxUSec", Value::Number(micros(run.timeout_seconds))),
        ("CollectMode", text("inactive-or-failed")),
    ]);
    unit
}

/// What holds of every program in a partition.
fn program(
    command: &[String],
    variables: &BTreeMap<String, String>,
    confinement: &Confinement,
    around: Around<'_>,
) -> Vec<Property> {
    let added = ADDED.iter().filter(|name| !variables.contains_key(**name));
    let mut unit = vec![
        ("Slice", text(around.slice)),
        // Counts as started when the program is executed, so that what cannot be is told.
        ("Type", text("exec")),
        ("TimeoutStartUSec", Value::Number(micros(START_SECONDS))),
        ("ExecStartEx", Value::Command(command.to_vec())),
        ("EnvironmentFiles", Value::Files(vec![around.environment.display().to_string()])),
        ("UnsetEnvironment", Value::Texts(added.map(|name| (*name).to_owned()).collect())),
        ("KillMode", text("mixed")),
        ("UMask", Value::Word(0o027)),
        ("CPUAccounting", Value::Flag(true)),
        ("IOAccounting", Value::Flag(true)),
        ("MemoryAccounting", Value::Flag(true)),
        ("TasksAccounting", Value::Flag(true)),
        ("LimitCORE", Value::Number(0)),
        ("LimitNOFILE", Value::Number(confinement.files)),
    ];
    if around.version >= WITH_KILLS {
        // What is held does not end by itself: it would be held for the time of a stop once more.
        unit.push(("TimeoutStartFailureMode", text("kill")));
    }
    if let Some(bounds) = &confinement.bounds {
        unit.extend(bounds::properties(bounds, around, confinement.account.is_some()));
    }
    if let Some(account) = &confinement.account {
        unit.push(("User", text(account.uid)));
        unit.push(("Group", text(account.gid)));
        unit.push(("SupplementaryGroups", Value::Texts(account.groups.iter().map(u32::to_string).collect())));
    }
    if let Some(processes) = confinement.processes {
        unit.push(("LimitNPROC", Value::Number(processes.into())));
    }
    if let Some(namespace) = &confinement.namespace {
        unit.push(("NetworkNamespacePath", text(namespace.display())));
    }
    unit
}

/// What a partition's slice counts by itself. Of what its units alone count, the kernel forgets everything with the last of them.
pub const COUNTED: [Property; 1] = [("IOAccounting", Value::Flag(true))];

/// What a partition's slice is held to.
pub fn limits_of(limits: Resources) -> Vec<Property> {
    let weight = limits.cpu_millis.map_or(INFINITY, |millis| u64::from(millis / 10).clamp(1, 10_000));
    let memory = limits.memory_mib.map_or(INFINITY, |mib| u64::from(mib) << 20);
    let cpu = limits.cpu_millis.map_or(INFINITY, |millis| u64::from(millis.div_ceil(10).max(1)) * 10_000);
    vec![
        ("MemoryMax", Value::Number(memory)),
        ("CPUQuotaPerSecUSec", Value::Number(cpu)),
        // Where there is too little for all, each gets its share of it.
        ("CPUWeight", Value::Number(weight)),
        ("IOWeight", Value::Number(weight)),
        ("TasksMax", Value::Number(limits.processes.map_or(INFINITY, u64::from))),
    ]
}

/// A file of variables: values are quoted, so that nothing in them means anything.
pub fn variables(environment: &BTreeMap<String, String>) -> String {
    let mut file = String::new();
    for (name, value) in environment {
        file.push_str(name);
        file.push_str("=\"");
        for letter in value.chars() {
            if matches!(letter, '"' | '\\' | '`' | '$') {
                file.push('\\');
            }
            file.push(letter);
        }
        file.push_str("\"\n");
    }
    file
}

/// Where beneath the partition's directory a program starts; empty: there.
fn working_directory(place: &Place, within: &str) -> String {
    let directory = if within.is_empty() { place.directory.clone() } else { place.directory.join(within) };
    directory.display().to_string()
}

/// Zero would be for ever.
fn micros(seconds: u32) -> u64 {
    (u64::from(seconds) * 1_000_000).max(1000)
}

fn text(value: impl ToString) -> Value {
    Value::Text(value.to_string())
}

#[cfg(test)]
mod tests;
