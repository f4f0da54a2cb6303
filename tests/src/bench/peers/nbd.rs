// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The kernel's NBD client, whose connection is changed by netlink (`include/uapi/linux/nbd-netlink.h`): the old one is shut down,
//! and a new one, which has shaken hands before, takes its place. Requests of the old one are sent again.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context as _, Result};
use nix::errno::Errno;

use super::netlink::{attribute, Family, NESTED};
use crate::bench::call;
use crate::server::{At, Server};
use crate::wait;

const INDEX: u32 = 3;
const DEVICE: &str = "/dev/nbd3";
/// Seconds in which a dead connection may be replaced.
const PATIENCE_SECONDS: u64 = 30;
const PATIENCE: Duration = Duration::from_secs(30);
/// Commands and attributes.
const CONNECT: u8 = 1;
const DISCONNECT: u8 = 2;
const RECONFIGURE: u8 = 3;
const ATTR_INDEX: u16 = 1;
const ATTR_SIZE: u16 = 2;
const ATTR_BLOCK: u16 = 3;
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
        let server =
            Server::nbdkit_unseen("peer", At::free_port()?, &["null", &format!("{mib}M")])?;
        let family = Family::named("nbd")?;
        let (connection, bytes, flags) = shake_hands(server.at().port()?)?;
        let attributes = [
            attribute(ATTR_INDEX, &INDEX.to_ne_bytes()),
            attribute(ATTR_SIZE, &bytes.to_ne_bytes()),
            attribute(ATTR_BLOCK, &4096u64.to_ne_bytes()),
            attribute(ATTR_FLAGS, &u64::from(flags).to_ne_bytes()),
            attribute(ATTR_DEAD_CONNECTION, &PATIENCE_SECONDS.to_ne_bytes()),
            sockets(&connection),
        ];
        family.ask(CONNECT, &attributes.concat()).context("connect")?;
        wait::until("there is the device", PATIENCE, || Ok(std::fs::exists(DEVICE)?))?;
        Ok(Self { server, family, connection })
    }

    pub fn device(&self) -> &'static str {
        DEVICE
    }

    /// Changes the connection. Returns for how long there was none, by this process's clock.
    pub fn swap(&mut self) -> Result<Duration> {
        let (fresh, ..) = shake_hands(self.server.at().port()?)?;
        let attributes = [
            attribute(ATTR_INDEX, &INDEX.to_ne_bytes()),
            attribute(ATTR_DEAD_CONNECTION, &PATIENCE_SECONDS.to_ne_bytes()),
            sockets(&fresh),
        ]
        .concat();
        let begun = Instant::now();
        self.connection.shutdown(Shutdown::Both)?;
        // The kernel takes a new one once it has seen the end of the old one.
        while let Err(errno) = self.family.ask(RECONFIGURE, &attributes) {
            ensure!(errno == Errno::ENOSPC && begun.elapsed() < PATIENCE, "reconfigure: {errno}");
        }
        let took = begun.elapsed();
        self.connection = fresh;
        Ok(took)
    }

    pub fn stop(self) -> Result<()> {
        self.family.ask(DISCONNECT, &attribute(ATTR_INDEX, &INDEX.to_ne_bytes()))?;
        drop(self.connection);
        self.server.stop()?;
        wait::until("the module can go", PATIENCE, || Ok(call("rmmod", &["nbd"]).is_ok()))
    }
}

fn sockets(connection: &TcpStream) -> Vec<u8> {
    let fd = u32::try_from(connection.as_raw_fd()).unwrap_or_default();
    let item = attribute(SOCKET_ITEM | NESTED, &attribute(SOCKET_FD, &fd.to_ne_bytes()));
    attribute(ATTR_SOCKETS | NESTED, &item)
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
    let mut answer = [0; 10];
    stream.read_exact(&mut answer)?;
    let [a, b, c, d, e, f, g, h, i, j] = answer;
    let bytes = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    if bytes == 0 {
        bail!("an export of no size");
    }
    Ok((stream, bytes, u16::from_be_bytes([i, j])))
}
