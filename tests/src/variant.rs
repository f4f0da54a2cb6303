// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The commands of the payload's test variants, besides those that `atomctl` has.

use anyhow::{anyhow, Context as _, Result};
use atom_abi::text::Text;
use atom_payload::answers::{decode_done, Asked, Late, Probed};
use atom_payload::protocol::{Command, MAX_COMMAND_BYTES};
use atomctl::control::Control;

/// Variant stuck: ends what it has let go of, and returns how many ends Atom refused.
pub fn late(control: &Control) -> Result<u32> {
    let late = Late::decode(&send(control, &Command::Late)?).map_err(garbled)?;
    anyhow::ensure!(late.accepted == 0, "Atom accepted {} late ends", late.accepted);
    Ok(late.refused)
}

/// Variant stuck: how often it was asked about a request that takes long, and how long the last pause was.
pub fn asked(control: &Control) -> Result<Asked> {
    Asked::decode(&send(control, &Command::Asked)?).map_err(garbled)
}

/// Variant keeper: opens a block device and a connection, and gives both to Atom.
pub fn keep(control: &Control, path: &str, port: u16) -> Result<()> {
    let answer = send(control, &Command::Keep { path: Text::new(path), port })?;
    decode_done(&answer).map_err(garbled)
}

/// Variant keeper: uses both.
pub fn probe(control: &Control, byte: u8) -> Result<Probed> {
    Probed::decode(&send(control, &Command::Probe { byte })?).map_err(garbled)
}

/// Variant keeper: has Atom release both.
pub fn drop_kept(control: &Control) -> Result<()> {
    decode_done(&send(control, &Command::Drop)?).map_err(garbled)
}

/// Variant large: has so much state from now on, in units of 4 KiB.
pub fn fill(control: &Control, pages: u32) -> Result<()> {
    decode_done(&send(control, &Command::Fill { pages })?).map_err(garbled)
}

/// The template: any command creates its device, or removes it.
pub fn toggle(control: &Control) -> Result<()> {
    Ok(control.command(&[]).map(drop)?)
}

fn send(control: &Control, command: &Command) -> Result<Vec<u8>> {
    let mut buffer = [0; MAX_COMMAND_BYTES];
    let length = command.encode(&mut buffer).map_err(garbled)?;
    Ok(control.command(buffer.get(..length).context("a long command")?)?)
}

fn garbled(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("the payload and the test do not understand each other: {error}")
}
