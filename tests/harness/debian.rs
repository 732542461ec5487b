//! Debian, unpacked: what the machines of tests are made of. Made once, and kept in the target folder.

use crate::binaries::target;
use crate::namespace::root_or_skip;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The host's own package sources, in the order in which they are looked for.
const SOURCES: [&str; 3] =
    ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list.d/ubuntu.sources", "/etc/apt/sources.list"];

/// Whether this is root and has every one of the tools, each given with the Debian package that it is in. In CI it must.
///
/// # Panics
/// Where `CI` is set and something is missing.
pub fn root_and_tools_or_skip(test: &str, tools: &[(&str, &str)]) -> bool {
    if !root_or_skip(test) {
        return false;
    }
    let found = |tool: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| folder.join(tool).is_file())
    };
    let missing: Vec<_> = tools.iter().filter(|(tool, _)| !found(tool)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return true;
    }
    let lacking = format!("a machine that boots: apt-get install {}", missing.join(" "));
    assert!(std::env::var_os("CI").is_none(), "{test} needs {lacking}, and CI must run it");
    eprintln!("SKIPPED: {test} needs {lacking}");
    false
}

/// The folder that `make` fills, in `NAME` of the target folder: made by the first who needs it, and again when the
/// recipe is not the one it was made by.
///
/// # Panics
/// If the target folder cannot be written, or `make` panics: it is tried again the next time then.
pub fn once(name: &str, recipe: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let folder = target().join(name);
    fs::create_dir_all(&folder).expect("the target folder can be written");
    let lock = File::create(folder.join("lock")).expect("the target folder can be written");
    lock.lock().expect("a lock can be waited for");
    let (base, new, made_by) = (folder.join("base"), folder.join("base.new"), folder.join("recipe"));
    if fs::read_to_string(&made_by).is_ok_and(|built| built == recipe) {
        return base;
    }
    for old in [&made_by, &base, &new] {
        let _ = if old.is_dir() { fs::remove_dir_all(old) } else { fs::remove_file(old) };
    }
    eprintln!("building {}, once; it takes a minute or two", base.display());
    make(&new);
    fs::rename(&new, &base).and_then(|()| fs::write(&made_by, recipe)).expect("the target folder can be written");
    base
}

/// The Debian that the host is, whose libraries the programs under test were linked with.
///
/// # Panics
/// If the host does not say.
pub fn suite() -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let suite = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    suite.expect("/etc/os-release names the Debian that this is").to_owned()
}

/// Unpacks what is essential to Debian and `packages` (commas between) into a folder; then runs the shell command
/// `prepare`, whose first argument is that folder.
///
/// # Panics
/// If it fails.
pub fn unpack(into: &Path, packages: &str, prepare: &str) {
    let suite = suite();
    let names = |path: &&&str| fs::read_to_string(path).is_ok_and(|text| text.contains(&suite));
    let sources = SOURCES.iter().find(names).unwrap_or_else(|| panic!("none of {SOURCES:?} names {suite}"));
    // What it mounts and starts goes with it, if it is killed.
    let mut build = Command::new("unshare");
    build.args(["--mount", "--propagation=private", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]);
    build.args(["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--format=directory"]);
    build.arg(format!("--include={packages}")).arg("--aptopt=Acquire::Retries \"5\"");
    build.arg(format!("--customize-hook={prepare}")).arg(&suite).arg(into).arg(sources).stdin(Stdio::null());
    let built = build.output().expect("unshare can be run");
    assert!(built.status.success(), "no root was built: {}", String::from_utf8_lossy(&built.stderr));
}
