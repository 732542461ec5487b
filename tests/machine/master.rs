//! The master as a service of its own machine.

use plat_tests::machine::{Machine, machine_or_skip};
use plat_tests::namespace::Namespace;
use std::sync::Arc;

#[test]
fn a_master_runs_as_its_own_user_with_nothing_it_does_not_need_and_is_there_again_after_a_reboot() {
    if !machine_or_skip("the master's unit") {
        return;
    }
    let hub = Arc::new(Namespace::new("unit-hub"));
    hub.sh("ip link add br0 type bridge && ip link set br0 up");
    let logs = tempfile::tempdir().expect("a folder can be made");
    let mut machine = Machine::new(&hub, "campus", "fd00:5::21/64", logs.path());
    machine.boot();
    machine.install_packaged("/usr/bin", ["plat-master", "plat"], "plat-master.service");
    machine.sh(
        "plat-master init --owner plat-master --grid campus --data /var/lib/plat/master \
         --url 'https://[fd00:5::21]:7443' --config /etc/plat/master.toml --operator ada --profile ~/.config/plat/default",
    );
    // It counts as started when it answers.
    machine.sh("systemctl enable --now plat-master");
    assert!(machine.sh("plat whoami").contains("operator"));
    assert_eq!(machine.sh("ps -o user:20= -C plat-master"), "plat-master\n");

    machine.power_off();
    machine.boot();
    assert!(machine.sh("plat whoami").contains("operator"));
    machine.cut_power();
    machine.boot();
    assert!(machine.sh("plat whoami").contains("operator"));
}
