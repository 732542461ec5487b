//! What a release document says, once it has been read and checked. [`Release::parse_yaml`], [`Release::resolve`] and
//! [`Release::from_canonical_json`] are the makers.
//!
//! A document names the sources a release is made of, how they are built, and what an instance of it consists of:
//! files written from templates, services that run, promises that must hold, and what it publishes.

use plat_model::id::{PromiseName, ReleaseName, ServiceName};
pub use plat_model::instance::ServiceKind;
use plat_model::resources::Resources;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

mod check;
mod read;
mod source;

pub use check::VARIABLES;
pub use read::digest_of;
pub use source::{DebLock, LockedPackage, NpmPackage, PypiPackage, Source};

/// A checked release. Maps are ordered, so equal documents have equal bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Version of the document's form: 1.
    pub version: u32,
    pub name: ReleaseName,
    /// One line for lists.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// JSON Schema of what a request may say. Absent: no parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Value>,
    /// JSON Schema of what a request for a shared instance in it may say. Absent: it takes none in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<Value>,
    /// Laid over each other in the release's folder, in the order of their names.
    #[serde(default)]
    pub sources: BTreeMap<String, Source>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<Build>,
    /// Generated once for each instance, kept in its partition, readable by its user alone.
    #[serde(default)]
    pub secrets: BTreeMap<String, SecretSpec>,
    /// Path within the partition → what is written there before the services start.
    #[serde(default)]
    pub files: BTreeMap<String, File>,
    /// Directories in the partition for what the instance keeps, or uses for a while.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Volume>,
    #[serde(default)]
    pub hooks: Hooks,
    #[serde(default)]
    pub services: BTreeMap<ServiceName, Service>,
    #[serde(default)]
    pub promises: BTreeMap<PromiseName, Promise>,
    /// Key → template: what is published to whoever requested the instance, once it is ready.
    #[serde(default)]
    pub publish: BTreeMap<String, String>,
    /// What one instance needs, unless the request says otherwise.
    #[serde(default)]
    pub resources: Resources,
}

/// Commands run once, in the release's staging folder, after the sources are in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// Each an argument list; templates with `release.directory`.
    pub commands: Vec<Vec<String>>,
    #[serde(default = "default_build_timeout")]
    pub timeout_seconds: u32,
    /// Whether they reach the network. What they need is fetched before, as sources.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub network: bool,
}

/// A secret: random letters and digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretSpec {
    /// 8 to 128 characters.
    #[serde(default = "default_secret_length")]
    pub length: u32,
    /// Path within the partition of a file that holds it and nothing else, readable by the partition's user alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// minijinja, strict about undefined variables.
    pub template: String,
    /// Octal, e.g. `0600`. Never more than 0750.
    #[serde(default = "default_mode")]
    pub mode: String,
}

/// A directory that is there when hooks and services run, and nobody's but the partition's user (0700).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    pub kind: VolumeKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeKind {
    /// Until the instance is destroyed.
    Kept,
    /// Emptied each time that the instance is started.
    Scratch,
}

/// Scripts at points of an instance's life, run as the partition's user in its directory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hooks {
    /// Once, before the first start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<Hook>,
    /// Each time that files or parameters changed, before services start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub configure: Option<Hook>,
    /// After the services were started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<Hook>,
    /// Before the services are stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<Hook>,
    /// Before the partition is erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clean: Option<Hook>,
}

impl Hooks {
    /// Those that people may ask for. Their work is done again and again in an instance's life, at each change and each
    /// start, so that once more does no harm. The others belong to moments that come once: `init` would meet what it has made
    /// already, `stop` would leave services running that it has told goodbye, and `clean` removes what the instance keeps
    /// elsewhere.
    pub const ASKED: [&str; 2] = ["configure", "start"];

    /// Those of them that this document has.
    pub fn asked(&self) -> Vec<&'static str> {
        let has = |name: &&str| match *name {
            "configure" => self.configure.is_some(),
            "start" => self.start.is_some(),
            _ => false,
        };
        Self::ASKED.into_iter().filter(has).collect()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// Argument list; templates.
    pub command: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// Within the partition; empty: its top.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub directory: String,
    #[serde(default = "default_hook_timeout")]
    pub timeout_seconds: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Argument list; templates. The first is an absolute path once rendered.
    pub command: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// Within the partition; empty: its top.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub directory: String,
    #[serde(default)]
    pub stop_signal: StopSignal,
    /// After this it is killed.
    #[serde(default = "default_stop_timeout")]
    pub stop_timeout_seconds: u32,
    /// Which of `files` it uses: when others change, or what the configure hook reads, it is left alone. Absent: all, and
    /// what the hook reads too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<Vec<String>>,
    /// How it takes in files that changed. Absent: by a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reload: Option<Reload>,
    #[serde(default, skip_serializing_if = "ServiceKind::is_default")]
    pub kind: ServiceKind,
    /// Absent: see [`Service::restart`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
    /// It is ended when it has not said for so long that it is alive, as `sd_notify` says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watchdog_seconds: Option<u32>,
    /// Of a one-shot: it runs at these times; see [`plat_model::schedule::Schedule`]. Absent: once for each configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
}

