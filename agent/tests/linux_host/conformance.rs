//! What every runtime promises, as checks that any of them is run through: `suite!` makes a test of each, on a node of its
//! own whose host has that runtime. See [`plat_agent::host::linux::runtime::Runtime`] for the promises.

use super::*;
use plat_agent::host::linux::runtime::{Memory, Place, Reading, RunState};
use plat_agent_plan::facts::Ending;
use plat_document::release::{Restart, ServiceKind, StopSignal};

mod amounts;
mod bounds;
mod counted;
mod hardship;
mod traffic;
pub use amounts::*;
pub use bounds::*;
pub use counted::*;
pub use hardship::*;
pub use traffic::*;

/// A test of each check, over the nodes that `$node` makes; none where it can make none.
macro_rules! suite {
    (one [$($note:meta),*] $node:expr, $check:ident) => {
        $(#[$note])*
        #[tokio::test(flavor = "multi_thread")]
        async fn $check() {
            let node: Option<Node> = $node;
            match node {
                Some(node) => $crate::conformance::$check(node).await,
                None => eprintln!("SKIPPED: {} needs root", stringify!($check)),
            }
        }
    };
    ($notes:tt $node:expr) => {
        $crate::conformance::suite!($notes $node;
            a_service_outlives_its_agent_and_is_found_again
            a_service_runs_once_and_another_specification_is_another_run
            of_many_that_are_started_at_once_each_says_how_it_went
            stopping_kills_what_ignores_the_signal_and_what_detached
            a_service_is_told_to_stop_by_the_signal_that_it_asked_for
            a_run_that_ends_by_itself_is_told_with_its_last_lines_and_counted
            a_one_shot_says_whether_it_succeeded_also_to_the_next_agent
            what_has_ended_is_not_started_again_while_there_is_an_agent
            a_service_that_does_not_say_that_it_is_alive_is_ended
            a_reload_reaches_the_run_that_it_is_for_and_no_other
            a_program_is_run_to_its_end_and_says_how_it_went
            a_program_that_takes_too_long_or_is_dropped_ends_with_all_that_it_started
            nothing_is_inherited_and_no_privileges_are_gained
            what_runs_writes_nowhere_but_into_its_partition
            what_is_temporary_is_its_own
            what_is_temporary_is_in_the_partition_as_long_as_a_folder_is_left_there_for_it
            what_runs_sees_processes_of_its_user_and_of_nobody_else
            what_runs_has_sockets_of_four_families_and_no_others
            what_runs_makes_no_program_that_gives_rights_and_no_namespace
            what_runs_may_not_ask_the_kernel_for_what_no_program_needs
            a_program_whose_output_another_has_ends_all_the_same
            what_is_said_to_be_enforced_is
            the_next_instance_is_held_to_nothing_that_the_last_one_was
            a_service_whose_directory_is_not_there_has_ended_as_often_as_it_was_started
            a_run_that_has_ended_is_on_the_bill_whole_until_the_next_one
            cpu_time_of_many_short_children_agrees_with_the_kernel
            what_is_written_to_the_disk_is_counted
            what_is_held_in_memory_is_what_the_kernel_says
            clearing_ends_all_at_once_and_forgetting_leaves_nothing
            logs_are_bounded_and_read_on
            groups_that_somebody_takes_away_are_made_again_with_their_limits_and_the_gap_is_told
            what_takes_its_time_to_stop_keeps_nothing_else
            however_many_take_their_time_to_stop_others_are_told_to_and_have_their_own
            dead_processes_that_nobody_waits_for_are_no_hindrance_and_go_with_the_service
            an_agent_of_another_version_finds_what_runs_and_goes_on_with_it
            what_goes_through_sockets_is_counted_to_the_byte_also_while_no_agent_is_there
        );
    };
    ($notes:tt $node:expr; $($check:ident)*) => {
        $($crate::conformance::suite!(one $notes $node, $check);)*
    };
}
pub(crate) use suite;

fn place(node: &Node) -> Place {
    let file = NodeFile::parse(&fs::read_to_string(node.folder.path().join("node.json")).unwrap()).unwrap();
    Place { partition: file.partitions[0].clone(), directory: node.home(), releases: file.releases }
}

async fn begin(host: &LinuxHost, node: &Node, spec: &ServiceSpec) -> Result<(), Problem> {
    host.runtime().start(&place(node), std::slice::from_ref(spec)).await.pop().unwrap()
}

async fn stop(host: &LinuxHost, name: &str) {
    host.runtime().stop(&part(), &service(name)).await.unwrap();
}

/// A program that shells out.
fn program(script: &str, timeout_seconds: u32) -> Run {
    Run {
        name: "program".into(),
        command: vec!["/bin/sh".into(), "-c".into(), script.into()],
        environment: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
        directory: String::new(),
        timeout_seconds,
    }
}

async fn number_in(path: &Path) -> u32 {
    until("a number is written down", async || fs::read_to_string(path).is_ok_and(|text| text.ends_with('\n'))).await;
    fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

pub async fn a_service_outlives_its_agent_and_is_found_again(node: Node) {
    let host = node.occupied().await;
    let spec = spec("db", "echo begun > begun; echo begun; exec sleep 600");
    begin(&host, &node, &spec).await.unwrap();
    let before = fact(&host, "db").await;
    until("it wrote", async || node.home().join("begun").exists()).await;
    drop(host);
    assert!(alive(running(&before)));

    let host = node.open().await;
    let mut events = host.events();
    assert_eq!(fact(&host, "db").await, before);
    kill9(running(&before).into());
    let told = tokio::time::timeout(Duration::from_secs(5), events.recv()).await.unwrap().unwrap();
    assert_eq!(told, Event::Partition(part()));
    let fact = ended(&host, "db").await;
    assert_eq!((fact.last_exit.as_str(), fact.restarts, fact.short_runs), ("signal 9 (SIGKILL)", 1, 1));
    node.done(host).await;
}

pub async fn a_service_runs_once_and_another_specification_is_another_run(node: Node) {
    let host = node.occupied().await;
    let one = spec("db", "exec sleep 600");
    begin(&host, &node, &one).await.unwrap();
    let first = fact(&host, "db").await;
    begin(&host, &node, &one).await.unwrap();
    assert_eq!(fact(&host, "db").await, first, "it was not started twice");
    begin(&host, &node, &spec("db", "exec sleep 601")).await.unwrap();
    let second = fact(&host, "db").await;
    assert!(!alive(running(&first)) && alive(running(&second)));
    assert!(second.run != first.run && second.fingerprint != first.fingerprint);
    node.done(host).await;
}

pub async fn of_many_that_are_started_at_once_each_says_how_it_went(node: Node) {
    let host = node.occupied().await;
    let mut specs: Vec<_> = (0..4).map(|n| spec(&format!("s{n}"), "exec sleep 600")).collect();
    specs[2].command = vec!["/nowhere/postgres".into()];
    let went = host.runtime().start(&place(&node), &specs).await;
    assert_eq!(went.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, false, true]);
    let problem = went[2].clone().unwrap_err();
    assert_eq!(problem.code, codes::SERVICE_START);
    assert!(problem.why.contains("No such file"), "{problem}");
    let seen = host.runtime().observe(&part()).await.unwrap();
    assert!(matches!(seen[&service("s2")].state, ServiceRun::Ended { .. }));
    assert_eq!(seen.values().filter(|fact| matches!(fact.state, ServiceRun::Running { .. })).count(), 3);
    node.done(host).await;
}

pub async fn stopping_kills_what_ignores_the_signal_and_what_detached(node: Node) {
    let host = node.occupied().await;
    let script = "trap '' TERM; setsid sh -c 'trap \"\" TERM; echo $$ > detached; while :; do sleep 1; done' & \
        while :; do sleep 1; done";
    begin(&host, &node, &spec("stubborn", script)).await.unwrap();
    let pid = running(&fact(&host, "stubborn").await);
    let detached = number_in(&node.home().join("detached")).await;
    stop(&host, "stubborn").await;
    assert!(!alive(pid) && !alive(detached));
    assert!(matches!(fact(&host, "stubborn").await.state, ServiceRun::Ended { .. }));
    stop(&host, "stubborn").await;
    node.done(host).await;
}

pub async fn a_service_is_told_to_stop_by_the_signal_that_it_asked_for(node: Node) {
    let host = node.occupied().await;
    let signals = [("INT", StopSignal::Int), ("QUIT", StopSignal::Quit), ("USR2", StopSignal::Usr2)];
    for (name, stop_signal) in signals {
        let all = ["TERM", "INT", "QUIT", "HUP", "USR1", "USR2"]
            .map(|name| format!("trap 'echo {name} >> got; exit' {name}"));
        let script = format!("{}; echo > up; while :; do sleep 0.02; done", all.join("; "));
        let patient = ServiceSpec { stop_signal, stop_timeout_seconds: 3600, ..spec("db", &script) };
        begin(&host, &node, &patient).await.unwrap();
        until("it is up", async || node.home().join("up").exists()).await;
        stop(&host, "db").await;
        assert_eq!(fs::read_to_string(node.home().join("got")).unwrap(), format!("{name}\n"));
        fs::remove_file(node.home().join("got")).unwrap();
        fs::remove_file(node.home().join("up")).unwrap();
    }
    node.done(host).await;
}

pub async fn a_run_that_ends_by_itself_is_told_with_its_last_lines_and_counted(node: Node) {
    let host = node.occupied().await;
    let ends = spec("db", "echo cannot open the shop; exit 3");
    for n in 1..=2 {
        begin(&host, &node, &ends).await.unwrap();
        let fact = ended(&host, "db").await;
        assert_eq!((fact.last_exit.as_str(), fact.restarts, fact.short_runs), ("exit code 3", n, n));
        assert_eq!(fact.last_lines, ["cannot open the shop"]);
    }
    stop(&host, "db").await;
    assert_eq!(fact(&host, "db").await.short_runs, 0);
    node.done(host).await;
}

fn how(fact: &ServiceFact) -> Ending {
    match fact.state {
        ServiceRun::Ended { how, .. } => how,
        other => panic!("it has not ended: {other:?}"),
    }
}

pub async fn a_one_shot_says_whether_it_succeeded_also_to_the_next_agent(node: Node) {
    let host = node.occupied().await;
    let once = |name: &str, script: &str| ServiceSpec {
        kind: ServiceKind::Oneshot,
        restart: Restart::OnFailure,
        ..spec(name, script)
    };
    begin(&host, &node, &once("good", "echo worked; exit 0")).await.unwrap();
    begin(&host, &node, &once("bad", "exit 3")).await.unwrap();
    begin(&host, &node, &once("long", "exec sleep 600")).await.unwrap();
    let absent = ServiceSpec { command: vec!["/nowhere".into()], ..once("absent", "") };
    begin(&host, &node, &absent).await.unwrap_err();
    let good = ended(&host, "good").await;
    assert_eq!((how(&good), good.last_exit.as_str()), (Ending::Success, "exit code 0"));
    let bad = ended(&host, "bad").await;
    assert_eq!((how(&bad), bad.last_exit.as_str()), (Ending::Failure, "exit code 3"));
    assert_eq!(how(&ended(&host, "absent").await), Ending::Failure);
    running(&fact(&host, "long").await);
    stop(&host, "long").await;
    assert_eq!(how(&fact(&host, "long").await), Ending::Told);
    drop(host);
    let host = node.open().await;
    assert_eq!(fact(&host, "good").await, good);
    begin(&host, &node, &once("good", "echo worked; exit 0")).await.unwrap();
    assert_ne!(ended(&host, "good").await.run, good.run, "it runs as often as it is asked to");
    node.done(host).await;
}

pub async fn what_has_ended_is_not_started_again_while_there_is_an_agent(node: Node) {
    let host = node.occupied().await;
    let policies = [("always", Restart::Always), ("on-failure", Restart::OnFailure), ("never", Restart::Never)];
    for (name, restart) in policies {
        begin(&host, &node, &ServiceSpec { restart, ..spec(name, "exit 1") }).await.unwrap();
    }
    let mut runs = Vec::new();
    for (name, _) in policies {
        let fact = ended(&host, name).await;
        assert_eq!((how(&fact), fact.restarts), (Ending::Failure, 1));
        runs.push(fact.run);
    }
    // What a runtime would do by itself it has begun by the time that another service has come and gone.
    begin(&host, &node, &spec("other", "sleep 0.5")).await.unwrap();
    ended(&host, "other").await;
    for ((name, _), run) in policies.into_iter().zip(runs) {
        assert_eq!(fact(&host, name).await.run, run, "that is the plan's");
    }
    stop(&host, "never").await;
    let fact = fact(&host, "never").await;
    assert_eq!((how(&fact), fact.last_exit.as_str()), (Ending::Told, "exit code 1"), "stopped is stopped on purpose");
    node.done(host).await;
}

/// Says that it is alive, until there is a file `quiet`.
pub const TALKS: &str = r#"exec perl -MSocket -e '
    my $to = $ENV{NOTIFY_SOCKET}; $to =~ s/^@/\0/;
    socket(my $socket, AF_UNIX, SOCK_DGRAM, 0) or die;
    for (;;) {
        send($socket, "STATUS=busy\nWATCHDOG=1\n", 0, pack_sockaddr_un($to)) or die "cannot say it: $!" unless -e "quiet";
        select(undef, undef, undef, 0.05);
    }'"#;

pub async fn a_service_that_does_not_say_that_it_is_alive_is_ended(node: Node) {
    let host = node.occupied().await;
    let watched =
        |name: &str, script: &str, seconds| ServiceSpec { watchdog_seconds: Some(seconds), ..spec(name, script) };
    begin(&host, &node, &watched("talks", TALKS, 4)).await.unwrap();
    let talks = fact(&host, "talks").await;
    let silent = "echo $NOTIFY_SOCKET > socket; echo $WATCHDOG_USEC > every; exec sleep 600";
    begin(&host, &node, &watched("silent", silent, 1)).await.unwrap();
    begin(&host, &node, &watched("deaf", "trap '' ABRT; while :; do sleep 0.1; done", 1)).await.unwrap();
    if node.account.is_some() {
        // Whoever is not the partition's user may say what he likes.
        until("it knows its socket", async || {
            fs::read_to_string(node.home().join("socket")).is_ok_and(|t| t.ends_with('\n'))
        })
        .await;
        let name = fs::read_to_string(node.home().join("socket")).unwrap();
        until("it has ended all the same", async || {
            say(name.trim(), "WATCHDOG=1");
            matches!(fact(&host, "silent").await.state, ServiceRun::Ended { .. })
        })
        .await;
    }
    let silent = ended(&host, "silent").await;
    assert_eq!((how(&silent), silent.short_runs), (Ending::Failure, 1));
    assert!(silent.last_exit.contains("watchdog") && silent.last_exit.contains("SIGABRT"), "{}", silent.last_exit);
    assert_eq!(fs::read_to_string(node.home().join("every")).unwrap(), "1000000\n");
    let deaf = ended(&host, "deaf").await;
    assert!(deaf.last_exit.contains("watchdog") && deaf.last_exit.contains("SIGKILL"), "{}", deaf.last_exit);
    let ServiceRun::Running { since, .. } = talks.state else { panic!("{talks:?}") };
    until("it has run for longer than it may be silent", async || {
        let now = plat_agent::clock::Clock::steady(&plat_agent::clock::SystemClock);
        now.since(since.steady) > Duration::from_secs(5)
    })
    .await;
    assert_eq!(fact(&host, "talks").await, talks, "it is still the first run");
    fs::write(node.home().join("quiet"), "").unwrap();
    let talked = ended(&host, "talks").await;
    assert!(talked.last_exit.contains("watchdog"), "{}", talked.last_exit);
    node.done(host).await;
}

/// Sends a word to where a service is listened to.
fn say(socket: &str, text: &str) {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let address = match socket.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(socket),
    };
    // Nobody listens any more once it has ended.
    let _ = UnixDatagram::unbound().unwrap().send_to_addr(text.as_bytes(), &address.unwrap());
}

