//! Links as the kernel has them: isolation, MTU, routed taps, tuns, bridges that exist, settings of the kernel.

use super::guard::tap::Guest;
use super::machine::{Machine, ip, on_a_machine};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use node_format_plan::facts::{LinkKind, Route};
use std::fs;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};

fn sysctl(key: &str) -> String {
    fs::read_to_string(format!("/proc/sys/{}", key.replace('.', "/"))).unwrap().trim().to_owned()
}

/// Formats, finds nothing more to do, resets, finds the machine as it was; `look` in between.
fn there_and_back(machine: &Machine, look: impl FnOnce()) {
    ip("link set lo up");
    let before = machine.everything();
    machine.must(&["apply"]);
    assert_eq!(machine.must(&["verify"]), "the machine is as it was formatted\n");
    assert_eq!(machine.must(&["apply"]), "nothing to do\n");
    look();
    machine.must(&["reset"]);
    assert_eq!(machine.everything(), before);
}

#[test]
fn taps_are_isolated_ports_with_the_mtu_that_was_asked_for() {
    on_a_machine(|machine| {
        machine.configure_with(2, "mode = \"bridge\"\nmtu = 4000\nguard = false\n", "");
        there_and_back(machine, || {
            let links = machine.network().links;
            assert!(links["part0"].isolated && links["part1"].isolated && !links["plat0"].isolated);
            assert!([&links["plat0"], &links["part0"]].iter().all(|link| link.mtu == Some(4000)));
            // Both can be changed on a node that runs.
            machine.configure_with(2, "mode = \"bridge\"\nmtu = 1400\nisolation = false\nguard = false\n", "");
            machine.must(&["apply"]);
            let links = machine.network().links;
            assert!(!links["part0"].isolated && links["part0"].mtu == Some(1400));
        });
    });
}

#[test]
fn a_routed_tap_has_its_machines_ranges_behind_it() {
    on_a_machine(|machine| {
        ip("link add up0 type veth peer name up1");
        ip("link set up0 up");
        machine.configure_with(2, "mode = \"interface\"\nlink = \"up0\"\nguard = false\n", "");
        there_and_back(machine, || {
            let facts = machine.network();
            assert_eq!(facts.links["part1"].bridge, None);
            let route = |to: &str| Route {
                destination: to.parse().unwrap(),
                link: "part1".into(),
                via: None,
                metric: 0,
                source: None,
                onlink: false,
            };
            assert!(facts.routes.contains(&route("10.200.128.1/32")), "{:?}", facts.routes);
            assert!(facts.routes.contains(&route("fd00:1:0:0:2:8000::/82")), "{:?}", facts.routes);
            assert_eq!(
                (sysctl("net.ipv4.ip_forward"), sysctl("net.ipv6.conf.all.forwarding")),
                ("1".into(), "1".into())
            );
        });
        assert_eq!(sysctl("net.ipv4.ip_forward"), "0");
    });
}

#[test]
fn a_tun_has_its_ranges_and_is_its_users() {
    on_a_machine(|machine| {
        let network =
            "mode = \"bridge\"\ntaps = false\ntuns = true\nguard = false\ntun_ipv4_network = \"172.16.0.0/12\"\n";
        machine.configure_with(2, network, "");
        there_and_back(machine, || {
            let facts = machine.network();
            assert_eq!(facts.links["part-tun1"].kind, LinkKind::Tun(Some(61_001)));
            let on_it: Vec<_> = facts.addresses.iter().filter(|found| found.link == "part-tun1").collect();
            let shown: Vec<String> = on_it.iter().map(|found| found.address.to_string()).collect();
            assert!(shown.contains(&"172.16.0.65/26".into()), "{shown:?}");
            assert!(shown.contains(&"fd00:1::2:c000:0:1/82".into()), "{shown:?}");
        });
    });
}

