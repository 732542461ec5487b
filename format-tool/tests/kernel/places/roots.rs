//! What is mounted where only some processes of a mount namespace come to.

use super::super::machine::{ip, on_a_machine, until};
use super::service;
use std::fs;

#[test]
fn what_is_mounted_beneath_a_root_that_moved_is_found_by_whoever_stayed_there() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(1);
        machine.must(&["apply"]);
        let (inside, precious) = (machine.path("srv/plat/partitions/part0/srv"), machine.path("precious"));
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join("file"), "kept").unwrap();
        // The shell goes to what it mounts above its root; the child, which is asked after it, stays beneath.
        let script = format!(
            "mount --bind {} {} && exec 3<&0 && {{ cat <&3 & }} && stayed=$! && mount --bind / / && \
             exec nsenter --mount=/proc/self/ns/mnt sh -c \"echo ready; cat <&3; wait $stayed\"",
            precious.display(),
            inside.display(),
        );
        let mut service = service(&script);
        let (code, why) = machine.run(&["reset", "--erase"]);
        assert!(code == 4 && why.contains("P0509") && why.contains("in the mount namespace of process"), "{why}");
        drop(service.stdin.take());
        service.wait().unwrap();
        until("nobody sees it any more", || machine.run(&["plan", "--reset", "--erase"]).0 == 0);
        machine.must(&["reset", "--erase"]);
        assert!(precious.join("file").exists());
    });
}