pub async fn a_reload_reaches_the_run_that_it_is_for_and_no_other(node: Node) {
    let host = node.occupied().await;
    let script = "trap 'echo again >> reloaded' HUP; echo up > up; while :; do sleep 0.02; done";
    begin(&host, &node, &spec("web", script)).await.unwrap();
    until("it is up", async || node.home().join("up").exists()).await;
    let before = fact(&host, "web").await;
    let reload = |run: &str, signal| {
        let (run, host) = (run.to_owned(), &host);
        async move { host.runtime().reload(&part(), &service("web"), &run, signal).await.unwrap() }
    };
    reload(&before.run, ReloadSignal::Hup).await;
    until("it has reloaded", async || node.home().join("reloaded").exists()).await;
    // That one is over, whatever the signal would have done to it.
    reload("another run", ReloadSignal::Usr1).await;
    assert_eq!(fact(&host, "web").await, before);
    node.done(host).await;
}

pub async fn a_program_is_run_to_its_end_and_says_how_it_went(node: Node) {
    let host = node.occupied().await;
    let run = async |script: &str| host.runtime().run(&place(&node), &program(script, 10)).await;
    let ran = run("pwd > here; echo one; echo two; exit 4").await.unwrap();
    assert_eq!(
        (ran.exit.to_string().as_str(), ran.timed_out, ran.tail),
        ("exit code 4", false, vec!["one".into(), "two".into()])
    );
    assert_eq!(fs::read_to_string(node.home().join("here")).unwrap().trim(), node.home().display().to_string());
    fs::create_dir_all(node.home().join("srv/deep")).unwrap();
    fs::set_permissions(node.home().join("srv/deep"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(node.home().join("srv"), fs::Permissions::from_mode(0o755)).unwrap();
    let within = Run { directory: "srv/deep".into(), ..program("pwd", 10) };
    let ran = host.runtime().run(&place(&node), &within).await.unwrap();
    assert_eq!(ran.tail, [node.home().join("srv/deep").display().to_string()]);
    // A link leads nowhere else.
    symlink("/", node.home().join("out")).unwrap();
    let outside = Run { directory: "out".into(), ..program("pwd", 10) };
    assert_eq!(host.runtime().run(&place(&node), &outside).await.unwrap_err().code, codes::SERVICE_START);
    let absent = Run { command: vec!["/nowhere".into()], ..program("", 10) };
    assert_eq!(host.runtime().run(&place(&node), &absent).await.unwrap_err().code, codes::SERVICE_START);
    assert!(host.runtime().observe(&part()).await.unwrap().is_empty(), "it is no service");
    node.done(host).await;
}

pub async fn a_program_that_takes_too_long_or_is_dropped_ends_with_all_that_it_started(node: Node) {
    let host = node.occupied().await;
    let script = "rm -f child; setsid sleep 600 & echo $! > child; sleep 600";
    let ran = host.runtime().run(&place(&node), &program(script, 1)).await.unwrap();
    assert!(ran.timed_out && !alive(number_in(&node.home().join("child")).await));
    let (place, long, file) = (place(&node), program(script, 600), node.home().join("child"));
    fs::remove_file(&file).unwrap();
    let child = tokio::select! {
        _ = host.runtime().run(&place, &long) => panic!("it does not end"),
        child = number_in(&file) => child,
    };
    until("what was dropped has ended", async || !alive(child)).await;
    // Nor does it matter who ends it as well.
    fs::remove_file(&file).unwrap();
    let child = tokio::select! {
        _ = host.runtime().run(&place, &long) => panic!("it does not end"),
        child = number_in(&file) => child,
    };
    host.runtime().clear(&place).await.unwrap();
    until("what was dropped has ended", async || !alive(child)).await;
    node.done(host).await;
}

pub async fn nothing_is_inherited_and_no_privileges_are_gained(node: Node) {
    let host = node.occupied().await;
    let script = "env | cut -d= -f1 | sort | tr '\\n' ' '; echo; ls /proc/self/fd | wc -w; umask; grep NoNewPrivs /proc/self/status";
    let ran = host.runtime().run(&place(&node), &program(script, 10)).await.unwrap();
    let [environment, open, umask, privileges] = &ran.tail[..] else { panic!("{:?}", ran.tail) };
    // The shell's own, and at most one by which a runtime knows its processes.
    let foreign: Vec<_> = environment
        .split(' ')
        .filter(|name| !["PATH", "PWD", "OLDPWD", "SHLVL", "_", "PLAT_RUN", ""].contains(name))
        .collect();
    assert_eq!(foreign, [""; 0]);
    // Input, output, errors, and the folder that is listed.
    assert_eq!((open.as_str(), umask.as_str()), ("4", "0027"));
    assert!(privileges.ends_with('1'), "{privileges}");
    node.done(host).await;
}

pub async fn a_service_whose_directory_is_not_there_has_ended_as_often_as_it_was_started(node: Node) {
    let host = node.occupied().await;
    let lost = ServiceSpec { directory: "srv/gone".into(), ..spec("db", "exec sleep 600") };
    for times in 1..=2 {
        let problem = begin(&host, &node, &lost).await.unwrap_err();
        assert_eq!(problem.code, codes::SERVICE_START);
        assert!(problem.why.contains("srv/gone"), "{problem}");
        let fact = fact(&host, "db").await;
        assert_eq!((how(&fact), fact.restarts, fact.short_runs), (Ending::Failure, times, times));
        assert!(fact.last_exit.contains("srv/gone"), "{}", fact.last_exit);
    }
    node.done(host).await;
}

pub async fn a_run_that_has_ended_is_on_the_bill_whole_until_the_next_one(node: Node) {
    let host = node.occupied().await;
    let usage = || host.runtime().usage(&part(), Memory::NotAsked).unwrap();
    let cpu = |group: &Option<Reading>| group.as_ref().map_or(0, |group| group.cpu_micros);
    let before = cpu(&usage().group);
    let works = spec("works", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done");
    begin(&host, &node, &works).await.unwrap();
    let run = fact(&host, "works").await.run;
    ended(&host, "works").await;
    let seen = usage();
    let [one] = &seen.runs[..] else { panic!("{seen:?}") };
    assert_eq!((&one.run, &one.instance, one.state), (&run, &instance(), RunState::Ended));
    assert!(one.ended.is_some_and(|ended| ended.steady >= one.started.steady));
    let counted = if one.counted.cpu { cpu(&seen.group) - before } else { one.used.cpu_micros };
    assert!(counted > 5_000, "{seen:?}");
    begin(&host, &node, &spec("works", "exec sleep 600")).await.unwrap();
    let seen = usage();
    assert!(
        matches!(seen.runs[..], [ref one] if one.run != run && matches!(one.state, RunState::Live { .. })),
        "{seen:?}"
    );
    // What the run of before used has been settled, and is told with the rest.
    assert!(known(&counters(&host).await, Meter::CpuMicros) >= counted);
    assert!(host.runtime().memory(&part(), &instance()).unwrap().is_some_and(|bytes| bytes > 0));
    assert_eq!(host.runtime().group(&part()).is_none(), host.runtime().without_groups().is_some());
    node.done(host).await;
}

pub async fn clearing_ends_all_at_once_and_forgetting_leaves_nothing(node: Node) {
    let host = node.occupied().await;
    let patient = |spec| ServiceSpec { stop_timeout_seconds: 60, ..spec };
    let script = "trap '' TERM; sleep 600 & wait; wait";
    let specs: Vec<_> = (0..3).map(|n| patient(spec(&format!("s{n}"), script))).collect();
    host.runtime().start(&place(&node), &specs).await.into_iter().for_each(Result::unwrap);
    let facts = host.runtime().observe(&part()).await.unwrap();
    let begun = Instant::now();
    host.runtime().clear(&place(&node)).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(30), "nobody is asked to stop");
    assert!(facts.values().all(|fact| !alive(running(fact))));
    assert!(host.runtime().observe(&part()).await.unwrap().is_empty());
    assert!(host.runtime().logs(&part(), None).fresh().is_empty());
    let group = host.runtime().group(&part());
    host.runtime().forget(&part()).await.unwrap();
    assert!(group.is_none_or(|group| !group.exists()));
    host.runtime().clear(&place(&node)).await.unwrap();
    node.done(host).await;
}

pub async fn logs_are_bounded_and_read_on(node: Node) {
    let host = node.occupied().await;
    let script = "head -c 5000000 /dev/zero | tr '\\0' 'x' | fold -w 100; echo; echo the end; \
        while [ ! -e go ]; do sleep 0.01; done; echo on; exec sleep 600";
    begin(&host, &node, &spec("noisy", script)).await.unwrap();
    begin(&host, &node, &spec("other", "echo said; exec sleep 600")).await.unwrap();
    let (mut lines, noisy) = (host.runtime().logs(&part(), None), service("noisy"));
    let mut kept = Vec::new();
    until("both wrote", async || {
        kept.extend(lines.fresh());
        let has = |text: &str| kept.iter().any(|(_, _, line)| line == text);
        has("the end") && has("said")
    })
    .await;
    let mut asked = host.runtime().logs(&part(), Some(&noisy));
    let kept = asked.fresh();
    assert!(kept.iter().all(|(_, service, _)| service == &noisy), "of one alone");
    assert!(kept.last().is_some_and(|(_, _, line)| line == "the end"));
    assert!(kept.iter().map(|(_, _, line)| line.len()).sum::<usize>() < 3 << 20, "a flood fills no disk");
    assert!(kept.is_sorted_by_key(|(at, _, _)| *at));
    fs::write(node.home().join("go"), "").unwrap();
    let mut fresh = Vec::new();
    until("it went on", async || {
        fresh.extend(asked.fresh());
        !fresh.is_empty()
    })
    .await;
    assert_eq!(fresh.into_iter().map(|(_, _, line)| line).collect::<Vec<_>>(), ["on"]);
    node.done(host).await;
}
