//! What somebody else does between the look and the deed: a program of the run's is preceded by it.

use super::effects::{acting_before, acting_once};
use super::guard::tap::Guest;
use super::machine::{Machine, ip, on_a_machine, program};
use super::uplink::{TAKE, World, where_is};
use nix::mount::{MsFlags, mount};
use node_format_plan::facts::LinkKind;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const DATABASE: [&str; 4] = ["passwd", "group", "shadow", "gshadow"];
const TEXTS: [&str; 4] =
    ["root:x:0:0:root:/root:/bin/sh\n", "root:x:0:\nkvm:x:104:bob\n", "root:*:1::::::\n", "root:*::\nkvm:!::bob\n"];

/// With two partitions, whose users shall be in kvm.
fn prepare(machine: &Machine) {
    ip("link set lo up");
    DATABASE.iter().zip(TEXTS).for_each(|(name, text)| fs::write(machine.path("etc").join(name), text).unwrap());
    machine.configure(2);
    let config = fs::read_to_string(machine.path("format.toml")).unwrap();
    let config = config.replace("[partitions]\n", "[partitions]\ngroups = [\"kvm\"]\n");
    fs::write(machine.path("format.toml"), config).unwrap();
}

fn text(machine: &Machine, name: &str) -> String {
    fs::read_to_string(machine.path("etc").join(name)).unwrap()
}

/// Applies; before systemd-sysusers a shell does `act` in the machine's root. It must fail.
fn apply_after(machine: &Machine, act: &str) -> String {
    run_after(machine, act, &["apply"])
}

/// As [`apply_after`], with more to say.
fn run_after(machine: &Machine, act: &str, verb: &[&str]) -> String {
    let path = std::env::var("PATH").unwrap();
    let script =
        format!("(cd {} && {act}) || exit 9\nPATH={path} exec systemd-sysusers \"$@\"", machine.root.path().display());
    program(&machine.path("bin/systemd-sysusers"), &script);
    let path = format!("{}:{path}", machine.path("bin").display());
    let Output { status, stderr, .. } = machine.command(verb).env("PATH", path).output().unwrap();
    let why = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{why}");
    assert!(why.contains("as it was before the run"), "{why}");
    why
}

/// What the database is, but for lines that were added to it.
fn assert_only(machine: &Machine, added: [&str; 4]) {
    for ((name, before), added) in DATABASE.iter().zip(TEXTS).zip(added) {
        assert_eq!(text(machine, name), format!("{before}{added}"), "{name}");
    }
}

fn mount_on_itself(at: &Path) {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    mount(Some(at), at, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
}

#[test]
fn a_table_of_the_name_that_somebody_made_meanwhile_stays() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure_with(1, "mode = \"bridge\"\nguard = true\n", "");
        let path = std::env::var("PATH").unwrap();
        let script = format!("export PATH={path}\n[ \"$*\" != '-f -' ] || nft add table inet plat\nexec nft \"$@\"");
        program(&machine.path("bin/nft"), &script);
        let path = format!("{}:{path}", machine.path("bin").display());
        let Output { status, stderr, .. } = machine.command(&["apply"]).env("PATH", path).output().unwrap();
        let why = String::from_utf8(stderr).unwrap();
        assert!(status.code() == Some(1) && why.contains("File exists"), "{why}");
        let tables = Command::new("nft").args(["list", "ruleset"]).output().unwrap();
        assert_eq!(String::from_utf8(tables.stdout).unwrap(), "table inet plat {\n}\n", "his alone");
    });
}

#[test]
fn what_came_to_the_place_of_a_namespace_or_of_node_json_stays_there() {
    on_a_machine(|machine| {
        prepare(machine);
        let why = apply_after(machine, "echo his >var/lib/plat/node.json");
        assert!(why.contains("cannot write /var/lib/plat/node.json"), "{why}");
        assert_eq!(fs::read_to_string(machine.path("var/lib/plat/node.json")).unwrap(), "his\n");
        fs::remove_file(machine.path("var/lib/plat/node.json")).unwrap();

        machine.configure_with(2, "mode = \"bridge\"\nnamespaces = true\nguard = false\n", "");
        let his = machine.path("run/netns/part1");
        let why = apply_after(machine, "mkdir -p run/netns && echo his >run/netns/part1");
        assert!(why.contains("cannot make namespace part1"), "{why}");
        assert_eq!(fs::read_to_string(&his).unwrap(), "his\n");
        assert!(!machine.path("run/netns/part0").exists());
        fs::remove_file(&his).unwrap();

        mount_on_itself(&machine.path("run/netns"));
        let why = apply_after(machine, "touch run/netns/part1 && mount --bind /proc/self/ns/net run/netns/part1");
        assert!(why.contains("cannot make namespace part1"), "{why}");
        let inode = |path: &Path| fs::metadata(path).map(|found| std::os::unix::fs::MetadataExt::ino(&found)).unwrap();
        assert_eq!(inode(&his), inode(Path::new("/proc/thread-self/ns/net")));
        for at in [&his, &machine.path("run/netns")] {
            nix::mount::umount2(at, nix::mount::MntFlags::MNT_DETACH).unwrap();
        }
    });
}

