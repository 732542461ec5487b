//! What a bridge with an uplink takes. The kernel keeps it at what the smallest of its ports does until somebody sets it.

use super::machine::{Machine, ip, on_a_machine};
use super::uplink::{TAKE, World};
use std::process::Command;

fn mtus(machine: &Machine) -> [Option<u32>; 2] {
    let links = machine.network().links;
    ["plat0", "part0"].map(|name| links.get(name).and_then(|link| link.mtu))
}

fn taken(machine: &Machine, network: &str) -> World {
    let world = World::with_ipv4();
    machine.configure_with(1, &format!("{TAKE}{network}"), "");
    machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
    machine.must(&["confirm"]);
    world
}

/// An `apply` that fails at its end, when all links are as they must be.
fn failing(machine: &Machine) -> String {
    let resource = machine.path("srv/plat/resources/part0/resource.json");
    let set = |flag| assert!(Command::new("chattr").arg(flag).arg(&resource).status().unwrap().success());
    set("+i");
    let (code, why) = machine.run(&["apply"]);
    set("-i");
    assert_eq!(code, 1, "{why}");
    why
}

#[test]
fn a_bridge_goes_on_following_its_uplink_after_an_mtu_came_and_went() {
    on_a_machine(|machine| {
        let _world = taken(machine, "");
        for mtu in [1400, 1450] {
            machine.configure_with(1, &format!("{TAKE}mtu = {mtu}\n"), "");
            machine.must(&["apply"]);
            assert_eq!(mtus(machine), [Some(mtu); 2]);
        }
        machine.configure_with(1, TAKE, "");
        machine.must(&["apply"]);
        assert_eq!(mtus(machine), [Some(1500); 2]);
        ip("link set up0 mtu 1420");
        assert_eq!(mtus(machine)[0], Some(1420));
        assert_eq!(machine.must(&["verify"]), "the machine is as it was formatted\n");
    });
}

#[test]
fn a_bridge_goes_on_following_its_uplink_after_a_run_that_failed() {
    on_a_machine(|machine| {
        let _world = taken(machine, "");
        machine.configure_with(1, &format!("{TAKE}mtu = 1450\n"), "[limits]\nmemory_mib = 512\n");
        let why = failing(machine);
        assert!(why.contains("the machine is as it was before the run\n"), "{why}");
        assert_eq!(mtus(machine), [Some(1500); 2]);
        ip("link set up0 mtu 1420");
        assert_eq!(mtus(machine)[0], Some(1420));
    });
}

#[test]
fn a_bridge_that_follows_its_uplink_no_more_is_made_to() {
    on_a_machine(|machine| {
        let _world = taken(machine, "");
        ip("link set plat0 mtu 1450");
        ip("link set up0 mtu 1420");
        let (code, said) = machine.run(&["verify"]);
        assert!(code == 3 && said.contains("~ link plat0 up mtu 1450") && said.contains("-> up mtu 1420"), "{said}");
        machine.must(&["apply"]);
        assert_eq!(mtus(machine), [Some(1420), Some(1500)]);
        // What a run that fails gives back is what was there.
        ip("link set plat0 mtu 1450");
        machine.configure_with(1, TAKE, "[limits]\nmemory_mib = 512\n");
        failing(machine);
        assert_eq!(mtus(machine), [Some(1450), Some(1500)]);
    });
}

#[test]
fn a_bridge_takes_no_more_than_it_is_to_although_no_port_says_so() {
    on_a_machine(|machine| {
        let _world = taken(machine, "mtu = 1400\ntaps = false\n");
        assert_eq!(mtus(machine), [Some(1400), None]);
        assert_eq!(machine.must(&["apply"]), "nothing to do\n");
        machine.must(&["reset"]);
        // One that is larger than the uplink's is that of taps alone.
        machine.configure_with(1, &format!("{TAKE}mtu = 9000\n"), "");
        machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
        assert_eq!(mtus(machine), [Some(1500), Some(9000)]);
        assert!(machine.must(&["verify"]).ends_with("the machine is as it was formatted\n"));
    });
}

#[test]
fn a_bridge_takes_no_more_than_it_is_to_although_the_ports_that_said_so_go() {
    on_a_machine(|machine| {
        let _world = World::with_ipv4();
        let pairs = "taps = false\nnamespaces = true\ngateway = true\n";
        for (amount, had, then) in [
            (1, "", "taps = false\n"),
            (1, "", "tap_mode = \"routed\"\n"),
            (0, "", ""),
            (1, pairs, "taps = false\ngateway = true\n"),
        ] {
            machine.configure_with(1, &format!("{TAKE}mtu = 1400\n{had}"), "");
            machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
            machine.must(&["confirm"]);
            machine.configure_with(amount, &format!("{TAKE}mtu = 1400\n{then}"), "");
            machine.must(&["apply"]);
            assert_eq!(mtus(machine)[0], Some(1400), "{amount} {had} {then}");
            assert_eq!(machine.must(&["apply"]), "nothing to do\n");
            machine.must(&["reset"]);
        }
    });
}

#[test]
fn a_bridge_keeps_its_ipv6_beside_a_port_that_takes_too_little_for_it() {
    on_a_machine(|machine| {
        let world = World::new();
        machine.configure_with(1, TAKE, "");
        machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
        machine.must(&["confirm"]);
        // It follows its ports no more.
        ip("link set plat0 mtu 1450");
        ip("link set plat0 mtu 1500");
        ip("link add d0 type veth peer name d1");
        ip("link set d0 mtu 1000 up");
        ip("link set d0 master plat0");
        let said = machine.must(&["verify"]);
        assert!(said.contains("! plat0 goes on taking packets of 1500 bytes, and its port d0 takes 1000"), "{said}");
        assert!(machine.must(&["apply"]).ends_with("nothing to do\n"));
        assert_eq!(mtus(machine)[0], Some(1500));
        assert!(world.is_reached());
    });
}

#[test]
fn a_run_that_fails_says_of_a_bridge_that_it_does_not_follow_its_ports() {
    on_a_machine(|machine| {
        let _world = World::with_ipv4();
        machine.configure_with(1, "mode = \"bridge\"\ntaps = false\nmtu = 1400\nguard = false\n", "");
        machine.must(&["apply"]);
        machine.configure_with(1, &format!("{TAKE}mtu = 1400\ntaps = false\n"), "[limits]\nmemory_mib = 512\n");
        let resource = machine.path("srv/plat/resources/part0/resource.json");
        let set = |flag| assert!(Command::new("chattr").arg(flag).arg(&resource).status().unwrap().success());
        set("+i");
        let (code, why) = machine.run(&["apply", "--take-uplink"]);
        set("-i");
        assert!(code == 1 && why.contains("plat0 keeps its MTU from now on, and follows its ports no more"), "{why}");
        assert_eq!(mtus(machine), [Some(1400), None]);
    });
}
