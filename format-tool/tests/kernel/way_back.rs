//! The old network comes back whatever has become of the bridge, of the interface, or of a first attempt.

use super::effects::{Ended, acting_before, killed_at};
use super::machine::{Machine, ip, on_a_machine, program, until};
use super::uplink::{TAKE, World, waiting, watches, where_is};
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Output, Stdio};

/// A route that cannot be made while its source address is not there: with it, not all of what an interface had comes back.
const SOURCE: &str = "10.99.0.1/32";

fn with_a_route_that_can_be_kept_away() -> World {
    let world = World::new();
    ip("link set lo up");
    ip(&format!("address add {SOURCE} dev lo"));
    ip("route add 198.51.100.0/24 via 192.0.2.1 dev up0 src 10.99.0.1");
    world
}

fn is_back(machine: &Machine) -> bool {
    ["192.0.2.7/24", "2001:db8::7/64"].iter().all(|address| where_is(machine, address) == ["up0"])
}

#[test]
fn the_old_network_comes_back_without_the_bridge() {
    on_a_machine(|machine| {
        let world = World::new();
        machine.configure_with(1, TAKE, "");
        let before = machine.everything();
        for verb in ["rollback", "reset"] {
            machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
            ip("link delete plat0");
            assert!(where_is(machine, "192.0.2.7/24").is_empty());
            machine.must(&[verb]);
            assert!(is_back(machine) && world.is_reached(), "{verb}");
            machine.must(&["reset"]);
            assert_eq!(machine.everything(), before, "{verb}");
        }
    });
}

#[test]
fn the_old_network_comes_back_though_the_configuration_could_be_read_but_once() {
    on_a_machine(|machine| {
        let world = World::new();
        machine.configure_with(1, TAKE, "");
        let mut command = Command::new(env!("CARGO_BIN_EXE_node-format"));
        command.args(["--config", "/dev/stdin", "--root"]).arg(machine.path(""));
        command.args(["apply", "--take-uplink", "--confirm-within", "1"]).stdin(Stdio::piped());
        let mut taking = command.spawn().unwrap();
        taking.stdin.take().unwrap().write_all(&fs::read(machine.path("format.toml")).unwrap()).unwrap();
        assert!(taking.wait().unwrap().success());
        until("the old network is back", || is_back(machine));
        assert!(world.is_reached());
        until("nobody waits", || watches(machine) == 0);
        machine.must(&["reset"]);
    });
}

#[test]
fn an_interface_that_is_gone_keeps_nothing_else_from_going_back() {
    on_a_machine(|machine| {
        ip("link set lo up");
        let before = machine.everything();
        for verb in ["rollback", "reset"] {
            let world = World::new();
            machine.configure_with(1, TAKE, "");
            machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
            ip("link delete up0");
            machine.must(&[verb]);
            // The system's own network may come back at any moment.
            let left = machine.network();
            assert!(where_is(machine, "192.0.2.7/24").is_empty(), "{verb}: {:?}", left.addresses);
            assert!(left.routes.iter().all(|route| route.via.is_none()), "{verb}: {:?}", left.routes);
            machine.must(&["reset"]);
            fs::remove_file(machine.path("format.toml")).unwrap();
            assert_eq!(machine.everything(), before, "{verb}");
            drop(world);
        }
    });
}

#[test]
fn what_came_back_of_an_uplink_stays_though_the_rest_did_not() {
    on_a_machine(|machine| {
        let _world = with_a_route_that_can_be_kept_away();
        machine.configure_with(1, TAKE, "");
        let before = machine.everything();
        machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
        ip("link delete plat0");
        ip(&format!("address delete {SOURCE} dev lo"));
        for verb in ["rollback", "reset"] {
            let (code, why) = machine.run(&[verb]);
            assert!(code != 0 && why.contains("up0"), "{verb}: {why}");
            assert!(is_back(machine), "{verb}: {why}");
        }
        ip(&format!("address add {SOURCE} dev lo"));
        machine.must(&["rollback"]);
        machine.must(&["reset"]);
        assert_eq!(machine.everything(), before);
    });
}

#[test]
fn what_did_not_come_back_is_tried_again_and_told_to_the_log() {
    on_a_machine(|machine| {
        let world = with_a_route_that_can_be_kept_away();
        machine.configure_with(1, TAKE, "");
        fs::create_dir(machine.path("dev")).unwrap();
        let log = UnixDatagram::bind(machine.path("dev/log")).unwrap();
        let told = || {
            let mut line = [0; 4096];
            let length = log.recv(&mut line).unwrap();
            String::from_utf8_lossy(&line[..length]).into_owned()
        };
        machine.must(&["apply", "--take-uplink", "--confirm-within", "1"]);
        ip(&format!("address delete {SOURCE} dev lo"));
        let line = told();
        assert!(line.starts_with("<27>node-format: the old network cannot be given back"), "{line}");
        assert!(is_back(machine) && world.is_reached(), "the rest came back");
        ip(&format!("address add {SOURCE} dev lo"));
        let line = told();
        assert_eq!(line, "<27>node-format: the old network is back");
        let source = Some("10.99.0.1".parse().unwrap());
        until("everything is back", || {
            machine.network().routes.iter().any(|route| route.link == "up0" && route.source == source)
        });
        machine.must(&["reset"]);
    });
}

