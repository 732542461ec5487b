//! What the two parts say to each other: frames of a length and JSON, each with the number of the call that it is about.

use super::network::Start;
use crate::host::{Event, LogsAsked, Wanted};
use plat_agent_plan::Action;
use plat_model::id::{Digest, PartitionName, ServiceName};
use plat_model::resources::Enforced;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Largest frame to root's part, in bytes: a release document, or all files of an instance.
pub const QUESTION_MAX: usize = 16 << 20;
/// Largest frame from it: all counters of a large node.
pub const ANSWER_MAX: usize = 64 << 20;
/// Lines of one log that may be under way: more are sent once these were taken.
pub const WINDOW: usize = 256;

/// From the part with the network. Each number is used once.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Question {
    Call {
        id: u64,
        call: Call,
    },
    /// Nobody waits for the answer any more.
    Cancel {
        id: u64,
    },
    /// So many lines of a log were taken.
    Taken {
        id: u64,
        lines: u32,
    },
    /// To [`Message::Speak`].
    Here,
}

/// One call of [`crate::host::Host`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Call {
    Node,
    Release(Digest),
    Releases,
    Disks,
    Store,
    Partition(PartitionName),
    Perform(Box<Action>),
    Counters(Vec<PartitionName>, Wanted),
    Logs(LogsAsked),
    /// Answered by whether there is one; the socket itself comes beside.
    Door(PartitionName),
}

/// What of a host does not change while its agent runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nature {
    pub runtime: String,
    pub enforces: Enforced,
}

/// From root's part.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Message {
    /// The first one: what the other part is to do, and what this host is as long as it is served.
    Start {
        start: Box<Start>,
        nature: Nature,
    },
    /// What the call gives, in the form of its own: JSON that only whoever called reads.
    Answer {
        id: u64,
        value: Box<RawValue>,
    },
    /// Of a log that was begun.
    Line {
        id: u64,
        service: ServiceName,
        text: String,
    },
    /// There are no more of them.
    End {
        id: u64,
    },
    Event(Event),
    /// Nothing was heard of the other part for long: it is to say something.
    Speak,
}

/// A value as a frame.
///
/// # Errors
/// InvalidData if it is larger than `most`.
pub fn encode(value: &impl Serialize, most: usize) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, value)?;
    let length = frame.len() - 4;
    if length > most {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{length} bytes, {most} are allowed")));
    }
    let head = u32::try_from(length).map_err(io::Error::other)?;
    frame[..4].copy_from_slice(&head.to_be_bytes());
    Ok(frame)
}

/// The next value, and how many bytes it had; `None` at the end.
///
/// # Errors
/// InvalidData for what is no such value, or larger than `most`.
pub async fn read<T: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
    most: usize,
) -> io::Result<Option<(T, usize)>> {
    let mut head = [0; 4];
    match from.read_exact(&mut head).await {
        Err(why) if why.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let length = u32::from_be_bytes(head) as usize;
    let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    if length > most {
        return Err(wrong(format!("a frame of {length} bytes, {most} are allowed")));
    }
    // It grows as it comes: a length alone takes no memory.
    let mut text = Vec::new();
    if from.take(length as u64).read_to_end(&mut text).await? < length {
        return Err(wrong("a frame that ends early".into()));
    }
    // What was found is not repeated: it may be anything.
    let value =
        serde_json::from_slice(&text).map_err(|e| wrong(format!("a frame that makes no sense, at {}", e.column())))?;
    Ok(Some((value, length)))
}

pub async fn write(to: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> io::Result<()> {
    to.write_all(frame).await?;
    to.flush().await
}
