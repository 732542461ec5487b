//! A thread that gives way to all others.
#![expect(unsafe_code, reason = "the priority of I/O is set by a call that no library has a safe form of")]

use nix::libc;

/// IOPRIO_WHO_PROCESS and IOPRIO_CLASS_IDLE of linux/ioprio.h; the class is above 13 bits of a level.
const THREAD: libc::c_int = 1;
const IDLE: libc::c_int = 3 << 13;

/// Lets this thread use the processor and the disk only when hardly anybody else does. What the kernel does not grant stays
/// as it is.
pub fn lower() {
    // This thread's own: Linux gives each thread its priority.
    let _ = rustix::process::setpriority_process(None, 19);
    // SAFETY: it takes three numbers, the second of which means the calling thread, and touches no memory.
    let _ = unsafe { libc::syscall(libc::SYS_ioprio_set, THREAD, 0, IDLE) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_alone_gives_way() {
        // SAFETY: as above.
        let class = || unsafe { libc::syscall(libc::SYS_ioprio_get, THREAD, 0) } >> 13;
        let lowered = std::thread::spawn(move || {
            lower();
            (class(), rustix::process::getpriority_process(None).unwrap())
        });
        assert_eq!(lowered.join().unwrap(), (3, 19));
        assert_ne!(class(), 3);
    }
}
