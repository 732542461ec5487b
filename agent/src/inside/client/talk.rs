//! One question after the other over the socket.

use plat_agent_plan::inside::{LINE_MAX, VERSION};
use plat_model::Problem;
use plat_model::parameters::PARAMETERS_MAX;
use plat_model::problem::codes;
use rustix::fs::{CWD, Mode, OFlags, openat};
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::park_timeout;
use std::time::{Duration, Instant};

/// An agent that is being restarted, or a socket that is being made anew, is waited for.
const AGENT_AWAY: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How often a question is asked again that was cut off.
const TRIES: usize = 5;
/// The agent waits as long for the master, and some more for its turn.
const ANSWER: Duration = Duration::from_secs(60);

/// Where the agent is spoken with.
pub struct Talk {
    path: PathBuf,
}

impl Talk {
    /// # Errors
    /// USAGE if nobody says where the socket is.
    pub fn open(path: Option<&Path>) -> Result<Self, Problem> {
        let told = || std::env::var_os("PLAT_SOCKET").map(PathBuf::from);
        let path = path.map(Path::to_owned).or_else(told).filter(|path| !path.as_os_str().is_empty());
        let path = path.ok_or_else(|| {
            Problem::new(codes::USAGE, "it is not known where the agent listens")
                .because("PLAT_SOCKET is not set: this program is meant for what runs inside an instance")
                .fix("run it from a hook or a service of a release, or name the socket (`--socket`)")
        })?;
        Ok(Self { path })
    }

    /// The answer to one question, each on a connection of its own: a script may take its time between two.
    ///
    /// # Errors
    /// What the agent or the master says; UNREACHABLE if no agent answers.
    pub fn ask(&mut self, ask: &Value) -> Result<Value, Problem> {
        let mut ask = ask.clone();
        ask["v"] = VERSION.into();
        let away = |why: io::Error| {
            Problem::new(codes::UNREACHABLE, format!("no agent answers at {}", self.path.display()))
                .because(why)
                .fix("look whether the agent of this node runs; ask again, nothing is done twice")
        };
        let mut tries = 0;
        let answer = loop {
            match self.exchange(&ask) {
                // Hung up on: the socket was being made anew, or the agent ended. To ask again does nothing twice.
                Err(why) if tries < TRIES && is_cut(&why) => {
                    tries += 1;
                    park_timeout(LOOK_AGAIN);
                }
                told => break told.map_err(away)?,
            }
        };
        let mut answer: Map<String, Value> = serde_json::from_str(&answer).map_err(|why| not_understood(&why))?;
        match (answer.remove("ok"), answer.remove("problem")) {
            (Some(value), _) => Ok(value),
            (None, Some(problem)) => Err(serde_json::from_value(problem).map_err(|why| not_understood(&why))?),
            (None, None) => Err(not_understood(&"it says neither that it is done nor what is wrong")),
        }
    }

    fn exchange(&self, ask: &Value) -> io::Result<String> {
        let mut stream = self.connect()?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.write_all(format!("{ask}\n").as_bytes())?;
        let mut answer = String::new();
        BufReader::new(stream.take(4 * LINE_MAX as u64)).read_line(&mut answer)?;
        if answer.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up without a word"));
        }
        Ok(answer)
    }

    fn connect(&self) -> io::Result<UnixStream> {
        let until = Instant::now() + AGENT_AWAY;
        loop {
            match self.reach() {
                Err(why) if Instant::now() < until && is_away(&why) => park_timeout(LOOK_AGAIN),
                reached => return reached,
            }
        }
    }

    /// A socket's name is at most 107 bytes long; a path may be longer, so it is named from its directory.
    fn reach(&self) -> io::Result<UnixStream> {
        let (Some(folder), Some(name)) = (self.path.parent(), self.path.file_name()) else {
            return UnixStream::connect(&self.path);
        };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let folder = openat(CWD, folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        UnixStream::connect(Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name))
    }
}

fn is_cut(why: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(why.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

fn is_away(why: &io::Error) -> bool {
    matches!(why.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound | io::ErrorKind::WouldBlock)
}

pub fn not_understood(why: &impl std::fmt::Display) -> Problem {
    Problem::new(codes::BAD_MESSAGE, "the agent's answer is not understood")
        .because(why)
        .fix("use the `plat-instance` that came with this node's agent; ask again if the agent was just restarted")
}

/// A file with a JSON object.
pub fn read_json(path: &Path) -> Result<Map<String, Value>, Problem> {
    let wrong = |why: &dyn std::fmt::Display| {
        Problem::new(codes::FILE, format!("`{}` cannot be used", path.display()))
            .because(why)
            .fix("name a file that holds one JSON object")
    };
    let mut text = String::new();
    let file = File::open(path).map_err(|why| wrong(&why))?;
    file.take(2 * PARAMETERS_MAX as u64).read_to_string(&mut text).map_err(|why| wrong(&why))?;
    serde_json::from_str(&text).map_err(|why| wrong(&why))
}
