//! What somebody else set and the kernel takes along with what is ours: refused, named, or kept.

mod last_address;

use super::effects::acting_before;
use super::machine::{Machine, ip, on_a_machine, until};
use super::uplink::{TAKE, World};
use node_format_plan::facts::AddressFact;
use std::fs;
use std::process::Command;

/// What a plan says is lost, without the plan, and without what it says of every user that goes.
fn notes(machine: &Machine, verb: &[&str]) -> Vec<String> {
    let said = machine.must(verb);
    let notes = said.lines().filter_map(|line| line.strip_prefix("! "));
    notes.filter(|note| !note.starts_with("what uid")).map(str::to_owned).collect()
}

fn routes_on(link: &str) -> String {
    let shown = Command::new("ip").args(["-4", "route", "show", "table", "all", "dev", link]).output().unwrap();
    String::from_utf8(shown.stdout).unwrap()
}

#[test]
fn an_interface_whose_only_addresses_would_be_the_partitions_keeps_its_routes() {
    on_a_machine(|machine| {
        ip("link set lo up");
        ip("link add nic type veth peer name wire");
        ip("link set wire up");
        ip("link set nic up");
        machine.configure_with(1, "mode = \"interface\"\nlink = \"nic\"\ntaps = false\nguard = false\n", "");
        let there = [
            ("route", "10.99.0.0/16 dev nic", "10.99.0.0/16"),
            ("route", "10.98.0.0/16 dev nic table 77", "10.98.0.0/16"),
            ("neighbour", "10.99.0.7 lladdr 02:00:00:00:00:77 nud permanent dev nic", "10.99.0.7"),
            ("neighbour", "proxy 10.99.0.8 dev nic", "10.99.0.8"),
        ];
        for (kind, what, named) in there {
            ip(&format!("{kind} add {what}"));
            let before = machine.everything();
            let (code, why) = machine.run(&["apply"]);
            assert_eq!(code, 4, "{what}: {why}");
            assert!(why.contains("P0511") && why.contains(named), "{what}: {why}");
            assert_eq!(machine.everything(), before);
            ip(&format!("{kind} delete {what}"));
        }
        // With an address of its own they depend on nobody else's.
        ip("address add 192.0.2.7/24 dev nic");
        there.iter().for_each(|(kind, what, _)| ip(&format!("{kind} add {what}")));
        let before = (machine.everything(), routes_on("nic"));
        machine.must(&["apply"]);
        assert_eq!(notes(machine, &["plan", "--reset"]), [""; 0]);
        machine.must(&["reset"]);
        assert_eq!((machine.everything(), routes_on("nic")), before);
    });
}

#[test]
fn what_was_set_later_where_only_partitions_have_addresses_is_named() {
    on_a_machine(|machine| {
        ip("link set lo up");
        ip("link add nic type veth peer name wire");
        ip("link set wire up");
        ip("link set nic up");
        machine.configure_with(1, "mode = \"interface\"\nlink = \"nic\"\ntaps = false\nguard = false\n", "");
        machine.must(&["apply"]);
        ip("route add 10.99.0.0/16 dev nic");
        ip("route add 10.98.0.0/16 dev nic table 77");
        assert_eq!(machine.must(&["verify"]), "the machine is as it was formatted\n");
        let notes = notes(machine, &["plan", "--reset"]);
        for lost in ["the route to 10.99.0.0/16", "the route 10.98.0.0/16 of table 77"] {
            let said =
                format!("the last IPv4 address goes from nic, and with it {lost}, which node-format did not make");
            assert!(notes.contains(&said), "{lost}: {notes:?}");
        }
        machine.must(&["reset"]);
        assert!(!routes_on("nic").contains("10.9"), "{}", routes_on("nic"));
    });
}

fn mtu(machine: &Machine, link: &str) -> u32 {
    machine.network().links[link].mtu.unwrap()
}

