//! The host as the part with the network sees it: each call a frame to root's part, and an answer.

use super::handover::Taking;
use super::network::Start;
use super::protocol::{ANSWER_MAX, Call, Message, Nature, QUESTION_MAX, Question, WINDOW, encode, read, write};
use crate::aside::{By, Reached};
use crate::host::{Counters, Event, Host, LogsAsked, Wanted, unread};
use crate::memory::Rush;
use async_trait::async_trait;
use plat_agent_plan::{Action, Disk, PartitionFact, ReleaseFact, StoreFacts};
use plat_model::Problem;
use plat_model::id::{Digest, PartitionName, ServiceName};
use plat_model::node::NodeFile;
use plat_model::problem::codes;
use plat_model::resources::Enforced;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::sync::{Notify, mpsc, oneshot, watch};

/// Frames that wait for the socket.
const FRAMES: usize = 64;
/// Lines of a log after which it is told that they were taken.
const TAKEN: u32 = WINDOW as u32 / 4;

type Line = (ServiceName, String);

#[derive(Default)]
struct State {
    /// Calls without an answer.
    calls: HashMap<u64, oneshot::Sender<Box<RawValue>>>,
    /// Logs that are read. Each has room for all that may be under way.
    logs: HashMap<u64, mpsc::Sender<Line>>,
    /// Calls that nobody waits for any more, which root's part is still to be told.
    cancelled: Vec<u64>,
    /// It is to be told that somebody is here.
    is_to_speak: bool,
    /// Events that the daemon has not taken. The same one twice is one, so there are never many.
    events: BTreeSet<Event>,
    rush: Rush,
    is_over: bool,
}

struct Shared {
    state: Mutex<State>,
    next: AtomicU64,
    out: mpsc::Sender<Vec<u8>>,
    aside: Notify,
    event: Notify,
    over: watch::Sender<bool>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody gets an answer any more, and whoever waits for the end is told.
    fn end(&self) {
        let mut state = self.lock();
        state.is_over = true;
        (state.calls, state.logs) = (HashMap::new(), HashMap::new());
        drop(state);
        self.over.send_replace(true);
    }

    fn take(&self, message: Message) -> Result<(), &'static str> {
        let mut state = self.lock();
        match message {
            Message::Start { .. } => return Err("it starts twice"),
            Message::Answer { id, value } => {
                if let Some(call) = state.calls.remove(&id) {
                    let _nobody_waits = call.send(value);
                    let left = state.calls.len();
                    state.rush.under_way(left);
                }
            }
            Message::Line { id, service, text } => {
                if let Some(log) = state.logs.get(&id) {
                    // Full it never is: no more than the window are under way.
                    let _nobody_reads = log.try_send((service, text));
                }
            }
            Message::End { id } => drop(state.logs.remove(&id)),
            Message::Event(event) => {
                state.events.insert(event);
                self.event.notify_one();
            }
            Message::Speak => {
                state.is_to_speak = true;
                self.aside.notify_one();
            }
        }
        Ok(())
    }
}

/// A host in another process.
pub struct RemoteHost {
    shared: Arc<Shared>,
    nature: Nature,
    /// Asked for one at a time, so that none is taken for another.
    doors: tokio::sync::Mutex<Taking>,
    events: Mutex<Option<mpsc::Receiver<Event>>>,
}

impl Drop for RemoteHost {
    /// Logs that are still read end; no call is answered any more.
    fn drop(&mut self) {
        self.shared.end();
    }
}

/// A call that was made. Dropped without an answer, it is called off.
struct Asked {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let waits = state.calls.remove(&self.id).is_some() | state.logs.remove(&self.id).is_some();
        if waits {
            state.cancelled.push(self.id);
            self.shared.aside.notify_one();
        }
    }
}

