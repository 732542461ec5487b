//! How much disk space the partitions' directories may take.

use super::directories::Tree;
use super::{failed, quota};
use indexmap::IndexMap;
use node_format_plan::Action;
use node_format_plan::HostFacts;
use plat_model::problem::{Problem, Result};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;

/// Fills in what the facts say of these directories' limits, and why others can have none. A directory that is not there yet is
/// asked about at the nearest one above it.
pub(super) fn observe(tree: &Tree, wanted: &IndexMap<PathBuf, u32>, facts: &mut HostFacts) {
    for (path, id) in wanted {
        let nearest = nearest(tree, path);
        let found = nearest.as_ref().map_err(String::clone);
        match found.and_then(|(at, directory)| look(directory.as_fd(), *at == path, *id)) {
            Ok(Limit { mib, counts, another, file_system }) => {
                mib.map(|mib| facts.disk_limits.insert(path.clone(), mib));
                file_system.map(|there| facts.file_systems.insert(path.clone(), there));
                if !counts {
                    facts.uncounted.insert(path.clone());
                }
                another.map(|another| facts.projects.insert(path.clone(), another));
            }
            Err(why) => {
                facts.unlimitable.insert(path.clone(), why);
                // A limit on another one, which is not mounted, is out of reach.
                let there = nearest.ok().and_then(|(_, directory)| quota::known_by(directory.as_fd()).ok());
                there.map(|there| facts.file_systems.insert(path.clone(), there));
            }
        }
    }
}

/// What there is of a limit.
struct Limit {
    mib: Option<u32>,
    /// Whether what is in the directory counts into it. One that is not there does not.
    counts: bool,
    /// The project that it is of, if that is another than its own.
    another: Option<u32>,
    /// Where it is that of a number on the whole file system.
    file_system: Option<String>,
}

/// A directory, or the nearest one above it.
fn nearest<'a>(tree: &Tree, path: &'a Path) -> std::result::Result<(&'a Path, OwnedFd), String> {
    let opened = path.ancestors().find_map(|at| match tree.open_directory(at) {
        Err(Errno::NOENT) => None,
        outcome => Some((at, outcome)),
    });
    let (at, directory) = opened.ok_or("there is no directory above it")?;
    Ok((at, directory.map_err(|e| format!("{} cannot be opened: {e}", at.display()))?))
}

/// `is_it`: whether it is the directory itself, and not one above it.
fn look(directory: BorrowedFd, is_it: bool, id: u32) -> std::result::Result<Limit, String> {
    let means = quota::means(directory)?;
    if is_it {
        quota::fits(means, directory)?;
    }
    let broken = |e: std::io::Error| format!("its limit cannot be read: {e}");
    let bytes = match is_it {
        true => quota::limit(means, directory, id),
        false => quota::limit_to_be(means, directory, id),
    };
    let mib = bytes.map_err(broken)?.map(mib_of);
    let counts = is_it && quota::counts(means, directory, id).map_err(broken)?;
    let project = if is_it { quota::project(means, directory).map_err(broken)? } else { None };
    let another = project.filter(|project| *project != id);
    let file_system = quota::file_system(means, directory).map_err(broken)?;
    Ok(Limit { mib, counts, another, file_system })
}

/// Returns what of the directory does not count into the limit, though it is set.
pub(super) fn perform(tree: &mut Tree, action: &Action) -> Result<Option<Problem>> {
    let Action::SetDiskLimit { path, id, file_system, from, to } = action else { return Ok(None) };
    let broken = |why: String| failed(format!("the disk space of {} cannot be limited", path.display()), why);
    let directory = match tree.open_own(path) {
        Err(Errno::XDEV) => return Err(broken("something is mounted there".into())),
        Err(Errno::NOENT) if to.is_none() => {
            let cleared = clear(tree, path, *id, file_system.as_deref(), *from);
            return cleared.map(|()| None).map_err(broken);
        }
        opened => opened.map_err(|e| broken(e.to_string()))?,
    };
    let means = quota::means(directory.as_fd()).map_err(broken)?;
    match (is_there(means, directory.as_fd(), file_system.as_deref()).map_err(broken)?, to) {
        (true, _) => {}
        (false, None) => return Ok(None),
        (false, Some(_)) => return Err(broken("another file system is mounted there now".into())),
    }
    let bytes = to.map(|mib| u64::from(mib) * MIB);
    let set = || {
        let left = quota::set(means, directory.as_fd(), *id, bytes, from.is_none())?;
        Ok::<_, std::io::Error>((left, quota::limit(means, directory.as_fd(), *id)?))
    };
    let found = set();
    if found.is_err() && from.is_none() {
        // It may be there all the same, and nobody would know whose it is.
        let _ = quota::set(means, directory.as_fd(), *id, None, false);
    }
    let stays = match means {
        quota::Means::Btrfs => String::new(),
        quota::Means::Project => format!("; what of it was made project {id}'s by then stays so"),
    };
    match found.map_err(|e| broken(format!("{e}{stays}")))? {
        (left, found) if found == bytes => {
            let left = left.map(|why| failed(format!("not all in {} counts into its limit", path.display()), why));
            Ok(left)
        }
        (_, found) => Err(broken(format!("{} was asked for, and {} is set", shown(bytes), shown(found)))),
    }
}

/// Whether a directory is on the file system that was seen.
fn is_there(means: quota::Means, directory: BorrowedFd, seen: Option<&str>) -> std::result::Result<bool, String> {
    let there = quota::file_system(means, directory).map_err(|e| e.to_string())?;
    Ok(seen.is_none() || there.as_deref() == seen)
}

/// Takes away the limit of a directory that is gone: that of its project, if it is the one that was seen. Another file system,
/// where its own is not mounted, may have a project of the same number.
fn clear(
    tree: &Tree,
    path: &Path,
    id: u32,
    file_system: Option<&str>,
    seen: Option<u32>,
) -> std::result::Result<(), String> {
    let above = path.ancestors().skip(1).find_map(|at| tree.open_directory(at).ok());
    let Some(above) = above else { return Ok(()) };
    let means = quota::means(above.as_fd())?;
    if !is_there(means, above.as_fd(), file_system)? {
        return Ok(());
    }
    let found = quota::limit_to_be(means, above.as_fd(), id).map_err(|e| e.to_string())?;
    match found.map(mib_of) {
        Some(mib) if Some(mib) == seen => {
            quota::set(means, above.as_fd(), id, None, false).map(drop).map_err(|e| e.to_string())
        }
        _ => Ok(()),
    }
}

fn mib_of(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(MIB)).unwrap_or(u32::MAX)
}

fn shown(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "no limit".into(), |bytes| format!("{bytes} bytes"))
}
