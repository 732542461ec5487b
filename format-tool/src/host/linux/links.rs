//! Links, addresses and local routes of the current network namespace.

use super::netlink::{CREATE, EXCL, Request, Socket, attributes, number, text};
use super::{failed, tap};
use crate::host::Outcome;
use ipnet::IpNet;
use nix::errno::Errno;
use node_format_plan::{Action, AddressFact, LinkFact, LinkKind};
use plat_model::problem::{Problem, Result, codes};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const SETLINK: u16 = 19;
const NEWADDR: u16 = 20;
const DELADDR: u16 = 21;
const GETADDR: u16 = 22;
const NEWROUTE: u16 = 24;
const DELROUTE: u16 = 25;
const GETROUTE: u16 = 26;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_GROUP: u16 = 27;
const IFLA_EXT_MASK: u16 = 29;
const SKIP_STATS: u32 = 8;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const TUN_OWNER: u16 = 1;
const TUN_TYPE: u16 = 3;
const TUN_TYPE_TAP: u8 = 2;
const IFF_UP: u32 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_F_NODAD: u8 = 2;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RT_TABLE_LOCAL: u8 = 255;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_HOST: u8 = 254;
const RTN_LOCAL: u8 = 2;

/// The network of the namespace.
#[derive(Default)]
pub(super) struct Seen {
    pub links: BTreeMap<String, LinkFact>,
    pub addresses: BTreeSet<AddressFact>,
    pub local_routes: BTreeSet<IpNet>,
    indexes: BTreeMap<String, u32>,
}

pub(super) fn observe() -> Result<Seen> {
    let mut socket = Socket::open().map_err(|e| failed("the kernel's links cannot be looked at", e))?;
    see(&mut socket).map_err(|e| failed("the kernel's links cannot be looked at", e))
}

fn see(socket: &mut Socket) -> std::io::Result<Seen> {
    let mut seen = Seen::default();
    let mut names = BTreeMap::new();
    let mut masters = Vec::new();
    socket.dump(Request::new(GETLINK, 0, &[0; 16]).number(IFLA_EXT_MASK, SKIP_STATS), |body| {
        if let Some((name, index, master, link)) = read_link(body) {
            masters.extend(master.map(|master| (name.clone(), master)));
            names.insert(index, name.clone());
            seen.indexes.insert(name.clone(), index);
            seen.links.insert(name, link);
        }
    })?;
    for (name, master) in masters {
        if let Some(link) = seen.links.get_mut(&name) {
            link.bridge = names.get(&master).cloned();
        }
    }
    socket.dump(Request::new(GETADDR, 0, &[0; 8]), |body| {
        let found = read_address(body).and_then(|(index, address)| Some((names.get(&index)?, address)));
        seen.addresses.extend(found.map(|(link, address)| AddressFact { link: link.clone(), address }));
    })?;
    socket.dump(Request::new(GETROUTE, 0, &[0; 12]), |body| seen.local_routes.extend(read_local_route(body)))?;
    Ok(seen)
}

fn read_link(body: &[u8]) -> Option<(String, u32, Option<u32>, LinkFact)> {
    let (index, flags) = (number(body.get(4..)?)?, number(body.get(8..)?)?);
    let (mut name, mut master) = (None, None);
    let kind = LinkKind::Other(String::new());
    let mut link = LinkFact { kind, up: flags & IFF_UP != 0, bridge: None, group: 0, mac: [0; 6] };
    for (kind, value) in attributes(body.get(16..)?) {
        match kind {
            IFLA_IFNAME => name = Some(text(value)),
            IFLA_MASTER => master = number(value),
            IFLA_GROUP => link.group = number(value).unwrap_or(0),
            IFLA_ADDRESS => link.mac = value.try_into().unwrap_or_default(),
            IFLA_LINKINFO => link.kind = read_kind(value),
            _ => {}
        }
    }
    Some((name?, index, master, link))
}

