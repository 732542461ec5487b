//! Which address of a link the kernel prefers where several would do: of IPv4 the one that came first, of IPv6 the one that came
//! last. What is put back comes last.

use super::Planner;
use crate::action::Action;
use crate::facts::{AddressFact, HostFacts};
use crate::thing::Uplink;
use ipnet::IpNet;

impl Planner<'_> {
    /// Of addresses that go from a link together, the last that came goes first: put back, they come in their order again. Where
    /// one would come after what stays, that is said.
    pub(super) fn keep_the_order_of_addresses(&mut self) {
        let at = self.remove.iter().position(|action| action.clears().is_some());
        if let Some(at) = at
            && let Some(uplink) = self.remove[at].clears().cloned()
        {
            let (before, mut behind) = (self.remove[..at].to_vec(), self.remove[at..].to_vec());
            let (later, mut all): (Vec<_>, Vec<_>) =
                before.into_iter().partition(|action| self.came_after_it(action, &uplink));
            // The removals are turned round at the end.
            behind.splice(1..1, later);
            all.extend(behind);
            self.remove = all;
        }
        self.say_what_would_come_later();
    }

    /// Whether this takes an address away that came after all that an interface brought.
    fn came_after_it(&self, action: &Action, uplink: &Uplink) -> bool {
        let Action::RemoveAddress(gone) = action else { return false };
        let mut brought = uplink.addresses.iter().filter(|one| is_ipv4(one) == is_ipv4(&gone.address)).peekable();
        // A route from it is to be on the interface again before it goes.
        gone.link == uplink.bridge
            && !gone.bound_only
            && brought.peek().is_some()
            && brought.all(|one| self.came_after(gone, *one))
            && !uplink.routes.iter().any(|route| route.source == Some(gone.address.addr()))
    }

    /// Whether it came to its link after the other one, which is there.
    fn came_after(&self, one: &AddressFact, other: IpNet) -> bool {
        let all = &self.facts.addresses;
        let place = all.get_index_of(one);
        let others = self.facts.address(&one.link, other).and_then(|other| all.get_index_of(other));
        let Some((place, others)) = place.zip(others) else { return false };
        if is_ipv4(&one.address) { place > others } else { place < others }
    }

    fn say_what_would_come_later(&mut self) {
        let goes = |found: &AddressFact| {
            self.remove.iter().any(|action| match action {
                Action::RemoveAddress(gone) => gone == found,
                other => other
                    .clears()
                    .is_some_and(|uplink| uplink.bridge == found.link && uplink.addresses.contains(&found.address)),
            })
        };
        let gone = self.remove.iter().flat_map(|action| match action {
            Action::RemoveAddress(gone) if !gone.bound_only && !self.leaving.contains(&gone.link) => vec![gone],
            // If it is taken again, what it brings comes anew too.
            other => {
                let uplink = other.clears().filter(|uplink| !self.leaving.contains(&uplink.bridge));
                let on_bridge = |uplink: &Uplink| {
                    let found = uplink.addresses.iter().map(|one| self.facts.address(&uplink.bridge, *one));
                    found.flatten().collect()
                };
                uplink.map(on_bridge).unwrap_or_default()
            }
        });
        let lost = gone.filter_map(|gone| {
            let stays = |found: &&AddressFact| {
                let is_near = matches!(found.address.addr(), std::net::IpAddr::V6(ip) if ip.is_unicast_link_local());
                let is_alike = found.link == gone.link && is_ipv4(&found.address) == is_ipv4(&gone.address);
                is_alike && !found.bound_only && !found.leased && !is_near && !goes(found)
            };
            let mut later = self.facts.addresses.iter().filter(stays);
            let first = later.find(|found| self.came_after(found, gone.address))?;
            let preferred = if is_ipv4(&gone.address) { "before" } else { "behind" };
            Some(format!(
                "{} goes from {}, and with it its place {preferred} {}",
                gone.address, gone.link, first.address
            ))
        });
        // If all is done nobody misses it.
        let lost: Vec<String> = lost.collect();
        self.lost.splice(0..0, lost);
    }
}

/// What somebody gave an interface while it was a port comes before what it gets back.
pub(super) fn comes_behind(uplink: &Uplink, facts: &HostFacts) -> Option<String> {
    let link = &uplink.link;
    let back = uplink.addresses.iter().find(|address| is_ipv4(address) && facts.address(link, **address).is_none())?;
    let mut there = facts.addresses.iter().filter(|found| found.link == *link && !found.leased && !found.bound_only);
    let first = there.find(|found| is_ipv4(&found.address) && !uplink.addresses.contains(&found.address))?.address;
    Some(format!("{link} has {first} by now: {back} comes back behind it, for the kernel puts what is new last"))
}

fn is_ipv4(address: &IpNet) -> bool {
    address.addr().is_ipv4()
}
