//! An uplink whose interface is another by its name or by its hardware address, or is gone.

use super::losses::{failing_at, failing_at_the_end};
use super::machine::{Machine, ip, on_a_machine, until};
use super::uplink::{TAKE, World, confirmed, taken, where_is};
use indexmap::IndexSet;
use node_format_plan::facts::{AddressFact, Further};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

#[test]
fn an_uplink_whose_hardware_address_changes_while_it_is_a_port_comes_back() {
    on_a_machine(|machine| {
        let world = World::new();
        // The router has heard the old one a moment ago.
        let heard_anew = || world.inside(|| ip("neighbour flush dev router"));
        machine.configure_with(1, TAKE, "");
        machine.must(&["apply", "--take-uplink", "--confirm-within", "2"]);
        ip("link set up0 address 02:11:22:33:44:55");
        until("the old network is back", || where_is(machine, "2001:db8::7/64") == ["up0"]);
        heard_anew();
        until("it is reached", || world.is_reached());
        // Also where something else has the address that it had, as what a bond is made of has.
        for (n, verb) in ["rollback", "apply", "reset"].into_iter().enumerate() {
            machine.configure_with(1, TAKE, "");
            machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
            if verb == "apply" {
                machine.must(&["confirm"]);
                machine.configure_with(1, "mode = \"bridge\"\nguard = false\n", "");
            }
            let before = machine.network().links["up0"].mac.map(|byte| format!("{byte:02x}")).join(":");
            ip(&format!("link set up0 address 02:11:22:33:44:6{n}"));
            ip(&format!("link add like{n} address {before} type veth peer name other{n}"));
            let said = machine.must(&[verb]);
            assert!(!said.contains("another interface"), "{verb}: {said}");
            heard_anew();
            until("it is reached", || world.is_reached());
        }
    });
}

type Network = (IndexSet<AddressFact>, BTreeMap<String, BTreeMap<ipnet::IpNet, Further>>);

/// The addresses as the kernel orders them, and what they have besides.
fn addresses(machine: &Machine) -> Network {
    let found = machine.network();
    (found.addresses, found.further)
}

