//! Locking a release: which packages its names are, here and now, in a document that is laid over it.

use super::super::{Context, done};
use crate::Result;
use crate::document;
use crate::output;
use crate::view::CheckView;
use plat_document::Release;
use plat_document::release::{DebLock, LockedPackage, Source};
use plat_model::Problem;
use plat_model::problem::codes;
use plat_source::{Apt, Ran, Tools};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How many of a tool's last lines are told.
const LINES: usize = 8;

/// Source → kind of machine → lock.
type Locks = BTreeMap<String, BTreeMap<String, DebLock>>;

pub fn run(context: &Context, file: &Path, update: bool) -> Result<()> {
    let path = lock_path(file)?;
    let release = document::load(file)?;
    for (name, source) in &release.sources {
        if matches!(source, Source::Directory { sha256: None, .. }) {
            output::note(&format!("sources.{name} is whatever is in that folder of a node: give it its `sha256`"));
        }
    }
    let named = named(&release);
    if named.is_empty() {
        output::note("there is nothing to lock: no source names packages of Debian");
        return Ok(());
    }
    let here = plat_source::here()?;
    let before = if path.exists() { written(&path)? } else { Locks::new() };
    let locks = lock_all(&named, before, here.as_str(), update, resolve)?;
    let text = render(file, &locks);
    if fs::read_to_string(&path).ok().as_ref() != Some(&text) {
        write(&path, &text)?;
    }
    let release = document::load(&path)?;
    done(&format!("{} says what the packages are on {here}; add it instead of {}", path.display(), file.display()));
    let (name, digest) = (release.name.to_string(), release.digest().to_string());
    context.printer.one(&CheckView { file: path.display().to_string(), name, digest })
}

/// `redis.yaml` → `redis.lock.yaml`, beside it.
fn lock_path(file: &Path) -> Result<PathBuf, Problem> {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let stem = name.strip_suffix(".yaml").or_else(|| name.strip_suffix(".yml")).unwrap_or(name);
    if stem.is_empty() || stem.ends_with(".lock") {
        return Err(Problem::new(codes::BAD_VALUE, format!("`{}` cannot be locked", plat_model::id::shorten(name)))
            .because("it is a lock, or no file")
            .fix("name the document that it is of"));
    }
    Ok(file.with_file_name(format!("{stem}.lock.yaml")))
}

/// Source → packages by name.
fn named(release: &Release) -> BTreeMap<&str, &[String]> {
    let deb = release.sources.iter().filter_map(|(name, source)| match source {
        Source::Deb { packages, .. } => Some((name.as_str(), packages.as_slice())),
        _ => None,
    });
    deb.collect()
}

/// What the lock itself says, whatever has become of the document that it is of: what is locked for machines of other
/// kinds, and of sources that are as they were, cannot be asked again here.
fn written(path: &Path) -> Result<Locks> {
    let text = super::super::read_text(path)?;
    let written = plat_document::yaml::read(&text, &path.display().to_string(), text.len())?.to_json();
    let sources = written.get("sources").and_then(Value::as_object).into_iter().flatten();
    let locks = |(name, source): (&String, &Value)| {
        let locks = source.get("deb").and_then(|deb| deb.get("locks")).cloned().unwrap_or_else(|| json!({}));
        let locks = serde_json::from_value(locks).map_err(|e| {
            Problem::new(codes::BAD_VALUE, format!("sources.{name} of {} is no lock", path.display()))
                .because(e)
                .fix("take the file back to what `plat release lock` wrote, or remove it to lock all anew")
        })?;
        Ok((name.clone(), locks))
    };
    sources.map(locks).collect()
}

fn lock_all(
    named: &BTreeMap<&str, &[String]>,
    mut before: Locks,
    here: &str,
    update: bool,
    mut resolve: impl FnMut(&[String]) -> Result<DebLock, Problem>,
) -> Result<Locks, Problem> {
    let mut all = Locks::new();
    for (name, packages) in named {
        let mut locks = before.remove(*name).unwrap_or_default();
        locks.retain(|kind, lock| {
            let same = lock.of == *packages;
            if !same && kind != here {
                output::note(&format!(
                    "sources.{name} is of other packages by now: lock it again on a machine of kind {kind}"
                ));
            }
            same
        });
        if update || !locks.contains_key(here) {
            output::note(&format!("asking what {} is on {here}", packages.join(", ")));
            locks.insert(here.to_string(), resolve(packages).map_err(|p| p.at(format!("sources.{name}")))?);
        }
        all.insert((*name).to_owned(), locks);
    }
    Ok(all)
}

