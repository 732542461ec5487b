//! Instances, with the master there or away.

use crate::rig::{RELEASE, Rig, instance, part, release, until};
use plat_agent::clock::{Clock, SystemClock};
use plat_agent::host::Host;
use plat_agent_plan::facts::ServiceRun;
use plat_document::Release;
use plat_model::Generation;
use plat_model::id::ServiceName;
use plat_model::instance::{InstanceDesired, InstanceState, Wish};
use plat_model::parameters::Parameters;
use plat_model::problem::codes;
use plat_model::release::{InstallState, Installation};
use std::fs;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_request_becomes_a_ready_instance_and_its_end_an_empty_partition() {
    let rig = Rig::running().await;
    rig.want(1, Wish::Started);
    rig.until_state(1, InstanceState::Ready).await;
    let status = rig.status(1).unwrap();
    assert_eq!(status.connection.to_json(), r#"{"address":"[fd00::1]"}"#);
    assert!(rig.host.file(&part(), "etc/echo.conf").unwrap().starts_with("key=key-of-"));
    assert_eq!(rig.master.state().inventory.as_ref().unwrap().partitions.len(), 1);
    rig.want(1, Wish::Destroyed);
    rig.until_state(1, InstanceState::Destroyed).await;
    rig.master.want(|desired| {
        desired.instances.clear();
        desired.releases.clear();
    });
    until("the partition is free", || {
        let fact = rig.host.fact(&part());
        (fact.occupant.is_none(), fact)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_desired_last_is_done_after_a_restart_with_the_master_away() {
    let mut rig = Rig::running().await;
    rig.want(1, Wish::Started);
    rig.until_state(1, InstanceState::Ready).await;
    rig.kill().await;
    rig.master_away().await;
    let echo = ServiceName::parse("echo").unwrap();
    rig.host.end_service(&part(), &echo, "signal 9 (SIGKILL)");
    rig.start();
    until("the service runs again", || {
        let fact = rig.host.fact(&part());
        (matches!(fact.services[&echo].state, ServiceRun::Running { .. }), fact)
    })
    .await;
    rig.want(1, Wish::Stopped);
    rig.master_back().await;
    rig.until_state(1, InstanceState::Stopped).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_of_the_wall_clock_makes_no_hot_loop_and_stalls_no_restart() {
    let rig = Rig::running().await;
    rig.want(1, Wish::Started);
    rig.until_state(1, InstanceState::Ready).await;
    let echo = ServiceName::parse("echo").unwrap();
    for hours in [-1, 1] {
        rig.clock.set(hours * 3600);
        let before = rig.host.performed().len();
        // It is young, so that it waits before it is started again; and what was started is asked whether it serves.
        rig.host.end_service(&part(), &echo, "exit code 1");
        rig.until_state(1, InstanceState::Degraded).await;
        until("the service runs again", || {
            let fact = rig.host.fact(&part());
            (matches!(fact.services[&echo].state, ServiceRun::Running { .. }), fact)
        })
        .await;
        rig.until_state(1, InstanceState::Ready).await;
        let since = &rig.host.performed()[before..];
        let of = |what: &str| since.iter().filter(|step| step.contains(what)).count();
        assert_eq!((of("start service"), of("check promise")), (1, 1), "{since:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_makes_up_for_its_times_once_and_uses_none_twice_whoever_is_killed_or_set_meanwhile() {
    let mut rig = Rig::enrolled().await;
    let text = RELEASE.replace(
        "services:\n",
        "services:\n  tick: {command: [/bin/tick], kind: oneshot, schedule: \"0 * * * *\"}\n  \
         prepare: {command: [/bin/prepare], kind: oneshot}\n",
    );
    let document = Release::parse_yaml(&text, "echo.yaml").unwrap();
    let wanted = InstanceDesired { release: document.digest(), ..instance(1, Wish::Started) };
    rig.master.want_instance(wanted, &document.to_canonical_json());
    // Half past an hour.
    let ahead = 1800 - SystemClock.now().seconds() % 3600;
    rig.clock.set(ahead);
    rig.start();
    rig.until_state(1, InstanceState::Ready).await;
    let runs = |rig: &Rig, of: &str| rig.host.performed().iter().filter(|step| **step == format!("part0 {of}")).count();
    let tick = |rig: &Rig| rig.status(1).unwrap().services.into_iter().find(|one| one.name.as_str() == "tick").unwrap();
    let next = |rig: &Rig| tick(rig).next.unwrap();
    assert_eq!((runs(&rig, "start service tick"), runs(&rig, "start service prepare")), (0, 1));
    let first = next(&rig);
    for (hours, expected) in [(5_i64, 1), (2, 1), (6, 2)] {
        rig.kill().await;
        rig.clock.set(ahead + hours * 3600);
        rig.start();
        // The latest time that the clock has shown decides.
        let shown = first.plus(Duration::from_secs(u64::try_from(hours.max(5)).unwrap() * 3600));
        until("the next time is told", || (next(&rig) == shown, tick(&rig))).await;
        rig.until_state(1, InstanceState::Ready).await;
        assert_eq!(runs(&rig, "start service tick"), expected, "after {hours} hours");
    }
    assert_eq!(runs(&rig, "start service prepare"), 1, "once for one configuration");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_promises_have_said_can_be_read() {
    let rig = Rig::running().await;
    rig.want(1, Wish::Started);
    rig.until_state(1, InstanceState::Ready).await;
    rig.read_results("t1").await;
    let lines = rig.master.state().log_lines.clone();
    assert!(lines.iter().any(|line| line.contains("answers") && line.ends_with(", held once: ok")), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_cache_is_fetched_anew_and_stops_nothing_meanwhile() {
    let mut rig = Rig::running().await;
    rig.want(1, Wish::Started);
    rig.until_state(1, InstanceState::Ready).await;
    rig.kill().await;
    let path = rig.data().join("desired");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let before = rig.host.performed().len();
    rig.start();
    until("the cache is whole again", || {
        let now = fs::read(&path).unwrap_or_default();
        bytes[middle] ^= 1;
        let whole = now == bytes;
        bytes[middle] ^= 1;
        (whole, now.len())
    })
    .await;
    let since = &rig.host.performed()[before..];
    assert!(!since.iter().any(|step| step.contains("stop") || step.contains("erase")), "{since:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_is_to_be_destroyed_does_not_wait_for_its_init_hook() {
    let rig = Rig::running().await;
    rig.host.block("run hook init");
    rig.want(1, Wish::Started);
    until("the hook is about to run", || {
        let done = rig.host.performed();
        (done.iter().any(|step| step.ends_with("write files")), done)
    })
    .await;
    rig.want(1, Wish::Destroyed);
    rig.until_state(1, InstanceState::Destroyed).await;
    assert!(!rig.host.performed().contains(&"part0 run hook init".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_that_is_no_longer_wanted_is_broken_off() {
    let rig = Rig::running().await;
    let step = format!("install release {}", release().digest().short());
    rig.host.block(&step);
    rig.want(1, Wish::Started);
    rig.until_state(1, InstanceState::Installing).await;
    rig.want(1, Wish::Destroyed);
    rig.until_state(1, InstanceState::Destroyed).await;
    rig.master.want(|desired| {
        desired.instances.clear();
        desired.releases.clear();
    });
    until("the release is told absent", || {
        let state = rig.master.state();
        let told = state.installed.get(&release().digest()).map(|one| one.state);
        (told == Some(InstallState::Absent), told)
    })
    .await;
    rig.host.unblock(&step);
    assert!(!rig.host.is_installed(&release().digest()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_satisfied_node_says_and_does_nothing_more() {
    let rig = Rig::running().await;
    rig.want(1, Wish::Started);
    rig.until_state(1, InstanceState::Ready).await;
    quiet(&rig).await;
    let (syncs, steps) = (rig.master.state().syncs, rig.host.performed().len());
    // A nudge without news costs nothing either; the lines show that the agent has read all of them.
    for _ in 0..5 {
        rig.master.tell_watchers();
    }
    rig.read_logs("t0").await;
    assert_eq!(rig.master.state().syncs, syncs);
    assert_eq!(rig.host.performed().len(), steps);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_that_waits_for_others_says_so_and_what_is_only_unpacked_does_not_wait() {
    let rig = Rig::running().await;
    let other = |name: &str, build: &str| {
        let text = format!("version: 1\nname: {name}\n{build}files: {{a: {{template: b}}}}\n");
        Release::parse_yaml(&text, "other.yaml").unwrap()
    };
    let names = ["one", "two", "three", "four", "five", "six", "seven"];
    let built = names.map(|name| other(name, "build: {commands: [[make]]}\n"));
    let plain = other("plain", "");
    let step = |release: &Release| format!("install release {}", release.digest().short());
    let supply = |release: &Release| {
        let (digest, text) = (release.digest(), release.to_canonical_json());
        rig.master.want(|desired| drop(desired.releases.insert(digest, text)));
    };
    let told = async |release: &Release, what: &str| {
        until(what, || {
            let told = rig.master.state().installed.get(&release.digest()).cloned();
            let installs = |one: &Installation| one.state == InstallState::Installing && one.progress == what;
            (told.as_ref().is_some_and(installs), told)
        })
        .await;
    };
    for release in &built {
        rig.host.block(&step(release));
    }
    for release in &built[..6] {
        supply(release);
        told(release, "").await;
    }
    supply(&built[6]);
    told(&built[6], "waiting for another release to be installed").await;
    supply(&plain);
    until("what is only unpacked is there", || (rig.host.is_installed(&plain.digest()), rig.host.performed())).await;
    built.iter().for_each(|release| rig.host.unblock(&step(release)));
    until("the last is there", || (rig.host.is_installed(&built[6].digest()), rig.host.performed())).await;
}

/// What was desired is not any more; the master is told so.
async fn want_nothing(rig: &Rig) {
    rig.master.want(|desired| {
        desired.instances.clear();
        desired.releases.clear();
    });
    until("the release is told absent", || {
        let told = rig.master.state().installed.get(&release().digest()).map(|one| one.state);
        (told == Some(InstallState::Absent), told)
    })
    .await;
}

async fn had_and_lost(rig: &Rig, n: u32) {
    rig.want(n, Wish::Started);
    rig.until_state(n, InstanceState::Ready).await;
    rig.want(n, Wish::Destroyed);
    rig.until_state(n, InstanceState::Destroyed).await;
    want_nothing(rig).await;
    quiet(rig).await;
}

fn times(rig: &Rig, step: &str) -> usize {
    let step = format!("- {step} {}", release().digest().short());
    rig.host.performed().iter().filter(|one| **one == step).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_nothing_needs_stays_for_a_while_and_is_there_when_it_is_wanted_again() {
    let rig = Rig::running().await;
    for n in 1..=2 {
        had_and_lost(&rig, n).await;
    }
    assert_eq!((times(&rig, "install release"), times(&rig, "remove release")), (1, 0));
    assert_eq!((times(&rig, "note unused"), times(&rig, "note used")), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_kept_a_release_goes_and_is_installed_again_when_it_is_wanted_again() {
    let mut rig = Rig::enrolled().await;
    rig.policy.keep = Duration::ZERO;
    rig.start();
    for n in 1..=2 {
        had_and_lost(&rig, n).await;
        until("the release is gone", || (!rig.host.is_installed(&release().digest()), rig.host.performed())).await;
    }
    assert_eq!((times(&rig, "install release"), times(&rig, "remove release")), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_what_nothing_needs_goes_and_what_is_wanted_waits_and_says_so() {
    let rig = Rig::running().await;
    had_and_lost(&rig, 1).await;
    rig.host.set_free(rig.policy.min_free - 1);
    let other = RELEASE.replace("name: echo", "name: other");
    let other = Release::parse_yaml(&other, "other.yaml").unwrap();
    rig.master.want(|desired| drop(desired.releases.insert(other.digest(), other.to_canonical_json())));
    until("the one that nothing needs is gone", || (times(&rig, "remove release") == 1, rig.host.performed())).await;
    until("it is told what the other waits for", || {
        let told = rig.master.state().installed.get(&other.digest()).cloned();
        let waits = told.as_ref().is_some_and(|one| {
            one.state == InstallState::Installing
                && one.problem.as_ref().is_some_and(|problem| problem.code == codes::DISK_FULL)
        });
        (waits, told)
    })
    .await;
    assert!(!rig.host.is_installed(&other.digest()));
    rig.host.set_free(rig.policy.min_free);
    until("it is begun once there is room", || (rig.host.is_installed(&other.digest()), ())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn for_what_waits_for_room_what_nothing_needs_goes_although_there_is_some() {
    let rig = Rig::running().await;
    had_and_lost(&rig, 1).await;
    rig.host.set_free(2 * rig.policy.min_free);
    rig.host.ask_for_room(rig.policy.min_free + 1);
    until("the one that nothing needs is gone", || (times(&rig, "remove release") == 1, rig.host.performed())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_meets_a_bug_is_started_again() {
    let rig = Rig::running().await;
    rig.host.panic_at("occupy");
    rig.host.panic_at(&format!("install release {}", release().digest().short()));
    rig.want(1, Wish::Started);
    rig.until_state(1, InstanceState::Ready).await;
    assert_eq!(rig.host.performed().iter().filter(|step| *step == "part0 occupy").count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_says_where_a_partition_is_follows_node_json() {
    let rig = Rig::running().await;
    let text = "version: 1\nname: plain\nfiles:\n  etc/where: {template: \"{{ partition.directory }}\"}\n\
                services:\n  main: {command: [/bin/main]}\n";
    let plain = Release::parse_yaml(text, "plain.yaml").unwrap();
    let wanted = InstanceDesired { release: plain.digest(), ..instance(1, Wish::Started) };
    rig.master.want_instance(wanted, &plain.to_canonical_json());
    rig.until_state(1, InstanceState::Ready).await;
    let mut node = rig.host.node().await.unwrap();
    node.root = "/srv/elsewhere".into();
    rig.host.set_node(node);
    until("the file says so", || {
        let file = rig.host.file(&part(), "etc/where");
        (file.as_deref() == Some("/srv/elsewhere/part0"), file)
    })
    .await;
}

/// Waits until the agent has told all that it has to.
pub async fn quiet(rig: &Rig) {
    let (mut seen, mut quiet) = (0, 0);
    until("all is told", || {
        let syncs = rig.master.state().syncs;
        quiet = if syncs == seen { quiet + 1 } else { 0 };
        seen = syncs;
        (quiet > 50, syncs)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_that_somebody_wants_are_pushed() {
    let rig = Rig::running().await;
    rig.want(1, Wish::Started);
    rig.until_state(1, InstanceState::Ready).await;
    rig.read_logs("t1").await;
    assert_eq!(rig.master.state().log_lines, ["t1 echo: a line of echo"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_node_keeps_what_it_runs() {
    let rig = Rig::running().await;
    rig.want(1, Wish::Started);
    rig.until_state(1, InstanceState::Ready).await;
    rig.master.state().revoked = true;
    rig.master.tell_watchers();
    let echo = ServiceName::parse("echo").unwrap();
    rig.host.end_service(&part(), &echo, "exit code 1");
    until("the service runs again", || {
        let fact = rig.host.fact(&part());
        (matches!(fact.services[&echo].state, ServiceRun::Running { .. }), fact)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_rendered_for_one_instance_is_never_used_for_the_next_in_its_partition() {
    let rig = Rig::running().await;
    // Without secrets nothing but the instance itself tells the two apart.
    let text = "version: 1\nname: plain\nparameters: {type: object, properties: {word: {type: string}}}\n\
                files:\n  etc/word: {template: \"{{ parameters.word }}\"}\nservices:\n  main: {command: [/bin/main]}\n";
    let plain = Release::parse_yaml(text, "plain.yaml").unwrap();
    for (n, word) in [(1, "one"), (2, "two")] {
        let parameters = Parameters::parse_json(&format!("{{\"word\": \"{word}\"}}")).unwrap();
        let wanted = instance(n, Wish::Started);
        let wanted = InstanceDesired { release: plain.digest(), parameters, generation: Generation(1), ..wanted };
        rig.master.want(|desired| {
            desired.releases.insert(plain.digest(), plain.to_canonical_json());
            desired.instances.clear();
            desired.instances.insert(wanted.id.clone(), wanted.clone());
        });
        rig.until_state(n, InstanceState::Ready).await;
        assert_eq!(rig.host.file(&part(), "etc/word").unwrap(), word);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_is_tried_anew_when_something_else_is_wanted_and_not_for_a_bang() {
    let rig = Rig::running().await;
    let text = "version: 1\nname: plain\nparameters: {type: object, properties: {word: {type: string}}}\n\
                hooks: {configure: {command: [/bin/configure]}}\nservices:\n  main: {command: [/bin/main]}\n";
    let plain = Release::parse_yaml(text, "plain.yaml").unwrap();
    rig.host.fail("start service main", 1000);
    let want = |generation, bang, word: &str| {
        let parameters = Parameters::parse_json(&format!("{{\"word\": \"{word}\"}}")).unwrap();
        let wanted = instance(1, Wish::Started);
        let generation = Generation(generation);
        let wanted = InstanceDesired { release: plain.digest(), parameters, generation, bang, ..wanted };
        rig.master.want(|desired| {
            desired.releases.insert(plain.digest(), plain.to_canonical_json());
            desired.instances.insert(wanted.id.clone(), wanted.clone());
        });
    };
    // How often it was tried, as is told with this generation.
    let tries = |generation| {
        let status = rig.status(1).filter(|status| status.generation == Generation(generation))?;
        status.detail.strip_prefix("start service main failed ")?.strip_suffix(" times")?.parse::<u32>().ok()
    };
    want(1, 0, "one");
    until("it has failed again and again", || (tries(1).is_some_and(|tries| tries >= 3), tries(1))).await;
    want(2, 1, "one");
    until("its hook has run for the bang", || {
        let runs = rig.host.performed().iter().filter(|step| *step == "part0 run hook configure").count();
        (runs == 2 && tries(2).is_some(), (runs, tries(2)))
    })
    .await;
    assert!(tries(2) >= Some(3), "{:?}", tries(2));
    want(3, 1, "other");
    until("it is tried anew", || (tries(3).is_some_and(|tries| tries < 3), tries(3))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_started_anew_says_of_what_it_finds_that_it_found_it() {
    let mut rig = Rig::running().await;
    rig.want(1, Wish::Started);
    rig.until_state(1, InstanceState::Ready).await;
    let status = rig.status(1).unwrap();
    assert!(!status.found && status.promises[0].since.is_some(), "it saw it become so: {status:?}");
    for _ in 0..5 {
        rig.kill().await;
        rig.master.state().statuses.clear();
        rig.start();
        until("it is told", || (rig.status(1).is_some(), ())).await;
        rig.until_state(1, InstanceState::Ready).await;
        let status = rig.status(1).unwrap();
        assert!(status.found && status.promises[0].since.is_none(), "{status:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_hangs_keeps_no_instance_from_being_destroyed() {
    let rig = Rig::running().await;
    rig.host.block("check promise answers");
    rig.want(1, Wish::Started);
    let echo = ServiceName::parse("echo").unwrap();
    until("the service runs", || {
        let fact = rig.host.fact(&part());
        (fact.services.contains_key(&echo), fact)
    })
    .await;
    // News breaks the check off; the one after it runs on whatever else is new.
    for n in 1..4 {
        let newer = InstanceDesired { generation: Generation(n), ..instance(1, Wish::Started) };
        rig.master.want(|desired| {
            desired.instances.insert(newer.id.clone(), newer.clone());
        });
        rig.read_logs(&format!("t{n}")).await;
    }
    rig.want(1, Wish::Destroyed);
    rig.until_state(1, InstanceState::Destroyed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_kept_is_asked_for_in_the_end_and_not_sent_anew_each_time() {
    let mut rig = Rig::running().await;
    until("it asks", || (rig.master.state().syncs > 0, ())).await;
    let in_the_way = rig.data().join("desired.new");
    // What it was told first may be on its way to the disk by that name.
    until("the way is barred", || (std::fs::create_dir(&in_the_way).is_ok(), ())).await;
    rig.want(1, Wish::Started);
    let sent = || rig.master.state().bodies;
    until("the instance is told of", || (sent() > 0, sent())).await;
    let (before, syncs) = (rig.master.state().syncs, || rig.master.state().syncs);
    until("it is asked again, and again", || (syncs() > before + 2, syncs())).await;
    assert_eq!(sent(), 1);
    assert!(rig.status(1).is_none(), "what is not on the disk is not acted on");
    std::fs::remove_dir(&in_the_way).unwrap();
    rig.until_state(1, InstanceState::Ready).await;
    rig.kill().await;
}
