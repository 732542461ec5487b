//! A small process beside the agent that forks for it. The agent has threads and a heap, so its own fork would be slow
//! and unsafe; this one has neither, and what it forks shares its memory until it is written.
//!
//! `plat-agent shim` is this process. It gets a socket for each task over its standard input, and ends with the agent.
//! What it forked goes on by itself.

use super::confine;
use super::namespace::Network;
use super::posix::{Side, default_signals, ignore_children, split, watched};
use super::task::{self, Answer, Task};
use crate::aside::refuse_files;
use plat_model::Problem;
use plat_model::problem::codes;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::process::{Signal, pidfd_send_signal};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// How long a task that is told to end has for it, and one that is killed.
const END: Duration = Duration::from_secs(30);
const KILLED: Duration = Duration::from_secs(10);

/// The spawner's own side: `main` calls this before it starts any thread.
pub fn main() -> ExitCode {
    // What the agent was started with and did not open itself is not to be held open by a service.
    let open: Vec<i32> = std::fs::read_dir("/proc/self/fd")
        .map(|fds| fds.flatten().filter_map(|fd| fd.file_name().to_str()?.parse().ok()).filter(|fd| *fd > 2).collect())
        .unwrap_or_default();
    for fd in open {
        let _ = nix::unistd::close(fd);
    }
    let Ok(socket) = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3) else { return ExitCode::FAILURE };
    if let Ok(null) = std::fs::File::open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(&null);
    }
    let _ = rustix::process::setsid();
    confine::prepare();
    ignore_children();
    loop {
        match receive(&socket) {
            Ok(Some(stream)) => match split() {
                Ok(Side::Parent(_)) | Err(_) => {}
                Ok(Side::Child) => {
                    drop(socket);
                    default_signals();
                    let _ = rustix::process::setsid();
                    task::perform(stream.into());
                    return ExitCode::SUCCESS;
                }
            },
            Ok(None) => return ExitCode::SUCCESS,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return ExitCode::FAILURE,
        }
    }
}

fn receive(socket: &OwnedFd) -> rustix::io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let got = recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if got.bytes == 0 {
        return Ok(None);
    }
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message
            && let Some(fd) = fds.next()
        {
            return Ok(Some(fd));
        }
    }
    Err(rustix::io::Errno::INTR)
}

/// The agent's side.
pub struct Spawner {
    executable: PathBuf,
    network: Network,
    running: Mutex<Option<(Child, OwnedFd)>>,
}

impl Spawner {
    /// `executable`: the agent's own, `/proc/self/exe`; all that is forked is in `network`.
    pub fn new(executable: PathBuf, network: Network) -> Self {
        Self { executable, network, running: Mutex::new(None) }
    }

    /// Has a process forked for the task, and gives it the task.
    pub async fn begin(&self, task: &Task) -> Result<Conversation, Problem> {
        let wrong = |what: &str, e: &dyn std::fmt::Display| Problem::new(codes::INTERNAL, what.to_owned()).because(e);
        let (mine, theirs) = StdStream::pair().map_err(|e| wrong("cannot make a socket", &e))?;
        self.hand_over(&theirs).map_err(|e| wrong("cannot start a process", &e))?;
        drop(theirs);
        // What answers may have become somebody else's user.
        refuse_files(&mine).and_then(|()| mine.set_nonblocking(true)).map_err(|e| wrong("cannot use a socket", &e))?;
        let stream = UnixStream::from_std(mine).map_err(|e| wrong("cannot use a socket", &e))?;
        let mut text = serde_json::to_vec(task).map_err(|e| wrong("cannot write a task", &e))?;
        text.push(b'\n');
        let mut stream = BufReader::new(stream);
        stream.write_all(&text).await.map_err(|e| wrong("a process ended before its task", &e))?;
        let mut begun = Conversation { stream: Some(stream), process: None, is_alone: task.is_alone() };
        match begun.next().await? {
            Answer::Begun(process) => begun.process = process.handle(),
            Answer::Failed(problem) => return Err(problem),
            other => return Err(wrong("a process did not say which it is", &format!("{other:?}"))),
        }
        Ok(begun)
    }

