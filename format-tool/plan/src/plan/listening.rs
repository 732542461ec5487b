//! Where the machine hears routers, and where it shall hear none: as its owner had it before node-format came.

use super::{Before, Planner};
use crate::facts::HostFacts;
use crate::forwarding;
use crate::layout::Layout;

/// Whether a link listens to routers: 2 if even while the machine forwards.
pub(super) fn accept_ra(link: &str) -> String {
    format!("net.ipv6.conf.{}.accept_ra", link.replace('.', "/"))
}

pub(super) fn forwards(layout: &Layout) -> bool {
    layout.sysctls.contains_key(forwarding::IPV6)
}

/// Whether a link forwarded IPv6 before node-format had the whole machine do so, of which `by_us` is the record.
pub(super) fn forwarded(link: &str, facts: &HostFacts, by_us: Option<Before<'_>>) -> bool {
    let key = forwarding::of_a_link(link);
    let value = match by_us {
        Some(Before { was, along, .. }) => Some(along.get(&key).map_or(was, String::as_str)),
        None => facts.sysctls.get(&key).or_else(|| facts.sysctls.get(forwarding::IPV6)).map(String::as_str),
    };
    value.is_some_and(|found| found != "0")
}

impl Planner<'_> {
    /// What a setting is to be, where it is about hearing routers: an interface that forwards already and so hears none is left
    /// alone (`None`), and the bridge that such a one is to be a port of hears none either.
    pub(super) fn listening<'w>(&self, key: &str, wanted: &'w str) -> Option<&'w str> {
        let its = |link: &&String| accept_ra(link) == key;
        if wanted != "2" {
            return Some(wanted);
        }
        if let Some(uplink) = self.layout.uplink.as_ref().filter(|uplink| its(&&uplink.bridge)) {
            return Some(if self.ignores(&uplink.link) { "0" } else { wanted });
        }
        let found = self.facts.links.keys().find(its).filter(|_| !self.settings_before.contains_key(key));
        (!found.is_some_and(|link| self.ignores(link))).then_some(wanted)
    }

    /// Whether an interface hears no router because it forwarded before node-format came.
    fn ignores(&self, link: &str) -> bool {
        self.told_at_first(&accept_ra(link)) == Some("1") && self.forwarded(link)
    }

    /// Whether the kernel listens to routers on an interface as its owner has it: so it is again once it is given back.
    pub(super) fn hears_by_itself(&self, link: &str) -> bool {
        hears(self.told_at_first(&accept_ra(link)), self.forwarded(link))
    }

    /// Whether the bridge will not hear routers.
    pub(super) fn is_deaf(&self, bridge: &str) -> bool {
        let (listens, facts) = (accept_ra(bridge), self.facts);
        let goes_back = self.settings_before.get(listens.as_str()).map(|before| before.was);
        let there = || facts.sysctls.get(&listens).or_else(|| facts.sysctls.get(&accept_ra("default")));
        let wanted = self.layout.sysctls.get(&listens).map(String::as_str);
        let wanted = wanted.and_then(|wanted| self.listening(&listens, wanted));
        let value = wanted.or(goes_back).or_else(|| there().map(String::as_str));
        let will_forward =
            forwards(self.layout) || facts.sysctls.get(forwarding::IPV6).is_some_and(|found| found != "0");
        !hears(value, will_forward)
    }

    fn forwarded(&self, link: &str) -> bool {
        forwarded(link, self.facts, self.settings_before.get(forwarding::IPV6).copied())
    }

    /// What a setting was before node-format first changed it.
    fn told_at_first(&self, key: &str) -> Option<&str> {
        let was = self.settings_before.get(key).map(|before| before.was);
        was.or_else(|| self.facts.sysctls.get(key).map(String::as_str))
    }
}

/// Whether the kernel listens to routers on a link that is told this (`accept_ra`).
fn hears(told: Option<&str>, forwards: bool) -> bool {
    match told {
        Some("2") => true,
        Some("0") => false,
        _ => !forwards,
    }
}
