//! Which interfaces carry PPPoE. The kernel names them in a list of their own: a ppp link does not say what it stands on.

use std::collections::BTreeSet;
use std::io;

/// The interfaces that a program (pppd) has PPPoE sessions by, in the network namespace of the thread.
pub(super) fn carriers() -> io::Result<BTreeSet<String>> {
    match std::fs::read("/proc/thread-self/net/pppoe") {
        // A name may be any bytes.
        Ok(text) => Ok(read(&String::from_utf8_lossy(&text))),
        // A kernel without it.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(e) => Err(e),
    }
}

/// A line of titles, then for each session its number, the hardware address of the other end, and the interface.
fn read(text: &str) -> BTreeSet<String> {
    text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(2).map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_interface_of_each_session_is_found() {
        // As the kernel writes it (drivers/net/ppp/pppoe.c).
        let text = "Id       Address              Device\n00000100 02:00:00:00:00:01     eth0\n00000200 02:00:00:00:00:02 enp3s0.7\n";
        let found: Vec<String> = super::read(text).into_iter().collect();
        assert_eq!(found, ["enp3s0.7", "eth0"]);
        assert!(super::read("Id       Address              Device\n").is_empty());
    }
}
