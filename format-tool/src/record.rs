//! The record of what was made: one line of JSON an entry. A thing is written (and on the disk) before it is made, and
//! struck out after it is gone, so whatever instant the process ends at, everything of ours on the machine is in it.
//!
//! One write and one fdatasync for a whole batch. A last line without its end is what a crash left of a write whose
//! batch had not begun; it is dropped. What a reboot takes with it counts only in the boot and network namespace it was
//! made in (the [`Epoch`]); while that namespace is there, the record is of no use in another one.

mod epoch;
mod locks;
mod place;
#[cfg(test)]
mod tests;

pub use epoch::Epoch;
use locks::Locks;
use node_format_plan::{Claims, Thing};
use place::Place;
use plat_model::problem::{Problem, Result, codes};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

const VERSION: u32 = 1;
/// Lines before the first entry, in a record that is as short as it can be.
const HEAD: usize = 2;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Line {
    /// First line: the version of the form, and the directories made for the record itself.
    Record {
        version: u32,
        made_for_it: Vec<PathBuf>,
        /// By what each of these is known where the record, or its disk, is elsewhere by now.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        known_by: Vec<Known>,
        /// How many entries it had when it was last written as a whole: it has as many lines, or was cut off.
        #[serde(default)]
        entries: usize,
    },
    /// The entries after it were made in this boot and network namespace.
    Epoch(String),
    /// About to be made.
    Add(Thing),
    /// Gone.
    Gone(Thing),
}

/// A directory that was made for the record: outermost first.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Made {
    path: PathBuf,
    /// `None`: nobody has noted it.
    known: Option<Known>,
}

/// The number of a directory, and when it was made, in nanoseconds since 1970: another disk has the same numbers, and another
/// directory gets the number of one that is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Known(u64, u64);

impl Known {
    /// `None` where it is not there, or its file system does not say when it was made.
    fn of(path: &Path) -> Option<Self> {
        let about = path.symlink_metadata().ok()?;
        let born = about.created().ok()?.duration_since(UNIX_EPOCH).ok()?;
        Some(Self(about.ino(), u64::try_from(born.as_nanos()).ok()?))
    }
}

impl Made {
    fn all(paths: Vec<PathBuf>, known_by: Vec<Known>) -> impl Iterator<Item = Self> {
        let known_by = known_by.into_iter().map(Some).chain(std::iter::repeat(None));
        paths.into_iter().zip(known_by).map(|(path, known)| Self { path, known })
    }

    fn new(path: PathBuf) -> Self {
        let known = Known::of(&path);
        Self { path, known }
    }

    /// Whether this is it, whatever it is called.
    fn is(&self, path: &Path) -> bool {
        self.known.is_some() && Known::of(path) == self.known
    }
}

/// The record, open for writing (and then locked against every other node-format) or as read.
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
    /// `None` where there is no directory for it.
    place: Option<Place>,
    epoch: Epoch,
    claims: Claims,
    made_for_it: Vec<Made>,
    /// Whether the file is as [`Record::rewrite`] would write it.
    short: bool,
    /// `None` where it was only read.
    file: Option<File>,
    /// Whether what was last written may be there in part: the next line would be written to its end, and be none.
    torn: bool,
    /// Held while it is open for writing.
    locks: Option<Locks>,
}

impl Record {
    /// Whether there is one. One that this user may not look at is a problem, not absent.
    ///
    /// # Errors
    /// [`codes::RECORD`] if it cannot be looked for, or lies where others can write.
    pub fn exists(path: &Path) -> Result<bool> {
        Place::find(path)?.map_or(Ok(false), |place| place.is_taken())
    }

    /// Reads the record, if there is one, without locking or changing anything.
    ///
    /// # Errors
    /// [`codes::RECORD`] if it cannot be read, trusted or understood.
    pub fn read(path: &Path, epoch: &Epoch) -> Result<Self> {
        Self::read_at(path, Place::find(path)?, epoch)
    }

