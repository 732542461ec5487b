//! What somebody else set in a partition's namespace, or gave it: named, refused, kept.

use super::super::effects::acting_before;
use super::super::machine::{Machine, ip, on_a_machine, until};
use super::{NETWORK, inside};
use std::process::{Command, Output};

/// What a run says is lost, without what it says of every user that goes.
fn notes(machine: &Machine, verb: &[&str]) -> Vec<String> {
    let said = machine.must(verb);
    let notes = said.lines().filter_map(|line| line.strip_prefix("! "));
    notes.filter(|note| !note.starts_with("what uid")).map(str::to_owned).collect()
}

/// As a program that joins containers to a network does it: `cni0` here, `eth0` in the namespace of part0.
fn join(machine: &Machine) {
    ip("link add cni0 type veth peer name his");
    ip("address add 10.88.0.1/16 dev cni0");
    ip("link set cni0 up");
    ip(&format!("link set his netns {}", machine.path("run/netns/part0").display()));
    inside(machine, "part0", || {
        ip("link set his name eth0");
        ip("address add 10.88.0.2/16 dev eth0");
        ip("link set eth0 up");
    });
}

fn addresses(machine: &Machine, link: &str) -> Vec<String> {
    let link = link.to_owned();
    inside(machine, "part0", move || addresses_here(&link))
}

fn eth0() -> Vec<String> {
    addresses_here("eth0")
}

fn addresses_here(link: &str) -> Vec<String> {
    let shown = Command::new("ip").args(["-4", "-o", "address", "show", "dev", link]).output().unwrap();
    let text = String::from_utf8(shown.stdout).unwrap();
    text.lines().filter_map(|line| line.split_whitespace().nth(3)).map(str::to_owned).collect()
}

#[test]
fn an_eth0_of_somebody_elses_stays_where_ours_is_gone_keeps_nothing_else_and_is_named_where_it_goes() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure_with(1, NETWORK, "");
        machine.must(&["apply"]);
        assert_eq!(notes(machine, &["plan", "--reset"]), [""; 0]);
        ip("link delete part-v0");
        join(machine);
        let (code, why) = machine.run(&["verify"]);
        assert!(code == 3 && why.contains("one pair with the link cni0, not with part-v0"), "{why}");
        machine.configure_with(2, NETWORK, "");
        let said = notes(machine, &["apply"]);
        assert!(
            matches!(&said[..], [one] if one.contains("one pair with the link cni0, not with part-v0")),
            "{said:?}"
        );
        assert_eq!(inside(machine, "part1", eth0), ["10.200.0.3/32"]);
        assert_eq!(machine.run(&["verify"]).0, 3);
        machine.configure_with(1, NETWORK, "");
        machine.must(&["apply"]);
        assert_eq!(addresses(machine, "eth0"), ["10.88.0.2/16"]);
        let said = "namespace part0 goes, and with it the link eth0 in it and cni0, which it is one pair with instead of part-v0";
        assert_eq!(notes(machine, &["plan", "--reset"]), [said]);
        // As it says.
        ip("link delete cni0");
        machine.must(&["apply"]);
        machine.must(&["verify"]);
        assert_eq!(addresses(machine, "eth0"), ["10.200.0.2/32"]);
        machine.must(&["reset"]);
    });
}

#[test]
fn an_eth0_of_somebody_elses_keeps_its_addresses_where_ours_was_called_otherwise() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure_with(1, NETWORK, "");
        machine.must(&["apply"]);
        inside(machine, "part0", || {
            ip("link set eth0 down");
            ip("link set eth0 name wan0");
        });
        join(machine);
        assert_eq!(machine.run(&["verify"]).0, 3);
        machine.must(&["apply"]);
        assert_eq!(machine.run(&["verify"]).0, 3);
        assert_eq!(addresses(machine, "eth0"), ["10.88.0.2/16"]);
        let said = notes(machine, &["plan", "--reset"]);
        assert!(
            said.iter().any(|note| note.ends_with("the link wan0 in it, which was eth0, and what is on it")),
            "{said:?}"
        );
        // Without his, the pair is made anew, and what was set on it is named.
        ip("link delete cni0");
        ip("address add 172.31.0.1/24 dev part-v0");
        let lost = [
            "part-v0 goes, and with it the address 172.31.0.1/24, which node-format did not make",
            "part-v0 goes, and with it wan0 in namespace part0, which was eth0, and what is on it",
        ];
        assert_eq!(notes(machine, &["apply"]), lost);
        machine.must(&["verify"]);
        machine.must(&["reset"]);
    });
}