#[test]
fn whoever_could_not_give_one_uplink_back_leaves_the_next_one_alone() {
    on_a_machine(|machine| {
        let world = with_a_route_that_can_be_kept_away();
        machine.configure_with(1, TAKE, "");
        machine.must(&["apply", "--take-uplink", "--confirm-within", "1"]);
        ip(&format!("address delete {SOURCE} dev lo"));
        until("the rest came back", || is_back(machine));
        ip(&format!("address add {SOURCE} dev lo"));
        until("root gives all of it back", || machine.run(&["rollback"]).0 == 0);
        let first = waiting(machine);
        machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
        // Each time that it looks it sleeps again.
        let looks = |pid: &i32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            line.and_then(|number| number.trim().parse::<u64>().ok())
        };
        let before: Vec<_> = first.iter().map(looks).collect();
        let has_looked =
            |(pid, before): (&i32, &Option<u64>)| looks(pid).is_none_or(|now| Some(now) > before.map(|n| n + 15));
        until("the first watch has looked, or ended", || first.iter().zip(&before).all(has_looked));
        assert_eq!(where_is(machine, "192.0.2.7/24"), ["plat0"]);
        assert!(world.is_reached());
        machine.must(&["confirm"]);
        until("nobody waits any more", || watches(machine) == 0);
        machine.must(&["reset"]);
    });
}

#[test]
fn whoever_waited_for_an_earlier_run_gives_back_where_the_later_ones_watch_is_ended() {
    on_a_machine(|machine| {
        let world = World::new();
        machine.configure_with(1, TAKE, "");
        machine.must(&["apply", "--take-uplink", "--confirm-within", "2"]);
        let first = waiting(machine);
        machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
        assert_eq!(where_is(machine, "192.0.2.7/24"), ["plat0"]);
        for pid in waiting(machine).into_iter().filter(|pid| !first.contains(pid)) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
        }
        until("the old network is back", || is_back(machine));
        assert!(world.is_reached());
        until("nobody waits any more", || watches(machine) == 0);
        machine.must(&["reset"]);
    });
}

#[test]
fn the_old_network_comes_back_although_the_configuration_has_an_error() {
    on_a_machine(|machine| {
        let world = World::new();
        machine.configure_with(1, TAKE, "");
        machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
        let text = fs::read_to_string(machine.path("format.toml")).unwrap();
        fs::write(machine.path("format.toml"), "amount = ").unwrap();
        assert_eq!(machine.run(&["rollback"]).0, 2);
        let (code, why) = machine.run(&["rollback", "--record", "/var/lib/plat/format/another"]);
        assert_eq!(code, 4, "{why}");
        assert!(why.contains("there is no record"), "{why}");
        machine.must(&["rollback", "--record", "/var/lib/plat/format/record"]);
        assert!(is_back(machine) && world.is_reached());
        fs::write(machine.path("format.toml"), text).unwrap();
        machine.must(&["reset"]);
    });
}

/// A run on a machine that systemd started, with this program in the place of systemd-run.
fn under_systemd(machine: &Machine, starter: &str, verb: &[&str]) -> Output {
    program(&machine.path("bin/systemd-run"), starter);
    let plain = machine.command(verb);
    let mut command = Command::new("unshare");
    // The mark of systemd, for this run alone.
    let booted = "mount -t tmpfs none /run && mkdir -p /run/systemd/system && exec \"$@\"";
    command.args(["--mount", "sh", "-c", booted, "sh"]).arg(plain.get_program()).args(plain.get_args());
    command.env("PATH", format!("{}:{}", machine.path("bin").display(), std::env::var("PATH").unwrap()));
    command.output().unwrap()
}

#[test]
fn whoever_waits_is_in_a_scope_of_his_own_where_systemd_runs() {
    on_a_machine(|machine| {
        let world = World::new();
        machine.configure_with(1, TAKE, "");
        let said = machine.path("said");
        let starter =
            format!("echo \"$@\" > {}\nwhile [ \"$1\" != -- ]; do shift; done\nshift\nexec \"$@\"", said.display());
        let run = under_systemd(machine, &starter, &["apply", "--take-uplink", "--confirm-within", "1"]);
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        let asked = fs::read_to_string(&said).unwrap();
        assert!(asked.starts_with("--scope ") && asked.contains(" rollback --after 1 "), "{asked}");
        until("the old network is back", || is_back(machine));
        until("the machine is reached", || world.is_reached());
        machine.must(&["reset"]);
    });
}

#[test]
fn nothing_is_taken_where_whoever_waits_would_end_with_the_session() {
    on_a_machine(|machine| {
        let world = World::new();
        machine.configure_with(1, TAKE, "");
        let before = machine.network();
        let run = under_systemd(machine, "exit 1", &["apply", "--take-uplink"]);
        let why = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(4), "{why}");
        assert!(why.contains("systemd made no scope") && why.contains("systemd-run --scope true"), "{why}");
        assert!(machine.network() == before && world.is_reached());
    });
}

