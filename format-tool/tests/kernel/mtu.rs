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
fn a_bridge_that_takes_less_for_a_port_of_somebody_elses_is_said_to() {
    on_a_machine(|machine| {
        let _world = taken(machine, "");
        ip("link set plat0 mtu 1450");
        ip("link set plat0 mtu 1500");
        ip("link add d0 type veth peer name d1");
        ip("link set d0 mtu 1300 up");
        ip("link set d0 master plat0");
        let plan = machine.must(&["plan"]);
        let note =
            "! up0 takes packets of 1500 bytes, plat0 takes 1300 (as its port d0 does): so does the machine there";
        assert!(plan.contains(note), "{plan}");
        machine.must(&["apply"]);
        assert_eq!(mtus(machine), [Some(1300), Some(1500)]);
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

#[test]
fn what_somebody_set_of_ipv6_is_named_where_a_link_gets_another_mtu() {
    on_a_machine(|machine| {
        let _world = World::new();
        let pairs = "taps = false\nnamespaces = true\ngateway = true\n";
        machine.configure_with(1, &format!("{TAKE}{pairs}"), "");
        machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
        machine.must(&["confirm"]);
        std::fs::write("/proc/sys/net/ipv6/conf/plat0/mtu", "1280").unwrap();
        for route in [
            "2001:db8:40::/48 via 2001:db8::9 dev plat0 mtu 1450",
            "2001:db8:41::/48 via 2001:db8::9 dev plat0 mtu 1450 table 99",
            "2001:db8:42::/48 via 2001:db8::9 dev plat0 mtu 1280",
            "2001:db8:43::/48 via 2001:db8::9 dev plat0 mtu 1400",
            // These the kernel leaves alone.
            "2001:db8:44::/48 via 2001:db8::9 dev plat0 mtu lock 1450",
            "2001:db8:45::/48 via 2001:db8::9 dev plat0 mtu 1300",
        ] {
            ip(&format!("-6 route add {route}"));
        }
        let netns = machine.path("run/netns/part0").display().to_string();
        let inside = |what: &str| {
            assert!(
                Command::new("nsenter").arg(format!("--net={netns}")).args(what.split(' ')).status().unwrap().success()
            )
        };
        inside("ip -6 route add 2001:db8:46::/48 dev eth0 mtu 1450");
        machine.configure_with(1, &format!("{TAKE}mtu = 1400\n{pairs}"), "[limits]\nmemory_mib = 512\n");
        let gone = |plan: bool| {
            let both = [
                "plat0 takes packets of 1400 bytes instead of 1500, and with that goes the mtu 1280 for IPv6 alone",
                "goes the mtu 1450 of the route 2001:db8:40::/48",
                "goes the mtu 1450 of the route 2001:db8:41::/48",
                "goes the mtu 1280 of the route 2001:db8:42::/48",
                "eth0 in namespace part0 takes packets of 1400 bytes instead of 1500, and with that goes the mtu 1450 of the route 2001:db8:46::/48",
            ];
            both.into_iter()
                .chain((!plan).then_some("goes the mtu 1400 of the route 2001:db8:43::/48"))
                .collect::<Vec<_>>()
        };
        let routes = || {
            let shown =
                Command::new("ip").args(["-6", "route", "show", "table", "all", "dev", "plat0"]).output().unwrap();
            String::from_utf8(shown.stdout).unwrap()
        };
        let has = |shown: &str, route: &str, mtu: &str| {
            shown.lines().any(|line| line.contains(route) && line.contains(&format!("mtu {mtu} ")))
        };
        let plan = machine.must(&["plan"]);
        gone(true).iter().for_each(|what| assert!(plan.contains(what), "{what}: {plan}"));
        assert!(["db8:43:", "db8:44:", "db8:45:"].iter().all(|route| !plan.contains(route)), "{plan}");
        let why = failing(machine);
        gone(false).iter().for_each(|what| assert!(why.contains(what), "{what}: {why}"));
        // So it is: what is named has gone, and nothing else has.
        let shown = routes();
        for (route, mtu) in [("db8:40:", "1500"), ("db8:43:", "1500"), ("db8:44:", "lock 1450"), ("db8:45:", "1300")] {
            assert!(has(&shown, route, mtu), "{route}: {shown}");
        }
        assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv6/conf/plat0/mtu").unwrap(), "1500\n");
    });
}
