//! The tables themselves: made, repaired and removed, and nobody else's touched.

use super::format;
use crate::machine::{Machine, on_a_machine};
use std::process::Command;
use std::time::Instant;

fn nft(arguments: &str) -> String {
    let output = Command::new("nft").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "nft {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The machine is not as it was formatted, and `apply` makes it so again.
fn is_repaired(machine: &Machine, change: &str) {
    nft(change);
    let (code, text) = machine.run(&["verify"]);
    assert_eq!(code, 3, "{change}: {text}");
    assert!(text.contains(" packet filter table plat "), "{change}: {text}");
    assert_eq!(machine.run(&["apply"]).0, 0, "{change}");
    assert_eq!(machine.run(&["verify"]), (0, "the machine is as it was formatted\n".into()), "{change}");
}

#[test]
fn whatever_is_changed_in_the_tables_is_seen_and_repaired() {
    on_a_machine(|machine| {
        format(machine, 2, "");
        assert_eq!(machine.run(&["verify"]), (0, "the machine is as it was formatted\n".into()));
        assert_eq!(machine.run(&["apply"]), (0, "nothing to do\n".into()));
        let whole = nft("list ruleset");
        for change in [
            "delete element inet plat own4 { 62001 . 10.200.0.3 }",
            "add element inet plat own4 { 62001 . 10.200.0.2 }",
            "delete element bridge plat port_targets { \"part0\" . 0xfe8000000000000004676afffebc0000 }",
            "flush chain inet plat refuse",
            "insert rule inet plat output accept",
            "add table inet plat { flags dormant; }",
            "delete table bridge plat",
            "delete table inet plat",
            "flush ruleset",
        ] {
            is_repaired(machine, change);
            assert_eq!(nft("list ruleset"), whole, "{change}");
        }
        assert_eq!(machine.run(&["reset"]).0, 0);
        assert_eq!(nft("list ruleset"), "");
    });
}

#[test]
fn tables_of_others_are_left_alone() {
    on_a_machine(|machine| {
        nft("add table inet firewall");
        nft("add chain inet firewall input { type filter hook input priority 0; policy accept; }");
        nft("add rule inet firewall input tcp dport 22 counter accept");
        nft("add table ip plat");
        let before = nft("list ruleset");
        format(machine, 2, "");
        for table in ["inet firewall", "ip plat"] {
            assert!(before.contains(nft(&format!("list table {table}")).trim_end()), "{table}");
        }
        nft("add element inet plat own4 { 62001 . 10.200.0.2 }");
        assert_eq!(machine.run(&["apply"]).0, 0);
        assert_eq!(machine.run(&["reset"]).0, 0);
        assert_eq!(nft("list ruleset"), before);
    });
}

#[test]
fn a_table_of_our_name_and_another_family_is_whose_it_was() {
    on_a_machine(|machine| {
        // What is behind routed taps is held in the table `inet plat` alone.
        format(machine, 1, "tap_mode = \"routed\"");
        nft("add table bridge plat");
        let theirs = nft("list table bridge plat");
        assert_eq!(machine.run(&["verify"]), (0, "the machine is as it was formatted\n".into()));
        nft("flush table inet plat");
        assert_eq!(machine.run(&["apply"]).0, 0);
        let text = std::fs::read_to_string(machine.path("format.toml")).unwrap();
        std::fs::write(machine.path("format.toml"), text.replace("routed", "bridged")).unwrap();
        let (code, said) = machine.run(&["apply"]);
        assert_eq!(code, 4, "{said}");
        assert!(said.contains("the packet filter has a table `bridge plat`"), "{said}");
        nft("delete table bridge plat");
        // Each of the tables that is not wanted any more goes, and those that are not ours stay.
        assert_eq!(machine.run(&["apply"]).0, 0);
        assert_eq!(machine.run(&["apply"]), (0, "nothing to do\n".into()));
        assert!(nft("list tables").contains("table bridge plat"));
        std::fs::write(machine.path("format.toml"), text).unwrap();
        assert_eq!(machine.run(&["apply"]).0, 0);
        assert!(!nft("list tables").contains("table bridge plat"));
        nft("add table bridge plat");
        assert_eq!(machine.run(&["reset"]).0, 0);
        assert_eq!(nft("list ruleset"), theirs);
    });
}

#[test]
fn a_table_of_our_name_that_somebody_else_made_is_refused() {
    on_a_machine(|machine| {
        nft("add table inet plat");
        nft("add set inet plat blocked { type ipv4_addr; flags interval; elements = { 192.0.2.0/24 }; }");
        let before = nft("list ruleset");
        std::fs::write(
            machine.path("format.toml"),
            "version = 1\n[partitions]\namount = 1\n[network]\nmode = \"bridge\"\nipv4_network = \"10.200.0.0/16\"\n",
        )
        .unwrap();
        let (code, said) = machine.run(&["apply"]);
        assert_eq!(code, 4, "{said}");
        assert!(said.contains("the packet filter has a table `inet plat`"), "{said}");
        assert_eq!(nft("list ruleset"), before);
    });
}

#[test]
fn nft_is_found_where_root_has_its_programs_whatever_path_says() {
    on_a_machine(|machine| {
        format(machine, 1, "");
        nft("delete table inet plat");
        let output = machine.command(&["apply"]).env("PATH", "/usr/bin:/bin").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(nft("list tables").contains("table inet plat"));
    });
}

#[test]
fn the_guard_of_a_thousand_partitions_is_loaded_in_a_moment() {
    on_a_machine(|machine| {
        format(machine, 1000, "");
        let script = nft("list table inet plat") + &nft("list table bridge plat");
        let file = machine.path("script.nft");
        std::fs::write(&file, format!("flush ruleset\n{script}")).unwrap();
        let began = Instant::now();
        nft(&format!("-f {}", file.display()));
        println!("1000 partitions: {} bytes, loaded by nft in {} ms", script.len(), began.elapsed().as_millis());
        nft("delete element inet plat own6 { 62999 . fd00:1:0:0:3e8::/81 }");
        assert_eq!(machine.run(&["verify"]).0, 3);
        let began = Instant::now();
        assert_eq!(machine.run(&["apply"]).0, 0);
        println!("1000 partitions: repaired by apply in {} ms", began.elapsed().as_millis());
        assert_eq!(machine.run(&["verify"]).0, 0);
    });
}