#[test]
fn a_terminal_that_is_lost_does_not_end_whoever_waits() {
    on_a_machine(|machine| {
        let _world = World::new();
        machine.configure_with(1, TAKE, "");
        machine.must(&["apply", "--take-uplink", "--confirm-within", "3"]);
        let root = machine.root.path().display().to_string();
        let of_machine =
            |pid: &u32| fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|c| c.contains(&root));
        let all = fs::read_dir("/proc").unwrap().flatten();
        let watch = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(of_machine).unwrap();
        let hang_up = nix::sys::signal::Signal::SIGHUP;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(watch.cast_signed()), hang_up).unwrap();
        until("the old network is back", || is_back(machine));
        machine.must(&["reset"]);
    });
}

#[test]
fn a_way_back_that_is_killed_at_any_effect_is_completed_by_the_next() {
    killed_at_each_effect("rollback", &["rollback"], |machine, end| {
        assert_eq!(where_is(machine, ADDRESS), ["up0"], "{end}");
    });
}

#[test]
fn a_taking_that_is_killed_at_any_effect_is_completed_by_the_next() {
    killed_at_each_effect("apply", &["apply", "--take-uplink", "--confirm-within", "3600"], |machine, end| {
        machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
        assert_eq!(where_is(machine, ADDRESS), ["plat0"], "{end}");
        machine.must(&["rollback"]);
        assert_eq!(where_is(machine, ADDRESS), ["up0"], "{end}");
    });
}

const ADDRESS: &str = "192.0.2.7/24";

/// Kills the verb before its first effect, then before its second, and so on until it ends by itself. Each time `first` is
/// run whole afterwards, and then looked at. The uplink has an address, and no route of its own.
fn killed_at_each_effect(
    verb: &'static str,
    killed: &'static [&'static str],
    then: impl Fn(&Machine, &str) + Send + 'static,
) {
    on_a_machine(move |machine| {
        let _world = World::with_ipv4();
        ip("route delete default");
        machine.configure_with(1, TAKE, "");
        // Of a run that is killed before its record has begun the record's own folder may be left.
        let (before, _) = machine.everything();
        for at in 1.. {
            if verb == "rollback" {
                machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
            }
            let ended = killed_at(at, &machine.command(killed));
            let end = format!("{verb} at {at}: {ended:?}");
            if verb == "rollback" {
                machine.must(&["rollback"]);
            }
            then(machine, &end);
            machine.must(&["reset"]);
            assert_eq!(machine.everything().0, before, "{end}");
            if let Ended::Whole(code) = ended {
                assert!(code == 0 && at > 5, "{end}");
                break;
            }
        }
    });
}

#[test]
fn a_route_of_somebody_else_to_the_same_place_stays() {
    on_a_machine(|machine| {
        let _world = World::new();
        machine.configure_with(1, TAKE, "");
        ip("route add 2001:db8:9::/64 dev up0");
        machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
        ip("route add 2001:db8:9::/64 dev plat0 metric 512");
        machine.must(&["rollback"]);
        let to = "2001:db8:9::/64".parse().unwrap();
        let routes = machine.network().routes;
        let there = routes.iter().filter(|route| route.destination == to);
        let there: Vec<_> = there.map(|route| (route.link.as_str(), route.metric)).collect();
        assert_eq!(there, [("plat0", 512), ("up0", 0)]);
        machine.must(&["reset"]);
    });
}

#[test]
fn a_reset_that_fails_leaves_an_uplink_that_nobody_confirmed_on_its_own_network() {
    on_a_machine(|machine| {
        let world = World::new();
        machine.configure_with(1, TAKE, "");
        machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
        let home = machine.path("srv/plat/partitions/part0");
        let (code, why) = acting_before("unlinkat", &machine.command(&["reset"]), || {
            fs::write(home.join("srv/his"), "").unwrap();
        });
        assert_eq!(code, 1, "{why}");
        assert!(why.contains("but for up0, which keeps its own network"), "{why}");
        assert!(is_back(machine) && world.is_reached(), "{why}");
        assert!(machine.network().links["up0"].bridge.is_none());
        until("nobody waits any more", || watches(machine) == 0);
        fs::remove_file(home.join("srv/his")).unwrap();
        // One that was confirmed goes back to where it was.
        machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
        machine.must(&["confirm"]);
        let (code, why) = acting_before("unlinkat", &machine.command(&["reset"]), || {
            fs::write(home.join("srv/his"), "").unwrap();
        });
        assert_eq!(code, 1, "{why}");
        assert_eq!(where_is(machine, "192.0.2.7/24"), ["plat0"], "{why}");
        assert!(
            why.contains("if somebody set it: part0, plat0; and for flags of ports that left their bridge"),
            "{why}"
        );
        fs::remove_file(home.join("srv/his")).unwrap();
        machine.must(&["reset"]);
        assert!(is_back(machine) && world.is_reached());
    });
}
