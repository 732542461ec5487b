//! What goes with the last IPv4 address of a link, whatever all takes addresses from it.

use super::super::machine::{Machine, ip, on_a_machine};
use super::super::namespaces::inside;
use super::super::uplink::{TAKE, World, where_is};
use super::{LIMITS, failing_at, failing_at_the_end, notes, routes_on};
use std::fs;
use std::process::Command;

const LAST: &str = "the last IPv4 address goes from plat0, and with it";

/// Both of another network than [`Machine::configure_with`] says.
fn with_other_ranges(machine: &Machine, amount: u32, network: &str) {
    machine.configure_with(amount, network, "");
    let config = fs::read_to_string(machine.path("format.toml")).unwrap();
    fs::write(machine.path("format.toml"), config.replace("10.200.0.0/16", "10.201.0.0/16")).unwrap();
}

/// At the last thing that an `apply` does to the network's partitions.
fn failing_at_a_resource(machine: &Machine) -> String {
    failing_at(machine, "srv/plat/resources/part0/.node-format-resource.json")
}

#[test]
fn routes_on_a_bridge_whose_uplink_and_own_addresses_go_together_are_named() {
    const ALONE: &str = "mode = \"bridge\"\nguard = false\n";
    on_a_machine(|machine| {
        let world = World::with_ipv4();
        machine.configure_with(1, TAKE, "");
        machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
        machine.must(&["confirm"]);
        let set = "route add 198.51.100.0/24 via 192.0.2.9 dev plat0 proto static";
        ip(set);
        let lost = format!("{LAST} the route to 198.51.100.0/24, which node-format did not make");
        with_other_ranges(machine, 1, ALONE);
        assert_eq!(notes(machine, &["plan"]), [lost.as_str()]);
        let why = failing_at_a_resource(machine);
        assert!(why.contains(&format!("before the run but for what may have gone along: {lost}")), "{why}");
        assert_eq!(where_is(machine, "192.0.2.7/24"), ["plat0"]);
        assert!(!routes_on("plat0").contains("198.51.100.0/24"), "{}", routes_on("plat0"));
        ip(set);
        assert_eq!(notes(machine, &["apply"]), [lost.as_str()]);
        assert!(!routes_on("plat0").contains("198.51.100.0/24"), "{}", routes_on("plat0"));
        assert!(world.reaches(&["192.0.2.7:0"]));
        // Where the bridge's own addresses stay the route does.
        with_other_ranges(machine, 1, TAKE);
        machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
        ip(set);
        with_other_ranges(machine, 1, ALONE);
        assert_eq!(notes(machine, &["apply"]), [""; 0]);
        assert!(routes_on("plat0").contains("198.51.100.0/24"), "{}", routes_on("plat0"));
        machine.must(&["reset"]);
    });
}

#[test]
fn what_the_addresses_of_an_uplink_that_became_somebody_elses_port_take_along_is_named() {
    on_a_machine(|machine| {
        let _world = World::with_ipv4();
        ip("link add wg0 type veth peer name far");
        ip("link set wg0 up");
        machine.configure_with(0, TAKE, "");
        machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
        ip("link add br1 type bridge");
        ip("link set up0 nomaster");
        ip("link set up0 master br1");
        ip("route add 198.51.100.0/24 via 192.0.2.9 dev plat0");
        ip("route add 198.18.0.0/15 dev wg0 src 192.0.2.7");
        let from = "192.0.2.7 goes, and the route to 198.18.0.0/15 by wg0, which is from there and which node-format did not make, goes";
        let stays = "up0 is a port of br1 by now, and does not get back 192.0.2.7/24, route to 0.0.0.0/0";
        assert!(notes(machine, &["plan", "--reset"]).iter().any(|note| note == stays));
        let lost = format!("{LAST} the route to 198.51.100.0/24, which node-format did not make");
        assert_eq!(notes(machine, &["rollback"]), [lost.as_str(), from, stays]);
        assert_eq!((routes_on("plat0"), routes_on("wg0")), (String::new(), String::new()));
        machine.must(&["reset"]);
    });
}

#[test]
fn what_goes_with_the_first_addresses_of_a_link_again_is_named_by_a_run_that_failed() {
    on_a_machine(|machine| {
        ip("link set lo up");
        let network = "mode = \"bridge\"\ngateway = false\nguard = false\n";
        machine.configure_with(0, network, "");
        machine.must(&["apply"]);
        ip("route add 10.99.0.0/16 dev plat0");
        machine.configure_with(1, network, "");
        assert_eq!(notes(machine, &["plan"]), [""; 0]);
        let why = failing_at_the_end(machine);
        let lost = "the last IPv4 address goes from plat0 again, and with it the route to 10.99.0.0/16, which node-format did not make";
        assert!(why.contains(&format!("before the run but for what may have gone along: {lost}")), "{why}");
        assert_eq!(routes_on("plat0"), "");
        ip("route add 10.99.0.0/16 dev plat0");
        assert_eq!(notes(machine, &["apply"]), [""; 0]);
        assert!(routes_on("plat0").contains("10.99.0.0/16"), "{}", routes_on("plat0"));
        machine.must(&["reset"]);
    });
}

