//! Root's end of the socket: every call in a task of its own, so that a slow one delays no other. What a caller can make
//! it hold is bounded: bytes and number of calls, answers that nobody takes, lines that nobody reads.

use super::handover::Giving;
use super::network::Start;
use super::protocol::{ANSWER_MAX, Call, Message, Nature, QUESTION_MAX, Question, WINDOW, encode, read, write};
use crate::host::{Event, Host};
use crate::memory::Rush;
use crate::pace::Sparing;
use plat_agent_plan::Action;
use plat_model::Problem;
use plat_model::problem::codes;
use serde::Serialize;
use serde_json::value::to_raw_value;
use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::Instant;

/// Calls under way at once: each partition of a large node has one, each release another.
const CALLS_MAX: usize = 32_768;
/// Bytes of all calls under way.
const BYTES_MAX: usize = 256 << 20;
/// Calls that look at something, with answers that may be large: the others wait for their turn.
const LOOKS: usize = 64;
/// Partitions whose counters are read by one call: more than a node can be formatted with.
const COUNTED_MAX: usize = 32_768;
/// Logs that are read at once.
const LOGS_MAX: usize = 256;
/// Frames that wait for the socket.
const FRAMES: usize = 64;
/// When nothing was heard for so long the other part is asked to speak, and given as long again. Its samples of usage are
/// oftener wherever there is an instance.
const SILENCE: Duration = Duration::from_secs(60);

/// What all calls share.
#[derive(Clone)]
struct Desk {
    host: Arc<dyn Host>,
    out: mpsc::Sender<Vec<u8>>,
    looks: Arc<Semaphore>,
    giving: Arc<Giving>,
    /// How often it is logged that something is in the way of a step.
    in_the_way: Arc<Sparing>,
}

/// A call under way.
struct Running {
    id: u64,
    task: AbortHandle,
    /// As many lines as may still be sent.
    window: Arc<Semaphore>,
    is_log: bool,
    _bytes: OwnedSemaphorePermit,
}

/// Serves until the other end is closed. Events that come meanwhile are told; the others stay for the next to be served.
///
/// # Errors
/// FORGED if the other end does not keep to the protocol, STALLED if it says nothing any more: it must not be served any
/// longer.
pub async fn serve<S>(
    host: Arc<dyn Host>,
    events: &mut mpsc::Receiver<Event>,
    stream: S,
    giving: Giving,
    start: &Start,
) -> Result<(), Problem>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (mut from, mut to) = tokio::io::split(stream);
    let (out, mut frames) = mpsc::channel::<Vec<u8>>(FRAMES);
    let (asked, mut questions) = mpsc::channel(1);
    let heard = Notify::new();
    let watching = watch(&heard, out.clone());
    let writing = async move {
        while let Some(frame) = frames.recv().await {
            write(&mut to, &frame).await?;
        }
        Ok::<(), io::Error>(())
    };
    let reading = async {
        loop {
            let question = read::<Question>(&mut from, QUESTION_MAX).await;
            heard.notify_one();
            let goes_on = matches!(question, Ok(Some(_)));
            if asked.send(question).await.is_err() || !goes_on {
                return;
            }
        }
    };
    let desk = Desk {
        host,
        out,
        looks: Arc::new(Semaphore::new(LOOKS)),
        giving: Arc::new(giving),
        in_the_way: Arc::new(Sparing::new(10, 1000)),
    };
    let mut served = Served {
        desk,
        tasks: JoinSet::new(),
        running: HashMap::new(),
        ids: HashMap::new(),
        bytes: Arc::new(Semaphore::new(BYTES_MAX)),
        refusals: Sparing::new(1, 10),
        rush: Rush::default(),
    };
    tokio::pin!(writing, reading, watching);
    let mut is_read = false;
    let conversation = async {
        let nature = Nature { runtime: served.desk.host.runtime_name(), enforces: served.desk.host.enforces() };
        served.desk.tell(&Message::Start { start: Box::new(start.clone()), nature }).await;
        loop {
            tokio::select! {
                question = questions.recv() => match question {
                    Some(Ok(Some((question, size)))) => served.take(question, size).await?,
                    Some(Ok(None)) | None => return Ok(()),
                    Some(Err(why)) if why.kind() == io::ErrorKind::InvalidData => return Err(breach(why)),
                    Some(Err(_)) => return Ok(()),
                },
                Some(ended) = served.tasks.join_next_with_id() => served.ended(ended).await,
                Some(event) = events.recv() => served.desk.tell(&Message::Event(event)).await,
            }
        }
    };
    tokio::pin!(conversation);
    loop {
        tokio::select! {
            ended = &mut conversation => return ended,
            () = &mut watching => return Err(silent()),
            // Nobody takes what is said any more.
            _ = &mut writing => return Ok(()),
            () = &mut reading, if !is_read => is_read = true,
        }
    }
}

