// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What the commands need of the machine, so that tests can stand in for it.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use super::device;
use super::target::At;

/// What the commands need of the machine.
pub trait Machine {
    /// The addresses of a host, the preferred one first.
    fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
    /// How large a target is, in bytes; none when that cannot be known from here.
    fn capacity(&self, at: &At) -> Option<u64>;
    /// Has the partitions of a new volume read, and waits for its name in `/dev/atom`. Neither for long.
    fn settle(&self, name: &str, device: u32);
    /// Waits for a moment, or until somebody closes the device. False when that has been waited for long enough already.
    fn lets_go(&self, device: Option<u32>, waited: Duration) -> bool;
}

/// How long who has a device open is taken for somebody who only looks at it, as udev does.
pub const LOOKING: Duration = Duration::from_secs(3);

/// The machine that this process runs on.
#[derive(Clone, Copy, Debug)]
pub struct Local;

impl Machine for Local {
    fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        (host, port).to_socket_addrs().map(Iterator::collect)
    }

    fn capacity(&self, at: &At) -> Option<u64> {
        match at {
            // Opened for reading it takes nothing from whoever has it, and to seek its end reads nothing.
            At::Bdev(path) => File::open(path).ok()?.seek(SeekFrom::End(0)).ok(),
            At::Null | At::Ram | At::Nbd(_) => None,
        }
    }

    fn settle(&self, name: &str, device: u32) {
        // What does not come in time comes by itself: with the next open, and with the next event.
        device::read_partitions(device);
        device::wait_for_link(name, device);
    }

    fn lets_go(&self, device: Option<u32>, waited: Duration) -> bool {
        let goes_on = waited < LOOKING;
        if let Some(device) = device.filter(|_| goes_on) {
            device::wait_for_close(device);
        }
        goes_on
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_addresses_need_nobody_to_be_asked() {
        let first = |host| Local.addresses(host, 10809).unwrap()[0].to_string();
        assert_eq!(first("127.0.0.1"), "127.0.0.1:10809");
        assert_eq!(first("::1"), "[::1]:10809");
        assert_eq!(first("fe80::1%1"), "[fe80::1%1]:10809");
    }

    #[test]
    fn who_only_looks_at_a_device_is_not_waited_for_for_ever() {
        assert!(Local.lets_go(None, Duration::ZERO));
        assert!(!Local.lets_go(Some(0), LOOKING));
    }

    #[test]
    fn a_device_that_cannot_be_opened_has_no_known_size() {
        assert_eq!(Local.capacity(&At::Bdev("/dev/no-such-device".to_owned())), None);
        assert_eq!(Local.capacity(&At::Ram), None);
    }
}
