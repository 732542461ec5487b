//! A process that commits and tells what was acknowledged, and the check of what is there after it died.

#![allow(dead_code, reason = "each test binary uses its part")]

pub mod disk;
pub mod trace;

use plat_master::store::conformance::sample::{audit, entry, token, token_id, user, user_name};
use plat_master::store::{CommitError, EngineKind, Store, open};
use plat_master_plan::Expected;
use plat_model::id::NodeId;
use plat_model::problem::codes;
use std::collections::BTreeMap;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// Each writer writes over this many records in turn.
const SLOTS: u64 = 16;
/// How a writer process ends when the store failed, as it should on a full disk.
pub const STORE_FAILED: i32 = 3;

/// What a child process is to do; handed over in its environment.
#[derive(Clone)]
pub struct Job {
    pub folder: PathBuf,
    pub kind: EngineKind,
    pub writers: u64,
    /// How many commits each writer makes; it goes on where an earlier process ended.
    pub commits: u64,
    /// Size of the record that each commit writes over, in bytes.
    pub bytes: usize,
}

impl Job {
    const NAME: &'static str = "PLAT_TEST_WRITER";

    fn text(&self) -> String {
        let Self { folder, kind, writers, commits, bytes } = self;
        format!("{kind} {writers} {commits} {bytes} {}", folder.display())
    }

    /// The words that start this test binary again as a writer: under `wrapper`, e.g. `["strace", "-f"]`, or alone.
    pub fn command(&self, wrapper: &[&str]) -> Command {
        let this = std::env::current_exe().expect("a test knows its own file");
        let mut command = match wrapper {
            [] => Command::new(&this),
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(&this);
                command
            }
        };
        command.args(["writer_process", "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
        command.env(Self::NAME, self.text()).env("RUST_BACKTRACE", "0");
        command
    }

    fn from_environment() -> Self {
        let text = std::env::var(Self::NAME).expect("only other tests run this, as a process of its own");
        let words: Vec<_> = text.splitn(5, ' ').collect();
        Self {
            kind: EngineKind::parse(words[0]).expect("an engine"),
            writers: words[1].parse().expect("a number"),
            commits: words[2].parse().expect("a number"),
            bytes: words[3].parse().expect("a number"),
            folder: words[4].into(),
        }
    }
}

/// The body of the child process. Each acknowledged commit is one line on standard error, written at once.
pub fn write() -> ! {
    let job = Job::from_environment();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let failed = runtime.block_on(async {
        let store = match open(&job.folder, Some(job.kind)) {
            Ok(store) => store,
            Err(problem) => {
                eprintln!("{}", problem.one_line());
                return true;
            }
        };
        let tasks: Vec<_> = (0..job.writers).map(|w| tokio::spawn(write_one(store.clone(), w, job.clone()))).collect();
        let mut failed = false;
        for task in tasks {
            failed |= task.await.expect("a writer does not panic");
        }
        failed
    });
    // Without running destructors: a process that dies has none.
    std::process::exit(if failed { STORE_FAILED } else { 0 });
}

async fn write_one(store: Arc<dyn Store>, w: u64, job: Job) -> bool {
    let name = format!("w{w}");
    let first = store.snapshot().state.users.get(name.as_str()).map_or(0, |user| count(&user.serial)) + 1;
    for n in first..=job.commits {
        let changes = vec![
            user(&name, &body(w, n, job.bytes)),
            token(slot(w, n), n),
            entry(&name, n),
            audit(&format!("{w}/{n}")),
        ];
        // Nobody else writes these records.
        let expected = Expected { at: store.snapshot().revision, read: Vec::new() };
        match store.commit(expected, changes).await {
            Ok(_) => {
                let line = format!("ack {w} {n}\n");
                std::io::stderr().write_all(line.as_bytes()).expect("somebody reads");
            }
            Err(CommitError::Failed(problem)) if problem.code == codes::STORE_FAILED => return true,
            Err(other) => panic!("{other}"),
        }
    }
    false
}

fn slot(w: u64, n: u64) -> u64 {
    w * SLOTS + n % SLOTS
}

/// `n`, then text that is hard to compress and differs between commits.
fn body(w: u64, n: u64, bytes: usize) -> String {
    let mut text = format!("{n} ");
    let mut x = (w << 32) ^ n ^ 0x9e37_79b9_7f4a_7c15;
    while text.len() < bytes {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(&format!("{:08x}", x >> 32));
    }
    text
}

fn count(body: &str) -> u64 {
    body.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// The newest acknowledged commit of each writer, as far as `text` tells: a last line without its end counts not.
pub fn acknowledged(text: &str) -> BTreeMap<u64, u64> {
    let mut newest = BTreeMap::new();
    for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        if let ["ack", w, n] = line.split_whitespace().collect::<Vec<_>>()[..]
            && let (Ok(w), Ok(n)) = (w.parse::<u64>(), n.parse::<u64>())
        {
            newest.insert(w, n);
        }
    }
    newest
}

/// Opens the store and checks that every acknowledged commit is there, each commit whole, and nothing out of order.
pub fn verify(folder: &Path, kind: EngineKind, bytes: usize, acknowledged: &BTreeMap<u64, u64>) -> Result<(), String> {
    // Engines answer some damage with a panic.
    let checked = catch_unwind(AssertUnwindSafe(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(verify_open(folder, kind, bytes, acknowledged))
    }));
    checked.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(format!("panic: {}", text.or(panic.downcast_ref::<&str>().map(|s| s.to_string())).unwrap_or_default()))
    })
}

