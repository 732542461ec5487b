//! `apply --take-uplink --master URL --token-file FILE`: an enrolment that succeeds has reached the master over the new
//! network, so it confirms the uplink. Without users, so that the root can be the machine's own.

use super::machine::{Machine, on_a_machine, until};
use super::uplink::{World, where_is};
use std::fs;
use std::process::{Command, Output};

/// A machine with an uplink, and an agent beside a node-format of its own.
struct Place<'a> {
    machine: &'a Machine,
    world: World,
}

impl<'a> Place<'a> {
    fn new(machine: &'a Machine) -> Self {
        let world = World::with_ipv4();
        let at = machine.path("node").display().to_string();
        let text = format!(
            "version = 1\n[paths]\nreleases = \"{at}/releases\"\nroot = \"{at}/partitions\"\nresources = \"{at}/resources\"\n\
             node_file = \"{at}/node.json\"\nrecord = \"{at}/format/record\"\n[partitions]\namount = 1\nusers = false\n\
             [network]\nmode = \"bridge\"\nuplink = \"up0\"\ntaps = false\nguard = false\nipv4_network = \"10.200.0.0/16\"\n"
        );
        fs::create_dir(machine.path("node")).unwrap();
        fs::create_dir(machine.path("bin")).unwrap();
        fs::write(machine.path("format.toml"), text).unwrap();
        fs::write(machine.path("token"), "secret").unwrap();
        let place = Self { machine, world };
        place.install(env!("CARGO_BIN_EXE_node-format"), "node-format");
        place
    }

    /// By a process of its own: a program that this one had open for writing might still be so in another's child.
    fn install(&self, from: &str, name: &str) {
        let to = self.machine.path("bin").join(name);
        let status = Command::new("install").args(["-m", "755", from]).arg(to).status().unwrap();
        assert!(status.success(), "install {from}");
    }

    /// An agent that would enrol this node, and notes where the machine's address is when it is asked to.
    fn agent(&self, end: &str) {
        let script = self.machine.path("script");
        let said = self.machine.path("said").display().to_string();
        let noted = format!("ip -o -4 address show to 192.0.2.7 > {said}");
        let text = format!("#!/bin/sh\ncase \"$*\" in *--check*) exit 0;; esac\n{noted}\n{end}\n");
        fs::write(&script, text).unwrap();
        self.install(&script.display().to_string(), "plat-agent");
    }

    fn run(&self, verb: &[&str]) -> (i32, String) {
        let mut command = Command::new(self.machine.path("bin/node-format"));
        command.arg("--config").arg(self.machine.path("format.toml")).args(verb);
        let Output { status, stdout, stderr } = command.output().unwrap();
        (status.code().unwrap(), String::from_utf8([stdout, stderr].concat()).unwrap())
    }

    fn enrol(&self, seconds: &str) -> (i32, String) {
        let token = self.machine.path("token").display().to_string();
        let master = ["--master", "https://grid.example:4443", "--token-file", &token];
        self.run(&[&["apply", "--take-uplink", "--confirm-within", seconds], &master[..]].concat())
    }

    /// Whether nobody waits for a confirmation.
    fn is_settled(&self) -> bool {
        let root = self.machine.root.path().display().to_string();
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let mut lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
        !lines.any(|line| String::from_utf8_lossy(&line).contains(&root))
    }
}

#[test]
fn an_enrolment_over_the_new_network_confirms_the_uplink() {
    on_a_machine(|machine| {
        let place = Place::new(machine);
        place.agent("exit 0");
        let (code, text) = place.enrol("3600");
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("up0 stays on the bridge"), "{text}");
        let said = fs::read_to_string(machine.path("said")).unwrap();
        assert!(said.contains("plat0"), "the agent was run over the new network: {said}");
        until("nobody waits for a confirmation", || place.is_settled());
        assert_eq!(where_is(machine, "192.0.2.7/24"), ["plat0"]);
        assert!(place.world.reaches(&["192.0.2.7:0"]));
        assert_eq!(place.run(&["apply"]), (0, "nothing to do\n".into()));
        assert_eq!(place.run(&["confirm"]), (0, "up0 is confirmed already\n".into()));
        assert_eq!(place.run(&["reset"]).0, 0);
    });
}

#[test]
fn after_an_enrolment_that_failed_the_old_network_comes_back() {
    on_a_machine(|machine| {
        let place = Place::new(machine);
        place.agent("echo the master cannot be reached >&2; exit 1");
        let (code, text) = place.enrol("5");
        assert_eq!(code, 6, "{text}");
        assert!(text.contains("P0510"), "{text}");
        let said = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part} in {text}"));
        assert!(said("the old network comes back within 5 s unless") < said("the master cannot be reached"), "{text}");
        assert!(fs::read_to_string(machine.path("said")).unwrap().contains("plat0"));
        until("the old network is back", || where_is(machine, "192.0.2.7/24") == ["up0"]);
        until("nobody waits for a confirmation", || place.is_settled());
        assert!(place.world.reaches(&["192.0.2.7:0"]));
        // The rest of the node is there; the same command again takes the uplink again.
        assert!(machine.path("node/node.json").exists());
        place.agent("exit 0");
        let (code, text) = place.enrol("3600");
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("up0 stays on the bridge"), "{text}");
        until("nobody waits for a confirmation", || place.is_settled());
        assert_eq!(where_is(machine, "192.0.2.7/24"), ["plat0"]);
        assert_eq!(place.run(&["reset"]).0, 0);
    });
}

#[test]
fn nothing_is_taken_where_there_is_nobody_to_enrol() {
    on_a_machine(|machine| {
        let place = Place::new(machine);
        let (code, text) = place.enrol("1");
        assert_eq!(code, 4, "{text}");
        assert!(text.contains("plat-agent cannot be found"), "{text}");
        assert_eq!(where_is(machine, "192.0.2.7/24"), ["up0"]);
        assert!(place.is_settled() && !machine.network().links.contains_key("plat0"));
    });
}