    /// Takes away what a run left that was killed before its first line in the record or after its last: files beside it, and the
    /// directories that were made for it as far as they say. Where there is a record, nothing.
    ///
    /// # Errors
    /// As [`Record::open`].
    pub fn clear_left(path: &Path, epoch: &Epoch) -> Result<()> {
        match Place::find(path)? {
            Some(place) if !place.is_taken()? && place.is_left()? => Self::open(path, epoch)?.finish().map(drop),
            _ => Ok(()),
        }
    }

    fn read_at(path: &Path, place: Option<Place>, epoch: &Epoch) -> Result<Self> {
        let text = place.as_ref().map_or(Ok(None), Place::read)?;
        let mut record = Self {
            path: path.to_path_buf(),
            place,
            epoch: epoch.clone(),
            claims: Claims::default(),
            made_for_it: Vec::new(),
            short: false,
            file: None,
            torn: false,
            locks: None,
        };
        if let Some(text) = text {
            record.take_in(&text)?;
        }
        Ok(record)
    }

    /// What the text of a record says. It takes its place with its first lines, so one without them is none of ours.
    fn take_in(&mut self, text: &str) -> Result<()> {
        // Whether what follows is of this epoch; `None` before any is named.
        let mut here = None;
        // Whether the last epoch is written as this one would be.
        let mut named = false;
        // What of another epoch is left, and the namespace it is in if that is still there.
        let (mut left, mut elsewhere) = (Claims::default(), None);
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut entries = 0;
        for (n, line) in whole.lines().enumerate() {
            let line: Line = serde_json::from_str(line).map_err(|e| self.broken(format!("line {}: {e}", n + 1)))?;
            match line {
                Line::Record { version: VERSION, made_for_it, known_by, entries: all } if n == 0 => {
                    (self.made_for_it, entries) = (Made::all(made_for_it, known_by).collect(), all);
                }
                Line::Record { version, .. } if n == 0 => {
                    return Err(self.wrong(format!("it is of version {version}, this node-format reads {VERSION}")));
                }
                Line::Record { .. } => return Err(self.broken(format!("line {} can only be the first", n + 1))),
                _ if n == 0 => return Err(self.broken("its first line, which says its version, is missing")),
                Line::Epoch(epoch) => {
                    (here, named) = (Some(self.epoch.is(&epoch)), epoch == self.epoch.to_string());
                    elsewhere = self.epoch.elsewhere(&epoch);
                    left = Claims::default();
                }
                Line::Add(thing) | Line::Gone(thing) if here.is_none() && thing.is_volatile() => {
                    return Err(self.broken(format!("line {}: in which boot was {thing:?} made?", n + 1)));
                }
                Line::Add(thing) if here == Some(true) || !thing.is_volatile() => self.claims.add(thing),
                Line::Gone(thing) if here == Some(true) || !thing.is_volatile() => self.claims.remove(&thing),
                Line::Add(thing) => left.add(thing),
                Line::Gone(thing) => left.remove(&thing),
            }
        }
        if whole.is_empty() {
            return Err(self.broken("it is empty"));
        }
        if whole.lines().count() < HEAD + entries {
            let there = whole.lines().count().saturating_sub(HEAD);
            return Err(self.broken(format!("it was cut off: it had {entries} entries, and has {there}")));
        }
        if let Some(namespace) = elsewhere.filter(|_| !left.is_empty()) {
            return Err(self.belongs_elsewhere(namespace, left.len()));
        }
        let as_written = text.len() == whole.len() + 1 && whole.lines().count() == HEAD + self.claims.iter().count();
        self.short = here == Some(true) && named && as_written;
        Ok(())
    }

    /// Reads the record for writing, making its directory (0700 at its end) where it is missing, and locks it.
    ///
    /// # Errors
    /// [`codes::RECORD`] if another node-format is at work, or the record cannot be read or written.
    pub fn open(path: &Path, epoch: &Epoch) -> Result<Self> {
        Self::open_waiting(path, epoch, || {})
    }