#[test]
fn a_bridge_of_large_packets_keeps_them_and_what_stands_on_it_too() {
    on_a_machine(|machine| {
        ip("link set lo up");
        ip("link add br0 address 02:00:00:00:00:10 type bridge");
        ip("link add nic mtu 9000 type veth peer name wire");
        ip("link set nic master br0");
        ip("link set br0 up");
        ip("link add upon link br0 type macvlan");
        let network = "mode = \"interface\"\nlink = \"br0\"\ntap_mode = \"bridged\"\nguard = false\n";
        machine.configure_with(1, network, "");
        let before = machine.everything();
        assert_eq!((mtu(machine, "br0"), mtu(machine, "upon")), (9000, 9000));
        machine.must(&["apply"]);
        assert_eq!((mtu(machine, "br0"), mtu(machine, "upon"), mtu(machine, "part0")), (9000, 9000, 9000));
        assert_eq!(machine.must(&["apply"]), "nothing to do\n");
        machine.must(&["reset"]);
        assert_eq!(machine.everything(), before);
        // So that taps are all that comes.
        for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            fs::write(format!("/proc/sys/net/{key}"), "1").unwrap();
        }
        // Whoever asks for less is told whom that takes it from, where taps are made and where they are there.
        let lesser = "br0, which takes packets of 9000 bytes, takes 1500 while taps of this `mtu` are its ports; so does \
                      what stands on it, afterwards too: upon";
        for taps in [false, true] {
            ip("link set upon mtu 9000");
            machine.configure_with(1, &format!("{network}taps = {taps}\n"), "");
            machine.must(&["apply"]);
            machine.configure_with(1, &format!("{network}mtu = 1500\n"), LIMITS);
            assert_eq!(notes(machine, &["plan"]), [lesser]);
            let why = failing_at_the_end(machine);
            assert!(why.contains(&format!("but for what may have gone along: {lesser}\n")), "{why}");
            assert_eq!((mtu(machine, "br0"), mtu(machine, "upon")), (9000, 1500));
            assert_eq!(notes(machine, &["plan"]), [lesser.trim_end_matches(": upon")]);
        }
    });
}

/// So that `node.json` is to be another one.
pub const LIMITS: &str = "[limits]\nmemory_mib = 512\n";

/// An `apply` that fails at this, the name under which a file is on its way to its place.
pub fn failing_at(machine: &Machine, on_its_way: &str) -> String {
    let in_the_way = machine.path(on_its_way);
    fs::create_dir_all(in_the_way.join("here")).unwrap();
    let (code, why) = machine.run(&["apply"]);
    fs::remove_dir_all(in_the_way).unwrap();
    assert_eq!(code, 1, "{why}");
    why
}

/// At the last thing that it does.
pub fn failing_at_the_end(machine: &Machine) -> String {
    failing_at(machine, "var/lib/plat/.node-format-node.json")
}

#[test]
fn links_on_a_bridge_that_is_to_take_smaller_packets_are_named() {
    on_a_machine(|machine| {
        ip("link set lo up");
        let network = "mode = \"bridge\"\nguard = false\n";
        machine.configure_with(1, network, "");
        machine.must(&["apply"]);
        for (link, mtu) in [("upon", 1500), ("less", 1300)] {
            ip(&format!("link add link plat0 name {link} mtu {mtu} type macvlan mode bridge"));
        }
        machine.configure_with(1, &format!("{network}mtu = 1400\n"), LIMITS);
        let lesser =
            "plat0 takes packets of 1400 bytes instead of 1500; so does what stands on it, afterwards too: upon";
        assert_eq!(notes(machine, &["plan"]), [lesser]);
        let why = failing_at_the_end(machine);
        assert!(why.contains(&format!("before the run but for what may have gone along: {lesser}\n")), "{why}");
        assert_eq!(["plat0", "upon", "less", "part0"].map(|link| mtu(machine, link)), [1500, 1400, 1300, 1500]);
        // Now it takes nothing from anybody, nor does more.
        assert_eq!(notes(machine, &["plan"]), [""; 0]);
        machine.must(&["apply"]);
        machine.configure_with(1, network, "");
        assert_eq!(notes(machine, &["apply"]), [""; 0]);
        machine.must(&["reset"]);
    });
}