impl RemoteHost {
    /// Hears from root's part what this one is to do, and is its host from then on. Within a tokio runtime.
    ///
    /// # Errors
    /// INTERNAL if there is nobody at the other end, or an agent of another version.
    pub async fn open<S>(stream: S, taking: Taking) -> Result<(Self, Start), Problem>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (mut from, to) = tokio::io::split(stream);
        let (start, nature) = match read::<Message>(&mut from, ANSWER_MAX).await {
            Ok(Some((Message::Start { start, nature }, _))) => (*start, nature),
            Ok(_) => return Err(gone().because("it did not say how to start")),
            Err(why) => return Err(gone().because(why)),
        };
        let (out, frames) = mpsc::channel(FRAMES);
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            next: AtomicU64::new(0),
            out,
            aside: Notify::new(),
            event: Notify::new(),
            over: watch::Sender::new(false),
        });
        tokio::spawn(receive(shared.clone(), from));
        tokio::spawn(send(shared.clone(), frames, to));
        let (tell, events) = mpsc::channel(1);
        tokio::spawn(pass_events(shared.clone(), tell));
        let doors = tokio::sync::Mutex::new(taking);
        Ok((Self { shared, nature, doors, events: Mutex::new(Some(events)) }, start))
    }

    /// Returns when root's part is gone.
    pub async fn ended(&self) {
        is_over(&mut self.shared.over.subscribe()).await;
    }

    /// Without an answer once root's part is gone: this one is about to end, and nothing is to be made of that before.
    async fn call(&self, call: Call, log: Option<mpsc::Sender<Line>>) -> Result<(Asked, Box<RawValue>), Problem> {
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let frame = encode(&Question::Call { id, call }, QUESTION_MAX)
            .map_err(|why| Problem::new(codes::TOO_LARGE, "what the host is to do is too large").because(why))?;
        let (answer, answered) = oneshot::channel();
        let asked = Asked { shared: self.shared.clone(), id };
        let goes_on = {
            let mut state = self.shared.lock();
            if !state.is_over {
                state.calls.insert(id, answer);
                state.logs.extend(log.map(|log| (id, log)));
            }
            !state.is_over
        };
        if goes_on
            && self.shared.out.send(frame).await.is_ok()
            && let Ok(value) = answered.await
        {
            return Ok((asked, value));
        }
        std::future::pending().await
    }

    async fn ask<T: DeserializeOwned>(&self, call: Call) -> Result<T, Problem> {
        let (_asked, value) = self.call(call, None).await?;
        answer(&value)
    }

    async fn ask_fallible<T: DeserializeOwned>(&self, call: Call) -> Result<T, Problem> {
        self.ask::<Result<T, Problem>>(call).await?
    }
}

async fn is_over(over: &mut watch::Receiver<bool>) {
    let _ended = over.wait_for(|over| *over).await;
}

fn gone() -> Problem {
    Problem::new(codes::INTERNAL, "the agent's root part has ended")
}

fn answer<T: DeserializeOwned>(value: &RawValue) -> Result<T, Problem> {
    serde_json::from_str(value.get()).map_err(|_| {
        // What was refused for all kinds of calls alike is told so.
        let refused = serde_json::from_str::<Result<IgnoredAny, Problem>>(value.get()).ok().and_then(Result::err);
        refused.unwrap_or_else(|| Problem::new(codes::INTERNAL, "the agent's root part gave an answer of another kind"))
    })
}

/// However a task of the socket ends, root's part counts as gone afterwards.
struct Ends(Arc<Shared>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.end();
    }
}

async fn receive<S: AsyncRead>(shared: Arc<Shared>, mut from: ReadHalf<S>) {
    let _ends = Ends(shared.clone());
    let mut over = shared.over.subscribe();
    loop {
        let message = tokio::select! {
            message = read::<Message>(&mut from, ANSWER_MAX) => message,
            () = is_over(&mut over) => return,
        };
        match message {
            Ok(Some((message, _))) => {
                if let Err(why) = shared.take(message) {
                    return tracing::error!(why, "the agent's root part does not keep to the protocol");
                }
            }
            Ok(None) => return,
            // It was killed before it had read all.
            Err(why) if why.kind() == std::io::ErrorKind::ConnectionReset => return,
            Err(why) => return tracing::error!(%why, "the agent's root part cannot be understood"),
        }
    }
}