    /// The last answer to the task. One that takes longer than it may is killed, whoever holds it.
    pub async fn perform(&self, task: &Task) -> Result<Answer, Problem> {
        self.within(task, task.longest(), |_| {}).await
    }

    /// As [`Self::perform`], with all that is told on the way. When it fails for its time, its process has ended.
    pub async fn within(
        &self,
        task: &Task,
        longest: Duration,
        mut told: impl FnMut(String) + Send,
    ) -> Result<Answer, Problem> {
        let mut conversation = self.begin(task).await?;
        let last = async {
            loop {
                match conversation.next().await? {
                    Answer::Progress(text) => told(text),
                    Answer::Failed(problem) => return Err(problem),
                    answer => return Ok(answer),
                }
            }
        };
        if let Ok(answer) = tokio::time::timeout(longest, last).await {
            return answer;
        }
        conversation.end().await;
        Err(Problem::new(codes::STALLED, format!("{} took too long and was ended", task.name()))
            .because(format!("there was no result within {} s", longest.as_secs()))
            .fix("look for processes that hold others still, and for file systems that do not answer"))
    }

    fn hand_over(&self, stream: &StdStream) -> std::io::Result<()> {
        let mut running = self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((_, socket)) = &*running
            && send(socket, stream).is_ok()
        {
            return Ok(());
        }
        if let Some((mut child, socket)) = running.take() {
            drop(socket);
            let _ = child.wait();
        }
        let (mine, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let mut command = Command::new(&self.executable);
        command.arg(super::SUBCOMMAND).env_clear().current_dir("/");
        command.stdin(theirs).stdout(Stdio::null()).stderr(Stdio::null());
        let child = self.network.spawn(&mut command)?;
        drop(command);
        let sent = send(&mine, stream);
        *running = Some((child, mine));
        sent
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        if let Some((mut child, socket)) =
            self.running.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner).take()
        {
            drop(socket);
            let _ = child.wait();
        }
    }
}

fn send(socket: &OwnedFd, stream: &StdStream) -> std::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [stream.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(socket, &[IoSlice::new(&[1])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// A task under way. Dropping it tells the task to end, unless it is a service that runs.
pub struct Conversation {
    /// `None`: it was told to end.
    stream: Option<BufReader<UnixStream>>,
    /// Until the task's process is known, and when it has ended: none.
    process: Option<OwnedFd>,
    is_alone: bool,
}

impl Drop for Conversation {
    fn drop(&mut self) {
        if self.is_alone {
            self.kill();
        }
    }
}

impl Conversation {
    fn kill(&self) {
        if let Some(process) = &self.process {
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
    }

    /// Tells the task to end and waits until it has. It ends what it started before; one that does not come to that is
    /// killed.
    async fn end(mut self) {
        drop(self.stream.take());
        let Some(Ok(process)) = self.process.take().map(watched) else { return };
        let has_ended = async |within| tokio::time::timeout(within, process.readable()).await.is_ok();
        if self.is_alone || !has_ended(END).await {
            let _ = pidfd_send_signal(process.get_ref(), Signal::KILL);
            // What the kernel holds is not waited for any longer.
            let _ended = has_ended(KILLED).await;
        }
    }

    pub async fn next(&mut self) -> Result<Answer, Problem> {
        let wrong =
            |why: String| Problem::new(codes::INTERNAL, "a process of the agent ended without an answer").because(why);
        let mut text = String::new();
        let Some(stream) = &mut self.stream else { return Err(wrong("it was told to end".into())) };
        match stream.read_line(&mut text).await {
            Ok(0) => Err(wrong("it was killed, or there is no memory".into())),
            Ok(_) => serde_json::from_str(&text).map_err(|e| wrong(e.to_string())),
            Err(e) => Err(wrong(e.to_string())),
        }
    }
}
