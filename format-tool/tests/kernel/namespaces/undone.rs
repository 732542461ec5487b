//! What a run that fails brings back into namespaces, whatever somebody did in one of them.

use super::super::effects::{acting_before, acting_once};
use super::super::machine::{Machine, ip, on_a_machine, until};
use super::{NETWORK, answer, hello, inside, shown_in, spoil};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output};

/// Three namespaces; in the first two somebody set what a run takes from there.
fn prepared(machine: &Machine) -> [Vec<String>; 2] {
    ip("link set lo up");
    machine.configure_with(3, NETWORK, "");
    machine.must(&["apply"]);
    for name in ["part0", "part1"] {
        inside(machine, name, || {
            ip("address add 10.98.0.1/24 dev eth0");
            ip("route add 10.99.0.0/16 via 10.98.0.7 dev eth0 proto babel");
            ip("address add 2001:db8:98::1/64 dev eth0 nodad");
            ip("-6 route add 2001:db8:99::/48 dev eth0");
            std::fs::write("/proc/sys/net/ipv6/conf/eth0/accept_ra", "2").unwrap();
        });
    }
    both(machine)
}

fn both(machine: &Machine) -> [Vec<String>; 2] {
    ["part0", "part1"].map(|name| shown_in(machine, name))
}

/// An `apply` that has made the namespaces what they must be, and fails then; what else is done at that moment.
fn fails_late(machine: &Machine, before: &[Vec<String>; 2], act: impl Fn()) -> (i32, String) {
    let _ = std::fs::remove_file(machine.path("srv/plat/resources/part0/resource.json"));
    acting_once("fdatasync", &machine.command(&["apply"]), || {
        let is_time = both(machine) != *before && !both(machine).concat().iter().any(|line| line.contains("10.99.0.0"));
        if is_time {
            spoil(machine);
            act();
        }
        is_time
    })
}

fn eth0_is_up(machine: &Machine, name: &str) -> bool {
    inside(machine, name, || {
        let shown = Command::new("ip").args(["link", "show", "up", "dev", "eth0"]).output().unwrap();
        !shown.stdout.is_empty()
    })
}

#[test]
fn a_namespace_whose_link_was_down_is_undone_and_keeps_no_other_from_it() {
    on_a_machine(|machine| {
        let before = prepared(machine);
        inside(machine, "part2", || {
            ip("link set eth0 down");
            ip("address add 10.96.0.1/24 dev eth0");
        });
        let (code, why) = fails_late(machine, &before, || {});
        assert_eq!(both(machine), before, "{why}");
        assert!(code == 1 && why.contains("the machine is as it was before the run\n"), "{why}");
        assert!(!eth0_is_up(machine, "part2"));
        let shown = shown_in(machine, "part2");
        assert!(shown.iter().any(|line| line.contains("10.96.0.1/24")), "{shown:#?}");
        machine.must(&["apply"]);
        machine.must(&["verify"]);
        machine.must(&["reset"]);
    });
}

#[test]
fn a_route_that_cannot_come_back_is_named_and_keeps_nothing_else_from_it() {
    on_a_machine(|machine| {
        let before = prepared(machine);
        // Nothing leads to its router any more.
        inside(machine, "part2", || {
            ip("address add 10.96.0.1/24 dev eth0");
            ip("route add 10.95.0.0/16 via 10.96.0.2");
            ip("address add 10.94.0.1/24 dev eth0");
            ip("address delete 10.96.0.1/24 dev eth0");
        });
        let (code, why) = fails_late(machine, &before, || {});
        assert_eq!(both(machine), before, "{why}");
        let said = "namespace part2 does not get back the route to 10.95.0.0/16 (";
        assert!(code == 1 && why.contains(said) && !why.contains("P0505"), "{why}");
        let shown = shown_in(machine, "part2");
        assert!(shown.iter().any(|line| line.contains("10.94.0.1/24")), "{shown:#?}");
        machine.must(&["reset"]);
    });
}

