//! SIGKILL before each effect of a run, one after another until none is left: the next run goes on or goes back, and the
//! machine is what it would have been.

use super::effects::{Ended, killed_at};
use super::machine::{FIRST_UID, Machine, ip, on_a_machine};
use node_format_plan::HostFacts;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Two partitions with all that goes with a bridge, a resource file each, and the guard.
const TAPS: &str = "mode = \"bridge\"\ntuns = true\ntun_ipv4_network = \"10.201.0.0/16\"\nguard = true\n";
const BARE: &str = "mode = \"bridge\"\ntaps = false\nguard = false\n";
const NAMESPACES: &str = "mode = \"bridge\"\nnamespaces = true\nguard = false\n";

/// One whose user database has lines that a program would lose, so that accounts are added to it by node-format itself.
const ODD: &str = "# people\nroot:x:0:0:root:/root:/bin/sh\n";
const PLAIN: &str = "root:x:0:0:root:/root:/bin/sh\n";

/// A machine, and what is made of it.
#[derive(Clone, Copy)]
struct Node {
    amount: u32,
    network: &'static str,
    passwd: &'static str,
}

impl Node {
    const fn new(amount: u32, network: &'static str) -> Self {
        Self { amount, network, passwd: PLAIN }
    }
}

/// How many work at once. Most of the time goes by waiting for the kernel.
const MACHINES: usize = 3;

type Verbs = &'static [&'static str];

/// The machine with its files, and the user database as it is written.
type Everything = (HostFacts, Vec<String>, Vec<String>);

const DATABASE: [&str; 4] = ["passwd", "group", "shadow", "gshadow"];

fn everything(machine: &Machine) -> Everything {
    // The folder for namespaces is the system's; what is in it is not.
    machine.remove_netns();
    let (facts, mut paths) = machine.everything();
    // Of the folder that the programs for users work in, what is ours.
    let etc = fs::read_dir(machine.path("etc")).unwrap();
    let names = etc.map(|entry| entry.unwrap().path().display().to_string());
    paths.extend(names.filter(|name| name.contains("node-format")));
    let database = DATABASE.map(|name| fs::read_to_string(machine.path("etc").join(name)).unwrap());
    (facts, paths, database.to_vec())
}

fn on_a_machine_with(Node { amount, network, passwd }: Node, machine: &Machine) -> Everything {
    let texts = [passwd, "root:x:0:\nkvm:x:36:\n", "root:*:1::::::\n", "root:*::\nkvm:!::\n"];
    for (name, text) in DATABASE.iter().zip(texts) {
        fs::write(machine.path("etc").join(name), text).unwrap();
    }
    machine.configure_with(amount, network, "");
    let text = fs::read_to_string(machine.path("format.toml")).unwrap();
    let text = text.replace("[builder]", "groups = [\"kvm\"]\n[builder]");
    let text = text.replace("[builder]", "directories = { srv = \"0750\", run = \"0700\" }\n[builder]");
    fs::write(machine.path("format.toml"), text).unwrap();
    ip("link set lo up");
    everything(machine)
}

/// Kills the verb before its first effect, then before its second, and so on until it ends by itself, on several machines
/// at once. `begin` comes before each, `then` after each and is told where it was killed.
fn at_each_effect(node: Node, verb: &'static str, begin: Verbs, then: Verbs) {
    let next = Arc::new(AtomicUsize::new(1));
    let workers: Vec<_> = (0..MACHINES)
        .map(|_| {
            let next = Arc::clone(&next);
            std::thread::spawn(move || {
                on_a_machine(move |machine| {
                    let before = on_a_machine_with(node, machine);
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        begin.iter().for_each(|verb| must(machine, verb, "at first"));
                        let call = match killed_at(at, &machine.command(&words(verb))) {
                            Ended::Killed(call) => call,
                            Ended::Whole(code) => {
                                assert_eq!(code, 0, "{verb} that was not killed");
                                break must(machine, "reset", "at last");
                            }
                        };
                        let place = format!("{verb} killed before its effect {at}, {call}");
                        take_away_an_empty_folder(machine);
                        for verb in then {
                            must(machine, verb, &place);
                            if *verb == "apply" {
                                assert_whole(node.amount, machine, &place);
                            }
                        }
                        let (facts, paths, database) = everything(machine);
                        let end = format!("{place}; then {}", then.join(", "));
                        assert_eq!(paths, before.1, "{end}");
                        assert_eq!(database, before.2, "{end}");
                        assert_eq!(facts, before.0, "{end}");
                    }
                });
            })
        })
        .collect();
    for worker in workers {
        if let Err(panic) = worker.join() {
            std::panic::resume_unwind(panic);
        }
    }
    let skipped = !rustix::process::geteuid().is_root();
    assert!(skipped || next.load(Ordering::Relaxed) > 50, "so few effects cannot be all");
}

