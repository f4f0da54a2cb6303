// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The NBD server on the host, which the guest reaches over a network.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};

use crate::composed::Target;
use crate::scenarios::Context;

/// Our address in QEMU's network.
const ADDRESS: &str = "10.0.2.15/24";

/// Brings the network up, and returns the server's disk as a target.
pub fn server(context: &Context) -> Result<Target> {
    let place = context.command_line().value("server").context("no server on the host")?;
    let (host, port) = place.split_once(':').context("no port")?;
    context.run(&["ip", "addr", "add", ADDRESS, "dev", "eth0"])?;
    context.run(&["ip", "link", "set", "eth0", "up"])?;
    Ok(Target::nbd_on(host.parse::<Ipv4Addr>()?, port.parse()?, ""))
}
