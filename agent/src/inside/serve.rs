//! One partition's socket: who may speak, how much at once, how long, how often.

use super::{Inside, caller};
use crate::aside::{By, Reached, aside};
use crate::pace::{Budget, Pace};
use plat_agent_plan::action::Note;
use plat_agent_plan::inside::{LINE_MAX, reply};
use plat_agent_plan::json_bytes;
use plat_model::Problem;
use plat_model::id::{InstanceId, PartitionName};
use plat_model::problem::codes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

/// Connections of one partition at once; more wait to be taken.
pub const CONNECTIONS: usize = 8;
/// Lines of one partition a second, and at once.
const LINES: (u32, u32) = (20, 100);
/// Connections of one partition a second, and at once.
const CALLERS: (u32, u32) = (20, 100);
/// Bytes of what one partition's instance says of itself that are written down a second, and at once: each time it is
/// another, the disk is synced.
const WRITTEN: (u32, u32) = (8 << 10, 1 << 20);
/// What the least of it costs.
const BLOCK: usize = 4096;
/// How long a line may take to come whole, and an answer to be taken.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// After a connection could not be taken, for lack of something in the whole process.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Whom a socket is for.
pub struct Speaker {
    /// `None`: the agent's own user, where partitions have none.
    pub uid: Option<u32>,
    pub partition: PartitionName,
    pub instance: InstanceId,
}

impl Speaker {
    fn may_speak(&self, uid: u32) -> bool {
        uid == 0 || uid == self.uid.unwrap_or_else(|| nix::unistd::geteuid().as_raw())
    }
}

/// What holds all connections of one partition together.
pub struct Bounds {
    lines: Pace,
    written: Budget,
    pub turn: Mutex<()>,
}

impl Bounds {
    /// Whether so much may be written down now.
    ///
    /// # Errors
    /// TOO_MANY, with the time after which it may.
    pub fn may_write(&self, note: &Note) -> Result<(), Problem> {
        self.written.take(json_bytes(note).max(BLOCK), Instant::now()).map_err(|wait| {
            Problem::new(codes::TOO_MANY, "the instance says something new of itself too often")
                .because(format!(
                    "{} KiB a second are written down, and {} KiB at once; what changes least counts as {} KiB",
                    WRITTEN.0 >> 10,
                    WRITTEN.1 >> 10,
                    BLOCK >> 10
                ))
                .fix(format!("say it again in {} s", wait.as_secs() + 1))
        })
    }
}

/// What all connections of one partition share.
struct Shared {
    inside: Arc<Inside>,
    speaker: Speaker,
    bounds: Bounds,
}

/// Takes connections until it is dropped, and all of them with it. `places` are the partition's, whichever socket it has: one
/// is taken until the thread of its connection has ended.
pub async fn serve(inside: Arc<Inside>, speaker: Speaker, door: AsyncFd<Reached>, places: Arc<Semaphore>) {
    let (lines, written) = (Pace::new(LINES.0, LINES.1), Budget::new(WRITTEN.0, WRITTEN.1));
    let shared = Arc::new(Shared { inside, speaker, bounds: Bounds { lines, written, turn: Mutex::new(()) } });
    let callers = Pace::new(CALLERS.0, CALLERS.1);
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        if come(&door).await.is_err() {
            return;
        }
        callers.turn().await;
        // For as long as nobody comes no memory is held for it.
        match Box::pin(Call::take(door.get_ref(), place)).await {
            Ok(Some((uid, call))) if shared.speaker.may_speak(uid) => {
                let shared = shared.clone();
                connections.spawn(async move {
                    if let Err(why) = call.talk(&shared).await {
                        debug!(partition = %shared.speaker.partition, %why, "an instance was not listened to any more");
                    }
                });
            }
            Ok(Some((uid, _))) => debug!(partition = %shared.speaker.partition, uid, "somebody else wants to speak"),
            Ok(None) => {}
            Err(why) => {
                warn!(partition = %shared.speaker.partition, %why, "an instance that wants to speak cannot be heard");
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
    }
}

/// Until somebody waits there to be taken: looked at first, for a thread is made for it.
async fn come(door: &AsyncFd<Reached>) -> io::Result<()> {
    loop {
        let mut ready = door.readable().await?;
        let mut asked = [PollFd::new(door.get_ref(), PollFlags::IN)];
        if poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) != Ok(0) {
            return Ok(());
        }
        ready.clear_ready();
    }
}

