//! A whole grid of real programs: a master in one namespace, nodes in others, all joined by links.

use crate::binaries::binary;
use crate::daemon::Daemon;
use crate::eventually::eventually;
use crate::namespace::Namespace;
use crate::plat::Plat;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// Where the master listens, within the hub.
pub const URL: &str = "https://[fd00:5::1]:7443";
/// How long anything but the installation of large software may take on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The first partition's uid on every node.
pub const FIRST_UID: u32 = 41_000;

pub struct Grid {
    // Daemons are dropped before the namespaces that they run in.
    pub master: Daemon,
    pub nodes: Vec<Node>,
    /// The first operator's.
    pub plat: Plat,
    pub hub: Arc<Namespace>,
    pub folder: tempfile::TempDir,
}

pub struct Node {
    pub name: String,
    pub agent: Daemon,
    pub space: Arc<Namespace>,
}

/// Kept as the tests' output when one fails: `PLAT_TESTS_LOGS` names a folder for it.
fn logs(folder: &Path) -> PathBuf {
    let logs = std::env::var_os("PLAT_TESTS_LOGS").map_or_else(|| folder.join("logs"), PathBuf::from);
    fs::create_dir_all(&logs).expect("a folder for logs can be made");
    logs
}

impl Grid {
    /// A master that runs, and no nodes yet. `name` has at most 8 letters: links are named after it.
    pub fn new(name: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("plat-end-to-end-").tempdir().expect("a folder can be made");
        let hub = Arc::new(Namespace::new(&format!("{name}-hub")));
        hub.sh("ip link add br0 type bridge && ip link set br0 up && ip addr add fd00:5::1/64 dev br0 nodad");
        let (data, profile) = (folder.path().join("master"), folder.path().join("operator"));
        let mut init = hub.command(binary("plat-master"));
        init.args(["init", "--grid", "campus", "--url", URL, "--listen", "[fd00:5::1]:7443", "--profile"]);
        run(init.arg(&profile).arg("--data").arg(&data));
        let (space, config) = (hub.clone(), data.join("master.toml"));
        let mut master = Daemon::new("master", &logs(folder.path()), move || {
            let mut command = space.command(binary("plat-master"));
            command.args(["run", "--config"]).arg(&config);
            command
        });
        master.start();
        let plat = plat_in(&hub, profile);
        let grid = Self { master, nodes: Vec::new(), plat, hub, folder };
        grid.until_master_answers();
        grid
    }

    /// Waits until the master answers a call.
    pub fn until_master_answers(&self) {
        eventually("answering", PATIENCE, || match self.plat.run(&["whoami"]) {
            ran if ran.code == 0 => Ok(()),
            ran => Err(ran.errors),
        });
    }

    /// Kills the master and starts it again.
    pub fn crash_master(&mut self) {
        self.master.kill();
        self.master.start();
    }

    /// Formats a machine, enrols it, runs its agent, and waits until the master sees it with its partitions.
    pub fn add_node(&mut self, partitions: u32) -> &mut Node {
        let number = self.nodes.len() + 1;
        let node = Node::new(self, number, partitions);
        self.nodes.push(node);
        let node = self.nodes.last_mut().expect("one was just added");
        node.agent.start();
        let name = node.name.clone();
        eventually("online", PATIENCE, || {
            let seen = self.plat.json(&["node", "show", &name]);
            let formatted = seen["partitions"].as_array().map_or(0, Vec::len) == partitions as usize;
            if seen["state"] == "online" && formatted { Ok(()) } else { Err(seen.to_string()) }
        });
        self.nodes.last_mut().expect("one was just added")
    }

    /// The node that holds an instance.
    ///
    /// # Panics
    /// If none does.
    pub fn node_of(&self, instance: &Value) -> &Node {
        let found = self.nodes.iter().find(|node| instance["node"] == *node.name);
        found.unwrap_or_else(|| panic!("no node holds {instance}"))
    }

    /// Writes a release document, adds it, and supplies it to every node. A `{folder}` in it is this grid's own.
    pub fn release(&self, name: &str, document: &str) -> Value {
        let path = self.write(&format!("{name}.yaml"), document);
        let added = self.plat.json(&["release", "add", &path]);
        self.plat.json(&["supply", name, "--all"]);
        added
    }

