//! A network namespace for each partition, with traffic.

mod mounted;
mod others;
mod undone;

use super::effects::{acting_before, acting_once};
use super::machine::{Machine, ip, on_a_machine};
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};
use std::time::Duration;

pub const NETWORK: &str = "mode = \"bridge\"\nnamespaces = true\nguard = false\n";

/// Runs work inside the namespace of a partition.
pub fn inside<T: Send + 'static>(machine: &Machine, name: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let namespace = File::open(machine.path("run/netns").join(name)).unwrap();
    let thread = std::thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    });
    thread.join().unwrap()
}

/// Whoever listens, in a namespace or outside; it tells who came.
fn answer(listener: TcpListener) -> std::thread::JoinHandle<SocketAddr> {
    std::thread::spawn(move || {
        let (mut stream, from) = listener.accept().unwrap();
        stream.write_all(b"hello").unwrap();
        from
    })
}

/// What no partition's user can do: a run that comes upon it at its end fails.
fn spoil(machine: &Machine) {
    std::fs::set_permissions(machine.path("srv/plat/releases"), std::fs::Permissions::from_mode(0o700)).unwrap();
}

fn hello(to: SocketAddr) -> String {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(10)).unwrap_or_else(|e| panic!("{to}: {e}"));
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn what_runs_in_a_namespace_reaches_the_machine_and_its_neighbours_with_its_own_addresses() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure_with(2, NETWORK, "");
        let before = machine.everything();
        machine.must(&["apply"]);
        assert_eq!(machine.must(&["verify"]), "the machine is as it was formatted\n");
        for (gateway, own) in [("10.200.0.1:80", "10.200.0.2"), ("[fd00:1::1]:80", "fd00:1::1:0:0:1")] {
            let gateway: SocketAddr = gateway.parse().unwrap();
            let answering = answer(TcpListener::bind(gateway).unwrap());
            assert_eq!(inside(machine, "part0", move || hello(gateway)), "hello");
            assert_eq!(answering.join().unwrap().ip().to_string(), own);
        }
        // Isolated on the bridge, they reach each other through the machine.
        for (server, own) in [("10.200.0.3:80", "10.200.0.2"), ("[fd00:1::2:0:0:1]:80", "fd00:1::1:0:0:1")] {
            let server: SocketAddr = server.parse().unwrap();
            let answering = inside(machine, "part1", move || answer(TcpListener::bind(server).unwrap()));
            assert_eq!(inside(machine, "part0", move || hello(server)), "hello");
            assert_eq!(answering.join().unwrap().ip().to_string(), own);
        }
        // All of its range is its own, and nothing else.
        let another: SocketAddr = "[fd00:1::2:0:0:77]:81".parse().unwrap();
        let answering = inside(machine, "part1", move || answer(TcpListener::bind(another).unwrap()));
        assert_eq!(hello(another), "hello");
        answering.join().unwrap();
        let foreign = inside(machine, "part1", || TcpListener::bind("10.200.0.2:80").is_err());
        assert!(foreign, "a neighbour's address");
        machine.must(&["reset"]);
        machine.remove_netns();
        assert_eq!(machine.everything(), before);
    });
}

#[test]
fn a_namespace_that_lost_something_is_repaired_and_what_runs_in_it_stays() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure_with(2, NETWORK, "");
        machine.must(&["apply"]);
        let server: SocketAddr = "[::]:8000".parse().unwrap();
        let answering = inside(machine, "part0", move || answer(TcpListener::bind(server).unwrap()));
        inside(machine, "part0", || ip("address delete 10.200.0.2/32 dev eth0"));
        inside(machine, "part0", || ip("link set eth0 down"));
        let (code, _) = machine.run(&["verify"]);
        assert_eq!(code, 3);
        machine.must(&["apply"]);
        assert_eq!(hello("10.200.0.2:8000".parse().unwrap()), "hello");
        answering.join().unwrap();
        // The pair is gone on one side, so on both.
        ip("link delete part-v1");
        assert_eq!(machine.run(&["verify"]).0, 3);
        machine.must(&["apply"]);
        machine.must(&["verify"]);
        machine.must(&["reset"]);
        assert!(!machine.path("run/netns/part0").exists());
    });
}

