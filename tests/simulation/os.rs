//! What the operating system would give a simulation to roll dice with: random bytes and the time of day; and room on a
//! disk, for as long as a folder is not said to have none. In the thread
//! of a simulation the first two come from the seed, wherever they are asked for: by the master and the agent for ids, tokens
//! and serials, by tokio for the order of `select!`, by the maps of the standard library, by TLS to judge certificates.
//! The programs themselves have no such source to choose, so that none can ever run with it outside of this test.
//!
//! It works because a function that a program itself defines goes before the C library's. What this cannot reach are
//! the keys and nonces of TLS: `ring` asks the kernel without the C library. They show in the bytes of ciphers alone,
//! and neither the order nor the time of anything depends on those.
#![expect(unsafe_code, reason = "these have the C library's form; each says why it is sound")]

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::time::{ClockId, clock_gettime as real};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::{File, read_link};
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

thread_local! {
    static RANDOM: RefCell<Option<StdRng>> = const { RefCell::new(None) };
    static TIME: Cell<Option<Duration>> = const { Cell::new(None) };
    /// Folders without room, and how many writes in them were refused.
    static FULL: RefCell<BTreeMap<PathBuf, usize>> = const { RefCell::new(BTreeMap::new()) };
    /// Half of a write was the last that found room.
    static IS_HALF: Cell<bool> = const { Cell::new(false) };
}

/// From here on this thread's randomness comes from the seed. It must be a fresh thread of a fresh process: what has
/// been drawn before was drawn from the kernel.
pub fn seed(seed: u64) {
    RANDOM.set(Some(StdRng::seed_from_u64(seed)));
}

/// What time this thread has.
pub fn set_time(since_1970: Duration) {
    TIME.set(Some(since_1970));
}

/// From here on this thread finds no room in a folder: of what it writes half is written, and the rest fails.
pub fn fill(folder: &Path) {
    FULL.with_borrow_mut(|full| {
        full.entry(folder.into()).or_insert(0);
    });
}

/// There is room again. How many writes were refused.
pub fn make_room(folder: &Path) -> usize {
    FULL.with_borrow_mut(|full| full.remove(folder).unwrap_or(0))
}

/// How much of a write there is room for; `None`: nothing.
fn room(file: i32, length: usize) -> Option<usize> {
    let is_full = |full: &mut BTreeMap<PathBuf, usize>| {
        let place = if full.is_empty() { None } else { read_link(format!("/proc/self/fd/{file}")).ok() };
        let refused = full.iter_mut().find(|(folder, _)| place.as_ref().is_some_and(|place| place.starts_with(folder)));
        refused.map(|(_, times)| *times += 1).is_some()
    };
    if !FULL.try_with(|full| full.try_borrow_mut().is_ok_and(|mut full| is_full(&mut full))).unwrap_or(false) {
        return Some(length);
    }
    IS_HALF.set(!IS_HALF.get() && length > 1);
    IS_HALF.get().then_some(length / 2)
}

unsafe extern "C" {
    fn __errno_location() -> *mut i32;
}

/// `write(2)`.
///
/// # Safety
/// `bytes` must be good for reads of `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn write(file: i32, bytes: *const u8, length: usize) -> isize {
    let written = match room(file, length) {
        Some(0) if length == 0 => Ok(0),
        // SAFETY: the caller says that so much may be read there, and that the file is open.
        Some(length) => unsafe {
            rustix::io::write(BorrowedFd::borrow_raw(file), std::slice::from_raw_parts(bytes, length))
        },
        None => Err(rustix::io::Errno::NOSPC),
    };
    match written {
        Ok(written) => isize::try_from(written).unwrap_or(isize::MAX),
        Err(why) => {
            // SAFETY: it is this thread's own.
            unsafe { *__errno_location() = why.raw_os_error() };
            -1
        }
    }
}

/// `getrandom(2)`.
///
/// # Safety
/// `bytes` must be good for writes of `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(bytes: *mut u8, length: usize, _flags: u32) -> isize {
    if length == 0 {
        return 0;
    }
    // SAFETY: the caller says that so much may be written there; zeros make it readable too.
    let bytes = unsafe {
        bytes.write_bytes(0, length);
        std::slice::from_raw_parts_mut(bytes, length)
    };
    let seeded = RANDOM.try_with(|random| random.borrow_mut().as_mut().map(|random| random.fill_bytes(bytes)));
    let filled = matches!(seeded, Ok(Some(())))
        || File::open("/dev/urandom").and_then(|mut kernel| kernel.read_exact(bytes)).is_ok();
    if filled { isize::try_from(length).unwrap_or(isize::MAX) } else { -1 }
}

/// As the C library has it on 64 bits.
#[repr(C)]
struct Timespec {
    seconds: i64,
    nanos: i64,
}

/// `clock_gettime(2)`: the time of day is the simulation's, and so is the time since an instant, by which HTTP/2 forgets
/// streams. Only how much of a processor was used stays the machine's.
///
/// # Safety
/// `to` must be good for the write of a time.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: i32, to: *mut Timespec) -> i32 {
    const REALTIME: i32 = 0;
    const MONOTONIC: i32 = 1;
    let time = match TIME.try_with(Cell::get) {
        Ok(Some(time)) if matches!(clock, REALTIME | MONOTONIC) => {
            Timespec { seconds: time.as_secs().cast_signed(), nanos: i64::from(time.subsec_nanos()) }
        }
        _ => {
            let Some(clock) = known(clock) else { return -1 };
            let time = real(clock);
            Timespec { seconds: time.tv_sec, nanos: time.tv_nsec }
        }
    };
    // SAFETY: the caller says that a time may be written there.
    unsafe { to.write(time) };
    0
}

fn known(clock: i32) -> Option<ClockId> {
    let all = [
        ClockId::Realtime,
        ClockId::Monotonic,
        ClockId::ProcessCPUTime,
        ClockId::ThreadCPUTime,
        ClockId::MonotonicCoarse,
        ClockId::RealtimeCoarse,
        ClockId::MonotonicRaw,
        ClockId::Boottime,
    ];
    all.into_iter().find(|one| *one as i32 == clock)
}
