//! What every runtime promises, of the one that is systemd: the agent's own suite, where systemd is.

use plat_tests::binaries::{binary, integration_tests};
use plat_tests::machine::{Machine, machine_or_skip};
use plat_tests::namespace::Namespace;
use std::sync::Arc;

#[test]
fn systemd_keeps_services_as_every_runtime_does() {
    if !machine_or_skip("the runtime of systemd") {
        return;
    }
    let hub = Arc::new(Namespace::new("runtime"));
    hub.sh("ip link add br0 type bridge && ip link set br0 up");
    let logs = tempfile::tempdir().expect("a folder can be made");
    let mut machine = Machine::new(&hub, "keeper", "fd00:5::31/64", logs.path());
    machine.boot();
    // Tests know the agent by the path that it was built at.
    let agent = binary("plat-agent");
    machine.install(&agent, &agent.display().to_string(), 0o755);
    machine.install(&integration_tests("linux_host"), "/root/suite", 0o755);
    // What is in /tmp is hidden from units that have one of their own.
    machine.sh("mkdir -m 755 /srv/suite");
    // systemd starts nothing as a user that the machine does not know.
    machine.sh("for uid in $(seq 912545 912644); do
        echo u$uid:x:$uid:$uid::/:/bin/false >> /etc/passwd; echo u$uid:x:$uid: >> /etc/group
    done");
    let (code, said) = machine.run(
        "RUST_BACKTRACE=0 TMPDIR=/srv/suite /root/suite --ignored systemd:: --test-threads=4 2>&1; \
         systemctl list-units --all --plain --no-legend 'plat-*-*' >&2",
    );
    let passed: Vec<_> =
        said.lines().filter(|line| line.starts_with("test systemd::") && line.ends_with("ok")).collect();
    assert!(code == 0 && passed.len() >= 70, "{said}");
    assert!(!said.contains("loaded"), "units are left:\n{said}");
}
