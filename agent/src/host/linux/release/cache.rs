//! The node's cache: files by the digests of their contents, fetched once for all releases that name them.
//!
//! What a source pins is fetched here before the release is built: some files of each at a time, each asked of the mirrors
//! first, which cannot deceive, for only what has the digest is kept; then of where the release says that it is. A fetch
//! that was cut off goes on where it stopped, also at another place or with another agent. A build reads the cache and
//! checks again what it reads.
//!
//! What only another program can find (`git`, pip's indexes, packages of Debian by name) does not go through it.

pub mod asking;
pub mod download;
pub mod pin;
pub mod room;
pub mod store;
pub mod task;
pub mod trust;

pub use download::{FETCH_MAX, FILE_MAX};

use super::sources::{self, tools::LookTask};
use crate::config::ReleaseSettings;
use crate::host::Event;
use crate::host::linux::spawner::Spawner;
use crate::host::linux::task::{Answer, Task};
use crate::host::linux::turns::Turns;
use futures_util::future::try_join_all;
use pin::{Content, Pin};
use plat_document::Release;
use plat_document::release::Source;
use plat_model::Problem;
use plat_model::node::Account;
use plat_model::problem::codes;
use room::Room;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use task::{Effort, FetchTask};
use tokio::sync::{Semaphore, mpsc};

/// Files that are fetched at once, of all releases together, and of each: a server that is slow has no more than that wait.
const AT_ONCE: usize = 24;
const OF_ONE: usize = 3;
/// Files of the cache that are looked at before, at once.
const LOOKS: usize = 4;
/// Who asks servers where the agent is root: a user that owns nothing.
const NOBODY: u32 = 65534;

/// The cache, as the agent has it.
pub struct Cache {
    folder: PathBuf,
    spawner: Arc<Spawner>,
    settings: ReleaseSettings,
    turns: Turns,
    looks: Semaphore,
    /// One at a time fetches a content; the next finds it there. Kept as long as anybody wants it.
    pub wanted: Mutex<Gates>,
    /// Who waits for it on the cache's disk.
    pub room: Room,
}

type Gates = BTreeMap<Pin, Arc<tokio::sync::Mutex<()>>>;

/// One content, and all places that are named for it. `source`: of the release, empty if it is none.
struct Wish {
    source: String,
    name: String,
    pin: Pin,
    urls: Vec<String>,
    longest: Duration,
}

/// How often a fetch goes on after room was made for it.
const ROOM_ATTEMPTS: u32 = 3;

impl Cache {
    /// `events` is told when there is no room; `None`: there is nobody who could make some.
    pub fn new(
        spawner: Arc<Spawner>,
        folder: PathBuf,
        settings: ReleaseSettings,
        events: Option<mpsc::Sender<Event>>,
    ) -> Self {
        let room = Room::new(folder.clone(), &settings, events);
        let (turns, looks) = (Turns::new(AT_ONCE, OF_ONE), Semaphore::new(LOOKS));
        Self { folder, spawner, settings, turns, looks, wanted: Mutex::default(), room }
    }

    pub fn spawner(&self) -> &Spawner {
        &self.spawner
    }

    /// How long a server may say nothing.
    pub fn silence(&self) -> Duration {
        self.settings.silence
    }