async fn send<S: AsyncWrite>(shared: Arc<Shared>, mut frames: mpsc::Receiver<Vec<u8>>, mut to: WriteHalf<S>) {
    let _ends = Ends(shared.clone());
    let mut over = shared.over.subscribe();
    loop {
        let written = tokio::select! {
            frame = frames.recv() => match frame {
                Some(frame) => write(&mut to, &frame).await,
                None => return,
            },
            () = shared.aside.notified() => say_aside(&shared, &mut frames, &mut to).await,
            () = is_over(&mut over) => return,
        };
        if written.is_err() {
            return;
        }
    }
}

/// A call is called off after it was made: what waited when it was is sent before.
async fn say_aside<S: AsyncWrite>(
    shared: &Shared,
    frames: &mut mpsc::Receiver<Vec<u8>>,
    to: &mut WriteHalf<S>,
) -> std::io::Result<()> {
    let (cancelled, is_to_speak) = {
        let mut state = shared.lock();
        (std::mem::take(&mut state.cancelled), std::mem::take(&mut state.is_to_speak))
    };
    for _ in 0..FRAMES {
        let Ok(frame) = frames.try_recv() else { break };
        write(to, &frame).await?;
    }
    for id in cancelled {
        write(to, &encode(&Question::Cancel { id }, QUESTION_MAX)?).await?;
    }
    if is_to_speak {
        write(to, &encode(&Question::Here, QUESTION_MAX)?).await?;
    }
    Ok(())
}

async fn pass_events(shared: Arc<Shared>, tell: mpsc::Sender<Event>) {
    let mut over = shared.over.subscribe();
    loop {
        let next = shared.lock().events.pop_first();
        let goes_on = match next {
            Some(event) => tell.send(event).await.is_ok(),
            None => tokio::select! {
                () = shared.event.notified() => true,
                () = tell.closed() => false,
                () = is_over(&mut over) => false,
            },
        };
        if !goes_on {
            return;
        }
    }
}

/// Hands lines on to who reads them, and asks for more.
async fn pass_lines(asked: Asked, mut lines: mpsc::Receiver<Line>, to: mpsc::Sender<Line>) {
    let mut taken = 0;
    loop {
        let line = tokio::select! {
            line = lines.recv() => line,
            () = to.closed() => None,
        };
        let Some(line) = line else { return };
        if to.send(line).await.is_err() {
            return;
        }
        taken += 1;
        if taken == TAKEN {
            let Ok(frame) = encode(&Question::Taken { id: asked.id, lines: taken }, QUESTION_MAX) else { return };
            if asked.shared.out.send(frame).await.is_err() {
                return;
            }
            taken = 0;
        }
    }
}

#[async_trait]
impl Host for RemoteHost {
    fn runtime_name(&self) -> String {
        self.nature.runtime.clone()
    }

    fn enforces(&self) -> Enforced {
        self.nature.enforces
    }

    async fn node(&self) -> Result<NodeFile, Problem> {
        self.ask_fallible(Call::Node).await
    }

    async fn observe_release(&self, digest: &Digest) -> ReleaseFact {
        let fact = self.ask(Call::Release(digest.clone())).await;
        // Nothing is begun for it; this part ends with the other.
        fact.unwrap_or_else(|problem| ReleaseFact::Building(problem.what))
    }

    async fn observe_releases(&self) -> Result<Vec<Digest>, Problem> {
        self.ask_fallible(Call::Releases).await
    }

    async fn observe_disks(&self) -> Result<BTreeMap<u64, Disk>, Problem> {
        self.ask_fallible(Call::Disks).await
    }

    async fn observe_store(&self) -> Result<StoreFacts, Problem> {
        self.ask_fallible(Call::Store).await
    }

    async fn observe_partition(&self, partition: &PartitionName) -> Result<PartitionFact, Problem> {
        self.ask_fallible(Call::Partition(partition.clone())).await
    }

    async fn perform(&self, action: &Action) -> Result<(), Problem> {
        self.ask_fallible(Call::Perform(Box::new(action.clone()))).await
    }

    async fn counters(
        &self,
        partitions: &[PartitionName],
        wanted: Wanted,
    ) -> Vec<(PartitionName, Result<Counters, Problem>)> {
        let read = self.ask(Call::Counters(partitions.to_vec(), wanted)).await;
        read.unwrap_or_else(|problem| unread(partitions, &problem))
    }

