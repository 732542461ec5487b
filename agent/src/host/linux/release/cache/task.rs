//! One content into the cache. The process is the agent's own and decides what is published; the one that speaks to
//! servers is its child, which has become nobody, and has of the cache the file that it appends to.

use super::asking::ask_as;
use super::download::{Ask, Ended, FILE_MAX, Said};
use super::pin::Pin;
use super::store::{Held, Store};
use crate::host::linux::disk::io_problem;
use crate::host::linux::release::sources::unlike;
use crate::host::linux::task::Line;
use plat_model::Problem;
use plat_model::node::Account;
use plat_model::problem::codes;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Seek};
use std::path::PathBuf;
use std::time::Duration;

/// How often one server is asked to go on with what it cut off, as long as more comes each time.
const ATTEMPTS: u32 = 5;

#[derive(Serialize, Deserialize)]
pub struct FetchTask {
    pub folder: PathBuf,
    pub pin: Pin,
    pub name: String,
    /// Bases of addresses that have contents by their digests; asked first.
    pub mirrors: Vec<String>,
    /// Where the release says that it is.
    pub urls: Vec<String>,
    /// Who speaks to servers; `None`: who the agent is.
    pub account: Option<Account>,
    /// Bytes that must stay free.
    pub spare: u64,
    pub silence_seconds: u64,
}

/// A place that was asked, and what came of it.
enum Got {
    Whole(File),
    /// It has something else.
    Another(Pin),
    Not(Ended),
}

impl FetchTask {
    /// How long it may take, however many places there are.
    pub fn longest(&self) -> Duration {
        super::download::FETCH_MAX * 2
    }

    pub fn perform(&self, line: &Line) -> Result<(), Problem> {
        let store = Store::open(&self.folder)?;
        match store.check(&self.pin)? {
            Held::Whole => return Ok(()),
            Held::Damaged => line.progress(format!("{} was damaged in the cache and is fetched again", self.name))?,
            Held::Nothing => {}
        }
        let mut seen = Vec::new();
        for mirror in &self.mirrors {
            let place = format!("{}/{}", mirror.trim_end_matches('/'), self.pin.path());
            match self.ask(&store, &place, line)? {
                Got::Whole(file) => return self.publish(&store, &file, &place, line),
                // Mirrors need not have everything.
                Got::Not(Ended::Lacks(_)) => {}
                Got::Not(Ended::NoRoom(why)) => return Err(self.no_room(&why)),
                Got::Not(Ended::Cut(why) | Ended::Refused(why)) => seen.push(format!("{mirror}: {why}")),
                Got::Not(Ended::Whole) => {}
                Got::Another(_) => seen.push(format!("{mirror} has something else under this digest")),
            }
        }
        for why in &seen {
            line.progress(format!("not from a mirror: {why}"))?;
        }
        let mut problem = None;
        for url in &self.urls {
            match self.ask(&store, url, line)? {
                Got::Whole(file) => return self.publish(&store, &file, url, line),
                Got::Another(found) => problem = Some(another(url, &found, &self.pin)),
                Got::Not(Ended::NoRoom(why)) => return Err(self.no_room(&why)),
                Got::Not(Ended::Cut(why) | Ended::Refused(why) | Ended::Lacks(why)) => {
                    let why = [&[why][..], &seen].concat().join("; ");
                    let failed = Problem::new(codes::SOURCE_FETCH, format!("cannot fetch {url}")).because(why);
                    problem = Some(failed.fix("check the address, and that this node can reach it"));
                }
                Got::Not(Ended::Whole) => {}
            }
        }
        Err(problem.unwrap_or_else(|| Problem::new(codes::INTERNAL, format!("{} is from nowhere", self.name))))
    }

    fn publish(&self, store: &Store, file: &File, place: &str, line: &Line) -> Result<(), Problem> {
        store.publish(&self.pin, file)?;
        line.progress(format!("done {} from {place}", self.name))
    }

    fn no_room(&self, why: &str) -> Problem {
        Problem::new(codes::DISK_FULL, format!("there is no room for {} in {}", self.name, self.folder.display()))
            .because(why)
            .fix("free some space on that file system; what nothing uses is removed from the cache by itself")
    }

    /// Asks one place until it is whole, or nothing more comes.
    fn ask(&self, store: &Store, place: &str, line: &Line) -> Result<Got, Problem> {
        let cannot = |e: io::Error| io_problem(codes::SOURCE_FETCH, format!("cannot use the cache for {place}"), &e);
        let mut attempts = 0;
        loop {
            let mut file = store.partial(&self.pin)?;
            let before = file.metadata().map_err(cannot)?.len();
            attempts += 1;
            match self.ask_once(store, place, &file, line)? {
                Ended::Whole => {}
                Ended::Cut(_) if attempts < ATTEMPTS && file.metadata().map_err(cannot)?.len() > before => continue,
                Ended::Cut(_) if attempts == 1 && before > 0 => {
                    // It may be the answer to having asked for the rest.
                    file.set_len(0).map_err(cannot)?;
                    continue;
                }
                other => return Ok(Got::Not(other)),
            }
            file.rewind().map_err(cannot)?;
            let found = self.pin.measure(&mut file).map_err(cannot)?;
            if found == self.pin {
                return Ok(Got::Whole(file));
            }
            file.set_len(0).map_err(cannot)?;
            store.forget_origin(&self.pin);
            // What was here before may have been of another file: once more from the beginning.
            if before == 0 {
                return Ok(Got::Another(found));
            }
        }
    }

    fn ask_once(&self, store: &Store, place: &str, file: &File, line: &Line) -> Result<Ended, Problem> {
        let tag = store.origin(&self.pin).filter(|(url, _)| url == place).map(|(_, tag)| tag);
        let silence = Duration::from_secs(self.silence_seconds);
        let ask = Ask { from: place, tag: tag.as_deref(), spare: self.spare, most: FILE_MAX, silence };
        ask_as(self.account.as_ref(), &ask, file, line, &mut |said| match said {
            Said::Tag(tag) => {
                store.note_origin(&self.pin, place, &tag);
                Ok(())
            }
            Said::Have(have, all) => line.progress(self.told(have, all)),
            Said::Ended(_) => Ok(()),
        })
    }

    fn told(&self, have: u64, all: Option<u64>) -> String {
        let of = all.map_or_else(String::new, |all| format!(" of {}", all.div_ceil(1 << 20)));
        format!("~ {}, {}{of} MiB", self.name, have >> 20)
    }
}

/// What was fetched is not what the release says.
pub fn another(url: &str, found: &Pin, expected: &Pin) -> Problem {
    unlike(url, expected.kind(), &found.to_string(), &expected.to_string())
}
