//! Which address of a link the kernel prefers after a run that fails.

use super::effects::acting_before;
use super::machine::{Machine, ip, on_a_machine};
use super::uplink::World;

const TAKE: &str = "mode = \"bridge\"\nuplink = \"up0\"\nguard = false\ngateway = true\n";

/// Those of a link that the kernel may choose, IPv4 first, as it prefers them.
fn preferred(machine: &Machine, link: &str) -> [Vec<String>; 2] {
    let on_it = machine.network().addresses.into_iter().filter(|found| found.link == link && !found.bound_only);
    let all: Vec<String> = on_it.map(|found| found.address.to_string()).collect();
    let (ipv6, ipv4) = all.into_iter().partition(|address| address.contains(':'));
    [ipv4, ipv6].map(|all: Vec<String>| all.into_iter().filter(|address| !address.starts_with("fe80:")).collect())
}

fn renumber(machine: &Machine, network: &str) {
    let config = std::fs::read_to_string(machine.path("format.toml")).unwrap();
    let other = config.replace("10.200.0.0/16", network).replace("fd00:1::", "fd00:2::");
    std::fs::write(machine.path("format.toml"), other).unwrap();
}

#[test]
fn an_address_that_came_before_the_nodes_own_is_before_it_again_after_a_reset_that_fails() {
    on_a_machine(|machine| {
        let _world = World::new();
        machine.configure_with(1, TAKE, "");
        machine.must(&["apply", "--take-uplink"]);
        machine.must(&["confirm"]);
        renumber(machine, "10.201.0.0/16");
        machine.must(&["apply"]);
        let before = preferred(machine, "plat0");
        assert_eq!(before[0], ["192.0.2.7/24", "10.201.0.1/16"]);
        assert_eq!(before[1], ["fd00:2::1/64", "2001:db8::7/64"]);
        let home = machine.path("srv/plat/partitions/part0/srv/his");
        let (code, why) = acting_before("unlinkat", &machine.command(&["reset"]), || {
            std::fs::write(&home, "").unwrap();
        });
        assert!(code == 1 && !why.contains("P0505"), "{why}");
        assert_eq!(preferred(machine, "plat0"), before, "{why}");
        std::fs::remove_file(home).unwrap();
        machine.must(&["reset"]);
        assert_eq!(
            preferred(machine, "up0"),
            [["192.0.2.7/24"], ["2001:db8::7/64"]].map(|all| all.map(String::from).to_vec())
        );
    });
}

#[test]
fn an_address_that_comes_back_behind_another_one_is_named() {
    on_a_machine(|machine| {
        let _world = World::new();
        machine.configure_with(1, TAKE, "");
        machine.must(&["apply", "--take-uplink"]);
        machine.must(&["confirm"]);
        assert_eq!(preferred(machine, "plat0")[0], ["10.200.0.1/16", "192.0.2.7/24"]);
        renumber(machine, "10.201.0.0/16");
        // The last thing that it does.
        std::fs::create_dir_all(machine.path("srv/plat/resources/part0/.node-format-resource.json/in")).unwrap();
        let (code, why) = machine.run(&["apply"]);
        let said = "10.200.0.1/16 goes from plat0, and with it its place before 192.0.2.7/24";
        assert!(code == 1 && why.contains(said), "{why}");
        assert_eq!(preferred(machine, "plat0")[0], ["192.0.2.7/24", "10.200.0.1/16"]);
        std::fs::remove_dir_all(machine.path("srv/plat/resources/part0/.node-format-resource.json")).unwrap();
        ip("address add 198.51.100.9/24 dev up0");
        let plan = machine.must(&["plan", "--reset"]);
        assert!(plan.contains("! up0 has 198.51.100.9/24 by now: 192.0.2.7/24 comes back behind it"), "{plan}");
        machine.must(&["reset"]);
        assert_eq!(preferred(machine, "up0")[0], ["198.51.100.9/24", "192.0.2.7/24"]);
    });
}

#[test]
fn what_an_uplink_brought_that_comes_back_behind_another_one_is_named() {
    on_a_machine(|machine| {
        let _world = World::new();
        machine.configure_with(1, TAKE, "");
        machine.must(&["apply", "--take-uplink"]);
        machine.must(&["confirm"]);
        ip("address add 198.51.100.9/24 dev plat0");
        let config = std::fs::read_to_string(machine.path("format.toml")).unwrap();
        std::fs::write(machine.path("format.toml"), config.replace("uplink = \"up0\"\n", "")).unwrap();
        renumber(machine, "10.201.0.0/16");
        std::fs::create_dir_all(machine.path("srv/plat/resources/part0/.node-format-resource.json/in")).unwrap();
        let (code, why) = machine.run(&["apply"]);
        let said = "192.0.2.7/24 goes from plat0, and with it its place before 198.51.100.9/24";
        assert!(code == 1 && why.contains(said), "{why}");
        assert_eq!(preferred(machine, "plat0")[0][0], "198.51.100.9/24");
    });
}

/// What the kernel takes as the source of what goes there.
fn source(to: &str) -> String {
    let got = std::process::Command::new("ip").args(["route", "get"]).args(to.split(' ')).output().unwrap();
    let got = String::from_utf8(got.stdout).unwrap();
    got.split_whitespace().skip_while(|word| *word != "src").nth(1).unwrap_or_default().to_owned()
}

#[test]
fn no_partitions_address_is_chosen_for_what_stays_on_a_link() {
    on_a_machine(|machine| {
        let _world = World::with_ipv4();
        ip("route add 169.254.0.0/16 dev up0 scope link");
        machine.configure_with(2, "mode = \"interface\"\nlink = \"up0\"\nguard = false\n", "");
        let chosen = || ["169.254.9.9", "224.0.0.251 oif up0", "255.255.255.255 oif up0", "198.51.100.1"].map(source);
        let before = chosen();
        assert_eq!(before, ["192.0.2.7"; 4]);
        machine.must(&["apply"]);
        assert_eq!(chosen(), before);
        machine.must(&["verify"]);
        machine.must(&["reset"]);
    });
}