    async fn logs(&self, asked: &LogsAsked) -> Result<mpsc::Receiver<Line>, Problem> {
        let (log, lines) = mpsc::channel(WINDOW);
        let (call, value) = self.call(Call::Logs(asked.clone()), Some(log)).await?;
        answer::<Result<(), Problem>>(&value)??;
        let (send, receive) = mpsc::channel(1);
        tokio::spawn(pass_lines(call, lines, send));
        Ok(receive)
    }

    async fn door(&self, partition: &PartitionName) -> Result<Option<Reached>, Problem> {
        let taking = self.doors.lock().await;
        let (asked, value) = self.call(Call::Door(partition.clone()), None).await?;
        if !answer::<Result<bool, Problem>>(&value)?? {
            return Ok(None);
        }
        let door = taking.take(asked.id).map_err(|why| {
            Problem::new(codes::INTERNAL, "the agent's root part has not handed a socket over").because(why)
        })?;
        Ok(Some(Reached::new(door, By::Tenants)))
    }

    fn events(&self) -> mpsc::Receiver<Event> {
        let taken = self.events.lock().unwrap_or_else(PoisonError::into_inner).take();
        taken.unwrap_or_else(|| mpsc::channel(1).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::privileged::handover;
    use plat_model::resources::Enforced;
    use std::time::Duration;
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    /// Where nobody listens any more.
    struct Broken;

    impl std::io::Write for Broken {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            panic!("nobody hears it")
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// A host that has heard how to start, and root's ends.
    async fn begun() -> (RemoteHost, UnixStream, handover::Giving) {
        let (ours, mut roots) = UnixStream::pair().unwrap();
        let start = Box::new(Start::new(&Config::default()));
        let nature = Nature { runtime: "shim".into(), enforces: Enforced::default() };
        roots.write_all(&encode(&Message::Start { start, nature }, ANSWER_MAX).unwrap()).await.unwrap();
        let (giving, taking) = handover::pair().unwrap();
        (RemoteHost::open(ours, taking).await.unwrap().0, roots, giving)
    }

    #[tokio::test]
    async fn it_ends_with_roots_part_although_nobody_hears_what_is_said_about_that() {
        let lines = tracing_subscriber::fmt().with_writer(|| Broken).finish();
        let _guard = tracing::subscriber::set_default(lines);
        // One that was killed before it had read what it was asked, and one that says what makes no sense.
        for last_words in [None, Some(b"\0\0\0\x02{]")] {
            let (host, mut roots, _giving) = begun().await;
            let host = Arc::new(host);
            let asking = host.clone();
            let asked = tokio::spawn(async move { asking.node().await });
            roots.readable().await.unwrap();
            match last_words {
                Some(words) => roots.write_all(words).await.unwrap(),
                None => drop(roots),
            }
            tokio::time::timeout(Duration::from_secs(20), host.ended())
                .await
                .expect("it knows that root's part has ended");
            asked.abort();
            assert!(asked.await.unwrap_err().is_cancelled(), "nothing is made of an answer that never came");
        }
    }

    #[tokio::test]
    async fn a_partition_whose_counters_nobody_told_is_not_taken_for_one_that_nobody_holds() {
        let (host, mut roots, _giving) = begun().await;
        let asked = [PartitionName::parse("p0").unwrap(), PartitionName::parse("p1").unwrap()];
        let answer = async {
            let Some((Question::Call { id, .. }, _)) = read(&mut roots, QUESTION_MAX).await.unwrap() else {
                panic!("it asks for something else")
            };
            let answer = Message::Answer { id, value: RawValue::from_string(r#"{"no": "counters"}"#.into()).unwrap() };
            roots.write_all(&encode(&answer, ANSWER_MAX).unwrap()).await.unwrap();
        };
        let (read, ()) = tokio::join!(host.counters(&asked, Wanted::All), answer);
        assert_eq!(read.iter().map(|(partition, _)| partition).collect::<Vec<_>>(), asked.iter().collect::<Vec<_>>());
        assert!(read.iter().all(|(_, read)| read.is_err()), "{read:?}");
    }
}
