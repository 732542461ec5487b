//! What node-format gave a partition, in what its instance is told of it.

use crate::world::{World, instance_id, release};
use plat_agent_plan::facts::Occupant;
use plat_agent_plan::{Action, Rendered, render};
use plat_document::Release;
use plat_model::instance::Wish;
use plat_model::node::NodePartition;
use std::collections::BTreeMap;

fn rendered_of(release: &Release, change: impl FnOnce(&mut NodePartition)) -> Rendered {
    let mut world = World::new(1);
    world.wish(1, 0, Wish::Started, "{}");
    let partition = &mut world.file.partitions[0];
    change(partition);
    let mut occupant = Occupant::new(instance_id(1));
    occupant.secrets.insert("password".into());
    render(&world.place, partition, &world.desired.instances[&instance_id(1)], release, &occupant).unwrap()
}

fn rendered(change: impl FnOnce(&mut NodePartition)) -> Rendered {
    rendered_of(&release(), change)
}

fn first_file(rendered: &Rendered) -> String {
    rendered.files[0].template.fill(&BTreeMap::new()).unwrap()
}

fn environments(rendered: &Rendered) -> Vec<&BTreeMap<String, String>> {
    let hooks = [&rendered.init, &rendered.start, &rendered.stop, &rendered.clean];
    let hooks = hooks.into_iter().flatten().map(|run| &run.environment);
    let services = rendered.upkeep.services.iter().map(|spec| &spec.environment);
    hooks.chain(services).chain([&rendered.upkeep.environment]).collect()
}

fn fingerprints(rendered: &Rendered) -> Vec<&str> {
    rendered.upkeep.services.iter().map(|spec| spec.fingerprint.as_str()).collect()
}

#[test]
fn every_program_finds_its_storage_and_its_resource_file_in_its_environment() {
    let rendered = rendered(|partition| {
        partition.storage = vec!["/mnt/a/part0".into(), "/mnt/b/part0".into()];
        partition.resource_file = Some("/srv/resources/part0.json".into());
    });
    let environments = environments(&rendered);
    assert_eq!(environments.len(), 4 + 2 + 1);
    for environment in environments {
        assert_eq!(environment["PLAT_STORAGE"], "/mnt/a/part0:/mnt/b/part0");
        assert_eq!(environment["PLAT_RESOURCE_FILE"], "/srv/resources/part0.json");
    }
}

#[test]
fn a_partition_without_them_has_the_environment_of_before() {
    for environment in environments(&rendered(|_| {})) {
        let names: Vec<_> = environment.keys().collect();
        assert_eq!(names, ["HOME", "LANG", "LOGNAME", "PATH", "PLAT_SOCKET", "TMPDIR", "USER"]);
    }
}

#[test]
fn templates_may_use_the_storage_and_the_resource_file() {
    let text = r#"
version: 1
name: archive
files:
  etc/archive.conf:
    template: |
      {% for directory in partition.storage %}
      volume {{ directory }}
      {% endfor %}
      {% if partition.resource_file is defined %}
      facts {{ partition.resource_file }}
      {% endif %}
"#;
    let release = Release::parse_yaml(text, "archive.yaml").unwrap();
    assert_eq!(first_file(&rendered_of(&release, |_| {})), "");
    let rendered = rendered_of(&release, |partition| {
        partition.storage = vec!["/mnt/a/part0".into(), "/mnt/b/part0".into()];
        partition.resource_file = Some("/srv/resources/part0.json".into());
    });
    assert_eq!(first_file(&rendered), "volume /mnt/a/part0\nvolume /mnt/b/part0\nfacts /srv/resources/part0.json\n");
}

#[test]
fn another_network_namespace_takes_another_start_of_the_services_and_nothing_more() {
    let without = rendered(|_| {});
    let with = |file: &str| rendered(|partition| partition.namespace = Some(file.into()));
    let (one, other) = (with("/run/netns/part0"), with("/run/netns/other"));
    assert_eq!(one, with("/run/netns/part0"));
    for (a, b) in [(&without, &one), (&one, &other)] {
        assert!(fingerprints(a).iter().zip(fingerprints(b)).all(|(a, b)| *a != b));
        assert_eq!((&a.configured, &a.files, environments(a)), (&b.configured, &b.files, environments(b)));
    }
}

#[test]
fn services_are_started_anew_when_their_partition_gets_a_network_namespace() {
    let mut world = World::new(1);
    world.wish(1, 0, Wish::Started, "{}");
    world.settle();
    world.take_done();
    world.file.partitions[0].namespace = Some("/run/netns/part0".into());
    world.settle();
    let done = world.take_done();
    for service in ["web", "worker"] {
        let of = |what: &str| done.iter().position(|step| *step == format!("part0 {what} service {service}"));
        assert!(of("stop").unwrap() < of("start").unwrap(), "{done:?}");
    }
    let again = |step: &String| step.contains("write files") || step.contains("run hook");
    assert!(!done.iter().any(again), "{done:?}");
    assert!(!world.plan_of(0).actions.iter().any(|action| matches!(action, Action::StopService { .. })));
}
