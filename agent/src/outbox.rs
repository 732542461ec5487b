//! Usage reports on disk until the master has booked them.
//!
//! One record of the log is a report together with the counter readings that it counts up to: both become durable in
//! the same write, so a crash before it counts nothing and a crash after it counts nothing twice. The log is rewritten
//! from time to time with only what is still needed.

use crate::durable::{self, hash, unusable};
use plat_model::id::PartitionName;
use plat_model::problem::codes;
use plat_model::usage::{UsageRecord, UsageReport};
use plat_model::{Problem, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tracing::warn;

use crate::usage::Baseline;

/// Version of the log's form, in the first word of each of its lines.
const VERSION: &str = "1";
/// Past this many bytes the log is rewritten.
const REWRITE_AT: u64 = 1024 * 1024;
/// Longest line that is read back.
const LINE_MAX: usize = 64 * 1024 * 1024;

/// One line of the log.
#[derive(Serialize, Deserialize)]
enum Line {
    /// The first line after a rewrite: all but the reports that wait.
    Start {
        next: u64,
        booked: u64,
        baselines: Baselines,
        /// See [`Outbox::lost`].
        #[serde(default)]
        lost: bool,
        /// See [`State::numbered`].
        #[serde(default)]
        numbered: bool,
    },
    /// A report, and how far the counters of these partitions are counted.
    Taken { report: UsageReport, baselines: BTreeMap<PartitionName, Option<Baseline>> },
    /// The master has booked everything up to this number.
    Booked(u64),
    /// The numbers begin with this one: what waits has them, in order.
    Renumbered(u64),
}

/// How far the counters of each partition are counted.
pub(crate) type Baselines = BTreeMap<PartitionName, Baseline>;

/// The reports that wait, and what the next one starts from.
pub(crate) struct Outbox {
    path: PathBuf,
    /// What is appended to. `None`: what is on disk is in doubt, and is written anew before anything follows it.
    file: Option<File>,
    bytes: u64,
    /// Its size when it was last rewritten.
    rewritten: u64,
    /// Past this the outbox takes nothing more; the counters go on and the next report counts them.
    bytes_max: u64,
    state: State,
}

#[derive(Default)]
struct State {
    next: u64,
    booked: u64,
    baselines: Baselines,
    lost: bool,
    /// The master has said which numbers are used up. Before that nothing is sent: a node of this name, on a disk of
    /// before, may have used the same ones, and what comes twice under one number is booked once.
    numbered: bool,
    waiting: VecDeque<UsageReport>,
}

impl State {
    fn new() -> Self {
        Self { next: 1, ..Self::default() }
    }

    /// What a log says, in whole lines.
    fn read(lines: &[u8]) -> Result<Self, String> {
        let mut state = Self::new();
        for (n, line) in lines.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let line = if line.len() > LINE_MAX { Err("it is too long".into()) } else { decode(line) };
            state.apply(line.map_err(|why| format!("line {}: {why}", n + 1))?);
        }
        match state.waiting.back() {
            Some(last) if last.sequence + 1 != state.next => Err("its numbers do not follow each other".into()),
            _ => Ok(state),
        }
    }

    fn apply(&mut self, line: Line) {
        match line {
            Line::Start { next, booked, baselines, lost, numbered } => {
                *self = Self { next, booked, baselines, lost, numbered, waiting: VecDeque::new() };
            }
            Line::Taken { report, baselines } => {
                self.next = report.sequence + 1;
                self.waiting.push_back(report);
                for (partition, baseline) in baselines {
                    match baseline {
                        Some(baseline) => drop(self.baselines.insert(partition, baseline)),
                        None => drop(self.baselines.remove(&partition)),
                    }
                }
            }
            Line::Booked(number) => {
                self.booked = self.booked.max(number);
                self.waiting.retain(|report| report.sequence > number);
            }
            Line::Renumbered(from) => {
                for (report, sequence) in self.waiting.iter_mut().zip(from..) {
                    report.sequence = sequence;
                }
                self.next = from + self.waiting.len() as u64;
                (self.booked, self.numbered) = (from - 1, true);
            }
        }
    }
}

fn encode(line: &Line) -> Result<Vec<u8>, serde_json::Error> {
    let body = serde_json::to_vec(line)?;
    let mut bytes = format!("{VERSION} {} ", hash(&body)).into_bytes();
    bytes.extend(body);
    bytes.push(b'\n');
    Ok(bytes)
}

fn decode(line: &[u8]) -> Result<Line, String> {
    let mut words = line.splitn(3, |byte| *byte == b' ');
    let (Some(version), Some(said), Some(body)) = (words.next(), words.next(), words.next()) else {
        return Err("it is no line of an outbox".into());
    };
    if version != VERSION.as_bytes() {
        return Err(format!("it is of a version that this agent does not read ({VERSION})"));
    }
    if said != hash(body).as_bytes() {
        return Err("its checksum does not fit its contents".into());
    }
    serde_json::from_slice(body).map_err(|why| why.to_string())
}

/// Replaces the log by one of this state. Gives the file to append to, and its size.
fn rewritten(path: &Path, state: &State) -> Result<(File, u64), Problem> {
    let wrong = |why: serde_json::Error| unusable(path, why);
    let State { next, booked, lost, numbered, .. } = *state;
    let start = Line::Start { next, booked, baselines: state.baselines.clone(), lost, numbered };
    let mut bytes = encode(&start).map_err(wrong)?;
    for report in &state.waiting {
        let line = Line::Taken { report: report.clone(), baselines: BTreeMap::new() };
        bytes.extend(encode(&line).map_err(wrong)?);
    }
    durable::replace(path, &bytes)?;
    let file = OpenOptions::new().append(true).mode(0o600).open(path).map_err(|why| unusable(path, why))?;
    Ok((file, bytes.len() as u64))
}

