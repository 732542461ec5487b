//! Releases on disk: what they name by digest is fetched into the cache, they are built beside where they are published,
//! and published by one rename. A folder named by a digest with its manifest in it is whole; there is nothing in between.

pub mod build;
pub mod cache;
mod disk_use;
mod group;
pub mod share;
pub mod sources;
mod stored;

use super::disk::{self, Stored, io_problem, private_folder, random_hex};
use super::partition::empty::empty;
use super::partition::files::open_top;
use super::shim::line_log::LineLog;
use super::spawner::Spawner;
use super::task::{Answer, Task};
use crate::config::ReleaseSettings;
use crate::host::Event;
use build::{BuildTask, MANIFEST, Made, Manifest};
use cache::pin::Pin;
use cache::{Cache, Wanted, who_asks};
use group::{Beside, BuildGroup};
use plat_agent_plan::{ReleaseFact, parse_release};
use plat_document::Release;
use plat_model::Problem;
use plat_model::id::Digest;
use plat_model::node::NodeFile;
use plat_model::problem::codes;
use share::pull::find;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, oneshot};

/// The releases of this node.
pub struct Releases {
    spawner: Arc<Spawner>,
    logs: PathBuf,
    /// All that is the agent's.
    data: PathBuf,
    events: mpsc::Sender<Event>,
    building: Doing,
    turns: BuildTurns,
    cache: Arc<Cache>,
    settings: ReleaseSettings,
    group: BuildGroup,
}

/// Releases that are being built, and what is being done for each.
#[derive(Clone, Default)]
pub struct Doing(Arc<Mutex<BTreeMap<Digest, String>>>);

