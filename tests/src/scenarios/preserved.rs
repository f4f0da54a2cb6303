// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Objects that outlive a payload: an open block device and a connected socket.

use std::time::Duration;

use anyhow::{ensure, Result};
use atom_abi::control::outcome;
use atomctl::node::Node;

use super::Context;
use crate::echo::{Echo, Seen};
use crate::site::{Site, Spec};
use crate::spare::{self, Spare};
use crate::{variant, wait};

const DEADLINE: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(20);

pub fn a_file_and_a_socket_outlive_the_payload(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("keeper")?;
    site.volume("data", Spec::ram(8))?;
    let spare = Spare::create(16)?;
    crate::queue::write_block(spare.device(), 0, 0x42)?;
    let echo = Echo::start()?;

    context.step("both are given to Atom");
    let control = site.node().control();
    let before = site.node().status()?.preserved;
    variant::keep(control, spare.device(), echo.port())?;
    ensure!(site.node().status()?.preserved == before + 2, "{:?}", site.node().status()?);
    let port = probe(&site, 1)?;

    for (version, cold) in [("keeper-too", false), ("keeper", false), ("keeper-too", true)] {
        context.step(&format!("to {version}, {}", if cold { "cold" } else { "warm" }));
        let mode = if cold { atomctl::report::Mode::Cold } else { atomctl::report::Mode::Warm };
        site.upgrade(&format!("9.0.0-{version}"), mode)?;
        ensure!(spare.is_held()?, "the disk is not held any more");
        ensure!(spare::exclusive(spare.device()).is_err(), "there are two holders");
        ensure!(probe(&site, 2)? == port, "it is another connection");
        ensure!(echo.accepts() == 1 && echo.disconnects() == 0, "{:?}", echo.seen());
    }

    context.step("a handoff that fails leaves them as they are");
    let bad = site.insert(&site.file("adopt"))?;
    let report = control.switch(bad, DEADLINE)?;
    ensure!(report.outcome == outcome::UNDONE, "{report:?}");
    ensure!(probe(&site, 3)? == port, "it is another connection");
    atomctl::kmod::remove("payload_test_adopt")?;

    context.step("Atom releases what nobody claims");
    site.upgrade("1.1.0", atomctl::report::Mode::Warm)?;
    wait::until("the server sees the end", PATIENCE, || Ok(echo.disconnects() == 1))?;
    wait::until("the disk is free", PATIENCE, || Ok(!spare.is_held()?))?;
    ensure!(site.node().status()?.preserved == before, "{:?}", site.node().status()?);
    let seen = echo.stop()?;
    ensure!(seen == [Seen::Accepted(port), Seen::Disconnected(port)], "{seen:?}");
    spare.remove()?;
    site.leave()
}

/// Uses both and returns the local port of the connection.
fn probe(site: &Site, byte: u8) -> Result<u16> {
    let probed = variant::probe(site.node().control(), byte)?;
    ensure!(probed.byte == byte, "{} came back instead of {byte}", probed.byte);
    ensure!(probed.first == [0x42; 8], "the disk reads {:x?}", probed.first);
    Ok(probed.port)
}
