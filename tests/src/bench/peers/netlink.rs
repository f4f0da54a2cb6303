// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Generic netlink, as much of it as asking one family for something, and hearing what it tells everybody, takes
//! (`Documentation/userspace-api/netlink/intro.rst`).

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context as _, Result};
use nix::errno::Errno;
use nix::libc;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{
    bind, recv, send, socket, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol,
    SockType,
};

use crate::patience;

/// Marks an attribute that holds others.
pub const NESTED: u16 = 1 << 15;
/// An attribute's type without its two marks.
const TYPE: u16 = (1 << 14) - 1;
/// Headers: of a message, of a generic one in it, and of an attribute.
const HEADER: usize = 16;
const GENERIC: usize = 4;
const ATTRIBUTE: usize = 4;
/// `NLM_F_REQUEST` and `NLM_F_ACK`; `NLMSG_ERROR`.
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const ERROR: u16 = 2;
/// The controller, its command and attributes (`include/uapi/linux/genetlink.h`).
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
const GROUPS: u16 = 7;
const GROUP_NAME: u16 = 1;
const GROUP_ID: u16 = 2;
/// Room for a message.
const ROOM: usize = 8192;

/// An attribute: length, type, content, and zeroes up to a multiple of four bytes.
pub fn attribute(kind: u16, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len() + ATTRIBUTE).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The content of the first attribute of this type.
pub fn content(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    Attributes(attributes).find(|one| one.0 == kind).map(|one| one.1)
}

/// The number in the first attribute of this type.
pub fn number(attributes: &[u8], kind: u16) -> Option<u32> {
    Some(u32::from_ne_bytes(*content(attributes, kind)?.first_chunk()?))
}

/// A family that can be asked.
pub struct Family {
    socket: OwnedFd,
    id: u16,
    /// Its multicast groups, by name.
    groups: Vec<(String, u32)>,
}

impl Family {
    /// Looks it up.
    pub fn named(name: &str) -> Result<Self> {
        let mut family = Self { socket: open()?, id: CONTROLLER, groups: Vec::new() };
        let asked = attribute(FAMILY_NAME, &[name.as_bytes(), &[0]].concat());
        let answer = family.ask(GET_FAMILY, &asked);
        let answer = answer.with_context(|| format!("no netlink family {name}"))?;
        let id = content(&answer, FAMILY_ID).and_then(|bytes| bytes.first_chunk());
        family.id = u16::from_ne_bytes(*id.context("a family without a number")?);
        family.groups = groups(&answer);
        Ok(family)
    }

    /// Asks, and returns the attributes of the answer, if there is one besides the acknowledgement.
    pub fn ask(&self, command: u8, attributes: &[u8]) -> Result<Vec<u8>, Errno> {
        let length = u32::try_from(HEADER + GENERIC + attributes.len()).unwrap_or(u32::MAX);
        let mut message = length.to_ne_bytes().to_vec();
        message.extend([self.id.to_ne_bytes(), (REQUEST | ACK).to_ne_bytes()].concat());
        // Sequence and port: there is one question at a time.
        message.extend([0; 8]);
        message.extend([command, 1, 0, 0]);
        message.extend(attributes);
        send(self.socket.as_raw_fd(), &message, MsgFlags::empty())?;
        let mut answer = Vec::new();
        loop {
            let bytes = receive(&self.socket)?;
            for (kind, message) in Messages(&bytes) {
                if kind == ERROR {
                    return match message.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code)) {
                        0 => Ok(answer),
                        error => Err(Errno::from_raw(-error)),
                    };
                }
                answer.extend_from_slice(message.get(GENERIC..).unwrap_or_default());
            }
        }
    }

    /// Hears from now on what it tells this group.
    pub fn join(&self, name: &str) -> Result<Group> {
        let group = self.groups.iter().find(|group| group.0 == name);
        let (_, number) = group.with_context(|| format!("no group {name} in {:?}", self.groups))?;
        let socket = open()?;
        let length = libc::socklen_t::try_from(size_of_val(number))?;
        // SAFETY: The kernel reads so many bytes of the number, which lives for the call.
        let joined = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_NETLINK,
                libc::NETLINK_ADD_MEMBERSHIP,
                std::ptr::from_ref(number).cast(),
                length,
            )
        };
        Errno::result(joined).with_context(|| format!("the group {name} cannot be joined"))?;
        Ok(Group { socket, family: self.id })
    }
}

/// A multicast group of a family that is listened to.
pub struct Group {
    socket: OwnedFd,
    family: u16,
}

