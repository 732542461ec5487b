//! How much disk space the partitions' directories may take.

use super::directories::Tree;
use super::{failed, quota};
use indexmap::IndexMap;
use node_format_plan::Action;
use plat_model::problem::Result;
use rustix::fd::AsFd;
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;

/// The limits of those directories that have one, and why others can have none. A directory that is not there yet is
/// asked about at the nearest one above it.
pub(super) fn observe(
    tree: &Tree,
    wanted: &IndexMap<PathBuf, u32>,
) -> (IndexMap<PathBuf, u32>, IndexMap<PathBuf, String>) {
    let (mut limits, mut unlimitable) = (IndexMap::new(), IndexMap::new());
    for (path, id) in wanted {
        match look(tree, path, *id) {
            Ok(None) => {}
            Ok(Some(mib)) => drop(limits.insert(path.clone(), mib)),
            Err(why) => drop(unlimitable.insert(path.clone(), why)),
        }
    }
    (limits, unlimitable)
}

fn look(tree: &Tree, path: &Path, id: u32) -> std::result::Result<Option<u32>, String> {
    let Some((there, directory)) = path.ancestors().find_map(|at| Some((at, tree.open_directory(at).ok()?))) else {
        return Err("no directory above it can be opened".into());
    };
    let means = quota::means(directory.as_fd())?;
    if there != path {
        return Ok(None);
    }
    quota::fits(means, directory.as_fd())?;
    let bytes = quota::limit(means, directory.as_fd(), id).map_err(|e| format!("its limit cannot be read: {e}"))?;
    Ok(bytes.map(|bytes| u32::try_from(bytes.div_ceil(MIB)).unwrap_or(u32::MAX)))
}

pub(super) fn perform(tree: &Tree, action: &Action) -> Result<()> {
    let Action::SetDiskLimit { path, id, to, .. } = action else { return Ok(()) };
    let broken = |why: String| failed(format!("the disk space of {} cannot be limited", path.display()), why);
    let directory = tree.open_directory(path).map_err(|e| broken(e.to_string()))?;
    let means = quota::means(directory.as_fd()).map_err(broken)?;
    let bytes = to.map(|mib| u64::from(mib) * MIB);
    quota::set(means, directory.as_fd(), *id, bytes).map_err(|e| broken(e.to_string()))?;
    // At once: later its user may have changed what project a directory of his is of.
    match quota::limit(means, directory.as_fd(), *id).map_err(|e| broken(e.to_string()))? {
        found if found == bytes => Ok(()),
        found => Err(broken(format!("the file system took {bytes:?} bytes for {found:?}"))),
    }
}