    /// As [`Record::open`]; `waiting` is called if another run (1 s at most: one that was killed may still be ending) or a
    /// program that a killed run started (30 s at most) is waited for.
    ///
    /// # Errors
    /// As [`Record::open`].
    pub fn open_waiting(path: &Path, epoch: &Epoch, waiting: impl FnOnce()) -> Result<Self> {
        let mut waiting = Some(waiting);
        let mut wait = || waiting.take().into_iter().for_each(|waiting| waiting());
        let mut made_for_it = Vec::new();
        let taken = (0..place::TRIES).find_map(|_| {
            let take = |(place, made): (Place, Vec<PathBuf>)| {
                made_for_it.extend(made.into_iter().map(Made::new));
                Ok(Locks::take(&place, &mut wait)?.map(|locks| (place, locks)))
            };
            Place::make(path).and_then(take).transpose()
        });
        let gone = || wrong(path, "other runs removed its directory again and again").fix("wait until they have ended");
        let (place, locks) = taken.ok_or_else(gone)??;
        if let Some(Ok(Line::Record { made_for_it: made, known_by, .. })) =
            place.left()?.lines().next().map(serde_json::from_str)
        {
            made_for_it.splice(0..0, Made::all(made, known_by));
        }
        let mut record = Self::read_at(path, Some(place), epoch)?;
        for made in made_for_it {
            // One that was removed in between is made twice.
            if !record.made_for_it.iter().any(|known| known.path == made.path) {
                record.made_for_it.push(made);
                // Another run, which came first, knows nothing of it.
                record.short = false;
            }
        }
        record.locks = Some(locks);
        if record.short {
            // Nothing to tidy up: a run that has nothing to do leaves the disk alone.
            let file = record.place.as_ref().map(Place::append).transpose().map_err(|e| record.wrong(e))?;
            record.file = file;
        } else {
            record.rewrite().inspect_err(|_| record.leave_nothing())?;
        }
        Ok(record)
    }

    /// What a program that is started must keep open, so that it is waited for if this process is killed.
    pub fn children(&self) -> Option<&File> {
        self.locks.as_ref().map(Locks::children)
    }

    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Notes what is about to be made; it is on the disk when this returns.
    ///
    /// # Errors
    /// [`codes::RECORD`]; nothing must then be made.
    pub fn add(&mut self, things: impl IntoIterator<Item = Thing>) -> Result<()> {
        let things: Vec<Thing> = things.into_iter().collect();
        self.append(things.iter().cloned().map(Line::Add))?;
        things.into_iter().for_each(|thing| self.claims.add(thing));
        Ok(())
    }

    /// Strikes out what is gone.
    ///
    /// # Errors
    /// [`codes::RECORD`]; the entries then name things that do not exist, which the next plan finds out.
    pub fn strike(&mut self, things: impl IntoIterator<Item = Thing>) -> Result<()> {
        let things: Vec<Thing> = things.into_iter().collect();
        things.iter().for_each(|thing| self.claims.remove(thing));
        self.append(things.into_iter().map(Line::Gone))
    }

    /// Writes the record anew as short as it can be; removes it, and the directories made for it, once it is empty. Returns the
    /// innermost of these that holds something else: it stays, with those above it.
    ///
    /// # Errors
    /// [`codes::RECORD`].
    pub fn finish(mut self) -> Result<Option<PathBuf>> {
        if !self.claims.is_empty() {
            return match if self.short { Ok(()) } else { self.rewrite() } {
                Err(problem) if self.torn => Err(problem),
                // It is there whole, and only longer than it need be: the next run makes it short.
                _ => Ok(None),
            };
        }
        let Some(place) = &self.place else { return Ok(None) };
        place.put_aside().map_err(|e| self.wrong(e))?;
        Locks::remove_file(place);
        place.clear().map_err(|e| self.wrong(e))?;
        Ok(self.leave_directories())
    }

    /// Removes the directories made for it; the innermost of them that stays.
    fn leave_directories(&self) -> Option<PathBuf> {
        let (its_own, is_short) = self.its_own();
        let stays = place::remove_empty(its_own.iter().rev()).next().cloned();
        // By which names the others are reached now nobody can say.
        let unknown = || self.path.ancestors().skip(1).find(|above| above.exists()).map(Path::to_path_buf);
        stays.or_else(|| if is_short { unknown() } else { None })
    }

