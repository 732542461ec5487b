//! Instances that request others, through the sockets in their partitions.

use crate::grid::quiet_grid;
use plat_tests::binaries::binary;
use plat_tests::eventually::eventually;
use plat_tests::grid::{PATIENCE, run};
use plat_tests::namespace::root_or_skip;
use std::fs;
use std::process::Command;

/// Asks for a child, publishes what the child publishes, and takes shared instances in.
const TREE: &str = "
version: 1
name: tree
shared:
  type: object
  properties: {database: {type: string}}
sources:
  files: {directory: {path: \"{folder}/tree\"}}
hooks:
  configure: {command: [/bin/sh, \"{{ release.directory }}/configure.sh\", \"{{ release.directory }}\"]}
services:
  tree: {command: [/bin/sh, \"{{ release.directory }}/tree.sh\", \"{{ release.directory }}\"]}
promises:
  asked: {exec: [/usr/bin/test, -e, \"{{ partition.directory }}/srv/asked\"]}
publish: {url: \"of the release\", own: \"of the release\"}
resources: {memory_mib: 16}
";

#[test]
fn an_instance_requests_a_child_takes_shared_ones_in_and_all_end_with_it() {
    if !root_or_skip("a tree of instances") {
        return;
    }
    let grid = quiet_grid("tree", &[3]);
    fs::create_dir_all(grid.folder.path().join("tree")).expect("a folder can be made");
    fs::copy(binary("plat-instance"), grid.folder.path().join("tree/plat-instance")).expect("it can be copied");
    grid.write(
        "tree/configure.sh",
        "set -e
         \"$1/plat-instance\" shared | while read -r id name rest; do
           \"$1/plat-instance\" publish --shared \"$id\" \"url=db://$name\"
         done
         echo configured >> srv/configured\n",
    );
    grid.write(
        "tree/tree.sh",
        "set -e
         said=$(\"$1/plat-instance\" request low --release quiet -p greeting=moin --wait --get greeting)
         \"$1/plat-instance\" publish \"child=$said\" own=mine
         \"$1/plat-instance\" status ok 'has its child'
         touch srv/asked
         exec sleep 100000\n",
    );
    grid.release("tree", TREE);
    let top = grid.plat.json(&["request", "top", "--release", "tree", "--wait", "--timeout", "120"]);
    assert_eq!(top["connection"]["child"], "moin");
    assert_eq!((&top["connection"]["url"], &top["connection"]["own"]), (&"of the release".into(), &"mine".into()));
    assert_eq!((&top["said"]["text"], &top["children"][0]), (&"has its child".into(), &"top-low".into()));
    let low = grid.plat.json(&["show", "top-low"]);
    assert_eq!((&low["state"], &low["parent"]), (&"ready".into(), &"top".into()));

    let ask = ["request", "part", "--shared", "--on", "top", "--param", "database=a", "--wait", "--timeout", "120"];
    let part = grid.plat.json(&ask);
    assert_eq!(part["connection"]["url"], "db://part");
    assert_eq!(grid.plat.json(&["show", "top"])["shared"][0], "part");

    // Whoever asks again finds what is there, and a bang has the hook run again.
    let (node, partition) = (grid.node_of(&top), top["partition"].as_str().expect("it is placed"));
    let home = node.partition(partition);
    let times = || fs::read_to_string(home.join("srv/configured")).unwrap_or_default().lines().count();
    let before = times();
    // Root of the node may speak for whoever is there.
    run(Command::new(binary("plat-instance")).args(["bang", "--socket"]).arg(home.join("run/plat.sock")));
    let ran = || (times() > before).then_some(()).ok_or_else(|| format!("it ran {} times", times()));
    eventually("the hook runs again", PATIENCE, ran);

    grid.plat.run(&["destroy", "--yes", "top"]);
    for name in ["top", "top-low", "part"] {
        grid.until_gone(name, PATIENCE);
    }
}
