//! What services say, as the machine's journal keeps it.

use super::names::Names;
use crate::host::linux::runtime::{LogLines, Records};
use crate::host::linux::shim::RunState;
use plat_agent_plan::Steady;
use plat_model::id::{InstanceId, PartitionName, ServiceName};
use serde::Deserialize;
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// Most lines that are told at once, the newest.
const LINES_MAX: usize = 10_000;
/// Most that is told of them at once, the newest, in bytes.
const BYTES_MAX: usize = 2 << 20;
/// Last lines of a run that has ended.
const TAIL: usize = 10;
const TAIL_LINE: usize = 500;
/// Longest line that is told, in characters.
const LINE_MAX: usize = 4096;

/// How many of a unit's last entries are looked at for the last lines of one run: what the next run has said by then is
/// among them.
const LOOKED_AT: &str = "200";

/// By so many milliseconds two readings of one moment may differ that come by different clocks.
const ROUNDED: u64 = 2;

/// One entry of the journal. Of what a program said at its very end, the journal daemon may find out no more than the unit: what
/// systemd tells of a unit to the daemon goes with the unit's last process.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "_SYSTEMD_INVOCATION_ID")]
    run: Option<String>,
    #[serde(rename = "_SYSTEMD_UNIT")]
    unit: Option<String>,
    #[serde(rename = "PLAT_INSTANCE")]
    instance: Option<String>,
    #[serde(rename = "MESSAGE")]
    message: Option<Message>,
    #[serde(rename = "__REALTIME_TIMESTAMP")]
    micros: String,
    /// Of the clock that nobody can set.
    #[serde(rename = "__MONOTONIC_TIMESTAMP")]
    steady_micros: String,
    /// Without hyphens.
    #[serde(rename = "_BOOT_ID")]
    boot: String,
    #[serde(rename = "__CURSOR")]
    cursor: String,
}

/// What is no text comes as bytes.
#[derive(Deserialize)]
#[serde(untagged)]
enum Message {
    Text(String),
    Bytes(Vec<u8>),
}

struct Line {
    millis: i64,
    text: String,
}

/// The newest of what was read, as much of it as is told at once.
#[derive(Default)]
struct Said {
    lines: VecDeque<Line>,
    /// Of all texts.
    bytes: usize,
    /// Of the last entry.
    cursor: Option<String>,
}

impl Said {
    fn take(&mut self, entry: Entry, most: usize) {
        let line = entry.line(most);
        self.bytes += line.text.len();
        self.lines.push_back(line);
        self.cursor = Some(entry.cursor);
        while self.bytes > BYTES_MAX || self.lines.len() > LINES_MAX {
            self.bytes -= self.lines.pop_front().map_or(self.bytes, |line| line.text.len());
        }
    }
}

/// When a run began.
struct Since {
    /// As in [`Entry::boot`].
    boot: String,
    began: Option<Steady>,
}

impl Since {
    fn of(run: &RunState) -> Self {
        Self { boot: run.boot.replace('-', ""), began: run.began }
    }
}

impl Entry {
    /// Whether it is of a run: `told` is what it should say, `said` what it says of that. Without a word of that it is if the run
    /// had begun, by the clock that nobody can set: one that was set back would give a tenant what another one had said before.
    /// (On a machine that has slept, of whose sleep the journal's clock knows nothing, it is of none.)
    fn is_of(&self, said: Option<&String>, told: &str, since: &Since) -> bool {
        let had_begun = || {
            let steady = self.steady_micros.parse::<u64>().unwrap_or(0) / 1000 + ROUNDED;
            self.boot == since.boot && since.began.is_some_and(|began| steady >= began.0)
        };
        said.map_or_else(had_begun, |said| said == told)
    }

    fn millis(&self) -> i64 {
        self.micros.parse::<i64>().unwrap_or(0) / 1000
    }

    fn line(&self, most: usize) -> Line {
        let text = match &self.message {
            Some(Message::Text(text)) => text.into(),
            Some(Message::Bytes(bytes)) => String::from_utf8_lossy(bytes),
            None => "".into(),
        };
        let text = text.chars().filter(|c| !c.is_control() || *c == '\t').take(most).collect();
        Line { millis: self.millis(), text }
    }
}

/// Entries that match and are wanted, in order; none if the journal cannot be read.
fn read(arguments: &[&str], most: usize, is_wanted: impl Fn(&Entry) -> bool) -> Said {
    let mut said = Said::default();
    each(arguments, |entry| match is_wanted(&entry) {
        true => said.take(entry, most),
        false => said.cursor = Some(entry.cursor),
    });
    said
}

/// Entries that match, in order.
fn each(arguments: &[&str], take: impl FnMut(Entry)) {
    let mut journal = Command::new("journalctl");
    journal.args([
        "--quiet",
        "--no-pager",
        "--output=json",
        "--all",
        "--output-fields=MESSAGE,PLAT_INSTANCE,_SYSTEMD_INVOCATION_ID,_SYSTEMD_UNIT",
    ]);
    let begun = journal.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    match begun {
        Ok(mut child) => {
            // One at a time: a tenant says how much there is.
            let entries = child.stdout.take().map(|out| BufReader::new(out).split(b'\n')).into_iter().flatten();
            let entries = entries.map_while(Result::ok).filter_map(|json| serde_json::from_slice(&json).ok());
            entries.for_each(take);
            let _ = child.wait();
        }
        Err(why) => tracing::warn!(%why, "journalctl cannot be run"),
    }
}

