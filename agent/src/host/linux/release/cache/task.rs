//! One content into the cache. The process is the agent's own and decides what is published; the one that speaks to
//! servers is its child, which has become nobody, and has of the cache the file that it appends to.

use super::asking::ask_as;
use super::download::{Ask, Ended, FILE_MAX, Said};
use super::pin::Pin;
use super::store::{Held, Store};
use crate::host::linux::disk::io_problem;
use crate::host::linux::release::sources::unlike;
use crate::host::linux::task::{Answer, Line};
use plat_model::Problem;
use plat_model::node::Account;
use plat_model::problem::codes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Seek};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How often one server is asked to go on with what it cut off, as long as more comes each time.
const ATTEMPTS: u32 = 5;

/// How much is done for a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effort {
    /// It is looked whether it is there.
    Look,
    Fetch,
}

#[derive(Serialize, Deserialize)]
pub struct FetchTask {
    pub folder: PathBuf,
    pub pin: Pin,
    pub effort: Effort,
    pub name: String,
    /// Bases of addresses that have contents by their digests; asked first.
    pub mirrors: Vec<String>,
    /// Where the release says that it is.
    pub urls: Vec<String>,
    /// Who speaks to servers; `None`: who the agent is.
    pub account: Option<Account>,
    /// A file of certificates: whose word servers are taken on, instead of whom the machine trusts.
    pub authorities: Option<PathBuf>,
    /// Bytes that must stay free.
    pub spare: u64,
    pub silence_seconds: u64,
    /// How long all places together may take. Mirrors have half of it, so that where the release says that it is always
    /// has its turn; within its part, each place has its share of what those before it left.
    pub longest_seconds: u64,
}

/// How often it is looked whether another process is done with a file.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 300_000_000 };
/// What looking at a file and publishing it may take.
const PUBLISH: Duration = Duration::from_secs(600);

/// What to do about a server that proves with nobody's word who it is.
pub const TRUST: &str = "check the server's certificate and this node's clock; an authority of your own is named as `authorities` in \
    agent.toml, or added to those that the machine trusts";

/// A place that was asked, and what came of it.
enum Got {
    Whole,
    /// It has something else.
    Another(Pin),
    Not(Ended),
}

impl FetchTask {
    /// How long it may take, however many places there are.
    pub fn longest(&self) -> Duration {
        Duration::from_secs(self.longest_seconds) + PUBLISH
    }

    /// Done, or without room; nothing told where it is not there and only looked for.
    pub fn perform(&self, line: &Line) -> Result<Answer, Problem> {
        let store = Store::open(&self.folder)?;
        if self.effort == Effort::Look {
            return Ok(match store.check(&self.pin)? {
                Held::Whole => Answer::Done,
                Held::Nothing => Answer::Told(None),
                Held::Damaged => {
                    line.progress(self.damaged())?;
                    Answer::Told(None)
                }
            });
        }
        let Some(file) = self.begin(&store, line)? else { return Ok(Answer::Done) };
        let until = Instant::now() + Duration::from_secs(self.longest_seconds);
        let mirrors_until = until - Duration::from_secs(self.longest_seconds / 2);
        let turn = |until, places| share(Instant::now(), until, places);
        let mut seen = Vec::new();
        for (n, mirror) in self.mirrors.iter().enumerate() {
            let place = format!("{}/{}", mirror.trim_end_matches('/'), self.pin.path());
            match self.ask(&store, &place, &file, turn(mirrors_until, self.mirrors.len() - n), line)? {
                Got::Whole => return self.publish(&store, &file, &place, line),
                // Mirrors need not have everything.
                Got::Not(Ended::Lacks(_)) => {}
                Got::Not(Ended::NoRoom { why, bytes }) => return Ok(self.no_room(&why, bytes)),
                Got::Not(Ended::Cut(why) | Ended::Refused(why) | Ended::Untrusted(why)) => {
                    seen.push(format!("{mirror}: {why}"))
                }
                Got::Not(Ended::Whole) => {}
                Got::Another(_) => seen.push(format!("{mirror} has something else under this digest")),
            }
        }
        for why in &seen {
            line.progress(format!("not from a mirror: {why}"))?;
        }
        let mut problem = None;
        for (n, url) in self.urls.iter().enumerate() {
            match self.ask(&store, url, &file, turn(until, self.urls.len() - n), line)? {
                Got::Whole => return self.publish(&store, &file, url, line),
                Got::Another(found) => problem = Some(another(url, &found, &self.pin)),
                Got::Not(Ended::NoRoom { why, bytes }) => return Ok(self.no_room(&why, bytes)),
                Got::Not(Ended::Untrusted(why)) => problem = Some(self.failed(url, why, &seen, TRUST)),
                Got::Not(Ended::Cut(why) | Ended::Refused(why) | Ended::Lacks(why)) => {
                    problem = Some(self.failed(url, why, &seen, "check the address, and that this node can reach it"));
                }
                Got::Not(Ended::Whole) => {}
            }
        }
        Err(problem.unwrap_or_else(|| Problem::new(codes::INTERNAL, format!("{} is from nowhere", self.name))))
    }

