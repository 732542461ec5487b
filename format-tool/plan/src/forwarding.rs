//! Forwarding for the whole machine is one setting of the kernel that it writes to others along: to that of every link, and, of
//! IPv4, to whether redirects are accepted. What one of those was on its own, the general one cannot bring back.

/// Whether the machine forwards IPv4.
pub(crate) const IPV4: &str = "net.ipv4.ip_forward";
/// Whether it forwards IPv6.
pub(crate) const IPV6: &str = "net.ipv6.conf.all.forwarding";

/// Whether a link forwards IPv6.
pub(crate) fn of_a_link(link: &str) -> String {
    format!("net.ipv6.conf.{}.forwarding", link.replace('.', "/"))
}

const REDIRECTS: &str = "net.ipv4.conf.all.accept_redirects";
/// Since Linux 6.17; that a machine forwards leaves it as it is, that it does not clears it.
const FORCED: &str = "net.ipv6.conf.*.force_forwarding";

/// The settings that the kernel writes along with this one; `*` is each link, and what links to come will have.
pub fn written_along(key: &str) -> &'static [&'static str] {
    match key {
        IPV4 => &["net.ipv4.conf.*.forwarding", REDIRECTS],
        IPV6 => &["net.ipv6.conf.*.forwarding", FORCED],
        _ => &[],
    }
}

/// Whether a key is meant by a pattern with at most one `*`, which stands for any name but `all`.
pub(crate) fn is_meant(key: &str, pattern: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return key == pattern };
    let link = key.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
    link.is_some_and(|link| link != "all" && !link.contains('.'))
}

/// What the kernel writes to one of them when the general one is set; `None`: nothing.
pub(crate) fn as_written(key: &str, general: &str) -> Option<&'static str> {
    let forwards = general != "0";
    match forwards != (key == REDIRECTS) {
        true if is_meant(key, FORCED) => None,
        true => Some("1"),
        false => Some("0"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_link_is_forced_to_goes_with_forwarding_and_does_not_come_with_it() {
        let forced = "net.ipv6.conf.eth0.force_forwarding";
        assert!(written_along(IPV6).iter().any(|pattern| is_meant(forced, pattern)));
        assert_eq!((as_written(forced, "0"), as_written(forced, "1")), (Some("0"), None));
        assert_eq!((as_written(REDIRECTS, "1"), as_written(&of_a_link("eth0"), "1")), (Some("0"), Some("1")));
    }

    #[test]
    fn a_pattern_means_each_link_and_not_the_machine_as_a_whole() {
        let pattern = written_along(IPV6)[0];
        for key in
            ["net.ipv6.conf.eth0.forwarding", "net.ipv6.conf.eth0/7.forwarding", "net.ipv6.conf.default.forwarding"]
        {
            assert!(is_meant(key, pattern), "{key}");
        }
        for key in [IPV6, "net.ipv4.conf.eth0.forwarding", "net.ipv6.conf.eth0.accept_ra"] {
            assert!(!is_meant(key, pattern), "{key}");
        }
    }
}