#[test]
fn what_somebody_set_in_a_namespace_is_named_before_it_goes() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure_with(1, NETWORK, "");
        machine.must(&["apply"]);
        inside(machine, "part0", || {
            ip("address add 10.77.0.1/24 dev eth0");
            ip("address add 10.78.0.1/24 dev lo");
            ip("route add blackhole 10.79.0.0/16");
            ip("-6 route add unreachable 2001:db8:79::/48");
            ip("route add 10.80.0.0/16 dev eth0");
            ip("route add 10.81.0.0/16 dev eth0 table 77");
            ip("neighbour add 10.200.0.9 lladdr 02:00:00:00:00:09 nud permanent dev eth0");
            ip("link add wg0 type bridge");
        });
        let kept = [
            "the link wg0 in it, which node-format did not make",
            "the neighbour 10.200.0.9, set by hand, which node-format did not make there",
            "the route 10.81.0.0/16 of table 77, which node-format did not make there",
            "the address 10.78.0.1/24, which node-format did not make there",
            "the route 10.79.0.0/16 of kind blackhole, which node-format did not make there",
            "the route 2001:db8:79::/48 of kind unreachable, which node-format did not make there",
        ];
        let taken = [
            "the address 10.77.0.1/24, which node-format did not make there",
            "the route to 10.80.0.0/16, which node-format did not make there",
        ];
        let named = |how: &str, what: &[&str]| {
            let mut all: Vec<String> = what.iter().map(|what| format!("namespace part0 {how} {what}")).collect();
            all.sort();
            all
        };
        let said = |verb: &[&str]| {
            let mut all = notes(machine, verb);
            all.sort();
            all
        };
        let goes = "goes, and with it";
        assert_eq!(said(&["plan", "--reset"]), named(goes, &[kept.as_slice(), &taken].concat()));
        let plan = machine.must(&["plan"]);
        let line = "~ namespace part0 by part-v0 10.77.0.1,10.200.0.2,fd00:1::1:0:0:1 -> 10.200.0.2,fd00:1::1:0:0:1, other routes\n";
        assert!(plan.contains(line), "{plan}");
        assert_eq!(said(&["apply"]), named("is made as it was, and with that goes", &taken));
        assert_eq!(said(&["plan", "--reset"]), named(goes, &kept));
        machine.must(&["reset"]);
    });
}

#[test]
fn both_ends_of_a_pair_have_the_link_local_address_of_the_hardware_address_that_they_get() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure_with(1, NETWORK, "");
        machine.must(&["apply"]);
        let own = |link: &'static str| {
            let shown = Command::new("ip").args(["-6", "-o", "address", "show", "dev", link]).output().unwrap();
            let text = String::from_utf8(shown.stdout).unwrap();
            let near =
                text.lines().filter_map(|line| line.split_whitespace().nth(3)).find(|one| one.starts_with("fe80:"));
            near.map(str::to_owned)
        };
        let both = || (own("part-v0"), inside(machine, "part0", move || own("eth0")));
        super::super::machine::until("both have one", || matches!(both(), (Some(_), Some(_))));
        let before = both();
        // Another prefix: another hardware address of each.
        let config = std::fs::read_to_string(machine.path("format.toml")).unwrap();
        std::fs::write(machine.path("format.toml"), config.replace("fd00:1::/64", "fd00:2::/64")).unwrap();
        assert_eq!(notes(machine, &["apply"]), [""; 0]);
        let of = |mac: [u8; 6]| Some(format!("{}/64", node_format_plan::link_local(mac)));
        let outer = machine.network().links["part-v0"].mac;
        let after = both();
        assert_eq!(after.0, of(outer));
        assert!(after.0 != before.0 && after.1.is_some() && after.1 != before.1, "{before:?} {after:?}");
        assert_eq!(notes(machine, &["plan", "--reset"]), [""; 0]);
        machine.must(&["reset"]);
    });
}

#[test]
fn the_other_end_of_a_pair_goes_from_another_namespace_and_that_is_said() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure_with(2, NETWORK, "");
        machine.must(&["apply"]);
        let other = machine.path("run/netns/part0").display().to_string();
        inside(machine, "part1", move || {
            ip(&format!("link add one type veth peer name far netns {other}"));
            ip("link add two type veth peer name three");
        });
        machine.configure_with(1, NETWORK, "");
        let goes = "namespace part1 goes, and with it the link";
        let said = [
            format!("{goes} one in it and its other end, in another namespace, which node-format did not make"),
            format!("{goes} three in it, which node-format did not make"),
            format!("{goes} two in it, which node-format did not make"),
        ];
        assert_eq!(notes(machine, &["apply"]), said);
        machine.must(&["reset"]);
    });
}

