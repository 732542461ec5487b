//! The machine's own way to the network becomes a port of the bridge, and comes back unless that is confirmed.

use super::machine::{Machine, ip, on_a_machine, until};
use nix::sched::{CloneFlags, setns, unshare};
use node_format_plan::facts::AddressFact;
use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The rest of the world: a router behind the interface `up0`, in a namespace of its own.
pub struct World(File);

impl World {
    /// With addresses of both families that stay.
    pub fn new() -> Self {
        let world = Self::with_ipv4();
        ip("address add 2001:db8::7/64 dev up0 nodad");
        ip("route add default via 2001:db8::1 dev up0 metric 512");
        // The kernel does so in its own time.
        until("the address is routed to the machine itself", || {
            let shown =
                Command::new("ip").args(["-6", "route", "show", "table", "local", "dev", "up0"]).output().unwrap();
            String::from_utf8_lossy(&shown.stdout).contains("local 2001:db8::7 ")
        });
        world
    }

    /// Where the machine has a fixed IPv4 address, and the router one of each family.
    pub fn with_ipv4() -> Self {
        let namespace = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        let world = Self(namespace.join().unwrap());
        ip("link set lo up");
        ip("link add up0 type veth peer name router");
        ip(&format!("link set router netns {}", world.path()));
        ip("address add 192.0.2.7/24 dev up0");
        ip("link set up0 up");
        world.inside(|| {
            ip("link set lo up");
            ip("address add 192.0.2.1/24 dev router");
            ip("address add 2001:db8::1/64 dev router nodad");
            ip("address add 203.0.113.9/32 dev lo");
            ip("link set router up");
        });
        ip("route add default via 192.0.2.1 dev up0");
        world
    }

    /// Where its namespace is, by a handle that this process has.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&self.0))
    }

    pub fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = self.0.try_clone().unwrap();
        let thread = std::thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        thread.join().unwrap()
    }

    /// Whether the machine reaches what is beyond the router, and is reached by its own addresses.
    pub fn is_reached(&self) -> bool {
        self.reaches(&["192.0.2.7:0", "[2001:db8::7]:0"])
    }

    /// Whether the machine reaches what is beyond the router, and is reached by these addresses.
    pub fn reaches(&self, own: &[&str]) -> bool {
        let far = self.inside(|| TcpListener::bind("203.0.113.9:80").unwrap());
        let out = TcpStream::connect_timeout(&"203.0.113.9:80".parse().unwrap(), Duration::from_secs(2)).is_ok();
        drop(far);
        let reached = |address: &&str| {
            let own = TcpListener::bind(address).ok()?;
            let at: SocketAddr = own.local_addr().unwrap();
            self.inside(move || TcpStream::connect_timeout(&at, Duration::from_secs(2)).ok())
        };
        out && own.iter().all(|address| reached(address).is_some())
    }
}

pub const TAKE: &str = "mode = \"bridge\"\nuplink = \"up0\"\nguard = false\n";

/// A machine whose uplink was taken, and is not confirmed yet.
pub fn taken(machine: &Machine) -> World {
    let world = World::new();
    machine.configure_with(1, TAKE, "");
    machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
    world
}

/// One whose uplink stays.
pub fn confirmed(machine: &Machine) -> World {
    let world = taken(machine);
    machine.must(&["confirm"]);
    world
}

pub fn where_is(machine: &Machine, address: &str) -> Vec<String> {
    let address = address.parse().unwrap();
    let facts = machine.network();
    facts
        .addresses
        .iter()
        .filter(|found: &&AddressFact| found.address == address)
        .map(|found| found.link.clone())
        .collect()
}

