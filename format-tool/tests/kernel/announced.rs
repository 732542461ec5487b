//! `ipv6_prefix = "uplink"`, and what a router announces on an uplink.

mod beside_fixed;

use super::machine::{Machine, ip, on_a_machine, program, until};
use super::uplink::{World, where_is};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, sendto, setsockopt, socket, sockopt,
};
use std::fs;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::process::Command;

/// The machine's own address of the announced prefix: its hardware address is 02:00:00:00:00:07.
const ANNOUNCED: &str = "2001:db8:5::ff:fe00:7/64";
const REACHED: [&str; 2] = ["192.0.2.7:0", "[2001:db8:5::ff:fe00:7]:0"];
const TAKE: [&str; 4] = ["apply", "--take-uplink", "--confirm-within", "3600"];

/// A router's announcement: it is the way out, and of this prefix everybody makes himself an address.
fn announcement(prefix: Ipv6Addr) -> Vec<u8> {
    let (router, prefix_information, on_link_and_autonomous) = (134, 3, 0xC0);
    let minutes = |minutes: u32| (60 * minutes).to_be_bytes();
    let mut message = vec![router, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    message.extend([prefix_information, 4, 64, on_link_and_autonomous]);
    message.extend(minutes(120));
    message.extend(minutes(60));
    message.extend([0; 4]);
    message.extend(prefix.octets());
    message
}

/// A world whose router announces a prefix when it is told to.
struct Announcing(World);

impl Announcing {
    fn new() -> Self {
        let world = World::with_ipv4();
        ip("link set up0 down");
        ip("link set up0 address 02:00:00:00:00:07");
        without_detection("up0");
        ip("link set up0 up");
        ip("route add default via 192.0.2.1 dev up0");
        world.inside(|| {
            ip("link set router down");
            without_detection("router");
            ip("link set router up");
            ip("address add 2001:db8:5::1/64 dev router nodad");
        });
        Self(world)
    }

    fn announce(&self) {
        self.0.inside(|| {
            let protocol = SockProtocol::IcmpV6;
            let router = socket(AddressFamily::Inet6, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).unwrap();
            // From further away it would not be believed.
            setsockopt(&router, sockopt::Ipv6MulticastHops, &255).unwrap();
            let everybody =
                SocketAddrV6::new("ff02::1".parse().unwrap(), 0, 0, nix::net::if_::if_nametoindex("router").unwrap());
            let message = announcement("2001:db8:5::".parse().unwrap());
            // Without an address yet it cannot be sent.
            let _ = sendto(router.as_raw_fd(), &message, &SockaddrIn6::from(everybody), MsgFlags::empty());
        });
    }

    /// Announces until the machine has made itself an address on this link alone.
    fn announces_on(&self, machine: &Machine, link: &str) {
        until(&format!("the machine hears the router on {link}"), || {
            self.announce();
            where_is(machine, ANNOUNCED) == [link]
        });
    }
}

/// Addresses of the link are of use at once.
fn without_detection(link: &str) {
    fs::write(format!("/proc/sys/net/ipv6/conf/{link}/accept_dad"), "0").unwrap();
    fs::write(format!("/proc/sys/net/ipv6/conf/{link}/dad_transmits"), "0").unwrap();
}

/// The configuration with the uplink's prefix; `more`: lines of [network].
fn configure(machine: &Machine, more: &str) {
    machine.configure_with(2, &format!("mode = \"bridge\"\nuplink = \"up0\"\n{more}"), "");
    let text = fs::read_to_string(machine.path("format.toml")).unwrap();
    let text = text.replace("ipv6_prefix = \"fd00:1::/64\"", "ipv6_prefix = \"uplink\"");
    fs::write(machine.path("format.toml"), text).unwrap();
}

#[test]
fn partitions_have_addresses_of_the_uplinks_prefix_before_and_after_it_is_taken() {
    on_a_machine(|machine| {
        let world = World::with_ipv4();
        ip("address add 2001:db8::7/64 dev up0 nodad");
        configure(machine, "guard = false\n");
        let before = machine.everything();
        machine.must(&TAKE);
        // Shares of 16 bits more than the prefix.
        assert_eq!(where_is(machine, "2001:db8:0:0:2::1/128"), ["plat0"]);
        assert!(machine.network().local_routes.contains(&"2001:db8:0:0:2::/81".parse().unwrap()));
        assert_eq!(where_is(machine, "2001:db8::7/64"), ["plat0"]);
        assert!(world.reaches(&["192.0.2.7:0", "[2001:db8::7]:0", "[2001:db8:0:0:2::1]:0"]), "through the bridge");
        machine.must(&["confirm"]);
        assert_eq!(machine.must(&["apply"]), "nothing to do\n");
        assert_eq!(machine.must(&["verify"]), "the machine is as it was formatted\n");
        machine.must(&["reset"]);
        assert_eq!(machine.everything(), before);
    });
}

#[test]
fn an_uplink_without_a_prefix_is_refused_before_anything_is_made() {
    on_a_machine(|machine| {
        let _world = World::with_ipv4();
        configure(machine, "guard = false\n");
        let before = machine.everything();
        let (code, why) = machine.run(&TAKE);
        assert_eq!(code, 2, "{why}");
        assert!(why.contains("up0 has no IPv6 prefix"), "{why}");
        assert_eq!(machine.everything(), before);
    });
}

#[test]
fn an_announced_prefix_is_heard_on_the_bridge_and_on_the_uplink_again_after_a_reset() {
    on_a_machine(|machine| {
        let world = Announcing::new();
        world.announces_on(machine, "up0");
        configure(machine, "guard = true\n");
        until("the machine is reached", || world.0.reaches(&REACHED));
        let moves = format!("route to 0.0.0.0/0, announced {ANNOUNCED}, announced route to ::/0\n");
        let said = machine.must(&["plan", "--take-uplink", "-v"]);
        assert!(said.contains(&moves), "{said}");
        machine.must(&TAKE);
        assert_eq!(where_is(machine, "2001:db8:5:0:2::1/128"), ["plat0"]);
        world.announces_on(machine, "plat0");
        until("the machine is reached, through the bridge", || world.0.reaches(&REACHED));
        assert!(machine.must(&["verify"]).contains("up0 is not confirmed"));
        machine.must(&["confirm"]);
        assert_eq!(machine.must(&["apply"]), "nothing to do\n");
        machine.must(&["reset"]);
        world.announces_on(machine, "up0");
        until("the machine is reached, after a reset", || world.0.reaches(&REACHED));
        assert!(!machine.network().links.contains_key("plat0"));
    });
}

/// The ways out that routers announced.
fn announced_ways() -> Vec<String> {
    let shown = Command::new("ip").args(["-6", "route", "show", "default", "proto", "ra"]).output().unwrap();
    let text = String::from_utf8(shown.stdout).unwrap();
    text.lines().map(|line| line.split(" expires").next().unwrap().to_owned()).collect()
}

fn sysctl(key: &str) -> String {
    fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{key}")).unwrap().trim().to_owned()
}

#[test]
fn what_a_router_announced_is_still_there_when_the_machine_forwards() {
    on_a_machine(|machine| {
        let world = Announcing::new();
        world.announces_on(machine, "up0");
        machine.configure(1);
        let (before, ways) = (machine.everything(), announced_ways());
        assert_eq!(ways.len(), 1, "{ways:?}");
        machine.must(&["apply"]);
        assert_eq!((sysctl("all/forwarding"), sysctl("up0/accept_ra")), ("1".into(), "2".into()));
        assert_eq!(announced_ways(), ways, "no router has spoken since");
        machine.must(&["reset"]);
        assert_eq!((sysctl("all/forwarding"), sysctl("up0/accept_ra")), ("0".into(), "1".into()));
        assert_eq!(announced_ways(), ways);
        assert_eq!(machine.everything(), before);
    });
}

#[test]
fn a_machine_that_forwards_and_hears_no_router_hears_none_as_a_node() {
    on_a_machine(|machine| {
        let _world = Announcing::new();
        sysctl_is("all/forwarding", "1");
        assert_eq!(sysctl("up0/accept_ra"), "1");
        ip("address add 2001:db8:5::7/64 dev up0 nodad");
        // Beside a link that is told to forward on its own the machine may not.
        for machine_forwards in ["1", "0"] {
            sysctl_is("all/forwarding", machine_forwards);
            sysctl_is("up0/forwarding", "1");
            machine.configure(1);
            let before = machine.everything();
            machine.must(&["apply"]);
            assert_eq!((sysctl("all/forwarding"), sysctl("up0/accept_ra")), ("1".into(), "1".into()));
            assert_eq!(machine.must(&["apply"]), "nothing to do\n");
            machine.configure_with(1, "mode = \"bridge\"\nuplink = \"up0\"\nguard = true\n", "");
            machine.must(&TAKE);
            assert_eq!(sysctl("plat0/accept_ra"), "0", "the bridge in its place hears none either");
            machine.must(&["rollback"]);
            assert_eq!(sysctl("up0/accept_ra"), "1");
            machine.must(&["reset"]);
            assert_eq!((sysctl("up0/forwarding"), sysctl("up0/accept_ra")), ("1".into(), "1".into()));
            assert_eq!(machine.everything(), before);
        }
    });
}

#[test]
fn what_a_router_announced_to_an_uplink_is_still_there_after_a_run_that_failed() {
    on_a_machine(|machine| {
        let world = Announcing::new();
        world.announces_on(machine, "up0");
        configure(machine, "guard = true\n");
        let (before, ways) = (machine.everything(), announced_ways());
        assert_eq!(ways.len(), 1, "{ways:?}");
        // After the machine forwards, and before the uplink is taken.
        let real = ["/usr/sbin/nft", "/usr/bin/nft"].into_iter().find(|path| fs::exists(path).unwrap()).unwrap();
        program(&machine.path("bin/nft"), &format!("[ \"$1\" = -f ] && exit 1\nexec {real} \"$@\""));
        let path = format!("{}:{}", machine.path("bin").display(), std::env::var("PATH").unwrap());
        let failed = machine.command(&TAKE).env("PATH", path).output().unwrap();
        assert_eq!(failed.status.code(), Some(1), "{}", String::from_utf8_lossy(&failed.stderr));
        fs::remove_dir_all(machine.path("bin")).unwrap();
        assert_eq!((sysctl("all/forwarding"), sysctl("up0/accept_ra")), ("0".into(), "1".into()));
        assert_eq!(announced_ways(), ways, "no router has spoken since");
        machine.must(&["reset"]);
        assert_eq!(machine.everything(), before);
    });
}

/// How often the machine has asked for routers on the interface.
fn solicited() -> u64 {
    let counts = fs::read_to_string("/proc/thread-self/net/dev_snmp6/up0").unwrap();
    let line = counts.lines().find_map(|line| line.strip_prefix("Icmp6OutRouterSolicits")).unwrap();
    line.trim().parse().unwrap()
}

#[test]
fn an_uplink_that_is_given_back_asks_for_its_router() {
    on_a_machine(|machine| {
        let world = Announcing::new();
        world.announces_on(machine, "up0");
        configure(machine, "guard = true\n");
        let asks = |verb: &str, before: u64| {
            machine.must(&[verb]);
            until("it asks for its router", || solicited() > before);
            world.announces_on(machine, "up0");
        };
        for verb in ["rollback", "reset"] {
            machine.must(&TAKE);
            asks(verb, solicited());
        }
        // The rest of the node stays, and forwards.
        machine.must(&TAKE);
        machine.must(&["confirm"]);
        let before = solicited();
        machine.configure(1);
        asks("apply", before);
        assert_eq!((sysctl("all/forwarding"), sysctl("up0/accept_ra")), ("1".into(), "2".into()));
        machine.must(&["reset"]);
        assert_eq!(sysctl("up0/accept_ra"), "1");
    });
}

#[test]
fn a_way_out_that_a_router_announced_to_a_machine_with_a_fixed_address_stays() {
    on_a_machine(|machine| {
        let world = Announcing::new();
        fs::write("/proc/sys/net/ipv6/conf/up0/autoconf", "0").unwrap();
        ip("address add 2001:db8:5::7/64 dev up0 nodad");
        until("the machine hears its router", || {
            world.announce();
            !announced_ways().is_empty()
        });
        assert!(!machine.network().addresses.iter().any(|found| found.leased));
        machine.configure(1);
        let (before, ways) = (machine.everything(), announced_ways());
        machine.must(&["apply"]);
        assert_eq!((announced_ways(), sysctl("up0/accept_ra")), (ways.clone(), "2".into()));
        machine.must(&["reset"]);
        assert_eq!((announced_ways(), machine.everything()), (ways, before));
    });
}

#[test]
fn a_bridge_of_the_machines_own_goes_on_hearing_its_router() {
    on_a_machine(|machine| {
        let world = Announcing::new();
        ip("link add br0 address 02:00:00:00:00:07 type bridge");
        without_detection("br0");
        ip("link set up0 master br0");
        ip("link set br0 up");
        world.announces_on(machine, "br0");
        let ways = announced_ways();
        assert!(!ways.is_empty());
        let network = "mode = \"interface\"\nlink = \"br0\"\ntap_mode = \"bridged\"\n";
        // What is behind the taps could say that it is the router.
        machine.configure_with(1, &format!("{network}guard = false\n"), "");
        let before = machine.everything();
        let (code, why) = machine.run(&["apply"]);
        assert_eq!(code, 4, "{why}");
        assert!(why.contains("P0511") && why.contains(ANNOUNCED) && why.contains("guard = true"), "{why}");
        machine.configure_with(1, &format!("{network}guard = true\n"), "");
        machine.must(&["apply"]);
        assert_eq!(announced_ways(), ways);
        assert_eq!(machine.must(&["apply"]), "nothing to do\n");
        ip(&format!("address delete {ANNOUNCED} dev br0"));
        // Nothing is heard at the moment; it listens nevertheless.
        assert_eq!(machine.must(&["verify"]), "the machine is as it was formatted\n");
        world.announces_on(machine, "br0");
        machine.must(&["reset"]);
        assert_eq!(sysctl("br0/accept_ra"), "1");
        assert_eq!(machine.everything(), before);
    });
}

#[test]
fn after_a_rollback_the_machine_listens_to_its_router_as_before() {
    on_a_machine(|machine| {
        let world = Announcing::new();
        world.announces_on(machine, "up0");
        configure(machine, "guard = true\n");
        let before = machine.everything();
        for _ in 0..2 {
            machine.must(&TAKE);
            world.announces_on(machine, "plat0");
            machine.must(&["rollback"]);
            // The rest of the node is still there, and forwards.
            world.announces_on(machine, "up0");
            until("the machine is reached as before", || world.0.reaches(&REACHED));
        }
        machine.must(&["reset"]);
        world.announces_on(machine, "up0");
        assert_eq!(fs::read_to_string("/proc/sys/net/ipv6/conf/up0/accept_ra").unwrap(), "1\n");
        assert_eq!(machine.everything(), before);
    });
}

#[test]
fn an_announced_address_is_not_taken_where_the_bridge_would_not_hear_the_router() {
    on_a_machine(|machine| {
        let world = Announcing::new();
        world.announces_on(machine, "up0");
        configure(machine, "guard = false\n");
        let before = machine.everything();
        let (code, why) = machine.run(&TAKE);
        assert_eq!(code, 4, "{why}");
        assert!(why.contains("P0511") && why.contains(&format!("a router announced {ANNOUNCED}")), "{why}");
        assert_eq!(machine.everything(), before);
    });
}

#[test]
fn an_announced_address_that_the_bridge_would_not_have_is_not_taken() {
    on_a_machine(|machine| {
        let world = Announcing::new();
        ip("token set ::53 dev up0");
        let by_token = || where_is(machine, "2001:db8:5::53/64") == ["up0"];
        until("the machine makes itself an address by its token", || {
            world.announce();
            by_token()
        });
        configure(machine, "guard = true\n");
        let (code, why) = machine.run(&TAKE);
        assert_eq!(code, 4, "{why}");
        assert!(why.contains("P0511") && why.contains("2001:db8:5::53/64") && why.contains("token"), "{why}");
        assert!(by_token());
    });
}

#[test]
fn what_a_program_took_up_of_an_announcement_is_not_taken() {
    on_a_machine(|machine| {
        let _world = Announcing::new();
        // As networkd and NetworkManager have it: the kernel is told not to listen.
        sysctl_is("up0/accept_ra", "0");
        ip("address add 2001:db8:5::ff:fe00:7/64 dev up0 nodad mngtmpaddr valid_lft 3600 preferred_lft 3600");
        ip("route add default via fe80::1 dev up0 proto ra expires 1800");
        configure(machine, "guard = true\n");
        let (before, ways) = (machine.everything(), announced_ways());
        let (code, why) = machine.run(&TAKE);
        assert_eq!(code, 4, "{why}");
        assert!(why.contains("P0511") && why.contains(ANNOUNCED) && why.contains("`accept_ra`"), "{why}");
        assert_eq!((machine.everything(), announced_ways()), (before, ways));
        // What the kernel itself takes up comes again by itself.
        sysctl_is("up0/accept_ra", "1");
        machine.must(&TAKE);
        machine.must(&["reset"]);
    });
}

#[test]
fn an_address_that_is_leased_is_not_taken() {
    on_a_machine(|machine| {
        let _world = World::with_ipv4();
        ip("address add 2001:db8::7/64 dev up0 nodad");
        ip("address add 192.0.2.8/24 dev up0 valid_lft 3600 preferred_lft 3600");
        configure(machine, "guard = false\n");
        let (code, why) = machine.run(&TAKE);
        assert_eq!(code, 4, "{why}");
        assert!(why.contains("P0511") && why.contains("the address 192.0.2.8/24 by DHCP"), "{why}");
        ip("address delete 192.0.2.8/24 dev up0");
        // Of IPv6 too, where no router announced it; and routes, as networkd leaves them with a kept address.
        let held = [
            ("address", "2001:db8:5::77/128", "dev up0 nodad noprefixroute valid_lft 3600 preferred_lft 3600"),
            ("address", "2001:db8:5::77/64", "dev up0 nodad noprefixroute valid_lft 3600 preferred_lft 3600"),
            ("route", "203.0.113.0/24", "via 192.0.2.1 dev up0 proto dhcp"),
            ("route", "2001:db8:9::/64", "via 2001:db8::1 dev up0 proto dhcp"),
            ("route", "2001:db8:9::/64", "via 2001:db8::1 dev up0 proto ra"),
        ];
        for (kind, what, how) in held {
            ip(&format!("{kind} add {what} {how}"));
            let before = machine.everything();
            let (code, why) = machine.run(&TAKE);
            assert_eq!(code, 4, "{what}: {why}");
            assert!(why.contains("P0511") && why.contains(what) && why.contains("by DHCP"), "{what}: {why}");
            assert_eq!(machine.everything(), before);
            ip(&format!("{kind} delete {what} dev up0"));
        }
        // Whose client listens to routers itself: nobody announced the address.
        let (address, how) = ("2001:db8:5::77/128", "dev up0 nodad noprefixroute valid_lft 3600 preferred_lft 3600");
        ip(&format!("address add {address} {how}"));
        sysctl_is("up0/accept_ra", "0");
        let (code, why) = machine.run(&TAKE);
        assert_eq!((code, why.matches("P0511").count()), (4, 1), "{why}");
        assert!(why.contains("by DHCP"), "{why}");
        ip(&format!("address delete {address} dev up0"));
        sysctl_is("up0/accept_ra", "1");
        machine.must(&TAKE);
        machine.must(&["reset"]);
    });
}

/// The machine hears of a way out, and makes itself no address.
fn a_way_out_alone(world: &Announcing) {
    fs::write("/proc/sys/net/ipv6/conf/up0/autoconf", "0").unwrap();
    until("the machine hears its router", || {
        world.announce();
        !announced_ways().is_empty()
    });
}

#[test]
fn a_way_out_that_a_router_announced_is_not_taken_where_the_bridge_would_not_hear_the_router() {
    on_a_machine(|machine| {
        let world = Announcing::new();
        ip("address add 2001:db8:5::7/64 dev up0 nodad");
        a_way_out_alone(&world);
        machine.configure_with(1, "mode = \"bridge\"\nuplink = \"up0\"\nguard = false\n", "");
        let (before, ways) = (machine.everything(), announced_ways());
        let (code, why) = machine.run(&TAKE);
        assert_eq!(code, 4, "{why}");
        assert!(why.contains("P0511") && why.contains("a router announced a way to ::/0"), "{why}");
        assert_eq!((machine.everything(), announced_ways()), (before, ways));
    });
}

#[test]
fn a_way_out_that_a_router_announced_is_all_that_consent_is_asked_for() {
    on_a_machine(|machine| {
        let world = Announcing::new();
        ip("address flush dev up0 scope global");
        a_way_out_alone(&world);
        machine.configure_with(1, "mode = \"bridge\"\nuplink = \"up0\"\n", "");
        let ways = announced_ways();
        let (code, why) = machine.run(&["apply"]);
        assert_eq!(code, 4, "{why}");
        assert!(why.contains("P0511") && why.contains("announced route to ::/0 would move"), "{why}");
        assert_eq!(announced_ways(), ways);
        machine.must(&TAKE);
        until("the router is heard on the bridge", || {
            world.announce();
            announced_ways().iter().any(|way| way.contains("dev plat0"))
        });
        machine.must(&["reset"]);
    });
}

#[test]
fn a_machine_that_forwards_already_hears_its_router_on_the_bridge() {
    on_a_machine(|machine| {
        let world = Announcing::new();
        sysctl_is("up0/accept_ra", "2");
        sysctl_is("all/forwarding", "1");
        world.announces_on(machine, "up0");
        // The node itself has nothing behind it.
        let network = "mode = \"bridge\"\nuplink = \"up0\"\ntaps = false\n";
        machine.configure_with(1, &format!("{network}guard = false\n"), "");
        let (code, why) = machine.run(&TAKE);
        assert_eq!(code, 4, "{why}");
        assert!(why.contains("P0511") && why.contains(&format!("a router announced {ANNOUNCED}")), "{why}");
        machine.configure_with(1, &format!("{network}guard = true\n"), "");
        machine.must(&TAKE);
        world.announces_on(machine, "plat0");
        machine.must(&["reset"]);
        world.announces_on(machine, "up0");
    });
}

fn sysctl_is(key: &str, value: &str) {
    fs::write(format!("/proc/sys/net/ipv6/conf/{key}"), value).unwrap();
}