/// Until the other end has said nothing for too long, although it was asked to.
async fn watch(heard: &Notify, out: mpsc::Sender<Vec<u8>>) {
    let speaks = || tokio::time::timeout(SILENCE, heard.notified());
    let speak = encode(&Message::Speak, ANSWER_MAX).unwrap_or_default();
    loop {
        if speaks().await.is_ok() {
            continue;
        }
        // Where there is no room it has been told much that it does not take.
        let _full = out.try_send(speak.clone());
        if speaks().await.is_err() {
            return;
        }
    }
}

fn silent() -> Problem {
    Problem::new(codes::STALLED, "the part with the network says nothing any more")
        .because(format!("it was asked to speak, and has not for {} s", SILENCE.as_secs()))
        .fix("it is ended and started anew; if that happens again and again, tell how in an issue")
}

fn breach(why: impl std::fmt::Display) -> Problem {
    Problem::new(codes::FORGED, "the part with the network does not keep to the protocol")
        .because(why)
        .fix("it is ended and started anew; if nobody tampers with it this is a bug of the agent")
}

struct Served {
    desk: Desk,
    tasks: JoinSet<()>,
    running: HashMap<Id, Running>,
    /// By the numbers of the calls.
    ids: HashMap<u64, Id>,
    bytes: Arc<Semaphore>,
    refusals: Sparing,
    rush: Rush,
}

impl Served {
    async fn take(&mut self, question: Question, size: usize) -> Result<(), Problem> {
        let running = |id| self.ids.get(&id).and_then(|task| self.running.get(task));
        match question {
            Question::Call { id, .. } if self.ids.contains_key(&id) => {
                return Err(breach("a call's number comes twice"));
            }
            Question::Call { id, call } => self.begin(id, call, size).await,
            Question::Cancel { id } => {
                if let Some(running) = running(id) {
                    running.task.abort();
                }
            }
            Question::Taken { id, lines } => {
                if let Some(running) = running(id) {
                    // Never more than there were: nobody can ask for a larger window.
                    let room = WINDOW.saturating_sub(running.window.available_permits());
                    running.window.add_permits(room.min(lines as usize));
                }
            }
            Question::Here => {}
        }
        Ok(())
    }

    async fn begin(&mut self, id: u64, call: Call, size: usize) {
        let is_log = matches!(call, Call::Logs(..));
        let logs = self.running.values().filter(|running| running.is_log).count();
        let bytes = u32::try_from(size).ok().and_then(|size| self.bytes.clone().try_acquire_many_owned(size).ok());
        let Some(bytes) = bytes.filter(|_| self.running.len() < CALLS_MAX && !(is_log && logs >= LOGS_MAX)) else {
            if let Some(left_out) = self.refusals.says(Instant::now()) {
                tracing::warn!(left_out, "refused: too many calls of the part with the network at once");
            }
            let problem = Problem::new(codes::TOO_MANY, "too many calls of the host at once");
            self.desk.answer(id, &Err::<(), _>(problem)).await;
            return;
        };
        let window = Arc::new(Semaphore::new(WINDOW));
        let (desk, lines) = (self.desk.clone(), window.clone());
        let task = self.tasks.spawn(async move { desk.perform(id, call, &lines).await });
        self.ids.insert(id, task.id());
        self.running.insert(task.id(), Running { id, task, window, is_log, _bytes: bytes });
    }

    async fn ended(&mut self, ended: Result<(Id, ()), tokio::task::JoinError>) {
        let task = ended.as_ref().map_or_else(tokio::task::JoinError::id, |(task, ())| *task);
        let Some(running) = self.running.remove(&task) else { return };
        self.rush.under_way(self.running.len());
        self.ids.remove(&running.id);
        if let Err(why) = ended
            && why.is_panic()
        {
            tracing::error!(%why, "a call of the host met a bug of the agent");
            let problem = Problem::new(codes::INTERNAL, "the host met a bug of the agent");
            self.desk.answer(running.id, &Err::<(), _>(problem)).await;
        }
    }
}

impl Desk {
    async fn tell(&self, message: &Message) {
        // Only once there is room: what waits for the other end is a few frames.
        let Ok(slot) = self.out.reserve().await else { return };
        match encode(message, ANSWER_MAX) {
            Ok(frame) => slot.send(frame),
            Err(why) => tracing::error!(%why, "an answer of the host cannot be sent"),
        }
    }

