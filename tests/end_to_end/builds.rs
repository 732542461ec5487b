//! How a node builds a release, read from afar.

use crate::grid::quiet_grid;
use plat_tests::eventually::eventually;
use plat_tests::grid::PATIENCE;
use plat_tests::namespace::root_or_skip;
use std::fs;

/// Its build says a line, waits for the files `one` and `two` that the test puts into its folder, and says another after each.
const SLOW: &str = "
version: 1
name: slow
sources:
  files: {directory: {path: \"{folder}/slow\"}}
build: {commands: [[/bin/sh, build.sh]]}
services: {none: {command: [/bin/sleep, \"100000\"]}}
resources: {memory_mib: 16}
";

#[test]
fn what_a_build_writes_is_seen_from_afar_while_it_does_and_after_it_has_ended() {
    if !root_or_skip("the log of a build") {
        return;
    }
    let grid = quiet_grid("builds", &[1]);
    fs::create_dir_all(grid.folder.path().join("slow")).expect("a folder can be made");
    let wait = |name: &str| format!("until [ -e {name} ]; do sleep 0.05; done; rm -f {name}");
    let script = format!("echo line one\n{}\necho line two\n{}\necho line three\n", wait("one"), wait("two"));
    grid.write("slow/build.sh", &script);
    let open = |name: &str| {
        let releases = grid.nodes[0].space.path("/srv/plat/releases");
        let mut folders = fs::read_dir(releases).expect("it can be read").flatten();
        let building = folders.find(|one| one.file_name().to_string_lossy().starts_with(".unfinished-"));
        fs::write(building.expect("it is being built").path().join(name), "").expect("it can be written");
    };

    let said = grid.plat.refused(3, "P0301", &["release", "log", "slow", "--node", "n1"]);
    assert!(said.contains("plat release add"), "{said}");
    let mia = grid.login("mia", &["--member", "shop"]);
    mia.refused(4, "P0208", &["release", "log", "quiet", "--node", "n1"]);
    grid.plat.refused(3, "P0301", &["release", "log", "quiet", "--node", "n7"]);

    grid.release("slow", SLOW);
    let log = |more: &[&str]| grid.plat.run(&[&["release", "log", "slow", "--node", "n1"], more].concat());
    eventually("its build has said something", PATIENCE, || {
        let ran = log(&[]);
        if ran.out.lines().any(|line| line == "line one") { Ok(()) } else { Err(format!("{ran:?}")) }
    });
    let mut followed = grid.plat.follow(&["release", "log", "slow", "--node", "n1", "--follow"]);
    followed.until("line one");
    open("one");
    followed.until("line two");
    assert!(!log(&[]).out.contains("line three"), "it is being built still");
    open("two");
    let (code, rest) = followed.rest();
    assert_eq!(code, 0, "it ends with the build");
    assert!(rest.iter().any(|line| line == "line three"), "{rest:?}");
    assert!(rest.last().is_some_and(|line| line.ends_with("is built")), "{rest:?}");
    eventually("it is installed", PATIENCE, || {
        let state = grid.plat.json(&["release", "show", "slow"])["nodes"][0]["state"].clone();
        if state == "installed" { Ok(()) } else { Err(state.to_string()) }
    });
    let kept = log(&["-n", "1", "-f"]);
    assert_eq!((kept.code, kept.out.lines().count()), (0, 1), "{kept:?}");

    grid.write("other.yaml", &SLOW.replace("name: slow", "name: other").replace("{folder}", "/nowhere"));
    grid.plat.json(&["release", "add", &grid.folder.path().join("other.yaml").display().to_string()]);
    let said = grid.plat.refused(3, "P0301", &["release", "log", "other", "--node", "n1"]);
    assert!(said.contains("plat supply"), "{said}");
}
