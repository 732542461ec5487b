//! What could not be put back exactly is not taken, and what is put back is there.

use super::machine::{Machine, ip, on_a_machine, until};
use super::uplink::{TAKE, World, where_is};
use std::fs;
use std::process::Command;

fn shown(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}");
    String::from_utf8(output.stdout).unwrap()
}

/// The uplink is refused for this reason, and nothing is done.
fn is_refused(machine: &Machine, because: &str, what: &str) {
    let before = machine.everything();
    // The kernel gives each link its own ones of fe80::/64 in its own time, and a route that ends says how long it is still there.
    let routes = || {
        let all = shown("route show table all") + &shown("-6 route show table all");
        let lines =
            all.lines().filter(|line| !line.contains("fe80:")).map(|line| line.split(" expires").next().unwrap());
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let there = routes();
    let (code, why) = machine.run(&["apply", "--take-uplink", "--confirm-within", "3600"]);
    assert_eq!(code, 4, "{what}: {why}");
    assert!(why.contains("P0511") && why.contains(because), "{what}: {why}");
    assert_eq!((machine.everything(), routes()), (before, there), "{what}");
}

/// Another way out, with a router of its own.
fn another_link() {
    ip("link add eth1 type veth peer name beyond");
    ip("link set beyond up");
    ip("link set eth1 up");
    ip("address add 10.9.9.1/24 dev eth1");
    ip("address add 2001:db8:9::1/64 dev eth1 nodad");
    // The kernel makes these in its own time.
    until("all routes of both ends are there", || {
        let all = shown("-6 route show table all");
        let has = |start: &str, end: &str| all.lines().any(|line| line.starts_with(start) && line.contains(end));
        has("local 2001:db8:9::1 ", "dev eth1")
            && has("multicast ff00::/8", "dev eth1")
            && has("multicast ff00::/8", "dev beyond")
    });
}

#[test]
fn an_uplink_with_a_route_that_another_one_stands_beside_is_refused() {
    on_a_machine(|machine| {
        let _world = World::new();
        another_link();
        machine.configure_with(1, TAKE, "");
        // First what is of the uplink, then what stands beside it.
        let pairs = [
            (None, "default via 10.9.9.2 dev eth1", "0.0.0.0/0"),
            (None, "default via 192.0.2.2 dev up0", "0.0.0.0/0"),
            (Some("10.99.0.0/16 via 192.0.2.1 dev up0"), "10.99.0.0/16 via 10.9.9.2 dev eth1", "10.99.0.0/16"),
            (Some("10.99.0.0/16 via 192.0.2.1 dev up0"), "unreachable 10.99.0.0/16", "10.99.0.0/16"),
            (
                Some("2001:db8:5::/64 via 2001:db8::1 dev up0"),
                "2001:db8:5::/64 via 2001:db8:9::2 dev eth1 proto ra",
                "2001:db8:5::/64",
            ),
            (Some("2001:db8:5::/64 dev up0"), "2001:db8:5::/64 dev eth1 metric 1024", "2001:db8:5::/64"),
        ];
        for (first, beside, destination) in pairs {
            first.into_iter().for_each(|route| ip(&format!("route add {route}")));
            ip(&format!("route append {beside}"));
            is_refused(machine, &format!("the route {destination}"), beside);
            ip(&format!("route delete {beside}"));
            first.into_iter().for_each(|route| ip(&format!("route delete {route}")));
        }
        // Of another metric they are in nobody's way.
        ip("route add default via 10.9.9.2 dev eth1 metric 600");
        let before = (machine.everything(), shown("route show"));
        machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
        machine.must(&["reset"]);
        assert_eq!(
            (machine.everything().0, shown("route show").len()),
            (before.0.0, before.1.len() + "proto static ".len())
        );
    });
}

#[test]
fn a_route_that_another_one_took_the_place_of_comes_back_beside_it() {
    on_a_machine(|machine| {
        let world = World::new();
        another_link();
        machine.configure_with(1, TAKE, "");
        machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
        ip("route delete default dev plat0");
        ip("route add default via 10.9.9.2 dev eth1");
        machine.must(&["rollback"]);
        assert!(shown("route show default").contains("via 192.0.2.1 dev up0"), "{}", shown("route show"));
        ip("route delete default dev eth1");
        assert!(world.is_reached());
        machine.must(&["reset"]);
    });
}

#[test]
fn what_only_looks_as_if_the_kernel_had_made_it_is_not_taken() {
    on_a_machine(|machine| {
        let _world = World::new();
        machine.configure_with(1, TAKE, "");
        let odd = [
            ("route", "10.99.0.0/16 dev up0 proto kernel scope link src 192.0.2.7 table 77", "10.99.0.0/16"),
            ("route", "10.99.0.0/16 via 192.0.2.1 dev up0 proto kernel", "10.99.0.0/16"),
            ("route", "10.99.0.0/16 dev up0 proto kernel scope link", "10.99.0.0/16"),
            ("route", "192.0.2.0/24 dev up0 proto kernel scope link src 192.0.2.7 metric 9", "192.0.2.0/24"),
            ("route", "2001:db8:9::/64 dev up0 proto kernel metric 256", "2001:db8:9::/64"),
            ("route", "broadcast 10.99.255.255 dev up0 table local", "10.99.255.255/32"),
            ("route", "multicast 239.1.2.0/24 dev up0", "239.1.2.0/24"),
            ("route", "anycast 2001:db8:9::/64 dev up0", "2001:db8:9::/64"),
            ("route", "2001:db8:9::/64 via 2001:db8::1 dev up0 expires 900", "2001:db8:9::/64"),
            ("route", "10.99.0.0/16 dev up0 scope global", "10.99.0.0/16"),
            ("route", "10.99.0.0/16 dev up0 scope host", "10.99.0.0/16"),
            ("route", "local 10.99.0.0/16 dev up0 table 77", "10.99.0.0/16"),
            ("neighbour", "192.0.2.77 lladdr 02:00:00:00:00:77 nud noarp dev up0", "192.0.2.77"),
            ("neighbour", "192.0.2.77 lladdr 02:00:00:00:00:77 nud stale extern_learn dev up0", "192.0.2.77"),
        ];
        for (kind, what, named) in odd {
            ip(&format!("{kind} add {what}"));
            is_refused(machine, named, what);
            ip(&format!(
                "{kind} delete {}",
                what.split(" scope global").next().unwrap().split(" nud ").next().unwrap()
            )
            .replace("77 lladdr 02:00:00:00:00:77", "77 dev up0"));
        }
        // All at once.
        for (kind, what, _) in [odd[1], odd[8], odd[12]] {
            ip(&format!("{kind} add {what}"));
        }
        is_refused(machine, "10.99.0.0/16", "several");
        let (_, why) = machine.run(&["apply", "--take-uplink"]);
        assert!(why.contains("2001:db8:9::/64") && why.contains("192.0.2.77"), "{why}");
    });
}

#[test]
fn a_route_whose_router_could_not_be_found_again_is_not_taken() {
    on_a_machine(|machine| {
        let _world = World::new();
        machine.configure_with(1, TAKE, "");
        // Each is made while something leads to the router, which goes.
        let gone = [
            ("address 198.51.100.5/24 dev up0", "203.0.113.0/24", "via 198.51.100.1 dev up0"),
            ("route 198.51.100.1/32 dev up0", "203.0.113.0/24", "via 198.51.100.1 dev up0"),
            ("address 2001:db8:6::5/64 dev up0 nodad", "2001:db8:9::/64", "via 2001:db8:6::1 dev up0"),
        ];
        for (led, to, via) in gone {
            let (kind, what) = led.split_once(' ').unwrap();
            ip(&format!("{kind} add {what}"));
            ip(&format!("route add {to} {via}"));
            ip(&format!("{kind} delete {}", what.trim_end_matches(" nodad")));
            is_refused(machine, &format!("the route to {to} by a router"), led);
            ip(&format!("route delete {to} {via}"));
        }
        // What leads to the router of IPv6 is itself by a router: so the kernel would refuse it, in the order of destinations.
        ip("route add 2001:db8:9::/64 via 2001:db8::5 dev up0");
        ip("route add 2001:db8::5/128 via 2001:db8::1 dev up0");
        is_refused(machine, "the route to 2001:db8:9::/64 by a router", "by another router");
        ip("route delete 2001:db8::5/128 dev up0");
        ip("route delete 2001:db8:9::/64 dev up0");
        // What a router of announcements alone led to.
        ip("address add 2001:db8:6::5/64 dev up0 nodad mngtmpaddr valid_lft 3600 preferred_lft 3600");
        until("the kernel's own route to it", || shown("-6 route show table local").contains("local 2001:db8:6::5 "));
        ip("route add 2001:db8:9::/64 via 2001:db8:6::1 dev up0");
        is_refused(machine, "the route to 2001:db8:9::/64 by a router", "announced");
        ip("route replace 2001:db8:9::/64 via 2001:db8::1 dev up0 src 2001:db8:6::5");
        is_refused(machine, "the route to 2001:db8:9::/64 from an address that ends", "a source that is announced");
        ip("route delete 2001:db8:9::/64 dev up0");
        ip("address delete 2001:db8:6::5/64 dev up0");
        ip("route delete 2001:db8:6::/64 dev up0");
        // Where something fixed leads there it is taken, and comes back.
        ip("route add 198.51.100.1/32 dev up0");
        ip("route add 203.0.113.0/24 via 198.51.100.1 dev up0");
        ip("route add 2001:db8:9::/64 via fe80::1 dev up0");
        // Of IPv4 there are no such announcements, whatever a route says.
        ip("route add 203.0.113.128/25 via 192.0.2.1 dev up0 proto ra");
        let before = machine.everything();
        machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
        machine.must(&["reset"]);
        assert_eq!(machine.everything(), before);
    });
}

#[test]
fn an_uplink_that_something_stands_on_is_not_taken() {
    on_a_machine(|machine| {
        let world = World::new();
        machine.configure_with(1, TAKE, "");
        let tunnels = [
            "type vxlan id 7 dev up0 dstport 4789 remote 203.0.113.9",
            "type gre local 192.0.2.7 remote 203.0.113.9 dev up0",
            "type gretap local 192.0.2.7 remote 203.0.113.9 dev up0",
            "type ipip local 192.0.2.7 remote 203.0.113.9 dev up0",
            "type sit local 192.0.2.7 remote 203.0.113.9 dev up0",
            "type ip6tnl local 2001:db8::7 remote 2001:db8::1 dev up0",
        ];
        for tunnel in tunnels {
            // Not every kernel has all of them; it always has the first.
            let made = Command::new("ip").args(["link", "add", "upon"]).args(tunnel.split(' ')).status().unwrap();
            assert!(made.success() || tunnel != tunnels[0], "{tunnel}");
            if made.success() {
                is_refused(machine, "upon on top of it", tunnel);
                ip("link delete upon");
            }
        }
        ip("link add upon link up0 type macvlan");
        is_refused(machine, "upon on top of it", "macvlan");
        // What a container has taken along is not seen from here: then nothing has moved when the kernel refuses it.
        ip(&format!("link set upon netns {}", world.path()));
        let before = (machine.everything(), shown("route show"), shown("-6 route show default"));
        let (code, why) = machine.run(&["apply", "--take-uplink", "--confirm-within", "3600"]);
        assert_eq!(code, 1, "{why}");
        assert!(why.contains("P0504") && why.contains("macvlan"), "{why}");
        // Routes that had moved would be back as `proto static`.
        assert_eq!((machine.everything(), shown("route show"), shown("-6 route show default")), before);
        world.inside(|| ip("link delete upon"));
        machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
        machine.must(&["reset"]);
    });
}

#[test]
fn a_route_of_the_other_ends_network_is_the_kernels_only_with_its_route() {
    on_a_machine(|machine| {
        let _world = World::new();
        machine.configure_with(1, TAKE, "");
        ip("address add 198.51.100.5 peer 198.51.100.1/32 dev up0 noprefixroute");
        ip("route add 198.51.100.1/32 dev up0 proto kernel scope link src 198.51.100.5");
        is_refused(machine, "198.51.100.1/32", "a program's");
        ip("address delete 198.51.100.5 peer 198.51.100.1/32 dev up0");
        ip("address add 198.51.100.5 peer 198.51.100.1/32 dev up0");
        let before = (machine.everything(), shown("-oneline address show dev up0"));
        machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
        machine.must(&["reset"]);
        assert_eq!(machine.everything(), before.0);
    });
}

#[test]
fn what_ipv6_was_told_for_one_interface_alone_is_not_lost() {
    on_a_machine(|machine| {
        let _world = World::new();
        machine.configure_with(1, TAKE, "");
        let set = |key: &str, value: &str| fs::write(format!("/proc/sys/net/ipv6/conf/up0/{key}"), value).unwrap();
        set("mtu", "1400");
        is_refused(machine, "the mtu 1400 for IPv6 alone", "mtu");
        set("mtu", "1500");
        // The address that the kernel would make, but does not.
        let near = node_format_plan::link_local(machine.network().links["up0"].mac);
        ip("link set up0 addrgenmode none");
        is_refused(machine, &near.to_string(), "made before, never again");
        ip("link set up0 addrgenmode eui64");
        machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
        assert_eq!(where_is(machine, "192.0.2.7/24"), ["plat0"]);
        machine.must(&["reset"]);
    });
}

#[test]
fn without_the_bridge_an_address_comes_back_with_its_other_end_its_metric_and_its_scope() {
    on_a_machine(|machine| {
        let world = World::with_ipv4();
        ip("route delete default");
        ip("address delete 192.0.2.7/24 dev up0");
        ip("address add 192.0.2.7 peer 192.0.2.1/32 dev up0 metric 50");
        ip("address add 2001:db8::7/64 dev up0 nodad metric 70");
        ip("route add default via 192.0.2.1 dev up0");
        ip("address add 198.51.100.9/32 dev up0 scope host");
        ip("address add 198.51.100.10/32 dev up0 scope link");
        machine.configure_with(1, TAKE, "");
        let routes = || {
            let six = shown("-6 route show dev up0");
            let of_its_network = six.lines().filter(|line| line.starts_with("2001:")).map(str::to_owned);
            (shown("route show dev up0").replace("proto static ", ""), of_its_network.collect::<Vec<_>>())
        };
        let before = (machine.everything(), routes());
        for verb in ["rollback", "reset"] {
            machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
            ip("link delete plat0");
            machine.must(&[verb]);
            let scopes = ["host", "link"].map(|scope| shown(&format!("-o address show dev up0 scope {scope}")));
            assert!(scopes[0].contains("198.51.100.9/32") && scopes[1].contains("198.51.100.10/32"), "{scopes:?}");
            machine.must(&["reset"]);
            assert_eq!((machine.everything(), routes()), before, "{verb}");
        }
        assert!(world.reaches(&["192.0.2.7:0"]));
    });
}