#[test]
fn where_one_file_cannot_be_replaced_no_group_keeps_a_member_who_was_not_made() {
    on_a_machine(|machine| {
        prepare(machine);
        mount_on_itself(&machine.path("etc/passwd"));
        apply_after(machine, "true");
        assert_only(machine, [""; 4]);
        nix::mount::umount2(&machine.path("etc/passwd"), nix::mount::MntFlags::empty()).unwrap();
        machine.must(&["apply"]);
        machine.must(&["reset"]);
        assert_only(machine, [""; 4]);
    });
}

#[test]
fn what_cannot_be_taken_out_of_the_database_either_is_told_and_goes_with_the_next_reset() {
    on_a_machine(|machine| {
        prepare(machine);
        mount_on_itself(&machine.path("etc/passwd"));
        let (path, root) = (std::env::var("PATH").unwrap(), machine.root.path().display());
        let script =
            format!("export PATH={path}\nsystemd-sysusers \"$@\"; cd {root}/etc; mount --bind group group; exit 1");
        program(&machine.path("bin/systemd-sysusers"), &script);
        let path = format!("{}:{path}", machine.path("bin").display());
        let Output { status, stderr, .. } = machine.command(&["apply"]).env("PATH", path).output().unwrap();
        let why = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(5), "{why}");
        assert!(why.contains("of accounts that were not made whole cannot be taken away"), "{why}");
        assert!(text(machine, "group").contains("kvm:x:104:bob,part0,part1\n"), "{why}");
        for name in ["passwd", "group"] {
            nix::mount::umount2(&machine.path("etc").join(name), nix::mount::MntFlags::empty()).unwrap();
        }
        machine.must(&["reset"]);
        assert_only(machine, [""; 4]);
    });
}

#[test]
fn an_account_that_got_another_number_because_its_own_was_taken_goes_again() {
    on_a_machine(|machine| {
        prepare(machine);
        apply_after(machine, "echo 'ann:x:61000:33::/:/bin/sh' >>etc/passwd");
        assert_only(machine, ["ann:x:61000:33::/:/bin/sh\n", "", "", ""]);
        prepare(machine);
        apply_after(machine, "echo 'ann:x:61001:' >>etc/group");
        assert_only(machine, ["", "ann:x:61001:\n", "", ""]);
    });
}

#[test]
fn a_user_whom_somebody_made_by_the_name_meanwhile_stays_as_he_is() {
    on_a_machine(|machine| {
        prepare(machine);
        let act = "echo 'part0:x:7001:7001::/home/part0:/bin/sh' >>etc/passwd; \
                   echo 'part0:$6$hash:7::::::' >>etc/shadow; \
                   echo 'part0:x:7001:' >>etc/group; echo 'part0:!::' >>etc/gshadow";
        apply_after(machine, act);
        let his =
            ["part0:x:7001:7001::/home/part0:/bin/sh\n", "part0:x:7001:\n", "part0:$6$hash:7::::::\n", "part0:!::\n"];
        assert_only(machine, his);
        prepare(machine);
        // As by vigr.
        apply_after(machine, "echo 'part1:x:7002:' >>etc/group");
        assert_only(machine, ["", "part1:x:7002:\n", "", ""]);
    });
}

#[test]
fn a_link_that_took_the_name_of_a_partitions_pair_stays_when_the_run_is_undone() {
    on_a_machine(|machine| {
        prepare(machine);
        machine.configure_with(2, "mode = \"bridge\"\nnamespaces = true\nguard = false\n", "");
        let act = "ip link add part-v1 type veth peer name his-end && ip address add 172.31.0.1/24 dev part-v1";
        let why = apply_after(machine, act);
        assert!(why.contains("part1"), "{why}");
        let left = machine.network();
        assert_eq!(left.links.keys().collect::<Vec<_>>(), ["his-end", "lo", "part-v1"]);
        assert!(left.addresses.iter().any(|found| found.link == "part-v1"), "{:?}", left.addresses);
    });
}

