//! Units of systemd that are not the agent's, in the hands of whoever has its network part.

use super::forged::{remote, run, settled};
use super::*;
use std::process::Command;
use std::sync::Arc;

fn systemctl(arguments: &[&str]) -> String {
    let said = Command::new("systemctl").args(arguments).output().unwrap();
    String::from_utf8(said.stdout).unwrap().trim().to_owned()
}

/// A unit of somebody's, which goes with its test.
struct Unit(String);

impl Unit {
    fn new(name: &str) -> Self {
        let ran = Command::new("systemd-run").args(["--quiet", "--unit", name, "sleep", "600"]).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        Self(format!("{name}.service"))
    }

    /// Its run and its process.
    fn seen(&self) -> String {
        systemctl(&["show", "--property=ActiveState,InvocationID,MainPID,NRestarts", &self.0])
    }

    fn run(&self) -> String {
        systemctl(&["show", "--value", "--property=InvocationID", &self.0])
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        systemctl(&["stop", &self.0]);
    }
}

pub async fn go_on(node: Node) {
    let host = Arc::new(node.occupied().await);
    let outside = remote(&host).await;
    // The agent's own, somebody's, services of a partition of another agent and of one that is not there, and one that has the
    // name of the agent's next.
    let services = ["agent", "bystander", "web", "api"];
    let own = |name: &str| format!("plat-{}-{name}", node.id());
    let names = ["plat-agent", "bystander", "plat-p0-web", &own("p1-web"), &own("p0-api")];
    let units = names.map(Unit::new);
    let before = units.each_ref().map(Unit::seen);
    assert!(before.iter().all(|seen| seen.contains("ActiveState=active")), "{before:?}");
    for name in services.map(service) {
        for unit in &units {
            for how in [ReloadHow::Signal(ReloadSignal::Usr1), ReloadHow::Command(run("reload-web", &["/bin/true"]))] {
                let (partition, service, run) = (part(), name.clone(), unit.run());
                let _refused_or_nothing = outside.perform(&Action::Reload { partition, service, run, how }).await;
            }
        }
        let _nothing = outside.perform(&Action::StopService { partition: part(), service: name }).await;
    }
    // Its own begins beside them.
    let start = Action::StartService { partition: part(), spec: spec("web", "exec sleep 600") };
    outside.perform(&start).await.unwrap();
    let start = Action::StartService { partition: part(), spec: spec("api", "exec sleep 600") };
    let refused = outside.perform(&start).await.unwrap_err();
    assert_eq!(refused.code, codes::SERVICE_START, "{refused:?}");
    assert!(refused.why.contains("already"), "{refused:?}");
    assert_eq!(units.each_ref().map(Unit::seen), before);
    outside.perform(&Action::Erase { partition: part() }).await.unwrap();
    assert_eq!(units.each_ref().map(Unit::seen), before);
    drop(outside);
    node.done(Arc::into_inner(settled(host).await).unwrap()).await;
    assert_eq!(units.each_ref().map(Unit::seen), before);
}

/// A run that is written down as running ended unseen, and a unit of somebody's has its name by now.
pub async fn go_on_in_the_place_of_what_ran(node: Node) {
    let host = node.occupied().await;
    start(&host, &spec("web", "exec sleep 600")).await.unwrap();
    drop(host);
    let name = format!("plat-{}-p0-web", node.id());
    systemctl(&["stop", &format!("{name}.service")]);
    let unit = Unit::new(&name);
    let before = unit.seen();
    assert!(before.contains("ActiveState=active"), "{before}");
    let host = node.open().await;
    assert!(matches!(ended(&host, "web").await.state, ServiceRun::Ended { .. }));
    assert_eq!(unit.seen(), before);
    node.done(host).await;
    assert_eq!(unit.seen(), before);
}