#[test]
fn the_configuration_of_a_node_with_namespaces_can_be_changed() {
    on_a_machine(|machine| {
        ip("link set lo up");
        let read = || std::fs::read_to_string("/proc/sys/net/ipv6/ip_nonlocal_bind").unwrap().trim().to_owned();
        for (more, nonlocal) in [("", "1"), ("sysctls = false\n", "0"), ("", "1"), ("local_ranges = false\n", "0")] {
            machine.configure_with(2, &format!("{NETWORK}{more}"), "");
            machine.must(&["apply"]);
            assert_eq!(machine.must(&["verify"]), "the machine is as it was formatted\n");
            assert_eq!(inside(machine, "part1", read), nonlocal, "{more}");
        }
        machine.configure_with(1, &format!("{NETWORK}mtu = 1400\nisolation = false\n"), "");
        machine.must(&["apply"]);
        machine.must(&["verify"]);
        let mtus = || {
            let inner =
                inside(machine, "part0", || std::fs::read_to_string("/proc/sys/net/ipv6/conf/eth0/mtu").unwrap());
            (machine.network().links["part-v0"].mtu, inner.trim().parse().ok())
        };
        assert_eq!(mtus(), (Some(1400), Some(1400)));
        machine.configure_with(1, NETWORK, "");
        machine.must(&["apply"]);
        machine.must(&["verify"]);
        assert_eq!(mtus(), (Some(1500), Some(1500)));
        machine.must(&["reset"]);
    });
}

#[test]
fn a_namespace_that_cannot_be_made_leaves_nothing_behind() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure_with(3, NETWORK, "");
        let before = machine.everything();
        let plain = machine.command(&["apply"]);
        let mut refused = Command::new("strace");
        refused.args(["-f", "-qq", "-o", "/dev/null", "-e", "inject=mount:error=EPERM"]);
        refused.arg(plain.get_program()).args(plain.get_args());
        let Output { status, stderr, .. } = refused.output().unwrap();
        let why = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(1), "{why}");
        assert!(why.contains("cannot make namespace part0"), "{why}");
        for n in 0..3 {
            assert!(!machine.path(&format!("run/netns/part{n}")).exists(), "{why}");
        }
        machine.remove_netns();
        assert_eq!(machine.everything(), before);
        assert!(!machine.network().links.contains_key("part-v0"));
    });
}

#[test]
fn a_namespace_of_somebody_else_is_refused() {
    on_a_machine(|machine| {
        ip("link set lo up");
        ip("link add part-v0 type veth peer name other");
        machine.configure_with(1, NETWORK, "");
        let (code, why) = machine.run(&["apply"]);
        assert_eq!(code, 4, "{why}");
        assert!(why.contains("link part-v0 exists already"), "{why}");
    });
}

#[test]
fn what_stands_in_the_place_of_a_namespace_is_refused_and_left() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure_with(2, NETWORK, "");
        std::fs::create_dir_all(machine.path("run/netns/part1")).unwrap();
        std::fs::write(machine.path("run/netns/part0"), "kept").unwrap();
        let before = machine.everything();
        let (code, said) = machine.run(&["apply"]);
        assert_eq!(code, 4, "{said}");
        assert!(said.contains("/run/netns/part0 is in the way") && said.contains("it is a directory"), "{said}");
        assert_eq!(std::fs::read(machine.path("run/netns/part0")).unwrap(), b"kept");
        assert_eq!(machine.everything(), before);
        // What an ended namespace leaves is an empty file.
        std::fs::remove_dir(machine.path("run/netns/part1")).unwrap();
        std::fs::write(machine.path("run/netns/part0"), "").unwrap();
        machine.must(&["apply"]);
        machine.must(&["verify"]);
        machine.must(&["reset"]);
    });
}

#[test]
fn an_address_that_somebody_adds_inside_keeps_nothing_from_being_formatted() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure_with(1, NETWORK, "");
        machine.must(&["apply"]);
        inside(machine, "part0", || {
            ip("address add 10.77.0.1/24 dev lo");
            ip("route add local 10.78.0.0/24 dev lo");
        });
        assert_eq!(machine.must(&["verify"]), "the machine is as it was formatted\n");
        assert_eq!(machine.must(&["apply"]), "nothing to do\n");
        // What is ours is still looked at.
        inside(machine, "part0", || ip("link set eth0 down"));
        assert_eq!(machine.run(&["verify"]).0, 3);
        machine.must(&["apply"]);
        machine.must(&["reset"]);
    });
}

fn shown(machine: &Machine) -> Vec<String> {
    shown_in(machine, "part0")
}

