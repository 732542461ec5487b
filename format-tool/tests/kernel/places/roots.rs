//! What is mounted where only some processes of a mount namespace come to.

use super::super::machine::{on_a_machine, until};
use super::{formatted, service};

#[test]
fn what_is_mounted_beneath_a_root_that_moved_is_found_by_whoever_stayed_there() {
    on_a_machine(|machine| {
        let (inside, precious) = formatted(machine);
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