#[test]
fn taps_join_a_bridge_that_exists_and_leave_it_as_it_was() {
    on_a_machine(|machine| {
        ip("link add br9 address 02:00:00:00:00:09 type bridge");
        ip("link add nic type veth peer name wire");
        ip("link set nic master br9 up");
        ip("link set br9 up");
        ip("address add 192.0.2.1/24 dev br9");
        machine.configure_with(2, "mode = \"interface\"\nlink = \"br9\"\ntap_mode = \"bridged\"\nguard = false\n", "");
        there_and_back(machine, || {
            let links = machine.network().links;
            assert_eq!(links["part1"].bridge.as_deref(), Some("br9"));
            assert!(links["part1"].isolated);
            assert_eq!(links["br9"].mac, [2, 0, 0, 0, 0, 9], "the machine keeps its address");
        });
    });
}

#[test]
fn a_bridge_that_nobody_gave_a_hardware_address_does_not_get_a_taps() {
    on_a_machine(|machine| {
        ip("link set lo up");
        ip("link add br7 type bridge");
        ip("link set br7 up");
        machine.configure_with(1, "mode = \"interface\"\nlink = \"br7\"\ntap_mode = \"bridged\"\nguard = false\n", "");
        let before = machine.everything();
        let (code, why) = machine.run(&["apply"]);
        assert_eq!(code, 4, "{why}");
        let own = before.0.links["br7"].mac.map(|byte| format!("{byte:02x}")).join(":");
        assert!(why.contains("P0511") && why.contains(&format!("ip link set br7 address {own}")), "{why}");
        assert_eq!(machine.everything(), before);
        // As it says: with one of its own it has that with taps, whatever theirs, and without.
        ip(&format!("link set br7 address {own}"));
        let before = machine.everything();
        machine.must(&["apply"]);
        ip("link set part0 address 00:00:00:00:00:01");
        assert_eq!(machine.network().links["br7"].mac, before.0.links["br7"].mac);
        machine.must(&["reset"]);
        assert_eq!(machine.everything(), before);
    });
}

#[test]
fn an_address_that_the_kernel_may_choose_by_itself_is_seen_and_made_anew() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(1);
        machine.must(&["apply"]);
        ip("address change fd00:1::1:0:0:1/128 dev plat0 preferred_lft forever valid_lft forever");
        ip("address delete 10.200.0.2/32 dev plat0");
        ip("address add 10.200.0.2/32 dev plat0");
        let (code, said) = machine.run(&["verify"]);
        assert_eq!(code, 3, "{said}");
        for address in ["fd00:1::1:0:0:1/128", "10.200.0.2/32"] {
            let lines =
                format!("- address {address} on plat0, for the kernel to choose\n+ address {address} on plat0\n");
            assert!(lines.lines().all(|line| said.lines().any(|other| other == line)), "{said}");
        }
        machine.must(&["apply"]);
        assert_eq!(machine.must(&["verify"]), "the machine is as it was formatted\n");
        machine.must(&["reset"]);
    });
}

#[test]
fn what_the_kernel_had_been_set_to_comes_back() {
    on_a_machine(|machine| {
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        machine.configure(1);
        there_and_back(machine, || assert_eq!(sysctl("net.ipv6.conf.all.forwarding"), "1"));
        assert_eq!((sysctl("net.ipv4.ip_forward"), sysctl("net.ipv6.conf.all.forwarding")), ("1".into(), "0".into()));
    });
}

