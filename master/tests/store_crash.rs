//! Processes that die while they write, disks that fill up, and two processes in one folder.
//!
//! `PLAT_KILL_ROUNDS` (default 20) sets how often the writer is killed.

mod crash;

use crash::{Job, STORE_FAILED, acknowledged, verify};
use plat_master::store::{EngineKind, open};
use plat_model::problem::codes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

const BYTES: usize = 600;

fn job(folder: &Path, kind: EngineKind, writers: u64, commits: u64) -> Job {
    Job { folder: folder.to_owned(), kind, writers, commits, bytes: BYTES }
}

#[test]
#[ignore = "run by the other tests, as a process of its own"]
fn writer_process() {
    crash::write();
}

/// Kills 64 writers at random moments, again and again in one folder.
fn killed_writers(kind: EngineKind) {
    let rounds = std::env::var("PLAT_KILL_ROUNDS").map_or(20, |text| text.parse().expect("a number"));
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("store");
    let mut random = StdRng::seed_from_u64(7);
    let mut heard: BTreeMap<u64, u64> = BTreeMap::new();
    for round in 0..rounds {
        let mut child = job(&folder, kind, 64, u64::MAX).command(&[]);
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut text = String::new();
        // A number of acknowledgements is waited for, never a time; zero kills it while it opens.
        for _ in 0..random.random_range(0..1500) {
            assert!(lines.read_line(&mut text).unwrap() > 0, "round {round}: it ended by itself: {text:.400}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        lines.read_to_string(&mut text).unwrap();
        heard.extend(acknowledged(&text));
        if round % 5 == 4 || round + 1 == rounds {
            let copy = tempfile::tempdir().unwrap();
            // Checked on a copy, so that the next writers go on with what the killed ones left.
            assert!(Command::new("cp").arg("-a").arg(&folder).arg(copy.path()).status().unwrap().success());
            verify(&copy.path().join("store"), kind, BYTES, &heard)
                .unwrap_or_else(|failure| panic!("{kind}, round {round}: {failure}"));
        }
    }
    assert!(heard.values().sum::<u64>() > rounds, "commits were acknowledged: {heard:?}");
}

#[test]
fn killed_writers_lose_no_acknowledged_commit_of_a_redb_store() {
    killed_writers(EngineKind::Redb);
}

#[test]
fn killed_writers_lose_no_acknowledged_commit_of_a_sled_store() {
    killed_writers(EngineKind::Sled);
}

/// Runs a writer under `wrapper` until it says that the store failed; returns what was acknowledged.
fn write_until_full(job: &Job, wrapper: &[&str]) -> BTreeMap<u64, u64> {
    let run = job.command(wrapper).output().unwrap();
    let text = String::from_utf8_lossy(&run.stderr).into_owned();
    assert_eq!(run.status.code(), Some(STORE_FAILED), "{text:.2000}");
    let heard = acknowledged(&text);
    assert!(heard.values().sum::<u64>() > 8, "some commits fitted: {text:.2000}");
    heard
}

#[test]
fn a_file_that_may_not_grow_fails_the_store_and_loses_nothing() {
    for kind in EngineKind::ALL {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("store");
        // In units of 512 bytes. The signal that comes with it is ignored, so that writing fails instead.
        let limited = ["sh", "-c", "trap '' XFSZ; ulimit -f 6000; exec \"$@\"", "sh"];
        let heard = write_until_full(&job(&folder, kind, 8, 100_000), &limited);
        verify(&folder, kind, BYTES, &heard).unwrap_or_else(|failure| panic!("{kind}: {failure}"));
    }
}

#[test]
fn a_full_disk_fails_the_store_and_it_opens_again_when_there_is_room() {
    let root = std::fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0);
    assert!(root, "this test mounts a small file system and needs root");
    for kind in EngineKind::ALL {
        let home = tempfile::tempdir().unwrap();
        let (disk, saved) = (home.path().join("disk"), home.path().join("saved"));
        std::fs::create_dir(&disk).unwrap();
        let folder = disk.join("store");
        // In a mount namespace of its own, which ends with the processes in it. What is on the disk in the end is
        // copied to a larger one.
        let script = format!(
            "mount -t tmpfs -o size=3m none {disk} || exit 9; \"$@\"; code=$?; cp -a {disk} {saved} || exit 8; exit $code",
            disk = disk.display(),
            saved = saved.display()
        );
        let full = ["unshare", "--mount", "sh", "-c", &script, "sh"];
        let heard = write_until_full(&job(&folder, kind, 8, 100_000), &full);
        verify(&saved.join("store"), kind, BYTES, &heard).unwrap_or_else(|failure| panic!("{kind}: {failure}"));
    }
}

#[test]
fn a_second_process_is_refused_while_the_first_has_the_folder() {
    for kind in EngineKind::ALL {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("store");
        let mut child = job(&folder, kind, 1, u64::MAX).command(&[]);
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert!(line.starts_with("ack 0 1"), "{line}");
        // Its acknowledgements are read on, so that it keeps writing.
        let reader = std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()).unwrap());
        let problem = open(&folder, Some(kind)).err().expect("it is refused");
        child.kill().unwrap();
        child.wait().unwrap();
        reader.join().unwrap();
        assert_eq!(problem.code, codes::STORE_FAILED);
        assert!(problem.why.contains("another process has it open"), "{problem}");
        verify(&folder, kind, BYTES, &BTreeMap::from([(0, 1)])).unwrap_or_else(|failure| panic!("{kind}: {failure}"));
    }
}