impl Doing {
    pub fn is_building(&self, digest: &Digest) -> bool {
        self.lock().contains_key(digest)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Digest, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Folders that are being filled or emptied; nothing is in them that anybody may use.
const UNFINISHED: &str = ".unfinished-";
/// Releases that are being built at once, whoever asks: each takes processes.
const BUILDING_MAX: usize = 16;
/// Of those, at once: builds beside each other, where there is no builder, and what is unpacked.
const BUILDS: usize = 2;
const UNPACKINGS: usize = 4;
/// Logs that are kept of releases that are not there.
const LOGS_MAX: usize = 200;

/// What is waited for after all is fetched, so that a slow server keeps nobody from being built.
struct BuildTurns {
    /// One release at a time has the builder.
    alone: Semaphore,
    beside: Semaphore,
    unpacked: Semaphore,
}

impl Releases {
    pub fn new(spawner: Arc<Spawner>, state: &Path, settings: ReleaseSettings, events: mpsc::Sender<Event>) -> Self {
        let cache = Arc::new(Cache::new(spawner.clone(), state.join("cache"), settings.clone(), Some(events.clone())));
        let data = state.parent().unwrap_or(state).to_owned();
        let (logs, group) = (state.join("releases"), BuildGroup::open(state));
        Self {
            data,
            spawner,
            logs,
            events,
            building: Doing::default(),
            turns: BuildTurns {
                alone: Semaphore::new(1),
                beside: Semaphore::new(BUILDS),
                unpacked: Semaphore::new(UNPACKINGS),
            },
            cache,
            settings,
            group,
        }
    }

    pub fn observe(&self, node: &NodeFile, digest: &Digest) -> ReleaseFact {
        let building = self.building.lock();
        match building.get(digest) {
            Some(doing) => ReleaseFact::Building(doing.clone()),
            None if is_whole(&node.releases.join(digest.as_str())) => ReleaseFact::Installed,
            None => ReleaseFact::Absent,
        }
    }

    pub fn list(&self, node: &NodeFile) -> Result<Vec<Digest>, Problem> {
        let folder = &node.releases;
        let entries = match fs::read_dir(folder) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => {
                other.map_err(|e| io_problem(codes::BUILD_FAILED, format!("cannot list {}", folder.display()), &e))?
            }
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut digests: Vec<Digest> =
            names.filter_map(|name| Digest::parse(&name).ok()).filter(|d| is_whole(&folder.join(d.as_str()))).collect();
        digests.sort();
        Ok(digests)
    }

    /// Removes what killed builds left behind: what is there now, while nothing is being built.
    pub fn clear_up(folder: &Path) {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let left: Vec<PathBuf> = entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(UNFINISHED))
            .map(|entry| entry.path())
            .collect();
        if !left.is_empty() {
            std::thread::spawn(move || left.iter().for_each(|path| discard(path)));
        }
    }

    pub async fn install(&self, node: &NodeFile, digest: &Digest, document: &str) -> Result<(), Problem> {
        let _mark = Building::begin(self, digest)?;
        let published = node.releases.join(digest.as_str());
        if is_whole(&published) {
            return Ok(());
        }
        refuse_as_root(node)?;
        private_folder(&self.logs)?;
        self.forget_old_logs(node);
        let release = parse_release(digest, document)?;
        let log = Mutex::new(LineLog::open(self.log_path(digest)));
        let write =
            |text: &str| log.lock().unwrap_or_else(PoisonError::into_inner).write(format!("{text}\n").as_bytes());
        // `> ` is before what is to be seen now, `~ ` before what is not worth a line in the log.
        let told = |doing: String| {
            if !doing.starts_with("~ ") {
                write(&doing);
            }
            if let Some(what) = doing.strip_prefix("> ").or_else(|| doing.strip_prefix("~ ")) {
                self.building.lock().insert(digest.clone(), what.to_owned());
                let _ = self.events.try_send(Event::Release(digest.clone()));
            }
        };
        write(&format!("> building release {digest}"));
        let build = async {
            if let Some(result) = self.lay_shared(node, digest, &release, &told).await {
                return result;
            }
            let wanted = self.cache.want(&release)?;
            wanted.fetch(node.builder.as_ref(), &told).await?;
            self.build(node, digest, &release, None, &told).await
        };
        let result: Result<(), Problem> = build.await;
        match &result {
            Ok(()) => write(&format!("> release {digest} is built")),
            Err(problem) => write(&format!("> {problem}")),
        }
        result
    }

    /// Publishes what another node built. `None`: there is nothing of the kind, or it cannot be used; the release is to be
    /// built here.
    async fn lay_shared(
        &self,
        node: &NodeFile,
        digest: &Digest,
        release: &Release,
        told: &(impl Fn(String) + Sync),
    ) -> Option<Result<(), Problem>> {
        // What it names stays wanted until it is published.
        let (made, _wanted) = self.shared(node, digest, told).await?;
        match self.build(node, digest, release, Some(made), told).await {
            // There is no more room for building it.
            Err(problem) if problem.code != codes::DISK_FULL => {
                tracing::warn!(release = digest.short(), problem = problem.one_line(), "shared build not used");
                told(problem.to_string());
                None
            }
            result => Some(result),
        }
    }

    /// What another node built, fetched. Whatever is wrong with it, the release can be built here.
    async fn shared(
        &self,
        node: &NodeFile,
        digest: &Digest,
        told: &(impl Fn(String) + Sync),
    ) -> Option<(Made, Wanted)> {
        let share = self.settings.share.as_ref()?;
        told("> looking whether another node has built it".into());
        let account = who_asks(node.builder.as_ref());
        let found = async {
            let found = find(&self.cache, share, &node.releases, digest, &self.logs, account).await?;
            let Some(found) = found else { return Ok(None) };
            let archive = Pin::sha256(&found.offer.sha256)?;
            let url = format!("{}/{}", share.url, archive.path());
            let wanted = self.cache.want_one("what another node built".into(), archive.clone(), url);
            wanted.fetch(node.builder.as_ref(), told).await?;
            found.note()?;
            Ok(Some((Made { archive, sources: found.offer.sources }, wanted)))
        };
        found.await.unwrap_or_else(|problem: Problem| {
            tracing::warn!(release = digest.short(), problem = problem.one_line(), "shared build not used");
            told(problem.to_string());
            None
        })
    }

    /// Waits for a turn, however long that takes.
    async fn turn<'a>(
        turns: &'a Semaphore,
        what: &str,
        told: &(impl Fn(String) + Sync),
    ) -> Result<SemaphorePermit<'a>, Problem> {
        if let Ok(turn) = turns.try_acquire() {
            return Ok(turn);
        }
        told(format!("> waiting for another release to be {what}"));
        let turn = turns.acquire().await;
        told("> beginning".into());
        turn.map_err(|e| Problem::new(codes::INTERNAL, "there are no turns any more").because(e))
    }

    /// Builds what has been fetched, and publishes it.
    async fn build(
        &self,
        node: &NodeFile,
        digest: &Digest,
        release: &Release,
        made: Option<Made>,
        told: &(impl Fn(String) + Sync),
    ) -> Result<(), Problem> {
        let wrong = |path: &Path, e: &std::io::Error| {
            io_problem(codes::BUILD_FAILED, format!("cannot make {}", path.display()), e)
        };
        let is_unpacked = made.is_some() || release.is_only_unpacked();
        let unpacker = who_asks(node.builder.as_ref()).filter(|_| is_unpacked);
        let is_alone = node.builder.is_some() && unpacker.is_none();
        let (turns, what) = match (is_alone, is_unpacked) {
            (true, _) => (&self.turns.alone, "built"),
            (false, true) => (&self.turns.unpacked, "unpacked"),
            (false, false) => (&self.turns.beside, "built"),
        };
        // The time that it may take begins after this.
        let _turn = Self::turn(turns, what, told).await?;
        let published = node.releases.join(digest.as_str());
        fs::create_dir_all(&node.releases).map_err(|e| wrong(&node.releases, &e))?;
        let room = rustix::fs::statvfs(&node.releases).map_err(|e| wrong(&node.releases, &e.into()))?;
        let free = room.f_bavail * room.f_frsize;
        if free < self.settings.policy.min_free {
            return Err(Problem::new(codes::DISK_FULL, format!("there is no room in {}", node.releases.display()))
                .because(format!(
                    "{} MiB are free, {} are needed to begin",
                    free >> 20,
                    self.settings.policy.min_free >> 20
                ))
                .fix("remove releases that nothing uses, or add disk"));
        }
        if published.exists() {
            drop(Staging(self.set_aside(&published)?));
        }
        let staging = Staging(node.releases.join(format!("{UNFINISHED}{}-{}", digest.short(), random_hex(4)?)));
        let packages = node.releases.join(".packages");
        for folder in [&staging.0, &packages] {
            match fs::DirBuilder::new().mode(0o700).create(folder) {
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                made => made.map_err(|e| wrong(folder, &e))?,
            }
        }
        let held = self.group.hold(&self.settings.build, if is_alone { Beside::Nobody } else { Beside::Others });
        held.missing.iter().for_each(|missing| told(format!("not enforced on this machine: {missing}")));
        let task = Task::Build(Box::new(BuildTask {
            digest: digest.clone(),
            release: release.clone(),
            staging: staging.0.clone(),
            published: published.clone(),
            packages: unpacker.is_none().then_some(packages),
            cache: self.cache.folder().to_owned(),
            lock: is_alone.then(|| node.releases.join(".building")),
            log: self.logs.join(format!("{digest}-commands")),
            builder: unpacker.or_else(|| node.builder.clone()),
            limits: self.settings.build,
            spare: self.settings.policy.min_free,
            authorities: self.settings.authorities.clone(),
            hidden: hidden(node, &self.data),
            groups: held.groups.clone(),
            made,
        }));
        let built = match self.spawner.within(&task, task.longest(), told).await {
            Ok(Answer::Done) => Ok(()),
            Ok(other) => Err(Problem::new(codes::INTERNAL, format!("a build answered {other:?}"))),
            Err(problem) => Err(problem),
        };
        if built.is_err() {
            // Whose turn comes next is not to find the disk full of this.
            staging.away().await;
            return built;
        }
        super::runtime::beside(move || publish(staging, &published)).await
    }

    pub async fn remove(&self, node: &NodeFile, digest: &Digest) -> Result<(), Problem> {
        let published = node.releases.join(digest.as_str());
        if published.exists() {
            let aside = self.set_aside(&published)?;
            let _ = tokio::task::spawn_blocking(move || discard(&aside)).await;
            self.cache.room.freed();
        }
        for log in [self.log_path(digest), self.logs.join(format!("{digest}.log.1"))] {
            let _ = fs::remove_file(log);
        }
        self.note_used(digest)
    }

    /// From here on it is not there.
    fn set_aside(&self, published: &Path) -> Result<PathBuf, Problem> {
        let aside = published.with_file_name(format!("{UNFINISHED}removed-{}", random_hex(4)?));
        fs::rename(published, &aside)
            .map_err(|e| io_problem(codes::BUILD_FAILED, format!("cannot remove {}", published.display()), &e))?;
        Ok(aside)
    }
}

