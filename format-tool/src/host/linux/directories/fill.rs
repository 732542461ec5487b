//! What belongs into a partition's directory, and what a run that was killed had taken of others' there.

use super::{Directory, Had, INNER, first_in, give, is_dots, mark, mount_of, owner_and_mode};
use crate::host::linux::attributes;
use node_format_plan::action::UNFINISHED;
use node_format_plan::facts::Inner;
use rustix::fd::OwnedFd;
use rustix::fs::{Dir, Mode};
use rustix::io::Errno;

/// Makes what belongs into a directory that is still root's own.
pub(super) fn fill(
    made: &OwnedFd,
    directory: &Directory,
    had: &mut Had,
    lacking: &mut Vec<String>,
) -> rustix::io::Result<()> {
    for (name, Inner { owner, mode }) in &directory.inside {
        let found = match rustix::fs::mkdirat(made, name.as_str(), Mode::from_raw_mode(UNFINISHED)) {
            Ok(()) => false,
            Err(Errno::EXIST) => true,
            Err(other) => return Err(other),
        };
        let inner = match rustix::fs::openat(made, name.as_str(), INNER, Mode::empty()) {
            // What its user put into the place of one is his, as all that was not erased.
            Err(Errno::NOTDIR | Errno::LOOP) => continue,
            opened => opened?,
        };
        if found && mount_of(&inner)? != mount_of(made)? {
            return Err(Errno::XDEV);
        }
        attributes::take_lists(&inner)?;
        if found {
            // A run that was killed leaves empty ones, and what it did not come to erase.
            let (whose, found) = owner_and_mode(&rustix::fs::fstat(&inner)?);
            let was = if mark::is_taken((whose, found)) { mark::recall(&inner) } else { Some((whose, found)) };
            if let Some((was, mode)) = was.filter(|(was, _)| was.uid != owner.uid)
                && first_in(&inner)?.is_some()
            {
                give(&inner, was, mode)?;
                mark::forget(&inner);
                continue;
            }
        }
        had.put_on_inner(name, &inner, lacking)?;
        give(&inner, *owner, *mode)?;
        if found {
            mark::forget(&inner);
        }
    }
    Ok(())
}

/// Gives back what a run that was killed had taken to empty it, of directories that are none of a partition's own.
pub(super) fn give_back_others(held: &OwnedFd, directory: &Directory) -> rustix::io::Result<()> {
    for entry in Dir::read_from(held)? {
        let entry = entry?;
        let name = entry.file_name();
        if is_dots(name) || name.to_str().is_ok_and(|name| directory.inside.contains_key(name)) {
            continue;
        }
        // Whatever cannot be entered was not emptied.
        let Ok(inner) = rustix::fs::openat(held, name, INNER, Mode::empty()) else { continue };
        if mount_of(&inner)? == mount_of(held)? {
            if let Some((was, mode)) = mark::recall(&inner) {
                give(&inner, was, mode)?;
            }
            mark::forget(&inner);
        }
    }
    Ok(())
}
