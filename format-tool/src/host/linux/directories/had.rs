//! What directories had besides owner, mode and contents: a run that fails makes anew what it removed.

use super::errno;
use crate::host::linux::attributes::Kept;
use rustix::fd::OwnedFd;
use std::collections::BTreeMap;

/// Most bytes of attributes that are kept of one with what is in it: its user may set as many as he likes.
const BYTES_MAX: usize = 64 << 10;

/// That of one directory, and of the empty ones in it by their names.
#[derive(Default)]
pub(super) struct Had {
    own: Kept,
    inside: BTreeMap<String, Kept>,
    /// How many bytes more are kept.
    room: usize,
}

impl Had {
    pub fn of(held: &OwnedFd) -> Self {
        let mut room = BYTES_MAX;
        Self { own: Kept::of(held, &mut room), inside: BTreeMap::new(), room }
    }

    /// An empty one in it, before it goes.
    pub fn with_inner(&mut self, name: &str, held: &OwnedFd) {
        let kept = Kept::of(held, &mut self.room);
        self.inside.insert(name.to_owned(), kept);
    }

    /// Once what is in it is made: whatever is made in it later may have something by it.
    pub fn put_on(&mut self, made: &OwnedFd, lacking: &mut Vec<String>) -> rustix::io::Result<()> {
        put_on(std::mem::take(&mut self.own), made, lacking)
    }

    pub fn put_on_inner(&mut self, name: &str, made: &OwnedFd, lacking: &mut Vec<String>) -> rustix::io::Result<()> {
        let mut of_inner = Vec::new();
        let result = self.inside.remove(name).map_or(Ok(()), |kept| put_on(kept, made, &mut of_inner));
        lacking.extend(of_inner.into_iter().map(|what| format!("{what} of `{name}` in it")));
        result
    }
}

fn put_on(mut kept: Kept, made: &OwnedFd, lacking: &mut Vec<String>) -> rustix::io::Result<()> {
    kept.begin(made);
    match kept.put_on(made) {
        Ok(without) => {
            lacking.extend(without);
            Ok(())
        }
        // Whom it keeps out or lets in is a part of its mode.
        Err(e) => {
            lacking.push(e.to_string());
            Err(errno(e))
        }
    }
}
