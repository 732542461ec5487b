//! `agent.toml`: as it is written, and as it is used. Everything wrong in it is told at once.

mod releases;

pub(crate) use releases::is_base;
pub use releases::{BuildLimits, ReleaseSettings, ShareSettings};

use plat_link::Address;
use plat_model::problem::codes;
use plat_model::{Problem, Problems};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How services are supervised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Runtime {
    /// Whatever this host has.
    #[default]
    Auto,
    /// The init system, with a unit for each service.
    Systemd,
    /// A small process for each service, which outlives the agent.
    Shim,
}

/// Settings, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `None`: where the node was enrolled.
    pub master: Option<Address>,
    /// State, keys, outbox; absolute.
    pub data: PathBuf,
    /// What node-format wrote; absolute.
    pub node_file: PathBuf,
    /// Length of a metering window: 1 s to 1 h.
    pub window: Duration,
    pub runtime: Runtime,
    /// Who the part with the network is, where the agent is root; `None`: `plat-agent`, if there is one.
    pub user: Option<String>,
    /// How much of the disk usage reports may take while the master is away, in bytes.
    pub outbox_bytes: u64,
    pub releases: ReleaseSettings,
}

/// The file's form, version 1.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct V1 {
    #[serde(rename = "version")]
    _version: u32,
    master: Option<String>,
    data: Option<PathBuf>,
    node_file: Option<PathBuf>,
    window_seconds: Option<u64>,
    runtime: Option<String>,
    user: Option<String>,
    outbox_mib: Option<u64>,
    #[serde(default)]
    releases: releases::Section,
    cache: Option<releases::CacheSection>,
    #[serde(default)]
    build: releases::BuildSection,
}

/// Where `agent.toml` is unless the command line says otherwise.
pub const PATH: &str = "/etc/plat/agent.toml";
/// Largest file.
const FILE_MAX: usize = 64 * 1024;

impl Default for Config {
    fn default() -> Self {
        Self {
            master: None,
            data: "/var/lib/plat/agent".into(),
            node_file: "/var/lib/plat/node.json".into(),
            window: Duration::from_secs(60),
            runtime: Runtime::Auto,
            user: None,
            outbox_bytes: 256 << 20,
            releases: ReleaseSettings::default(),
        }
    }
}

impl Config {
    /// Reads the text of an `agent.toml`; `file` is the name that places are told with.
    ///
    /// # Errors
    /// BAD_CONFIG for everything that is wrong, each with its key.
    pub fn parse(text: &str, file: &str) -> Result<Self, Problems> {
        let wrong = |what: String| Problem::new(codes::BAD_CONFIG, what).at(file);
        if text.len() > FILE_MAX {
            return Err(wrong(format!("the file has {} bytes, {FILE_MAX} are allowed", text.len())).into());
        }
        #[derive(Deserialize)]
        struct Head {
            version: Option<u32>,
        }
        let syntax = |error: toml::de::Error| {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            Problem::new(codes::BAD_CONFIG, "the file cannot be read")
                .because(error.message())
                .at(format!("{file}:{line}"))
        };
        let head: Head = toml::from_str(text).map_err(syntax)?;
        match head.version {
            Some(1) => {}
            Some(other) => {
                return Err(wrong(format!("`version` is {other}; this agent reads version 1"))
                    .fix("use an agent of the version that the file was written for")
                    .into());
            }
            None => return Err(wrong("`version` is missing".into()).fix("begin the file with `version = 1`").into()),
        }
        let said: V1 = toml::from_str(text).map_err(syntax)?;
        let mut problems = Problems::default();
        let defaults = Self::default();
        let master = said.master.as_deref().and_then(|text| {
            problems.keep(Address::parse(text).map_err(|problem| problem.at(format!("{file}: master"))))
        });
        let mut absolute = |key: &str, path: Option<PathBuf>, default: PathBuf| match path {
            Some(path) if !path.is_absolute() => {
                problems.push(wrong(format!("`{key}` must be an absolute path, not `{}`", path.display())));
                default
            }
            path => path.unwrap_or(default),
        };
        let data = absolute("data", said.data, defaults.data);
        let node_file = absolute("node_file", said.node_file, defaults.node_file);
        let mut within = |key: &str, value: Option<u64>, default: u64, least: u64, most: u64| match value {
            Some(value) if !(least..=most).contains(&value) => {
                problems.push(wrong(format!("`{key}` is {value}, it must be from {least} to {most}")));
                default
            }
            value => value.unwrap_or(default),
        };
        let window = within("window_seconds", said.window_seconds, 60, 1, 3600);
        let outbox_mib = within("outbox_mib", said.outbox_mib, 256, 1, 64 * 1024);
        let runtime = match said.runtime.as_deref() {
            None | Some("auto") => Runtime::Auto,
            Some("systemd") => Runtime::Systemd,
            Some("shim") => Runtime::Shim,
            Some(other) => {
                let shown = plat_model::id::shorten(other);
                problems.push(wrong(format!("`runtime` is `{shown}`, it must be `auto`, `systemd` or `shim`")));
                Runtime::Auto
            }
        };
        let window = Duration::from_secs(window);
        let share = said.cache.map(|cache| cache.check(|problem| problems.push(problem.at(file))));
        let releases = said.releases.check(|problem| problems.push(problem.at(file)));
        let build = said.build.check(|problem| problems.push(problem.at(file)));
        let releases = ReleaseSettings { share, build, ..releases };
        let outbox_bytes = outbox_mib << 20;
        let user = said.user;
        problems.none_or(Self { master, data, node_file, window, runtime, user, outbox_bytes, releases })
    }