#[test]
fn what_somebody_set_inside_in_the_place_of_ours_keeps_nothing_else_from_being_made() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure_with(2, NETWORK, "");
        machine.must(&["apply"]);
        inside(machine, "part0", || {
            ip("link add his type bridge");
            ip("link set his up");
            ip("route delete default");
            ip("route add default dev his");
            ip("address delete 10.200.0.2/32 dev eth0");
        });
        inside(machine, "part1", || ip("address delete 10.200.0.3/32 dev eth0"));
        for round in 0..2 {
            let Output { status, stderr, .. } = machine.command(&["apply"]).output().unwrap();
            let why = String::from_utf8(stderr).unwrap();
            assert_eq!(status.code(), Some(0), "{why}");
            let said = "namespace part0 is not as it must be (somebody in there has set something in the place of the route to 0.0.0.0/0 (File exists (os error 17)))";
            assert!(why.contains(said), "{round}: {why}");
            assert_eq!(
                [inside(machine, "part0", eth0), inside(machine, "part1", eth0)],
                [["10.200.0.2/32"], ["10.200.0.3/32"]]
            );
            assert_eq!(machine.run(&["verify"]).0, 3);
        }
        // A run that fails says so, too.
        machine.configure_with(3, NETWORK, "");
        std::fs::create_dir_all(machine.path("var/lib/plat/.node-format-node.json/in")).unwrap();
        let (code, why) = machine.run(&["apply"]);
        assert!(code == 1 && why.contains("namespace part0 is not as it must be"), "{why}");
        std::fs::remove_dir_all(machine.path("var/lib/plat/.node-format-node.json")).unwrap();
        inside(machine, "part0", || ip("route delete default dev his"));
        machine.must(&["apply"]);
        machine.must(&["verify"]);
        machine.must(&["reset"]);
    });
}

#[test]
fn a_pair_that_goes_from_inside_while_a_run_is_at_work_keeps_nothing_else_from_being_made() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure_with(2, NETWORK, "");
        machine.must(&["apply"]);
        for name in ["part0", "part1"] {
            inside(machine, name, || ip("address add 10.98.0.1/24 dev eth0"));
        }
        // After the run has looked.
        let (code, why) = acting_before("fdatasync", &machine.command(&["apply"]), || {
            inside(machine, "part0", || ip("link delete eth0"));
        });
        assert!(code == 0 && why.contains("namespace part0 is not as it must be"), "{why}");
        assert_eq!(inside(machine, "part1", eth0), ["10.200.0.3/32"]);
        assert_eq!(machine.run(&["verify"]).0, 3);
        machine.must(&["apply"]);
        machine.must(&["verify"]);
        machine.must(&["reset"]);
    });
}

#[test]
fn links_on_an_eth0_that_is_to_take_smaller_packets_are_named() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure_with(1, NETWORK, "");
        machine.must(&["apply"]);
        inside(machine, "part0", || {
            for (link, mtu) in [("upon", 1500), ("less", 1300)] {
                ip(&format!("link add link eth0 name {link} mtu {mtu} type macvlan mode bridge"));
            }
        });
        let mtus = || {
            inside(machine, "part0", || {
                let shown = |link: &str| {
                    let shown = Command::new("ip").args(["-o", "link", "show", link]).output().unwrap();
                    let text = String::from_utf8(shown.stdout).unwrap();
                    text.split(" mtu ").nth(1).map(|rest| rest.split(' ').next().unwrap().to_owned())
                };
                ["eth0", "upon", "less"].map(shown).map(Option::unwrap)
            })
        };
        machine.configure_with(1, &format!("{NETWORK}mtu = 1400\n"), "[limits]\nmemory_mib = 512\n");
        let takes = "takes packets of 1400 bytes instead of 1500; so does what stands on it, afterwards too:";
        let said = [format!("eth0 in namespace part0 {takes} upon")];
        let plan = machine.must(&["plan"]);
        assert!(plan.contains("~ namespace part0 by part-v0 mtu 1500 -> 1400, other link\n"), "{plan}");
        assert_eq!(notes(machine, &["plan"]), said);
        std::fs::create_dir_all(machine.path("srv/plat/resources/part0/.node-format-resource.json/in")).unwrap();
        let (code, why) = machine.run(&["apply"]);
        assert!(code == 1 && said.iter().all(|said| why.contains(said)), "{why}");
        assert_eq!(mtus(), ["1500", "1400", "1300"]);
        std::fs::remove_dir_all(machine.path("srv/plat/resources/part0/.node-format-resource.json")).unwrap();
        machine.must(&["apply"]);
        machine.must(&["verify"]);
        assert_eq!(mtus(), ["1400", "1400", "1300"]);
        machine.must(&["reset"]);
    });
}

#[test]
fn a_namespace_that_somebody_runs_in_is_said_to_stay() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure_with(2, NETWORK, "");
        machine.must(&["apply"]);
        // Nobody of the partitions.
        let mut sleeping = Command::new("nsenter");
        sleeping.arg(format!("--net={}", machine.path("run/netns/part1").display()));
        let mut sleeping = sleeping.args(["setpriv", "--reuid=65001", "sleep", "1000"]).spawn().unwrap();
        let comm = format!("/proc/{}/comm", sleeping.id());
        until("it sleeps", || std::fs::read_to_string(&comm).is_ok_and(|name| name == "sleep\n"));
        let said = machine.must(&["reset"]);
        let stays = format!(
            "! namespace part1 loses its name and its link, and stays, with all else that is in it, for as long as somebody runs in it: process {} (sleep) does",
            sleeping.id()
        );
        assert!(said.contains(&stays) && !said.contains("namespace part0 loses"), "{said}");
        sleeping.kill().unwrap();
        sleeping.wait().unwrap();
    });
}
