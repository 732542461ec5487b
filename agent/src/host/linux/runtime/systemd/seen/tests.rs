use super::*;
use crate::host::linux::process::Process;
use crate::host::linux::shim::tree::Used;
use plat_agent_plan::facts::Ending;
use plat_model::id::InstanceId;

const BOOT: &str = "this boot";

fn now() -> Moment {
    Moment { wall: Timestamp(2_000_000), steady: Steady(900_000) }
}

/// A run that was begun, and of which nothing is known yet.
fn begun() -> RunState {
    let nobody = Process { pid: 0, start: 0 };
    RunState {
        version: RunState::VERSION,
        run: String::new(),
        boot: BOOT.into(),
        shim: nobody,
        main: None,
        instance: InstanceId::parse(&"a".repeat(32)).unwrap(),
        fingerprint: "f".into(),
        loaded: String::new(),
        phase: Phase::Running,
        started: Timestamp(1_000_000),
        ended: None,
        began: Some(Steady(1)),
        finished: None,
        exit: None,
        error: String::new(),
        refused: None,
        restarts: 0,
        last_exit: String::new(),
        short_runs: 0,
        told: false,
        unheard: None,
        lost: false,
        cgroup: None,
        counted: None,
        uid: None,
        used: Used::default(),
        tail: Vec::new(),
        stop_seconds: None,
        systemd: Some(BySystemd { restarts: 0, watchdog_seconds: Some(7), stop_seconds: 5 }),
    }
}

fn seen(state: &str, invocation: u8) -> Seen {
    let mut seen = Seen::default();
    seen.take("SubState", &Said::Text(state.into()));
    seen.take("InvocationID", &Said::Bytes(vec![invocation; 16]));
    seen.take("ExecMainPID", &Said::Number(77));
    // Three seconds ago, on systemd's clock.
    seen.take("ExecMainStartTimestamp", &Said::Number(1_997_000_000));
    seen.take("ExecMainStartTimestampMonotonic", &Said::Number(5_000_000));
    seen
}

fn up(state: &mut RunState, seen: &Seen) -> bool {
    bring_up(state, seen, now(), 8_000_000, BOOT)
}

#[test]
fn a_run_that_is_seen_for_the_first_time_is_known_by_its_invocation_from_when_it_began() {
    let mut state = begun();
    assert!(up(&mut state, &seen("running", 1)));
    assert_eq!((state.run.as_str(), state.phase), ("01".repeat(16).as_str(), Phase::Running));
    assert_eq!((state.started, state.began), (Timestamp(1_997_000), Some(Steady(897_000))));
    let known = format!("{state:?}");
    assert!(!up(&mut state, &seen("running", 1)));
    assert_eq!(format!("{state:?}"), known, "nothing has changed");
}

#[test]
fn how_and_when_a_run_ended_is_what_systemd_says() {
    for (state, code, status, exit) in [
        ("exited", 1, 0, Exit::Code(0)),
        ("failed", 1, 3, Exit::Code(3)),
        ("auto-restart", 2, 9, Exit::Signal(9)),
        ("failed", 3, 11, Exit::Signal(11)),
    ] {
        let (mut run, mut unit) = (begun(), seen(state, 1));
        unit.take("ExecMainCode", &Said::Signed(code));
        unit.take("ExecMainStatus", &Said::Signed(status));
        unit.take("ExecMainExitTimestamp", &Said::Number(1_999_000_000));
        unit.take("ExecMainExitTimestampMonotonic", &Said::Number(7_000_000));
        assert!(up(&mut run, &unit));
        assert_eq!((run.phase, run.exit, run.short_runs()), (Phase::Ended, Some(exit), 1), "{state}");
        assert_eq!((run.ended, run.finished), (Some(Timestamp(1_999_000)), Some(Steady(899_000))));
    }
}

#[test]
fn what_systemd_started_again_is_another_run_after_one_that_failed() {
    let mut state = begun();
    up(&mut state, &seen("running", 1));
    let mut again = seen("running", 2);
    again.take("NRestarts", &Said::Number(2));
    assert!(up(&mut state, &again));
    assert_eq!((state.run.as_str(), state.restarts(), state.short_runs()), ("02".repeat(16).as_str(), 2, 2));
    assert_eq!((state.phase, state.main), (Phase::Running, None));
    assert_eq!(state.systemd.map(|by| (by.restarts, by.watchdog_seconds)), Some((2, Some(7))));
    assert!(!up(&mut state, &again), "it is counted once");
}

#[test]
fn a_unit_that_is_gone_has_ended_in_a_way_that_nobody_knows() {
    let mut state = begun();
    up(&mut state, &seen("running", 1));
    let mut other = state.clone();
    assert!(up(&mut state, &Seen::default()));
    assert_eq!((state.ending(), state.last_exit().as_str()), (Ending::Told, "how is not known"));
    assert!(bring_up(&mut other, &seen("running", 1), now(), 8_000_000, "another boot"));
    assert_eq!((other.ending(), other.last_exit().as_str()), (Ending::Told, "the machine was restarted"));
}

#[test]
fn one_that_was_silent_for_too_long_has_failed_whatever_it_answered_and_says_why() {
    for (code, status, end) in [(2, 6, "signal 6 (SIGABRT)"), (1, 0, "exit code 0")] {
        let (mut state, mut unit) = (begun(), seen("failed", 1));
        state.told = true;
        unit.take("Result", &Said::Text("watchdog".into()));
        unit.take("ExecMainCode", &Said::Signed(code));
        unit.take("ExecMainStatus", &Said::Signed(status));
        assert!(up(&mut state, &unit));
        assert_eq!(state.ending(), Ending::Failure);
        assert_eq!(state.last_exit(), format!("watchdog: it said nothing for 7 s; {end}"));
    }
}

#[test]
fn a_program_that_cannot_be_executed_is_told_from_one_that_ends() {
    let mut unit = seen("failed", 1);
    unit.take("Result", &Said::Text("exit-code".into()));
    unit.take("ExecMainCode", &Said::Signed(1));
    unit.take("ExecMainStatus", &Said::Signed(203));
    assert_eq!(unit.failed_step(), Some(203));
    unit.take("ExecMainStatus", &Said::Signed(3));
    assert_eq!(unit.failed_step(), None);
}

#[test]
fn one_that_was_killed_because_it_took_too_long_is_told_from_one_that_was_killed() {
    let mut unit = seen("failed", 1);
    unit.take("ExecMainCode", &Said::Signed(2));
    unit.take("ExecMainStatus", &Said::Signed(9));
    unit.take("Result", &Said::Text("signal".into()));
    assert!(!unit.was_killed_in_time());
    unit.take("Result", &Said::Text("timeout".into()));
    assert!(unit.was_killed_in_time());
    unit.take("ExecMainStatus", &Said::Signed(15));
    assert!(!unit.was_killed_in_time(), "it was told to end, and took too long for that");
}