fn resolve(packages: &[String]) -> Result<DebLock, Problem> {
    let folder = tempfile::tempdir()
        .map_err(|e| Problem::new(codes::FILE, "there is no folder for the package tools").because(e))?;
    let apt = Apt { folder: folder.path(), tools: &Quiet };
    let (found, ()) = apt.packages(packages, |_| Ok(()))?;
    let mut locked: Vec<LockedPackage> = found
        .into_iter()
        .map(|one| LockedPackage { name: one.name, version: one.version, url: one.url, sha256: one.sha256 })
        .collect();
    locked.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    Ok(DebLock { of: packages.to_vec(), packages: locked })
}

/// Runs the tools and shows of them what went wrong.
struct Quiet;

impl Tools for Quiet {
    fn run(&self, command: Vec<String>, environment: BTreeMap<String, String>) -> Result<Ran, Problem> {
        let (program, arguments) = command.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
        let ran = Command::new(program).args(arguments).env_clear().envs(environment).stdin(Stdio::null()).output();
        let ran = ran.map_err(|e| {
            Problem::new(codes::PREREQUISITE, format!("cannot run {program}"))
                .because(e)
                .fix("lock the release on a machine that runs Debian")
        })?;
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        let lines: Vec<&str> = said.lines().collect();
        let last = lines[lines.len().saturating_sub(LINES)..].join("\n");
        let failure = (!ran.status.success()).then(|| {
            Problem::new(codes::SOURCE_FETCH, format!("{} failed", command.join(" ")))
                .because(last)
                .fix("check that this machine reaches its package sources (`apt-get update`)")
        });
        Ok(Ran { failure })
    }

    fn tell(&self, _doing: &str) -> Result<(), Problem> {
        Ok(())
    }
}

/// The same text for the same locks. Texts are written as JSON, which YAML contains.
fn render(file: &Path, locks: &Locks) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let mut text = format!(
        "# Written by `plat release lock`: add this file instead of {name}.\nversion: 1\nextends: {}\nsources:\n",
        quoted(&name)
    );
    for (source, kinds) in locks {
        let _ = writeln!(text, "  {source}:\n    deb:\n      locks:");
        for (kind, lock) in kinds {
            let of: Vec<String> = lock.of.iter().map(|name| quoted(name)).collect();
            let _ = writeln!(text, "        {kind}:\n          of: [{}]\n          packages:", of.join(", "));
            for LockedPackage { name, version, url, sha256 } in &lock.packages {
                let [name, version, url, sha256] = [name, version, url, sha256].map(|text| quoted(text));
                let _ = writeln!(
                    text,
                    "            - {{name: {name}, version: {version}, url: {url},\n               sha256: {sha256}}}"
                );
            }
        }
    }
    text
}

