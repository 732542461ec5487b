//! What passes over a satisfied node cost: `cargo bench -p plat-agent --bench pass`. Prints one line for each measure.
//!
//! A node of 1,000 partitions, each with a ready instance of two services and two promises. First the plan alone with
//! templates rendered anew, then with rendered templates at hand (what a worker does when nothing changed).

use plat_agent_plan::action::ServiceSpec;
use plat_agent_plan::{
    Begun, Given, Moment, Outcomes, PartitionFact, Place, ReleaseFact, Steady, plan_partition, plan_rendered,
    render_given,
};
use plat_document::Release;
use plat_model::Timestamp;
use plat_model::id::{InstanceId, NodeId, PartitionName};
use plat_model::instance::InstanceDesired;
use plat_model::node::NodePartition;
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
        desired: InstanceDesired::bare(id(&format!("{n:032x}"), InstanceId::parse), name, release.digest()),
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
            one.fact.effect(&action, now, &mut Machine).unwrap_or_else(|problem| panic!("{problem}"));
        }
    }
}

/// A machine where all goes well.
struct Machine;

impl Outcomes for Machine {
    fn start(&mut self, spec: &ServiceSpec) -> Begun {
        Begun { run: format!("run of {}", spec.name), pid: 7, end: None }
    }
}
