//! The Linux host with real processes. What needs root fails where CI is set and root is missing.

use plat_agent::config::Runtime;
use plat_agent::host::linux::{LinuxConfig, LinuxHost};
use plat_agent::host::{Counters, Event, Follow, Host, LogsAsked, Wanted};
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
mod built;
mod cache;
mod conformance;
mod doors;
mod erasing;
mod fetching;
mod forged;
mod full;
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
mod volumes;
mod web;
mod wheels;

use built::*;
use rig::*;

/// Shims, without a user of the partition's own and, which takes root, with one.
mod shim {
    use super::*;

    conformance::suite!([] Some(Node::new(None)));

    mod with_a_user {
        use super::*;
        use std::sync::atomic::{AtomicU32, Ordering};

        /// Users of their own: erasing a partition ends all of its user's.
        static NEXT: AtomicU32 = AtomicU32::new(UID + 100);

        conformance::suite!([] root_is_here().then(|| Node::new(Some(account(NEXT.fetch_add(1, Ordering::Relaxed))))));
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
    }
}
