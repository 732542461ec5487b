//! Model → wire bytes → model is identity; what is wrong is told whole.

use plat_model::id::*;
use plat_model::instance::*;
use plat_model::node::{Inventory, NodeReport, PartitionOffer};
use plat_model::parameters::Parameters;
use plat_model::problem::codes;
use plat_model::release::{InstallState, Installation};
use plat_model::resources::{Enforced, Resources};
use plat_model::run::{RUNS_MAX, RunEnd, RunResult, RunWanted, TAIL_LINE_MAX, TAIL_LINES};
use plat_model::time::Window;
use plat_model::tree::{Child, ChildAsk, Kind, Said, SharedDesired, TreeAsk};
use plat_model::usage::{Amount, LedgerEntry, LedgerLine, Meter, UsageRecord, UsageReport};
use plat_model::{Generation, Problem, Problems, Timestamp, Waiting};
use plat_wire::convert::{Held, ReadSync, for_instance, sync_request};
use plat_wire::{IntoModel, v1};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message;
use std::net::IpAddr;

fn name<T: std::fmt::Debug + 'static>(parse: fn(&str) -> Result<T, Problem>) -> impl Strategy<Value = T> {
    "[a-z][a-z0-9]{0,14}".prop_map(move |text| parse(&text).unwrap())
}

fn hex<T: std::fmt::Debug>(digits: usize, parse: fn(&str) -> Result<T, Problem>) -> impl Strategy<Value = T> {
    vec(select("0123456789abcdef".chars().collect::<Vec<_>>()), digits)
        .prop_map(move |text| parse(&text.into_iter().collect::<String>()).unwrap())
}

fn id() -> impl Strategy<Value = InstanceId> {
    hex(32, InstanceId::parse)
}

fn digest() -> impl Strategy<Value = Digest> {
    hex(64, Digest::parse)
}

fn time() -> impl Strategy<Value = Timestamp> {
    (0..253_402_300_799_999i64).prop_map(Timestamp)
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,40}"
}

/// At most 63 bytes.
fn label() -> impl Strategy<Value = String> {
    "\\PC{0,15}"
}

fn problem() -> impl Strategy<Value = Problem> {
    let codes: Vec<_> = codes::ALL.iter().flat_map(|table| table.iter()).map(|entry| entry.code).collect();
    (select(codes), text(), text(), text(), text()).prop_map(|(code, what, why, todo, at)| Problem {
        code,
        what,
        why,
        todo,
        at,
    })
}

fn resources() -> impl Strategy<Value = Resources> {
    let amount = || option::of(any::<u32>());
    (amount(), amount(), amount(), amount()).prop_map(|(cpu_millis, memory_mib, disk_mib, processes)| Resources {
        cpu_millis,
        memory_mib,
        disk_mib,
        processes,
    })
}

fn parameters() -> impl Strategy<Value = Parameters> {
    btree_map("[a-z]{1,8}", text(), 0..5)
        .prop_map(|map| Parameters::new(map.into_iter().map(|(key, value)| (key, value.into())).collect()).unwrap())
}

fn rules() -> impl Strategy<Value = PlacementRules> {
    (option::of(name(NodeId::parse)), btree_map("[a-z]{1,8}", label(), 0..5), enforced())
        .prop_map(|(node, labels, enforced)| PlacementRules { node, labels, enforced })
}

fn enforced() -> impl Strategy<Value = Enforced> {
    any::<[bool; 5]>().prop_map(|[cpu, memory, disk, processes, confinement]| Enforced {
        cpu,
        memory,
        disk,
        processes,
        confinement,
    })
}

fn waiting() -> impl Strategy<Value = Waiting> {
    (text(), text(), time(), text()).prop_map(|(who, on, since, todo)| Waiting { who, on, since, todo })
}

fn wanted() -> impl Strategy<Value = RunWanted> {
    (any::<u64>(), name(HookName::parse)).prop_map(|(number, hook)| RunWanted { number, hook })
}

fn run() -> impl Strategy<Value = RunResult> {
    let others = select(vec![RunEnd::Killed, RunEnd::Interrupted, RunEnd::NotRun]);
    let end = prop_oneof![any::<u8>().prop_map(RunEnd::Exited), others];
    (wanted(), time(), time(), end, text(), vec(text(), 0..TAIL_LINES)).prop_map(
        |(RunWanted { number, hook }, began, ended, end, how, tail)| RunResult {
            number,
            hook,
            began,
            ended,
            end,
            how,
            tail,
        },
    )
}