    /// The directories made for it, by the names that they have now: where they were made, if the record lies in them. Else the
    /// record was moved, or the root that it was made beneath is another one, as of a disk that was mounted elsewhere then.
    /// Besides, whether one was looked for in vain.
    fn its_own(&self) -> (Vec<PathBuf>, bool) {
        let holds = |made: &&Made| self.path.starts_with(&made.path);
        if self.made_for_it.iter().any(|made| holds(&made)) {
            return (self.made_for_it.iter().filter(holds).map(|made| made.path.clone()).collect(), false);
        }
        let now = |made: &Made| {
            let mut places = self.path.ancestors().skip(1).chain([made.path.as_path()]);
            places.find(|place| made.is(place)).map(Path::to_path_buf)
        };
        let found: Vec<PathBuf> = self.made_for_it.iter().filter_map(now).collect();
        let is_short = found.len() < self.made_for_it.len();
        (found, is_short)
    }

    /// Where its first lines could not be written: nothing stays of what was made for it.
    fn leave_nothing(&self) {
        if let Some(place) = self.place.as_ref().filter(|place| place.is_taken() == Ok(false)) {
            Locks::remove_file(place);
            self.leave_directories();
        }
    }

    fn append(&mut self, lines: impl Iterator<Item = Line>) -> Result<()> {
        let text = lines_of(lines);
        if text.is_empty() {
            return Ok(());
        }
        let Some(file) = &mut self.file else { return Err(self.wrong("it was opened for reading only")) };
        self.short = false;
        let written = write_whole(file, &text, &mut self.torn);
        written.map_err(|e| self.wrong(e))
    }

    fn rewrite(&mut self) -> Result<()> {
        let made_for_it = self.made_for_it.iter().map(|made| made.path.clone()).collect();
        // All of them, or none: an older record says of none.
        let known_by = self.made_for_it.iter().map(|made| made.known).collect::<Option<Vec<_>>>().unwrap_or_default();
        let entries = self.claims.iter().count();
        let head = Line::Record { version: VERSION, made_for_it, known_by, entries };
        let entries = self.claims.iter().cloned().map(Line::Add);
        let text = lines_of([head, Line::Epoch(self.epoch.to_string())].into_iter().chain(entries));
        let Some(place) = &self.place else { return Err(self.wrong("there is no directory for it")) };
        let file = place.replace(&text).map_err(|e| self.wrong(e))?;
        self.file = Some(file);
        (self.short, self.torn) = (true, false);
        Ok(())
    }

    fn belongs_elsewhere(&self, namespace: u64, things: usize) -> Problem {
        let why =
            format!("{things} of the things in it were made in the network namespace {namespace}, not in this one");
        let fix = "run node-format there (`lsns -t net` shows where that is, `nsenter --net=...` goes there); if that namespace is gone (a container was started anew), add `--links-gone`";
        self.wrong(why).fix(fix)
    }

    /// It is not as node-format wrote it.
    fn broken(&self, why: impl std::fmt::Display) -> Problem {
        let fix = "put it back from a copy; without one, move it away: `node-format plan` then says what of the node is in the way, to be removed by hand";
        self.wrong(why).fix(fix)
    }

    fn wrong(&self, why: impl std::fmt::Display) -> Problem {
        wrong(&self.path, why)
    }
}

/// Writes at the end of a file all or nothing. Where neither comes about the file is `torn`, and nothing more is written to it.
fn write_whole(file: &mut File, text: &str, torn: &mut bool) -> io::Result<()> {
    if *torn {
        return Err(io::Error::other("something was written to it in part, and could not be taken back"));
    }
    let before = file.metadata()?.len();
    *torn = true;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_data());
    *torn = written.is_err() && file.set_len(before).and_then(|()| file.sync_data()).is_err();
    written
}

fn wrong(path: &Path, why: impl std::fmt::Display) -> Problem {
    let problem = Problem::new(codes::RECORD, format!("the record {} cannot be used", path.display())).because(why);
    if rustix::process::geteuid().is_root() { problem } else { problem.fix("run node-format as root") }
}

fn lines_of(lines: impl Iterator<Item = Line>) -> String {
    lines.fold(String::new(), |mut text, line| {
        text.push_str(&serde_json::to_string(&line).unwrap_or_default());
        text.push('\n');
        text
    })
}
