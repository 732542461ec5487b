//! Directories beneath a held handle. No symbolic link is followed anywhere on the way (openat2 with RESOLVE_BENEATH and
//! RESOLVE_NO_SYMLINKS), for the owner of a partition may put one where we walk.

mod emptied;
mod erase;
mod fill;
mod had;
mod mark;
#[cfg(test)]
mod tests;

use super::mounts::{Mounts, mount_in, mount_of};
use super::signals::Stop;
use super::{attributes, failed, files, quota};
use emptied::Emptied;
use had::Had;
use indexmap::IndexMap;
use node_format_plan::action::{Directory, UNFINISHED};
use node_format_plan::facts::{Inner, Owner, PathFact};
use node_format_plan::{Action, Scope, Thing};
use plat_model::problem::{Problem, Result, codes};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How many parents' handles are kept: a walk in order needs the last few.
const HANDLES: usize = 8;
/// Most empty directories in a partition's that are looked at: those it is made with are fewer.
const INSIDE_MAX: usize = 100;
/// How a directory in a held one is opened, to be looked at or changed.
const INNER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

pub(super) struct Tree {
    root: OwnedFd,
    /// Where that is, as the kernel names it.
    place: PathBuf,
    /// Whether it is the machine's own root, not a folder that stands for one.
    is_the_machines: bool,
    /// The last one used is the last: most often it is needed again.
    parents: Vec<(PathBuf, OwnedFd)>,
    /// In a partition's directory that could not be erased, the one that was moved meanwhile.
    moved: PathBuf,
    /// What directories had that a run removed, should they have to come back.
    taken: BTreeMap<PathBuf, Had>,
    /// What of that did not come back with them.
    lacking: Vec<Problem>,
    /// What may end erasing, which can take long.
    stop: Option<Arc<Stop>>,
}

impl Tree {
    pub fn open(root: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let is_the_machines = root == Path::new("/");
        let place = root.canonicalize().unwrap_or_else(|_| root.to_path_buf());
        let root = rustix::fs::open(root, flags, Mode::empty())
            .map_err(|e| Problem::new(codes::FILE, format!("{} cannot be opened", root.display())).because(e))?;
        Ok(Self {
            root,
            place,
            is_the_machines,
            parents: Vec::new(),
            moved: PathBuf::new(),
            taken: BTreeMap::new(),
            lacking: Vec::new(),
            stop: None,
        })
    }

    pub fn stop_on(&mut self, signals: Arc<Stop>) {
        self.stop = Some(signals);
    }

    pub fn is_the_machines(&self) -> bool {
        self.is_the_machines
    }

    fn openat2(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let relative = path.strip_prefix("/").unwrap_or(path);
        let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat2(&self.root, relative, flags, Mode::empty(), resolve)
    }

