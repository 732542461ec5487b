//! `apply --master URL --token-file FILE`: format, then let the agent's own program enrol. Needs no root: a node in a
//! folder, and a script that stands for the agent.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One test at a time: a program that one writes cannot be run while a child that another has just forked still holds
/// the open file (ETXTBSY).
static ALONE: Mutex<()> = Mutex::new(());

struct Place(tempfile::TempDir, #[expect(dead_code, reason = "held, not read")] MutexGuard<'static, ()>);

impl Place {
    /// A configuration without privileges, and a token.
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap(), ALONE.lock().unwrap_or_else(PoisonError::into_inner));
        let at = place.path("node").display().to_string();
        let text = format!(
            "version = 1\n[paths]\nreleases = \"{at}/releases\"\nroot = \"{at}/partitions\"\n\
             node_file = \"{at}/node.json\"\nrecord = \"{at}/format/record\"\n\
             [partitions]\namount = 1\nusers = false\n[network]\nmode = \"loopback\"\nipv4_network = \"127.9.0.0/16\"\n"
        );
        fs::create_dir(place.path("node")).unwrap();
        fs::create_dir(place.path("bin")).unwrap();
        fs::write(place.path("format.toml"), text).unwrap();
        fs::write(place.path("token"), "secret").unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(name)
    }

    /// An agent that would enrol this node; it notes its arguments, what it is given, and whether the node was formatted
    /// by then.
    fn agent(&self, end: &str) {
        let at = self.path("").display().to_string();
        let enrols = format!(
            "echo \"$@\" > {at}/said; read -r token; printf %s \"$token\" >> {at}/said\n[ -e {at}/node/node.json ] || exit 99\n{end}"
        );
        self.agent_that("exit 0", &enrols);
    }

    /// An agent that says so before, and does that then.
    fn agent_that(&self, checks: &str, enrols: &str) {
        let text = format!("#!/bin/sh\ncase \"$*\" in *--check*) {checks};; esac\n{enrols}\n");
        fs::write(self.path("bin/plat-agent"), text).unwrap();
        fs::set_permissions(self.path("bin/plat-agent"), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn apply(&self, more: &[&str]) -> (i32, String) {
        // Away from the built programs, where another part's agent may lie beside it.
        let program = self.path("node-format");
        if !program.exists() {
            fs::copy(env!("CARGO_BIN_EXE_node-format"), &program).unwrap();
        }
        let mut command = Command::new(program);
        command.arg("--config").arg(self.path("format.toml")).arg("apply").args(more);
        let Output { status, stderr, .. } = command.env("PATH", self.path("bin")).output().unwrap();
        (status.code().unwrap(), String::from_utf8(stderr).unwrap())
    }

    fn enrol(&self) -> (i32, String) {
        let token = self.path("token").display().to_string();
        self.apply(&["--master", "https://grid.example:4443", "--token-file", &token])
    }
}

#[test]
fn a_good_apply_ends_with_the_agents_enrolment() {
    let place = Place::new();
    place.agent("echo enrolled");
    assert_eq!(place.enrol(), (0, String::new()));
    let said = fs::read_to_string(place.path("said")).unwrap();
    assert_eq!(said, "enroll --master https://grid.example:4443 --token-file -\nsecret");
}

#[test]
fn a_machine_that_is_enrolled_already_is_only_formatted() {
    let place = Place::new();
    place.agent_that("exit 3", "echo \"$@\" > $0.said");
    let (code, said) = place.enrol();
    assert_eq!((code, said.as_str()), (0, "this machine is enrolled in that grid already\n"));
    assert!(place.path("node/node.json").exists() && !place.path("bin/plat-agent.said").exists());
}

#[test]
fn a_token_that_the_agent_would_not_show_keeps_the_machine_from_being_formatted() {
    let place = Place::new();
    place.agent_that("echo the token cannot be used >&2; exit 1", "exit 0");
    let (code, why) = place.enrol();
    assert_eq!(code, 4, "{why}");
    assert!(why.contains("the token cannot be used") && why.contains("nothing was formatted"), "{why}");
    assert!(!place.path("node/node.json").exists());
}

#[test]
fn a_failed_enrolment_leaves_the_machine_formatted_and_can_be_tried_again() {
    let place = Place::new();
    place.agent("echo the token was used >&2; exit 1");
    let (code, why) = place.enrol();
    assert_eq!(code, 6, "{why}");
    assert!(why.contains("the token was used") && why.contains("P0510"), "{why}");
    assert!(place.path("node/node.json").exists());
    place.agent("exit 0");
    assert_eq!(place.enrol().0, 0);
}

#[test]
fn what_enrolment_needs_is_looked_for_before_anything_is_formatted() {
    let place = Place::new();
    let (code, why) = place.enrol();
    assert_eq!(code, 4, "{why}");
    assert!(why.contains("plat-agent cannot be found"), "{why}");
    place.agent("exit 0");
    fs::remove_file(place.path("token")).unwrap();
    let (code, why) = place.enrol();
    assert_eq!(code, 4, "{why}");
    assert!(why.contains("the token file"), "{why}");
    assert_eq!(place.apply(&["--master", "https://grid.example:4443"]).0, 2);
    assert!(!place.path("node/node.json").exists() && !place.path("said").exists());
}