/// What no build sees: what is in partitions, wherever that is, and what the agent holds.
fn hidden(node: &NodeFile, data: &Path) -> Vec<PathBuf> {
    let storage = node.partitions.iter().flat_map(|partition| partition.storage.iter().cloned());
    [node.root.clone(), data.to_owned()].into_iter().chain(storage).collect()
}

/// What a release's author has run is kept from the partitions by nothing but its user.
fn refuse_as_root(node: &NodeFile) -> Result<(), Problem> {
    let has_users = node.partitions.iter().any(|partition| partition.account.is_some());
    if node.builder.is_some() || !has_users || !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Problem::new(codes::PRIVILEGE, "this node has no user to build releases as")
        .because("the agent is root, and what builds a release must not be")
        .fix("put a section `[builder]` into /etc/plat/format.toml and run `node-format apply`"))
}

/// While it is held, the release is being built.
struct Building<'a>(&'a Releases, Digest);

impl<'a> Building<'a> {
    fn begin(releases: &'a Releases, digest: &Digest) -> Result<Self, Problem> {
        let mut building = releases.building.lock();
        if building.contains_key(digest) {
            return Err(Problem::new(codes::CONFLICT, format!("release {} is being built already", digest.short())));
        }
        if building.len() >= BUILDING_MAX {
            return Err(Problem::new(codes::TOO_MANY, "too many releases are being built at once")
                .because(format!("{BUILDING_MAX} are under way")));
        }
        building.insert(digest.clone(), "beginning".into());
        Ok(Self(releases, digest.clone()))
    }
}

