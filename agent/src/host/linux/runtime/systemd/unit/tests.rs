use super::*;
use plat_document::release::StopSignal;
use plat_model::id::{InstanceId, PartitionName, ServiceName};
use plat_model::node::{Account, NodePartition};

fn place(directory: &str) -> Place {
    let account = Account { user: "part0".into(), uid: 5001, gid: 5002, groups: vec![104] };
    let partition = NodePartition {
        account: Some(account),
        namespace: Some("/run/netns/part0".into()),
        storage: vec!["/mnt/disk/part0".into()],
        ..NodePartition::bare(PartitionName::parse("part0").unwrap())
    };
    Place { partition, directory: directory.into(), releases: "/srv/plat/releases".into() }
}

fn spec() -> ServiceSpec {
    let command = ["/srv/release/bin/db", "--name", "$HOME", "50%"].map(str::to_owned).to_vec();
    let instance = InstanceId::parse(&"a".repeat(32)).unwrap();
    ServiceSpec {
        directory: "srv".into(),
        stop_signal: StopSignal::Int,
        stop_timeout_seconds: 7,
        environment: BTreeMap::from([("HOME".into(), "/home".into())]),
        ..ServiceSpec::bare(ServiceName::parse("db").unwrap(), instance, command)
    }
}

fn around(version: u32) -> Around<'static> {
    let (environment, tmp) = (Path::new("/var/lib/environment"), Path::new("/var/lib/plat-tmp/plat/part0/tmp"));
    Around { slice: "plat-part0.slice", environment, tmp: Some(tmp), version }
}

fn limits() -> Resources {
    Resources { processes: Some(64), memory_mib: Some(512), cpu_millis: Some(1500), ..Resources::default() }
}

fn told(unit: &[Property]) -> String {
    let mut lines: Vec<String> = unit.iter().map(|(name, value)| format!("{name} {value:?}")).collect();
    lines.sort();
    lines.join("\n")
}

fn value<'a>(unit: &'a [Property], name: &str) -> Option<&'a Value> {
    unit.iter().find(|(property, _)| *property == name).map(|(_, value)| value)
}

#[test]
fn a_service_is_all_that_its_specification_and_its_confinement_say() {
    let place = place("/srv/plat/partitions/part0");
    let confinement = Confinement::of(&place, limits(), Path::new("/var/lib/plat-agent/host"));
    let unit = unit_of(&place, &spec(), &confinement, around(252));
    assert_eq!(told(&unit), include_str!("golden/service.txt").trim_end());
    // What is taken away from a list is said after it.
    let lists = unit.iter().filter(|(name, _)| *name == "SystemCallFilter").map(|(_, value)| value);
    assert!(matches!(lists.collect::<Vec<_>>()[..], [Value::Allowed(_), Value::Denied(_)]));
    let names: std::collections::BTreeSet<_> = unit.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len() + 1, unit.len(), "each other is said once");
}

#[test]
fn a_program_that_is_run_to_its_end_is_held_in_by_the_same() {
    let place = place("/srv/plat/partitions/part0");
    let confinement = Confinement::of(&place, limits(), Path::new("/var/lib/plat-agent/host"));
    let run = Run {
        name: "init".into(),
        command: vec!["/bin/init".into()],
        environment: BTreeMap::new(),
        directory: "srv".into(),
        timeout_seconds: 90,
    };
    let program = run_of(&place, &run, &confinement, around(252));
    assert_eq!(value(&program, "RuntimeMaxUSec"), Some(&Value::Number(90_000_000)));
    assert_eq!(value(&program, "Restart"), None);
    assert_eq!(value(&program, "WorkingDirectory"), Some(&text("/srv/plat/partitions/part0/srv")));
    let service = unit_of(&place, &spec(), &confinement, around(252));
    let same = ["Slice", "User", "Group", "NoNewPrivileges", "SystemCallFilter", "LimitNPROC", "NetworkNamespacePath"];
    for name in same.into_iter().chain(["BindPaths", "TimeoutStartUSec", "TimeoutStartFailureMode"]) {
        assert!(value(&program, name).is_some() && value(&program, name) == value(&service, name), "{name}");
    }
}

