//! Names of any bytes: the kernel takes an alias, a further name or a label that is no UTF-8, and the name of a link too.

use super::machine::{Machine, ip, on_a_machine};
use super::namespaces::{NETWORK, inside};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

/// `ip`, with these bytes in the place of `@`.
fn ip_bytes(arguments: &str, bytes: &[u8]) {
    let mut command = Command::new("ip");
    for argument in arguments.split(' ') {
        command.arg(if argument == "@" { OsStr::from_bytes(bytes) } else { OsStr::new(argument) });
    }
    assert!(command.status().unwrap().success(), "ip {arguments}");
}

fn accept_ra(link: &[u8]) -> String {
    fs::read_to_string(Path::new("/proc/sys/net/ipv6/conf").join(OsStr::from_bytes(link)).join("accept_ra")).unwrap()
}

fn refused(machine: &Machine, code: &str, link: &str) {
    let (exit, why) = machine.run(&["apply"]);
    assert!(exit != 0 && why.contains(code) && why.contains(link), "{why}");
}

#[test]
fn a_link_with_an_alias_of_any_bytes_is_seen() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(1);
        machine.must(&["apply"]);
        ip("link add lan0 type veth peer name wire");
        ip("link set wire up");
        ip("link set lan0 up master plat0");
        ip_bytes("link set lan0 alias @", b"B\xFCro");
        ip_bytes("link property add dev wire altname @", b"l\xFCne");
        let said = machine.must(&["plan", "--reset"]);
        assert!(said.contains("lan0"), "a port of the bridge that goes: {said}");
        ip("link set lan0 nomaster");
        machine.must(&["reset"]);
        // As a router makes it.
        ip("-6 route add default via fe80::1 dev lan0 proto ra");
        machine.configure_with(1, "mode = \"bridge\"\nguard = false\nlocal_ranges = true\ngateway = true\n", "");
        machine.must(&["apply"]);
        assert_eq!(accept_ra(b"lan0"), "2\n");
        machine.must(&["reset"]);
        ip_bytes("address add 10.200.7.1/24 dev lan0 label @", b"lan0:\xFC");
        refused(machine, "P0507", "lan0");
    });
}

#[test]
fn a_link_with_a_name_of_any_bytes_is_seen() {
    on_a_machine(|machine| {
        ip("link set lo up");
        for (name, other) in [(b"lan\xFC", "wire0"), (b"lan\xFD", "wire1")] {
            ip_bytes(&format!("link add @ type veth peer name {other}"), name);
            ip_bytes("link set @ up", name);
        }
        machine.configure(1);
        let before = machine.everything();
        assert_eq!(before.0.links.keys().filter(|name| name.starts_with("lan\u{FFFD} (link ")).count(), 2);
        machine.must(&["apply"]);
        machine.must(&["verify"]);
        machine.must(&["reset"]);
        assert_eq!(machine.everything(), before);
        ip_bytes("-6 route add default via fe80::1 dev @ proto ra", b"lan\xFC");
        ip("link set wire0 up");
        machine.configure_with(1, "mode = \"bridge\"\nguard = false\ngateway = true\n", "");
        machine.must(&["apply"]);
        machine.must(&["verify"]);
        assert_eq!(accept_ra(b"lan\xFC"), "2\n");
        machine.must(&["reset"]);
        assert_eq!(accept_ra(b"lan\xFC"), "1\n");
        ip_bytes("address add 10.200.7.1/24 dev @", b"lan\xFC");
        refused(machine, "P0507", "lan\u{FFFD} (link ");
    });
}

#[test]
fn what_a_tenant_gives_an_alias_of_any_bytes_is_named_before_it_goes() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure_with(1, NETWORK, "");
        machine.must(&["apply"]);
        ip("link add adm0 type veth peer name adm1");
        ip(&format!("link set adm1 netns {}", machine.path("run/netns/part0").display()));
        inside(machine, "part0", || {
            ip_bytes("link set adm1 alias @", b"x\xFF");
            ip_bytes("link set eth0 alias @", b"x\xFF");
            ip_bytes("link property add dev eth0 altname @", b"y\xFF");
            ip_bytes("address add 10.77.0.1/24 dev lo label @", b"lo:\xFF");
        });
        // It is there, and as it must be.
        assert_eq!(machine.must(&["apply"]), "nothing to do\n");
        let said = machine.must(&["plan", "--reset"]);
        assert!(said.contains("adm1") && said.contains("adm0") && said.contains("10.77.0.1/24"), "{said}");
        inside(machine, "part0", || ip_bytes("link set adm1 name @", b"\xFF\xFE"));
        assert!(machine.must(&["plan", "--reset"]).contains("adm0"));
        machine.must(&["reset"]);
    });
}
