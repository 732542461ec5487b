//! The totals of all partitions in one file: a line for each change of one partition's, the last line of each counts.
//!
//! Each line carries its checksum. What a write that was cut short left behind has no end of line: it never counted and
//! is dropped. A whole line that is damaged means that nobody knows which totals are the last ones: then the file is set
//! aside and nothing of it is used, for a total that went back would be billed twice.

use super::totals::Totals;
use crate::durable::{self, hash, unusable};
use plat_model::Problem;
use plat_model::id::PartitionName;
use plat_model::problem::codes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Version of the form, in the first word of each line.
const VERSION: &str = "1";
/// Past this many bytes, and four times its size after it was last rewritten, the file is rewritten.
const REWRITE_AT: u64 = 1 << 20;

/// `totals` is `None` when the partition is free.
#[derive(Serialize, Deserialize)]
struct Line<T> {
    partition: PartitionName,
    totals: Option<T>,
}

pub struct Journal {
    path: PathBuf,
    /// What is appended to. `None`: what is on disk is in doubt, or was never written: it is written anew first.
    file: Option<Arc<File>>,
    bytes: u64,
    /// Its size when it was last rewritten.
    rewritten: u64,
}

/// What a journal held.
pub struct Kept {
    pub totals: BTreeMap<PartitionName, Totals>,
    /// There was no file at all.
    pub is_new: bool,
    /// The file was damaged and is set aside; how.
    pub damage: Option<Problem>,
}

/// A line of one partition, to be appended.
pub fn encode(partition: &PartitionName, totals: Option<&Totals>) -> Vec<u8> {
    let line = Line { partition: partition.clone(), totals };
    let body = serde_json::to_vec(&line).expect("totals hold only what JSON can say");
    let mut bytes = format!("{VERSION} {} ", hash(&body)).into_bytes();
    bytes.extend(body);
    bytes.push(b'\n');
    bytes
}

fn decode(line: &[u8]) -> Result<Line<Totals>, String> {
    let mut words = line.splitn(3, |byte| *byte == b' ');
    let (Some(version), Some(said), Some(body)) = (words.next(), words.next(), words.next()) else {
        return Err("it is no line of counters".into());
    };
    if version != VERSION.as_bytes() {
        return Err(format!("it is of a version that this agent does not read ({VERSION})"));
    }
    if said != hash(body).as_bytes() {
        return Err("its checksum does not fit its contents".into());
    }
    serde_json::from_slice(body).map_err(|why| why.to_string())
}

fn read(whole: &[u8]) -> Result<BTreeMap<PartitionName, Totals>, String> {
    let mut all = BTreeMap::new();
    for (n, line) in whole.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let line = decode(line.strip_suffix(b"\n").unwrap_or(line)).map_err(|why| format!("line {}: {why}", n + 1))?;
        match line.totals {
            Some(totals) => drop(all.insert(line.partition, totals)),
            None => drop(all.remove(&line.partition)),
        }
    }
    Ok(all)
}

impl Journal {
    /// Reads the file; the first write replaces it.
    ///
    /// # Errors
    /// BAD_STATE_FILE if it cannot be read, or not be set aside: it stays as it is.
    pub fn open(path: PathBuf) -> Result<(Self, Kept), Problem> {
        let (bytes, is_new) = match fs::read(&path) {
            Ok(bytes) => (bytes, false),
            Err(why) if why.kind() == ErrorKind::NotFound => (Vec::new(), true),
            Err(why) => return Err(unusable(&path, why)),
        };
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let (totals, damage) = match read(&bytes[..whole]) {
            Ok(totals) => (totals, None),
            Err(why) => {
                let aside = path.with_extension(format!("damaged-{}", &hash(&bytes)[..16]));
                fs::rename(&path, &aside).map_err(|why| unusable(&aside, why))?;
                (BTreeMap::new(), Some(unusable(&path, why)))
            }
        };
        let journal = Self { path, file: None, bytes: 0, rewritten: 0 };
        Ok((journal, Kept { totals, is_new, damage }))
    }

    /// Whether the next write must be [`Self::rewrite`].
    pub fn needs_rewrite(&self) -> bool {
        self.file.is_none()
    }

    /// Whether most of it is of no use any more.
    pub fn is_long(&self) -> bool {
        self.bytes > REWRITE_AT.max(4 * self.rewritten)
    }

    /// Replaces the file by these lines, durably.
    pub fn rewrite(&mut self, lines: &[u8]) -> Result<(), Problem> {
        self.file = None;
        durable::replace(&self.path, lines)?;
        let open = OpenOptions::new().append(true).mode(0o600).open(&self.path);
        self.file = Some(Arc::new(open.map_err(|why| unusable(&self.path, why))?));
        (self.bytes, self.rewritten) = (lines.len() as u64, lines.len() as u64);
        Ok(())
    }

