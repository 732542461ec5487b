//! What sources may have wrong: addresses, and where they are laid.

use super::Checker;
use crate::release::{DebLock, NpmPackage, PypiPackage, Release, Source};
use plat_model::Problem;
use plat_model::problem::codes;
use std::collections::{BTreeMap, BTreeSet};

impl Checker<'_> {
    pub(super) fn sources(&mut self, release: &Release) {
        for (name, source) in &release.sources {
            let (kind, into) = match source {
                Source::Archive { url, into, .. } => {
                    if !is_remote(url) && !is_path(url) {
                        let wrong = "`url` is neither an http(s) URL nor an absolute path";
                        self.wrong(&["sources", name, "archive", "url"], wrong);
                    }
                    ("archive", into)
                }
                Source::Directory { path, into, .. } => {
                    if !path.starts_with('/') || path.split('/').any(|part| part == "..") || path.contains('\0') {
                        let wrong = "`path` is not an absolute path without `..`";
                        self.wrong(&["sources", name, "directory", "path"], wrong);
                    }
                    ("directory", into)
                }
                Source::Deb { packages, locks, into } => {
                    self.locks(&["sources", name, "deb", "locks"], packages, locks);
                    ("deb", into)
                }
                Source::Git { url, into, .. } => {
                    let at = ["sources", name, "git", "url"];
                    self.address(&at, url, url.strip_prefix("file://").unwrap_or(url));
                    ("git", into)
                }
                Source::Crate { registry, into, .. } => {
                    self.address(&["sources", name, "crate", "registry"], registry, registry);
                    ("crate", into)
                }
                Source::Oci { layout, sha256, into, .. } => {
                    let at = ["sources", name, "oci", "layout"];
                    self.address(&at, layout, layout);
                    if sha256.is_none() && is_remote(layout) {
                        let problem = Problem::new(codes::MISSING_KEY, "an archive lacks its checksum")
                            .because("only a folder on the node can do without `sha256`")
                            .fix("add `sha256` of the archive");
                        self.note(&at, problem);
                    }
                    ("oci", into)
                }
                Source::Npm { packages, registry, into } => {
                    self.address(&["sources", name, "npm", "registry"], registry, registry);
                    self.npm(&["sources", name, "npm", "packages"], packages);
                    ("npm", into)
                }
                Source::Pypi { packages, index, into } => {
                    self.address(&["sources", name, "pypi", "index"], index, "");
                    self.pypi(&["sources", name, "pypi", "packages"], packages);
                    ("pypi", into)
                }
            };
            self.relative(&["sources", name, kind, "into"], into, true);
        }
    }

    fn locks(&mut self, at: &[&str], packages: &[String], locks: &BTreeMap<String, DebLock>) {
        for (kind, lock) in locks {
            if lock.of != packages {
                let problem = Problem::new(codes::BAD_VALUE, format!("the lock for {kind} is of other packages"))
                    .because("what is locked would not be what the release names")
                    .fix("run `plat release lock` again");
                self.note(&[at, &[kind, "of"]].concat(), problem);
            }
            for (n, package) in lock.packages.iter().enumerate() {
                let n = n.to_string();
                self.address(&[at, &[kind, "packages", &*n, "url"]].concat(), &package.url, "");
            }
        }
    }

    fn npm(&mut self, at: &[&str], packages: &[NpmPackage]) {
        let mut taken = BTreeSet::new();
        for (n, package) in packages.iter().enumerate() {
            let (n, path) = (n.to_string(), package.path());
            let at = [at, &[&*n, "path"]].concat();
            self.relative(&at, &path, false);
            if !path.starts_with("node_modules/") {
                self.wrong(&at, "`path` does not begin with `node_modules/`");
            }
            if !taken.insert(path) {
                let problem = Problem::new(codes::BAD_VALUE, "two packages go to the same folder")
                    .fix("give one its `path`, as package-lock.json has it");
                self.note(&at, problem);
            }
        }
    }

    fn pypi(&mut self, at: &[&str], packages: &[PypiPackage]) {
        let mut versions = BTreeMap::new();
        for (n, package) in packages.iter().enumerate() {
            let version = &package.version;
            let before = versions.entry(package.plain_name()).or_insert(version);
            if *before != version {
                let what = format!("{} is named in two versions, {before} and {version}", package.name);
                let problem = Problem::new(codes::BAD_VALUE, what)
                    .because("only one of them can be imported")
                    .fix("keep one, or give the other a source of its own with another `into`");
                self.note(&[at, &[&*n.to_string(), "version"]].concat(), problem);
            }
        }
    }

    fn wrong(&mut self, at: &[&str], what: &str) {
        self.note(at, Problem::new(codes::BAD_VALUE, what));
    }

    /// An http(s) URL without a password, or a path; where `path` is empty, none may be said.
    fn address(&mut self, at: &[&str], url: &str, path: &str) {
        let key = at.last().copied().unwrap_or_default();
        if !is_remote(url) && path.is_empty() {
            self.wrong(at, &format!("`{key}` is not an http(s) URL"));
        } else if !is_remote(url) && !is_path(path) {
            self.wrong(at, &format!("`{key}` is neither an http(s) URL nor an absolute path"));
        } else if is_remote(url) && url.split('/').nth(2).is_some_and(|host| host.contains('@')) {
            let problem = Problem::new(codes::BAD_VALUE, format!("`{key}` says who asks"))
                .because("everybody who may see the release would read the user or password in it")
                .fix("name a mirror that nodes may read without a password");
            self.note(at, problem);
        }
    }
}

fn is_plain(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() || c == ' ')
}

fn is_remote(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/')) && is_plain(url)
}

fn is_path(path: &str) -> bool {
    path.starts_with('/') && is_plain(path)
}
