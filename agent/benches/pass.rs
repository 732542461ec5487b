//! What passes over a satisfied node cost: `cargo bench -p plat-agent --bench pass`. Prints one line for each measure.
//!
//! A node of 1,000 partitions, each with a ready instance of two services and two promises. First the plan alone with
//! templates rendered anew, then with rendered templates at hand (what a worker does when nothing changed).

use plat_agent_plan::facts::{Occupant, ServiceFact, ServiceRun};
use plat_agent_plan::{
    Action, Given, Moment, PartitionFact, Place, PromiseFact, ReleaseFact, Steady, plan_partition, plan_rendered,
    render_given,
};
use plat_document::Release;
use plat_model::id::{InstanceId, InstanceName, NodeId, PartitionName, ProjectName};
use plat_model::instance::{InstanceDesired, Wish};
use plat_model::node::NodePartition;
use plat_model::parameters::{Parameters, Secret};
use plat_model::resources::Resources;
use plat_model::{Generation, Timestamp};
use std::hint::black_box;
use std::time::{Duration, Instant};

const PARTITIONS: usize = 1000;
const RELEASE: &str = r#"
version: 1
name: shop
parameters:
  type: object
  properties:
    port: {type: integer, default: 8080}
secrets:
  password: {length: 16}
files:
  etc/shop.conf: {template: "password={{ secrets.password }}\nport={{ parameters.port }}\n"}
services:
  web: {command: ["{{ release.directory }}/bin/web", "{{ parameters.port }}"]}
  worker: {command: ["{{ release.directory }}/bin/worker"]}
promises:
  answers:
    tcp: {address: "{{ partition.address }}", port: "{{ parameters.port }}"}
  breathes:
    exec: ["{{ release.directory }}/bin/breathes"]
publish:
  url: "http://{{ partition.url_host }}:{{ parameters.port }}/"
"#;

struct One {
    partition: NodePartition,
    desired: InstanceDesired,
    fact: PartitionFact,
}

fn main() {
    let release = Release::parse_yaml(RELEASE, "shop.yaml").unwrap_or_else(|problems| panic!("{problems}"));
    let place = Place { node: id("n1", NodeId::parse), releases: "/r".into(), partitions: "/p".into() };
    let now = Moment { wall: Timestamp::from_seconds(1_800_000_000), steady: Steady(1_000_000) };
    let mut all: Vec<One> = (0..PARTITIONS).map(|n| one(n, &release)).collect();
    for one in &mut all {
        bring_up(&place, &release, one, now);
    }
    let later = now.plus(Duration::from_secs(1));
    let given = |one: &One| plan_partition(&seen(&place, &release, one, later)).actions.len();
    let begun = Instant::now();
    let actions: usize = all.iter().map(|one| black_box(given(one))).sum();
    assert_eq!(actions, 0, "the node is satisfied");
    report("plan of a satisfied partition, templates rendered anew", begun.elapsed());

    let rendered: Vec<_> = all.iter().map(|one| render_given(&seen(&place, &release, one, later))).collect();
    let begun = Instant::now();
    for (one, rendered) in all.iter().zip(&rendered) {
        black_box(plan_rendered(&seen(&place, &release, one, later), rendered.as_ref()));
    }
    report("plan of a satisfied partition, templates at hand", begun.elapsed());
}

fn report(what: &str, took: Duration) {
    let each = took.as_secs_f64() * 1e6 / PARTITIONS as f64;
    println!("{what}: {each:.1} µs each, {:.2} ms for {PARTITIONS}", took.as_secs_f64() * 1e3);
}

fn id<T>(text: &str, parse: fn(&str) -> plat_model::Result<T>) -> T {
    parse(text).unwrap_or_else(|problem| panic!("{problem}"))
}

fn one(n: usize, release: &Release) -> One {
    let name = id(&format!("part{n}"), PartitionName::parse);
    One {
        partition: NodePartition {
            addresses: vec![std::net::Ipv6Addr::LOCALHOST.into()],
            ..NodePartition::bare(name.clone())
        },
        desired: InstanceDesired {
            id: id(&format!("{n:032x}"), InstanceId::parse),
            project: id("demo", ProjectName::parse),
            name: id(&format!("shop{n}"), InstanceName::parse),
            partition: name,
            generation: Generation(1),
            release: release.digest(),
            parameters: Parameters::default(),
            wish: Wish::Started,
            resources: Resources::default(),
        },
        fact: PartitionFact::default(),
    }
}

fn seen<'a>(place: &'a Place, release: &'a Release, one: &'a One, now: Moment) -> Given<'a> {
    Given {
        place,
        partition: &one.partition,
        desired: Some(&one.desired),
        release: Some(release),
        release_fact: &ReleaseFact::Installed,
        fact: &one.fact,
        previous: None,
        now,
    }
}

/// Applies plans until nothing is left to do.
fn bring_up(place: &Place, release: &Release, one: &mut One, now: Moment) {
    loop {
        let actions = plan_partition(&seen(place, release, one, now)).actions;
        if actions.is_empty() {
            return;
        }
        for action in actions {
            apply(one, action, now);
        }
    }
}

fn apply(one: &mut One, action: Action, now: Moment) {
    match action {
        Action::Occupy { instance, secrets, .. } => {
            let mut occupant = Occupant::new(instance);
            occupant.secrets = secrets.into_keys().map(|name| (name, Secret::new("s3cret"))).collect();
            one.fact.occupant = Some(occupant);
        }
        Action::Note { note, .. } => {
            if let Some(occupant) = &mut one.fact.occupant {
                occupant.note(&note);
            }
        }
        Action::StartService { spec, .. } => {
            let fact = ServiceFact {
                fingerprint: spec.fingerprint,
                run: String::from("run"),
                loaded: String::new(),
                state: ServiceRun::Running { pid: 7, since: now },
                restarts: 0,
                short_runs: 0,
                last_exit: String::new(),
                last_lines: Vec::new(),
            };
            one.fact.services.insert(spec.name, fact);
        }
        Action::CheckPromise { promise, of, .. } => {
            let fact = PromiseFact::after(None, &of, true, String::new(), now);
            one.fact.promises.insert(promise, fact);
        }
        _ => {}
    }
}
