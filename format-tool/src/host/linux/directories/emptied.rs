//! Taking the empty directories out of a partition's, and putting them back if it cannot go.

use super::{Had, INNER, UNFINISHED, attributes, errno, give, is_dots, mark, owner_and_mode, quota};
use node_format_plan::facts::Owner;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Dir, Mode};
use std::ffi::CString;

/// A partition's directory on its way to be removed.
pub(super) struct Emptied<'a> {
    held: &'a OwnedFd,
    /// As it was, unless it was half-made, and each that was taken out of it.
    was: Option<(Owner, u32)>,
    taken: Vec<(CString, Owner, u32)>,
}

impl<'a> Emptied<'a> {
    pub fn new(held: &'a OwnedFd) -> rustix::io::Result<Self> {
        // What its owner may say of it.
        quota::thaw(held).map_err(errno)?;
        let was = if mark::is_on(held) { None } else { Some(owner_and_mode(&rustix::fs::fstat(held)?)) };
        Ok(Self { held, was, taken: Vec::new() })
    }

    /// Takes out the empty directories. It is root's meanwhile, and marked: one of a run that is killed is finished by the next.
    pub fn go_on(&mut self, had: &mut Option<Had>) -> rustix::io::Result<()> {
        for entry in Dir::read_from(self.held)? {
            let entry = entry?;
            let name = entry.file_name();
            if is_dots(name) {
                continue;
            }
            let inner = rustix::fs::openat(self.held, name, INNER, Mode::empty())?;
            let (owner, mode) = owner_and_mode(&rustix::fs::fstat(&inner)?);
            had.iter_mut().for_each(|had| had.with_inner(&name.to_string_lossy(), &inner));
            if self.taken.is_empty() {
                mark::set(self.held)?;
            }
            rustix::fs::unlinkat(self.held, name, AtFlags::REMOVEDIR)?;
            self.taken.push((name.to_owned(), owner, mode));
        }
        Ok(())
    }

    pub fn put_back(&self, had: &mut Had, lacking: &mut Vec<String>) -> rustix::io::Result<()> {
        for (name, owner, mode) in &self.taken {
            rustix::fs::mkdirat(self.held, name, Mode::from_raw_mode(UNFINISHED))?;
            let inner = rustix::fs::openat(self.held, name, INNER, Mode::empty())?;
            attributes::take_lists(&inner)?;
            had.put_on_inner(&name.to_string_lossy(), &inner, lacking)?;
            give(&inner, *owner, *mode)?;
        }
        self.was.map_or(Ok(()), |(owner, mode)| mark::replace(self.held, owner, mode))
    }
}
