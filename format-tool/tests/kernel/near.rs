//! The link-local addresses of links that stay and get another hardware address.

use super::effects::{acting_before, acting_once};
use super::guard::tap::Guest;
use super::machine::{Machine, ip, on_a_machine, until};
use super::uplink::{World, where_is};
use node_format_plan::link_local;

/// Those of a link.
fn near(machine: &Machine, link: &str) -> Vec<String> {
    let all = machine.network().addresses.into_iter().filter(|found| found.link == link);
    let mut all: Vec<String> =
        all.map(|found| found.address.to_string()).filter(|address| address.starts_with("fe80:")).collect();
    all.sort();
    all
}

/// What follows from the hardware address that it has.
fn of_its_mac(machine: &Machine, link: &str) -> String {
    format!("{}/64", link_local(machine.network().links[link].mac))
}

fn said(machine: &Machine, verb: &[&str]) -> Vec<String> {
    machine
        .must(verb)
        .lines()
        .filter(|line| line.starts_with("! ") && line.contains("fe80"))
        .map(String::from)
        .collect()
}

#[test]
fn a_machine_that_is_given_an_uplink_is_reached_by_the_link_local_address_that_it_had() {
    on_a_machine(|machine| {
        let world = World::new();
        let network = "mode = \"bridge\"\nguard = false\ngateway = false\n";
        machine.configure_with(2, network, "");
        machine.must(&["apply"]);
        // With somebody on a tap the bridge is ready, and has its address before the uplink comes.
        let _guest = Guest::behind_tap("part0");
        until("the bridge has one", || !near(machine, "plat0").is_empty());
        let (own, of_up0) = (of_its_mac(machine, "plat0"), of_its_mac(machine, "up0"));
        until("so has the interface", || where_is(machine, &of_up0) == ["up0"]);
        machine.configure_with(2, &format!("{network}uplink = \"up0\"\n"), "");
        machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
        assert_eq!((near(machine, "plat0"), where_is(machine, &of_up0)), (vec![of_up0.clone()], vec!["plat0".into()]));
        assert!(world.is_reached());
        // Whoever has a way by it, as a router may have to the partitions.
        world.inside(move || ip(&format!("route add fd00:1::/64 via {} dev router", of_up0.trim_end_matches("/64"))));
        let own_of_partition = std::net::TcpListener::bind("[fd00:1::1:0:0:1]:80").unwrap();
        let at = own_of_partition.local_addr().unwrap();
        let reached =
            world.inside(move || std::net::TcpStream::connect_timeout(&at, std::time::Duration::from_secs(10)));
        assert!(reached.is_ok(), "{reached:?}");
        assert_eq!(said(machine, &["plan", "--reset"]), [""; 0]);
        machine.must(&["rollback"]);
        machine.configure_with(2, network, "");
        machine.must(&["apply"]);
        assert_eq!((near(machine, "plat0"), said(machine, &["plan", "--reset"])), (vec![own], vec![]));
        machine.must(&["reset"]);
    });
}

#[test]
fn a_link_local_address_of_a_hardware_address_that_a_tap_had_is_nobodys() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(1);
        machine.must(&["apply"]);
        let guest = Guest::behind_tap("part0");
        until("it has one", || !near(machine, "part0").is_empty());
        let first = near(machine, "part0");
        guest.takes([2, 0, 0, 0, 0, 0x77]);
        assert_eq!((near(machine, "part0"), said(machine, &["plan", "--reset"])), (first.clone(), vec![]));
        machine.must(&["apply"]);
        assert_eq!(near(machine, "part0"), first);
        // What somebody set is his, also where it looks like what the kernel would make of the hardware address.
        ip("address add fe80::77/64 dev part0 nodad");
        assert_eq!(said(machine, &["plan", "--reset"]).len(), 1);
        guest.takes([2, 0, 0, 0, 0, 0x78]);
        ip("address add fe80::ff:fe00:78/64 dev part0 nodad");
        let notes = said(machine, &["plan", "--reset"]);
        assert!(notes.len() == 2 && notes.iter().any(|note| note.contains("fe80::ff:fe00:78/64")), "{notes:?}");
        machine.must(&["reset"]);
    });
}

#[test]
fn a_run_that_fails_leaves_the_link_local_addresses_of_a_tap_that_had_another_hardware_address() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(2);
        machine.must(&["apply"]);
        let guests = ["part0", "part1"].map(Guest::behind_tap);
        let both = |machine: &Machine| ["part0", "part1"].map(|link| near(machine, link));
        until("each has one", || both(machine).iter().all(|all| !all.is_empty()));
        guests.iter().for_each(|guest| guest.takes([2, 0, 0, 0, 0, 0x77]));
        // What follows from the old one on the first, which somebody set on the other besides that of the new one.
        let first = near(machine, "part1").remove(0);
        ip("link set part1 down");
        ip("link set part1 up");
        until("the kernel made another", || near(machine, "part1") == ["fe80::ff:fe00:77/64"]);
        ip(&format!("address add {first} dev part1 nodad"));
        let before = both(machine);
        let is_mended = || machine.network().links["part0"].mac != [2, 0, 0, 0, 0, 0x77];
        std::fs::remove_file(machine.path("srv/plat/resources/part0/resource.json")).unwrap();
        let (code, why) = acting_once("fdatasync", &machine.command(&["apply"]), || {
            is_mended() && {
                ip("address delete 10.200.0.2/32 dev plat0");
                true
            }
        });
        assert!(code == 1 && why.contains("the machine is not as it was made"), "{why}");
        assert_eq!((both(machine), is_mended()), (before, false), "{why}");
        machine.must(&["apply"]);
        machine.must(&["reset"]);
    });
}

#[test]
fn a_link_that_got_the_wanted_hardware_address_meanwhile_keeps_its_link_local_address() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure_with(1, "mode = \"bridge\"\nguard = false\ntaps = false\nnamespaces = true\n", "");
        machine.must(&["apply"]);
        let wanted = of_its_mac(machine, "part-v0");
        let own = machine.network().links["part-v0"].mac.map(|byte| format!("{byte:02x}")).join(":");
        let takes = |mac: &str| {
            ip("link set part-v0 down");
            ip(&format!("link set part-v0 address {mac}"));
            ip("link set part-v0 up");
            until("it has one", || !near(machine, "part-v0").is_empty());
        };
        takes("02:00:00:00:00:77");
        assert_eq!(near(machine, "part-v0"), ["fe80::ff:fe00:77/64"]);
        assert!(machine.must(&["plan"]).contains("namespace part0 by part-v0 other link\n"));
        // After the run has looked.
        let (code, why) = acting_before("fdatasync", &machine.command(&["apply"]), || takes(&own));
        assert_eq!((code, near(machine, "part-v0")), (0, vec![wanted]), "{why}");
        machine.must(&["verify"]);
        machine.must(&["reset"]);
    });
}
