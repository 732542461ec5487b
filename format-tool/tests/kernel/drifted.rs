//! A confirmed uplink of which something went since: a run mends it, and does not give it back when it fails.

use super::effects::acting_before;
use super::losses::{LIMITS, failing_at, failing_at_the_end};
use super::machine::{Machine, ip, on_a_machine, until};
use super::uplink::{TAKE, World, confirmed, end_watches, taken, watches, where_is};
use std::fs;

const SOMEBODYS: &str = "203.0.113.77/32";

/// What may go of an uplink that is on its bridge, and how one sees that.
const GONE: [&str; 4] = [
    "link set up0 down",
    "route delete default via 192.0.2.1 dev plat0",
    "address delete 192.0.2.7/24 dev plat0",
    "link set plat0 down",
];

fn is_port(machine: &Machine) -> bool {
    machine.network().links["up0"].bridge.as_deref() == Some("plat0")
}

#[test]
fn an_apply_that_fails_leaves_a_confirmed_uplink_on_its_bridge() {
    for gone in GONE {
        on_a_machine(move |machine| {
            let world = World::new();
            machine.configure_with(1, TAKE, "");
            let before = machine.everything();
            machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
            machine.must(&["confirm"]);
            ip(&format!("address add {SOMEBODYS} dev plat0"));
            ip(gone);
            machine.configure_with(1, TAKE, LIMITS);
            let why = failing_at_the_end(machine);
            let said = "as it was before the run but for what came back to plat0 of the uplink up0, which stays";
            assert!(why.contains(said), "{gone}: {why}");
            assert!(is_port(machine), "{gone}");
            assert_eq!(where_is(machine, SOMEBODYS), ["plat0"], "{gone}");
            assert_eq!(where_is(machine, "192.0.2.7/24"), ["plat0"], "{gone}");
            // The bridge is as it was found.
            if !gone.contains("plat0 down") {
                assert!(world.is_reached(), "{gone}");
            }
            // Still confirmed: nothing is asked, and nobody waits.
            machine.must(&["apply"]);
            machine.must(&["verify"]);
            until("the machine is reached", || world.is_reached());
            ip(&format!("address delete {SOMEBODYS} dev plat0"));
            machine.must(&["reset"]);
            machine.configure_with(1, TAKE, "");
            assert_eq!(machine.everything(), before, "{gone}");
        });
    }
}

#[test]
fn an_apply_that_fails_leaves_it_to_whoever_waits_to_give_back_what_nobody_confirmed() {
    on_a_machine(|machine| {
        let world = taken(machine);
        ip("link set up0 down");
        machine.configure_with(1, TAKE, LIMITS);
        let why = failing_at_the_end(machine);
        assert!(why.contains("but for what came back to plat0 of the uplink up0, which stays"), "{why}");
        assert!(is_port(machine) && world.is_reached());
        machine.must(&["rollback"]);
        assert!(!is_port(machine) && world.is_reached());
        machine.must(&["reset"]);
    });
}

#[test]
fn an_uplink_whose_bridge_somebody_took_away_comes_back_with_it() {
    on_a_machine(|machine| {
        let world = confirmed(machine);
        ip("link delete plat0");
        let without = machine.everything();
        machine.configure_with(1, TAKE, LIMITS);
        // The agent is told before anything comes back, so this is the last thing.
        let why = failing_at(machine, "srv/plat/resources/part0/.node-format-resource.json");
        assert!(why.contains("as it was before the run\n"), "{why}");
        machine.configure_with(1, TAKE, "");
        assert_eq!(machine.everything(), without);
        machine.must(&["apply"]);
        assert!(is_port(machine));
        until("the machine is reached", || world.is_reached());
        machine.must(&["reset"]);
    });
}

#[test]
fn an_uplink_that_somebody_took_from_its_bridge_joins_it_again() {
    on_a_machine(|machine| {
        let world = confirmed(machine);
        ip("link set up0 nomaster");
        machine.configure_with(1, TAKE, LIMITS);
        let why = failing_at_the_end(machine);
        assert!(why.contains("but for what came back to plat0 of the uplink up0, which stays"), "{why}");
        assert!(is_port(machine) && world.is_reached());
        machine.must(&["reset"]);
    });
}

/// How somebody gets a machine back by hand, in part, and whether the bridge is there still.
const BY_HAND: [&[&str]; 2] = [&["link delete plat0"], &["link set plat0 down", "link set up0 nomaster"]];

/// A confirmed uplink, and a machine that is reached without it again.
fn restored_by_hand(machine: &Machine, how: &[&str]) -> World {
    let world = confirmed(machine);
    how.iter().for_each(|step| ip(step));
    ip("address add 192.0.2.7/24 dev up0");
    ip("route replace default via 192.0.2.1 dev up0");
    assert!(world.reaches(&["192.0.2.7:0"]));
    world
}

#[test]
fn an_apply_that_fails_leaves_a_machine_to_its_own_network_that_somebody_gave_back_by_hand() {
    for how in BY_HAND {
        on_a_machine(move |machine| {
            let world = restored_by_hand(machine, how);
            machine.configure_with(1, TAKE, LIMITS);
            let why = failing_at(machine, "srv/plat/resources/part0/.node-format-resource.json");
            assert!(why.contains("before the run but for up0, which has all of its own network again"), "{why}");
            assert!(!is_port(machine), "{how:?}");
            until("it is reached by its own network", || world.is_reached());
            // One that succeeds takes it again, whole.
            machine.must(&["apply"]);
            assert!(is_port(machine), "{how:?}");
            until("it is reached by the bridge", || world.is_reached());
            machine.must(&["reset"]);
            assert!(!is_port(machine), "{how:?}");
            until("it is reached", || world.is_reached());
        });
    }
}

