//! Where the namespaces are mounted, beside what `ip netns` does there, on a machine whose mounts are not shared.

use super::*;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

const NONE: Option<&str> = None;

fn on_a_machine_of_private_mounts(test: impl FnOnce(&Machine) + Send + 'static) {
    on_a_machine(|machine| {
        nix::sched::unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(NONE, "/", NONE, MsFlags::MS_PRIVATE | MsFlags::MS_REC, NONE).unwrap();
        ip("link set lo up");
        machine.configure_with(2, NETWORK, "");
        test(machine);
    });
}

fn again(machine: &Machine) {
    let folder = machine.path("run/netns");
    mount(Some(&folder), &folder, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE).unwrap();
}

/// What `ip netns add` does with the folder before it makes a namespace.
fn as_ip_netns_add(machine: &Machine) {
    let share = || mount(NONE, &machine.path("run/netns"), NONE, MsFlags::MS_SHARED | MsFlags::MS_REC, NONE);
    if let Err(e) = share() {
        assert_eq!(e, Errno::EINVAL);
        again(machine);
        share().unwrap();
    }
}

#[test]
fn namespaces_can_be_removed_after_somebody_else_made_one_by_ip_netns() {
    on_a_machine_of_private_mounts(|machine| {
        for _ in 0..2 {
            machine.must(&["apply"]);
            as_ip_netns_add(machine);
            assert_eq!(machine.must(&["verify"]), "the machine is as it was formatted\n");
            let said = machine.must(&["reset"]);
            assert!(!said.contains("a second time"), "{said}");
            assert_eq!(std::fs::read_dir(machine.path("run/netns")).unwrap().count(), 0);
        }
    });
}

#[test]
fn of_a_namespace_that_is_mounted_twice_the_empty_file_stays() {
    on_a_machine_of_private_mounts(|machine| {
        machine.must(&["apply"]);
        mount(NONE, &machine.path("run/netns"), NONE, MsFlags::MS_PRIVATE | MsFlags::MS_REC, NONE).unwrap();
        again(machine);
        let said = machine.must(&["reset"]);
        assert!(said.contains("namespace part1 is mounted a second time"), "{said}");
        assert_eq!(std::fs::metadata(machine.path("run/netns/part1")).unwrap().len(), 0);
        assert!(machine.must(&["reset"]).starts_with("nothing to do"));
        machine.must(&["apply"]);
        assert_eq!(machine.must(&["verify"]), "the machine is as it was formatted\n");
        machine.must(&["reset"]);
        let folder = machine.path("run/netns");
        nix::mount::umount2(&folder, nix::mount::MntFlags::MNT_DETACH).unwrap();
    });
}

#[test]
fn a_namespace_that_cannot_be_unmounted_keeps_its_pair_and_the_others_come_back() {
    on_a_machine_of_private_mounts(|machine| {
        machine.must(&["apply"]);
        let plain = machine.command(&["reset"]);
        let mut refused = Command::new("strace");
        refused.args(["-f", "-qq", "-o", "/dev/null", "-e", "inject=umount2:error=EPERM:when=1"]);
        let Output { status, stderr, .. } = refused.arg(plain.get_program()).args(plain.get_args()).output().unwrap();
        let why = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(1), "{why}");
        assert!(why.contains("cannot remove namespace part") && why.contains("as it was before the run"), "{why}");
        assert_eq!(machine.must(&["verify"]), "the machine is as it was formatted\n");
        // A port for each: a program that another test starts just now may have the first one's listener for a moment.
        for (name, gateway) in [("part0", "10.200.0.1:80"), ("part1", "10.200.0.1:81")] {
            let gateway: SocketAddr = gateway.parse().unwrap();
            let answering = answer(TcpListener::bind(gateway).unwrap());
            assert_eq!(inside(machine, name, move || hello(gateway)), "hello");
            answering.join().unwrap();
        }
        machine.must(&["reset"]);
    });
}