#[test]
fn routes_that_go_with_an_address_that_goes_along_are_named() {
    on_a_machine(|machine| {
        ip("link set lo up");
        for of in ["all", "default"] {
            fs::write(format!("/proc/sys/net/ipv4/conf/{of}/promote_secondaries"), "0").unwrap();
        }
        machine.configure_with(0, "mode = \"bridge\"\ngateway = true\nguard = false\n", "");
        machine.must(&["apply"]);
        ip("address add 10.200.77.7/16 dev plat0");
        ip("route add 10.99.0.0/16 dev plat0");
        machine.configure_with(0, "mode = \"bridge\"\ngateway = false\nguard = false\n", "");
        let address = "10.200.0.1/16 goes from plat0, and with it 10.200.77.7/16, which came to the same network after it: \
                       node-format did not add it";
        let route = format!("{LAST} the route to 10.99.0.0/16, which node-format did not make");
        assert_eq!(notes(machine, &["apply"]), [address, route.as_str()]);
        assert_eq!(routes_on("plat0"), "");
        machine.must(&["reset"]);
    });
}

#[test]
fn what_goes_with_the_last_address_in_a_namespace_is_named() {
    on_a_machine(|machine| {
        ip("link set lo up");
        let network = "mode = \"bridge\"\nnamespaces = true\nguard = false\n";
        machine.configure_with(1, network, "");
        machine.must(&["apply"]);
        let shown = || routes_on("eth0").contains("10.98.0.0/16");
        inside(machine, "part0", || ip("route add 10.98.0.0/16 dev eth0 table 77"));
        assert!(inside(machine, "part0", shown));
        with_other_ranges(machine, 1, network);
        let lost = "the last IPv4 address goes from eth0 in namespace part0, and with it the route 10.98.0.0/16 of table 77, which \
                    node-format did not make there";
        assert_eq!(notes(machine, &["apply"]), [lost]);
        assert!(!inside(machine, "part0", shown));
        machine.must(&["reset"]);
    });
}

#[test]
fn what_goes_with_the_first_address_in_a_namespace_again_is_named_by_a_run_that_failed() {
    on_a_machine(|machine| {
        ip("link set lo up");
        let network = "mode = \"bridge\"\nnamespaces = true\nguard = false\n";
        machine.configure_with(1, network, "");
        machine.must(&["apply"]);
        inside(machine, "part0", || {
            ip("address del 10.200.0.2/32 dev eth0");
            ip("route add 10.98.0.0/16 dev eth0 table 77");
            ip("neighbour add 10.98.0.1 lladdr 02:00:00:00:00:09 dev eth0 nud permanent");
        });
        machine.configure_with(1, network, LIMITS);
        assert_eq!(notes(machine, &["plan"]), [""; 0]);
        let why = failing_at_the_end(machine);
        assert!(!inside(machine, "part0", || routes_on("eth0").contains("10.98.0.0/16")), "{why}");
        for lost in ["the neighbour 10.98.0.1, set by hand", "the route 10.98.0.0/16 of table 77"] {
            let said = "the last IPv4 address goes from eth0 in namespace part0 again, and with it";
            assert!(why.contains(&format!("{said} {lost}, which node-format did not make there")), "{lost}: {why}");
        }
        inside(machine, "part0", || ip("route add 10.98.0.0/16 dev eth0 table 77"));
        assert_eq!(notes(machine, &["apply"]), [""; 0]);
        assert!(inside(machine, "part0", || routes_on("eth0").contains("10.98.0.0/16")), "if all is done it stays");
        machine.must(&["reset"]);
    });
}