#[test]
fn namespaces_that_cannot_be_undone_are_all_named_with_what_they_lost_and_keep_no_other_from_it() {
    on_a_machine(|machine| {
        let before = prepared(machine);
        inside(machine, "part2", || {
            ip("address add 10.96.0.1/24 dev eth0");
            ip("route add 10.95.0.0/16 via 10.96.0.2");
        });
        let gone = machine.path("run/netns/part2");
        let (code, why) = fails_late(machine, &before, || {
            nix::mount::umount2(&gone, nix::mount::MntFlags::MNT_DETACH).unwrap();
        });
        assert_eq!(both(machine), before, "{why}");
        assert!(code == 5 && why.contains("P0505") && why.contains("cannot make namespace part2"), "{why}");
        let lost = "namespace part2 does not get back the address 10.96.0.1/24, the route to 10.95.0.0/16";
        assert!(why.contains(lost), "{why}");
        // All of them.
        let (code, why) = fails_late(machine, &before, || {
            for name in ["part0", "part1"] {
                let path = machine.path("run/netns").join(name);
                nix::mount::umount2(&path, nix::mount::MntFlags::MNT_DETACH).unwrap();
            }
        });
        assert!(code == 5 && why.contains("not what they were to be are the namespaces part1, part0"), "{why}");
        for name in ["part0", "part1"] {
            assert!(why.contains(&format!("P0504: cannot make namespace {name} (No such file")), "{why}");
            let lost =
                format!("namespace {name} does not get back the address 10.98.0.1/24, the address 2001:db8:98::1");
            assert!(why.contains(&lost), "{why}");
        }
        machine.must(&["apply"]);
        machine.must(&["verify"]);
        machine.must(&["reset"]);
    });
}

#[test]
fn addresses_of_one_network_go_all_and_come_back_in_their_order() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure_with(1, NETWORK, "");
        machine.must(&["apply"]);
        // The second goes with the first.
        inside(machine, "part0", || {
            std::fs::write("/proc/sys/net/ipv4/conf/all/promote_secondaries", "0").unwrap();
            std::fs::write("/proc/sys/net/ipv4/conf/eth0/promote_secondaries", "0").unwrap();
            ip("address add 10.98.0.9/24 dev eth0");
            ip("address add 10.98.0.1/24 dev eth0");
            ip("address add 10.98.0.5/24 dev eth0");
            ip("address add 2001:db8:98::9/64 dev eth0 nodad");
            ip("address add 2001:db8:98::1/64 dev eth0 nodad");
        });
        let order = || {
            inside(machine, "part0", || {
                let shown = Command::new("ip").args(["-o", "address", "show", "dev", "eth0"]).output().unwrap();
                let text = String::from_utf8(shown.stdout).unwrap();
                let addresses = text.lines().filter_map(|line| line.split_whitespace().nth(3));
                addresses.filter(|one| one.contains("98.0.") || one.contains("db8:98")).map(str::to_owned).collect()
            })
        };
        let before: Vec<String> = order();
        assert_eq!(before[..3], ["10.98.0.9/24", "10.98.0.1/24", "10.98.0.5/24"]);
        std::fs::remove_file(machine.path("srv/plat/resources/part0/resource.json")).unwrap();
        let (code, why) = acting_once("fdatasync", &machine.command(&["apply"]), || {
            let is_time = order() == [""; 0];
            if is_time {
                spoil(machine);
            }
            is_time
        });
        assert!(code == 1 && why.contains("the machine is as it was before the run"), "{why}");
        assert_eq!(order(), before);
        machine.must(&["apply"]);
        machine.must(&["verify"]);
        assert_eq!(order(), [""; 0]);
        machine.must(&["reset"]);
    });
}

#[test]
fn ipv6_that_somebody_switched_off_inside_is_on_again_and_off_after_a_run_that_fails() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure_with(1, NETWORK, "");
        machine.must(&["apply"]);
        let path = |link: &str| format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6");
        let off = || {
            let read = move |link: &str| std::fs::read_to_string(path(link)).unwrap_or_default().trim().to_owned();
            inside(machine, "part0", move || ["eth0", "lo"].map(read))
        };
        inside(machine, "part0", move || std::fs::write(path("all"), "1").unwrap());
        let before = shown_in(machine, "part0");
        assert_eq!(off(), ["1", "1"]);
        let plan = machine.must(&["plan"]);
        let line = "~ namespace part0 by part-v0 10.200.0.2 -> 10.200.0.2,fd00:1::1:0:0:1, other routes, settings\n";
        assert!(plan.contains(line), "{plan}");
        std::fs::remove_file(machine.path("srv/plat/resources/part0/resource.json")).unwrap();
        let (code, why) = acting_once("fdatasync", &machine.command(&["apply"]), || {
            let is_time = off() == ["0", "0"];
            if is_time {
                spoil(machine);
            }
            is_time
        });
        assert!(code == 1 && why.contains("the machine is as it was before the run"), "{why}");
        assert_eq!((off(), shown_in(machine, "part0")), (["1", "1"].map(String::from), before));
        machine.must(&["apply"]);
        machine.must(&["verify"]);
        machine.must(&["reset"]);
    });
}

