//! The real binary on this machine, without root: enrol, run, be killed, run again.

use crate::master::{Master, Server};
use crate::rig::{instance, part, until};
use plat_document::Release;
use plat_link::Address;
use plat_link::tls::RootPin;
use plat_model::instance::{InstanceDesired, InstanceState, Wish};
use plat_model::node::{NodeFile, NodePartition};
use plat_model::usage::Meter;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

pub struct Node {
    pub folder: tempfile::TempDir,
    pub master: Arc<Master>,
    pub agent: Option<Child>,
    pub executable: PathBuf,
}

impl Node {
    pub fn new(folder: tempfile::TempDir, master: Arc<Master>) -> Self {
        Self { folder, master, agent: None, executable: env!("CARGO_BIN_EXE_plat-agent").into() }
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.executable);
        command.arg("--config").arg(self.folder.path().join("agent.toml")).env("PLAT_LOG", "warn");
        command
    }

    pub fn start(&mut self) {
        self.agent = Some(self.command().arg("run").spawn().unwrap());
    }

    pub fn kill(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    pub async fn until_state(&self, state: InstanceState) {
        until(&format!("the instance is {state}"), || {
            let status = self.master.state().statuses.get(&instance(1, Wish::Started).id).cloned();
            (status.as_ref().is_some_and(|status| status.state == state), status)
        })
        .await;
    }

    pub fn service_pid(&self) -> Option<u32> {
        let state = self.master.state();
        state.statuses.get(&instance(1, Wish::Started).id)?.services.iter().find_map(|service| service.pid)
    }

    pub fn enroll(&self, master: &Address) {
        let pin: String = RootPin::of(self.master.root()).0.iter().map(|byte| format!("{byte:02x}")).collect();
        let token = self.folder.path().join("token");
        fs::write(&token, format!("plat1.0123456789abcdef.goodsecret.{pin}\n")).unwrap();
        let mut command = self.command();
        command.args(["enroll", "--name", "n1", "--master", &master.to_string(), "--token-file"]).arg(token);
        let enrolled = command.stderr(Stdio::inherit()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&enrolled.stdout), "enrolled as n1\n");
    }

    /// Memory that the agent has written to, in KiB: what is left when the code's pages are not counted, which in a
    /// build for tests are many.
    fn memory(&self) -> u64 {
        let pid = self.agent.as_ref().map_or(0, Child::id);
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(pid) = self.service_pid().filter(|pid| is_alive(*pid)) {
            let _gone = Command::new("kill").arg(pid.to_string()).status();
        }
        if let Some(mut agent) = self.agent.take() {
            let _gone = agent.kill();
            let _gone = agent.wait();
        }
    }
}

pub fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

pub fn formatted(folder: &Path) {
    for name in ["releases", "partitions", "partitions/part0", "source"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
    fs::set_permissions(folder.join("partitions/part0"), fs::Permissions::from_mode(0o750)).unwrap();
    let file = NodeFile {
        partitions: vec![NodePartition {
            addresses: vec!["127.0.0.1".parse().unwrap()],
            ..NodePartition::bare(part())
        }],
        ..NodeFile::bare(folder)
    };
    fs::write(folder.join("node.json"), file.to_json()).unwrap();
    let script = "#!/bin/sh\necho started with $(cat etc/name)\ntouch var-ran\nexec sleep 1000\n";
    fs::write(folder.join("source/serve"), script).unwrap();
    fs::set_permissions(folder.join("source/serve"), fs::Permissions::from_mode(0o755)).unwrap();
    let text = format!(
        "version = 1\ndata = \"{0}/data\"\nnode_file = \"{0}/node.json\"\nwindow_seconds = 1\n",
        folder.display()
    );
    fs::write(folder.join("agent.toml"), text).unwrap();
}

pub fn wanted(folder: &Path, wish: Wish) -> (InstanceDesired, String) {
    let text = format!(
        r#"
version: 1
name: sleeper
sources:
  scripts:
    directory: {{path: {}/source}}
files:
  etc/name: {{template: "{{{{ instance.name }}}}"}}
services:
  serve:
    command: ["{{{{ release.directory }}}}/serve"]
    stop_timeout_seconds: 2
promises:
  ran:
    exec: ["/usr/bin/test", "-e", "{{{{ partition.directory }}}}/var-ran"]
publish:
  where: "{{{{ partition.address }}}}"
"#,
        folder.display()
    );
    let release = Release::parse_yaml(&text, "sleeper.yaml").unwrap_or_else(|problems| panic!("{problems}"));
    let desired = InstanceDesired { release: release.digest(), ..instance(1, wish) };
    (desired, release.to_canonical_json())
}

/// A master, and a node that has joined it and whose agent does not run.
pub async fn enrolled() -> (Arc<Master>, Server, Node) {
    let master = Master::new();
    let server = master.serve(0).await;
    let folder = tempfile::tempdir().unwrap();
    formatted(folder.path());
    let node = Node::new(folder, master.clone());
    node.enroll(&server.address);
    (master, server, node)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_outlives_the_killed_agent_and_is_adopted_by_the_next() {
    let (master, _server, mut node) = enrolled().await;

    node.start();
    let (desired, document) = wanted(node.folder.path(), Wish::Started);
    master.want_instance(desired, &document);
    node.until_state(InstanceState::Ready).await;
    let pid = node.service_pid().unwrap();
    assert!(node.memory() < 12 * 1024, "the agent holds {} KiB", node.memory());

    node.kill();
    assert!(is_alive(pid), "the service died with the agent");
    node.start();
    let before = master.state().syncs;
    until("the new agent has reported", || {
        let syncs = master.state().syncs;
        (syncs > before, syncs)
    })
    .await;
    node.until_state(InstanceState::Ready).await;
    assert_eq!(node.service_pid(), Some(pid), "the service was started again");
    until("wall time is metered", || {
        let booked = master.state().booked(Meter::WallMillis);
        (booked > 1000, booked)
    })
    .await;

    let (desired, document) = wanted(node.folder.path(), Wish::Destroyed);
    master.want_instance(desired, &document);
    node.until_state(InstanceState::Destroyed).await;
    assert!(!is_alive(pid));
    let left = files(&node.folder.path().join("partitions/part0"));
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_machine_that_is_not_enrolled_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let ended = Command::new(env!("CARGO_BIN_EXE_plat-agent"))
        .args(["run", "--data"])
        .arg(folder.path().join("plat/agent"))
        .output()
        .unwrap();
    assert!(!ended.status.success());
    assert!(String::from_utf8_lossy(&ended.stderr).contains("not enrolled"), "{ended:?}");
    assert!(fs::read_dir(folder.path()).unwrap().next().is_none());
}

#[test]
fn a_release_that_is_pulled_by_a_part_of_its_digest_is_told_where_the_whole_one_is() {
    let ended =
        Command::new(env!("CARGO_BIN_EXE_plat-agent")).args(["cache", "pull", "0123456789ab"]).output().unwrap();
    assert!(!ended.status.success());
    assert!(String::from_utf8_lossy(&ended.stderr).contains("`plat release show RELEASE` tells it"), "{ended:?}");
}

/// Everything beneath a folder that is not a folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