    /// The handle of the directory above, and the last name of the path.
    pub fn parent<'p>(&mut self, path: &'p Path) -> rustix::io::Result<(&OwnedFd, &'p OsStr)> {
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::INVAL) };
        // Bytes are compared faster than paths, and two spellings would be two handles at worst.
        match self.parents.iter().rposition(|(path, _)| path.as_os_str() == above.as_os_str()) {
            Some(at) => self.parents[at..].rotate_left(1),
            None => {
                let handle = self.openat2(above, OFlags::PATH)?;
                if self.parents.len() >= HANDLES {
                    self.parents.remove(0);
                }
                self.parents.push((above.to_path_buf(), handle));
            }
        }
        self.parents.last().map(|(_, handle)| (handle, name)).ok_or(Errno::NOENT)
    }

    /// What is at each path of the scope; a path that is missing does not exist.
    ///
    /// # Errors
    /// If it cannot be told what is mounted where.
    pub fn observe(&mut self, scope: &Scope) -> Result<Seen> {
        self.parents.clear();
        let (mut mounted, mut mounted_on) = (IndexMap::new(), BTreeSet::new());
        let mounts = match scope.contents.is_empty() {
            true => Mounts::default(),
            false => Mounts::look().map_err(|e| {
                failed("what others have mounted cannot be looked at", e)
                    .fix("if processes are too many (`TasksMax=`, `kernel.pid_max`), end some; then run it again")
            })?,
        };
        let facts = scope.paths.iter().filter_map(|path| {
            let seen = self
                .parent(path)
                .and_then(|(parent, name)| rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW));
            let unknown = |why: Errno| PathFact::Unknown { why: why.to_string() };
            let fact = match seen {
                // A link on the way is a fact of the path it stands at.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return None,
                Err(why) => unknown(why),
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Directory => {
                    PathFact::Other { kind: files::in_words(FileType::from_raw_mode(stat.st_mode)).into() }
                }
                Ok(stat) => {
                    let (owner, mode) = owner_and_mode(&stat);
                    let is_mounted_on = self.is_mounted_on(path);
                    if is_mounted_on {
                        mounted_on.insert(path.clone());
                    }
                    let half_made = !is_mounted_on && self.is_marked(path);
                    let goes = scope.contents.contains(path);
                    let held = if goes || half_made { self.contents(path, scope) } else { Ok(Contents::default()) };
                    if goes && let Some(who) = self.mounted(&mounts, path) {
                        mounted.insert(path.clone(), who);
                    }
                    held.map_or_else(unknown, |Contents { stranger, inside }| PathFact::Directory {
                        owner,
                        mode,
                        stranger,
                        inside,
                        half_made,
                    })
                }
            };
            Some((path.clone(), fact))
        });
        let paths = facts.collect();
        Ok(Seen { paths, mounted, mounted_on })
    }

    fn is_mounted_on(&mut self, path: &Path) -> bool {
        let mounts = self.parent(path).and_then(|(parent, name)| Ok((mount_of(parent)?, mount_in(parent, name)?)));
        mounts.is_ok_and(|(within, there)| within != there)
    }

    fn is_marked(&mut self, path: &Path) -> bool {
        let held = self.parent(path).and_then(|(parent, name)| rustix::fs::openat(parent, name, INNER, Mode::empty()));
        held.is_ok_and(|held| mark::is_on(&held))
    }

    /// Who sees something mounted on a directory or in it, if anybody does: a process in words; empty: this one.
    fn mounted(&mut self, mounts: &Mounts, path: &Path) -> Option<String> {
        let at = self.place.join(path.strip_prefix("/").unwrap_or(path));
        let within = mount_of(self.parent(path).ok()?.0).ok()?;
        let there = mount_of(&self.openat2(path, OFlags::PATH).ok()?).ok()?;
        if there != within {
            return Some(String::new());
        }
        mounts.beneath(&at, within).map(str::to_owned)
    }

    /// A directory of node-format's, to be changed, limited or emptied: what is mounted on it is somebody else's.
    pub fn open_own(&mut self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let held = self.openat2(path, OFlags::RDONLY)?;
        match mount_of(&held)? == mount_of(self.parent(path)?.0)? {
            true => Ok(held),
            false => Err(Errno::XDEV),
        }
    }

    /// What is in a directory that the scope does not name: its empty directories, and the name of anything else.
    fn contents(&self, path: &Path, scope: &Scope) -> rustix::io::Result<Contents> {
        let mut held = Contents::default();
        let directory = self.openat2(path, OFlags::RDONLY)?;
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let inner = path.join(OsStr::from_bytes(name.to_bytes()));
            if is_dots(name) || [&scope.paths, &scope.files].iter().any(|all| files::is_one_of(all, &inner)) {
                continue;
            }
            if held.stranger.is_some() {
                break;
            }
            let shown = plat_model::id::shorten(&name.to_string_lossy());
            if held.inside.len() >= INSIDE_MAX {
                held.stranger = Some(shown);
                break;
            }
            // One that could not be made again as it was counts as contents.
            let can_be_said = shown.as_bytes() == name.to_bytes();
            match rustix::fs::openat(&directory, name, INNER, Mode::empty()) {
                Ok(_) if !can_be_said => held.stranger = Some(shown),
                Ok(inner) => match (first_in(&inner)?, owner_and_mode(&rustix::fs::fstat(&inner)?)) {
                    (Some(first), _) => held.stranger = Some(format!("{shown}/{first}")),
                    (None, (owner, mode)) => {
                        held.inside.insert(shown, Inner { owner, mode });
                    }
                },
                Err(Errno::NOTDIR | Errno::LOOP | Errno::NXIO | Errno::NOENT) => held.stranger = Some(shown),
                Err(other) => return Err(other),
            }
        }
        Ok(held)
    }

    pub fn perform(&mut self, action: &Action) -> Result<()> {
        let (verb, path, result) = match action {
            Action::MakeDirectory(directory) => ("make", &directory.path, self.make(directory)),
            Action::FinishDirectory(directory) => ("finish", &directory.path, self.finish(directory)),
            Action::RemoveDirectory(directory) => {
                ("remove", &directory.path, self.remove(directory, !directory.half_made))
            }
            Action::EraseDirectory(directory) => ("erase", &directory.path, self.erase(directory)),
            Action::SetDirectory { path, to, .. } => ("change", path, self.set(path, to.0, to.1)),
            _ => return Ok(()),
        };
        result.map_err(|e| {
            let what = format!("cannot {verb} directory {}", path.display());
            if e == Errno::INTR {
                return failed(what, "a signal asked the run to stop");
            }
            let problem = failed(what, e);
            match e {
                Errno::ROFS if matches!(action, Action::SetDirectory { .. }) => problem.fix(erase::read_only(path)),
                Errno::PERM if matches!(action, Action::SetDirectory { .. }) => problem.fix(erase::kept(path)),
                Errno::PERM => problem.fix(erase::frozen(path)),
                Errno::XDEV => problem.fix(erase::mounted(path)),
                Errno::AGAIN => problem.fix(erase::moved(path, &self.moved)),
                _ => problem,
            }
        })
    }

    /// Makes it by another name, of which one that was killed may have left some: whoever finds it in its place finds it whole, or
    /// marked as half-made. By the other name it is never its user's, who could keep it from being taken away.
    fn make(&mut self, directory: &Directory) -> rustix::io::Result<()> {
        let had = self.taken.remove(&directory.path).filter(|_| !directory.half_made);
        let (parent, name) = self.parent(&directory.path)?;
        let new = files::new_name(name);
        unmake(parent, &new)?;
        match directory.limited.then(|| quota::means(parent.as_fd())) {
            Some(Ok(means)) => quota::make(means, parent.as_fd(), &new).map_err(errno)?,
            _ => rustix::fs::mkdirat(parent, &new, Mode::from_raw_mode(UNFINISHED))?,
        }
        let (mut had, mut lacking) = (had.unwrap_or_default(), Vec::new());
        let made = rustix::fs::openat(parent, &new, INNER, Mode::empty()).and_then(|made| {
            attributes::take_lists(&made)?;
            fill::fill(&made, directory, &mut had, &mut lacking)?;
            had.put_on(&made, &mut lacking)?;
            let is_anothers = directory.owner.uid != rustix::process::geteuid().as_raw();
            if directory.half_made || (directory.partition && is_anothers) {
                mark::set(&made)?;
            }
            // Where there can be no mark, it would be taken for one that root locked.
            if !directory.half_made && !mark::is_on(&made) {
                give(&made, directory.owner, directory.mode)?;
            }
            Ok(made)
        });
        let mut stays = None;
        let placed = made.and_then(|made| {
            match rustix::fs::renameat_with(parent, &new, parent, name, RenameFlags::NOREPLACE) {
                // Not every file system knows that (nfs).
                Err(Errno::INVAL) => rustix::fs::renameat(parent, &new, parent, name)?,
                placed => placed?,
            }
            if directory.half_made || !mark::is_on(&made) {
                return Ok(());
            }
            mark::replace(&made, directory.owner, directory.mode).or_else(|e| {
                match mark::set(&made).and_then(|()| unmake(parent, name)) {
                    Ok(()) => Err(e),
                    // It is there, and ours: that the run fails takes it away, or the next one.
                    Err(_) => {
                        stays = Some(e);
                        Ok(())
                    }
                }
            })
        });
        let left = if placed.is_err() { unmake(parent, &new).err() } else { None };
        let left = left.map(|e| failed(format!("{} stays", directory.path.with_file_name(&new).display()), e));
        self.lacking.extend(left);
        self.lack(&directory.path, &lacking);
        let what = || format!("directory {} is not made to the end", directory.path.display());
        self.lacking.extend(stays.map(|e| failed(what(), e)));
        placed
    }

    fn lack(&mut self, path: &Path, what: &[String]) {
        self.lacking.extend(attributes::without(path, what));
    }

    /// What directories did not get back that they had.
    pub fn lacking(&mut self) -> Vec<Problem> {
        std::mem::take(&mut self.lacking)
    }

    /// Nothing comes back any more.
    pub fn let_go(&mut self) {
        self.taken.clear();
    }

    /// Takes away what a killed run left of directories that did not come to their place.
    pub fn clear(&mut self, forgotten: &[Thing]) -> Result<()> {
        forgotten.iter().try_for_each(|thing| {
            let (Thing::Directory { path } | Thing::PartitionDirectory { path }) = thing else { return Ok(()) };
            match self.parent(path).and_then(|(parent, name)| unmake(parent, &files::new_name(name))) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) | Ok(()) => Ok(()),
                Err(e) => Err(failed(format!("what a killed run left beside {} cannot be removed", path.display()), e)),
            }
        })
    }

    fn finish(&mut self, directory: &Directory) -> rustix::io::Result<()> {
        let held = self.open_own(&directory.path)?;
        // An older record alone may say that it is half-made.
        mark::set(&held)?;
        // Whom its user let in before it was begun to be emptied is nobody's choice any more.
        attributes::take_lists(&held)?;
        fill::fill(&held, directory, &mut Had::default(), &mut Vec::new())?;
        fill::give_back_others(&held, directory)?;
        mark::replace(&held, directory.owner, directory.mode)
    }

    fn set(&mut self, path: &Path, owner: Owner, mode: u32) -> rustix::io::Result<()> {
        give(&self.open_own(path)?, owner, mode)
    }

    /// A partition's goes with the empty directories in it; anything else in it is an error, and then all of it stays as it was.
    /// `keeps`: whether it may come back.
    fn remove(&mut self, directory: &Directory, keeps: bool) -> rustix::io::Result<()> {
        let path = &directory.path;
        let held = directory.partition.then(|| self.open_own(path)).transpose()?;
        let mut emptied = match &held {
            Some(held) => Some(Emptied::new(held)?),
            None => None,
        };
        let mut had = match &held {
            Some(held) => Some(Had::of(held)),
            None => self.openat2(path, OFlags::RDONLY).ok().as_ref().map(Had::of),
        };
        self.parents.retain(|(held, _)| held != path);
        let removed = emptied.as_mut().map_or(Ok(()), |emptied| emptied.go_on(&mut had)).and_then(|()| {
            let (parent, name) = self.parent(path)?;
            rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
        });
        let mut had = had.unwrap_or_default();
        match emptied.filter(|_| removed.is_err()) {
            Some(emptied) => {
                let mut lacking = Vec::new();
                let back = emptied.put_back(&mut had, &mut lacking);
                self.lack(path, &lacking);
                back?;
            }
            None if keeps && removed.is_ok() => drop(self.taken.insert(path.clone(), had)),
            None => {}
        }
        removed
    }

    fn erase(&mut self, directory: &Directory) -> rustix::io::Result<()> {
        let held = self.open_own(&directory.path)?;
        erase::thaw(&held)?;
        // What is left if this fails, or is killed, is no whole partition.
        mark::set(&held)?;
        let stop = self.stop.clone();
        erase::erase(&held, &mut self.moved, &|| stop.as_ref().is_some_and(|stop| stop.came()))?;
        // Of what was half-made nothing comes back.
        self.remove(directory, false)
    }

    /// A handle on a directory that exists.
    pub fn open_directory(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        self.openat2(path, OFlags::RDONLY)
    }
}