#[test]
fn only_a_service_is_started_again_and_only_as_its_specification_says() {
    let place = place("/srv/plat/partitions/part0");
    let confinement = Confinement::of(&place, Resources::default(), Path::new("/var/lib/plat-agent/host"));
    let of = |kind, restart| {
        let spec = ServiceSpec { kind, restart, ..spec() };
        let unit = unit_of(&place, &spec, &confinement, around(252));
        (value(&unit, "Restart").cloned(), value(&unit, "RemainAfterExit").cloned())
    };
    let expected = |restart, remains| (Some(text(restart)), Some(Value::Flag(remains)));
    assert_eq!(of(ServiceKind::Service, Restart::Always), expected("always", false));
    assert_eq!(of(ServiceKind::Service, Restart::OnFailure), expected("on-failure", true));
    assert_eq!(of(ServiceKind::Service, Restart::Never), expected("no", true));
    for restart in [Restart::Always, Restart::OnFailure, Restart::Never] {
        assert_eq!(of(ServiceKind::Oneshot, restart), expected("no", true));
    }
}

#[test]
fn who_must_say_that_it_is_alive_is_listened_to_and_nobody_else() {
    let place = place("/srv/plat/partitions/part0");
    let confinement = Confinement::of(&place, Resources::default(), Path::new("/var/lib/plat-agent/host"));
    let of = |watchdog_seconds| {
        let spec = ServiceSpec { watchdog_seconds, ..spec() };
        let unit = unit_of(&place, &spec, &confinement, around(252));
        (value(&unit, "WatchdogUSec").cloned(), value(&unit, "NotifyAccess").cloned())
    };
    assert_eq!(of(None), (None, None));
    assert_eq!(of(Some(7)), (Some(Value::Number(7_000_000)), Some(text("all"))));
}

#[test]
fn what_this_systemd_does_not_know_is_not_said_and_a_partition_in_tmp_is_seen() {
    let place = place("/tmp/grid/partitions/part0");
    let confinement = Confinement::of(&place, Resources::default(), Path::new("/var/lib/plat-agent/host"));
    let unit = |version| unit_of(&place, &spec(), &confinement, around(version));
    assert_eq!(value(&unit(252), "RestartSteps"), None);
    assert_eq!(value(&unit(254), "RestartSteps"), Some(&Value::Word(6)));
    assert_eq!(value(&unit(245), "TimeoutStartFailureMode"), None);
    let unit = unit(252);
    let Some(Value::Binds(seen)) = value(&unit, "BindPaths") else { panic!("nothing is seen") };
    assert!(seen.iter().any(|bind| bind.to == "/tmp/grid/partitions/part0"), "{seen:?}");
}

#[test]
fn a_partition_without_a_tmp_has_a_small_one_in_memory() {
    let place = place("/srv/plat/partitions/part0");
    let confinement = Confinement::of(&place, Resources::default(), Path::new("/var/lib/plat-agent/host"));
    let unit = unit_of(&place, &spec(), &confinement, Around { tmp: None, ..around(252) });
    let Some(Value::Pairs(emptied)) = value(&unit, "TemporaryFileSystem") else { panic!("nothing is empty") };
    for folder in ["/tmp", "/var/tmp"] {
        let (_, options) = emptied.iter().find(|(path, _)| path == folder).unwrap();
        assert_eq!(options, "mode=1777,nosuid,size=67108864");
    }
    assert!(!format!("{:?}", value(&unit, "BindPaths")).contains("\"/tmp\""));
}

#[test]
fn an_amount_that_is_not_said_is_no_limit_and_one_that_was_is_taken_back() {
    assert_eq!(
        told(&limits_of(limits())),
        "CPUQuotaPerSecUSec Number(1500000)\nCPUWeight Number(150)\nIOWeight Number(150)\n\
         MemoryMax Number(536870912)\nTasksMax Number(64)"
    );
    assert!(limits_of(Resources::default()).iter().all(|(_, value)| *value == Value::Number(u64::MAX)));
}

#[test]
fn a_variable_is_what_it_was_whatever_is_in_it() {
    let environment = BTreeMap::from([("A".to_owned(), "a \"b\" $c \\ `d`\n# e".to_owned())]);
    assert_eq!(variables(&environment), "A=\"a \\\"b\\\" \\$c \\\\ \\`d\\`\n# e\"\n");
}
