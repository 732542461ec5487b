//! What the host's kernel may lack, on Debian's own: a guest that is booted once for all tests here.

use plat_tests::binaries::{binary, integration_tests, unit_tests};
use plat_tests::guest::{Guest, guest_or_skip};
use quota::{FORMAT, configure};
use std::sync::{LazyLock, Mutex, MutexGuard};

mod limits;
mod quota;

/// The guest, for one test at a time; `None`: it cannot be had here.
fn guest(test: &str) -> Option<MutexGuard<'static, Guest>> {
    // One that does not boot is not tried again.
    static GUEST: LazyLock<Mutex<Guest>> = LazyLock::new(|| {
        let files = [
            (binary("node-format"), "node-format"),
            (unit_tests("node-format"), "node-format-unit-tests"),
            (binary("plat-agent"), "plat-agent"),
            (unit_tests("plat-agent"), "plat-agent-unit-tests"),
            (integration_tests("linux_host"), "linux_host"),
        ];
        Mutex::new(Guest::boot(&files))
    });
    if !guest_or_skip(test) {
        return None;
    }
    // A test that failed leaves its traces in the guest; they are no reason for the next one not to be run.
    Some(GUEST.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
}
