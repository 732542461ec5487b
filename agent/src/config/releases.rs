//! `[releases]` of `agent.toml`: where files come from, and how long what nothing uses stays.

use crate::host::linux::share::key::PublicKey;
use plat_agent_plan::KeepPolicy;
use plat_model::Problem;
use plat_model::problem::codes;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// How a node comes to its releases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseSettings {
    /// Bases of addresses, http, https or absolute paths, that have files by their digests: BASE/sha256/DIGITS.
    pub mirrors: Vec<String>,
    /// A file of certificates in PEM: whose word servers are taken on, instead of whom the machine trusts; absolute.
    pub authorities: Option<PathBuf>,
    /// How long what nothing uses is kept, and how many bytes stay free.
    pub policy: KeepPolicy,
    /// How long a server may say nothing before it is given up.
    pub silence: Duration,
    /// How long fetching one file may take, wherever it comes from.
    pub longest: Duration,
    /// How long what needs room on a disk waits for something to be removed.
    pub patience: Duration,
    /// Where builds of other nodes are taken from.
    pub share: Option<ShareSettings>,
    pub build: BuildLimits,
}

/// `[build]`: how much building one release may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildLimits {
    /// Bytes of memory of each process; where control groups limit memory, also of all of them with what is in `/tmp`.
    pub memory: u64,
    /// Processes and threads at once.
    pub processes: u32,
    /// Bytes of what it has written, at any time.
    pub disk: u64,
    /// From its first source to its last command.
    pub longest_seconds: u64,
}

impl Default for BuildLimits {
    fn default() -> Self {
        Self { memory: 4 << 30, processes: 4096, disk: 32 << 30, longest_seconds: 2 * 3600 }
    }
}

/// `[cache]`: a store of built releases, and who is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareSettings {
    /// The base of its addresses, http, https or an absolute path.
    pub url: String,
    pub keys: Vec<PublicKey>,
}

impl Default for ReleaseSettings {
    fn default() -> Self {
        Self {
            mirrors: Vec::new(),
            authorities: None,
            policy: KeepPolicy::default(),
            silence: Duration::from_secs(60),
            longest: Duration::from_secs(2 * 3600),
            patience: Duration::from_secs(60),
            share: None,
            build: BuildLimits::default(),
        }
    }
}

/// The section's form.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Section {
    #[serde(default)]
    mirrors: Vec<String>,
    authorities: Option<PathBuf>,
    keep_days: Option<u64>,
    min_free_space_mib: Option<u64>,
}

/// Most mirrors, and the longest address of one.
const MIRRORS_MAX: usize = 16;
const ADDRESS_MAX: usize = 1024;
/// Most keys that are trusted.
const KEYS_MAX: usize = 64;
const ADDRESS: &str = "name http://HOST/PATH, https://HOST/PATH without a user, or an absolute path";
/// In seconds.
const DAY: u64 = 24 * 3600;

/// The form of `[cache]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CacheSection {
    url: String,
    keys: Vec<String>,
}

/// The form of `[build]`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct BuildSection {
    memory_mib: Option<u64>,
    processes: Option<u64>,
    disk_mib: Option<u64>,
    longest_seconds: Option<u64>,
}

impl BuildSection {
    /// What is wrong goes to `wrong`.
    pub fn check(self, mut wrong: impl FnMut(Problem)) -> BuildLimits {
        let default = BuildLimits::default();
        let mut within = |key: &str, value: Option<u64>, default: u64, least: u64, most: u64| match value {
            Some(value) if !(least..=most).contains(&value) => {
                let what = format!("`build.{key}` is {value}, it must be from {least} to {most}");
                wrong(Problem::new(codes::BAD_CONFIG, what));
                default
            }
            value => value.unwrap_or(default),
        };
        let processes = within("processes", self.processes, default.processes.into(), 8, 1 << 20);
        BuildLimits {
            memory: within("memory_mib", self.memory_mib, default.memory >> 20, 64, 16 << 20) << 20,
            processes: u32::try_from(processes).unwrap_or(default.processes),
            disk: within("disk_mib", self.disk_mib, default.disk >> 20, 16, 16 << 20) << 20,
            longest_seconds: within("longest_seconds", self.longest_seconds, default.longest_seconds, 60, 7 * DAY),
        }
    }
}