#[test]
fn what_took_the_name_of_a_link_that_is_to_go_stays() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(2);
        machine.must(&["apply"]);
        // node.json goes first.
        let (code, said) = acting_before("unlinkat", &machine.command(&["reset"]), || {
            ip("link delete part0");
            ip("link add part0 type bridge");
            ip("link delete plat0");
            ip("link add plat0 type veth peer name his-end");
        });
        assert_eq!(code, 0, "{said}");
        let left = machine.network().links;
        assert_eq!(left.keys().collect::<Vec<_>>(), ["his-end", "lo", "part0", "plat0"]);
        assert_eq!((&left["part0"].kind, &left["plat0"].kind), (&LinkKind::Bridge, &LinkKind::Veth));
    });
}

/// A tun beside each tap.
const BRIDGED: &str = "mode = \"bridge\"\ntuns = true\ntun_ipv4_network = \"10.201.0.0/24\"\nguard = false\n";

/// As [`BRIDGED`], with routed taps.
fn routed() -> String {
    format!("tap_mode = \"routed\"\n{BRIDGED}")
}

#[test]
fn what_went_with_a_link_that_its_user_let_go_is_gone_and_nothing_is_said_of_it() {
    on_a_machine(|machine| {
        ip("link set lo up");
        let let_go = |links: &'static [&str]| move || links.iter().for_each(|link| ip(&format!("link delete {link}")));
        for (network, links) in [(&routed(), &["part1", "part-tun1"] as &[&str]), (&BRIDGED.to_owned(), &["part-tun1"])]
        {
            machine.configure_with(2, network, "");
            let before = machine.everything();
            machine.must(&["apply"]);
            machine.configure_with(1, network, "");
            let ended = acting_before("unlinkat", &machine.command(&["apply"]), let_go(links));
            assert_eq!(ended, (0, String::new()));
            let shown = machine.must(&["show"]);
            assert!(shown.contains("part0") && !links.iter().any(|link| shown.contains(link)), "{shown}");
            machine.configure_with(2, network, "");
            machine.must(&["apply"]);
            assert_eq!(acting_before("unlinkat", &machine.command(&["reset"]), let_go(links)), (0, String::new()));
            assert_eq!(machine.must(&["show"]), "nothing was made\n");
            assert_eq!(machine.everything(), before);
        }
    });
}

#[test]
fn a_link_that_its_user_let_go_leaves_nothing_in_the_record_of_a_run_that_is_undone() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure_with(1, &routed(), "");
        fs::create_dir_all(machine.path("var/lib/plat/.node-format-node.json/here")).unwrap();
        let before = machine.everything();
        let (code, why) = acting_once("openat", &machine.command(&["apply"]), || {
            let there = machine.network();
            let whole = there.routes.iter().any(|route| route.link == "part0")
                && there.addresses.iter().any(|found| found.link == "part-tun0" && found.address.addr().is_ipv4());
            whole.then(|| ["part0", "part-tun0"].map(|link| ip(&format!("link delete {link}")))).is_some()
        });
        assert!(code == 1 && why.contains("cannot write"), "{why}");
        assert!(why.contains("the machine is as it was before the run") && !why.contains("can keep"), "{why}");
        assert_eq!(machine.must(&["show"]), "nothing was made\n");
        assert_eq!(machine.everything(), before);
    });
}

#[test]
fn a_tenant_who_makes_something_else_of_his_new_tap_keeps_no_other_from_being_made() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(2);
        let tap = || Path::new("/proc/sys/net/ipv4/conf/part0").exists();
        let (code, said) = acting_once("netlink message", &machine.command(&["apply"]), || {
            tap().then(|| Guest::behind_tap("part0").becomes_infiniband()).is_some()
        });
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("not joined to the network: part0") && !said.contains("part1"), "{said}");
        assert_eq!(machine.network().links["part1"].bridge.as_deref(), Some("plat0"));
        let (code, said) = machine.run(&["verify"]);
        assert!(code == 3 && said.contains("+ tap part0"), "{said}");
        machine.must(&["apply"]);
        assert_eq!(machine.must(&["verify"]), "the machine is as it was formatted\n");
        machine.must(&["reset"]);
    });
}

