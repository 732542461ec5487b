//! Memory goes back to the machine when it is not used any more. An allocator keeps what was freed for the next time; an agent
//! whose hundreds of instances came at once may not see such a time again for months, nor another release to check.

#![expect(unsafe_code, reason = "the allocator is told by foreign calls")]

/// From so many calls under way at once on it is a rush, which is over when there are only so many.
const RUSH: usize = 64;
const CALM: usize = 8;

/// Whether there has been a rush that nothing was given back after.
#[derive(Debug, Default)]
pub(crate) struct Rush(bool);

impl Rush {
    /// To be told how many calls are under way, whenever one is over. When they are few, what documents are checked with goes too.
    pub fn under_way(&mut self, calls: usize) {
        self.0 |= calls >= RUSH;
        if calls <= CALM {
            let checked = plat_document::schema::forget_schema();
            if std::mem::take(&mut self.0) || checked {
                give_back();
            }
        }
    }
}

/// One thread does nearly all the work, and a few others wait for disks: one heap for all, so that what is free in it is of
/// use to each. For the start of `main`.
pub fn keep_together() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets a number of the allocator's, which is locked meanwhile.
    unsafe {
        nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1);
    }
}

/// A few milliseconds for some tens of MiB.
fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it gives back pages in which nothing is allocated; the heap is locked meanwhile.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_many_at_once_have_taken_is_given_back_when_the_last_of_them_is_over() {
        let mut rush = Rush::default();
        let seen = [1, 0, 63, 0, 64, 9, 8, 0].into_iter().map(|calls| {
            rush.under_way(calls);
            rush.0
        });
        assert_eq!(seen.collect::<Vec<_>>(), [false, false, false, false, true, true, false, false]);
    }
}