impl CacheSection {
    /// What is wrong goes to `wrong`.
    pub fn check(self, mut wrong: impl FnMut(Problem)) -> ShareSettings {
        let problem = |what: String| Problem::new(codes::BAD_CONFIG, what);
        if !is_base(&self.url) {
            wrong(problem("`cache.url` is no address of a store".into()).fix(ADDRESS));
        }
        if self.keys.is_empty() || self.keys.len() > KEYS_MAX {
            wrong(
                problem(format!("`cache.keys` names {} keys, it must be 1 to {KEYS_MAX}", self.keys.len()))
                    .fix("name the public keys of the nodes whose builds are taken"),
            );
        }
        let mut keys = Vec::new();
        for text in &self.keys {
            match PublicKey::parse(text) {
                Ok(key) => keys.push(key),
                Err(why) => wrong(problem("`cache.keys` has what is no key".into()).because(why.what).fix(why.todo)),
            }
        }
        ShareSettings { url: self.url.trim_end_matches('/').to_owned(), keys }
    }
}

impl Section {
    /// What is wrong goes to `wrong`.
    pub fn check(self, mut wrong: impl FnMut(Problem)) -> ReleaseSettings {
        let problem = |what: String| Problem::new(codes::BAD_CONFIG, what);
        if self.mirrors.len() > MIRRORS_MAX {
            wrong(problem(format!("`releases.mirrors` names {}, {MIRRORS_MAX} are allowed", self.mirrors.len())));
        }
        for mirror in self.mirrors.iter().filter(|mirror| !is_base(mirror)) {
            let shown = plat_model::id::shorten(mirror.split('@').next_back().unwrap_or_default());
            wrong(problem(format!("`releases.mirrors` has `{shown}`, which is no mirror")).fix(ADDRESS));
        }
        if let Some(path) = self.authorities.as_ref().filter(|path| !path.is_absolute()) {
            let what = format!("`releases.authorities` must be an absolute path, not `{}`", path.display());
            wrong(problem(what).fix("name a file of certificates in PEM that everybody may read"));
        }
        let default = KeepPolicy::default();
        let mut within = |key: &str, value: Option<u64>, default: u64, most: u64| match value {
            Some(value) if value > most => {
                wrong(problem(format!("`releases.{key}` is {value}, it must be at most {most}")));
                default
            }
            value => value.unwrap_or(default),
        };
        let days = within("keep_days", self.keep_days, default.keep.as_secs() / DAY, 3650);
        let mib = within("min_free_space_mib", self.min_free_space_mib, default.min_free >> 20, 1 << 20);
        let policy = KeepPolicy { keep: Duration::from_secs(days * DAY), min_free: mib << 20 };
        ReleaseSettings { mirrors: self.mirrors, authorities: self.authorities, policy, ..ReleaseSettings::default() }
    }
}

/// Whether it can stand before `/sha256/DIGITS`. A password in it would be in every message about it.
pub fn is_base(text: &str) -> bool {
    let plain = text.len() <= ADDRESS_MAX && text.chars().all(|c| c.is_ascii_graphic() && !"?#\"<>\\".contains(c));
    let host = ["http://", "https://"].into_iter().find_map(|scheme| text.strip_prefix(scheme));
    let has_host = host.is_some_and(|rest| {
        let host = rest.split('/').next().unwrap_or_default();
        !host.is_empty() && !host.contains('@')
    });
    plain && (has_host || text.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_is_an_address_without_a_user_or_a_path() {
        for good in ["http://cache:8080", "https://example.org/plat/", "/srv/mirror"] {
            assert!(is_base(good), "{good}");
        }
        for bad in ["", "cache", "ftp://x", "https://", "https://u:secret@x", "http://x/?a", "http://x y"] {
            assert!(!is_base(bad), "{bad}");
        }
        let mut said = Vec::new();
        Section { mirrors: vec!["https://u:secret@host/x".into()], ..Section::default() }
            .check(|problem| said.push(problem));
        assert!(said.len() == 1 && !said[0].to_string().contains("secret"), "{said:?}");
    }
}
