//! The example releases, kept by systemd.

use crate::node::{bare_machine, join};
use plat_tests::eventually::eventually;
use plat_tests::examples::{EXAMPLES, KEPT};
use plat_tests::grid::{Grid, PATIENCE};
use plat_tests::machine::{Machine, machine_or_skip};
use plat_tests::relay;

const KILLS: usize = 2;

/// Runs it in the machine's bash, away from its terminal.
fn run(machine: &Machine, script: &str) -> Result<String, String> {
    let out = machine.command("bash").args(["-ec", script]).output().expect("nsenter can be run");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if out.status.success() { Ok(said(&out.stdout)) } else { Err(said(&out.stderr)) }
}

#[test]
fn the_examples_keep_their_data_under_systemd_when_everything_is_killed_and_the_power_goes() {
    if !machine_or_skip("the examples under systemd") {
        return;
    }
    let mut grid = Grid::new("ware");
    relay::start(&grid.hub, relay::DEBIAN);
    let mut machine = bare_machine(&grid, "edge-9", "fd00:5::13/64");
    machine.reach_debian();
    join(&grid, &machine, "edge-9", 3);
    let requested = EXAMPLES.iter().map(|example| {
        example.supply(&grid);
        (example, example.request(&grid))
    });
    let requested: Vec<_> = requested.collect();
    for (example, instance) in &requested {
        run(&machine, &example.give(instance)).unwrap_or_else(|why| panic!("{}: {why}", example.name));
    }
    let answer = |machine: &Machine| {
        for (example, instance) in &requested {
            let answered = eventually(example.name, 2 * PATIENCE, || run(machine, &example.ask(instance)));
            assert_eq!(answered, KEPT, "{}", example.name);
        }
    };
    for _ in 0..KILLS {
        machine.sh("pkill -KILL plat-agent && pkill -KILL -U part0,part1,part2");
        grid.crash_master();
        answer(&machine);
    }
    machine.cut_power();
    machine.boot();
    answer(&machine);
    grid.until_master_answers();
    for (example, instance) in &requested {
        let now = grid.until(example.name, "ready", PATIENCE);
        assert_eq!(now["id"], instance["id"], "it is the same instance");
    }
}