fn read_kind(info: &[u8]) -> LinkKind {
    let mut kind = String::new();
    let (mut owner, mut tap) = (None, false);
    for (key, value) in attributes(info) {
        match key {
            INFO_KIND => kind = text(value),
            INFO_DATA if kind == "tun" => {
                for (key, value) in attributes(value) {
                    match key {
                        TUN_OWNER => owner = number(value),
                        TUN_TYPE => tap = value.first() == Some(&TUN_TYPE_TAP),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    match kind.as_str() {
        "bridge" => LinkKind::Bridge,
        "tun" if tap => LinkKind::Tap(owner),
        _ => LinkKind::Other(kind),
    }
}

fn read_address(body: &[u8]) -> Option<(u32, IpNet)> {
    let (length, index) = (*body.get(1)?, number(body.get(4..)?)?);
    let (mut local, mut address) = (None, None);
    for (kind, value) in attributes(body.get(8..)?) {
        match kind {
            IFA_LOCAL => local = read_ip(value),
            IFA_ADDRESS => address = read_ip(value),
            _ => {}
        }
    }
    // On a link between two ends `address` is the other one's.
    Some((index, IpNet::new(local.or(address)?, length).ok()?))
}

fn read_local_route(body: &[u8]) -> Option<IpNet> {
    let (length, table, kind) = (*body.get(1)?, *body.get(4)?, *body.get(7)?);
    let address = attributes(body.get(12..)?).find(|(key, _)| *key == RTA_DST).and_then(|(_, value)| read_ip(value))?;
    let net = IpNet::new(address, length).ok()?;
    (table == RT_TABLE_LOCAL && kind == RTN_LOCAL && length < net.max_prefix_len()).then_some(net)
}

fn read_ip(value: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(value).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok()
}

/// Index of each link by its name.
fn indexes(socket: &mut Socket) -> std::io::Result<BTreeMap<String, u32>> {
    let mut indexes = BTreeMap::new();
    socket.dump(Request::new(GETLINK, 0, &[0; 16]).number(IFLA_EXT_MASK, SKIP_STATS), |body| {
        indexes.extend(read_link(body).map(|(name, index, ..)| (name, index)));
    })?;
    Ok(indexes)
}

fn ifinfo(index: u32, up: Option<bool>) -> [u8; 16] {
    let mut fixed = [0; 16];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    if let Some(up) = up {
        fixed[8..12].copy_from_slice(&(if up { IFF_UP } else { 0 }).to_ne_bytes());
        fixed[12..16].copy_from_slice(&IFF_UP.to_ne_bytes());
    }
    fixed
}

/// The request for one action. `None`: it speaks of a link that does not exist.
fn request(action: &Action, indexes: &BTreeMap<String, u32>) -> Option<Request> {
    Some(match action {
        Action::AddBridge { name, link } => {
            let info = Request::new(0, 0, &[]).text(INFO_KIND, "bridge");
            let request = Request::new(NEWLINK, CREATE | EXCL, &ifinfo(0, Some(link.up))).text(IFLA_IFNAME, name);
            let request = request.attribute(IFLA_ADDRESS, &link.mac).number(IFLA_GROUP, link.group);
            request.attribute(IFLA_LINKINFO, info.attributes_only())
        }
        Action::RemoveBridge { name, .. } => Request::new(DELLINK, 0, &ifinfo(*indexes.get(name)?, None)),
        Action::SetLink { name, from, to } => set(*indexes.get(name)?, from, to, indexes)?,
        Action::AddAddress { link, address } => address_request(NEWADDR, CREATE | EXCL, *indexes.get(link)?, *address),
        Action::RemoveAddress { link, address } => address_request(DELADDR, 0, *indexes.get(link)?, *address),
        Action::AddLocalRoute { range } => route_request(NEWROUTE, CREATE | EXCL, *indexes.get("lo")?, *range),
        Action::RemoveLocalRoute { range } => route_request(DELROUTE, 0, *indexes.get("lo")?, *range),
        _ => return None,
    })
}

/// What differs between two states of a link, in one request.
fn set(index: u32, from: &LinkFact, to: &LinkFact, indexes: &BTreeMap<String, u32>) -> Option<Request> {
    let mut request = Request::new(SETLINK, 0, &ifinfo(index, Some(to.up)));
    if from.mac != to.mac {
        request = request.attribute(IFLA_ADDRESS, &to.mac);
    }
    if from.group != to.group {
        request = request.number(IFLA_GROUP, to.group);
    }
    if from.bridge != to.bridge {
        let master = to.bridge.as_ref().map_or(Some(0), |bridge| indexes.get(bridge).copied())?;
        request = request.number(IFLA_MASTER, master);
    }
    Some(request)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn family(net: IpNet) -> u8 {
    // The numbers are small on every architecture.
    (if net.addr().is_ipv6() { nix::libc::AF_INET6 } else { nix::libc::AF_INET }) as u8
}

fn address_request(kind: u16, flags: u16, index: u32, address: IpNet) -> Request {
    let nodad = if address.addr().is_ipv6() && kind == NEWADDR { IFA_F_NODAD } else { 0 };
    let mut fixed = [family(address), address.prefix_len(), nodad, 0, 0, 0, 0, 0];
    fixed[4..].copy_from_slice(&index.to_ne_bytes());
    let value = octets(address.addr());
    Request::new(kind, flags, &fixed).attribute(IFA_LOCAL, &value).attribute(IFA_ADDRESS, &value)
}

fn route_request(kind: u16, flags: u16, lo: u32, range: IpNet) -> Request {
    let head = [family(range), range.prefix_len(), 0, 0, RT_TABLE_LOCAL, RTPROT_STATIC, RT_SCOPE_HOST, RTN_LOCAL];
    let fixed = [head.as_slice(), &[0; 4]].concat();
    Request::new(kind, flags, &fixed).attribute(RTA_DST, &octets(range.network())).number(RTA_OIF, lo)
}

/// Performs actions that are one request each.
pub(super) fn perform(batch: &[Action]) -> Outcome {
    let mut done = vec![false; batch.len()];
    let result = Socket::open().and_then(|mut socket| call(&mut socket, batch, &mut done));
    match result {
        Ok(problem) => Outcome { done, problem },
        Err(e) => Outcome { done, problem: Some(failed("the kernel's links cannot be changed", e)) },
    }
}

/// Calls the kernel for each action; notes which took effect and returns the first failure.
fn call(socket: &mut Socket, batch: &[Action], done: &mut [bool]) -> std::io::Result<Option<Problem>> {
    let indexes = indexes(socket)?;
    let requests: Vec<(usize, Option<Request>)> =
        batch.iter().enumerate().map(|(n, action)| (n, request(action, &indexes))).collect();
    let lost = requests.iter().find(|(_, request)| request.is_none()).map(|(n, _)| refused(&batch[*n], Errno::ENODEV));
    if lost.is_some() {
        return Ok(lost); // Nothing has been sent.
    }
    let results = socket.call(requests.into_iter().filter_map(|(_, request)| request).collect())?;
    let mut problem = None;
    for (n, result) in results.into_iter().enumerate() {
        match result {
            Ok(()) => done[n] = true,
            Err(e) => problem = problem.or_else(|| Some(refused(&batch[n], e))),
        }
    }
    Ok(problem)
}

fn refused(action: &Action, why: Errno) -> Problem {
    let text = node_format_plan::describe(action);
    match why {
        Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT | Errno::EPROTONOSUPPORT => {
            Problem::new(codes::KERNEL_LACKS, format!("the kernel cannot do `{text}`"))
                .because(why)
                .fix("load the module it needs (bridge, tun, ipv6), or choose another network mode")
        }
        _ => failed(format!("the kernel refused `{text}`"), why),
    }
}

/// Makes taps by ioctl, then joins them to their bridge and raises them with pipelined requests.
pub(super) fn add_taps(batch: &[Action]) -> Outcome {
    let mut done = vec![false; batch.len()];
    for (n, action) in batch.iter().enumerate() {
        let Action::AddTap { name, link } = action else { continue };
        let owner = if let LinkKind::Tap(owner) = link.kind { owner } else { None };
        if let Err(e) = tap::make(name, owner) {
            return Outcome { done, problem: Some(failed(format!("cannot make tap {name}"), e)) };
        }
        done[n] = true; // It exists, so it must be undone if what follows fails.
    }
    let joins: Vec<Action> = batch.iter().filter_map(join).collect();
    Outcome { done, problem: perform(&joins).problem }
}

/// From a tap as the kernel makes it to a tap as it must be.
fn join(action: &Action) -> Option<Action> {
    let Action::AddTap { name, link } = action else { return None };
    let from = LinkFact { kind: link.kind.clone(), up: false, bridge: None, group: 0, mac: [0; 6] };
    Some(Action::SetLink { name: name.clone(), from, to: link.clone() })
}

/// Deletes taps: all are moved into the link group after their own, then the group is deleted with one request. Deleted
/// one by one, each waits for the kernel's grace period: 9 s for 500. The planner has made sure that nobody else is in
/// that group.
pub(super) fn remove_taps(batch: &[Action]) -> Outcome {
    let group = batch.iter().find_map(|action| match action {
        Action::RemoveTap { link, .. } => Some(link.group.wrapping_add(1)),
        _ => None,
    });
    let Some(group) = group.filter(|group| *group > 1) else { return remove_one_by_one(batch) };
    let condemn = batch.iter().filter_map(|action| {
        let Action::RemoveTap { name, link } = action else { return None };
        let to = LinkFact { group, ..link.clone() };
        Some(Action::SetLink { name: name.clone(), from: link.clone(), to })
    });
    let outcome = perform(&condemn.collect::<Vec<_>>());
    if outcome.problem.is_some() {
        return Outcome { done: vec![false; batch.len()], problem: outcome.problem };
    }
    let delete = || {
        let mut socket = Socket::open()?;
        let seen = see(&mut socket)?;
        let ours: BTreeSet<&str> = batch.iter().filter_map(tap_name).collect();
        if let Some((name, _)) =
            seen.links.iter().find(|(name, link)| link.group == group && !ours.contains(name.as_str()))
        {
            return Err(std::io::Error::other(format!("link {name} came into link group {group} meanwhile")));
        }
        let results = socket.call(vec![Request::new(DELLINK, 0, &ifinfo(0, None)).number(IFLA_GROUP, group)])?;
        results.into_iter().try_for_each(|result| result.map_err(std::io::Error::from))
    };
    match delete() {
        Ok(()) => Outcome { done: vec![true; batch.len()], problem: None },
        Err(e) => Outcome { done: vec![false; batch.len()], problem: Some(failed("cannot delete the taps", e)) },
    }
}

fn tap_name(action: &Action) -> Option<&str> {
    if let Action::RemoveTap { name, .. } = action { Some(name) } else { None }
}

/// For taps that were never put into a link group.
fn remove_one_by_one(batch: &[Action]) -> Outcome {
    let as_links = batch.iter().filter_map(|action| match action {
        Action::RemoveTap { name, link } => Some(Action::RemoveBridge { name: name.clone(), link: link.clone() }),
        _ => None,
    });
    perform(&as_links.collect::<Vec<_>>())
}