#[test]
fn what_the_kernel_changes_along_with_forwarding_comes_back_too() {
    on_a_machine(|machine| {
        ip("link add up0 type veth peer name up1");
        ip("link add up0.7 type veth peer name up2");
        ip("link set lo up");
        let redirects = "net.ipv4.conf.all.accept_redirects";
        let set = [
            (redirects, "0"),
            ("net.ipv4.conf.up1.forwarding", "1"),
            ("net.ipv6.conf.up0/7.forwarding", "1"),
            ("net.ipv6.conf.default.forwarding", "1"),
        ];
        let place = |key: &str| {
            let swapped = key.replace('/', "\0").replace('.', "/").replace('\0', ".");
            format!("/proc/sys/{swapped}")
        };
        let read = |key: &str| fs::read_to_string(place(key)).unwrap().trim().to_owned();
        set.iter().for_each(|(key, value)| fs::write(place(key), value).unwrap());
        let others = ["net.ipv4.conf.up0.forwarding", "net.ipv6.conf.up1.forwarding", "net.ipv4.ip_forward"];
        machine.configure(1);
        assert!(machine.must(&["plan"]).contains(&format!("{redirects} 0")));
        there_and_back(machine, || assert!(others.iter().all(|key| read(key) == "1")));
        for (key, value) in set {
            assert_eq!(read(key), value, "{key}");
        }
        assert!(others.iter().all(|key| read(key) == "0"));
        // A link that goes meanwhile keeps nothing else from coming back.
        machine.must(&["apply"]);
        assert!(machine.must(&["show"]).contains(&format!("net.ipv4.ip_forward, before 0, {redirects} 0")));
        ip("link delete up0.7");
        machine.must(&["reset"]);
        assert_eq!((read(redirects), read("net.ipv6.conf.default.forwarding")), ("0".into(), "1".into()));
    });
}

/// A reset that fails at the user database, once the links are gone.
pub fn failing_reset(machine: &Machine) -> String {
    let etc = machine.path("etc");
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    mount(Some(&etc), &etc, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    mount(None::<&str>, &etc, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, None::<&str>)
        .unwrap();
    let (code, why) = machine.run(&["reset"]);
    nix::mount::umount2(&etc, nix::mount::MntFlags::empty()).unwrap();
    assert_eq!(code, 1, "{why}");
    why
}

#[test]
fn links_that_come_back_hear_no_router_whatever_a_new_link_does_by_now() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure_with(2, "mode = \"bridge\"\ntap_mode = \"routed\"\nguard = false\n", "");
        machine.must(&["apply"]);
        let listens = || ["plat0", "part0", "part1"].map(|link| sysctl(&format!("net.ipv6.conf.{link}.accept_ra")));
        assert_eq!(listens(), ["0", "0", "0"]);
        fs::write("/proc/sys/net/ipv6/conf/default/accept_ra", "2").unwrap();
        let why = failing_reset(machine);
        assert!(why.contains("as it was before the run") && !why.contains("P0505"), "{why}");
        assert_eq!(listens(), ["0", "0", "0"]);
        machine.must(&["verify"]);
        machine.must(&["reset"]);
    });
}

#[test]
fn a_node_changes_from_bridged_to_routed_taps_and_its_users_stay() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(2);
        machine.must(&["apply"]);
        let users = machine.network().users;
        machine.configure_with(2, "mode = \"bridge\"\ntap_mode = \"routed\"\nguard = false\n", "");
        machine.must(&["apply"]);
        machine.must(&["verify"]);
        assert_eq!(machine.network().users, users);
        assert_eq!(machine.network().links["part0"].bridge, None);
    });
}

#[test]
fn a_tenant_who_lets_his_tap_go_again_and_again_keeps_nothing_from_being_made() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(2);
        machine.must(&["apply"]);
        let over = AtomicBool::new(false);
        std::thread::scope(|threads| {
            let tenant = threads.spawn(|| {
                let mut times = 0;
                while !over.load(Ordering::Relaxed) {
                    times += usize::from(Guest::lets_go_of("part0"));
                }
                times
            });
            for amount in 3..9 {
                machine.configure(amount);
                machine.must(&["apply"]);
                assert!(machine.network().links.contains_key(&format!("part{}", amount - 1)));
            }
            machine.must(&["reset"]);
            over.store(true, Ordering::Relaxed);
            assert!(tenant.join().unwrap() > 0, "he never did");
        });
    });
}