#[test]
fn addresses_come_back_with_all_they_had() {
    on_a_machine(|machine| {
        let _world = World::with_ipv4();
        // As some rent machines out: the router is the other end of the address.
        ip("address add 198.51.100.5 peer 198.51.100.1/32 dev up0");
        ip("route add 203.0.113.128/25 via 198.51.100.1 dev up0");
        // Of several of one network the first is the machine's own for whoever asks for none; of IPv6 it is the newest.
        ip("address delete 192.0.2.7/24 dev up0");
        ip("address add 192.0.2.9/24 dev up0");
        ip("address add 192.0.2.7/24 dev up0");
        ip("address add 192.0.2.8/24 broadcast 192.0.2.255 dev up0");
        ip("address add 2001:db8::8/64 dev up0 nodad noprefixroute preferred_lft 0");
        ip("address add 2001:db8::9/64 dev up0 nodad");
        ip("address add 2001:db8::7/64 dev up0 nodad");
        let source = |to: &str| {
            let shown = Command::new("ip").args(["route", "get", to]).output().unwrap();
            let text = String::from_utf8(shown.stdout).unwrap();
            text.split(" src ").nth(1).map(|rest| rest.split(' ').next().unwrap().to_owned())
        };
        let sources = || [source("203.0.113.9"), source("2001:db8::1")];
        assert_eq!(sources(), [Some("192.0.2.9".to_owned()), Some("2001:db8::7".to_owned())]);
        let addresses = || {
            let shown = Command::new("ip").args(["-oneline", "address", "show", "dev", "up0"]).output().unwrap();
            let text = String::from_utf8(shown.stdout).unwrap();
            text.lines().filter(|line| !line.contains("fe80:")).map(str::to_owned).collect::<Vec<_>>()
        };
        let before = addresses();
        machine.configure_with(1, TAKE, "");
        machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
        assert!(addresses().iter().all(|line| !line.contains("inet ")), "{:?}", addresses());
        assert_eq!(sources(), [Some("192.0.2.9".to_owned()), Some("2001:db8::7".to_owned())]);
        machine.must(&["rollback"]);
        assert_eq!(addresses(), before);
        machine.must(&["reset"]);
    });
}

#[test]
fn an_uplink_that_carries_the_machine_is_refused_without_consent() {
    on_a_machine(|machine| {
        let world = World::new();
        machine.configure_with(1, TAKE, "");
        let before = machine.everything();
        let (code, why) = machine.run(&["apply"]);
        assert_eq!(code, 4, "{why}");
        assert!(why.contains("P0511") && why.contains("--take-uplink") && why.contains("192.0.2.7/24"), "{why}");
        assert_eq!(machine.everything(), before);
        assert!(world.is_reached());
    });
}

#[test]
fn a_confirmed_uplink_stays_over_reboots_and_reset_gives_it_back() {
    on_a_machine(|machine| {
        let world = World::new();
        machine.configure_with(2, TAKE, "");
        assert!(world.is_reached());
        let before = machine.everything();
        machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
        assert_eq!(where_is(machine, "192.0.2.7/24"), ["plat0"]);
        assert!(world.is_reached(), "through the bridge");
        assert!(machine.must(&["apply"]).contains("not confirmed"));
        let said = machine.must(&["verify"]);
        assert!(said.starts_with("! ") && said.contains("not confirmed"), "{said}");
        assert!(said.ends_with("\nthe machine is as it was formatted\n"), "{said}");
        machine.must(&["confirm"]);
        assert_eq!(machine.must(&["apply"]), "nothing to do\n");
        assert_eq!(machine.must(&["confirm"]), "up0 is confirmed already\n");
        let said = machine.must(&["rollback"]);
        assert!(said.contains("up0 is confirmed") && said.contains("give it back"), "{said}");
        assert!(world.is_reached());
        // What a reboot leaves: the system's own network, and no bridge.
        ip("link delete plat0");
        ip("link set up0 down");
        std::fs::write("/proc/sys/net/ipv6/conf/up0/disable_ipv6", "0").unwrap();
        ip("link set up0 up");
        ip("address add 192.0.2.7/24 dev up0");
        ip("address add 2001:db8::7/64 dev up0 nodad");
        ip("route add default via 192.0.2.1 dev up0");
        ip("route add default via 2001:db8::1 dev up0 metric 512");
        machine.must(&["apply"]);
        assert_eq!(where_is(machine, "192.0.2.7/24"), ["plat0"]);
        assert!(world.is_reached());
        machine.must(&["reset"]);
        assert_eq!(machine.everything(), before);
        assert!(world.is_reached());
    });
}