    /// Writes a file to the grid's folder, which every namespace sees; its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        let text = text.replace("{folder}", &self.folder.path().display().to_string());
        fs::write(&path, text).expect("a file can be written");
        path.display().to_string()
    }

    /// The folder for what programs log.
    pub fn logs(&self) -> PathBuf {
        logs(self.folder.path())
    }

    /// A token for a node, or with more arguments for a person; the file it is in.
    pub fn token(&self, name: &str, arguments: &[&str]) -> String {
        let path = self.folder.path().join(name).display().to_string();
        let ran = self.plat.run(&[&["token", "create", "--out", &path], arguments].concat());
        assert_eq!(ran.code, 0, "{}", ran.errors);
        path
    }

    /// The command line with this profile.
    pub fn plat_of(&self, profile: PathBuf) -> Plat {
        plat_in(&self.hub, profile)
    }

    /// Another user's command line: `role` is `--operator`, or `--member` and a project.
    pub fn login(&self, user: &str, role: &[&str]) -> Plat {
        let token = self.token(&format!("{user}.token"), &[&["--user", user], role].concat());
        let plat = self.plat_of(self.folder.path().join(user));
        let ran = plat.run(&["login", "--master", URL, "--token-file", &token]);
        assert_eq!(ran.code, 0, "{}", ran.errors);
        plat
    }

    /// Waits until an instance is in a state; what it is then.
    #[track_caller]
    pub fn until(&self, name: &str, state: &str, patience: Duration) -> Value {
        eventually(&format!("{name} {state}"), patience, || {
            let seen = self.plat.json(&["show", name]);
            if seen["state"] == state { Ok(seen) } else { Err(seen.to_string()) }
        })
    }

    /// Waits until there is no instance of this name.
    #[track_caller]
    pub fn until_gone(&self, name: &str, patience: Duration) {
        eventually(&format!("{name} gone"), patience, || match self.plat.run(&["show", name]) {
            ran if ran.code == 3 => Ok(()),
            ran => Err(ran.out + &ran.errors),
        });
    }
}

impl Node {
    fn new(grid: &Grid, number: usize, partitions: u32) -> Self {
        let name = format!("n{number}");
        let space = Arc::new(Namespace::new(&format!("{}-{name}", grid.hub.name().trim_end_matches("-hub"))));
        space.plug_into(&grid.hub);
        let (uplink, prefix) = (format!("fd00:5::1{number}"), format!("fd00:5:{number}::/64"));
        space.sh(&format!("ip addr add {uplink}/64 dev uplink nodad && ip route add default via fd00:5::1"));
        grid.hub.sh(&format!("ip route add {prefix} via {uplink}"));
        let format = format!(
            "version = 1\n[paths]\nreleases = \"/srv/plat/releases\"\nroot = \"/srv/plat/partitions\"\n\
             node_file = \"/var/lib/plat/node.json\"\nrecord = \"/var/lib/plat/format/record\"\n\
             [partitions]\namount = {partitions}\nusers = true\nfirst_uid = {FIRST_UID}\nfirst_gid = {FIRST_UID}\n\
             [network]\nmode = \"bridge\"\nlink = \"plat0\"\ntaps = false\nipv6_prefix = \"{prefix}\"\n\
             [builder]\nuser = \"plat-builder\"\nuid = 40999\ngid = 40999\n"
        );
        let agent = "version = 1\ndata = \"/var/lib/plat/agent\"\nnode_file = \"/var/lib/plat/node.json\"\n\
                     window_seconds = 1\nruntime = \"shim\"\n";
        space.sh("mkdir -p /etc/plat /var/lib/plat /srv/plat");
        fs::write(space.path("/etc/plat/format.toml"), format).expect("a namespace's file can be written");
        fs::write(space.path("/etc/plat/agent.toml"), agent).expect("a namespace's file can be written");
        run(space.command(binary("node-format")).arg("apply"));
        let token = grid.token(&format!("{name}.token"), &["--node", &name]);
        run(space.command(binary("plat-agent")).args(["enroll", "--master", URL, "--token-file", &token]));
        let (place, logs) = (space.clone(), logs(grid.folder.path()));
        let agent = Daemon::new(&format!("agent-{name}"), &logs, move || {
            let mut command = place.command(binary("plat-agent"));
            command.arg("run");
            command
        });
        Self { name, agent, space }
    }

    /// The folder of a partition, as this process can open it.
    pub fn partition(&self, name: &str) -> PathBuf {
        self.space.path("/srv/plat/partitions").join(name)
    }

    /// The processes of a partition's user.
    ///
    /// # Panics
    /// If `partition` is not one that node-format names.
    pub fn processes_of(&self, partition: &str) -> Vec<u32> {
        let number: u32 = partition.trim_start_matches("part").parse().expect("partitions are part0, part1, …");
        self.space.processes_of(FIRST_UID + number)
    }

    /// Sends a signal to a process, by its pid within.
    pub fn signal(&self, signal: &str, pid: u32) {
        self.space.sh(&format!("kill -{signal} {pid}"));
    }
}

fn plat_in(space: &Arc<Namespace>, profile: PathBuf) -> Plat {
    let space = space.clone();
    Plat::new(profile, move || space.command(binary("plat")))
}

/// Runs a program that must succeed.
#[track_caller]
pub fn run(command: &mut Command) {
    let out = command.output().expect("a program can be run");
    let said = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{command:?}: {said}");
}