#[test]
fn an_uplink_of_large_packets_keeps_them_on_the_bridge() {
    on_a_machine(|machine| {
        let world = World::new();
        ip("link set up0 mtu 9000");
        machine.configure_with(1, TAKE, "");
        let before = machine.everything();
        machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
        assert_eq!((mtu(machine, "plat0"), mtu(machine, "part0")), (9000, 9000));
        machine.must(&["reset"]);
        assert_eq!(machine.everything(), before);
        assert!(world.is_reached());
        machine.configure_with(1, &format!("{TAKE}mtu = 1500\n"), "");
        let notes = notes(machine, &["plan", "--take-uplink"]);
        assert!(
            notes.iter().any(|note| note.contains("up0 takes packets of 9000 bytes, plat0 takes 1500")),
            "{notes:?}"
        );
    });
}

#[test]
fn all_that_goes_with_a_bridge_is_named() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(1);
        machine.must(&["apply"]);
        assert_eq!(notes(machine, &["plan", "--reset"]), [""; 0]);
        ip("link add upon link plat0 type macvlan");
        ip("route add 10.98.0.0/16 dev plat0 table 77");
        ip("neighbour add 10.99.0.7 lladdr 02:00:00:00:00:77 nud permanent dev plat0");
        let notes = notes(machine, &["plan", "--reset"]);
        let lost = [
            "the link upon on top of it",
            "the route 10.98.0.0/16 of table 77",
            "the neighbour 10.99.0.7, set by hand",
        ];
        for lost in lost {
            let said = format!("plat0 goes, and with it {lost}, which node-format did not make");
            assert!(notes.contains(&said), "{lost}: {notes:?}");
        }
        machine.must(&["reset"]);
        assert_eq!(machine.network().links.keys().collect::<Vec<_>>(), ["lo"]);
    });
}

fn bridge(arguments: &str) -> bool {
    Command::new("bridge").args(arguments.split(' ')).status().unwrap().success()
}

#[test]
fn what_was_set_in_the_tables_of_a_bridge_is_named() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(2);
        machine.must(&["apply"]);
        ip("link add upon link plat0 type macvlan");
        ip("link set upon up");
        let of_others = "plat0 goes, and with it the link upon on top of it, which node-format did not make";
        assert_eq!(notes(machine, &["plan", "--reset"]), [of_others]);
        ip("link add nic type veth peer name wire");
        ip("link set nic master plat0 up");
        ip("link set wire up");
        // What is learned, and what the kernel makes of addresses, comes again. A port learns nothing before it is heard on.
        until("the port learns", || bridge("fdb add 02:00:00:00:00:70 dev nic master dynamic"));
        let stands_alone = "plat0 goes, and nic, which node-format did not join to it, stands alone then";
        assert_eq!(notes(machine, &["plan", "--reset"]), [stands_alone, of_others]);
        for entry in ["71 dev part0 master static", "72 dev part0", "73 dev plat0 self", "74 dev nic master permanent"]
        {
            assert!(bridge(&format!("fdb add 02:00:00:00:00:{entry}")), "{entry}");
        }
        // Some kernels have no VLANs of bridges.
        let has_vlans = bridge("vlan add vid 10 dev part1");
        let notes_of = |verb: &[&str]| -> Vec<String> {
            let found = notes(machine, verb).into_iter().filter(|note| note.contains("`bridge "));
            found.map(|note| note.strip_suffix(", which node-format did not make").unwrap().to_owned()).collect()
        };
        let goes = |link: &str, what: &str| format!("{link} goes, and with it {what}");
        let entry = |mac: &str| format!("the entry 02:00:00:00:00:{mac} set with `bridge fdb`");
        let vlans = |note: String| has_vlans.then_some(note);
        let of_the_bridge = [goes("plat0", &entry("73")), goes("plat0", &format!("{} on nic", entry("74")))];
        let of_ports = [goes("part0", &entry("71")), goes("part0", &entry("72"))];
        let of_the_other = vlans(goes("part1", "the VLANs set with `bridge vlan`"));
        let all: Vec<_> = of_the_bridge.iter().chain(&of_ports).chain(&of_the_other).cloned().collect();
        assert_eq!(notes_of(&["plan", "--reset"]), all);
        // A port that goes to another bridge keeps what it takes itself.
        machine.configure_with(2, "mode = \"bridge\"\nlink = \"plat1\"\nguard = false\n", "");
        let leaves = |link: &str, what: &str| format!("{link} goes from plat0, and with it {what}");
        let left = [Some(leaves("part0", &entry("71"))), vlans(leaves("part1", "the VLANs set with `bridge vlan`"))];
        let all: Vec<_> = of_the_bridge.iter().chain(left.iter().flatten()).cloned().collect();
        assert_eq!(notes_of(&["plan"]), all);
        machine.configure(1);
        assert_eq!(notes_of(&["apply"]), of_the_other.into_iter().collect::<Vec<_>>());
        machine.must(&["reset"]);
    });
}

