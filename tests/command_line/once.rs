//! What is asked for once: a run of a hook, a build. Where nobody can do it, that is said at once.

use crate::world::World;

#[test]
fn a_run_or_a_build_that_nobody_can_do_is_refused_with_what_there_is() {
    let world = World::new();
    world.release();
    world.done(&["request", "db", "--release", "quiet"]);
    let said = world.plat.refused(3, "P0301", &["run", "configure", "db"]);
    assert!(said.contains("its release has none that may be asked for"), "{said}");
    let said = world.plat.refused(3, "P0301", &["run", "init", "db"]);
    assert!(said.contains("only configure, start may be asked for"), "{said}");
    let hooked = world.write("hooked.yaml", "version: 1\nname: hooked\nhooks: {configure: {command: [/bin/true]}}\n");
    world.done(&["release", "add", &hooked]);
    world.done(&["request", "one", "--release", "hooked"]);
    let said = world.plat.refused(5, "P0316", &["run", "configure", "one"]);
    assert!(said.contains("plat explain instance one"), "{said}");
    let said = world.plat.refused(5, "P0303", &["release", "rebuild", "quiet"]);
    assert!(said.contains("it is on no node"), "{said}");
    world.plat.refused(3, "P0301", &["release", "rebuild", "quiet", "--node", "n9"]);
    world.plat.refused(3, "P0301", &["release", "rebuild", "other"]);
}