/// What has been said until now can be read afterwards.
fn catch_up() {
    let _ = Command::new("journalctl")
        .arg("--sync")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

/// The last lines of a run that has ended; and if it could not even begin, why.
pub fn end(unit: &str, run: &RunState, failed: bool) -> (Vec<String>, Option<String>) {
    catch_up();
    let unit_is = format!("_SYSTEMD_UNIT={unit}");
    let since = Since::of(run);
    let is_of = |entry: &Entry| entry.is_of(entry.run.as_ref(), &run.run, &since);
    let mut said = read(&["--boot", "--lines", LOOKED_AT, &unit_is, "_TRANSPORT=stdout"], TAIL_LINE, is_of).lines;
    said.drain(..said.len().saturating_sub(TAIL));
    (said.into_iter().map(|line| line.text).collect(), failed.then(|| why(unit, &run.run)).flatten())
}

/// Why systemd could not execute a unit's program, in its own words.
pub fn failure(unit: &str, run: &str) -> Option<String> {
    catch_up();
    why(unit, run)
}

fn why(unit: &str, run: &str) -> Option<String> {
    let of = [format!("INVOCATION_ID={run}"), format!("UNIT={unit}")];
    let said = read(&["--boot", "--lines", LOOKED_AT, &of[0], &of[1], "_UID=0"], TAIL_LINE, |_| true);
    let texts: Vec<String> = said.lines.into_iter().map(|line| line.text).collect();
    let known = ["Failed to", "failed to", "Failed at"];
    texts.iter().find(|text| known.iter().any(|start| text.contains(start))).or(texts.first()).cloned()
}

/// A service of an instance.
type Key = (InstanceId, ServiceName);

/// Lines of the services that the partition has records of, of the instances that those are of.
pub struct JournalLines {
    records: Records,
    names: Names,
    partition: PartitionName,
    /// `None`: of all.
    service: Option<ServiceName>,
    /// Up to where those have been read that have said something.
    read: BTreeMap<Key, String>,
    is_begun: bool,
}

impl JournalLines {
    pub fn new(records: Records, names: Names, partition: PartitionName, service: Option<ServiceName>) -> Self {
        Self { records, names, partition, service, read: BTreeMap::new(), is_begun: false }
    }
}

/// One look at the journal: after which entry, and for whom.
#[derive(Debug, PartialEq, Eq)]
struct Look {
    after: Option<String>,
    of: Vec<Key>,
}

/// As few as can be, for each is a process: those that have been read go on together, and so do those that had said nothing.
/// The first time each is looked at by itself: one that has said much would push the others' lines out.
fn looks(read: &BTreeMap<Key, String>, wanted: impl Iterator<Item = Key>, is_first: bool) -> Vec<Look> {
    if is_first {
        return wanted.map(|key| Look { after: None, of: vec![key] }).collect();
    }
    let (known, silent): (Vec<_>, Vec<_>) = wanted.partition(|key| read.contains_key(key));
    let after = known.iter().filter_map(|key| read.get(key)).min_by_key(|cursor| number(cursor)).cloned();
    let looks = [Look { after, of: known }, Look { after: None, of: silent }];
    looks.into_iter().filter(|look| !look.of.is_empty()).collect()
}

/// Which entry a cursor is of, of all that one journal daemon has numbered.
fn number(cursor: &str) -> Option<(&str, u64)> {
    let part = |name: &str| cursor.split(';').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    Some((part("s")?, u64::from_str_radix(part("i")?, 16).ok()?))
}

fn is_after(cursor: &str, other: &str) -> bool {
    match (number(cursor), number(other)) {
        (Some(this), Some(that)) if this.0 == that.0 => this.1 > that.1,
        _ => cursor != other,
    }
}

impl LogLines for JournalLines {
    fn fresh(&mut self) -> Vec<(i64, ServiceName, String)> {
        let Ok(runs) = self.records.runs(&self.partition) else { return Vec::new() };
        let wanted = runs.into_iter().filter(|(service, _)| self.service.as_ref().is_none_or(|only| only == service));
        let unit = |service: &ServiceName| self.names.service(&self.partition, service);
        let by_unit: BTreeMap<_, _> = wanted
            .map(|(service, state)| {
                let (instance, since) = (state.instance.to_string(), Since::of(&state));
                (unit(&service), ((state.instance, service), instance, since))
            })
            .collect();
        let is_first = !std::mem::replace(&mut self.is_begun, true);
        if is_first {
            catch_up();
        }
        let mut lines = Vec::new();
        for look in looks(&self.read, by_unit.values().map(|(key, ..)| key.clone()), is_first) {
            let from = look.after.map_or(format!("--lines={LINES_MAX}"), |cursor| format!("--after-cursor={cursor}"));
            let units: Vec<_> = look.of.iter().map(|(_, name)| format!("_SYSTEMD_UNIT={}", unit(name))).collect();
            let mut arguments = vec![&*from, "_TRANSPORT=stdout"];
            arguments.extend(units.iter().map(String::as_str));
            // For each of them as much as is told at once.
            let (mut said, mut last) = (BTreeMap::<_, Said>::new(), None);
            each(&arguments, |entry| {
                let Some((key, instance, since)) = entry.unit.as_ref().and_then(|unit| by_unit.get(unit)) else {
                    return;
                };
                if self.read.get(key).is_some_and(|read| !is_after(&entry.cursor, read)) {
                    return;
                }
                last = Some(entry.cursor.clone());
                if entry.is_of(entry.instance.as_ref(), instance, since) {
                    said.entry(key).or_default().take(entry, LINE_MAX);
                }
            });
            for ((_, service), said) in said {
                lines.extend(said.lines.into_iter().map(|line| (line.millis, service.clone(), line.text)));
            }
            // Up to there all of them have been read.
            self.read.extend(last.iter().flat_map(|last| look.of.iter().map(|key| (key.clone(), last.clone()))));
        }
        lines.sort_by_key(|line| line.0);
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(cursor: &str, message: &str) -> Entry {
        let json = format!(
            r#"{{"__CURSOR": "{cursor}", "__REALTIME_TIMESTAMP": "1700000000000000", "__MONOTONIC_TIMESTAMP": "5000000",
                "_BOOT_ID": "b007", "MESSAGE": {message}}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn a_line_is_read_whether_it_is_text_or_not() {
        let text = |message: &str, most| entry("c", message).line(most).text;
        assert_eq!(text(r#""said\tit""#, 99), "said\tit");
        assert_eq!(text("[104, 105, 27, 255]", 99), "hi\u{fffd}");
        assert_eq!(text("null", 99), "");
        assert_eq!(text(r#""long""#, 2), "lo");
    }

    fn key(service: &str) -> Key {
        (InstanceId::parse(&"a".repeat(32)).unwrap(), ServiceName::parse(service).unwrap())
    }

    #[test]
    fn however_many_services_are_followed_the_journal_is_asked_once_for_them_and_once_for_the_silent() {
        let all: Vec<_> = (0..9).map(|n| key(&format!("s{n}"))).collect();
        assert_eq!(looks(&BTreeMap::new(), all.iter().cloned(), true).len(), 9, "each by itself at first");
        let read: BTreeMap<_, _> = (0..5).map(|n| (all[n].clone(), format!("s=ab;i={:x};b=c", 0x10 - n))).collect();
        let known = Look { after: Some("s=ab;i=c;b=c".into()), of: all[..5].to_vec() };
        let silent = Look { after: None, of: all[5..].to_vec() };
        assert_eq!(looks(&read, all.iter().cloned(), false), [known, silent]);
        assert_eq!(looks(&read, all[..5].iter().cloned(), false).len(), 1);
    }

    #[test]
    fn an_entry_comes_after_those_with_lower_numbers_and_after_another_daemons() {
        assert!(is_after("s=ab;i=10;b=c", "s=ab;i=f;b=d") && !is_after("s=ab;i=f;b=c", "s=ab;i=10;b=d"));
        assert!(!is_after("s=ab;i=f", "s=ab;i=f") && is_after("s=ab;i=1", "s=cd;i=2"));
        assert!(is_after("odd", "even") && !is_after("odd", "odd"));
    }

    #[test]
    fn a_line_of_which_no_run_is_known_is_that_of_the_run_that_had_begun() {
        let entry = entry("c", r#""said""#);
        let since = |boot: &str, began: u64| Since { boot: boot.into(), began: Some(Steady(began)) };
        let (before, after) = (since("b007", 4999), since("b007", 5003));
        assert!(entry.is_of(None, "a", &before) && !entry.is_of(None, "a", &after));
        assert!(!entry.is_of(None, "a", &since("another", 4999)), "the clock began again");
        assert!(!entry.is_of(None, "a", &Since { boot: "b007".into(), began: None }));
        assert!(entry.is_of(Some(&"a".into()), "a", &after) && !entry.is_of(Some(&"b".into()), "a", &before));
    }

    #[test]
    fn however_much_is_said_only_so_much_is_held_and_reading_goes_on_after_all_of_it() {
        let said = |message: &str| {
            let mut said = Said::default();
            (0..3 * LINES_MAX).for_each(|n| said.take(entry(&n.to_string(), message), LINE_MAX));
            assert_eq!(said.cursor, Some((3 * LINES_MAX - 1).to_string()));
            said.lines.len()
        };
        assert_eq!(said(r#""""#), LINES_MAX, "lines without a text are lines");
        let long = "x".repeat(1000);
        assert_eq!(said(&format!(r#""{long}""#)), BYTES_MAX / long.len());
    }
}
