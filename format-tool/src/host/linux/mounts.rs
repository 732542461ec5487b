//! Which mount something is on. Subvolumes of btrfs differ in their device, but not in this; what is mounted again elsewhere
//! (bind) differs in this, but not in its device.

mod owner;
mod within;

use rustix::fd::AsFd;
use rustix::fs::{AtFlags, StatxAttributes, StatxFlags};
use rustix::io::{Errno, Result};
use rustix::path::Arg;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A place on a file system, wherever that is mounted: its device, and the path on it.
type Place = (String, PathBuf);

/// What is mounted on what, in every mount namespace that a process is in: removing a directory takes away what is mounted on
/// it in any of them. Those of further user namespaces are passed over: anybody can make one, and would keep any directory
/// from being removed.
#[derive(Default)]
pub(super) struct Mounts {
    own: BTreeMap<u64, Mount>,
    /// What something is mounted on, and the process that sees it so; empty: this one.
    places: BTreeMap<Place, String>,
}

/// So many processes of one mount namespace are asked at most: who may change his root can have many.
const TIMES: u32 = 64;

/// What was found out about a mount namespace so far.
#[derive(Default)]
struct Asked {
    /// The mounts that those who told have for a root.
    roots: BTreeSet<u64>,
    /// Whether it was looked at from its own root.
    whole: bool,
    times: u32,
}

impl Asked {
    /// Whether a process with this root may know of more.
    fn lacks(&self, root: Option<u64>) -> bool {
        self.times < TIMES && (!self.whole || root.is_some_and(|root| !self.roots.contains(&root)))
    }
}

/// The mount that a process has for its root, if it has one as a whole. What is in another's has only its own part of that.
fn root_of(process: &Path) -> Option<u64> {
    let found = rustix::fs::statx(rustix::fs::CWD, process.join("root"), AtFlags::empty(), StatxFlags::empty()).ok()?;
    let is_whole = found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT)
        && found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
    (is_whole && found.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(found.stx_mnt_id)
}

struct Mount {
    device: String,
    /// What of the file system is mounted.
    root: PathBuf,
    at: PathBuf,
}

impl Mount {
    /// Where a path is on the file system, if it is beneath.
    fn place(&self, path: &Path) -> Option<Place> {
        let beneath = path.strip_prefix(&self.at).ok()?;
        let whole = if beneath.as_os_str().is_empty() { self.root.clone() } else { self.root.join(beneath) };
        Some((self.device.clone(), whole))
    }
}

impl Mounts {
    /// # Errors
    /// If no thread can be started for it: what only another one sees must not be overlooked for that.
    pub fn look() -> std::io::Result<Self> {
        Self::look_in(Path::new("/proc"))
    }

    fn look_in(proc: &Path) -> std::io::Result<Self> {
        let mut mounts = Self::default();
        let own = std::fs::read(proc.join("self/mountinfo"));
        mounts.own = own.map(|text| mounts.take_in(&text, String::new())).unwrap_or_default();
        let mut asked: BTreeMap<PathBuf, Asked> = BTreeMap::new();
        if let Ok(namespace) = std::fs::read_link(proc.join("self/ns/mnt")) {
            let roots = root_of(&proc.join("self")).into_iter().collect();
            asked.insert(namespace, Asked { roots, whole: true, times: 1 });
        }
        for process in std::fs::read_dir(proc).into_iter().flatten().flatten() {
            let name = process.file_name().to_string_lossy().into_owned();
            let namespace = || std::fs::read_link(process.path().join("ns/mnt"));
            // One that has ended, or that may not be looked at, shows none; another of the same namespace may.
            let Ok(found) = namespace() else { continue };
            let root = root_of(&process.path());
            let before = asked.get(&found);
            if !name.starts_with(|c: char| c.is_ascii_digit()) || before.is_some_and(|before| !before.lacks(root)) {
                continue;
            }
            let is_beneath = before.is_none() && owner::is_beneath(&process.path());
            let (mut whole, mut told) = (before.is_some_and(|before| before.whole), is_beneath);
            if !is_beneath {
                let comm = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                let who = format!("process {name} ({})", plat_model::id::shorten(comm.trim_end()));
                // One that is in a jail of its own shows only what is mounted there; and what another root was mounted above,
                // those alone whose root is beneath.
                let all = if whole { None } else { within::mountinfo(&process.path(), proc)? };
                whole |= all.is_some();
                let texts = [all, std::fs::read(process.path().join("mountinfo")).ok()];
                told = texts.into_iter().flatten().map(|text| mounts.take_in(&text, who.clone())).count() > 0;
            }
            // It may have gone to another one meanwhile.
            if told && namespace().is_ok_and(|now| now == found) {
                let asked = asked.entry(found).or_default();
                asked.roots.extend(root);
                (asked.whole, asked.times) = (whole, if is_beneath { TIMES } else { asked.times + 1 });
            }
        }
        Ok(mounts)
    }