    /// The file to append to, for this process alone; `None` if the content is there. Another process may be at it: then
    /// this waits for what becomes of that.
    fn begin(&self, store: &Store, line: &Line) -> Result<Option<File>, Problem> {
        let gone = || Problem::new(codes::INTERNAL, "cannot wait for a fetch").because("nobody waits for it any more");
        let mut held = None;
        loop {
            match store.check(&self.pin)? {
                Held::Whole => {
                    if held.is_some() {
                        store.forget_partial(&self.pin);
                    }
                    return Ok(None);
                }
                Held::Damaged => line.progress(self.damaged())?,
                Held::Nothing if held.is_some() => return Ok(held),
                Held::Nothing => {}
            }
            if held.is_none() {
                held = store.partial(&self.pin)?;
            }
            if held.is_none() {
                line.progress(format!("~ {}, which another process does", self.name))?;
                let mut peer = [PollFd::new(line.stream(), PollFlags::RDHUP)];
                if !matches!(poll(&mut peer, Some(&LOOK)), Ok(0) | Err(rustix::io::Errno::INTR)) {
                    return Err(gone());
                }
            }
        }
    }

    fn failed(&self, url: &str, why: String, seen: &[String], fix: &str) -> Problem {
        let why = [&[why][..], seen].concat().join("; ");
        Problem::new(codes::SOURCE_FETCH, format!("cannot fetch {url}")).because(why).fix(fix)
    }

    fn damaged(&self) -> String {
        format!("{} was damaged in the cache and is fetched again", self.name)
    }

    fn publish(&self, store: &Store, file: &File, place: &str, line: &Line) -> Result<Answer, Problem> {
        store.publish(&self.pin, file)?;
        line.progress(format!("done {} from {place}", self.name))?;
        Ok(Answer::Done)
    }

    fn no_room(&self, why: &str, bytes: u64) -> Answer {
        let what = format!("there is no room for {} in {}", self.name, self.folder.display());
        let problem = Problem::new(codes::DISK_FULL, what)
            .because(why)
            .fix("free some space on that file system; what nothing uses is removed from the cache by itself");
        Answer::NoRoom { problem, bytes }
    }

    /// Asks one place until it is whole, or nothing more comes, or its time is over.
    fn ask(&self, store: &Store, place: &str, mut file: &File, until: Instant, line: &Line) -> Result<Got, Problem> {
        let cannot = |e: io::Error| io_problem(codes::SOURCE_FETCH, format!("cannot use the cache for {place}"), &e);
        let mut attempts = 0;
        loop {
            let before = file.seek(io::SeekFrom::End(0)).map_err(cannot)?;
            attempts += 1;
            match self.ask_once(store, place, file, until, line)? {
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
                return Ok(Got::Whole);
            }
            file.set_len(0).map_err(cannot)?;
            store.forget_origin(&self.pin);
            // What was here before may have been of another file: once more from the beginning.
            if before == 0 {
                return Ok(Got::Another(found));
            }
        }
    }

    fn ask_once(&self, store: &Store, place: &str, file: &File, until: Instant, line: &Line) -> Result<Ended, Problem> {
        let tag = store.origin(&self.pin).filter(|(url, _)| url == place).map(|(_, tag)| tag);
        let silence = Duration::from_secs(self.silence_seconds);
        let longest = until.saturating_duration_since(Instant::now());
        let (tag, authorities) = (tag.as_deref(), self.authorities.as_deref());
        let ask = Ask { from: place, tag, authorities, spare: self.spare, most: FILE_MAX, silence, longest };
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

/// The end of the turn of the first of so many places, which are to be done at `until`.
fn share(now: Instant, until: Instant, places: usize) -> Instant {
    now + until.saturating_duration_since(now) / u32::try_from(places).unwrap_or(u32::MAX).max(1)
}

/// What was fetched is not what the release says.
pub fn another(url: &str, found: &Pin, expected: &Pin) -> Problem {
    unlike(url, expected.kind(), &found.to_string(), &expected.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_has_its_share_of_the_time_that_is_left() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(share(now, at(60), 3), at(20));
        assert_eq!(share(at(5), at(60), 1), at(60), "what others left is the last one's");
        assert_eq!(share(at(70), at(60), 2), at(70), "and none is over at once");
    }
}
