//! What links of a namespace have counted: of all of them one question to the kernel (rtnetlink), for a node may have a
//! thousand namespaces; of one partition's one of each, for its machine may have a thousand links.

use super::{Link, Links};
use nix::libc::ENODEV;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

// Of linux/netlink.h, linux/rtnetlink.h, linux/if_link.h and linux/if.h.
const ERROR: u16 = 2;
const DONE: u16 = 3;
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const REQUEST: u16 = 1;
const DUMP: u16 = 0x300;
const INTERRUPTED: u16 = 0x10;
const NAME: u16 = 3;
const STATS64: u16 = 23;
const LOOPBACK: u32 = 1 << 3;
/// Of `struct nlmsghdr`, and of `struct ifinfomsg`.
const HEADER: usize = 16;
const INFO: usize = 16;
/// Room for what the kernel tells at a time.
const ANSWER: usize = 64 * 1024;

/// The links of the namespace that this thread is in, but for the loopback; `identity` of each by its number.
pub fn dump(identity: impl Fn(u32) -> String) -> io::Result<Links> {
    let socket = ask(DUMP, "")?;
    let (mut links, mut buffer) = (Links::new(), vec![0; ANSWER]);
    loop {
        let read = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if read == 0 || take(&buffer[..read], &mut links, &identity)? {
            return Ok(links);
        }
    }
}

/// Those of them that have one of these names.
pub fn named(names: &[String], identity: impl Fn(u32) -> String) -> io::Result<Links> {
    let (mut links, mut buffer) = (Links::new(), vec![0; ANSWER]);
    for name in names {
        let read = recv(ask(0, name)?.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        match take(&buffer[..read], &mut links, &identity) {
            Err(e) if e.raw_os_error() == Some(ENODEV) => {}
            taken => drop(taken?),
        }
    }
    Ok(links)
}

/// Asks for links, for one of that name if there is one; the answer is for whoever reads.
fn ask(flags: u16, name: &str) -> io::Result<OwnedFd> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    let mut question = vec![0; HEADER + INFO];
    question[4..6].copy_from_slice(&GET_LINK.to_ne_bytes());
    question[6..8].copy_from_slice(&(REQUEST | flags).to_ne_bytes());
    if !name.is_empty() {
        question.extend((4 + name.len() as u16 + 1).to_ne_bytes());
        question.extend(NAME.to_ne_bytes());
        question.extend(name.as_bytes());
        question.push(0);
        question.resize(question.len().next_multiple_of(4), 0);
    }
    let length = question.len() as u32;
    question[..4].copy_from_slice(&length.to_ne_bytes());
    send(socket.as_raw_fd(), &question, MsgFlags::empty())?;
    Ok(socket)
}

/// Takes what one answer says; whether it was the last.
fn take(mut bytes: &[u8], links: &mut Links, identity: &impl Fn(u32) -> String) -> io::Result<bool> {
    while let Some(length) = number::<4>(bytes, 0).map(|raw| u32::from_ne_bytes(raw) as usize) {
        let Some(message) = bytes.get(..length).filter(|message| message.len() >= HEADER) else { break };
        let kind = number(message, 4).map_or(ERROR, u16::from_ne_bytes);
        let flags = number(message, 6).map_or(0, u16::from_ne_bytes);
        if flags & INTERRUPTED != 0 {
            return Err(io::Error::other("its links are just being changed"));
        }
        match kind {
            DONE => return Ok(true),
            ERROR => {
                let code = number(message, HEADER).map_or(0, i32::from_ne_bytes);
                return Err(io::Error::from_raw_os_error(-code));
            }
            NEW_LINK => links.extend(link(&message[HEADER..], identity)),
            _ => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn link(message: &[u8], identity: &impl Fn(u32) -> String) -> Option<(String, Link)> {
    let index = u32::from_ne_bytes(number(message, 4)?);
    if u32::from_ne_bytes(number(message, 8)?) & LOOPBACK != 0 {
        return None;
    }
    let (mut name, mut counted) = (None, None);
    let mut attributes = message.get(INFO..)?;
    while let Some(length) = number(attributes, 0).map(|raw| usize::from(u16::from_ne_bytes(raw))) {
        let Some(value) = attributes.get(4..length) else { break };
        match u16::from_ne_bytes(number(attributes, 2)?) {
            NAME => name = Some(String::from_utf8_lossy(value).trim_end_matches('\0').to_owned()),
            // Packets received and sent, then bytes received and sent.
            STATS64 => counted = Some((u64::from_ne_bytes(number(value, 16)?), u64::from_ne_bytes(number(value, 24)?))),
            _ => {}
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    let (received, sent) = counted?;
    Some((name?, Link { identity: identity(index), received, sent }))
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_nobodys_traffic_and_the_rest_is_what_the_kernel_says() {
        let links = dump(|index| format!("number {index}")).unwrap();
        assert!(!links.contains_key("lo"));
        let numbers = nix::net::if_::if_nameindex().unwrap();
        let said = |name: &str, of: &str| {
            std::fs::read_to_string(format!("/sys/class/net/{name}/{of}")).map(|text| text.trim().to_owned())
        };
        for one in numbers.iter().filter(|one| one.name().to_bytes() != b"lo") {
            let name = one.name().to_string_lossy().into_owned();
            assert_eq!(links[&name].identity, format!("number {}", one.index()));
            let later: u64 = said(&name, "statistics/rx_bytes").unwrap().parse().unwrap();
            assert!(links[&name].received <= later);
        }
    }

    #[test]
    fn links_are_asked_for_by_their_names_and_one_that_is_not_there_is_left_out() {
        let identity = |index| format!("number {index}");
        let all: Vec<String> = dump(identity).unwrap().into_keys().collect();
        let asked = [&all[..], &["no-such".to_owned()]].concat();
        let some = named(&asked, identity).unwrap();
        assert_eq!(some.keys().collect::<Vec<_>>(), all.iter().collect::<Vec<_>>());
        assert!(some.iter().all(|(name, link)| link.identity == dump(identity).unwrap()[name].identity));
    }

    #[test]
    fn links_that_change_while_they_are_told_are_not_told() {
        let mut message = [0; HEADER + INFO];
        message[..4].copy_from_slice(&32_u32.to_ne_bytes());
        message[4..6].copy_from_slice(&NEW_LINK.to_ne_bytes());
        assert!(!take(&message, &mut Links::new(), &|_| String::new()).unwrap());
        message[6..8].copy_from_slice(&(INTERRUPTED | 2).to_ne_bytes());
        assert!(take(&message, &mut Links::new(), &|_| String::new()).is_err());
        // Half a message is none.
        assert!(!take(&message[..20], &mut Links::new(), &|_| String::new()).unwrap());
    }
}