#[test]
fn an_address_that_goes_with_one_of_ours_is_named() {
    on_a_machine(|machine| {
        ip("link set lo up");
        fs::write("/proc/sys/net/ipv4/conf/all/promote_secondaries", "0").unwrap();
        fs::write("/proc/sys/net/ipv4/conf/default/promote_secondaries", "0").unwrap();
        machine.configure_with(1, "mode = \"bridge\"\ngateway = true\nguard = false\n", "");
        machine.must(&["apply"]);
        ip("address add 10.200.77.7/16 dev plat0");
        machine.configure_with(1, "mode = \"bridge\"\ngateway = false\nguard = false\n", "");
        let goes = "10.200.0.1/16 goes from plat0, and with it 10.200.77.7/16";
        let said = notes(machine, &["plan"]);
        assert!(said.iter().any(|note| note.starts_with(goes)), "{said:?}");
        // Where it is told to, the kernel keeps it.
        fs::write("/proc/sys/net/ipv4/conf/plat0/promote_secondaries", "1").unwrap();
        assert_eq!(notes(machine, &["plan"]), [""; 0]);
        machine.must(&["apply"]);
        let stays = "10.200.77.7/16".parse().unwrap();
        assert!(machine.network().addresses.iter().any(|found| found.address == stays));
    });
}

#[test]
fn what_went_along_with_a_link_that_is_made_again_is_named_by_the_run_that_failed() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(1);
        machine.must(&["apply"]);
        ip("address add 172.31.0.1/24 dev plat0");
        ip("link set part0 alias his");
        let home = machine.path("srv/plat/partitions/part0");
        let (code, why) = acting_before("unlinkat", &machine.command(&["reset"]), || {
            fs::write(home.join("srv/his"), "").unwrap();
        });
        let lost = "plat0 goes, and with it the address 172.31.0.1/24, which node-format did not make";
        let said =
            format!("the machine is as it was before the run but for what may have gone along: {lost}; and for what");
        assert!(code == 1 && why.contains(&said) && why.contains("aliases"), "{why}");
        assert!(why.contains("if somebody set it: part0, plat0\n"), "{why}");
        fs::remove_file(home.join("srv/his")).unwrap();
        machine.must(&["reset"]);
    });
}

#[test]
fn routes_from_an_address_that_goes_are_named_whatever_they_have_besides() {
    on_a_machine(|machine| {
        ip("link set lo up");
        ip("link add wg0 type veth peer name far");
        ip("link set wg0 up");
        machine.configure(2);
        machine.must(&["apply"]);
        let set_ipv6 = || ip("route add 2001:db8:9::/48 dev wg0 src fd00:1::2:0:0:1 table 99");
        let sourced = || {
            let shown = Command::new("ip").args(["-6", "route", "show", "table", "99"]).output().unwrap();
            let shown = String::from_utf8(shown.stdout).unwrap();
            assert!(shown.contains("2001:db8:9::/48"), "{shown}");
            shown.contains("src fd00:1::2:0:0:1")
        };
        set_ipv6();
        assert!(sourced());
        let of_ipv6 = "fd00:1::2:0:0:1 goes, and the route 2001:db8:9::/48 of table 99 by wg0, which is from there and \
                       which node-format did not make, goes on without it";
        for rest in ["10.91.0.0/16 mtu 1400", "tos 0x10 10.92.0.0/16", "10.93.0.0/16"] {
            ip(&format!("route add {rest} dev wg0 src 10.200.0.3"));
        }
        ip("route add 10.94.0.0/16 dev wg0 src 10.200.0.3 table 77");
        machine.configure(1);
        let said = notes(machine, &["plan"]);
        let named =
            |to: &str| said.iter().any(|note| note.starts_with("10.200.0.3 goes, and the route") && note.contains(to));
        assert!(["10.91.0.0", "10.92.0.0", "10.93.0.0"].into_iter().all(named), "{said:?}");
        assert!(!named("10.94.0.0"), "{said:?}");
        // The kernel takes a source of IPv6 from routes of every table.
        assert!(said.iter().any(|note| note == of_ipv6), "{said:?}");
        assert!(notes(machine, &["apply"]).iter().any(|note| note == of_ipv6));
        assert!(!sourced());
        let shown = Command::new("ip").args(["route", "show", "table", "all", "dev", "wg0"]).output().unwrap();
        let left = String::from_utf8(shown.stdout).unwrap();
        assert!(left.contains("10.94.0.0") && !left.contains("10.91") && !left.contains("10.92"), "{left}");
        ip("route replace 2001:db8:9::/48 dev wg0 src fd00:1::1:0:0:1 table 99");
        let of_ipv6 = of_ipv6.replace("fd00:1::2", "fd00:1::1");
        assert!(notes(machine, &["reset"]).contains(&of_ipv6));
    });
}

