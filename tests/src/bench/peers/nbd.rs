// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The kernel's NBD client, whose connection is changed by netlink (`include/uapi/linux/nbd-netlink.h`): the old one is shut down,
//! and a new one, which has shaken hands before, takes its place.
//!
//! A request that was sent on the old one and not answered is sent again when the time is up that a request may take
//! (`nbd_xmit_timeout` of `drivers/block/nbd.c`), and not before. So nobody sees in the pause what an application sees.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context as _, Result};

use super::netlink::{attribute, number, Family, NESTED};
use crate::bench::call;
use crate::server::{At, Server};
use crate::{patience, queue, wait};

const INDEX: u32 = 3;
const DEVICE: &str = "/dev/nbd3";
const PATIENCE: Duration = Duration::from_secs(30);
/// Seconds in which a dead connection may be replaced: requests wait for that.
const DEAD_SECONDS: u64 = 30;
/// Seconds that a request may take until it is sent again. A shorter time would call a connection dead on a host that
/// has stopped the guest for a while.
const REQUEST_SECONDS: u64 = 10;
/// Where the kernel tells that a connection is dead.
const GROUP: &str = "nbd_mc_group";
/// Commands and attributes.
const CONNECT: u8 = 1;
const DISCONNECT: u8 = 2;
const RECONFIGURE: u8 = 3;
const LINK_DEAD: u8 = 4;
const ATTR_INDEX: u16 = 1;
const ATTR_SIZE: u16 = 2;
const ATTR_BLOCK: u16 = 3;
const ATTR_TIMEOUT: u16 = 4;
const ATTR_FLAGS: u16 = 5;
const ATTR_SOCKETS: u16 = 7;
const ATTR_DEAD_CONNECTION: u16 = 8;
const SOCKET_ITEM: u16 = 1;
const SOCKET_FD: u16 = 1;
/// What a client answers the greeting with, fixed newstyle and no zeroes, and the option that ends the talk.
const FLAGS: u32 = 3;
const EXPORT_NAME: u32 = 1;

/// A device with one connection to a server of its own that keeps nothing.
pub struct Nbd {
    server: Server,
    family: Family,
    connection: TcpStream,
}

impl Nbd {
    /// Starts the server and connects.
    pub fn start(mib: u64) -> Result<Self> {
        call("modprobe", &["nbd"])?;
        let size = format!("{mib}M");
        let server = Server::nbdkit_unseen("peer", At::free_port()?, &["null", &size])?;
        let family = Family::named("nbd")?;
        let (connection, bytes, flags) = shake_hands(server.at().port()?)?;
        let attributes = [
            attribute(ATTR_INDEX, &INDEX.to_ne_bytes()),
            attribute(ATTR_SIZE, &bytes.to_ne_bytes()),
            attribute(ATTR_BLOCK, &(queue::BLOCK as u64).to_ne_bytes()),
            attribute(ATTR_TIMEOUT, &REQUEST_SECONDS.to_ne_bytes()),
            attribute(ATTR_FLAGS, &u64::from(flags).to_ne_bytes()),
            attribute(ATTR_DEAD_CONNECTION, &DEAD_SECONDS.to_ne_bytes()),
            sockets(&connection)?,
        ];
        family.ask(CONNECT, &attributes.concat()).context("connect")?;
        ensure!(is_the_kernels(&connection)?, "the kernel has not taken the connection");
        // The first open reads the partition table.
        File::open(DEVICE).context(DEVICE)?;
        Ok(Self { server, family, connection })
    }

    pub fn device(&self) -> &'static str {
        DEVICE
    }

    /// Changes the connection. Returns for how long there was none, by this process's clock.
    pub fn swap(&mut self) -> Result<Duration> {
        let (fresh, ..) = shake_hands(self.server.at().port()?)?;
        ensure!(!is_the_kernels(&fresh)?, "a new connection cannot be told from the kernel's");
        let index = attribute(ATTR_INDEX, &INDEX.to_ne_bytes());
        let attributes = [index, sockets(&fresh)?].concat();
        let group = self.family.join(GROUP)?;
        let begun = Instant::now();
        self.connection.shutdown(Shutdown::Both)?;
        let ours = |attributes: &[u8]| number(attributes, ATTR_INDEX) == Some(INDEX);
        group.wait(LINK_DEAD, PATIENCE, ours).context("the old connection does not die")?;
        // The kernel tells of the dead one just before it calls it dead, and without a dead one it takes no new one and says
        // that all is well.
        loop {
            self.family.ask(RECONFIGURE, &attributes).context("reconfigure")?;
            if is_the_kernels(&fresh)? {
                break;
            }
            let limit = patience::scaled(PATIENCE);
            ensure!(begun.elapsed() < limit, "the kernel has not taken the new connection");
        }
        let took = begun.elapsed();
        self.connection = fresh;
        queue::read_block(DEVICE, 0).context("over the new connection")?;
        Ok(took)
    }

    /// Waits until so many more requests have come back, which is for ever where nobody asks for anything.
    pub fn wait_for(&self, requests: u64) -> Result<()> {
        let before = queue::stat(DEVICE)?.requests();
        wait::until("requests come back over the new connection", PATIENCE, || {
            Ok(queue::stat(DEVICE)?.requests() >= before + requests)
        })
    }

    pub fn stop(self) -> Result<()> {
        let index = attribute(ATTR_INDEX, &INDEX.to_ne_bytes());
        self.family.ask(DISCONNECT, &index).context("disconnect")?;
        drop(self.connection);
        self.server.stop()?;
        wait::until("the module can go", PATIENCE, || Ok(call("rmmod", &["nbd"]).is_ok()))
    }
}

/// Whether the kernel's client has taken a connection: it limits then how long sending may take.
fn is_the_kernels(connection: &TcpStream) -> Result<bool> {
    Ok(connection.write_timeout()?.is_some())
}

fn sockets(connection: &TcpStream) -> Result<Vec<u8>> {
    let fd = u32::try_from(connection.as_raw_fd())?;
    let item = attribute(SOCKET_ITEM | NESTED, &attribute(SOCKET_FD, &fd.to_ne_bytes()));
    Ok(attribute(ATTR_SOCKETS | NESTED, &item))
}

/// A connection to the default export, its bytes and its flags.
fn shake_hands(port: u16) -> Result<(TcpStream, u64, u16)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    let mut greeting = [0; 18];
    stream.read_exact(&mut greeting)?;
    ensure!(greeting.starts_with(b"NBDMAGICIHAVEOPT"), "not a server: {greeting:?}");
    let option = [b"IHAVEOPT", EXPORT_NAME.to_be_bytes().as_slice(), &0u32.to_be_bytes()].concat();
    stream.write_all(&[FLAGS.to_be_bytes().as_slice(), &option].concat())?;
    let (mut bytes, mut flags) = ([0; 8], [0; 2]);
    stream.read_exact(&mut bytes)?;
    stream.read_exact(&mut flags)?;
    let bytes = u64::from_be_bytes(bytes);
    ensure!(bytes > 0, "an export of no size");
    Ok((stream, bytes, u16::from_be_bytes(flags)))
}
