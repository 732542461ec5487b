//! A fixed address beside one of the same network that ends by itself, or that has no route: the kernel then leaves the
//! network's route where the fixed one was.

use super::super::effects::acting_before;
use super::*;

/// The way to the router, and how many ways to its network there are by the bridge.
fn ways(router: &str, network: &str) -> (String, usize) {
    let shown = |arguments: &[&str]| {
        String::from_utf8(Command::new("ip").arg("-6").args(arguments).output().unwrap().stdout).unwrap()
    };
    let way = shown(&["route", "get", router]);
    let dev = way.split(" dev ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or(&way).to_owned();
    let by_the_bridge = shown(&["route", "show", "table", "main", network, "dev", "plat0"]);
    (dev, by_the_bridge.lines().count())
}

#[test]
fn an_uplink_with_a_fixed_address_of_an_announced_prefix_is_given_back_whole() {
    on_a_machine(|machine| {
        let world = Announcing::new();
        ip("address add 2001:db8:5::7/64 dev up0 nodad");
        world.announces_on(machine, "up0");
        let network = "mode = \"bridge\"\nguard = true\n";
        let with_uplink = format!("{network}uplink = \"up0\"\n");
        for way_back in ["rollback", "apply", "reset"] {
            machine.configure_with(1, &with_uplink, "");
            machine.must(&TAKE);
            world.announces_on(machine, "plat0");
            assert_eq!(ways("2001:db8:5::1", "2001:db8:5::/64").0, "plat0");
            if way_back == "apply" {
                machine.must(&["confirm"]);
                machine.configure_with(1, network, "");
                let said = machine.must(&["plan"]);
                assert!(said.contains(&format!("and with it {ANNOUNCED}, which ends by itself")), "{said}");
            }
            machine.must(&[way_back]);
            // No router has spoken since.
            assert_eq!(ways("2001:db8:5::1", "2001:db8:5::/64"), ("up0".into(), 0), "{way_back}");
            assert_eq!(where_is(machine, "2001:db8:5::7/64"), ["up0"]);
            assert!(!where_is(machine, ANNOUNCED).contains(&"plat0".to_owned()), "{way_back}");
            until("the machine is reached as before", || world.0.reaches(&["192.0.2.7:0", "[2001:db8:5::7]:0"]));
            world.announces_on(machine, "up0");
        }
    });
}

#[test]
fn an_uplink_with_an_address_without_a_route_is_given_back_whole() {
    on_a_machine(|machine| {
        let world = World::with_ipv4();
        ip("address add 2001:db8::7/64 dev up0 nodad");
        ip("address add 2001:db8::8/64 dev up0 nodad noprefixroute");
        machine.configure_with(1, "mode = \"bridge\"\nuplink = \"up0\"\nguard = false\n", "");
        machine.must(&TAKE);
        machine.must(&["rollback"]);
        assert_eq!(ways("2001:db8::1", "2001:db8::/64"), ("up0".into(), 0));
        assert!(world.is_reached());
        machine.must(&["reset"]);
    });
}

#[test]
fn a_reset_that_fails_leaves_a_machine_that_was_given_its_network_by_hand_to_hear_its_router() {
    on_a_machine(|machine| {
        let world = Announcing::new();
        world.announces_on(machine, "up0");
        let network = "mode = \"bridge\"\nuplink = \"up0\"\nguard = true\n";
        machine.configure_with(1, network, "");
        machine.must(&TAKE);
        machine.must(&["confirm"]);
        ip("link set plat0 down");
        ip("link set up0 nomaster");
        fs::write("/proc/sys/net/ipv6/conf/up0/disable_ipv6", "0").unwrap();
        without_detection("up0");
        ip("address add 192.0.2.7/24 dev up0");
        ip("link set up0 up");
        world.announces_on(machine, "up0");
        let before = sysctl("up0/accept_ra");
        let home = machine.path("srv/plat/partitions/part0");
        let (code, why) = acting_before("unlinkat", &machine.command(&["reset"]), || {
            fs::write(home.join("srv/his"), "").unwrap();
        });
        assert!(code == 1 && why.contains("up0, which has all of its own network again"), "{why}");
        assert_eq!((sysctl("up0/accept_ra"), sysctl("all/forwarding")), (before, "1".into()), "{why}");
        fs::remove_file(home.join("srv/his")).unwrap();
        machine.must(&["reset"]);
        world.announces_on(machine, "up0");
    });
}