fn status() -> impl Strategy<Value = InstanceStatus> {
    use InstanceState::*;
    let states = vec![Waiting, Installing, Starting, Ready, Degraded, Failed, Stopping, Stopped, Destroying, Destroyed];
    let states_of_services =
        [ServiceState::Stopped, ServiceState::Running, ServiceState::Backoff, ServiceState::Done, ServiceState::Failed];
    let kinds = [ServiceKind::Service, ServiceKind::Oneshot];
    let service = (
        (name(ServiceName::parse), select(kinds.to_vec()), select(states_of_services.to_vec())),
        (option::of(any::<u32>()), any::<u32>(), text(), time()),
        (text(), option::of(time()), any::<u32>()),
    )
        .prop_map(|((name, kind, state), (pid, restarts, last_exit, since), (schedule, next, skipped))| {
            ServiceStatus { name, kind, state, pid, restarts, last_exit, since, schedule, next, skipped }
        });
    let promise = (name(PromiseName::parse), any::<bool>(), text(), time(), option::of(time()))
        .prop_map(|(name, holds, message, checked, since)| PromiseStatus { name, holds, message, checked, since });
    let head = (id(), any::<u64>().prop_map(Generation), select(states), time(), text());
    let said = option::of((any::<bool>(), text()).prop_map(|(well, text)| Said { well, text }));
    let more = (said, vec(run(), 0..RUNS_MAX), any::<bool>());
    (head, option::of(problem()), parameters(), vec(service, 0..3), vec(promise, 0..3), more).prop_map(
        |((id, generation, state, since, detail), problem, connection, services, promises, (said, ran, found))| {
            let bare = InstanceStatus::bare(id, generation, state, since);
            InstanceStatus { detail, problem, connection, services, promises, said, ran, found, ..bare }
        },
    )
}

fn installation() -> impl Strategy<Value = Installation> {
    use InstallState::*;
    let states = vec![Absent, Installing, Installed, Failed, Removing];
    (digest(), select(states), text(), option::of(problem()), any::<u64>()).prop_map(
        |(digest, state, progress, problem, rebuild)| Installation { digest, state, progress, problem, rebuild },
    )
}

fn inventory() -> impl Strategy<Value = Inventory> {
    let offer = (vec(any::<IpAddr>(), 0..3), resources());
    let offers = btree_map("[a-z][a-z0-9]{0,14}", offer, 0..4);
    let told = (enforced(), "[a-z]{0,8}", any::<bool>(), vec(problem(), 0..3));
    (resources(), offers, told).prop_map(|(capacity, offers, (enforced, runtime, does_once, troubles))| Inventory {
        troubles,
        enforced,
        runtime,
        does_once,
        capacity,
        partitions: offers
            .into_iter()
            .map(|(name, (addresses, limits))| PartitionOffer {
                name: PartitionName::parse(&name).unwrap(),
                addresses,
                limits,
            })
            .collect(),
    })
}

fn record() -> impl Strategy<Value = UsageRecord> {
    let amount = prop_oneof![any::<u64>().prop_map(Amount::Known), text().prop_map(Amount::Unknown)];
    let amounts = btree_map(select(Meter::ALL.to_vec()), amount.clone(), 0..6);
    let others = btree_map("x-[a-z0-9-]{0,20}", amount, 0..3);
    (id(), name(PartitionName::parse), time(), 0..1_000_000i64, amounts, others).prop_map(
        |(instance, partition, end, length, amounts, others)| UsageRecord {
            instance,
            partition,
            window: Window { start: Timestamp((end.0 - length).max(0)), end },
            amounts,
            others,
        },
    )
}

fn desired() -> impl Strategy<Value = InstanceDesired> {
    let names = (id(), name(ProjectName::parse), name(InstanceName::parse), name(PartitionName::parse));
    let wish = select(vec![Wish::Started, Wish::Stopped, Wish::Destroyed]);
    let more = (any::<u64>(), vec(shared(), 0..3), vec(wanted(), 0..RUNS_MAX));
    (names, any::<u64>().prop_map(Generation), digest(), parameters(), wish, resources(), more).prop_map(
        |((id, project, name, partition), generation, release, parameters, wish, resources, (bang, shared, runs))| {
            InstanceDesired {
                id,
                project,
                name,
                partition,
                generation,
                release,
                parameters,
                wish,
                resources,
                bang,
                shared,
                runs,
            }
        },
    )
}

fn shared() -> impl Strategy<Value = SharedDesired> {
    (id(), name(InstanceName::parse), parameters()).prop_map(|(id, name, parameters)| SharedDesired {
        id,
        name,
        parameters,
    })
}

