//! Machines whose network has no room for a node's: routes of every kind that lead a range elsewhere, or nowhere, and IPv6
//! that is switched off.

use super::machine::{ip, on_a_machine};

/// Two interfaces with a network each, and a network of somebody's behind both.
fn interfaces() {
    ip("link set lo up");
    for (n, name) in ["eth7", "eth8"].iter().enumerate() {
        ip(&format!("link add {name} type veth peer name far{n}"));
        ip(&format!("link set far{n} up"));
        ip(&format!("link set {name} up"));
        ip(&format!("address add 192.0.{n}.7/24 dev {name}"));
        ip(&format!("address add 2001:db8:{n}::7/64 dev {name} nodad"));
    }
    ip("nexthop add id 9 via 192.0.0.1 dev eth7");
}

const IPV4: [&str; 10] = [
    "nexthop via 192.0.0.1 dev eth7 nexthop via 192.0.1.1 dev eth8",
    "nhid 9",
    "via 192.0.0.1 dev eth7 mtu 1400",
    "via 192.0.0.1 dev eth7 tos 0x10",
    "dev eth7 proto kernel scope link",
    "dev eth7 scope host",
    "BLACKHOLE",
    "UNREACHABLE",
    "PROHIBIT",
    "BLACKHOLE proto kernel",
];
const IPV6: [&str; 5] = [
    "nexthop via 2001:db8:0::1 dev eth7 nexthop via 2001:db8:1::1 dev eth8",
    "dev eth7 proto kernel metric 256",
    "dev eth7 expires 900",
    "via 2001:db8:0::1 dev eth7 mtu 1400",
    "UNREACHABLE",
];

/// As `ip route` wants it said.
fn said(to: &str, how: &str) -> String {
    match how.split_once(' ').unwrap_or((how, "")) {
        (kind, rest) if kind.chars().all(char::is_uppercase) => {
            format!("{} {to} {rest}", kind.to_lowercase()).trim_end().to_owned()
        }
        _ => format!("{to} {how}"),
    }
}

#[test]
fn a_range_that_a_route_of_any_kind_leads_elsewhere_is_refused() {
    on_a_machine(|machine| {
        interfaces();
        machine.configure(1);
        let before = machine.everything();
        let all = IPV4.iter().map(|how| ("10.200.9.0/24", how)).chain(IPV6.iter().map(|how| ("fd00:1::/96", how)));
        for (to, how) in all {
            let route = said(to, how);
            ip(&format!("route add {route}"));
            let (code, why) = machine.run(&["apply"]);
            assert!(code == 4 && why.contains("P0507") && why.contains(to), "{route}: {why}");
            assert!(how.contains("proto") || how.contains(char::is_uppercase) || why.contains("eth7"), "{why}");
            ip(&format!("route delete {route}"));
            assert_eq!(machine.everything(), before, "{route}");
        }
        // Of another table, or to more than the range.
        ip("route add 10.200.9.0/24 dev eth7 table 77");
        ip("route add blackhole 10.0.0.0/8");
        // What a routing program sets behind all that it announces.
        ip("route add blackhole 10.200.0.0/16 metric 4000");
        ip("route add unreachable fd00:1::/64 metric 2048");
        machine.must(&["apply"]);
        // What somebody sets on the node's own links does not lead elsewhere.
        ip("route add 10.200.9.0/24 dev plat0 mtu 1400");
        ip("route add 10.200.10.0/24 nexthop dev plat0 nexthop dev part0");
        machine.must(&["verify"]);
        machine.must(&["apply"]);
        machine.must(&["reset"]);
    });
}

#[test]
fn no_range_is_proposed_that_a_route_of_any_kind_leads_into() {
    on_a_machine(|machine| {
        interfaces();
        let proposed = || {
            let text = machine.must(&["init", "--stdout"]);
            let value = |key: &str| {
                text.lines().find(|line| line.starts_with(key)).unwrap().split('"').nth(1).unwrap().to_owned()
            };
            (value("ipv4_network"), value("ipv6_prefix"))
        };
        let free = proposed();
        let (to, to_ipv6) = ("10.112.9.0/24", free.1.clone());
        assert_eq!(free.0, "10.112.0.0/16");
        for how in IPV4.into_iter().chain(["dev eth7 table 77"]) {
            let route = said(to, how);
            ip(&format!("route add {route}"));
            assert_eq!(proposed(), ("10.113.0.0/16".into(), to_ipv6.clone()), "{route}");
            ip(&format!("route delete {route}"));
        }
        for how in IPV6.into_iter().chain(["dev eth7 table 77"]) {
            let route = said(&to_ipv6, how);
            ip(&format!("route add {route}"));
            assert_ne!(proposed().1, to_ipv6, "{route}");
            ip(&format!("route delete {route}"));
        }
        assert_eq!(proposed(), free);
        ip("route add default nexthop via 192.0.0.1 dev eth7 nexthop via 192.0.1.1 dev eth8");
        let text = machine.must(&["init", "--stdout"]);
        assert!(text.contains("reached through eth7") && text.contains("reached through eth8"), "{text}");
    });
}

#[test]
fn where_ipv6_is_switched_off_none_is_proposed_and_a_prefix_is_refused() {
    on_a_machine(|machine| {
        ip("link set lo up");
        for of in ["all", "default"] {
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{of}/disable_ipv6"), "1").unwrap();
        }
        machine.configure(1);
        let before = machine.everything();
        let (code, why) = machine.run(&["apply"]);
        assert!(code == 4 && why.contains("P0503") && why.contains("conf.default.disable_ipv6"), "{why}");
        assert_eq!(machine.everything(), before);
        std::fs::remove_file(machine.path("format.toml")).unwrap();
        machine.must(&["init", "--partitions", "1"]);
        let text = std::fs::read_to_string(machine.path("format.toml")).unwrap();
        assert!(text.contains("conf.default.disable_ipv6"), "{text}");
        let text = text.replace("guard        = true", "guard = false");
        std::fs::write(machine.path("format.toml"), text).unwrap();
        machine.must(&["apply"]);
        machine.must(&["verify"]);
        machine.must(&["reset"]);
    });
}
