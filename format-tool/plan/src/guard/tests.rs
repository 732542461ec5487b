use crate::facts::Guard;
use crate::{Layout, config};

const RANGES: &str = "ipv6_prefix = \"fd00:1::/64\"\nipv4_network = \"10.9.0.0/16\"\n";

/// The guard of a node of this many partitions, with these lines in [network].
fn guard(amount: u32, network: &str) -> Option<Guard> {
    let text = format!("version = 1\n[partitions]\namount = {amount}\n[network]\n{network}\n[builder]\n");
    Layout::new(&config::parse("test.toml", &text).unwrap()).unwrap().guard
}

fn bridge(amount: u32, more: &str) -> Guard {
    guard(amount, &format!("mode = \"bridge\"\n{RANGES}{more}")).unwrap()
}

/// The elements of one set.
fn elements<'g>(guard: &'g Guard, set: &str) -> Vec<&'g str> {
    guard.elements.iter().filter_map(|element| element.strip_prefix(set)?.strip_prefix(' ')).collect()
}

#[test]
fn a_uid_has_its_own_addresses_and_all_others_are_taken() {
    let guard = bridge(2, "");
    assert_eq!(elements(&guard, "users"), ["20000-20001"]);
    assert_eq!(elements(&guard, "own4"), ["20000 . 10.9.0.2", "20001 . 10.9.0.3"]);
    let own6 = ["20000 . fd00:1:0:0:1::-fd00:1::1:7fff:ffff:ffff", "20001 . fd00:1:0:0:2::-fd00:1::2:7fff:ffff:ffff"];
    assert_eq!(elements(&guard, "own6"), own6);
    assert_eq!(elements(&guard, "taken4"), ["10.9.0.2-10.9.0.3", "10.9.128.0-10.9.128.1"]);
    assert_eq!(elements(&guard, "main6"), ["20000 : fd00:1::1:0:0:1", "20001 : fd00:1::2:0:0:1"]);
}

#[test]
fn what_is_behind_a_bridged_tap_has_its_hardware_address_and_what_follows_from_it() {
    let guard = bridge(1, "");
    assert_eq!(elements(&guard, "port_macs"), ["part0 . 06:a0:c5:b1:00:00"]);
    assert_eq!(elements(&guard, "port_own4"), ["part0 . 10.9.128.0"]);
    let own6 = ["part0 . fd00:1::1:8000:0:0-fd00:1::1:bfff:ffff:ffff", "part0 . fe80::4a0:c5ff:feb1:0"];
    assert_eq!(elements(&guard, "port_own6"), own6);
    assert_eq!(elements(&guard, "port_targets"), own6);
    assert!(guard.script.contains("\"part0\" . 0xfe8000000000000004a0c5fffeb10000"), "{}", guard.script);
}

#[test]
fn routed_taps_and_tuns_are_held_by_their_links_and_no_bridge_is_watched() {
    let guard = bridge(1, "tap_mode = \"routed\"\ntuns = true\ntun_ipv4_network = \"172.16.0.0/12\"\n");
    assert!(!guard.script.contains("table bridge"), "{}", guard.script);
    assert_eq!(elements(&guard, "links"), ["part-tun0", "part0"]);
    assert_eq!(elements(&guard, "link_macs"), ["part0 . 06:a0:c5:b1:00:00"]);
    assert_eq!(elements(&guard, "link_own4"), ["part-tun0 . 172.16.0.0-172.16.0.63", "part0 . 10.9.128.0"]);
    // A process has the tun's range too, and may be reached on the machine's end of it.
    assert_eq!(elements(&guard, "own4"), ["20000 . 10.9.0.2", "20000 . 172.16.0.0-172.16.0.63"]);
    assert_eq!(elements(&guard, "same4"), ["10.9.0.2 . 10.9.0.2", "172.16.0.1 . 172.16.0.1"]);
}

#[test]
fn shares_that_touch_are_taken_as_one() {
    let guard = bridge(3, "tuns = true\n");
    assert_eq!(elements(&guard, "taken6"), ["fd00:1:0:0:1::-fd00:1::3:ffff:ffff:ffff"]);
}

#[test]
fn without_users_the_taps_are_held_and_without_taps_nothing_is() {
    let text = |taps: bool| {
        format!(
            "version = 1\n[partitions]\namount = 1\nusers = false\n[network]\nmode = \"bridge\"\n{RANGES}\
             taps = {taps}\nguard = {taps}\n"
        )
    };
    let guard = |taps| Layout::new(&config::parse("test.toml", &text(taps)).unwrap()).unwrap().guard;
    assert!(guard(true).is_some_and(|guard| !guard.script.contains("table inet")));
    assert_eq!(guard(false), None);
}

#[test]
fn there_is_nothing_to_guard_on_a_node_without_partitions_or_addresses() {
    assert_eq!(guard(0, &format!("mode = \"bridge\"\n{RANGES}")), None);
    assert_eq!(guard(3, "mode = \"none\"\nguard = true"), None);
}

#[test]
fn there_are_as_many_rules_for_one_partition_as_for_a_thousand() {
    let (one, all) = (bridge(1, ""), bridge(1_000, ""));
    assert_eq!(one.rules, all.rules);
    assert_eq!(elements(&all, "own4").len(), 1_000);
    assert_eq!(elements(&all, "users"), ["20000-20999"]);
}

#[test]
fn the_fingerprint_is_in_the_comment_and_follows_from_all_the_rest() {
    let (two, three) = (bridge(2, ""), bridge(3, ""));
    assert_eq!(two, bridge(2, ""));
    assert_ne!(two.fingerprint, three.fingerprint);
    let comment = format!("comment \"node-format {}\"", two.fingerprint);
    assert_eq!(two.script.matches(&comment).count(), 2, "one for each table");
}

#[test]
fn addresses_in_127_are_own_before_they_are_loopback() {
    let guard = guard(2, "mode = \"loopback\"\nguard = true").unwrap();
    assert_eq!(elements(&guard, "own4"), ["20000 . 127.0.0.2", "20001 . 127.0.0.3"]);
    let at = |rule: &str| guard.script.find(rule).unwrap();
    assert!(at("ip saddr @taken4 goto refuse") < at("ip saddr 127.0.0.0/8 accept"));
}

#[test]
fn in_namespaces_processes_are_held_at_the_port_alone() {
    let guard = bridge(1, "namespaces = true\n");
    assert!(!guard.script.contains("table inet") && elements(&guard, "users").is_empty());
    assert_eq!(elements(&guard, "port_own4"), ["part-v0 . 10.9.0.2"]);
}