#[test]
fn what_would_keep_an_uplink_from_being_taken_does_not_matter_once_it_is() {
    on_a_machine(|machine| {
        let world = World::new();
        machine.configure_with(1, TAKE, "");
        machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
        machine.must(&["confirm"]);
        // A client that went on, what somebody set, and what stands on it.
        ip("address add 192.0.2.88/24 dev up0 valid_lft 3600 preferred_lft 3600");
        ip("route add 203.0.113.0/24 via 192.0.2.1 dev plat0 proto dhcp");
        ip("neighbour add 192.0.2.77 lladdr 02:00:00:00:00:77 nud permanent dev up0");
        ip("neighbour add 192.0.2.77 lladdr 02:00:00:00:00:77 nud permanent dev plat0");
        ip("link add upon link plat0 type macvlan");
        assert_eq!(machine.must(&["apply"]), "nothing to do\n");
        assert_eq!(machine.must(&["verify"]), "the machine is as it was formatted\n");
        // A part of it that is gone from the bridge comes there again.
        ip("route delete default via 192.0.2.1 dev plat0");
        machine.must(&["apply"]);
        assert!(world.is_reached(), "through the bridge");
        // After a reboot it is to be taken anew, and what is leased would not come back.
        let record = machine.path("var/lib/plat/format/record");
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let text = std::fs::read_to_string(&record).unwrap();
        assert!(text.contains(boot.trim()), "{text}");
        std::fs::write(&record, text.replace(boot.trim(), &"0".repeat(boot.trim().len()))).unwrap();
        ip("link delete part0");
        ip("link delete plat0");
        std::fs::write("/proc/sys/net/ipv6/conf/up0/disable_ipv6", "0").unwrap();
        ip("address add 192.0.2.7/24 dev up0");
        ip("route add default via 192.0.2.1 dev up0");
        let (code, why) = machine.run(&["apply"]);
        assert_eq!(code, 4, "{why}");
        assert!(why.contains("up0 cannot be taken") && why.contains("192.0.2.88/24 by DHCP"), "{why}");
        assert!(world.reaches(&["192.0.2.7:0"]), "by its own network");
        let (code, said) = machine.run(&["plan"]);
        assert_eq!((code, said), (4, why));
    });
}

#[test]
fn an_uplink_that_nobody_confirms_comes_back_by_itself() {
    on_a_machine(|machine| {
        let world = World::new();
        machine.configure_with(1, TAKE, "");
        machine.must(&["apply", "--take-uplink", "--confirm-within", "1"]);
        until("the old network is back", || where_is(machine, "192.0.2.7/24") == ["up0"]);
        until("everything is back", || world.is_reached());
        assert_eq!(where_is(machine, "2001:db8::7/64"), ["up0"]);
        // Whoever confirms too late is told so.
        let (code, why) = machine.run(&["confirm"]);
        assert_eq!(code, 4, "{why}");
        assert!(why.contains("P0511") && why.contains("given back"), "{why}");
        // The rest of the node is as it was; to take the uplink, root must agree again.
        assert!(machine.network().links.contains_key("plat0"));
        let (code, why) = machine.run(&["apply"]);
        assert_eq!(code, 4, "{why}");
    });
}

#[test]
fn an_uplink_comes_back_even_if_the_run_that_took_it_is_killed() {
    on_a_machine(|machine| {
        let world = World::new();
        machine.configure_with(200, TAKE, "");
        for lines in [300, 700, 900, 1500, 1640] {
            let mut command = machine.command(&["apply", "--take-uplink", "--confirm-within", "1"]);
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let record = machine.path("var/lib/plat/format/record");
            let enough = || std::fs::read_to_string(&record).is_ok_and(|text| text.lines().count() >= lines);
            until("the record grows", || enough() || !alive(&mut child));
            let _ = child.kill();
            child.wait().unwrap();
            until("the old network is back", || where_is(machine, "192.0.2.7/24") == ["up0"]);
            until("the machine is reached", || world.is_reached());
            // Whoever gives the old network back may not have ended yet.
            until("the node is reset", || machine.run(&["reset"]).0 == 0);
            until("nobody waits any more", || where_is(machine, "2001:db8::7/64") == ["up0"]);
        }
    });
}

fn alive(child: &mut std::process::Child) -> bool {
    child.try_wait().unwrap().is_none()
}

/// How many processes wait for a confirmation on this machine.
pub fn watches(machine: &Machine) -> usize {
    waiting(machine).len()
}

/// Those of this machine's processes that wait.
pub fn waiting(machine: &Machine) -> Vec<i32> {
    let root = machine.root.path().display().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    let is_ours = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&root)
    };
    pids.filter(is_ours).collect()
}

/// As a machine that goes down does, or somebody's hand.
pub fn end_watches(machine: &Machine) {
    for pid in waiting(machine) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    until("nobody waits", || watches(machine) == 0);
}

#[test]
fn whoever_waited_for_one_uplink_leaves_the_next_one_alone() {
    on_a_machine(|machine| {
        let world = World::new();
        machine.configure_with(1, TAKE, "");
        // Confirmed before anybody can have seen that there was anything to confirm.
        machine.must(&["apply", "--take-uplink", "--confirm-within", "1"]);
        machine.must(&["confirm"]);
        machine.must(&["reset"]);
        machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
        until("the first watch has ended, the second has not", || watches(machine) == 1);
        assert_eq!(where_is(machine, "192.0.2.7/24"), ["plat0"]);
        assert!(world.is_reached());
        machine.must(&["confirm"]);
    });
}

