//! The Linux host with real processes. What needs root fails where CI is set and root is missing.

use futures_util::future::join_all;
use plat_agent::config::Runtime;
use plat_agent::host::linux::{LinuxConfig, LinuxHost};
use plat_agent::host::{Counters, Event, Follow, Host, LogOf, LogsAsked, Wanted};
use plat_agent_plan::action::{FileTemplate, Note, Publication, ReloadHow, ReloadSpec, Run, ServiceSpec};
use plat_agent_plan::facts::{ServiceFact, ServiceRun};
use plat_agent_plan::{Action, ReleaseFact};
use plat_document::release::{Check, HttpCheck, ReloadSignal, TcpCheck};
use plat_document::template::Prepared;
use plat_model::Problem;
use plat_model::id::{Digest, InstanceId, PartitionName, PromiseName, ServiceName};
use plat_model::node::{Account, NodeFile, NodePartition, Skeleton};
use plat_model::problem::codes;
use plat_model::resources::Resources;
use plat_model::usage::{Amount, Meter};
use sha2::Digest as _;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

mod asked;
mod authorities;
mod bombs;
mod built;
mod cache;
mod conformance;
mod doors;
mod erasing;
mod fetching;
mod forged;
mod full;
mod groupless;
mod hostile;
mod images;
mod instances;
mod limits;
mod metering;
mod namespace;
mod piled;
mod promises;
mod releases;
mod rig;
mod room;
mod sandbox;
mod services;
mod shares;
mod sources;
mod storage;
mod strangers;
mod told;
mod volumes;
mod web;
mod wheels;
mod whole;
mod wires;

use built::*;
use rig::*;

/// Shims, without a user of the partition's own and, which takes root, with one.
mod shim {
    use super::*;

    conformance::suite!([] Some(Node::new(None)));

    mod with_a_user {
        use super::*;
        use std::sync::LazyLock;
        use std::sync::atomic::{AtomicU32, Ordering};

        static NEXT: LazyLock<AtomicU32> = LazyLock::new(|| uids_from(1000));

        conformance::suite!([] root_is_here().then(|| Node::new(Some(account(NEXT.fetch_add(1, Ordering::Relaxed))))));
    }

    mod hostile {
        use super::*;
        use std::sync::LazyLock;
        use std::sync::atomic::{AtomicU32, Ordering};

        static NEXT: LazyLock<AtomicU32> = LazyLock::new(|| uids_from(1200));

        crate::hostile::suite!([] Runtime::Shim, NEXT.fetch_add(2, Ordering::Relaxed));
    }
}

/// Units of systemd: `tests/machine` runs these within a machine that it boots.
mod systemd {
    use super::*;

    fn node(account: Option<Account>) -> Option<Node> {
        let mut node = Node::new(account);
        node.runtime = Runtime::Systemd;
        Some(node)
    }

