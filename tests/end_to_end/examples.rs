//! The example releases, kept by shims.

use crate::grid::quiet_grid;
use crate::postgresql::reach_debian;
use plat_tests::eventually::eventually;
use plat_tests::examples::{EXAMPLES, KEPT};
use plat_tests::grid::{Node, PATIENCE};
use plat_tests::namespace::root_or_skip;
use plat_tests::relay;

const KILLS: usize = 3;

fn run(node: &Node, script: &str) -> Result<String, String> {
    let out = node.space.command("bash").args(["-ec", script]).output().expect("nsenter can be run");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if out.status.success() { Ok(said(&out.stdout)) } else { Err(said(&out.stderr)) }
}

#[test]
fn the_examples_keep_their_data_when_everything_is_killed_at_once() {
    if !root_or_skip("the examples") {
        return;
    }
    let mut grid = quiet_grid("examples", &[3]);
    relay::start(&grid.hub, relay::DEBIAN);
    reach_debian(&grid.nodes[0]);
    let requested = EXAMPLES.iter().map(|example| {
        example.supply(&grid);
        (example, example.request(&grid))
    });
    let requested: Vec<_> = requested.collect();
    for (example, instance) in &requested {
        run(&grid.nodes[0], &example.give(instance)).unwrap_or_else(|why| panic!("{}: {why}", example.name));
    }
    for _ in 0..KILLS {
        // Services, shims, both parts of the agent.
        grid.nodes[0].space.sh("kill -KILL -1");
        grid.nodes[0].agent.until_ended();
        grid.crash_master();
        grid.nodes[0].agent.start();
        for (example, instance) in &requested {
            let answered = eventually(example.name, 2 * PATIENCE, || run(&grid.nodes[0], &example.ask(instance)));
            assert_eq!(answered, KEPT, "{}", example.name);
        }
    }
    grid.until_master_answers();
    for (example, instance) in &requested {
        let now = grid.until(example.name, "ready", PATIENCE);
        assert_eq!(now["id"], instance["id"], "it is the same instance");
    }
}