    /// After an error nothing of it counts, and the next write must be [`Self::rewrite`]. It survives the agent's end;
    /// when [`Unsynced::sync`] has succeeded it survives a power loss, with all that was appended before.
    pub fn append(&mut self, lines: &[u8]) -> Result<Unsynced, Problem> {
        let Some(file) = &self.file else { return Err(unusable(&self.path, "it is not open")) };
        if let Err(why) = file.as_ref().write_all(lines) {
            self.file = None;
            return Err(failed(&self.path, &why));
        }
        self.bytes += lines.len() as u64;
        Ok(Unsynced { path: self.path.clone(), file: file.clone() })
    }

    /// What was appended may not be on the disk.
    pub fn doubt(&mut self) {
        self.file = None;
    }
}

/// What was appended and may not be on the disk yet. Others may append meanwhile.
pub struct Unsynced {
    path: PathBuf,
    file: Arc<File>,
}

impl Unsynced {
    /// # Errors
    /// Then the journal is in doubt.
    pub fn sync(&self) -> Result<(), Problem> {
        self.file.sync_data().map_err(|why| failed(&self.path, &why))
    }
}

fn failed(path: &Path, why: &std::io::Error) -> Problem {
    let code = if why.kind() == ErrorKind::StorageFull { codes::DISK_FULL } else { codes::BAD_STATE_FILE };
    Problem::new(code, format!("`{}` cannot be written", path.display()))
        .because(why)
        .fix("make room on the disk of the agent's data folder; what was used is counted when that is done")
}

#[cfg(test)]
mod tests {
    use super::*;
    use plat_agent_plan::Moment;
    use plat_model::id::InstanceId;

    fn part(n: u32) -> PartitionName {
        PartitionName::parse(&format!("part{n}")).unwrap()
    }

    fn used(cpu_micros: u64) -> Totals {
        let instance = InstanceId::parse(&"a".repeat(32)).unwrap();
        Totals { cpu_micros, ..Totals::new(7, instance, Moment::default(), None) }
    }

    #[test]
    fn the_last_line_of_each_counts_and_half_a_line_never_did() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("counters");
        let (mut journal, kept) = Journal::open(path.clone()).unwrap();
        assert!(kept.is_new && journal.needs_rewrite());
        journal.rewrite(&[encode(&part(0), Some(&used(1))), encode(&part(1), Some(&used(1)))].concat()).unwrap();
        journal.append(&encode(&part(0), Some(&used(2)))).unwrap().sync().unwrap();
        journal.append(&encode(&part(1), None)).unwrap();
        let line = encode(&part(0), Some(&used(3)));
        // Killed at any byte of the next one.
        let before = fs::read(&path).unwrap();
        for cut in 0..line.len() {
            fs::write(&path, [&before, &line[..cut]].concat()).unwrap();
            let (_, kept) = Journal::open(path.clone()).unwrap();
            assert_eq!(kept.totals, [(part(0), used(2))].into());
            assert!(kept.damage.is_none());
        }
    }

    #[test]
    fn a_damaged_line_makes_all_unknown_and_stays_to_be_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("counters");
        let (mut journal, _) = Journal::open(path.clone()).unwrap();
        journal.rewrite(&encode(&part(0), Some(&used(1)))).unwrap();
        journal.append(&encode(&part(0), Some(&used(2)))).unwrap().sync().unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 20;
        bytes[last] ^= 1;
        fs::write(&path, bytes).unwrap();
        let (_, kept) = Journal::open(path.clone()).unwrap();
        assert!(kept.totals.is_empty() && !kept.is_new);
        assert!(kept.damage.unwrap().why.starts_with("line 2"));
        assert!(!path.exists() && fs::read_dir(folder.path()).unwrap().count() == 1);
    }

    #[test]
    fn what_cannot_be_written_leaves_what_is_there_and_the_next_write_is_a_whole_one() {
        let folder = tempfile::tempdir().unwrap();
        let (path, beside) = (folder.path().join("counters"), folder.path().join("counters.new"));
        let (mut journal, _) = Journal::open(path.clone()).unwrap();
        let kept = || Journal::open(path.clone()).unwrap().1.totals;
        journal.rewrite(&encode(&part(0), Some(&used(1)))).unwrap();
        fs::create_dir(&beside).unwrap();
        journal.rewrite(&encode(&part(0), Some(&used(2)))).unwrap_err();
        assert!(journal.needs_rewrite() && journal.append(&encode(&part(0), Some(&used(3)))).is_err());
        assert_eq!(kept(), [(part(0), used(1))].into());
        fs::remove_dir(&beside).unwrap();
        journal.rewrite(&encode(&part(0), Some(&used(4)))).unwrap();
        assert_eq!(kept(), [(part(0), used(4))].into());
        // A file that takes nothing.
        journal.file = Some(Arc::new(File::open(&path).unwrap()));
        assert!(journal.append(&encode(&part(0), Some(&used(5)))).is_err() && journal.needs_rewrite());
        assert_eq!(kept(), [(part(0), used(4))].into());
    }
}
