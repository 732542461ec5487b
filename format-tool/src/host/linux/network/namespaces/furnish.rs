//! The inside of a namespace, made what it must be.

use super::super::changes::set_one;
use super::super::connection::{Connection, Request, unless};
use super::super::links::{self, Ends};
use super::super::{Indexes, addresses, routes};
use super::taken::Inside;
use super::{INNER, look_inside};
use crate::host::linux::sysctls;
use nix::errno::Errno;
use node_format_plan::facts::{LEAST_OF_IPV6, LinkFact, NamespaceFact};
use rtnetlink::{Handle, LinkUnspec};
use std::io;

const ITS_LINK: &str = "its eth0";

/// What did not come to be.
#[derive(Default)]
pub(super) struct Furnished {
    /// What was there before the run, in words.
    pub left_out: Vec<String>,
    /// Of all else, what and why.
    pub refused: Vec<(String, io::Error)>,
}

/// What is asked for, in words.
enum Asked {
    /// It was there before.
    Back(String),
    Wanted(String),
}

impl Asked {
    fn new(back: Option<String>, wanted: impl FnOnce() -> String) -> Self {
        back.map_or_else(|| Self::Wanted(wanted()), Self::Back)
    }

    fn wanted(what: &str) -> Self {
        Self::Wanted(what.into())
    }
}

impl Furnished {
    fn note(&mut self, asked: Asked, result: io::Result<()>) {
        match (asked, result) {
            (_, Ok(())) => {}
            (Asked::Back(what), Err(e)) => self.left_out.push(format!("{what} ({e})")),
            (Asked::Wanted(what), Err(e)) => self.refused.push((what, e)),
        }
    }
}

/// Makes the current namespace what it must be, from whatever it is: what is refused keeps nothing else. `taken`: from it, by this
/// run.
pub(super) fn furnish(wanted: &NamespaceFact, taken: &mut Inside) -> io::Result<Furnished> {
    let (mut found, _) = look_inside(&Ends::new())?;
    let mut furnished = Furnished::default();
    let before = taken.settings();
    taken.note_settings();
    // Without IPv6 there are none of its settings.
    if let Some((from, to)) = raised(&found, wanted) {
        furnished.note(Asked::wanted(ITS_LINK), set_one(INNER, &from, &to, &mut taken.followed));
        (found, _) = look_inside(&Ends::new())?;
    }
    if !(found.routes.is_empty() && found.addresses.is_empty()) {
        taken.extend(Inside::look()?);
    }
    taken.local_routes.extend(&found.local_routes);
    // Before there is a link that a router could be heard on.
    for (key, value) in &wanted.sysctls {
        furnished.note(Asked::Wanted(format!("the setting {key}")), sysctls::write(key, value));
    }
    for (key, _, otherwise) in sysctls::OF_A_NAMESPACE.iter().filter(|(key, ..)| !wanted.sysctls.contains_key(*key)) {
        let guess = found.sysctls.contains_key(*key).then_some(*otherwise);
        let to = before.get(key).map(String::as_str).or(guess);
        let written = to.map_or(Ok(()), |to| sysctls::write_if_there(key, to));
        furnished.note(Asked::Wanted(format!("the setting {key}")), written);
    }
    let mut connection = Connection::open_within()?;
    let all: Vec<links::Link> = links::all(&mut connection)?;
    let indexes: Indexes = all.iter().map(|link| (link.name.clone(), link.index)).collect();
    let index = |name: &str| indexes.get(name).copied().ok_or(Errno::ENODEV);
    let lo = index("lo")?;
    let inner = match index(INNER) {
        Err(_) if wanted.link.is_none() => 0, // Nothing is asked of it.
        found => found?,
    };
    let handle = connection.handle.clone();
    let mut requests: Vec<(Asked, Request)> = Vec::new();
    if wanted.lo_up && !found.lo_up {
        let up = LinkUnspec::new_with_index(lo).up().build();
        requests.push((Asked::wanted("its lo"), Box::pin(handle.link().set(up).execute())));
    }
    if let (Some(from), Some(to)) = (&found.link, &wanted.link)
        && from != to
    {
        furnished.note(Asked::wanted(ITS_LINK), set_one(INNER, from, to, &mut taken.followed));
    }
    let gone = removals(&handle, (lo, inner), &found, wanted);
    requests.extend(gone.into_iter().map(|(what, request)| (Asked::Wanted(what), request)));
    let missing = taken.in_order(wanted.addresses.difference(&found.addresses)).into_iter();
    requests.extend(missing.map(|ip| {
        let asked = Asked::new(taken.address(*ip), || format!("the address {ip}"));
        (asked, taken.add_address(&handle, inner, *ip))
    }));
    // A router must be reachable before there is a way through it.
    let missing = wanted.routes.difference(&found.routes);
    let (through, direct): (Vec<_>, Vec<_>) = missing.partition(|route| route.via.is_some());
    let missing = direct.into_iter().chain(through);
    requests.extend(missing.map(|route| {
        let asked = Asked::new(taken.route(route), || format!("the route to {}", route.destination));
        (asked, taken.add_route(&handle, inner, route))
    }));
    let missing = wanted.local_routes.difference(&found.local_routes);
    requests.extend(missing.map(|range| {
        let asked = Asked::new(taken.local_route(*range), || format!("the local route {range}"));
        (asked, routes::add_local(&handle, lo, *range))
    }));
    if found.lo_up && !wanted.lo_up {
        let down = LinkUnspec::new_with_index(lo).down().build();
        requests.push((Asked::wanted("its lo"), Box::pin(handle.link().set(down).execute())));
    }
    let (asked, requests): (Vec<_>, Vec<_>) = requests.into_iter().unzip();
    for (asked, result) in asked.into_iter().zip(connection.call(requests)?) {
        furnished.note(asked, result.map_err(io::Error::from));
    }
    Ok(furnished)
}

/// What is not wanted goes; what the kernel took already, with a link that is down or with an address before, is gone.
fn removals(
    handle: &Handle,
    (lo, inner): (u32, u32),
    found: &NamespaceFact,
    wanted: &NamespaceFact,
) -> Vec<(String, Request)> {
    let ways = found.routes.difference(&wanted.routes);
    let ways = ways.map(|route| (format!("the route to {}", route.destination), routes::remove(handle, inner, route)));
    let local = found.local_routes.difference(&wanted.local_routes);
    let local = local.map(|range| (format!("the local route {range}"), routes::remove_local(handle, lo, *range)));
    let addresses = found.addresses.difference(&wanted.addresses);
    let addresses = addresses.map(|ip| (format!("the address {ip}"), addresses::remove_if_there(handle, inner, *ip)));
    // Where IPv6 went with the size of packets the kernel says so.
    let addresses = addresses.map(|(what, request)| (what, unless(request, Errno::ENXIO)));
    let routes = ways.chain(local).map(|(what, request)| (what, unless(request, Errno::ESRCH)));
    let gone = routes.chain(addresses);
    gone.map(|(what, request)| (format!("{what}, which is not to be there"), request)).collect()
}

/// What the inner end must take first, if it takes too little for IPv6.
fn raised(found: &NamespaceFact, wanted: &NamespaceFact) -> Option<(LinkFact, LinkFact)> {
    let (link, mtu) = (found.link.as_ref()?, wanted.link.as_ref()?.mtu?);
    (link.mtu? < LEAST_OF_IPV6 && mtu >= LEAST_OF_IPV6)
        .then(|| (link.clone(), LinkFact { mtu: Some(mtu), ..link.clone() }))
}
