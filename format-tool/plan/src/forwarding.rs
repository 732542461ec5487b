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

/// The settings that the kernel writes along with this one; `*` is each link, and what links to come will have.
pub(crate) fn written_along(key: &str) -> &'static [&'static str] {
    match key {
        IPV4 => &["net.ipv4.conf.*.forwarding", REDIRECTS],
        IPV6 => &["net.ipv6.conf.*.forwarding"],
        _ => &[],
    }
}

/// Whether a key is meant by a pattern with at most one `*`, which stands for any name but `all`.
pub(crate) fn is_meant(key: &str, pattern: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return key == pattern };
    let link = key.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
    link.is_some_and(|link| link != "all" && !link.contains('.'))
}

/// What the kernel writes to one of them when the general one is set.
pub(crate) fn as_written(key: &str, general: &str) -> String {
    let whether = (general != "0") != (key == REDIRECTS);
    if whether { "1".into() } else { "0".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

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