#[test]
fn what_goes_with_the_state_and_the_hardware_address_of_links_that_stay_is_named() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(1);
        machine.must(&["apply"]);
        ip("address add 2001:db8:77::1/64 dev part0 nodad");
        ip("address add 172.31.0.1/24 dev part0");
        ip("route add 10.98.0.0/16 dev part0 table 77");
        ip("route add 10.97.0.0/16 dev part0");
        for link in ["part0", "plat0"] {
            ip(&format!("neighbour add 10.99.0.7 lladdr 02:00:00:00:00:77 nud permanent dev {link}"));
        }
        ip("neighbour add proxy 10.99.0.8 dev plat0");
        // Another prefix: another hardware address of each.
        let config = fs::read_to_string(machine.path("format.toml")).unwrap();
        fs::write(machine.path("format.toml"), config.replace("fd00:1::/64", "fd00:2::/64")).unwrap();
        let gone = |link: &str| {
            let what = "the neighbour 10.99.0.7, set by hand, which node-format did not make";
            format!("{link} gets another hardware address, and with the old one goes {what}")
        };
        assert_eq!(notes(machine, &["plan"]), [gone("plat0"), gone("part0")]);
        machine.configure_with(1, "mode = \"bridge\"\nlink = \"plat1\"\nguard = false\n", "");
        let what = ["address 2001:db8:77::1/64", "route to 10.97.0.0/16", "neighbour 10.99.0.7, set by hand"];
        let said = notes(machine, &["apply"]);
        for what in what.iter().chain(&["route 10.98.0.0/16 of table 77"]) {
            let said_so = |note: &String| {
                note.starts_with(&format!("part0 is set down on its way to plat1, and with it goes the {what}, which"))
            };
            assert!(said.iter().any(said_so), "{what}: {said:?}");
        }
        let left: Vec<_> = machine.network().addresses.into_iter().filter(|found| found.link == "part0").collect();
        assert!(left.iter().any(|found| found.address.to_string() == "172.31.0.1/24"), "{left:?}");
        assert!(!left.iter().any(|found| found.address.to_string() == "2001:db8:77::1/64"), "{left:?}");
        machine.must(&["reset"]);
    });
}

#[test]
fn a_link_local_address_of_our_own_is_not_said_to_be_somebody_elses() {
    on_a_machine(|machine| {
        ip("link set lo up");
        ip("link add nic type veth peer name wire");
        ip("link set wire up");
        ip("link set nic up");
        machine.configure_with(1, "mode = \"interface\"\nlink = \"nic\"\nguard = false\n", "");
        machine.must(&["apply"]);
        let is_near = |found: &AddressFact| found.link == "part0" && found.address.to_string() == "fe80::1/64";
        assert!(machine.network().addresses.iter().any(is_near));
        assert_eq!(notes(machine, &["plan", "--reset"]), [""; 0]);
        ip("address add fe80::77/64 dev part0 nodad");
        let said = notes(machine, &["plan", "--reset"]);
        assert!(said.len() == 1 && said[0].contains("the link-local address fe80::77/64"), "{said:?}");
        machine.must(&["reset"]);
    });
}