    conformance::suite!([ignore = "the machine's first process must be systemd"] node(None));

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "the machine's first process must be systemd"]
    async fn units_of_others_go_on_whatever_their_names_are() {
        strangers::go_on(node(None).unwrap()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "the machine's first process must be systemd"]
    async fn a_unit_of_others_in_the_place_of_what_ran_goes_on() {
        strangers::go_on_in_the_place_of_what_ran(node(None).unwrap()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "the machine's first process must be systemd"]
    async fn what_has_ended_by_its_record_is_taken_away_by_the_next_agent() {
        let mut node = Node::new(None);
        node.runtime = Runtime::Systemd;
        let host = node.occupied().await;
        start(&host, &spec("db", "exec sleep 600")).await.unwrap();
        let pid = running(&fact(&host, "db").await);
        drop(host);
        // As by an agent that was killed before it took away the unit, which systemd has started again since.
        let mut state = node.service_state("db");
        (state["phase"], state["ended"]) = ("Ended".into(), state["started"].clone());
        let path = node.state().join("host/partitions/p0/services/db/state.json");
        fs::write(path, state.to_string()).unwrap();
        let host = node.open().await;
        assert!(!alive(pid), "it runs and nobody knows of it");
        assert!(matches!(fact(&host, "db").await.state, ServiceRun::Ended { .. }));
        node.done(host).await;
    }

    mod with_a_user {
        use super::*;
        use std::sync::atomic::{AtomicU32, Ordering};

        static NEXT: AtomicU32 = AtomicU32::new(UID + 200);

        conformance::suite!(
            [ignore = "the machine's first process must be systemd"]
            node(Some(account(NEXT.fetch_add(1, Ordering::Relaxed))))
        );

        #[tokio::test(flavor = "multi_thread")]
        #[ignore = "the machine's first process must be systemd"]
        async fn a_unit_that_its_user_holds_before_it_begins_is_ended_and_says_so() {
            let node = node(Some(account(NEXT.fetch_add(1, Ordering::Relaxed)))).unwrap();
            let host = node.occupied().await;
            start(&host, &spec("holds", "exec perl -e '$| = 1; open(F, \">begun\"); kill(\"STOP\", -1) while 1'"))
                .await
                .unwrap();
            until("it holds what comes", async || node.home().join("begun").exists()).await;
            let begun = Instant::now();
            let problem = start(&host, &spec("held", "exec sleep 600")).await.expect_err("nothing was held");
            assert!(begun.elapsed() < Duration::from_secs(60), "it took {:?}", begun.elapsed());
            assert_eq!(problem.why, "something held it for 30 s before it began", "{problem}");
            let fact = fact(&host, "held").await;
            assert!(matches!(fact.state, ServiceRun::Ended { .. }) && fact.short_runs == 1, "{fact:?}");
            node.done(host).await;
        }

        #[tokio::test(flavor = "multi_thread")]
        #[ignore = "the machine's first process must be systemd"]
        async fn its_tmp_is_mounted_while_it_starts_and_while_no_agent_runs() {
            let node = node(Some(account(NEXT.fetch_add(1, Ordering::Relaxed)))).unwrap();
            let host = node.occupied().await;
            let tmp = node.home().join("tmp");
            fs::create_dir(&tmp).unwrap();
            chown(&tmp, node.account.as_ref().map(|one| one.uid), node.account.as_ref().map(|one| one.gid)).unwrap();
            // The kernel names what of a disk is mounted by its path on that.
            let own = node.home().file_name().unwrap().to_string_lossy().into_owned();
            let parent = node.home().parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
            let place = || {
                let all = fs::read_to_string("/proc/self/mountinfo").unwrap();
                let mut of_it = all.lines().filter(|line| line.contains(&format!("{parent}/{own}/tmp ")));
                of_it.find_map(|line| line.split(' ').nth(4).filter(|at| at.contains("/plat-tmp/")).map(PathBuf::from))
            };
            let is_mounted = || place().is_some();
            start(&host, &spec("db", "echo x >> /tmp/runs; exec sleep 600")).await.unwrap();
            until("it has begun", async || tmp.join("runs").exists()).await;
            until("nothing is mounted any more", async || !is_mounted()).await;
            let first = running(&fact(&host, "db").await);
            drop(host);
            // As the agent's unit does whenever it has ended.
            let away = || {
                let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_plat-agent"));
                command.args(["away", "--data"]).arg(node.state()).output().unwrap()
            };
            assert!(away().status.success());
            let place = place().expect("it is mounted");
            // What an agent of before mounted a level higher the tenant has filled by now.
            let (folder, victim, evil) = (place.parent().unwrap(), node.home().join("victim"), tmp.join("evil"));
            nix::mount::umount(&place).unwrap();
            let bind = nix::mount::MsFlags::MS_BIND;
            nix::mount::mount(Some(&tmp), folder, None::<&str>, bind, None::<&str>).unwrap();
            [&victim, &evil].into_iter().for_each(|path| fs::create_dir(path).unwrap());
            symlink(&evil, tmp.join("of")).unwrap();
            symlink(&victim, tmp.join("tmp")).unwrap();
            assert!(away().status.success());
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            assert!(is_mounted() && !mounts.contains("/victim ") && !mounts.contains("/evil "), "{mounts}");
            kill9(first.into());
            let runs = || fs::read_to_string(tmp.join("runs")).unwrap().lines().count();
            // systemd waits 15 s.
            let minute = Duration::from_secs(60);
            until_within(minute, "systemd starts it again", async || runs() == 2).await;
            let host = node.open().await;
            assert!(!is_mounted());
            let fact = fact(&host, "db").await;
            assert!(running(&fact) != first && fact.restarts == 1, "{fact:?}");
            node.done(host).await;
        }
    }
    mod hostile {
        use super::*;
        use std::sync::atomic::{AtomicU32, Ordering};

        static NEXT: AtomicU32 = AtomicU32::new(UID + 260);

        crate::hostile::suite!(
            [ignore = "the machine's first process must be systemd"]
            Runtime::Systemd, NEXT.fetch_add(2, Ordering::Relaxed)
        );
    }
}
