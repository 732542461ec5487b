//! Timers on this machine, with real processes and a clock that is moved.

use crate::binary::{Node, enrolled};
use crate::rig::{WallClock, instance, until};
use plat_agent::Settings;
use plat_agent::clock::Clock;
use plat_agent::config::{Config, Runtime};
use plat_agent::host::linux::{LinuxConfig, LinuxHost};
use plat_document::Release;
use plat_model::instance::{InstanceDesired, InstanceState, ServiceState, ServiceStatus, Wish};
use plat_model::{Problem, Timestamp};
use std::fs;
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const RELEASE: &str = r#"
version: 1
name: clock
parameters: {type: object}
services:
  strikes: {kind: oneshot, schedule: "0 * * * *", command: [/bin/sh, -c, "echo $$ >> struck"]}
"#;
const HOUR: i64 = 3600;

/// What stops an agent in good order, and its task.
type Running = (oneshot::Sender<()>, JoinHandle<Result<(), Problem>>);

/// A node's agent within this process, so that its clock can be moved; what it runs are processes of their own.
struct Clockwork {
    node: Node,
    clock: Arc<WallClock>,
    agent: Option<Running>,
    told: i64,
}

impl Clockwork {
    async fn start(&mut self) {
        let folder = self.node.folder.path();
        let config = Config { data: folder.join("data"), ..Config::default() };
        let host = LinuxHost::open(LinuxConfig {
            state: folder.join("data"),
            node_file: folder.join("node.json"),
            executable: env!("CARGO_BIN_EXE_plat-agent").into(),
            network: Default::default(),
            clock: self.clock.clone(),
            runtime: Runtime::Shim,
        });
        let (host, clock) = (Arc::new(host.await.unwrap()), self.clock.clone());
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(plat_agent::run(Settings::new(&config, 7), plat_link::tcp, host, clock, async {
            let _ = stopped.await;
        }));
        self.agent = Some((stop, task));
    }

    async fn stop(&mut self) {
        let (stop, task) = self.agent.take().unwrap();
        stop.send(()).unwrap();
        task.await.unwrap().unwrap();
    }

    /// Has the agent look, as it does by itself within a minute, and waits until it has: what it is told changes nothing that
    /// the timer uses.
    async fn look(&mut self) {
        self.told += 1;
        let release = Release::parse_yaml(RELEASE, "clock.yaml").unwrap_or_else(|problems| panic!("{problems}"));
        let desired =
            InstanceDesired { release: release.digest(), bang: self.told.unsigned_abs(), ..instance(1, Wish::Started) };
        self.node.master.want_instance(desired, &release.to_canonical_json());
        until("it has looked", || {
            let state = self.node.master.state();
            let status = state.statuses.get(&instance(1, Wish::Started).id);
            let of = status.map(|status| status.generation.0);
            (of == Some(self.told.unsigned_abs()), of)
        })
        .await;
    }

    /// How often it struck, each time by another process.
    fn struck(&self) -> usize {
        let text = fs::read_to_string(self.node.folder.path().join("partitions/part0/struck")).unwrap_or_default();
        let pids: Vec<&str> = text.lines().collect();
        assert!(pids.windows(2).all(|pair| pair[0] != pair[1]), "{pids:?}");
        pids.len()
    }

    fn told(&self) -> Option<ServiceStatus> {
        let state = self.node.master.state();
        let status = state.statuses.get(&instance(1, Wish::Started).id)?;
        status.services.iter().find(|one| one.name.as_str() == "strikes").cloned()
    }

    /// Waits until it has struck so often, and is told to strike next at `next`.
    async fn until_struck(&self, times: usize, next: Timestamp) {
        until(&format!("it has struck {times} times, and next strikes at {next}"), || {
            let (struck, told) = (self.struck(), self.told());
            let at = told.as_ref().and_then(|told| told.next);
            let is_over = told.as_ref().is_some_and(|told| (told.state == ServiceState::Done) == (times > 0));
            (struck == times && at == Some(next) && (is_over || times == 0), (struck, told))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_strikes_at_each_of_its_times_and_once_for_all_that_passed_while_the_agent_was_away() {
    let (_master, _server, node) = enrolled().await;
    let clock = Arc::new(WallClock::default());
    // Ten minutes past an hour.
    clock.pass(HOUR + 600 - clock.now().seconds() % HOUR);
    let begun = clock.now();
    let hour = |n: i64| Timestamp::from_seconds((begun.seconds() / HOUR + n) * HOUR);
    let mut here = Clockwork { node, clock, agent: None, told: 0 };
    here.start().await;
    here.look().await;
    here.node.until_state(InstanceState::Ready).await;
    here.until_struck(0, hour(1)).await;
    for n in 1..=3 {
        here.clock.pass(HOUR);
        here.look().await;
        here.until_struck(usize::try_from(n).unwrap(), hour(n + 1)).await;
    }
    // Looking again within the same hour is no time of its own.
    here.clock.pass(HOUR / 2);
    here.look().await;
    here.until_struck(3, hour(4)).await;

    here.stop().await;
    here.clock.pass(5 * HOUR);
    here.start().await;
    // It went by at 4, 5, 6, 7 and 8.
    here.until_struck(4, hour(9)).await;
    here.clock.pass(HOUR);
    here.look().await;
    here.until_struck(5, hour(10)).await;
    here.stop().await;
}