    /// Whose word servers are taken on, if not on that of whom the machine trusts.
    pub fn authorities(&self) -> Option<&Path> {
        self.settings.authorities.as_deref()
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether somebody wants the file that has this path in the cache.
    pub fn is_wanted(&self, path: &str) -> bool {
        is_of(&self.wanted.lock().unwrap_or_else(PoisonError::into_inner), path)
    }

    /// Wants all that a release names by digest: what is wanted is not removed.
    ///
    /// # Errors
    /// If the release's document makes no sense.
    pub fn want(self: &Arc<Self>, release: &Release) -> Result<Wanted, Problem> {
        let mut wishes: BTreeMap<Pin, Wish> = BTreeMap::new();
        for (name, source) in &release.sources {
            for content in sources::contents(name, source)? {
                let Content { source, name, url, pin } = content;
                let wish = || Wish { source, name, pin: pin.clone(), urls: Vec::new(), longest: self.settings.longest };
                let wish = wishes.entry(pin.clone()).or_insert_with(wish);
                if !wish.urls.contains(&url) {
                    wish.urls.push(url);
                }
            }
        }
        Ok(self.wishing(release.digest().to_string(), release.sources.clone(), wishes))
    }

    /// Wants one file that can be done without: it has less time than what a release consists of.
    pub fn want_one(self: &Arc<Self>, name: String, pin: Pin, url: String) -> Wanted {
        let wish =
            Wish { source: String::new(), name, pin: pin.clone(), urls: vec![url], longest: self.settings.longest / 2 };
        self.wishing(pin.path(), BTreeMap::new(), BTreeMap::from([(pin, wish)]))
    }

    fn wishing(
        self: &Arc<Self>,
        who: String,
        sources: BTreeMap<String, Source>,
        wishes: BTreeMap<Pin, Wish>,
    ) -> Wanted {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let gates = wishes.keys().map(|pin| (pin.clone(), wanted.entry(pin.clone()).or_default().clone())).collect();
        Wanted { cache: self.clone(), who, sources, wishes: wishes.into_values().collect(), gates }
    }
}

/// Who speaks to servers for an agent whose releases are built by `builder`; `None`: who the agent is.
pub fn who_asks(builder: Option<&Account>) -> Option<Account> {
    let builder = builder.filter(|_| nix::unistd::geteuid().is_root());
    builder.map(|_| Account { user: "nobody".into(), uid: NOBODY, gid: NOBODY, groups: Vec::new() })
}

/// Whether a path in the cache is of one of them, whole or not.
pub fn is_of(wanted: &Gates, path: &str) -> bool {
    let pin = path.split_once('/').and_then(|(folder, name)| match folder {
        store::PARTIAL => {
            name.strip_suffix(".from").unwrap_or(name).split_once('-').and_then(|(k, n)| Pin::parse(k, n))
        }
        _ => Pin::parse(folder, name),
    });
    pin.is_some_and(|pin| wanted.contains_key(&pin))
}

/// The contents of one release, wanted until this is dropped.
pub struct Wanted {
    cache: Arc<Cache>,
    /// Whose share of the turns it has.
    who: String,
    sources: BTreeMap<String, Source>,
    wishes: Vec<Wish>,
    gates: Gates,
}

impl Drop for Wanted {
    fn drop(&mut self) {
        let mut wanted = self.cache.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        for (pin, gate) in std::mem::take(&mut self.gates) {
            drop(gate);
            if wanted.get(&pin).is_some_and(|gate| Arc::strong_count(gate) == 1) {
                wanted.remove(&pin);
            }
        }
    }
}

impl Wanted {
    /// Brings all of it into the cache. `told` hears what is being done, what is for people to see now with `> ` before it.
    pub async fn fetch(&self, builder: Option<&Account>, told: &(impl Fn(String) + Sync)) -> Result<(), Problem> {
        let account = who_asks(builder);
        let count = self.wishes.len();
        if count == 0 {
            return Ok(());
        }
        // The build asks again, as another user; nothing is fetched for one that cannot be.
        let look = Task::Look(LookTask { sources: self.sources.clone(), account: account.clone() });
        self.cache.spawner.perform(&look).await?;
        let mut all = Vec::with_capacity(count);
        for (n, wish) in self.wishes.iter().enumerate() {
            all.push(self.fetch_one(wish, account.clone(), format!("({} of {count})", n + 1), told));
        }
        // As many at once as there are turns; the first failure ends the others, which go on where they were next time.
        try_join_all(all).await.map(drop)
    }

    async fn fetch_one(
        &self,
        wish: &Wish,
        account: Option<Account>,
        which: String,
        told: &(impl Fn(String) + Sync),
    ) -> Result<(), Problem> {
        let cache = &self.cache;
        let ended = |what: &str| Problem::new(codes::INTERNAL, format!("a fetch {what}"));
        let gate = self.gates.get(&wish.pin).ok_or_else(|| ended("is of nothing that is wanted"))?;
        let at = |problem: Problem| match problem.at.is_empty() && !wish.source.is_empty() {
            true => problem.at(format!("sources.{}", wish.source)),
            false => problem,
        };
        let _alone = gate.lock().await;
        if cache.folder.join(wish.pin.path()).exists() {
            // No server is asked, so that no turn is waited for.
            let _look = cache.looks.acquire().await.map_err(|_| ended("has no turn"))?;
            let task = self.task(wish, account.clone(), &which, Effort::Look);
            if let Answer::Done = cache.spawner.within(&task, task.longest(), told).await.map_err(at)? {
                return Ok(());
            }
        }
        let mut attempts = 0;
        loop {
            let waits = || told(format!("> waiting for a turn to fetch {} {which}", wish.name));
            let turn = cache.turns.take_after(&self.who, waits).await.map_err(|_| ended("has no turn"))?;
            told(format!("> fetching {} {which}", wish.name));
            let task = self.task(wish, account.clone(), &which, Effort::Fetch);
            let answer = cache.spawner.within(&task, task.longest(), told).await.map_err(at)?;
            drop(turn);
            attempts += 1;
            match answer {
                Answer::Done => return Ok(()),
                Answer::NoRoom { problem, bytes } => {
                    told(format!("> waiting for room for {} {which}", wish.name));
                    if attempts == ROOM_ATTEMPTS || !cache.room.wait(bytes).await {
                        return Err(at(problem));
                    }
                }
                other => return Err(ended(&format!("answered {other:?}"))),
            }
        }
    }

    fn task(&self, wish: &Wish, account: Option<Account>, which: &str, effort: Effort) -> Task {
        let cache = &self.cache;
        Task::Fetch(Box::new(FetchTask {
            folder: cache.folder.clone(),
            pin: wish.pin.clone(),
            effort,
            name: format!("fetching {} {which}", wish.name),
            mirrors: cache.settings.mirrors.clone(),
            urls: wish.urls.clone(),
            account,
            authorities: cache.settings.authorities.clone(),
            spare: cache.settings.policy.min_free,
            silence_seconds: cache.settings.silence.as_secs(),
            longest_seconds: wish.longest.as_secs(),
        }))
    }
}