/// Nobody looks into a partition again: what is not made in it when it is made never is.
fn assert_whole(amount: u32, machine: &Machine, place: &str) {
    for n in 0..amount {
        let home = machine.path("srv/plat/partitions").join(format!("part{n}"));
        for path in ["srv", "run", ""].map(|name| home.join(name)) {
            let is_his = fs::metadata(&path).is_ok_and(|found| found.uid() == FIRST_UID + n);
            assert!(is_his, "{place}: {}", path.display());
        }
    }
}

/// A verb with its flags.
fn words(verb: &str) -> Vec<&str> {
    verb.split(' ').collect()
}

fn must(machine: &Machine, verb: &str, place: &str) {
    let (code, text) = machine.run(&words(verb));
    assert_eq!(code, 0, "{place}; then {verb}: {text}");
}

/// A run that is killed before its record has begun to be written, or when it is gone, leaves the record's own folders, which
/// are empty but for a lock: nothing says whose they are. All else must be in the record, or in what is to become it.
fn take_away_an_empty_folder(machine: &Machine) {
    let record = machine.path("var/lib/plat/format/record");
    let begun = record.with_file_name(".node-format-record.new");
    if record.exists() || fs::metadata(&begun).is_ok_and(|found| found.len() > 0) {
        return;
    }
    let _ = fs::remove_file(&begun);
    let _ = fs::remove_file(record.with_file_name(".node-format-record.children"));
    let _ = fs::remove_dir(machine.path("var/lib/plat/format"));
    let _ = fs::remove_dir(machine.path("var/lib/plat"));
}

#[test]
fn whenever_an_apply_is_killed_the_next_one_goes_on() {
    at_each_effect(Node::new(2, TAPS), "apply", &[], &["apply", "verify", "reset"]);
}

#[test]
fn whenever_an_apply_is_killed_a_reset_goes_back() {
    at_each_effect(Node::new(2, TAPS), "apply", &[], &["reset"]);
}

#[test]
fn whenever_a_reset_is_killed_the_next_one_completes_it() {
    at_each_effect(Node::new(2, TAPS), "reset", &["apply"], &["reset"]);
}

#[test]
fn whenever_an_erasing_is_killed_an_apply_makes_every_partition_whole() {
    at_each_effect(Node::new(1, BARE), "reset --erase", &["apply"], &["apply", "verify", "reset"]);
}

#[test]
fn whenever_an_apply_with_namespaces_is_killed_the_next_one_goes_on() {
    at_each_effect(Node::new(1, NAMESPACES), "apply", &[], &["apply", "verify", "reset"]);
}

#[test]
fn whenever_an_apply_with_namespaces_is_killed_a_reset_goes_back() {
    at_each_effect(Node::new(1, NAMESPACES), "apply", &[], &["reset"]);
}

#[test]
fn whenever_a_reset_with_namespaces_is_killed_an_apply_makes_the_node_again() {
    at_each_effect(Node::new(1, NAMESPACES), "reset", &["apply"], &["apply", "verify", "reset"]);
}

#[test]
fn whenever_an_apply_that_adds_accounts_itself_is_killed_a_reset_goes_back() {
    let node = Node { passwd: ODD, ..Node::new(1, TAPS) };
    at_each_effect(node, "apply", &[], &["reset"]);
}