async fn verify_open(
    folder: &Path,
    kind: EngineKind,
    bytes: usize,
    acknowledged: &BTreeMap<u64, u64>,
) -> Result<(), String> {
    let store = open(folder, Some(kind)).map_err(|problem| format!("does not open: {}", problem.one_line()))?;
    let snapshot = store.snapshot();
    let there = |w: u64| snapshot.state.users.get(&user_name(&format!("w{w}"))).map(|user| user.serial.as_str());
    for (w, n) in acknowledged {
        let found = there(*w).map_or(0, count);
        if found < *n {
            return Err(format!("lost: writer {w} had {n} acknowledged, {found} are there"));
        }
    }
    let mut commits = 0;
    let log = store.audit(0, usize::MAX).await.map_err(|problem| problem.one_line())?;
    for w in 0..64 {
        let newest = there(w).map_or(0, count);
        commits += newest;
        if newest > 0 && there(w) != Some(body(w, newest, bytes).as_str()) {
            return Err(format!("writer {w}: record {newest} is damaged"));
        }
        for n in (newest + 1).saturating_sub(SLOTS).max(1)..=newest {
            let slot = snapshot.state.tokens.get(&token_id(slot(w, n))).map(|token| token.created.0);
            if slot != Some(n as i64) {
                return Err(format!("writer {w}: commit {n} is there in part: its token has {slot:?}"));
            }
        }
        let node = NodeId::parse(&format!("w{w}")).expect("a legal name");
        let ledger = store.ledger(Some(node), 0, usize::MAX).await.map_err(|problem| problem.one_line())?;
        if !ledger.iter().map(|entry| entry.sequence).eq(1..=newest) {
            return Err(format!("writer {w}: {newest} commits, its ledger has {} entries", ledger.len()));
        }
        let mine = log.iter().filter_map(|entry| entry.subject.strip_prefix(&format!("{w}/")).map(str::to_owned));
        if !mine.eq((1..=newest).map(|n| n.to_string())) {
            return Err(format!("writer {w}: the audit log lacks some of {newest} commits, or is out of order"));
        }
    }
    if !log.iter().map(|entry| entry.number).eq(1..=commits) || snapshot.revision != commits {
        return Err(format!("{commits} commits, {} audit entries, revision {}", log.len(), snapshot.revision));
    }
    // It goes on.
    let changes = vec![user("after", "1"), audit("after")];
    let expected = Expected { at: snapshot.revision, read: Vec::new() };
    store.commit(expected, changes).await.map_err(|error| format!("does not go on: {error}")).map(|_| ())
}
