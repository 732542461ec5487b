//! What is asked for once: a run of a hook, a build. Where nobody can do it, that is said at once.

use crate::world::World;
use plat_tests::eventually::eventually;
use plat_wire::v1;
use std::time::Duration;

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

#[test]
fn a_release_that_is_there_with_a_problem_was_not_built_again() {
    let world = World::new();
    world.release();
    world.node("n1");
    world.done(&["supply", "quiet", "--node", "n1"]);
    let digest = world.plat.json(&["release", "show", "quiet"])["digest"].as_str().unwrap().to_owned();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let says = |rebuild, problem| {
        let state = v1::InstallState::Installed.into();
        let installation = v1::Installation { digest: digest.clone(), state, rebuild, problem, ..Default::default() };
        runtime.block_on(world.says("n1", installation))
    };
    says(0, None);
    let comes_of = |problem: Option<v1::Problem>, before: u64| {
        std::thread::scope(|scope| {
            let asks = scope.spawn(|| world.plat.run(&["release", "rebuild", "quiet", "--wait", "--timeout", "30"]));
            let number = eventually("the node is told", Duration::from_secs(30), || {
                let told = says(before, None).rebuilds.first().map_or(0, |one| one.number);
                if told > before { Ok(told) } else { Err(told.to_string()) }
            });
            says(number, problem);
            (asks.join().unwrap(), number)
        })
    };
    let in_use = v1::Problem {
        code: "P0303".into(),
        what: "it is not built again".into(),
        why: "an instance consists of it".into(),
        ..Default::default()
    };
    let (ran, number) = comes_of(Some(in_use), 0);
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.errors);
    assert!(ran.errors.contains("error[P0403]"), "{}", ran.errors);
    assert!(ran.errors.contains("n1: P0303 it is not built again (an instance consists of it)"), "{}", ran.errors);
    let (ran, _) = comes_of(None, number);
    assert_eq!(ran.code, 0, "{}", ran.errors);
    assert!(ran.out.contains("it is built again"), "{}", ran.out);
}