#[test]
fn a_tap_that_was_told_to_be_no_ethernet_is_made_anew() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure_with(1, "mode = \"bridge\"\ntap_mode = \"routed\"\nguard = false\n", "");
        machine.must(&["apply"]);
        ip("link set part0 down");
        Guest::behind_tap("part0").becomes_infiniband();
        let (code, said) = machine.run(&["verify"]);
        assert!(code == 3 && said.contains("+ tap part0"), "{said}");
        machine.must(&["apply"]);
        assert_eq!(machine.must(&["verify"]), "the machine is as it was formatted\n");
        assert_eq!(machine.must(&["apply"]), "nothing to do\n");
        machine.must(&["reset"]);
    });
}

#[test]
fn a_spoiled_tap_that_a_failed_run_brings_back_can_be_opened_by_nobody() {
    on_a_machine(|machine| {
        ip("link set lo up");
        let network = "mode = \"bridge\"\ntap_mode = \"routed\"\nguard = false\n";
        machine.configure_with(1, network, "");
        machine.must(&["apply"]);
        ip("link set part0 down");
        Guest::behind_tap("part0").becomes_infiniband();
        machine.configure_with(2, network, "");
        let in_the_way = machine.path("var/lib/plat/.node-format-node.json");
        fs::create_dir_all(in_the_way.join("here")).unwrap();
        let (code, said) = machine.run(&["apply"]);
        assert!(code != 0 && said.contains("cannot write"), "{said}");
        // A tap without an owner is everybody's.
        assert_eq!(machine.network().links["part0"].kind, LinkKind::Tap(Some(0)));
        fs::remove_dir_all(in_the_way).unwrap();
        machine.must(&["apply"]);
        assert_eq!(machine.must(&["verify"]), "the machine is as it was formatted\n");
        machine.must(&["reset"]);
    });
}

#[test]
fn an_answer_of_the_kernel_that_is_lost_leaves_nothing_behind_that_nobody_knows() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(1);
        let before = machine.everything();
        let (mut at, mut unknown) = (0, 0);
        loop {
            at += 1;
            let plain = machine.command(&["apply"]);
            let mut deaf = Command::new("strace");
            deaf.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=recvfrom"]);
            deaf.arg("-e").arg(format!("inject=recvfrom:error=ENOBUFS:when={at}"));
            let Output { status, stderr, .. } = deaf.arg(plain.get_program()).args(plain.get_args()).output().unwrap();
            let said = String::from_utf8(stderr).unwrap();
            unknown += usize::from(said.contains("is not known"));
            machine.must(&["reset"]);
            assert_eq!(machine.everything(), before, "{at}: {said}");
            if status.success() {
                break;
            }
        }
        assert!(unknown > 2, "{unknown} of {at}");
    });
}

#[test]
fn a_change_of_a_link_that_the_kernel_refuses_half_way_is_taken_back_whole_and_said() {
    for users in [true, false] {
        on_a_machine(move |machine| {
            ip("link set lo up");
            machine.configure(1);
            let config = fs::read_to_string(machine.path("format.toml")).unwrap();
            let config = config.replace("[partitions]\n", &format!("[partitions]\nusers = {users}\n"));
            fs::write(machine.path("format.toml"), config).unwrap();
            machine.must(&["apply"]);
            // A bridge does not take what another link stands on so.
            ip("link set part0 nomaster");
            ip("link set part0 address 02:00:00:00:00:77 mtu 1300");
            ip("link add link part0 name upon type macvlan mode bridge");
            let before = machine.everything();
            let (code, why) = machine.run(&["apply"]);
            assert_eq!(code, 1, "{why}");
            assert!(why.contains("the machine is as it was before the run"), "{why}");
            assert!(why.contains("the kernel refused `~ link part0") && !why.contains("P0505"), "{why}");
            assert_eq!(why.contains("for a partition's user can keep it so"), users, "{why}");
            assert_eq!(machine.everything(), before, "{why}");
            ip("link delete upon");
            machine.must(&["apply"]);
            machine.must(&["verify"]);
            machine.must(&["reset"]);
        });
    }
}