fn ask() -> impl Strategy<Value = TreeAsk> {
    let wish = option::of(select(vec![Wish::Started, Wish::Stopped, Wish::Destroyed]));
    let kind = prop_oneof![Just(Kind::Own), option::of(name(InstanceName::parse)).prop_map(|on| Kind::Shared { on }),];
    let release = option::of("[a-z0-9]{1,64}");
    let what = (release, option::of(parameters()), option::of(resources()), wish, kind);
    let request = (name(InstanceName::parse), what).prop_map(|(name, (release, parameters, resources, wish, kind))| {
        TreeAsk::Request(Box::new(ChildAsk { name, release, parameters, resources, wish, kind }))
    });
    prop_oneof![
        request,
        Just(TreeAsk::Children),
        (id(), parameters()).prop_map(|(shared, connection)| TreeAsk::Publish { shared, connection }),
        Just(TreeAsk::Bang),
    ]
}

fn child() -> impl Strategy<Value = Child> {
    let head = (name(InstanceName::parse), name(InstanceName::parse), id());
    let wish = select(vec![Wish::Started, Wish::Stopped, Wish::Destroyed]);
    let state = select(vec![InstanceState::Waiting, InstanceState::Ready, InstanceState::Failed]);
    (head, wish, state, any::<bool>(), text(), option::of(problem()), parameters()).prop_map(
        |((name, instance, id), wish, state, current, detail, problem, connection)| Child {
            name,
            instance,
            id,
            wish,
            state,
            current,
            detail,
            problem,
            connection,
        },
    )
}

/// Over the wire as bytes, and back.
fn travel<W: Message + Default + IntoModel>(wire: W) -> Result<W::Model, Problems> {
    W::decode(wire.encode_to_vec().as_slice()).unwrap().into_model()
}

macro_rules! same {
    ($($test:ident: $wire:ident, $strategy:expr;)*) => {
        proptest! {
            #![proptest_config(ProptestConfig::with_cases(64))]
            $(#[test]
            fn $test(value in $strategy) {
                prop_assert_eq!(travel(v1::$wire::from(&value)).unwrap(), value);
            })*
        }
    };
}

