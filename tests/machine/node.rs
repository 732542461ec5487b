//! From a bare machine to a node, over a reboot, and back.

use plat_tests::daemon::send;
use plat_tests::eventually::eventually;
use plat_tests::grid::{Grid, PATIENCE, URL};
use plat_tests::machine::{Machine, machine_or_skip};
use plat_tests::namespace::only_child;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

/// A service that says since when it runs.
const BOOT: &str = "
version: 1
name: boot
sources:
  files: {directory: {path: /usr/local/share/boot}}
services:
  boot: {command: [/bin/sh, \"{{ release.directory }}/boot.sh\"]}
promises:
  speaks: {exec: [/usr/bin/test, -s, \"{{ partition.directory }}/srv/boot\"]}
resources: {memory_mib: 16}
";

/// Works hard once, and says how long it took.
const BOOT_SH: &str = "echo booted
[ -e srv/worked ] || { i=0; while [ $i -lt 2000000 ]; do i=$((i + 1)); done; times > srv/worked; }
date +%s.%N > srv/boot
exec sleep inf
";

/// A machine that has booted, with what packaging/README.md says a node has.
pub fn bare_machine(grid: &Grid, name: &str, address: &str) -> Machine {
    let mut machine = Machine::new(&grid.hub, name, address, &grid.logs());
    machine.boot();
    machine.install_packaged("/usr/sbin", ["plat-agent", "node-format"], "plat-agent.service");
    machine
}

/// Writes the example of a configuration with another number of partitions.
fn configure(machine: &Machine, partitions: u32) {
    let example = machine.sh("node-format example");
    let (before, after) = example.split_once("amount         = 10 ").expect("the example has ten partitions");
    machine.write("/etc/plat/format.toml", &format!("{before}amount = {partitions} {after}"), 0o644);
}

/// All that node-format could have changed: accounts, links with their addresses and routes, rules, settings, folders. What
/// comes and goes by itself is left out: carriers, the kernel's own link-local addresses and multicast routes, systemd's
/// folders of a boot. The agent's folders are the agent's.
fn state(machine: &Machine) -> Vec<String> {
    let said = machine.sh("cd /etc && for file in passwd group shadow gshadow; do sed \"s/^/$file /\" $file; done
         ip -brief link | awk '{ print \"link\", $1, $3 }' | sed 's/@[^ ]*//'
         ip -brief address | awk '{ $2 = \"\"; print \"address\", $0 }' | sed 's/@[^ ]*//; s/ fe80::[^ ]*//'
         for family in -4 -6; do ip $family route show table all | sed '/fe80::/d; /ff00::/d; s/ linkdown//; s/^/route /'; done
         nft list ruleset | sed 's/^/rule /'
         sysctl --all --pattern '^net[.]ipv[46][.](ip_|conf[.](all|default|lo|host0)[.])' | sed 's/^/set /'
         find / -xdev '(' -path /var/lib/plat/agent -o -path /var/lib/plat-tmp -o -name 'systemd-private-*' ')' -prune -o -type d -print");
    let mut lines: Vec<_> = said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    lines.sort();
    lines
}

#[track_caller]
fn assert_unchanged(before: &[String], after: &[String]) {
    let only = |some: &[String], other: &[String]| -> Vec<String> {
        some.iter().filter(|line| !other.contains(line)).cloned().collect()
    };
    assert_eq!((only(before, after), only(after, before)), (vec![], vec![]), "(what is lost, what is left)");
}

/// Makes a bare machine a node, as docs/operations/format.md says, and waits until it is one.
pub fn join(grid: &Grid, machine: &Machine, name: &str, partitions: u32) {
    machine.sh(&format!("node-format init --partitions {partitions}"));
    let token = grid.token(&format!("{name}.token"), &["--node", name]);
    let place = format!("/root/{name}.token");
    machine.install(token.as_ref(), &place, 0o600);
    machine.sh(&format!("node-format apply --master {URL} --token-file {place}"));
    machine.sh("systemctl enable --now plat-agent");
    until_node_is(grid, name, "online");
    assert_eq!(grid.plat.json(&["node", "show", name])["runtime"], "systemd");
}

pub fn until_node_is(grid: &Grid, name: &str, wished: &str) {
    eventually(&format!("{name} {wished}"), PATIENCE, || {
        let seen = grid.plat.json(&["node", "show", name]);
        if seen["state"] == wished { Ok(()) } else { Err(seen.to_string()) }
    });
}

/// What an instance was booked for, by meter.
fn booked(grid: &Grid, name: &str) -> BTreeMap<String, u64> {
    let sums = grid.plat.json(&["usage", name]);
    let sum = |sum: &Value| Some((sum["meter"].as_str()?.to_owned(), sum["amount"].as_u64()?));
    sums.as_array().into_iter().flatten().filter_map(sum).collect()
}

/// What a shell's `times` says of itself, in microseconds.
fn worked(times: &str) -> u64 {
    let micros = |time: &str| {
        let (minutes, seconds) = time.trim_end_matches('s').split_once('m').expect("minutes and seconds");
        let seconds: f64 = seconds.parse().expect("seconds");
        Duration::from_secs_f64(60.0 * minutes.parse::<f64>().expect("minutes") + seconds).as_micros()
    };
    let own = times.lines().next().unwrap_or_default();
    own.split_whitespace().map(|time| u64::try_from(micros(time)).expect("no such long time")).sum()
}

#[test]
fn a_bare_machine_becomes_a_node_is_one_again_after_a_reboot_and_goes_back() {
    if !machine_or_skip("the life of a machine") {
        return;
    }
    let grid = Grid::new("machine");
    let mut machine = bare_machine(&grid, "edge-7", "fd00:5::11/64");
    machine.write("/usr/local/share/boot/boot.sh", BOOT_SH, 0o644);
    machine.write("/etc/plat/agent.toml", "version = 1\nwindow_seconds = 1\n", 0o644);
    let before = state(&machine);

    // It becomes a node, as docs/operations/format.md says.
    machine.sh("node-format init --partitions 3 && sed -i '/^processes/a slices = true' /etc/plat/format.toml");
    assert!(machine.sh("node-format plan").contains("+ tap part2 "));
    let token = grid.token("edge-7.token", &["--node", "edge-7"]);
    machine.install(token.as_ref(), "/root/edge-7.token", 0o600);
    machine.sh("systemctl start plat-agent");
    assert_eq!(machine.run("systemctl is-active plat-agent").1, "inactive\n", "it is not enrolled");
    machine.sh(&format!("node-format apply --master {URL} --token-file /root/edge-7.token"));
    machine.sh("systemctl enable --now plat-agent");
    until_node_is(&grid, "edge-7", "online");
    // Once more is not once too often, although the token is used up.
    let again = machine
        .sh(&format!("node-format apply --master {URL} --token-file /root/edge-7.token 2>&1; rm /root/edge-7.token"));
    assert!(again.contains("enrolled in that grid already") && again.contains("nothing to do"), "{again}");
    let node = grid.plat.json(&["node", "show", "edge-7"]);
    assert_eq!(node["partitions"].as_array().map(Vec::len), Some(3), "{node}");

    // systemd knows the partitions' limits, and holds what is started in their slices to them.
    let limit = |unit: &str| machine.sh(&format!("systemctl show --property TasksMax --value {unit}"));
    assert_eq!(limit("plat-part2.slice"), "4096\n");
    let inside = "systemd-run --quiet --wait --pipe --slice=plat-part2.slice --uid=part2 cat /proc/self/cgroup";
    assert!(machine.sh(inside).contains("/plat.slice/plat-part2.slice/"), "{}", machine.sh(inside));

    // It runs an instance.
    grid.release("boot", BOOT);
    let ready = grid.plat.json(&["request", "one", "--release", "boot", "--wait", "--timeout", "60"]);
    let partition = ready["partition"].as_str().expect("it is placed").to_owned();
    let said = format!("/srv/plat/partitions/{partition}/srv/boot");
    let first = machine.sh("cat /proc/sys/kernel/random/boot_id");
    let since = machine.sh(&format!("cat {said}"));
    // systemd keeps it, without any process of the agent's, and goes on when the agent is killed.
    assert_eq!(grid.plat.json(&["node", "show", "edge-7"])["runtime"], "systemd");
    let unit = format!("plat-{partition}-boot.service");
    let of_unit = |property: &str| machine.sh(&format!("systemctl show --value --property {property} {unit}"));
    let main = of_unit("MainPID");
    assert_eq!(of_unit("Slice"), format!("plat-{partition}.slice\n"));
    assert_eq!((of_unit("NoNewPrivileges"), of_unit("ProtectSystem")), ("yes\n".into(), "strict\n".into()));
    assert_eq!(machine.sh(&format!("ps -o user= -p {main}")).trim(), partition);
    let agent = || machine.sh("systemctl show --value --property MainPID plat-agent");
    // And when systemd itself was replaced, as by an upgrade, and knows nobody any more who wants to be told something.
    for replaced in ["systemctl kill -s KILL plat-agent", "systemctl daemon-reexec"] {
        let before = agent();
        machine.sh(replaced);
        eventually("another agent", PATIENCE, || match agent() {
            pid if pid != before && pid != "0\n" => Ok(()),
            pid => Err(pid),
        });
        until_node_is(&grid, "edge-7", "online");
        grid.until("one", "ready", PATIENCE);
        assert_eq!(of_unit("MainPID"), main, "it was started again after `{replaced}`");
    }
    // What systemd needs to start it again by itself is mounted while no agent runs.
    let mounted = || machine.sh("grep -c ' /var/lib/plat-tmp/plat/part' /proc/self/mountinfo || true");
    eventually("nothing is mounted", PATIENCE, || if mounted() == "0\n" { Ok(()) } else { Err(mounted()) });
    machine.sh("systemctl stop plat-agent");
    assert_eq!((mounted(), of_unit("MainPID")), ("1\n".into(), main.clone()));
    machine.sh("systemctl start plat-agent");
    until_node_is(&grid, "edge-7", "online");
    eventually("nothing is mounted", PATIENCE, || if mounted() == "0\n" { Ok(()) } else { Err(mounted()) });
    eventually("its log", PATIENCE, || match grid.plat.run(&["logs", "one"]) {
        said if said.out.contains("booted") => Ok(()),
        said => Err(format!("{said:?}")),
    });
    let formatted = state(&machine);
    let work = worked(&machine.sh(&format!("cat /srv/plat/partitions/{partition}/srv/worked")));
    assert!(work > 100_000, "it worked for {work} µs");
    let cpu = |booked: &BTreeMap<String, u64>| booked.get("cpu-micros").copied().unwrap_or(0);
    let used = eventually("its work is booked", PATIENCE, || match booked(&grid, "one") {
        used if cpu(&used) >= work => Ok(used),
        used => Err(format!("{used:?} of {work}")),
    });
    assert!(cpu(&used) < 2 * work, "it is booked once: {used:?} for {work}");

    // It is switched off and on, and nobody does anything.
    machine.power_off();
    until_node_is(&grid, "edge-7", "silent");
    machine.boot();
    let second = machine.sh("cat /proc/sys/kernel/random/boot_id");
    assert_ne!(second, first);
    until_node_is(&grid, "edge-7", "online");
    assert_eq!(machine.sh("node-format verify"), "the machine is as it was formatted\n");
    assert_unchanged(&formatted, &state(&machine));
    eventually("running again", PATIENCE, || match machine.sh(&format!("cat {said}")) {
        again if again != since && again.ends_with('\n') => Ok(()),
        again => Err(again),
    });
    grid.until("one", "ready", PATIENCE);
    // The kernel counts anew, the ledger does not: nothing is lost, nor booked again.
    let after = eventually("booked again", PATIENCE, || match booked(&grid, "one") {
        after if after.get("wall-millis") > used.get("wall-millis").map(|wall| wall + 3000).as_ref() => Ok(after),
        after => Err(format!("{after:?} after {used:?}")),
    });
    assert!(used.iter().all(|(meter, amount)| after[meter] >= *amount), "{after:?} after {used:?}");
    assert!(cpu(&after) - cpu(&used) < work / 2, "{after:?} after {used:?}");
    let journal = machine.sh("journalctl --boot --unit plat-agent --output cat --no-pager");
    let line = |text: &str| journal.lines().position(|line| line.contains(text));
    let (links, runs) = (line("+ tap: 3"), line("agent runs"));
    assert!(links.is_some() && links < runs, "links are there before the agent runs:\n{journal}");

    // It goes back.
    grid.plat.run(&["destroy", "--yes", "one"]);
    grid.until_gone("one", PATIENCE);
    grid.plat.json(&["node", "revoke", "--yes", "edge-7"]);
    machine.sh("systemctl disable --now plat-agent && rm -rf /srv/plat/releases");
    machine.sh("node-format reset && rm -rf /var/lib/plat/agent /etc/plat/format.toml");
    assert_unchanged(&before, &state(&machine));
}

#[test]
fn a_machine_that_lost_its_power_while_it_was_formatted_is_formatted_after_it_booted() {
    if !machine_or_skip("the loss of power") {
        return;
    }
    let grid = Grid::new("power");
    let mut machine = bare_machine(&grid, "edge-8", "fd00:5::12/64");
    let before = state(&machine);
    configure(&machine, 30);
    let start = Instant::now();
    machine.sh("node-format apply");
    let whole = start.elapsed();
    machine.sh("node-format reset");
    let seed = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |now| u64::from(now.subsec_nanos()));
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..4 {
        let moment = whole.mul_f64(random.random::<f64>());
        eprintln!("killed after {moment:?} of {whole:?}");
        kill_after(&machine, moment);
        machine.cut_power();
        machine.boot();
        machine.sh("node-format apply");
        assert_eq!(machine.sh("node-format verify"), "the machine is as it was formatted\n");
        machine.sh("node-format reset");
        assert_unchanged(&before, &state(&machine));
    }
}

/// Begins to format, and kills node-format at that moment of its life.
fn kill_after(machine: &Machine, moment: Duration) {
    let start = Instant::now();
    let mut child = machine.command("node-format").arg("apply").spawn().expect("nsenter can be run");
    while start.elapsed() < moment {
        std::thread::yield_now();
    }
    only_child(child.id()).into_iter().for_each(|pid| send(Signal::KILL, pid));
    let _ = child.wait();
}
