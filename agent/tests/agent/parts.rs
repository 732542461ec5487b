//! The two processes of the agent: what each may, and what becomes of the other when one is killed.

use crate::binary::{Node, formatted, is_alive, wanted};
use crate::master::Master;
use crate::rig::until;
use plat_model::instance::{InstanceState, Wish};
use rustix::thread::CapabilitySet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};

fn status(pid: u32, key: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim_start_matches(':').split_whitespace().next().unwrap().to_owned()
}

/// The child of an agent that talks to the network.
fn network_part(agent: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{agent}/task/{agent}/children")).ok()?;
    let mut all: Vec<u32> = children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
    // One that a thread of the agent started is that thread's.
    for thread in fs::read_dir(format!("/proc/{agent}/task")).ok()?.flatten() {
        let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    let is_it = |pid: &u32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.ends_with(b"\0network\0"));
    all.into_iter().find(is_it)
}

async fn until_part(node: &Node, not: Option<u32>) -> u32 {
    let agent = node.agent.as_ref().map_or(0, Child::id);
    let mut found = None;
    until("the part with the network runs", || {
        found = network_part(agent).filter(|pid| Some(*pid) != not);
        (found.is_some(), found)
    })
    .await;
    found.unwrap()
}

async fn until_synced(master: &Master, what: &str) {
    let before = master.state().syncs;
    until(what, || {
        let syncs = master.state().syncs;
        (syncs > before, syncs)
    })
    .await;
}

fn namespace(pid: u32) -> u64 {
    fs::metadata(format!("/proc/{pid}/ns/net")).unwrap().ino()
}

fn kill9(pid: u32) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

async fn until_gone(what: &str, pid: u32) {
    until(&format!("{what} is gone"), || (!is_alive(pid), pid)).await;
}

/// What root's part may, and nothing else of what root may.
const RIGHTS: [CapabilitySet; 14] = [
    CapabilitySet::CHOWN,
    CapabilitySet::DAC_OVERRIDE,
    CapabilitySet::FOWNER,
    CapabilitySet::FSETID,
    CapabilitySet::KILL,
    CapabilitySet::SETGID,
    CapabilitySet::SETUID,
    CapabilitySet::LINUX_IMMUTABLE,
    CapabilitySet::NET_BIND_SERVICE,
    CapabilitySet::NET_ADMIN,
    CapabilitySet::SYS_CHROOT,
    CapabilitySet::SYS_PTRACE,
    CapabilitySet::SYS_ADMIN,
    CapabilitySet::SYS_RESOURCE,
];

/// Of what whoever started it may himself.
fn rights_of_root(sets: &str) -> String {
    let own = u64::from_str_radix(&status(std::process::id(), sets), 16).unwrap();
    let rights = RIGHTS.iter().fold(CapabilitySet::empty(), |all, one| all | *one);
    format!("{:016x}", rights.bits() & own)
}

/// Whether this host lets somebody leave its network.
fn may_leave_the_network() -> bool {
    std::thread::spawn(|| nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_ok()).join().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_part_with_the_network_has_no_rights_and_neither_part_outlives_the_other() {
    let is_root = nix::unistd::geteuid().is_root();
    let master = Master::new();
    let server = master.serve(0).await;
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    formatted(folder.path());
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let text = fs::read_to_string(folder.path().join("agent.toml")).unwrap() + "user = \"nobody\"\n";
    fs::write(folder.path().join("agent.toml"), text).unwrap();
    let mut node = Node::new(folder, master.clone());
    let data = node.folder.path().join("data");
    node.enroll(&server.address);
    node.start();
    let (desired, document) = wanted(node.folder.path(), Wish::Started);
    master.want_instance(desired, &document);
    node.until_state(InstanceState::Ready).await;
    let service = node.service_pid().unwrap();

    // What it may.
    let (agent, part) = (node.agent.as_ref().unwrap().id(), until_part(&node, None).await);
    for sets in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status(part, sets), "0000000000000000", "{sets}");
    }
    assert_eq!(status(part, "NoNewPrivs"), "1");
    if is_root {
        for sets in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(status(agent, sets), rights_of_root(sets), "{sets} of root's part");
        }
        for sets in ["CapInh", "CapAmb"] {
            assert_eq!(status(agent, sets), "0000000000000000", "{sets} of root's part");
        }
    }
    // What it says goes through root's part, and a terminal is not its own.
    let errors = fs::read_link(format!("/proc/{part}/fd/2")).unwrap().display().to_string();
    let roots = fs::read_link(format!("/proc/{agent}/fd/2")).unwrap().display().to_string();
    assert!(errors.starts_with("pipe:") && errors != roots, "{errors}");
    assert_eq!(nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(part as i32))).unwrap().as_raw() as u32, part);
    let owner = |path: &Path| fs::symlink_metadata(path).unwrap().uid();
    let host = data.join("host");
    assert_eq!(fs::metadata(&host).unwrap().mode() & 0o7777, 0o700);
    if is_root {
        assert_eq!(status(part, "Uid"), nobody.uid.to_string());
        assert_eq!((owner(&data), owner(&host), owner(&host.join("occupants"))), (0, 0, 0));
        for own in ["enrolled", "identity.pem", "rejoin.pem", "desired", "outbox"] {
            assert_eq!(owner(&data.join(own)), nobody.uid.as_raw(), "{own}");
        }
        // As that user: what is root's is neither read nor moved away, what is its own is replaced.
        let may = |script: &str| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]).current_dir(&data).uid(nobody.uid.as_raw()).gid(nobody.gid.as_raw());
            command.output().unwrap().status.success()
        };
        assert!(may("cat identity.pem && cp desired d && mv d desired"));
        for script in ["cat host/occupants", "mv host other", "rmdir host", "ls host", "chmod 777 .", "kill -0 $PPID"] {
            assert!(!may(script), "{script}");
        }
    } else {
        assert_eq!(status(part, "Uid"), nix::unistd::geteuid().to_string());
    }

    // Where it is: root's part is where there is nothing, if the host lets root leave its network.
    assert_eq!(namespace(part), namespace(std::process::id()));
    assert_eq!(namespace(service), namespace(std::process::id()));
    let left = may_leave_the_network();
    assert!(left || !is_root || std::env::var_os("CI").is_none(), "in CI root may leave the network");
    assert_eq!(namespace(agent) != namespace(part), left);
    if left {
        let links = fs::read_to_string(format!("/proc/{agent}/net/dev")).unwrap();
        assert!(links.lines().skip(2).all(|line| line.trim_start().starts_with("lo:")), "{links}");
    }

    // Killed, it is started again; its other half goes on, and the service.
    kill9(part);
    let next = until_part(&node, Some(part)).await;
    until_synced(&master, "the new part has reported").await;
    assert!(is_alive(agent) && is_alive(service));

    // Without root's part it ends.
    node.kill();
    until_gone("the part with the network", next).await;
    assert!(is_alive(service), "the service died with the agent");
    node.start();
    let last = until_part(&node, None).await;
    until_synced(&master, "the new agent has reported").await;
    assert_eq!(node.service_pid(), Some(service));

    // Told to end, both do.
    let mut agent = node.agent.take().unwrap();
    assert!(Command::new("kill").arg(agent.id().to_string()).status().unwrap().success());
    assert!(agent.wait().unwrap().success());
    assert!(!is_alive(last) && is_alive(service));

    node.start();
    let (desired, document) = wanted(node.folder.path(), Wish::Destroyed);
    master.want_instance(desired, &document);
    node.until_state(InstanceState::Destroyed).await;
}