impl Drop for Building<'_> {
    fn drop(&mut self) {
        self.0.building.lock().remove(&self.1);
        let _ = self.0.events.try_send(Event::Release(self.1.clone()));
    }
}

/// A folder that is removed unless it is published.
struct Staging(PathBuf);

impl Staging {
    /// Removes it, whether or not that is waited for to its end.
    async fn away(mut self) {
        let _ended = self.go().await;
    }

    /// Tells when it is gone.
    fn go(&mut self) -> oneshot::Receiver<()> {
        let (done, is_gone) = oneshot::channel();
        let path = std::mem::take(&mut self.0);
        if path.exists() {
            std::thread::spawn(move || {
                discard(&path);
                drop(done);
            });
        }
        is_gone
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _nobody_waits = self.go();
    }
}

fn discard(path: &Path) {
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    if let Ok(top) = open_top(path) {
        let _ = empty(&top);
    }
    let _ = fs::remove_dir(path);
}

fn is_whole(folder: &Path) -> bool {
    matches!(disk::read_json::<Manifest>(&folder.join(MANIFEST)), Ok(Stored::Value(_)))
}

fn publish(staging: Staging, published: &Path) -> Result<(), Problem> {
    let wrong =
        |e: &std::io::Error| io_problem(codes::BUILD_FAILED, format!("cannot publish {}", published.display()), e);
    let top = open_top(&staging.0)?;
    rustix::fs::syncfs(&top).map_err(|e| wrong(&e.into()))?;
    fs::rename(&staging.0, published).map_err(|e| wrong(&e))?;
    fs::File::open(published.parent().unwrap_or(published)).and_then(|f| f.sync_all()).map_err(|e| wrong(&e))
}
