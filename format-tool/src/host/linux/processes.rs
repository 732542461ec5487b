//! Who runs something. /proc is listed first and looked into afterwards: whoever has each process start the next one and
//! end, all the time, may be in none of those that are looked into. The kernel goes through its own list, in which a
//! process is before the one that started it is gone; so it is asked about each uid that matters. It knows the real uid alone:
//! whoever may run as another one besides is looked for among the newest processes, where he cannot have ended yet.

use super::failed;
use plat_model::problem::Result;
use rustix::io::Errno;
use rustix::process::Uid;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often it is looked before what has ended is taken for what keeps ending.
const LOOKS: usize = 5;
/// How many numbers of containers the kernel is asked about, of all that go: one that nobody uses takes a fraction of a
/// microsecond.
const ASKED_MAX: usize = 1 << 20;
/// How long the newest processes are looked into where others ended before they were. On a busy machine some always do.
const CHASED_FOR: Duration = Duration::from_millis(10);

/// The uids of all processes there are: all four of each, for who runs a set-uid program is its real uid alone. None is
/// missed whose real uid is one of `asked`, or in one of `ranges` (the first number and how many), but for what starts and ends
/// all the time beside a process of the same uid that has ended and that root does not wait for, or that goes from one number of
/// a range to the next; what starts and ends all the time with such a number as another of its four may be.
pub(super) fn busy_uids(asked: &BTreeSet<u32>, ranges: &[(u32, u32)]) -> Result<BTreeSet<u32>> {
    let numbers = |(first, count): &(u32, u32)| *first..first.saturating_add(*count);
    let ranges: Vec<u32> = ranges.iter().flat_map(numbers).take(ASKED_MAX).collect();
    let (mut last, mut looks) = (BTreeSet::new(), 0);
    loop {
        let Seen { mut busy, ended, .. } = look()?;
        let mut waited_for = BTreeSet::new();
        for uid in asked.iter().chain(&ranges) {
            if busy.contains(uid) || !has_processes(*uid)? {
                continue;
            }
            match ended.get(uid) {
                Some(ended) => waited_for.extend(ended.iter().cloned().map(|process| (*uid, process))),
                // It was not there to be looked into.
                None => drop(busy.insert(*uid)),
            }
        }
        looks += 1;
        // Those that stay, ended as they are, only wait for their parent.
        if waited_for.is_subset(&last) {
            return Ok(busy);
        }
        if looks == LOOKS {
            busy.extend(waited_for.difference(&last).map(|(uid, _)| uid));
            return Ok(busy);
        }
        last = waited_for;
    }
}

/// A process that has ended, and that its parent has not waited for yet: its number, and when it was started.
type Ended = (String, String);

#[derive(Default)]
struct Seen {
    busy: BTreeSet<u32>,
    /// By real uid.
    ended: BTreeMap<u32, BTreeSet<Ended>>,
}

impl Seen {
    /// False: it has gone meanwhile.
    fn take_in(&mut self, number: &str) -> Result<bool> {
        let path = Path::new("/proc").join(number);
        let Some(status) = read(&path, "status")? else { return Ok(false) };
        let uids = uids_of(&status);
        if !has_ended(&status) || !is_left_by_root(&status)? {
            self.busy.extend(uids);
        } else if let (Some(real), Some(stat)) = (uids.first(), read(&path, "stat")?) {
            self.ended.entry(*real).or_default().insert((number.to_owned(), started(&stat)));
        }
        Ok(true)
    }

    /// The process that was started last, as long as it is there: nobody can have ended it before it was.
    fn chase(&mut self, patience: Duration) -> Result<()> {
        let (begun, mut seen) = (Instant::now(), String::new());
        while begun.elapsed() < patience {
            // Not every kernel tells it.
            let Ok(newest) = fs::read_to_string("/proc/sys/kernel/ns_last_pid") else { return Ok(()) };
            if newest != seen {
                self.take_in(newest.trim())?;
                seen = newest;
            }
        }
        Ok(())
    }
}

fn look() -> Result<Seen> {
    let entries = fs::read_dir("/proc").map_err(|e| failed("processes cannot be listed", e))?;
    let processes = entries.flatten().filter(|entry| entry.file_name().as_encoded_bytes()[0].is_ascii_digit());
    let mut seen = Seen::default();
    let mut all_were_there = true;
    for process in processes {
        all_were_there &= seen.take_in(&process.file_name().to_string_lossy())?;
    }
    if !all_were_there {
        seen.chase(CHASED_FOR)?;
    }
    Ok(seen)
}

/// `None`: one that has gone meanwhile is no process.
fn read(process: &Path, name: &str) -> Result<Option<String>> {
    match fs::read(process.join(name)) {
        Ok(text) => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(nix::libc::ESRCH) => Ok(None),
        Err(e) => Err(failed(format!("{} cannot be looked at", process.display()), e)),
    }
}

fn value<'a>(status: &'a str, name: &str) -> &'a str {
    status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim()
}

/// Real, effective, saved and file system's, of a process's status.
fn uids_of(status: &str) -> Vec<u32> {
    value(status, "Uid:").split_whitespace().filter_map(|uid| uid.parse().ok()).collect()
}

/// Whether a process does nothing any more. One whose first thread alone has ended looks the same, and has others.
fn has_ended(status: &str) -> bool {
    value(status, "State:").starts_with('Z') && value(status, "Threads:") == "1"
}