/// By one rename, once it has been read again: a lock that cannot be used does not take the place of one that can.
fn write(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let wrong =
        |e: &dyn std::fmt::Display| Problem::new(codes::FILE, format!("cannot write {}", path.display())).because(e);
    let mut file =
        tempfile::Builder::new().prefix(".lock-").suffix(".yaml").tempfile_in(folder).map_err(|e| wrong(&e))?;
    std::io::Write::write_all(&mut file, text.as_bytes()).map_err(|e| wrong(&e))?;
    let everybody = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o644);
    file.as_file().set_permissions(everybody).map_err(|e| wrong(&e))?;
    document::load(file.path())?;
    file.persist(path).map_err(|e| wrong(&e.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_beside_its_document_and_is_none_itself() {
        assert_eq!(lock_path(Path::new("a/redis.yaml")).unwrap(), Path::new("a/redis.lock.yaml"));
        assert_eq!(lock_path(Path::new("redis")).unwrap(), Path::new("redis.lock.yaml"));
        assert!(lock_path(Path::new("redis.lock.yaml")).is_err());
    }

    fn release(folder: &Path, packages: [&str; 2]) -> PathBuf {
        let file = folder.join("app.yaml");
        let [app, tool] = packages;
        let text = format!(
            "version: 1\nname: app\nservices: {{web: {{command: [/bin/true]}}}}\nsources:\n  \
             app: {{deb: {{packages: [{app}]}}}}\n  tool: {{deb: {{packages: [{tool}], into: tool}}}}\n"
        );
        fs::write(&file, text).unwrap();
        file
    }

    fn lock(of: &str, version: &str) -> DebLock {
        let package = LockedPackage {
            name: of.split('=').next().unwrap().into(),
            version: version.into(),
            url: "http://deb.example.org/hello_1%253a2.deb".into(),
            sha256: "a".repeat(64),
        };
        DebLock { of: vec![of.into()], packages: vec![package] }
    }

    const HERE: &str = "x86_64-debian-13";
    const THERE: &str = "aarch64-debian-13";

    fn everywhere(of: &str) -> BTreeMap<String, DebLock> {
        [HERE, THERE].map(|kind| (kind.to_owned(), lock(of, "1:2.10~rc1"))).into()
    }

    #[test]
    fn what_is_written_is_read_again_as_the_same_lock() {
        let folder = tempfile::tempdir().unwrap();
        let file = release(folder.path(), ["hello", "\"xx=1:2\""]);
        let locks = Locks::from([("app".to_owned(), everywhere("hello")), ("tool".to_owned(), everywhere("xx=1:2"))]);
        let path = lock_path(&file).unwrap();
        write(&path, &render(&file, &locks)).unwrap();
        assert_eq!(written(&path).unwrap(), locks);
        document::load(&path).unwrap_or_else(|p| panic!("{p}"));
        // The document names others by now.
        release(folder.path(), ["bye", "\"xx=1:2\""]);
        let problem = document::load(&path).unwrap_err().to_string();
        assert!(problem.contains("of other packages") && problem.contains("plat release lock"), "{problem}");
    }

    #[test]
    fn a_source_with_other_packages_leaves_the_other_locks_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = release(folder.path(), ["hello", "jq"]);
        let before = Locks::from([("app".to_owned(), everywhere("hello")), ("tool".to_owned(), everywhere("jq"))]);
        let path = lock_path(&file).unwrap();
        write(&path, &render(&file, &before)).unwrap();
        release(folder.path(), ["bye", "jq"]);
        let release = document::load(&file).unwrap();
        let mut asked = Vec::new();
        let resolve = |packages: &[String]| {
            asked.push(packages.to_vec());
            Ok(lock(&packages[0], "9"))
        };
        let locks = lock_all(&named(&release), written(&path).unwrap(), HERE, false, resolve).unwrap();
        assert_eq!(locks["tool"], before["tool"]);
        assert_eq!(locks["app"], BTreeMap::from([(HERE.to_owned(), lock("bye", "9"))]));
        assert_eq!(asked, [["bye"]]);
    }

    #[test]
    fn a_lock_that_cannot_be_used_takes_the_place_of_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = release(folder.path(), ["hello", "jq"]);
        let path = lock_path(&file).unwrap();
        let good = render(&file, &Locks::from([("app".to_owned(), everywhere("hello"))]));
        write(&path, &good).unwrap();
        // Of other packages, and of no source at all.
        for wrong in [("app", "bye"), ("gone", "hello")] {
            let text = render(&file, &Locks::from([(wrong.0.to_owned(), everywhere(wrong.1))]));
            assert!(write(&path, &text).is_err());
            assert_eq!(fs::read_to_string(&path).unwrap(), good);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        }
        // Nor is one gone over that cannot be read.
        fs::write(&path, "sources: {app: {deb: {locks: [1]}}}\n").unwrap();
        let problem = written(&path).unwrap_err().to_string();
        assert!(problem.contains("sources.app") && problem.contains("remove it"), "{problem}");
    }
}