    fn take_in(&mut self, text: &[u8], who: String) -> BTreeMap<u64, Mount> {
        let (mut all, mut parents) = (BTreeMap::new(), Vec::new());
        for Line { id, parent, device, root, at, .. } in lines(text) {
            let device = String::from_utf8_lossy(device).into_owned();
            all.insert(id, Mount { device, root, at });
            parents.push((id, parent));
        }
        for (id, parent) in parents {
            let place = all.get(&id).zip(all.get(&parent)).and_then(|(mount, parent)| parent.place(&mount.at));
            if let Some(place) = place {
                self.places.entry(place).or_insert_with(|| who.clone());
            }
        }
        all
    }

    /// Who sees something mounted on a directory or in it, if anybody does: a process in words; empty: this one. `mount`:
    /// the number of the mount that the directory lies in.
    pub fn beneath(&self, path: &Path, mount: u64) -> Option<&str> {
        let (device, at) = self.own.get(&mount)?.place(path)?;
        let mut from = self.places.range((device.clone(), at.clone())..);
        let (place, who) = from.next()?;
        (place.0 == device && place.1.starts_with(&at)).then_some(who.as_str())
    }
}

/// One mount, as /proc/PID/mountinfo tells of it (proc(5)).
pub(super) struct Line<'a> {
    pub id: u64,
    parent: u64,
    device: &'a [u8],
    root: PathBuf,
    pub at: PathBuf,
    /// Whether what is mounted in it is mounted in others too.
    pub is_shared: bool,
}

pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = Line<'_>> {
    text.split(|byte| *byte == b'\n').filter_map(|line| {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let [id, parent, device, root, at, _, told @ ..] = fields.as_slice() else { return None };
        let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse::<u64>().ok();
        // What it is to other mounts, up to a dash.
        let mut told = told.iter().take_while(|field| **field != b"-");
        let is_shared = told.any(|field| field.starts_with(b"shared:"));
        let (root, at) = (unescaped(root), unescaped(at));
        Some(Line { id: number(id)?, parent: number(parent)?, device, root, at, is_shared })
    })
}