/// Routes and addresses of the inner end, as `ip` shows them, and whether it listens to routers.
fn shown_in(machine: &Machine, name: &str) -> Vec<String> {
    inside(machine, name, || {
        let ip = |arguments: &str| {
            let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let all = ip("-4 route show dev eth0") + &ip("-6 route show dev eth0") + &ip("-o address show dev eth0");
        // The kernel makes that of the link in its own time.
        let told = std::fs::read_to_string("/proc/sys/net/ipv6/conf/eth0/accept_ra").unwrap();
        let all = format!("{all}accept_ra {told}");
        let lines = all.lines().filter(|line| !line.contains("fe80::")).map(|line| line.trim_end().to_owned());
        let mut lines: Vec<_> =
            lines.map(|line| line.split_once(": ").map_or(line.clone(), |(_, of)| of.into())).collect();
        lines.sort();
        lines
    })
}

#[test]
fn what_a_run_that_fails_brings_back_into_a_namespace_is_as_it_was() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure_with(1, NETWORK, "");
        machine.must(&["apply"]);
        inside(machine, "part0", || {
            ip("route add 10.99.0.0/16 dev eth0 proto babel metric 7");
            ip("-6 route add 2001:db8:99::/48 dev eth0 proto bird");
            ip("address add 10.98.0.1/24 broadcast 10.98.0.99 dev eth0 noprefixroute");
            ip("address add 2001:db8:98::1/64 dev eth0 nodad preferred_lft 0");
            std::fs::write("/proc/sys/net/ipv6/conf/eth0/accept_ra", "2").unwrap();
        });
        let before = shown(machine);
        assert!(before.iter().any(|line| line.contains("proto babel")), "{before:#?}");
        // The namespace goes, and is made again.
        let home = machine.path("srv/plat/partitions/part0");
        let (code, why) = acting_before("unlinkat", &machine.command(&["reset"]), || {
            std::fs::write(home.join("srv/his"), "").unwrap();
        });
        assert!(code == 1 && why.contains("and whoever runs in the old ones: part0\n"), "{why}");
        assert_eq!(shown(machine), before);
        std::fs::remove_file(home.join("srv/his")).unwrap();
        // It is repaired, and that is taken back.
        std::fs::remove_file(machine.path("srv/plat/resources/part0/resource.json")).unwrap();
        let (code, why) = acting_once("fdatasync", &machine.command(&["apply"]), || {
            let is_repaired = !shown(machine).iter().any(|line| line.contains("proto babel"));
            if is_repaired {
                spoil(machine);
            }
            is_repaired
        });
        assert!(code == 1 && why.contains("the machine is not as it was made"), "{why}");
        assert_eq!(shown(machine), before);
        machine.must(&["apply"]);
        machine.must(&["reset"]);
    });
}

#[test]
fn half_a_pair_is_half_again_after_a_run_that_fails_or_the_run_says_that_it_is_not() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure_with(2, NETWORK, "");
        machine.must(&["apply"]);
        ip("link delete part-v0");
        inside(machine, "part0", || ip("link set lo down"));
        inside(machine, "part1", || {
            ip("link set eth0 down");
            ip("link set eth0 name wan0");
        });
        let eth0 = |name: &str| {
            inside(machine, name, || {
                Command::new("ip").args(["link", "show", "eth0"]).output().unwrap().status.success()
            })
        };
        let ends = || (machine.network().links.contains_key("part-v0"), eth0("part0"), eth0("part1"));
        assert_eq!(ends(), (false, false, false));
        std::fs::remove_file(machine.path("srv/plat/resources/part0/resource.json")).unwrap();
        let (code, why) = acting_once("fdatasync", &machine.command(&["apply"]), || {
            let is_whole = ends() == (true, true, true);
            if is_whole {
                spoil(machine);
            }
            is_whole
        });
        assert!(code == 1 && why.contains("the machine is not as it was made"), "{why}");
        assert_eq!(ends(), (false, false, true), "{why}");
        assert!(why.contains("for pairs of links of which one end was missing, and is there now: part-v1;"), "{why}");
        let lo_is_down = inside(machine, "part0", || {
            let shown = Command::new("ip").args(["link", "show", "up", "dev", "lo"]).output().unwrap();
            shown.stdout.is_empty()
        });
        assert!(lo_is_down, "{why}");
        machine.must(&["apply"]);
        machine.must(&["verify"]);
        machine.must(&["reset"]);
    });
}