#[test]
fn what_takes_nothing_leaves_a_machine_to_its_own_network_whether_it_fails_or_not() {
    for how in BY_HAND {
        for verb in ["apply", "reset"] {
            on_a_machine(move |machine| {
                let world = restored_by_hand(machine, how);
                machine.configure_with(1, "mode = \"bridge\"\nguard = false\n", LIMITS);
                let home = machine.path("srv/plat/partitions/part0");
                let (code, why) = match verb {
                    "reset" => acting_before("unlinkat", &machine.command(&["reset"]), || {
                        fs::write(home.join("srv/his"), "").unwrap();
                    }),
                    _ => (1, failing_at(machine, "srv/plat/resources/part0/.node-format-resource.json")),
                };
                assert_eq!(code, 1, "{how:?} {verb}: {why}");
                assert!(why.contains("up0, which has all of its own network again"), "{how:?} {verb}: {why}");
                assert!(!is_port(machine), "{how:?} {verb}: {why}");
                until("it is reached by its own network", || world.is_reached());
                let _ = fs::remove_file(home.join("srv/his"));
                machine.must(&["reset"]);
                until("it is reached", || world.is_reached());
            });
        }
    }
}

#[test]
fn what_goes_with_an_uplink_that_is_taken_again_is_named_when_that_fails() {
    on_a_machine(|machine| {
        let _world = restored_by_hand(machine, BY_HAND[1]);
        ip("neighbour add 192.0.2.50 lladdr 02:00:00:00:00:50 nud permanent dev up0");
        machine.configure_with(1, TAKE, LIMITS);
        let named = "the neighbour 192.0.2.50";
        assert!(machine.must(&["plan"]).contains(named));
        let why = failing_at(machine, "srv/plat/resources/part0/.node-format-resource.json");
        assert!(why.contains(named), "{why}");
        machine.must(&["reset"]);
    });
}

#[test]
fn a_run_that_was_refused_leaves_an_uplink_to_the_run_that_took_it() {
    on_a_machine(|machine| {
        let world = taken(machine);
        ip("link add part1 type veth peer name other1");
        machine.configure_with(2, TAKE, "");
        let (code, why) = machine.run(&["apply", "--take-uplink", "--confirm-within", "1"]);
        assert_eq!(code, 4, "{why}");
        assert!(!why.contains("the old network comes back"), "{why}");
        // Whoever waited for the refused run is gone, so nothing is given back.
        assert_eq!(watches(machine), 1);
        assert!(is_port(machine) && world.is_reached());
        // Where nobody else waits, he does, and it is said.
        end_watches(machine);
        let (code, why) = machine.run(&["apply", "--take-uplink", "--confirm-within", "1"]);
        assert_eq!(code, 4, "{why}");
        assert!(why.contains("the old network comes back within 1 s"), "{why}");
        until("the old network is back", || where_is(machine, "192.0.2.7/24") == ["up0"]);
        ip("link delete part1");
        until("nobody waits", || watches(machine) == 0);
        machine.must(&["reset"]);
    });
}

#[test]
fn an_interface_that_has_the_uplinks_name_by_now_gets_nothing_of_it() {
    for (verb, makes) in [("reset", "bridge"), ("rollback", "veth peer name other0")] {
        on_a_machine(move |machine| {
            let world = taken(machine);
            ip("link set up0 down");
            ip("link set up0 name wan0");
            ip("link set wan0 up");
            ip(&format!("link add up0 type {makes}"));
            ip("link set up0 up");
            let before = machine.network();
            let (code, why) = machine.run(&[verb]);
            assert_eq!(code, 4, "{verb}: {why}");
            assert!(why.contains("P0511") && why.contains("seems to be wan0"), "{verb}: {why}");
            assert_eq!(machine.network().addresses, before.addresses);
            ip("link delete up0");
            ip("link set wan0 down");
            ip("link set wan0 name up0");
            machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
            machine.must(&["rollback"]);
            until("it is reached", || world.is_reached());
            machine.must(&["reset"]);
        });
    }
}

/// Another interface in the place of the uplink, with a network of its own: where it is, what settings it has.
fn in_its_place(machine: &Machine) -> (Vec<String>, Vec<String>) {
    let network = machine.network();
    let addresses = network.addresses.iter().filter(|found| found.link == "up0").map(|found| found.address.to_string());
    let setting = |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv6/conf/up0/{name}")).unwrap();
    (addresses.collect(), ["disable_ipv6", "accept_ra"].map(setting).into())
}

#[test]
fn an_interface_in_the_place_of_an_uplink_that_is_no_port_any_more_gets_nothing_of_it() {
    on_a_machine(|machine| {
        let world = taken(machine);
        ip("link set up0 nomaster");
        ip("link set up0 down");
        ip("link set up0 name old0");
        ip("link add up0 type veth peer name other0");
        fs::write("/proc/sys/net/ipv6/conf/up0/accept_ra", "0").unwrap();
        ip("link set up0 up");
        ip("address add 198.51.100.5/24 dev up0");
        let before = in_its_place(machine);
        for verb in ["rollback", "apply", "reset"] {
            let (code, why) = machine.run(&[verb]);
            assert!(code == 4 && why.contains("P0511") && why.contains("seems to be old0"), "{verb}: {why}");
            assert_eq!(in_its_place(machine), before, "{verb}");
        }
        // Once it is gone there is nobody to whom anything could be given back.
        ip(&format!("link set old0 netns {}", world.path()));
        let (code, why) = machine.run(&["apply"]);
        assert!(code == 4 && why.contains("P0511"), "nobody agreed to this one: {why}");
        let said = machine.must(&["reset"]);
        assert!(said.contains("! up0 is another interface by now"), "{said}");
        assert_eq!(in_its_place(machine), before);
    });
}