const TAKING: [&str; 4] = ["apply", "--take-uplink", "--confirm-within", "3600"];

#[test]
fn what_an_interface_lost_since_the_look_is_brought_back_by_nobody() {
    on_a_machine(|machine| {
        let _world = World::new();
        machine.configure_with(1, TAKE, "");
        let why = run_after(machine, "ip route delete default via 192.0.2.1 dev up0", &TAKING);
        assert!(why.contains("since it was looked at, it lost the route to 0.0.0.0/0"), "{why}");
        let another = "ip address delete 192.0.2.7/24 dev up0 && ip address add 192.0.2.20/24 dev up0 && \
                       ip route add default via 192.0.2.1 dev up0 src 192.0.2.20";
        let why = run_after(machine, another, &TAKING);
        assert!(why.contains("since it was looked at, it got the address 192.0.2.20/24"), "{why}");
        let (there, gone) = (where_is(machine, "192.0.2.20/24"), where_is(machine, "192.0.2.7/24"));
        assert_eq!((there, gone), (vec!["up0".to_owned()], vec![]));
        let routes = machine.network().routes;
        let ways: Vec<_> = routes.iter().filter(|route| route.destination.to_string() == "0.0.0.0/0").collect();
        assert!(ways.len() == 1 && ways[0].source.is_some(), "{ways:?}");
    });
}

#[test]
fn an_interface_that_somebody_joined_elsewhere_stays_there() {
    on_a_machine(|machine| {
        let _world = World::new();
        let port_of = |machine: &Machine| machine.network().links["up0"].bridge.clone().unwrap_or_default();
        machine.configure_with(1, TAKE, "");
        let why = run_after(machine, "ip link add br9 type bridge && ip link set up0 master br9", &TAKING);
        assert!(why.contains("since it was looked at, it became a port of br9"), "{why}");
        assert_eq!(port_of(machine), "br9");
        ip("link set up0 nomaster");
        machine.must(&TAKING);
        let (code, said) = acting_before("unlinkat", &machine.command(&["reset"]), || ip("link set up0 master br9"));
        assert_eq!(code, 0, "{said}");
        assert_eq!(port_of(machine), "br9");
        assert!(where_is(machine, "192.0.2.7/24").is_empty());
    });
}

#[test]
fn a_setting_that_somebody_changed_since_the_look_keeps_his_value() {
    on_a_machine(|machine| {
        prepare(machine);
        let why = apply_after(machine, "echo 1 >/proc/sys/net/ipv4/ip_forward");
        assert!(why.contains("net.ipv4.ip_forward") && why.contains("it was 0 when it was looked at"), "{why}");
        let value = || fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
        assert_eq!(value(), "1\n");
        machine.must(&["apply"]);
        machine.must(&["reset"]);
        assert_eq!(value(), "1\n");
    });
}

#[test]
fn a_group_that_became_somebodys_first_one_since_the_look_stays() {
    on_a_machine(|machine| {
        prepare(machine);
        machine.must(&["apply"]);
        let (code, why) = acting_before("unlinkat", &machine.command(&["reset"]), || {
            let passwd = text(machine, "passwd") + "ann:x:7001:61001::/:/bin/sh\n";
            fs::write(machine.path("etc/passwd"), passwd).unwrap();
        });
        assert!(code == 1 && why.contains("by now it is the first group of user ann"), "{why}");
        assert!(text(machine, "group").contains("part1:x:61001:"));
        machine.must(&["reset"]);
        assert!(text(machine, "group").contains("part1:x:61001:"), "it is left");
    });
}

#[test]
fn a_directory_that_is_moved_about_while_it_is_erased_is_named() {
    on_a_machine(|machine| {
        prepare(machine);
        machine.must(&["apply"]);
        let home = machine.path("srv/plat/partitions/part0");
        let deep = home.join("srv/deep");
        fs::create_dir(&deep).unwrap();
        ["one", "two", "three"].iter().for_each(|name| fs::write(deep.join(name), "").unwrap());
        let (code, why) = acting_once("unlinkat", &machine.command(&["reset", "--erase"]), || {
            let is_begun = fs::read_dir(&deep).unwrap().count() < 3;
            is_begun && fs::rename(&deep, home.join("deep")).is_ok()
        });
        assert!(code == 1 && why.contains("`srv/deep` was moved elsewhere"), "{why}");
        machine.must(&["reset", "--erase"]);
    });
}