    /// Reads the file at `path`; if there is none and it was not named on purpose, everything is as it is by default.
    ///
    /// # Errors
    /// FILE if it cannot be read, else as [`Config::parse`].
    pub fn load(path: Option<&Path>) -> Result<Self, Problems> {
        let named = path.unwrap_or(Path::new(PATH));
        match std::fs::read_to_string(named) {
            Ok(text) => Self::parse(&text, &named.display().to_string()),
            Err(why) if why.kind() == std::io::ErrorKind::NotFound && path.is_none() => Ok(Self::default()),
            Err(why) => {
                Err(Problem::new(codes::FILE, format!("`{}` cannot be read", named.display())).because(why).into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_wrong_in_a_file_is_told_at_once() {
        let text = "version = 1\nmaster = \"http://x\"\ndata = \"data\"\nwindow_seconds = 0\nruntime = \"docker\"\n";
        let problems = Config::parse(text, "agent.toml").unwrap_err();
        assert_eq!(problems.0.len(), 4, "{problems}");
    }

    #[test]
    fn a_file_says_what_differs_from_the_defaults() {
        let config = Config::parse("version = 1\nwindow_seconds = 5\nruntime = \"shim\"\n", "agent.toml").unwrap();
        let expected = Config { window: Duration::from_secs(5), runtime: Runtime::Shim, ..Config::default() };
        assert_eq!(config, expected);
    }

    #[test]
    fn a_store_of_builds_needs_an_address_and_a_key() {
        let text = "version = 1\n[releases]\nkeep_days = 9999\n[cache]\nurl = \"cache\"\nkeys = [\"ed25519:x\"]\n";
        assert_eq!(Config::parse(text, "agent.toml").unwrap_err().0.len(), 3);
        assert_eq!(Config::parse("version = 1\n[cache]\nurl = \"/x\"\nkeys = []\n", "f").unwrap_err().0.len(), 1);
        let key = format!("ed25519:{}=", "A".repeat(43));
        let text = format!("version = 1\n[releases]\nkeep_days = 0\n[cache]\nurl = \"/x/\"\nkeys = [\"{key}\"]\n");
        let releases = Config::parse(&text, "agent.toml").unwrap().releases;
        assert_eq!((releases.policy.keep, releases.share.unwrap().url.as_str()), (Duration::ZERO, "/x"));
    }

    #[test]
    fn authorities_are_a_file_by_its_absolute_path() {
        let of = |path: &str| Config::parse(&format!("version = 1\n[releases]\nauthorities = \"{path}\"\n"), "f");
        assert_eq!(of("/etc/plat/ca.pem").unwrap().releases.authorities.unwrap(), Path::new("/etc/plat/ca.pem"));
        assert!(of("ca.pem").unwrap_err().to_string().contains("absolute path"));
    }

    #[test]
    fn what_builds_may_take_is_set_within_bounds() {
        let text = "version = 1\n[build]\nmemory_mib = 512\nprocesses = 100\ndisk_mib = 1024\nlongest_seconds = 600\n";
        let build = Config::parse(text, "f").unwrap().releases.build;
        assert_eq!(build, BuildLimits { memory: 512 << 20, processes: 100, disk: 1 << 30, longest_seconds: 600 });
        let hours = Config::parse("version = 1\n", "f").unwrap().releases.build.longest_seconds / 3600;
        assert_eq!(hours, 2, "no build keeps the others waiting for a day without being asked to");
        let text = "version = 1\n[build]\nmemory_mib = 1\nprocesses = 1\ndisk_mib = 1\nlongest_seconds = 1\n";
        assert_eq!(Config::parse(text, "f").unwrap_err().0.len(), 4);
    }

    #[test]
    fn unknown_keys_and_newer_versions_are_refused() {
        for text in ["version = 2\nfuture = true\n", "version = 1\nwindow = 5\n", "window_seconds = 5\n", "version = ["]
        {
            let problems = Config::parse(text, "agent.toml").unwrap_err();
            assert_eq!(problems.0[0].code, codes::BAD_CONFIG, "{text}");
        }
    }
}