same! {
    a_problem_travels_unchanged: Problem, problem();
    problems_travel_unchanged: Problems, vec(problem(), 0..5).prop_map(Problems);
    resources_travel_unchanged: Resources, resources();
    a_place_travels_unchanged: PartitionRef, (name(NodeId::parse), name(PartitionName::parse))
        .prop_map(|(node, partition)| PartitionRef { node, partition });
    placement_rules_travel_unchanged: PlacementRules, rules();
    a_wait_travels_unchanged: Waiting, waiting();
    an_instance_status_travels_unchanged: InstanceStatus, status();
    an_installation_travels_unchanged: Installation, installation();
    an_inventory_travels_unchanged: Inventory, inventory();
    a_usage_report_travels_unchanged: UsageReport, (1..u64::MAX, time(), vec(record(), 0..4))
        .prop_map(|(sequence, taken, records)| UsageReport { sequence, taken, records });
    a_desired_instance_travels_unchanged: InstanceBody, desired();
    a_run_that_is_asked_for_travels_unchanged: RunWanted, wanted();
    what_became_of_a_run_travels_unchanged: RunResult, run();
    a_shared_instance_travels_unchanged: SharedInstance, shared();
    a_child_travels_unchanged: Child, child();
    a_ledger_entry_travels_unchanged: LedgerEntry, (
        name(NodeId::parse), any::<u64>(), time(), digest(), vec((name(ProjectName::parse), record()), 0..3),
    ).prop_map(|(node, sequence, booked, hash, lines)| LedgerEntry {
        node, sequence, booked, hash,
        lines: lines.into_iter().map(|(project, record)| LedgerLine { project, record }).collect(),
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_report_and_what_is_held_travel_unchanged(
        generation in any::<u64>(), inventory in option::of(inventory()), installations in vec(installation(), 0..3),
        instances in vec(status(), 0..3), held in btree_map(id(), any::<u64>().prop_map(Generation), 0..4),
        releases in btree_set(digest(), 0..3),
    ) {
        let report = NodeReport { generation: Generation(generation), inventory, installations, instances };
        let held = Held { instances: held, releases };
        prop_assert_eq!(travel(sync_request(&report, &held)).unwrap(), (report, held));
    }

    #[test]
    fn what_an_instance_asks_travels_unchanged(instance in id(), ask in ask()) {
        prop_assert_eq!(travel(for_instance(&instance, &ask)).unwrap(), (instance, ask));
    }

    #[test]
    fn no_bytes_from_a_peer_panic(bytes in vec(any::<u8>(), 0..300)) {
        if let Ok(wire) = v1::SyncRequest::decode(bytes.as_slice()) {
            let _ = wire.into_model();
        }
        if let Ok(wire) = v1::ForInstanceRequest::decode(bytes.as_slice()) {
            let _ = wire.into_model();
        }
        if let Ok(wire) = v1::PushUsageRequest::decode(bytes.as_slice()) {
            let _ = wire.into_model();
        }
    }
}

#[test]
fn a_meter_of_a_newer_peer_is_kept_by_its_name_and_holds_nothing_up() {
    let amount = |meter: &str| v1::Amount { meter: meter.into(), reading: Some(v1::amount::Reading::Known(1)) };
    let report = |meters: &[&str]| {
        let amounts = meters.iter().map(|meter| amount(meter)).collect();
        let record =
            v1::UsageRecord { instance: "0".repeat(32), partition: "part0".into(), amounts, ..Default::default() };
        v1::UsageReport { sequence: 1, taken_ms: 1, records: vec![record] }
    };
    let read = report(&["cpu-micros", "gpu-micros"]).into_model().unwrap();
    assert_eq!(read.records[0].amounts, [(Meter::CpuMicros, Amount::Known(1))].into());
    assert_eq!(read.records[0].others, [("gpu-micros".to_owned(), Amount::Known(1))].into());
    for meters in [&["gpu-micros", "gpu-micros"][..], &["GPU"], &[""]] {
        assert_eq!(report(meters).into_model().unwrap_err().0.len(), 1, "{meters:?}");
    }
}

#[test]
fn which_releases_were_to_be_built_again_is_read_by_their_digests() {
    let rebuild = |digest: &str| v1::Rebuild { digest: digest.into(), number: 7 };
    let answer = v1::SyncResponse { rebuilds: vec![rebuild(&"a".repeat(64))], ..Default::default() };
    let read = answer.into_model().unwrap();
    assert_eq!(read.rebuilds, [(Digest::parse(&"a".repeat(64)).unwrap(), 7)].into());
    let wrong = v1::SyncResponse { rebuilds: vec![rebuild("../x")], ..Default::default() };
    assert_eq!(wrong.into_model().unwrap_err().0[0].at, "rebuilds[0].digest");
}

#[test]
fn all_that_is_wrong_is_told_with_its_place() {
    let wire = v1::InstanceStatus { id: "X".into(), state: 99, since_ms: -1, ..Default::default() };
    let places: Vec<_> = wire.into_model().unwrap_err().into_iter().map(|problem| problem.at).collect();
    assert_eq!(places, ["id", "state", "since_ms"]);
}

#[test]
fn one_bad_status_does_not_keep_the_others_out() {
    let good = v1::InstanceStatus { id: "1".repeat(32), state: 4, ..Default::default() };
    let bad = v1::InstanceStatus { id: "../x".into(), ..good.clone() };
    let read = ReadSync::from_wire(v1::SyncRequest { instances: vec![bad, good], ..Default::default() });
    assert_eq!(read.report.instances.len(), 1);
    assert_eq!(read.refused.0[0].at, "instances[0].id");
}

#[test]
fn too_many_of_a_thing_and_too_long_a_text_are_refused_and_long_ones_of_ours_are_cut() {
    let many = vec![v1::PromiseStatus::default(); 10_000];
    let wire = v1::InstanceStatus { id: "1".repeat(32), state: 4, promises: many, ..Default::default() };
    let problems = wire.into_model().unwrap_err();
    assert_eq!((problems.0.len(), problems.0[0].code), (1, codes::TOO_LARGE));

    let flood = RunResult {
        number: 1,
        hook: HookName::parse("configure").unwrap(),
        began: Timestamp(1),
        ended: Timestamp(2),
        end: RunEnd::Killed,
        how: "é".repeat(1 << 20),
        tail: vec!["é".repeat(1 << 10); 1000],
    };
    let read = v1::RunResult::from(&flood).into_model().unwrap();
    assert!(read.tail.len() == TAIL_LINES && read.tail.iter().all(|line| line.len() <= TAIL_LINE_MAX));
    assert!(v1::RunResult { tail: flood.tail, ..(&read).into() }.into_model().is_err());

    let long = Problem::new(codes::BUILD_FAILED, "é".repeat(1 << 20));
    let hostile = v1::Problem { what: long.what.clone(), code: "P0403".into(), ..Default::default() };
    assert_eq!(hostile.into_model().unwrap_err().0[0].code, codes::TOO_LARGE);
    assert!(v1::Problem::from(&long).into_model().unwrap().what.starts_with('…'));
}
