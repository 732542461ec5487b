//! The link-local addresses of links that get another hardware address while they are up. The kernel makes one where a link comes
//! up, and leaves it as it is while that stays up.

use super::addresses::{self, Found};
use super::connection::Request;
use super::links::Link;
use ipnet::IpNet;
use node_format_plan::link_local;
use rtnetlink::Handle;
use std::collections::{BTreeMap, BTreeSet};

/// What there is before.
#[derive(Default)]
pub(super) struct Near {
    /// By link, the address that the kernel made of the link's hardware address.
    made: BTreeMap<u32, IpNet>,
    there: BTreeSet<(u32, IpNet)>,
}

impl Near {
    pub fn new(links: &[Link], addresses: &[Found]) -> Self {
        let of = |link: &Link| link.makes_of_its_mac().then(|| (link.index, of_mac(link.fact.mac)));
        let mut made: BTreeMap<u32, IpNet> = links.iter().filter_map(of).collect();
        let says = addresses::are_told_apart(addresses);
        let kernels = addresses.iter().filter(|(.., besides)| besides.is_kernels || !says);
        let kernels: BTreeSet<(u32, IpNet)> = kernels.map(|(link, found, _)| (*link, found.address)).collect();
        made.retain(|link, near| kernels.contains(&(*link, *near)));
        let there = addresses.iter().map(|(link, found, _)| (*link, found.address)).collect();
        Self { made, there }
    }
}

/// What a run did so far, by link: undoing it comes upon that again.
#[derive(Default)]
pub(in crate::host::linux) struct Followed(BTreeMap<String, Option<Step>>);

struct Step {
    gone: IpNet,
    /// `None`: it was there already.
    made: Option<IpNet>,
}

impl Followed {
    /// The address that follows from the new hardware address takes the place of the kernel's old one; the second time that is
    /// taken back, whatever follows from what by then. Of a link that has the new one already nothing goes.
    pub(super) fn follow(
        &mut self,
        handle: &Handle,
        (name, index): (&str, u32),
        near: &Near,
        mac: [u8; 6],
    ) -> impl Iterator<Item = Request> + use<> {
        let (made, gone) = match self.0.remove(name) {
            Some(None) => (None, None),
            Some(Some(Step { gone, made })) => (Some(gone), made),
            None if near.made.get(&index) == Some(&of_mac(mac)) => (None, None),
            None => {
                let (gone, made) = (near.made.get(&index).copied(), of_mac(mac));
                let is_new = !near.there.contains(&(index, made));
                let step = gone.map(|gone| Step { gone, made: is_new.then_some(made) });
                let steps = (step.as_ref().and_then(|step| step.made), gone);
                self.0.insert(name.to_owned(), step);
                steps
            }
        };
        let made = made.map(|made| addresses::add_near(handle, index, made));
        made.into_iter().chain(gone.map(|gone| addresses::remove_if_there(handle, index, gone)))
    }
}

fn of_mac(mac: [u8; 6]) -> IpNet {
    IpNet::new_assert(link_local(mac).into(), 64)
}