/// What was found.
pub(super) struct Seen {
    pub paths: IndexMap<PathBuf, PathFact>,
    /// Those whose contents were asked about that something is mounted on or in, and who sees it so.
    pub mounted: IndexMap<PathBuf, String>,
    /// Those that something is mounted on as this process sees it.
    pub mounted_on: BTreeSet<PathBuf>,
}

fn owner_and_mode(stat: &rustix::fs::Stat) -> (Owner, u32) {
    (Owner { uid: stat.st_uid, gid: stat.st_gid }, stat.st_mode & 0o7777)
}

/// What a directory holds besides what was asked about.
#[derive(Default)]
struct Contents {
    stranger: Option<String>,
    inside: BTreeMap<String, Inner>,
}

fn is_dots(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

/// The name of something in a directory; `None` if it is empty.
fn first_in(directory: &OwnedFd) -> rustix::io::Result<Option<String>> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !is_dots(entry.file_name()) {
            return Ok(Some(plat_model::id::shorten(&entry.file_name().to_string_lossy())));
        }
    }
    Ok(None)
}

/// Removes a directory that has not come to its place, if there is one. It holds no more than empty ones.
fn unmake(parent: &OwnedFd, new: &OsStr) -> rustix::io::Result<()> {
    let held = match rustix::fs::openat(parent, new, INNER, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        held => held?,
    };
    for entry in Dir::read_from(&held)? {
        let entry = entry?;
        if !is_dots(entry.file_name()) {
            rustix::fs::unlinkat(&held, entry.file_name(), AtFlags::REMOVEDIR)?;
        }
    }
    rustix::fs::unlinkat(parent, new, AtFlags::REMOVEDIR)
}

fn give(directory: &OwnedFd, owner: Owner, mode: u32) -> rustix::io::Result<()> {
    own(directory, owner)?;
    rustix::fs::fchmod(directory, Mode::from_raw_mode(mode))
}

/// Gives a file or directory to its owner, which only root may do, and nobody needs to whose it is already.
pub(super) fn own(held: &impl AsFd, owner: Owner) -> rustix::io::Result<()> {
    let found = rustix::fs::fstat(held)?;
    if (found.st_uid, found.st_gid) == (owner.uid, owner.gid) {
        return Ok(());
    }
    rustix::fs::fchown(held, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))
}

fn errno(e: std::io::Error) -> Errno {
    Errno::from_io_error(&e).unwrap_or(Errno::IO)
}