#[test]
fn a_link_inside_that_takes_too_little_for_ipv6_is_repaired_and_as_it_was_after_a_run_that_fails() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure_with(1, NETWORK, "");
        machine.must(&["apply"]);
        inside(machine, "part0", || {
            // What the kernel begins with where IPv6 comes back.
            std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
            ip("link set eth0 mtu 1000");
        });
        let shown = || {
            inside(machine, "part0", || {
                let shown = Command::new("ip").args(["-o", "address", "show", "dev", "eth0"]).output().unwrap();
                let mtu = std::fs::read_to_string("/proc/sys/net/ipv6/conf/eth0/mtu").unwrap_or_default();
                (String::from_utf8(shown.stdout).unwrap(), mtu)
            })
        };
        let before = shown();
        assert_eq!(before.1, "");
        std::fs::remove_file(machine.path("srv/plat/resources/part0/resource.json")).unwrap();
        let (code, why) = acting_once("fdatasync", &machine.command(&["apply"]), || {
            let is_time = shown().1 == "1500\n";
            if is_time {
                spoil(machine);
            }
            is_time
        });
        assert!(code == 1 && why.contains("the machine is as it was before the run"), "{why}");
        assert_eq!(shown(), before);
        machine.must(&["apply"]);
        machine.must(&["verify"]);
        let server: SocketAddr = "[fd00:1::1:0:0:1]:80".parse().unwrap();
        let answering = inside(machine, "part0", move || answer(TcpListener::bind(server).unwrap()));
        assert_eq!(hello(server), "hello");
        answering.join().unwrap();
        machine.must(&["reset"]);
    });
}

#[test]
fn ipv6_that_is_switched_off_where_no_partition_has_any_stays_off() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure_with(1, NETWORK, "");
        let config = std::fs::read_to_string(machine.path("format.toml")).unwrap();
        let without = config.replace("ipv6_prefix = \"fd00:1::/64\"\n", "");
        std::fs::write(machine.path("format.toml"), without).unwrap();
        machine.must(&["apply"]);
        assert_eq!(machine.must(&["apply"]), "nothing to do\n");
        let path = "/proc/sys/net/ipv6/conf/eth0/disable_ipv6";
        inside(machine, "part0", move || std::fs::write(path, "1").unwrap());
        inside(machine, "part0", || ip("link set eth0 down"));
        machine.must(&["apply"]);
        machine.must(&["verify"]);
        assert_eq!(inside(machine, "part0", move || std::fs::read_to_string(path).unwrap()), "1\n");
        machine.must(&["reset"]);
    });
}

#[test]
fn a_namespace_beside_one_that_cannot_be_made_keeps_its_link_local_addresses() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure_with(1, NETWORK, "");
        machine.must(&["apply"]);
        ip("link set part-v0 down");
        ip("link set part-v0 address 02:00:00:00:00:77");
        ip("link set part-v0 up");
        let near = || {
            let all = machine.network().addresses.into_iter().filter(|found| found.link == "part-v0");
            all.map(|found| found.address.to_string()).collect::<Vec<_>>()
        };
        until("it has one", || near() == ["fe80::ff:fe00:77/64"]);
        machine.configure_with(2, NETWORK, "");
        let plain = machine.command(&["apply"]);
        let mut refused = Command::new("strace");
        refused.args(["-f", "-qq", "-o", "/dev/null", "-e", "inject=mount:error=EPERM"]);
        let Output { status, stderr, .. } = refused.arg(plain.get_program()).args(plain.get_args()).output().unwrap();
        let why = String::from_utf8(stderr).unwrap();
        assert!(status.code() == Some(1) && why.contains("cannot make namespace part1"), "{why}");
        assert!(why.contains("the machine is as it was before the run\n"), "{why}");
        assert_eq!(near(), ["fe80::ff:fe00:77/64"]);
        machine.must(&["apply"]);
        machine.must(&["reset"]);
    });
}