    async fn answer(&self, id: u64, answer: &impl Serialize) {
        match to_raw_value(answer) {
            Ok(value) => self.tell(&Message::Answer { id, value }).await,
            Err(why) => tracing::error!(%why, "an answer of the host cannot be sent"),
        }
    }

    /// A link where a partition's directory was is an attack as a forged action is; whether the other part would say so is its
    /// own affair.
    fn tell_of(&self, action: &Action, problem: &Problem) {
        if problem.code != codes::FILES_FAILED {
            return;
        }
        if let Some(left_out) = self.in_the_way.says(Instant::now()) {
            tracing::warn!(step = action.step(), problem = problem.one_line(), left_out, "refused");
        }
    }

    async fn perform(&self, id: u64, call: Call, window: &Semaphore) {
        let turn = match &call {
            Call::Perform(_) | Call::Logs(..) => None,
            _ => self.looks.acquire().await.ok(),
        };
        let host = &self.host;
        match call {
            Call::Node => self.answer(id, &host.node().await).await,
            Call::Release(digest) => self.answer(id, &host.observe_release(&digest).await).await,
            Call::Releases => self.answer(id, &host.observe_releases().await).await,
            Call::Disks => self.answer(id, &host.observe_disks().await).await,
            Call::Store => self.answer(id, &host.observe_store().await).await,
            Call::Partition(name) => self.answer(id, &host.observe_partition(&name).await).await,
            Call::Perform(action) => {
                let done = host.perform(&action).await;
                if let Err(problem) = &done {
                    self.tell_of(&action, problem);
                }
                self.answer(id, &done).await;
            }
            Call::Counters(mut partitions, wanted) => {
                let mut seen = HashSet::new();
                partitions.retain(|name| seen.len() < COUNTED_MAX && seen.insert(name.clone()));
                self.answer(id, &host.counters(&partitions, wanted).await).await;
            }
            Call::Door(partition) => {
                let given = host.door(&partition).await.and_then(|door| {
                    let Some(door) = door else { return Ok(false) };
                    self.giving
                        .give(id, door.as_fd())
                        .map(|()| true)
                        .map_err(|why| Problem::new(codes::TOO_MANY, "a socket cannot be handed over").because(why))
                });
                self.answer(id, &given).await;
            }
            Call::Logs(asked) => match host.logs(&asked).await {
                Err(problem) => self.answer(id, &Err::<(), _>(problem)).await,
                Ok(mut lines) => {
                    self.answer(id, &Ok::<(), Problem>(())).await;
                    while let Some((service, text)) = lines.recv().await {
                        let Ok(one) = window.acquire().await else { return };
                        one.forget();
                        self.tell(&Message::Line { id, service, text }).await;
                    }
                    self.tell(&Message::End { id }).await;
                }
            },
        }
        drop(turn);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{RemoteHost, handover};
    use super::*;
    use crate::clock::SystemClock;
    use crate::config::Config;
    use crate::host::fake::FakeHost;
    use plat_model::node::NodeFile;
    use std::path::Path;
    use tokio::io::{AsyncReadExt, DuplexStream};

    fn root(stream: DuplexStream) -> (impl Future<Output = Result<(), Problem>>, handover::Taking) {
        let host = Arc::new(FakeHost::new(NodeFile::bare(Path::new("/srv")), Arc::new(SystemClock)));
        let (giving, taking) = handover::pair().unwrap();
        let serves = async move {
            let mut events = host.events();
            serve(host, &mut events, stream, giving, &Start::new(&Config::default())).await
        };
        (serves, taking)
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_says_nothing_any_more_is_given_up_whether_it_reads_or_not() {
        for reads in [true, false] {
            let (stream, mut theirs) = tokio::io::duplex(64);
            let (serves, _taking) = root(stream);
            let begun = Instant::now();
            let hangs = async {
                let mut buffer = [0; 64];
                while reads && theirs.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
                std::future::pending::<()>().await;
            };
            let problem = tokio::select! {
                ended = serves => ended.unwrap_err(),
                () = hangs => unreachable!(),
            };
            assert_eq!(problem.code, codes::STALLED);
            assert_eq!(begun.elapsed().as_secs(), 2 * SILENCE.as_secs());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_has_nothing_to_ask_for_a_day_is_served_on() {
        let (stream, theirs) = tokio::io::duplex(1 << 16);
        let (serves, taking) = root(stream);
        let idle = async {
            let (host, _start) = RemoteHost::open(theirs, taking).await.unwrap();
            tokio::time::sleep(Duration::from_secs(86_400)).await;
            host.node().await.unwrap();
        };
        tokio::select! {
            biased;
            () = idle => {}
            ended = serves => panic!("{ended:?}"),
        }
    }
}