impl Group {
    /// Waits for a message with this command whose attributes are the right ones; an error when it does not come within
    /// `limit`, which is that of the stock kernel.
    pub fn wait(&self, command: u8, limit: Duration, is_it: impl Fn(&[u8]) -> bool) -> Result<()> {
        let limit = patience::scaled(limit);
        let begun = Instant::now();
        loop {
            let left = PollTimeout::try_from(limit.saturating_sub(begun.elapsed()))?;
            let mut wanted = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            match poll(&mut wanted, left) {
                Err(Errno::EINTR) => continue,
                ready => ensure!(ready? > 0, "waited {limit:?} in vain for the command {command}"),
            }
            let bytes = receive(&self.socket)?;
            let mut told = Messages(&bytes).filter(|message| message.0 == self.family);
            let said = |message: &[u8]| {
                message.first() == Some(&command) && message.get(GENERIC..).is_some_and(&is_it)
            };
            if told.any(|(_, message)| said(message)) {
                return Ok(());
            }
        }
    }
}

fn open() -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let protocol = SockProtocol::NetlinkGeneric;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    Ok(socket)
}

fn receive(socket: &OwnedFd) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; ROOM];
    let count = recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty())?;
    bytes.truncate(count);
    Ok(bytes)
}

/// Names and numbers of the groups in the controller's answer about a family. Each item of the list is an attribute
/// whose type is its place.
fn groups(answer: &[u8]) -> Vec<(String, u32)> {
    let group = |(_, item)| {
        let name = content(item, GROUP_NAME)?.split(|byte| *byte == 0).next()?;
        Some((String::from_utf8_lossy(name).into_owned(), number(item, GROUP_ID)?))
    };
    Attributes(content(answer, GROUPS).unwrap_or_default()).filter_map(group).collect()
}

/// Attributes: the type of each, without marks, and the content. Ends where one is longer than what there is.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16::from_ne_bytes(*self.0.first_chunk()?));
        let kind = u16::from_ne_bytes(*self.0.get(2..)?.first_chunk()?) & TYPE;
        let content = self.0.get(ATTRIBUTE..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, content))
    }
}

/// Messages: the type of each, and what is behind its header.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = u32::from_ne_bytes(*self.0.first_chunk()?) as usize;
        let kind = u16::from_ne_bytes(*self.0.get(4..)?.first_chunk()?);
        let content = self.0.get(HEADER..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_ends_at_a_multiple_of_four_and_says_its_own_length() {
        let bytes = attribute(2, b"nbd\0x");
        assert_eq!(bytes.len(), 12);
        assert_eq!(&bytes[..4], [9u16.to_ne_bytes(), 2u16.to_ne_bytes()].concat());
        let both = [bytes, attribute(1 | NESTED, &0x1234u32.to_ne_bytes())].concat();
        assert_eq!((number(&both, 1), number(&both, 7)), (Some(0x1234), None));
        assert_eq!(content(&both, 2), Some(b"nbd\0x".as_slice()));
    }

    #[test]
    fn groups_are_read_by_name_whatever_the_order_of_what_is_said_of_them() {
        let id = |number: u32| attribute(GROUP_ID, &number.to_ne_bytes());
        let name = |name: &[u8]| attribute(GROUP_NAME, name);
        let list = [
            attribute(1, &[id(17), name(b"nbd_mc_group\0")].concat()),
            attribute(2, &[name(b"other\0"), id(40)].concat()),
            // Without a number it cannot be joined.
            attribute(3, &name(b"nameless\0")),
        ];
        let family = attribute(FAMILY_ID, &30u16.to_ne_bytes());
        let answer = [family, attribute(GROUPS, &list.concat())].concat();
        assert_eq!(groups(&answer), [("nbd_mc_group".to_owned(), 17), ("other".to_owned(), 40)]);
        assert!(groups(&attribute(FAMILY_ID, &30u16.to_ne_bytes())).is_empty());
    }

    #[test]
    fn what_is_shorter_than_it_says_ends_the_list_and_no_list_goes_on_for_ever() {
        let whole = attribute(1, &[7; 8]);
        assert_eq!(Attributes(&whole[..10]).count(), 0);
        // A length of zero, which is less than the header.
        assert_eq!(Attributes(&[0; 16]).count(), 0);
        assert_eq!(Messages(&[0; 64]).count(), 0);
        let mut message = [vec![0; HEADER], whole].concat();
        message[..4].copy_from_slice(&28u32.to_ne_bytes());
        message[4..6].copy_from_slice(&0x1fu16.to_ne_bytes());
        let read: Vec<_> = Messages(&message).map(|(kind, bytes)| (kind, bytes.len())).collect();
        assert_eq!(read, [(0x1f, 12)]);
        assert_eq!(Messages(&message[..27]).count(), 0);
    }

    #[test]
    fn the_controller_is_known_to_every_kernel_and_so_is_its_group() {
        // Where namespaces forbid it there is no socket.
        if let Ok(family) = Family::named("nlctrl") {
            assert_eq!(family.id, CONTROLLER);
            let group = family.join("notify").expect("a group that anybody may join");
            // Nothing changes meanwhile.
            assert!(group.wait(u8::MAX, Duration::from_millis(1), |_| true).is_err());
            assert!(family.join("no such group").is_err());
        }
        assert!(Family::named("no such family").is_err());
    }
}