#[test]
fn a_namespace_that_nothing_was_done_to_is_not_named_by_a_run_that_fails() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure_with(2, NETWORK, "");
        machine.must(&["apply"]);
        inside(machine, "part0", || {
            ip("link set eth0 down");
            ip("link set eth0 name eth9");
        });
        let path = machine.path("run/netns/part0");
        let away = machine.path("away");
        std::fs::write(&away, "").unwrap();
        let before = machine.network().links["part-v0"].clone();
        // After the run has looked.
        let (code, why) = acting_before("fdatasync", &machine.command(&["apply"]), || {
            nix::mount::mount(Some(&path), &away, None::<&str>, nix::mount::MsFlags::MS_BIND, None::<&str>).unwrap();
            nix::mount::umount2(&path, nix::mount::MntFlags::MNT_DETACH).unwrap();
        });
        assert!(code == 1 && why.contains("cannot make namespace part0"), "{why}");
        assert!(why.contains("the machine is as it was before the run\n") && !why.contains("P0505"), "{why}");
        assert_eq!(machine.network().links["part-v0"], before);
        nix::mount::umount2(&away, nix::mount::MntFlags::MNT_DETACH).unwrap();
        machine.must(&["reset"]);
    });
}

#[test]
fn an_eth0_that_was_a_port_of_somebodys_bridge_is_named_before_it_leaves_and_where_it_comes_back() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure_with(1, NETWORK, "");
        machine.must(&["apply"]);
        inside(machine, "part0", || {
            ip("link add brx type bridge");
            ip("link set brx up");
            ip("link set eth0 master brx");
            let entry = ["fdb", "add", "02:00:00:00:00:aa", "dev", "eth0", "master", "static"];
            assert!(Command::new("bridge").args(entry).status().unwrap().success());
        });
        let is_port = || {
            inside(machine, "part0", || {
                let shown = Command::new("ip").args(["link", "show", "master", "brx"]).output().unwrap();
                !shown.stdout.is_empty()
            })
        };
        let said = "eth0 in namespace part0 leaves brx, and with it goes what was set there for it as a port: the entry \
                    02:00:00:00:00:aa set with `bridge fdb`";
        assert!(machine.must(&["plan"]).contains(&format!("! {said}\n")));
        machine.configure_with(2, NETWORK, "");
        std::fs::create_dir_all(machine.path("var/lib/plat/.node-format-node.json/in")).unwrap();
        let (code, why) = machine.run(&["apply"]);
        let flags =
            "flags of eth0 as a port that left its bridge meanwhile, if somebody set them, in namespaces: part0";
        assert!(code == 1 && why.contains(said) && why.contains(flags), "{why}");
        assert!(is_port());
        std::fs::remove_dir_all(machine.path("var/lib/plat/.node-format-node.json")).unwrap();
        machine.must(&["apply"]);
        assert!(!is_port());
        machine.must(&["reset"]);
    });
}

#[test]
fn half_a_pair_is_left_as_it_is_by_a_run_that_is_bound_to_fail() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure_with(3, NETWORK, "");
        machine.must(&["apply"]);
        inside(machine, "part0", || ip("address add 10.98.0.1/24 dev eth0"));
        for name in ["part1", "part2"] {
            inside(machine, name, || {
                ip("link set eth0 down");
                ip("link set eth0 name eth9");
            });
        }
        let paths = ["part0", "part2"].map(|name| machine.path("run/netns").join(name));
        let away = machine.path("away");
        std::fs::write(&away, "").unwrap();
        nix::mount::mount(Some(&paths[1]), &away, None::<&str>, nix::mount::MsFlags::MS_BIND, None::<&str>).unwrap();
        nix::mount::umount2(&paths[1], nix::mount::MntFlags::MNT_DETACH).unwrap();
        // With its number: one that is made anew has another.
        let links = || {
            ["part-v1", "part-v2"].map(|link| {
                let shown = Command::new("ip").args(["-o", "link", "show", link]).output().unwrap();
                String::from_utf8(shown.stdout).unwrap()
            })
        };
        let before = links();
        assert!(before.iter().all(|shown| !shown.is_empty()));
        // After the run has looked.
        let (code, why) = acting_before("fdatasync", &machine.command(&["apply"]), || {
            nix::mount::umount2(&paths[0], nix::mount::MntFlags::MNT_DETACH).unwrap();
        });
        assert!(code == 1 && why.contains("cannot make namespace part0"), "{why}");
        assert!(why.contains("the machine is as it was before the run\n") && !why.contains("P0505"), "{why}");
        assert_eq!(links(), before);
        assert!(!paths[1].exists());
        nix::mount::umount2(&away, nix::mount::MntFlags::MNT_DETACH).unwrap();
        machine.must(&["apply"]);
        machine.must(&["verify"]);
        machine.must(&["reset"]);
    });
}
