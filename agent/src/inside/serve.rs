//! One partition's socket: who may speak, how much at once, how long, how often.

use super::Inside;
use crate::pace::{Budget, Pace};
use plat_agent_plan::action::Note;
use plat_agent_plan::inside::{LINE_MAX, reply};
use plat_agent_plan::json_bytes;
use plat_model::Problem;
use plat_model::id::{InstanceId, PartitionName};
use plat_model::problem::codes;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

/// Connections of one partition at once; more wait to be taken.
const CONNECTIONS: usize = 8;
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
const PATIENCE: Duration = Duration::from_secs(10);
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

/// Takes connections until it is dropped, and all of them with it.
pub async fn serve(inside: Arc<Inside>, speaker: Speaker, listener: UnixListener) {
    let (lines, written) = (Pace::new(LINES.0, LINES.1), Budget::new(WRITTEN.0, WRITTEN.1));
    let shared = Arc::new(Shared { inside, speaker, bounds: Bounds { lines, written, turn: Mutex::new(()) } });
    let (places, callers) = (Arc::new(Semaphore::new(CONNECTIONS)), Pace::new(CALLERS.0, CALLERS.1));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        callers.turn().await;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(why) => {
                warn!(partition = %shared.speaker.partition, %why, "an instance that wants to speak cannot be heard");
                tokio::time::sleep(AFTER_FAILURE).await;
                continue;
            }
        };
        match stream.peer_cred() {
            Ok(peer) if shared.speaker.may_speak(peer.uid()) => {
                let shared = shared.clone();
                connections.spawn(async move {
                    if let Err(why) = talk(&shared, stream).await {
                        debug!(partition = %shared.speaker.partition, %why, "an instance was not listened to any more");
                    }
                    drop(place);
                });
            }
            Ok(peer) => debug!(partition = %shared.speaker.partition, uid = peer.uid(), "somebody else wants to speak"),
            Err(why) => debug!(partition = %shared.speaker.partition, %why, "nobody knows who wants to speak"),
        }
    }
}

async fn talk(shared: &Shared, stream: UnixStream) -> io::Result<()> {
    let (from, mut to) = stream.into_split();
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