/// Whether it is root's process that does not wait for one that has ended, as the first one of many a container does not. Any
/// other may have been made for hiding what else runs.
fn is_left_by_root(status: &str) -> Result<bool> {
    let parent = read(&Path::new("/proc").join(value(status, "PPid:")), "status")?;
    Ok(parent.is_none_or(|parent| uids_of(&parent).first() == Some(&0)))
}

/// When a process was started: field 22 of proc_pid_stat(5). The second, its name, may hold anything.
fn started(stat: &str) -> String {
    let behind = stat.rsplit_once(')').map_or("", |(_, behind)| behind);
    behind.split_whitespace().nth(19).unwrap_or_default().to_owned()
}

/// Whether the kernel knows any process of this real uid, be it one that has ended.
fn has_processes(uid: u32) -> Result<bool> {
    match rustix::process::getpriority_user(Uid::from_raw(uid)) {
        Ok(_) => Ok(true),
        Err(Errno::SRCH) => Ok(false),
        Err(e) => Err(failed(format!("the processes of uid {uid} cannot be asked about"), e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    /// Nobody else's.
    const UID: u32 = 60_871;

    fn is_busy() -> bool {
        busy_uids(&BTreeSet::from([UID]), &[]).unwrap().contains(&UID)
    }

    fn as_user(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", script, script])
            .uid(UID)
            .gid(UID)
            .current_dir("/")
            .stdout(Stdio::piped())
            .stdin(Stdio::piped());
        command
    }

    #[test]
    fn a_process_is_of_each_of_its_four_uids() {
        let status = "Name:\tsudo\nUmask:\t0022\nUid:\t61001\t0\t0\t0\nGid:\t7\t7\t7\t7\n";
        assert_eq!(uids_of(status), [61_001, 0, 0, 0]);
        let ended = |threads| format!("Name:\tsh\nState:\tZ (zombie)\nThreads:\t{threads}\n{status}");
        assert!(has_ended(&ended(1)));
        assert!(!has_ended(&ended(2)), "its first thread has ended, another has not");
        assert!(!has_ended(status));
        assert_eq!(started("7 (a) b) S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0"), "4711");
        assert!(look().unwrap().busy.contains(&rustix::process::getuid().as_raw()));
    }

    #[test]
    fn a_user_is_busy_whose_processes_come_and_go_and_is_not_when_they_only_wait_to_be_counted_out() {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "this test needs root, and CI must run it");
            eprintln!("SKIPPED: this test needs root");
            return;
        }
        assert!(!is_busy());
        // Each starts the next and ends, until the pipe is closed that each writes to.
        let mut chain = as_user("trap '' PIPE; echo x 2>/dev/null && { sh -c \"$0\" \"$0\" & }").spawn().unwrap();
        let mut out = chain.stdout.take().unwrap();
        out.read_exact(&mut [0]).unwrap();
        chain.wait().unwrap();
        for _ in 0..10 {
            out.read_exact(&mut [0]).unwrap();
            assert!(is_busy());
        }
        // As one of a range, if it is a container's.
        let in_a_range = |first| busy_uids(&BTreeSet::new(), &[(first, 10)]).unwrap().contains(&UID);
        for _ in 0..10 {
            out.read_exact(&mut [0]).unwrap();
            assert!(in_a_range(UID - 9));
        }
        drop(out);
        while is_busy() {
            std::thread::yield_now();
        }
        assert!(!in_a_range(UID - 9));
        // One that has ended, and nobody waits for.
        let mut ended = as_user("exit 0").spawn().unwrap();
        let status = format!("/proc/{}/status", ended.id());
        while !has_ended(&fs::read_to_string(&status).unwrap()) {
            std::thread::yield_now();
        }
        assert!(has_processes(UID).unwrap());
        assert!(!is_busy());
        // Another user's process does not wait for one.
        let script = format!("setpriv --reuid {UID} true & exec setpriv --reuid {} sleep 1000", UID + 1);
        let mut other = Command::new("/bin/sh").args(["-c", &script]).spawn().unwrap();
        let held = || fs::read_to_string(format!("/proc/{}/status", other.id())).unwrap();
        while uids_of(&held()).first() != Some(&(UID + 1)) || value(&held(), "Name:") != "sleep" {
            std::thread::yield_now();
        }
        let child = format!("/proc/{0}/task/{0}/children", other.id());
        let child = fs::read_to_string(child).unwrap();
        while !has_ended(&fs::read_to_string(format!("/proc/{}/status", child.trim())).unwrap()) {
            std::thread::yield_now();
        }
        assert!(is_busy());
        other.kill().unwrap();
        other.wait().unwrap();
        while is_busy() {
            std::thread::yield_now();
        }
        let mut runs = as_user("read line").spawn().unwrap();
        assert!(is_busy());
        drop(runs.stdin.take());
        runs.wait().unwrap();
        assert!(!is_busy());
        ended.wait().unwrap();
        while has_processes(UID).unwrap() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_newest_process_is_seen_although_it_ends_at_once() {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "this test needs root, and CI must run it");
            eprintln!("SKIPPED: this test needs root");
            return;
        }
        // Nobody else's, and not that of the other test.
        const UID: u32 = 60_881;
        let mut runs = Command::new("/bin/sh");
        let script = format!("while echo; do setpriv --ruid {} --euid {UID} true; done", UID + 1);
        let mut runs = runs.args(["-c", &script]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut out = runs.stdout.take().unwrap();
        loop {
            out.read_exact(&mut [0]).unwrap();
            let mut seen = Seen::default();
            seen.chase(CHASED_FOR).unwrap();
            if seen.busy.contains(&UID) {
                break;
            }
        }
        drop(out);
        runs.wait().unwrap();
    }
}
