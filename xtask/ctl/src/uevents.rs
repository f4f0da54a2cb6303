// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What payloads tell of themselves: the uevents of Atom's control device, which Atom does not keep.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    bind, recvfrom, socket, AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType,
};

use crate::problem::{Problem, Result};
use crate::report::Told;

/// The multicast group to which the kernel sends (`lib/kobject_uevent.c`).
const KERNEL: u32 = 1;
/// Longest message: the kernel's `UEVENT_BUFFER_SIZE`, and its header.
const LONGEST: usize = 8192;

/// Hears the events from its opening on.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// Begins to listen.
    pub fn open() -> Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let opened = socket(AddressFamily::Netlink, SockType::Datagram, flags, protocol);
        opened
            .and_then(|fd| bind(fd.as_raw_fd(), &NetlinkAddr::new(0, KERNEL)).map(|()| Self(fd)))
            .map_err(|errno| {
                Problem::refused(
                    "The events of payloads cannot be followed",
                    format!("the kernel gives no socket for them ({errno})"),
                    "leave out --follow",
                )
            })
    }

    /// What has been told since the last call. Does not wait.
    pub fn news(&self) -> Vec<Told> {
        let mut news = Vec::new();
        let mut message = [0; LONGEST];
        loop {
            match recvfrom::<NetlinkAddr>(self.0.as_raw_fd(), &mut message) {
                // Others can send to the group as well.
                Ok((bytes, Some(sender))) if sender.pid() == 0 => {
                    news.extend(message.get(..bytes).and_then(told));
                }
                // Some were lost because nobody listened for long: those that come are heard.
                Ok(_) | Err(Errno::EINTR | Errno::ENOBUFS) => {}
                Err(_) => return news,
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What a message of the kernel tells of a payload, if that is what it is about.
fn told(message: &[u8]) -> Option<Told> {
    let mut lines = message.split(|byte| *byte == 0).filter_map(|line| str::from_utf8(line).ok());
    let subject = lines.next()?;
    if subject.rsplit('/').next() != Some("atom-control") {
        return None;
    }
    let lines: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once('=')).collect();
    let value = |name: &str| lines.iter().find(|line| line.0 == name).map(|line| line.1.to_owned());
    if value("ATOM_EVENT")? != "payload" {
        return None;
    }
    Some(Told {
        version: value("ATOM_VERSION").unwrap_or_default(),
        device: value("ATOM_DEVICE"),
        text: value("ATOM_TEXT").unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(subject: &str, lines: &[&str]) -> Vec<u8> {
        let all = [subject].into_iter().chain(lines.iter().copied());
        all.flat_map(|line| line.bytes().chain([0])).collect()
    }

    const CONTROL: &str = "change@/devices/virtual/misc/atom-control";

    #[test]
    fn what_a_payload_tells_is_heard_with_its_device_or_without_one() {
        let about = ["ACTION=change", "ATOM_EVENT=payload", "ATOM_VERSION=2.0.0"];
        let text = "ATOM_TEXT=lost nbd://a: a=b";
        let heard = told(&message(CONTROL, &[&about[..], &[text, "ATOM_DEVICE=atom3"]].concat()));
        let heard = heard.unwrap();
        assert_eq!((heard.version.as_str(), heard.device.as_deref()), ("2.0.0", Some("atom3")));
        assert_eq!(heard.text, "lost nbd://a: a=b");
        let heard = told(&message(CONTROL, &[&about[..], &[text]].concat())).unwrap();
        assert_eq!(heard.device, None);
    }

    #[test]
    fn what_atom_or_another_device_tells_is_not_taken_for_it() {
        assert!(told(&message(CONTROL, &["ATOM_EVENT=switch", "ATOM_TO=2.0.0"])).is_none());
        assert!(
            told(&message("change@/devices/virtual/misc/other", &["ATOM_EVENT=payload"])).is_none()
        );
        assert!(
            told(&message("add@/devices/virtual/block/atom0", &["ATOM_EVENT=payload"])).is_none()
        );
        assert!(told(b"").is_none());
        assert!(told(&[0xff; 100]).is_none());
    }

    #[test]
    fn nobody_but_the_kernel_is_heard() {
        let listener = Listener::open().unwrap();
        assert!(listener.news().is_empty(), "and nothing is waited for");
    }
}
