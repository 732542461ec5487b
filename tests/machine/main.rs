//! Machines that boot: the grid as root installs it, on systemd, over reboots.

use plat_tests::binaries::binary;
use plat_tests::machine::Machine;
use plat_tests::source::root;

mod examples;
mod master;
mod node;
mod runtime;
mod work;

/// Puts programs and files where packaging/README.md says, and does what it says to do after that. The machine is on.
fn install(machine: &Machine, folder: &str, programs: [&str; 2], unit: &str) {
    for program in programs {
        machine.install(&binary(program), &format!("{folder}/{program}"), 0o755);
    }
    let packaging = root().join("packaging");
    for file in ["sysusers.d/plat.conf", "tmpfiles.d/plat.conf"] {
        machine.install(&packaging.join(file), &format!("/usr/lib/{file}"), 0o644);
    }
    let place = format!("/etc/systemd/system/{unit}");
    machine.install(&packaging.join("systemd").join(unit), &place, 0o644);
    machine.sh("systemd-sysusers && systemd-tmpfiles --create && systemctl daemon-reload");
    assert_eq!(machine.sh(&format!("systemd-analyze verify {place}")), "", "systemd complains of the unit");
}
