//! The programs under test: those of this very tree, built for the profile that the tests were built for.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const PACKAGES: [&str; 4] = ["plat-master", "plat-agent", "node-format", "plat-cli"];

/// Path of a program: `plat-master`, `plat-agent`, `node-format` or `plat`. The first call has cargo bring all of them
/// up to date; that takes a moment when they are.
///
/// # Panics
/// If they cannot be built.
pub fn binary(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let path = FOLDER.get_or_init(build).join(name);
    assert!(path.is_file(), "{} was not built", path.display());
    path
}

/// Where cargo builds, and where what takes long to make may be kept for the next run.
///
/// # Panics
/// If the test was not built by cargo.
pub fn target() -> PathBuf {
    profile().parent().expect("a profile has a target folder").to_owned()
}

fn profile() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    // TARGET/PROFILE/deps/TEST
    test.parent().and_then(Path::parent).expect("a test is in the target folder").to_owned()
}

/// Path of the program of a package's unit tests: for a machine that must run some of them. Cargo brings it up to date;
/// that takes a moment when the workspace's tests are.
///
/// # Panics
/// If it cannot be built.
pub fn unit_tests(package: &str) -> PathBuf {
    tests(&["--lib"], &package.replace('-', "_"))
}

/// The same of one of the integration tests, by its name.
///
/// # Panics
/// If it cannot be built.
pub fn integration_tests(name: &str) -> PathBuf {
    tests(&["--test", name], name)
}

fn tests(which: &[&str], name: &str) -> PathBuf {
    // Of all packages, as when all tests are run: libraries would be built again for one package alone.
    let built = cargo(&[&["test", "--no-run", "--workspace", "--message-format=json"][..], which].concat());
    let executable = |line: &str| {
        let said: serde_json::Value = serde_json::from_str(line).ok()?;
        let is = said["target"]["name"] == name && said["profile"]["test"] == true;
        said["executable"].as_str().filter(|_| is).map(PathBuf::from)
    };
    built.lines().find_map(executable).unwrap_or_else(|| panic!("there are no tests {name}"))
}

fn build() -> PathBuf {
    let packages = PACKAGES.iter().flat_map(|package| ["--package", package]);
    cargo(&["build", "--bins"].into_iter().chain(packages).collect::<Vec<_>>());
    profile()
}

/// Runs cargo on this very tree, for the profile that the tests were built for; what it printed.
fn cargo(arguments: &[&str]) -> String {
    let profile = profile();
    let name = profile.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(crate::source::root()).args(arguments).arg("--quiet");
    cargo.arg("--profile").arg(if name == "debug" { "dev" } else { &name });
    cargo.arg("--target-dir").arg(target());
    // What the cargo that runs this test says of this package is not so of others: told it, they would be built anew.
    let of_this_package = |name: &str| ["CARGO_MANIFEST_", "CARGO_PKG_"].iter().any(|start| name.starts_with(start));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(of_this_package)) {
        cargo.env_remove(name);
    }
    let built = cargo.output().expect("cargo can be run");
    assert!(built.status.success(), "cargo cannot build:\n{}", String::from_utf8_lossy(&built.stderr));
    String::from_utf8_lossy(&built.stdout).into_owned()
}
