//! Who waits for the same uplink: of several processes that would give it back, the one that was started last is to.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A process that waits: the record it looks at, as its arguments name it, and when it was started.
#[derive(Debug, PartialEq, Eq)]
struct Watching {
    of: Vec<OsString>,
    /// In which network: a container that runs the same program may call its record the same.
    network: (u64, u64),
    /// In clock ticks since the boot (proc(5)); of two in one tick the greater pid is the later.
    started: (u64, u32),
}

/// Whether no other process was started later for the same record. What cannot be looked at is none.
pub(super) fn is_last() -> bool {
    let Some(own) = watching(std::process::id()) else { return true };
    !beside(&own).any(|other| other.started > own.started)
}

/// Whether some process but this one waits for the same record as it does.
pub(super) fn is_awaited_without(pid: u32) -> bool {
    watching(pid).is_some_and(|own| beside(&own).next().is_some())
}

/// All others that wait for the same record.
fn beside(own: &Watching) -> impl Iterator<Item = Watching> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(watching).filter(move |other| other != own && (&other.of, other.network) == (&own.of, own.network))
}

fn watching(pid: u32) -> Option<Watching> {
    let place = Path::new("/proc").join(pid.to_string());
    // Anybody may call his programs as he likes, and those that are set-uid are root's.
    let program =
        |pid: &str| fs::metadata(Path::new("/proc").join(pid).join("exe")).map(|file| (file.dev(), file.ino()));
    if fs::metadata(&place).ok()?.uid() != rustix::process::geteuid().as_raw()
        || program(&pid.to_string()).ok()? != program("self").ok()?
    {
        return None;
    }
    let words = fs::read(place.join("cmdline")).ok()?;
    let words: Vec<OsString> = words.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect();
    let after = |name: &str| words.iter().skip_while(|word| *word != name).nth(1).cloned();
    let waits = words.iter().any(|word| word == "rollback") && after("--after").is_some();
    let of = vec![after("--record")?, after("--root")?];
    let network = fs::metadata(place.join("ns/net")).ok()?;
    let network = (network.dev(), network.ino());
    let stat = fs::read_to_string(place.join("stat")).ok()?;
    // The name of the program may hold anything; field 22 is the twentieth behind it.
    let started = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    waits.then_some(Watching { of, network, started: (started, pid) })
}