/// All routes of the main table.
fn routes() -> BTreeSet<String> {
    let shown = ["-4", "-6"].map(|family| Command::new("ip").args([family, "route"]).output().unwrap().stdout);
    shown
        .iter()
        .flat_map(|shown| String::from_utf8_lossy(shown).lines().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

#[test]
fn what_an_uplink_that_is_gone_left_on_the_bridge_goes_whole_and_comes_back_as_it_was() {
    on_a_machine(|machine| {
        let _world = World::with_ipv4();
        ip("address del 192.0.2.7/24 dev up0");
        ip("address add 192.0.2.7/24 brd 192.0.2.255 metric 50 dev up0");
        ip("address add 192.0.2.8/24 brd 192.0.2.255 metric 50 dev up0");
        ip("address add 198.51.100.5 peer 198.51.100.1/32 dev up0");
        ip("address add 10.55.0.1/24 scope link dev up0");
        ip("address add 10.56.0.1/24 dev up0 noprefixroute");
        ip("address add 2001:db8:1::7/64 dev up0 nodad");
        ip("address add 2001:db8:1::8/64 dev up0 nodad noprefixroute");
        ip("address add 2001:db8::7 peer 2001:db8::1/128 dev up0 nodad");
        ip("route add default via 192.0.2.1 dev up0");
        machine.configure_with(1, TAKE, "");
        machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
        machine.must(&["confirm"]);
        ip("link delete up0");
        let (before, ways) = (addresses(machine), routes());
        machine.configure_with(2, "mode = \"bridge\"\nguard = false\n", "");
        let plan = machine.must(&["plan"]);
        assert!(plan.contains("- uplink up0 left behind on plat0"), "{plan}");
        let why = failing_at_the_end(machine);
        assert!(why.contains("the machine is as it was before the run"), "{why}");
        let after = addresses(machine);
        assert_eq!(after.0.iter().collect::<Vec<_>>(), before.0.iter().collect::<Vec<_>>(), "{why}");
        assert_eq!(after.1, before.1);
        assert_eq!(routes(), ways);
        machine.must(&["apply"]);
        let left = machine.network().addresses;
        let of_it =
            ["192.0.2.7/24", "192.0.2.8/24", "198.51.100.5/32", "10.55.0.1/24", "10.56.0.1/24", "2001:db8::7/128"];
        let stays = left.iter().find(|found| of_it.contains(&found.address.to_string().as_str()));
        assert_eq!(stays, None);
        assert!(!routes().iter().any(|route| route.contains("2001:db8:1::/64")), "{:?}", routes());
        let shown = machine.must(&["show"]);
        assert!(!shown.contains("uplink"), "{shown}");
    });
}

#[test]
fn an_interface_that_comes_in_the_place_of_an_uplink_keeps_its_settings_after_a_rollback() {
    on_a_machine(|machine| {
        let _world = taken(machine);
        ip("link delete up0");
        ip("link add up0 type veth peer name other0");
        for (name, value) in [("disable_ipv6", "1"), ("accept_ra", "0")] {
            fs::write(format!("/proc/sys/net/ipv6/conf/up0/{name}"), value).unwrap();
        }
        machine.must(&["rollback"]);
        machine.must(&["reset"]);
        for (name, value) in [("disable_ipv6", "1\n"), ("accept_ra", "0\n")] {
            assert_eq!(fs::read_to_string(format!("/proc/sys/net/ipv6/conf/up0/{name}")).unwrap(), value);
        }
    });
}

#[test]
fn routes_of_routers_in_tables_of_somebodys_own_stay_on_the_bridge() {
    on_a_machine(|machine| {
        let _world = confirmed(machine);
        ip("route add 2001:db8:6::/48 dev plat0 proto ra table 100");
        machine.configure_with(1, "mode = \"bridge\"\nguard = false\n", "");
        machine.must(&["apply"]);
        let shown = Command::new("ip").args(["-6", "route", "show", "table", "100"]).output().unwrap();
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(shown.contains("2001:db8:6::/48"), "{shown}");
    });
}

#[test]
fn an_uplink_whose_hardware_address_changed_is_given_back_once_more_and_without_the_bridge() {
    for without_bridge in [false, true] {
        on_a_machine(move |machine| {
            let world = taken(machine);
            ip("link set up0 address 02:11:22:33:44:55");
            if without_bridge {
                ip("link delete plat0");
            } else {
                // The kernel takes no address of IPv6 then.
                ip("link set up0 mtu 1000");
                let (code, why) = machine.run(&["rollback"]);
                assert_ne!(code, 0, "{why}");
                ip("link set up0 mtu 1500");
            }
            machine.must(&["rollback"]);
            world.inside(|| ip("neighbour flush dev router"));
            until("it is reached", || world.is_reached());
            machine.must(&["reset"]);
            until("it is reached", || world.is_reached());
        });
    }
}

#[test]
fn nobody_has_confirmed_another_interface_of_the_uplinks_name() {
    on_a_machine(|machine| {
        let _world = confirmed(machine);
        ip("link delete up0");
        ip("link add up0 type veth peer name other0");
        ip("address add 192.0.2.9/24 dev up0");
        ip("link set up0 up");
        ip("link set other0 up");
        let (code, why) = machine.run(&["apply"]);
        assert!(code == 4 && why.contains("P0511"), "{why}");
        machine.must(&["apply", "--take-uplink", "--confirm-within", "1"]);
        until("the old network is back", || where_is(machine, "192.0.2.9/24") == ["up0"]);
    });
}

#[test]
fn a_run_that_fails_knows_afterwards_what_was_not_there_by_its_name() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(2);
        machine.must(&["apply"]);
        let known = machine.must(&["show"]);
        ip("link set part1 down");
        ip("link set part1 name elsewhere");
        machine.configure(3);
        failing_at_the_end(machine);
        assert_eq!(machine.must(&["show"]), known);
        ip("link set elsewhere name part1");
        machine.configure(2);
        machine.must(&["apply"]);
        machine.must(&["reset"]);
        assert!(!machine.network().links.contains_key("part1"));
    });
}

#[test]
fn what_goes_with_an_uplink_that_is_another_by_now_is_named() {
    on_a_machine(|machine| {
        let _world = confirmed(machine);
        ip("link add other0 type veth peer name other1");
        ip("link set other0 up");
        ip("link set other1 up");
        ip("address add 198.51.100.1/24 dev other0");
        ip("route add 203.0.113.0/24 via 198.51.100.9 src 192.0.2.7");
        ip("address add 2001:db8:9::1/64 dev plat0 valid_lft 3600 preferred_lft 3600 nodad");
        ip("route add 2001:db8:77::/48 dev other0 src 2001:db8:9::1");
        // A backup of somebody's own: the machine's has another metric.
        ip("route add default via 192.0.2.1 dev plat0 metric 500");
        ip("link delete up0");
        ip("link add up0 type veth peer name router");
        let reset = machine.must(&["plan", "--reset"]);
        assert!(reset.contains("with it the route to 0.0.0.0/0"), "{reset}");
        ip("link set up0 master plat0");
        let reset = machine.must(&["plan", "--reset"]);
        assert!(reset.contains("and up0, which node-format did not join to it, stands alone then"), "{reset}");
        ip("link set up0 nomaster");
        machine.configure_with(1, "mode = \"bridge\"\nguard = false\n", "[limits]\nmemory_mib = 512\n");
        let plan = machine.must(&["plan"]);
        let named =
            ["the route to 203.0.113.0/24", "2001:db8:9::1/64, which ends by itself", "the route to 2001:db8:77::/48"];
        assert!(named.iter().all(|what| plan.contains(what)), "{plan}");
        let why = failing_at(machine, "srv/plat/resources/part0/.node-format-resource.json");
        assert!(named.iter().all(|what| why.contains(what)), "{why}");
    });
}