/// A connection, as far as the agent's loop has to do with it: its own end of what a thread copies.
struct Call {
    stream: Option<UnixStream>,
    place: Option<OwnedSemaphorePermit>,
    /// Else there is no thread.
    is_aside: bool,
}

impl Call {
    /// Whoever waits at the door, and as which user; `None`: nobody does any more.
    async fn take(door: &Reached, place: OwnedSemaphorePermit) -> io::Result<Option<(u32, Self)>> {
        if door.by == By::Us {
            let stream = match accept_with(door, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(stream) => UnixStream::from_std(stream.into())?,
                Err(Errno::AGAIN) => return Ok(None),
                Err(why) => return Err(why.into()),
            };
            let uid = stream.peer_cred()?.uid();
            return Ok(Some((uid, Self { stream: Some(stream), place: Some(place), is_aside: false })));
        }
        let (ours, theirs) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        let stream = Some(UnixStream::from_std(ours)?);
        aside([door.as_fd(), theirs.as_fd()], caller::listen)?;
        drop(theirs);
        let mut call = Self { stream, place: Some(place), is_aside: true };
        let Some(stream) = &mut call.stream else { return Ok(None) };
        match stream.read_i64().await? {
            said if said == -i64::from(Errno::AGAIN.raw_os_error()) => Ok(None),
            said => match u32::try_from(said) {
                Ok(uid) => Ok(Some((uid, call))),
                Err(_) => Err(io::Error::from_raw_os_error(i32::try_from(-said).unwrap_or(0))),
            },
        }
    }

    async fn talk(mut self, shared: &Shared) -> io::Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let (from, mut to) = stream.split();
        let mut from = BufReader::new(from);
        loop {
            let mut line = Vec::new();
            let said = match timeout(PATIENCE, read_line(&mut from, &mut line)).await?? {
                End::Closed => return Ok(()),
                End::Line => {
                    shared.bounds.lines.turn().await;
                    shared.inside.reply(&shared.speaker, &line, &shared.bounds).await
                }
                End::TooLong => Err(Problem::new(codes::TOO_LARGE, "the instance says too much at once")
                    .because(format!("{LINE_MAX} bytes are allowed in a line"))),
            };
            let is_over = matches!(&said, Err(problem) if problem.code == codes::TOO_LARGE && line.len() > LINE_MAX);
            timeout(PATIENCE, to.write_all(reply(&said).as_bytes())).await??;
            if is_over {
                return Ok(());
            }
        }
    }
}

/// Its thread is told that nothing more is said, and has its place until it has ended.
impl Drop for Call {
    fn drop(&mut self) {
        if !self.is_aside {
            return;
        }
        let (Some(mut stream), Some(place), Ok(now)) = (self.stream.take(), self.place.take(), Handle::try_current())
        else {
            return;
        };
        now.spawn(async move {
            let _it_has_ended = stream.shutdown().await;
            let mut rest = [0; 512];
            while stream.read(&mut rest).await.is_ok_and(|bytes| bytes > 0) {}
            drop(place);
        });
    }
}

enum End {
    Line,
    TooLong,
    /// Half a line is none.
    Closed,
}

async fn read_line(from: &mut (impl AsyncBufReadExt + Unpin), line: &mut Vec<u8>) -> io::Result<End> {
    loop {
        let here = from.fill_buf().await?;
        if here.is_empty() {
            return Ok(End::Closed);
        }
        let end = here.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(here.len(), |end| end + 1);
        line.extend_from_slice(&here[..taken]);
        from.consume(taken);
        if line.len() > LINE_MAX {
            return Ok(End::TooLong);
        }
        if end.is_some() {
            return Ok(End::Line);
        }
    }
}
