//! A machine of a test's own: a network namespace, and a folder that stands for the root of its file system.

use node_format::{Host, LinuxHost};
use node_format_plan::{HostFacts, Scope};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Apart from what other tests use: a uid with processes cannot be removed.
pub const FIRST_UID: u32 = 61_000;

/// Runs a test in a thread with a network namespace of its own and a folder that stands for the machine's root.
pub fn on_a_machine(test: impl FnOnce(&Machine) + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "this test needs root, and CI must run it");
        eprintln!("SKIPPED: this test needs root");
        return;
    }
    let thread = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace of its own");
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for directory in ["etc", "srv", "var", "var/lib"] {
            fs::create_dir(root.path().join(directory)).unwrap();
        }
        test(&Machine { root });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

pub struct Machine {
    pub root: tempfile::TempDir,
}

impl Drop for Machine {
    /// What is mounted beneath the root would outlive the test.
    fn drop(&mut self) {
        for namespace in std::fs::read_dir(self.path("run/netns")).into_iter().flatten().flatten() {
            let _ = nix::mount::umount2(&namespace.path(), nix::mount::MntFlags::MNT_DETACH);
        }
        self.remove_netns();
    }
}

impl Machine {
    pub fn path(&self, path: &str) -> std::path::PathBuf {
        self.root.path().join(path)
    }

    /// The folder for namespaces, and that it is a mount of its own, is the system's. One with namespaces in it stays.
    pub fn remove_netns(&self) {
        let folder = self.path("run/netns");
        let _ = nix::mount::umount2(&folder, nix::mount::MntFlags::UMOUNT_NOFOLLOW);
        let _ = fs::remove_dir(folder);
        let _ = fs::remove_dir(self.path("run"));
    }

    /// Taps on a bridge, both families.
    pub fn configure(&self, amount: u32) {
        self.configure_with(amount, "mode = \"bridge\"\nguard = false\n", "");
    }

    /// `network`: lines of [network]; `rest`: further sections.
    pub fn configure_with(&self, amount: u32, network: &str, rest: &str) {
        let text = format!(
            "version = 1\n[partitions]\namount = {amount}\nfirst_uid = {FIRST_UID}\nfirst_gid = {FIRST_UID}\n[builder]\nuid = 60999\ngid = 60999\n\
             [network]\nipv6_prefix = \"fd00:1::/64\"\nipv4_network = \"10.200.0.0/16\"\n{network}{rest}"
        );
        fs::write(self.path("format.toml"), text).unwrap();
    }

    /// Runs node-format, which must succeed.
    pub fn must(&self, verb: &[&str]) -> String {
        let (code, text) = self.run(verb);
        assert_eq!(code, 0, "node-format {}: {text}", verb.join(" "));
        text
    }

    pub fn command(&self, verb: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_node-format"));
        command.arg("--config").arg(self.path("format.toml")).arg("--root").arg(self.root.path()).args(verb);
        command
    }

    /// Runs node-format; exit code and standard output (or the errors, where there is none).
    pub fn run(&self, verb: &[&str]) -> (i32, String) {
        let Output { status, stdout, stderr } = self.command(verb).output().unwrap();
        let text = if stdout.is_empty() { stderr } else { stdout };
        (status.code().unwrap(), String::from_utf8(text).unwrap())
    }

    pub fn network(&self) -> HostFacts {
        let scope = Scope { network: true, accounts: true, ..Scope::default() };
        LinuxHost::new(self.root.path()).unwrap().observe(&scope).unwrap()
    }

    /// All that is on the machine, with the text of the user database, but what the programs that make users leave: copies, a
    /// lock, and empty files where there were none.
    pub fn everything(&self) -> (HostFacts, Vec<String>) {
        let found = Command::new("find").arg(self.root.path()).output().unwrap();
        let mut paths: Vec<String> = String::from_utf8(found.stdout).unwrap().lines().map(str::to_owned).collect();
        let etc = self.path("etc").display().to_string() + "/";
        let left =
            |name: &str| matches!(name.trim_end_matches('-'), "passwd" | "group" | "shadow" | "gshadow" | ".pwd.lock");
        paths.retain(|path| path.strip_prefix(&etc).is_none_or(|name| !left(name)));
        paths.sort();
        let database =
            ["passwd", "group", "shadow", "gshadow"].map(|name| fs::read_to_string(self.path("etc").join(name)));
        paths.extend(database.into_iter().flatten().filter(|text| !text.is_empty()));
        let mut facts = self.network();
        // The kernel gives each link one of these in its own time.
        facts.addresses.retain(|found| !found.address.to_string().starts_with("fe80:"));
        (facts, paths)
    }
}

pub fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !happened() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::yield_now();
    }
}

/// A shell script that can be run.
pub fn program(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

pub fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}