/// The kernel writes spaces and the like as three octal digits.
fn unescaped(text: &[u8]) -> PathBuf {
    let (mut bytes, mut rest) = (Vec::new(), text);
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => (bytes.push(byte), rest = &behind[3..]).0,
            None => (bytes.push(*first), rest = behind).0,
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// Its number.
pub(super) fn mount_of(held: impl AsFd) -> Result<u64> {
    mount_at(held, c"", AtFlags::EMPTY_PATH)
}

/// That of what is seen by a name in a directory.
pub(super) fn mount_in(held: impl AsFd, name: &OsStr) -> Result<u64> {
    mount_at(held, name, AtFlags::SYMLINK_NOFOLLOW)
}

fn mount_at(held: impl AsFd, path: impl Arg, flags: AtFlags) -> Result<u64> {
    // It is told without being asked for; who asks for anything is refused by a FUSE of somebody else's.
    let seen = rustix::fs::statx(held, path, flags, StatxFlags::empty())?;
    // Before Linux 5.8 nobody can tell; better nothing is erased than what is mounted.
    if seen.stx_mask & StatxFlags::MNT_ID.bits() == 0 { Err(Errno::NOSYS) } else { Ok(seen.stx_mnt_id) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn one_that_ends_while_it_is_looked_at_hides_nothing_of_its_namespace() {
        let proc = tempfile::tempdir().unwrap();
        let info = "20 1 8:1 / / rw - ext4 /dev/vda rw\n21 20 8:2 / /srv/part0 rw - ext4 /dev/vdb rw\n";
        for process in (100..130).map(|number| number.to_string()).chain(["self".into()]) {
            let path = proc.path().join(&process);
            fs::create_dir_all(path.join("ns")).unwrap();
            let namespace = if process == "self" { "mnt:[1]" } else { "mnt:[2]" };
            symlink(namespace, path.join("ns/mnt")).unwrap();
            // Of the others no mounts can be read any more.
            let text = if process == "self" { info.lines().next().unwrap() } else { info };
            if ["self", "115"].contains(&process.as_str()) {
                fs::write(path.join("mountinfo"), text).unwrap();
            }
        }
        let mounts = Mounts::look_in(proc.path()).unwrap();
        assert_eq!(mounts.beneath(Path::new("/srv/part0"), 20), Some("process 115 ()"));
        assert_eq!(mounts.beneath(Path::new("/srv/part1"), 20), None);
    }

    #[test]
    fn whoever_has_another_root_is_asked_too() {
        let proc = tempfile::tempdir().unwrap();
        let own = "20 1 8:1 / / rw - ext4 /dev/vda rw\n";
        let beneath = "20 1 8:1 / / rw - ext4 /dev/vda rw\n21 20 8:2 / /srv/part0 rw - ext4 /dev/vdb rw\n";
        let processes =
            [("self", "/", 1, own), ("100", "/", 2, own), ("101", "/dev", 2, beneath), ("102", "/", 2, own)];
        for (process, root, namespace, text) in processes {
            let path = proc.path().join(process);
            fs::create_dir_all(path.join("ns")).unwrap();
            symlink(format!("mnt:[{namespace}]"), path.join("ns/mnt")).unwrap();
            symlink(root, path.join("root")).unwrap();
            fs::write(path.join("mountinfo"), text).unwrap();
        }
        let mounts = Mounts::look_in(proc.path()).unwrap();
        assert_eq!(mounts.beneath(Path::new("/srv/part0"), 20), Some("process 101 ()"));
    }

    #[test]
    fn a_namespace_is_asked_until_it_is_known_whole_but_not_without_end() {
        let mut asked = Asked { times: 1, ..Asked::default() };
        assert!(asked.lacks(None), "from a jail, or not at all");
        asked.whole = true;
        asked.roots.insert(7);
        assert!(!asked.lacks(None) && !asked.lacks(Some(7)) && asked.lacks(Some(8)));
        asked.times = TIMES;
        assert!(!asked.lacks(Some(8)));
    }

    #[test]
    fn a_shared_mount_is_told_from_one_that_only_takes_from_others() {
        let line =
            |tags: &str| format!("36 35 98:0 /mnt1 /mnt\\0402 rw,noatime {tags}- ext3 /dev/shared:1 rw").into_bytes();
        let told = |tags: &str| lines(&line(tags)).map(|mount| (mount.id, mount.at, mount.is_shared)).next().unwrap();
        assert_eq!(told("shared:1 master:7 "), (36, PathBuf::from("/mnt 2"), true));
        assert!(!told("master:7 ").2 && !told("").2);
        assert!(lines(b"").next().is_none());
    }
}
