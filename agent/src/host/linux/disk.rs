//! The agent's own files: read within a limit, replaced as a whole, and errors that say which file.

use plat_model::problem::{Code, codes};
use plat_model::{Problem, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// Largest file of the agent's state that is read, in bytes.
const STATE_MAX: u64 = 4 << 20;

/// Whether a file must survive a power loss, or only the agent's own end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    Process,
    Power,
}

/// What an I/O error means to a person: a full disk is its own problem, everything else is `code`.
pub fn io_problem(code: Code, what: impl Into<String>, error: &io::Error) -> Problem {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Problem::new(codes::DISK_FULL, what)
            .because(error)
            .fix("free some space on that file system, or raise its quota"),
        _ => Problem::new(code, what).because(error),
    }
}

/// Replaces `path` by a file of mode 0600 with `contents`: a reader sees the old one or the new one, whole.
pub fn replace(path: &Path, contents: &[u8], durability: Durability) -> Result<(), Problem> {
    let wrong = |e: &io::Error| io_problem(codes::BAD_STATE_FILE, format!("cannot write {}", path.display()), e);
    let Some(folder) = path.parent() else { return Err(wrong(&io::Error::other("it has no parent"))) };
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    // Two threads may replace the same file at once; each has a new one of its own.
    static NEXT: AtomicU64 = AtomicU64::new(0);
    name.push(format!(".{}-{}.new", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    let fresh = folder.join(name);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(contents)?;
        if durability == Durability::Power {
            file.sync_all()?;
        }
        fs::rename(&fresh, path)?;
        if durability == Durability::Power {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    })();
    written.map_err(|e| {
        let _ = fs::remove_file(&fresh);
        wrong(&e)
    })
}

/// Replaces `path` by `value` as JSON.
pub fn replace_json(path: &Path, value: &impl Serialize, durability: Durability) -> Result<(), Problem> {
    let text = serde_json::to_vec(value)
        .map_err(|e| Problem::new(codes::INTERNAL, format!("cannot write {}", path.display())).because(e))?;
    replace(path, &text, durability)
}

/// What is in a file of the agent's state.
pub enum Stored<T> {
    Absent,
    /// It is there and makes no sense: a power loss, or another program.
    Corrupt(String),
    Value(T),
}

/// # Errors
/// Only if the disk could not be asked; what is there and cannot be understood is [`Stored::Corrupt`].
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Stored<T>, Problem> {
    let wrong = |e: &io::Error| io_problem(codes::BAD_STATE_FILE, format!("cannot read {}", path.display()), e);
    let mut text = Vec::new();
    match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Stored::Absent),
        Err(e) => return Err(wrong(&e)),
        Ok(file) => file.take(STATE_MAX + 1).read_to_end(&mut text).map_err(|e| wrong(&e))?,
    };
    if text.len() as u64 > STATE_MAX {
        return Ok(Stored::Corrupt(format!("it is larger than {STATE_MAX} bytes")));
    }
    Ok(match serde_json::from_slice(&text) {
        Ok(value) => Stored::Value(value),
        // serde's message may quote what it found; a state file may hold secrets.
        Err(e) => Stored::Corrupt(format!("line {}, column {}", e.line(), e.column())),
    })
}

/// Makes `path` and its parents, readable by the agent alone.
pub fn private_folder(path: &Path) -> Result<(), Problem> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| io_problem(codes::BAD_STATE_FILE, format!("cannot make the folder {}", path.display()), &e))
}

pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Random lower-case hexadecimal digits, twice as many as `bytes`.
pub fn random_hex(bytes: usize) -> Result<String, Problem> {
    let mut raw = vec![0; bytes];
    getrandom::fill(&mut raw)
        .map_err(|e| Problem::new(codes::INTERNAL, "the kernel gives no random numbers").because(e))?;
    Ok(raw.iter().map(|b| format!("{b:02x}")).collect())
}
