// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Generic netlink, as much of it as asking one family for something takes (`Documentation/userspace-api/netlink/intro.rst`).

use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::socket::{
    bind, recv, send, socket, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol,
    SockType,
};

/// Marks an attribute that holds others.
pub const NESTED: u16 = 1 << 15;
/// Headers: of a message, and of a generic one in it.
const HEADER: usize = 16;
const GENERIC: usize = 4;
/// `NLM_F_REQUEST` and `NLM_F_ACK`; `NLMSG_ERROR`.
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const ERROR: u16 = 2;
/// The controller, its command and attributes.
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
const ROOM: usize = 8192;

/// An attribute: length, type, content, and zeroes up to a multiple of four bytes.
pub fn attribute(kind: u16, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len() + 4).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A family that can be asked.
pub struct Family {
    socket: OwnedFd,
    id: u16,
}

impl Family {
    /// Looks it up.
    pub fn named(name: &str) -> Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkGeneric,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        let mut family = Self { socket, id: CONTROLLER };
        let name = [name.as_bytes(), &[0]].concat();
        let answer = family.ask(GET_FAMILY, &attribute(FAMILY_NAME, &name)).context("no family")?;
        family.id = find(&answer, FAMILY_ID).context("a family without a number")?;
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
            let mut bytes = vec![0; ROOM];
            let count = recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::empty())?;
            bytes.truncate(count);
            let mut rest = bytes.as_slice();
            while let Some((kind, content, behind)) = next_message(rest) {
                if kind == ERROR {
                    let number = content.get(..4).and_then(|b| b.try_into().ok());
                    return match number.map_or(0, i32::from_ne_bytes) {
                        0 => Ok(answer),
                        error => Err(Errno::from_raw(-error)),
                    };
                }
                answer.extend_from_slice(content.get(GENERIC..).unwrap_or_default());
                rest = behind;
            }
        }
    }
}

/// Type and content of the first message, and what is behind it.
fn next_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let content = bytes.get(HEADER..length)?;
    Some((kind, content, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// The first two bytes of an attribute.
fn find(mut bytes: &[u8], wanted: u16) -> Option<u16> {
    loop {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        if kind == wanted {
            return Some(u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?));
        }
        bytes = bytes.get(length.max(4).next_multiple_of(4)..)?;
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
        let both = [bytes, attribute(1, &0x1234u16.to_ne_bytes())].concat();
        assert_eq!((find(&both, 1), find(&both, 7)), (Some(0x1234), None));
    }

    #[test]
    fn the_controller_is_known_to_every_kernel() {
        // Where namespaces forbid it there is no socket.
        if let Ok(family) = Family::named("nlctrl") {
            assert_eq!(family.id, CONTROLLER);
        }
        assert!(Family::named("no such family").is_err());
    }
}