#[test]
fn routes_by_other_links_from_an_address_that_goes_in_a_namespace_are_named() {
    on_a_machine(|machine| {
        ip("link set lo up");
        let network = "mode = \"bridge\"\nnamespaces = true\nguard = false\n";
        machine.configure_with(1, network, "");
        machine.must(&["apply"]);
        inside(machine, "part0", || {
            ip("link add x0 type veth peer name x1");
            ip("address add 172.20.0.1/24 dev x0");
            ip("link set x1 up");
            ip("link set x0 up");
            ip("link add x2 type veth peer name x3");
            ip("link set x3 up");
            ip("link set x2 up");
            ip("route add 10.4.0.0/16 dev x0");
        });
        let set = || {
            ip("route add 10.5.0.0/16 dev x0 src 10.200.0.2");
            ip("route add 10.6.0.0/16 via 172.20.0.9 dev x0 src 10.200.0.2 mtu 1400");
            ip("route add 10.7.0.0/16 dev lo src 10.200.0.2");
            ip("route add 10.8.0.0/16 src 10.200.0.2 nexthop dev x0 nexthop dev eth0");
            ip("route add 10.9.0.0/16 src 10.200.0.2 nexthop dev x0 nexthop dev x2");
        };
        inside(machine, "part0", set);
        let goes = |what: &str, link: &str| {
            format!(
                "10.200.0.2 goes, and {what} by {link} in namespace part0, which is from there and which node-format did not make, goes"
            )
        };
        // Once, whatever links it is by.
        let last = "the last IPv4 address goes from eth0 in namespace part0, and with it the route 10.8.0.0/16 over several links, \
                    which node-format did not make there";
        let lost = [
            last.to_owned(),
            goes("the route to 10.7.0.0/16", "lo"),
            goes("the route 10.6.0.0/16 with an mtu or other properties", "x0"),
            goes("the route 10.9.0.0/16 over several links", "x0"),
            goes("the route to 10.5.0.0/16", "x0"),
        ];
        with_other_ranges(machine, 1, network);
        let why = failing_at_a_resource(machine);
        assert!(lost.iter().all(|lost| why.contains(lost)), "{why}");
        inside(machine, "part0", set);
        assert_eq!(notes(machine, &["apply"]), lost);
        let left = inside(machine, "part0", || routes_on("x0") + &routes_on("lo"));
        assert!(
            left.contains("10.4.0.0/16")
                && !["10.5.", "10.6.", "10.7.", "10.8.", "10.9."].iter().any(|gone| left.contains(gone)),
            "{left}"
        );
        // Of another link's address nothing goes, nor is it named twice what goes with a link.
        inside(machine, "part0", || ip("route add 10.5.0.0/16 dev x0 src 172.20.0.1"));
        machine.configure_with(1, network, "");
        assert_eq!(notes(machine, &["apply"]), [""; 0]);
        inside(machine, "part0", || ip("route add 10.6.0.0/16 dev x0 src 10.200.0.2"));
        let of_links = ["x0", "x1", "x2", "x3"].map(|link| {
            format!("namespace part0 goes, and with it the link {link} in it, which node-format did not make")
        });
        assert_eq!(notes(machine, &["reset"]), of_links);
    });
}

#[test]
fn routes_of_other_tables_from_an_ipv6_address_that_goes_in_a_namespace_are_named() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure_with(1, "mode = \"bridge\"\nnamespaces = true\nguard = false\n", "");
        machine.must(&["apply"]);
        let shown = || {
            let shown = Command::new("ip").args(["-6", "route", "show", "table", "99"]).output().unwrap();
            String::from_utf8(shown.stdout).unwrap()
        };
        inside(machine, "part0", || {
            ip("link add x0 type veth peer name x1");
            ip("link set x1 up");
            ip("link set x0 up");
        });
        let set = || ip("route replace 2001:db8:9::/48 dev x0 src fd00:1::1:0:0:1 table 99");
        inside(machine, "part0", set);
        assert!(inside(machine, "part0", shown).contains("src fd00:1::1:0:0:1"));
        let config = fs::read_to_string(machine.path("format.toml")).unwrap();
        fs::write(machine.path("format.toml"), config.replace("fd00:1::/64", "fd00:2::/64")).unwrap();
        let lost = "fd00:1::1:0:0:1 goes, and the route 2001:db8:9::/48 of table 99 by x0 in namespace part0, which is from \
                    there and which node-format did not make, goes on without it";
        let why = failing_at_a_resource(machine);
        assert!(why.contains(lost), "{why}");
        inside(machine, "part0", set);
        assert_eq!(notes(machine, &["apply"]), [lost]);
        let left = inside(machine, "part0", shown);
        assert!(left.contains("2001:db8:9::/48") && !left.contains("src"), "{left}");
        machine.must(&["reset"]);
    });
}

#[test]
fn an_interface_that_had_the_nodes_own_addresses_becomes_the_uplink_without_them() {
    on_a_machine(|machine| {
        let world = World::with_ipv4();
        machine.configure_with(1, "mode = \"interface\"\nlink = \"up0\"\nguard = false\n", "");
        let before = machine.everything();
        machine.must(&["apply"]);
        assert_eq!(where_is(machine, "10.200.0.2/32"), ["up0"]);
        machine.configure_with(1, TAKE, "");
        machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
        assert_eq!(
            (where_is(machine, "10.200.0.2/32"), where_is(machine, "192.0.2.7/24")),
            (vec!["plat0".into()], vec!["plat0".into()])
        );
        machine.must(&["rollback"]);
        assert_eq!(
            (where_is(machine, "10.200.0.2/32"), where_is(machine, "192.0.2.7/24")),
            (vec!["plat0".into()], vec!["up0".into()])
        );
        assert!(world.reaches(&["192.0.2.7:0"]));
        machine.must(&["reset"]);
        assert_eq!(machine.everything(), before);
    });
}