#[test]
fn a_router_that_is_on_no_network_of_the_machine_is_moved_too() {
    on_a_machine(|machine| {
        let world = World::new();
        world.inside(|| ip("address add 198.51.100.1/32 dev router"));
        ip("route replace default via 198.51.100.1 dev up0 onlink");
        world.inside(|| ip("route add 192.0.2.7/32 dev router"));
        machine.configure_with(1, TAKE, "");
        let before = machine.everything();
        assert!(world.is_reached());
        machine.must(&["apply", "--take-uplink"]);
        assert!(world.is_reached(), "through the bridge");
        machine.must(&["rollback"]);
        assert!(world.is_reached());
        machine.must(&["reset"]);
        assert_eq!(machine.everything(), before);
    });
}

#[test]
fn an_uplink_with_what_somebody_set_by_hand_beside_its_network_is_refused() {
    on_a_machine(|machine| {
        let world = World::new();
        machine.configure_with(1, TAKE, "");
        let odd = [
            ("address", "fe80::99/64 dev up0 nodad"),
            ("neighbour", "192.0.2.77 lladdr 02:00:00:00:00:77 nud permanent dev up0"),
            ("neighbour", "fe80::77 lladdr 02:00:00:00:00:77 nud permanent dev up0"),
            ("neighbour", "proxy 192.0.2.78 dev up0"),
            ("route", "local 203.0.113.7 dev up0"),
            ("route", "local fd00:88::/64 dev up0"),
        ];
        for (kind, what) in odd {
            ip(&format!("{kind} add {what}"));
            let before = machine.everything();
            let (code, why) = machine.run(&["apply", "--take-uplink"]);
            assert_eq!(code, 4, "{why}");
            assert!(why.contains("P0511") && what.split(' ').take(2).any(|word| why.contains(word)), "{what}: {why}");
            assert_eq!(machine.everything(), before);
            ip(&format!("{kind} delete {what}"));
        }
        // As NetworkManager has it.
        ip("address add 198.51.100.5/24 dev up0 noprefixroute");
        ip("route add 198.51.100.0/24 dev up0 proto kernel scope link src 198.51.100.5");
        let (code, why) = machine.run(&["apply", "--take-uplink"]);
        assert_eq!(code, 4, "{why}");
        assert!(why.contains("P0511") && why.contains("198.51.100.0/24"), "{why}");
        ip("address delete 198.51.100.5/24 dev up0");
        // Of IPv4 such an address is one as any other.
        ip("address add 169.254.7.7/16 dev up0");
        machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
        assert_eq!(where_is(machine, "169.254.7.7/16"), ["plat0"]);
        machine.must(&["rollback"]);
        assert_eq!(where_is(machine, "169.254.7.7/16"), ["up0"]);
        machine.must(&["reset"]);
        assert!(world.is_reached());
    });
}

#[test]
fn an_uplink_with_a_route_that_could_not_be_put_back_is_refused() {
    on_a_machine(|machine| {
        let world = World::new();
        machine.configure_with(1, TAKE, "");
        ip("nexthop add id 7 via 192.0.2.1 dev up0");
        let odd = [
            "203.0.113.0/24 via 192.0.2.1 dev up0 table 77",
            "203.0.113.0/24 via 192.0.2.1 dev up0 mtu 1300",
            "203.0.113.0/24 via 192.0.2.1 dev up0 tos 0x10",
            "203.0.113.0/24 via 192.0.2.1 dev up0 realm 5",
            "203.0.113.0/24 nhid 7",
            "2001:db8:9::/64 from 2001:db8:7::/64 via 2001:db8::1 dev up0",
            "2001:db8:9::/64 via 2001:db8::1 dev up0 pref high",
        ];
        for route in odd {
            ip(&format!("route add {route}"));
            let before = machine.everything();
            let (code, why) = machine.run(&["apply", "--take-uplink"]);
            assert_eq!(code, 4, "{why}");
            let destination = route.split(' ').next().unwrap();
            assert!(why.contains("P0511") && why.contains(destination), "{route}: {why}");
            assert_eq!(machine.everything(), before);
            ip(&format!("route delete {route}"));
        }
        assert!(world.is_reached());
    });
}
