//! `[releases]` of `agent.toml`: where files come from.

use plat_model::Problem;
use plat_model::problem::codes;
use serde::Deserialize;
use std::time::Duration;

/// How a node comes to its releases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseSettings {
    /// Bases of addresses, http, https or absolute paths, that have files by their digests: BASE/sha256/DIGITS.
    pub mirrors: Vec<String>,
    /// Bytes that stay free on the disk.
    pub min_free: u64,
    /// How long a server may say nothing before it is given up.
    pub silence: Duration,
}

impl Default for ReleaseSettings {
    fn default() -> Self {
        Self { mirrors: Vec::new(), min_free: 64 << 20, silence: Duration::from_secs(60) }
    }
}

/// The section's form.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Section {
    #[serde(default)]
    mirrors: Vec<String>,
}

/// Most mirrors, and the longest address of one.
const MIRRORS_MAX: usize = 16;
const ADDRESS_MAX: usize = 1024;

impl Section {
    /// What is wrong goes to `wrong`.
    pub fn check(self, mut wrong: impl FnMut(Problem)) -> ReleaseSettings {
        let problem = |what: String| Problem::new(codes::BAD_CONFIG, what);
        if self.mirrors.len() > MIRRORS_MAX {
            wrong(problem(format!("`releases.mirrors` names {}, {MIRRORS_MAX} are allowed", self.mirrors.len())));
        }
        for mirror in self.mirrors.iter().filter(|mirror| !is_base(mirror)) {
            let shown = plat_model::id::shorten(mirror.split('@').next_back().unwrap_or_default());
            wrong(
                problem(format!("`releases.mirrors` has `{shown}`, which is no mirror"))
                    .fix("name http://HOST/PATH, https://HOST/PATH without a user, or an absolute path"),
            );
        }
        ReleaseSettings { mirrors: self.mirrors, ..ReleaseSettings::default() }
    }
}

/// Whether it can stand before `/sha256/DIGITS`. A password in it would be in every message about it.
fn is_base(text: &str) -> bool {
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
        Section { mirrors: vec!["https://u:secret@host/x".into()] }.check(|problem| said.push(problem));
        assert!(said.len() == 1 && !said[0].to_string().contains("secret"), "{said:?}");
    }
}
