//! The file, as its one thread writes it.

use super::form::{encode, encode_all};
use crate::durable::{self, unusable};
use crate::host::linux::disk::io_problem;
use plat_model::Problem;
use plat_model::problem::codes;
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

/// Below this many bytes a file is not worth writing anew.
const REWRITE_AT: usize = 1 << 20;

pub struct Writer {
    path: PathBuf,
    boot: String,
    /// What is appended to. `None`: nobody knows what is on the disk, or it is another run's.
    file: Option<File>,
    /// Its size, in bytes, and when it was last written anew.
    bytes: usize,
    rewritten: usize,
    /// Its lines, and how many of them are durable.
    lines: usize,
    synced: usize,
}

impl Writer {
    pub fn new(path: PathBuf, boot: String) -> Self {
        Self { path, boot, file: None, bytes: 0, rewritten: 0, lines: 0, synced: 0 }
    }

    /// Whether the next write must be [`Self::rewrite`].
    pub fn is_in_doubt(&self) -> bool {
        self.file.is_none()
    }

    /// Whether it has doubled since it was last written anew.
    pub fn is_long(&self) -> bool {
        self.bytes > REWRITE_AT.max(2 * self.rewritten)
    }

    /// A line for each list. It survives the agent's end; power loss only after [`Self::sync`].
    pub fn append<'a, E: Serialize + 'a>(&mut self, lists: impl Iterator<Item = &'a Vec<E>>) -> Result<(), Problem> {
        let (mut bytes, mut lines) = (Vec::new(), 0);
        for list in lists {
            bytes.extend(encode(self.synced, list).map_err(|why| unusable(&self.path, why))?);
            lines += 1;
        }
        let closed = || Err(std::io::Error::other("it is not open"));
        self.file.as_ref().map_or_else(closed, |mut file| file.write_all(&bytes)).map_err(|why| self.failed(&why))?;
        (self.bytes, self.lines) = (self.bytes + bytes.len(), self.lines + lines);
        Ok(())
    }

    pub fn sync(&mut self) -> Result<(), Problem> {
        let Some(file) = self.file.as_ref().filter(|_| self.synced < self.lines) else { return Ok(()) };
        file.sync_data().map_err(|why| self.failed(&why))?;
        self.synced = self.lines;
        Ok(())
    }

    /// Replaces the file, durably. Where there is no room for another, what is there is gone on with.
    pub fn rewrite(&mut self, entries: &[impl Serialize]) -> Result<(), Problem> {
        let all = encode_all(&self.boot, entries).map_err(|why| unusable(&self.path, why))?;
        if let Err(problem) = durable::prepare(&self.path, &all) {
            // Not tried again for each change.
            self.rewritten = self.bytes;
            return Err(problem);
        }
        self.file = None;
        durable::put_in_place(&self.path)?;
        let file = OpenOptions::new().append(true).open(&self.path).map_err(|why| self.failed(&why))?;
        (self.bytes, self.rewritten) = (all.len(), all.len());
        (self.lines, self.synced) = (entries.len() + 1, entries.len() + 1);
        self.file = Some(file);
        Ok(())
    }

    /// From here on it is in doubt: part of it may be on the disk.
    fn failed(&mut self, why: &std::io::Error) -> Problem {
        self.file = None;
        io_problem(codes::BAD_STATE_FILE, format!("`{}` cannot be written", self.path.display()), why)
            .fix("make room on the disk of the agent's data folder; what failed is tried again")
    }
}