impl Outbox {
    /// Opens or makes the log. A last line that was cut short by a crash never counted as taken and is dropped. A log
    /// with a damaged line is kept beside, under a name that its contents give, and one that knows of the loss takes its
    /// place: nobody can say what was counted. Gives the damage too.
    ///
    /// # Errors
    /// BAD_STATE_FILE if the log cannot be read: it stays as it is.
    pub fn open(path: &Path, bytes_max: u64) -> Result<(Self, Option<Problem>), Problem> {
        let mut bytes = Vec::new();
        match File::open(path) {
            Ok(mut file) => drop(file.read_to_end(&mut bytes).map_err(|why| unusable(path, why))?),
            Err(why) if why.kind() == ErrorKind::NotFound => {}
            Err(why) => return Err(unusable(path, why)),
        }
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let (state, damage) = match State::read(&bytes[..whole]) {
            Ok(state) => (state, None),
            Err(why) => {
                let aside = path.with_extension(format!("damaged-{}", &hash(&bytes)[..16]));
                match fs::hard_link(path, &aside) {
                    Err(why) if why.kind() != ErrorKind::AlreadyExists => return Err(unusable(&aside, why)),
                    _ => (State { lost: true, ..State::new() }, Some(unusable(path, why))),
                }
            }
        };
        let mut outbox = Self { path: path.into(), file: None, bytes: whole as u64, rewritten: 0, bytes_max, state };
        if let Err(problem) = outbox.rewrite() {
            warn!(problem = problem.one_line(), "usage is counted as soon as the outbox can be written");
        }
        Ok((outbox, damage))
    }

    /// Whether a log of before was damaged: what an instance used that was there then, and has not been counted since,
    /// is unknown.
    pub fn lost(&self) -> bool {
        self.state.lost
    }

    /// Writes the log anew with only what is still needed. After an error the state is what it was, and the next append
    /// begins by trying again.
    fn rewrite(&mut self) -> Result<(), Problem> {
        self.file = None;
        let (file, bytes) = rewritten(&self.path, &self.state)?;
        (self.file, self.bytes, self.rewritten) = (Some(file), bytes, bytes);
        Ok(())
    }

    /// Durable when it returns. A write that failed is taken back, so that no half line is ever followed by another.
    fn append(&mut self, line: Line) -> Result<(), Problem> {
        let bytes = encode(&line).map_err(|why| unusable(&self.path, why))?;
        if self.file.is_none() {
            self.rewrite()?;
        }
        let Some(file) = &mut self.file else { return Err(unusable(&self.path, "it is not open")) };
        if let Err(why) = file.write_all(&bytes).and_then(|()| file.sync_data()) {
            // Whether the write will survive is not known: cut it off, and if even that fails, write all anew.
            if file.set_len(self.bytes).and_then(|()| file.sync_data()).is_err() {
                self.file = None;
            }
            let code = if why.kind() == ErrorKind::StorageFull { codes::DISK_FULL } else { codes::BAD_STATE_FILE };
            return Err(Problem::new(code, format!("`{}` cannot be written", self.path.display()))
                .because(why)
                .fix("make room on the disk of the agent's data folder; nothing was lost"));
        }
        self.bytes += bytes.len() as u64;
        self.state.apply(line);
        Ok(())
    }

    /// Whether nothing more may be taken until the master has booked something.
    pub fn is_full(&self) -> bool {
        self.bytes >= self.bytes_max
    }

    pub fn baselines(&self) -> &Baselines {
        &self.state.baselines
    }

    /// Takes records and the readings that they count up to, durably, as one report with the next number.
    ///
    /// # Errors
    /// DISK_FULL, BAD_STATE_FILE: then nothing was taken.
    pub fn take(
        &mut self,
        taken: Timestamp,
        records: Vec<UsageRecord>,
        baselines: BTreeMap<PartitionName, Option<Baseline>>,
    ) -> Result<(), Problem> {
        let report = UsageReport { sequence: self.state.next, taken, records };
        self.append(Line::Taken { report, baselines })
    }

    /// What to send: the oldest reports that wait, at most `count`. None of them, but the question how far the master
    /// has booked, while the numbers are not known. `None` if nothing waits.
    pub fn to_send(&self, count: usize) -> Option<Vec<UsageReport>> {
        let count = if self.state.numbered { count } else { 0 };
        (!self.state.waiting.is_empty()).then(|| self.state.waiting.iter().take(count).cloned().collect())
    }

    /// The master says that it has booked everything up to `number`. The first time that it says so, what waits is
    /// given the numbers that follow.
    pub fn booked(&mut self, number: u64) -> Result<(), Problem> {
        if !self.state.numbered {
            return self.append(Line::Renumbered(number + 1));
        }
        if number >= self.state.next {
            return Err(unusable(
                &self.path,
                format!("the master has booked {number}, {} was not made yet", self.state.next),
            ));
        }
        if number <= self.state.booked {
            return Ok(());
        }
        self.append(Line::Booked(number))?;
        // Rewriting costs as much as what is kept: so only when the log has doubled since, or nothing is kept.
        let worth_it = self.state.waiting.is_empty() || self.bytes > 2 * self.rewritten;
        if self.bytes > REWRITE_AT && worth_it {
            self.rewrite()?;
        }
        Ok(())
    }

    /// How much of the disk it holds, in bytes.
    pub fn size(&self) -> u64 {
        fs::metadata(&self.path).map_or(self.bytes, |data| data.len())
    }
}

#[cfg(test)]
mod tests;