impl Service {
    /// What follows from its end: unless the document says, a service runs again always, a one-shot when it failed, and
    /// one with a schedule at its next time.
    pub fn restart(&self) -> Restart {
        self.restart.unwrap_or(match (self.kind, &self.schedule) {
            (ServiceKind::Service, _) => Restart::Always,
            (ServiceKind::Oneshot, None) => Restart::OnFailure,
            (ServiceKind::Oneshot, Some(_)) => Restart::Never,
        })
    }
}

/// When a program that ended by itself is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    #[default]
    Always,
    /// Unless it exited with 0.
    OnFailure,
    Never,
}

impl Restart {
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What makes a service read its files again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reload {
    /// Sent to its first process.
    Signal(ReloadSignal),
    /// Argument list; templates. Run as a hook is.
    Command(Vec<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ReloadSignal {
    Hup,
    Usr1,
    Usr2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum StopSignal {
    #[default]
    Term,
    Int,
    Quit,
    Hup,
    Usr1,
    Usr2,
}

/// A check that says whether the instance does what it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "PromiseForm")]
pub struct Promise {
    #[serde(default)]
    pub role: Role,
    #[serde(flatten)]
    pub check: Check,
    /// Between checks while it holds; while it does not, it is checked sooner, with backoff.
    #[serde(default = "default_period")]
    pub period_seconds: u32,
    #[serde(default = "default_promise_timeout")]
    pub timeout_seconds: u32,
    /// How long after the start of the services it is asked first. Absent: at once; see [`Promise::grace_seconds`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_seconds: Option<u32>,
    /// How many checks in a row have to fail before something follows from it. Absent: see [`Promise::threshold`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<u32>,
}

impl Promise {
    /// Failed checks in a row that degrade a ready instance, or restart its services: of an alive promise 3 unless the
    /// document says, else 1.
    pub fn threshold(&self) -> u32 {
        let otherwise = if self.role == Role::Alive { 3 } else { 1 };
        self.threshold.unwrap_or(otherwise).max(1)
    }

    /// How long after their start services are never restarted for it: the delay, or 10 s or a period, whichever is
    /// longer.
    pub fn grace_seconds(&self) -> u32 {
        self.delay_seconds.unwrap_or(self.period_seconds.max(10))
    }
}

/// A promise as it is written: serde can flatten a check, or refuse unknown keys, but not both.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PromiseForm {
    #[serde(default)]
    role: Role,
    exec: Option<Vec<String>>,
    http: Option<HttpCheck>,
    tcp: Option<TcpCheck>,
    #[serde(default = "default_period")]
    period_seconds: u32,
    #[serde(default = "default_promise_timeout")]
    timeout_seconds: u32,
    delay_seconds: Option<u32>,
    threshold: Option<u32>,
}

impl TryFrom<PromiseForm> for Promise {
    type Error = &'static str;
    fn try_from(form: PromiseForm) -> Result<Self, Self::Error> {
        let check = match (form.exec, form.http, form.tcp) {
            (Some(command), None, None) => Check::Exec(command),
            (None, Some(http), None) => Check::Http(http),
            (None, None, Some(tcp)) => Check::Tcp(tcp),
            _ => return Err("a promise must have exactly one of exec, http, tcp"),
        };
        let PromiseForm { role, period_seconds, timeout_seconds, delay_seconds, threshold, .. } = form;
        Ok(Self { role, check, period_seconds, timeout_seconds, delay_seconds, threshold })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Holds once the instance serves; failing later degrades it.
    #[default]
    Ready,
    /// Failing restarts the services.
    Alive,
    /// Holds before the services are started: what was written and what the hooks made is as it should be.
    Built,
    /// Its result is shown and kept; nothing follows from it.
    Test,
}

/// What is checked; templates throughout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// Holds when it exits with 0.
    Exec(Vec<String>),
    /// Holds when a GET is answered with `status` (200 unless said).
    Http(HttpCheck),
    /// Holds when a connection is accepted at `address:port`.
    Tcp(TcpCheck),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpCheck {
    pub url: String,
    #[serde(default = "default_status")]
    pub status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcpCheck {
    pub address: String,
    /// A template, so that it may come from a parameter.
    pub port: String,
}

fn default_build_timeout() -> u32 {
    1800
}
fn default_secret_length() -> u32 {
    24
}
fn default_mode() -> String {
    "0640".into()
}
fn default_hook_timeout() -> u32 {
    300
}
fn default_stop_timeout() -> u32 {
    30
}
fn default_period() -> u32 {
    30
}
fn default_promise_timeout() -> u32 {
    10
}
fn default_status() -> u16 {
    200
}

#[cfg(test)]
mod tests;
