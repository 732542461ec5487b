//! A confirmed uplink of which something went since: a run mends it, and does not give it back when it fails.

use super::losses::{LIMITS, failing_at, failing_at_the_end};
use super::machine::{Machine, ip, on_a_machine, until};
use super::uplink::{TAKE, World, where_is};

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
        let world = World::new();
        machine.configure_with(1, TAKE, "");
        machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
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
        let world = World::new();
        machine.configure_with(1, TAKE, "");
        machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
        machine.must(&["confirm"]);
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
        let world = World::new();
        machine.configure_with(1, TAKE, "");
        machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
        machine.must(&["confirm"]);
        ip("link set up0 nomaster");
        machine.configure_with(1, TAKE, LIMITS);
        let why = failing_at_the_end(machine);
        assert!(why.contains("but for what came back to plat0 of the uplink up0, which stays"), "{why}");
        assert!(is_port(machine) && world.is_reached());
        machine.must(&["reset"]);
    });
}
