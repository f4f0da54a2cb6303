// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Volumes over targets, in the words of the payload's own protocol.
//!
//! Scenarios that are about the operator's side use `atomctl`; all others come here, and see what the payload says without
//! anything between.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{bail, ensure, Context as _, Result};
use atom_payload::answers::{decode_outcome_done, Composed, Outcome, Refused};
use atom_payload::protocol::{
    Command, Compose, Output, ProtocolError, ALL_TARGETS, MAX_COMMAND_BYTES,
};
use atom_payload::shown::{Connection, Shown, Status, TargetState};
use atom_payload::spec::{self, Address, Layout, Made, Nbd, OnFailure, Terms};
use atomctl::volume;

use crate::server::At;
use crate::site::Site;
use crate::wait;

/// Seconds after which a silent connection is probed, where nothing else is said.
const KEEPALIVE_S: u32 = 30;

/// A target that is wanted.
#[derive(Clone, Debug)]
pub struct Target {
    source: Source,
    sectors: u64,
    terms: Terms,
}

#[derive(Clone, Debug)]
enum Source {
    Ram,
    Bdev(String),
    Nbd { host: Host, export: String, connections: u32, keepalive_s: u32 },
}

#[derive(Clone, Debug)]
enum Host {
    V4(Ipv4Addr, u16),
    Unix(String),
}

impl Target {
    /// So many MiB in memory.
    pub fn ram(mib: u64) -> Self {
        Self { sectors: mib << 11, ..Self::of(Source::Ram) }
    }

    /// A block device.
    pub fn bdev(path: &str) -> Self {
        Self::of(Source::Bdev(path.to_owned()))
    }

    /// The export of this name of a server.
    pub fn nbd(at: &At, export: &str) -> Self {
        match at {
            At::Port(port) => Self::nbd_on(Ipv4Addr::LOCALHOST, *port, export),
            At::Socket(path) => Self::of(Source::Nbd {
                host: Host::Unix(path.display().to_string()),
                export: export.to_owned(),
                connections: 1,
                keepalive_s: KEEPALIVE_S,
            }),
        }
    }

    /// The same of a server on another machine.
    pub fn nbd_on(host: Ipv4Addr, port: u16, export: &str) -> Self {
        let host = Host::V4(host, port);
        let export = export.to_owned();
        Self::of(Source::Nbd { host, export, connections: 1, keepalive_s: KEEPALIVE_S })
    }

    fn of(source: Source) -> Self {
        Self { source, sectors: 0, terms: Terms::DEFAULT }
    }

    /// Only so many MiB of it.
    pub fn mib(self, mib: u64) -> Self {
        Self { sectors: mib << 11, ..self }
    }

    /// So many connections.
    pub fn connections(mut self, wanted: u32) -> Self {
        if let Source::Nbd { connections, .. } = &mut self.source {
            *connections = wanted;
        }
        self
    }

    /// It counts as failed after so long without a connection, and then this happens to requests.
    pub fn failing(mut self, after: Duration, on_failure: OnFailure) -> Self {
        self.terms.deadline_ms = after.as_millis() as u32;
        self.terms.on_failure = on_failure;
        self
    }

    /// A request may take so long before its connection is given up.
    pub fn answers_within(mut self, time: Duration) -> Self {
        self.terms.answer_ms = time.as_millis() as u32;
        self
    }

    /// A connection that is silent for so long is probed.
    pub fn probed_after(mut self, time: Duration) -> Self {
        if let Source::Nbd { keepalive_s, .. } = &mut self.source {
            *keepalive_s = time.as_secs() as u32;
        }
        self
    }

    /// Attempts to connect are at most so far apart.
    pub fn retries_each(mut self, time: Duration) -> Self {
        self.terms.retry_ms = time.as_millis() as u32;
        self
    }

    fn spec(&self) -> spec::Target<'_> {
        let source = match &self.source {
            Source::Ram => spec::Source::Ram,
            Source::Bdev(path) => spec::Source::Bdev(path),
            Source::Nbd { host, export, connections, keepalive_s } => {
                let address = match host {
                    Host::V4(address, port) => {
                        Address::V4 { address: address.octets(), port: *port, host: "server" }
                    }
                    Host::Unix(path) => Address::Unix { path },
                };
                let (connections, keepalive_s) = (*connections, *keepalive_s);
                spec::Source::Nbd(Nbd { address, export, connections, keepalive_s })
            }
        };
        spec::Target { source, sectors: self.sectors, terms: self.terms }
    }
}

/// A stripe in chunks of so many KiB.
pub const fn stripe(kib: u32) -> Layout {
    Layout::Stripe { chunk_sectors: kib << 1 }
}

/// A volume that is there.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// The path of its device.
    pub device: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Why there is no volume, or it did not become what was wanted.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The kernel's number of the error.
    pub errno: u32,
    /// The target that it is about.
    pub target: Option<u32>,
    /// In a few words.
    pub why: String,
}

impl From<Refused<'_>> for Refusal {
    fn from(refused: Refused<'_>) -> Self {
        let Refused { errno, target, why } = refused;
        Self { errno, target, why: why.to_owned() }
    }
}

/// What the payload says of a volume.
#[derive(Clone, Debug)]
pub struct View {
    /// The newest schema of the payload.
    pub schema: u32,
    /// The targets, in the order of the layout.
    pub targets: Vec<TargetView>,
}

/// What it says of a target.
#[derive(Clone, Debug)]
pub struct TargetView {
    pub status: Status,
    pub connections: Vec<Connection>,
    /// Parts of requests that ended, all operations together, and the time of all together.
    pub ended: u64,
    pub total_ns: u64,
    /// Failures that it remembers.
    pub remembered: usize,
}

impl TargetView {
    /// The local ports of what is connected, in order.
    pub fn ports(&self) -> Vec<u16> {
        let live = self.connections.iter().filter(|one| one.state == TargetState::Ready);
        let mut ports: Vec<u16> = live.map(|one| one.local_port).collect();
        ports.sort_unstable();
        ports
    }
}

/// Makes a volume; a refusal is an error.
pub fn create(site: &Site, name: &str, layout: Layout, targets: &[Target]) -> Result<Volume> {
    match try_create(site, name, layout, targets)? {
        Ok(volume) => Ok(volume),
        Err(refusal) => bail!("volume {name} was refused: {refusal:?}"),
    }
}

/// Makes a volume with queues of this depth; a refusal is an error.
pub fn create_of_depth(
    site: &Site,
    name: &str,
    layout: Layout,
    targets: &[Target],
    queue_depth: u16,
) -> Result<Volume> {
    match try_create_of_depth(site, name, layout, targets, queue_depth)? {
        Ok(volume) => Ok(volume),
        Err(refusal) => bail!("volume {name} was refused: {refusal:?}"),
    }
}

/// Makes a volume, whatever comes of it.
pub fn try_create(
    site: &Site,
    name: &str,
    layout: Layout,
    targets: &[Target],
) -> Result<Result<Volume, Refusal>> {
    try_create_of_depth(site, name, layout, targets, 0)
}

fn try_create_of_depth(
    site: &Site,
    name: &str,
    layout: Layout,
    targets: &[Target],
    queue_depth: u16,
) -> Result<Result<Volume, Refusal>> {
    with_made(layout, targets, |made| {
        let name_of_it = volume::name(name)?;
        let compose = Compose {
            name: name_of_it,
            block_bytes: 0,
            hw_queues: 0,
            queue_depth,
            polled: false,
            made,
        };
        composed(site, name, &Command::Compose(compose))
    })
}

/// Makes a volume larger; a refusal is an error.
pub fn resize(site: &Site, name: &str, layout: Layout, targets: &[Target]) -> Result<Volume> {
    match try_resize(site, name, layout, targets)? {
        Ok(volume) => Ok(volume),
        Err(refusal) => bail!("the new size of {name} was refused: {refusal:?}"),
    }
}

/// Makes a volume larger, whatever comes of it.
pub fn try_resize(
    site: &Site,
    name: &str,
    layout: Layout,
    targets: &[Target],
) -> Result<Result<Volume, Refusal>> {
    with_made(layout, targets, |made| {
        composed(site, name, &Command::Resize { name: volume::name(name)?, made })
    })
}

/// Has every target of a volume connect again at once.
pub fn reconnect(site: &Site, name: &str) -> Result<()> {
    let command = Command::Reconnect { name: volume::name(name)?, target: ALL_TARGETS };
    match understood(decode_outcome_done(&send(site, &command)?))? {
        Outcome::Done(()) => Ok(()),
        Outcome::Refused(refused) => bail!("{name} was not reconnected: {refused:?}"),
    }
}

/// What the payload says of a volume.
pub fn view(site: &Site, name: &str) -> Result<View> {
    let answer = send(site, &Command::Show { name: volume::name(name)? })?;
    let shown = match understood(Shown::decode(&answer))? {
        Outcome::Done(shown) => shown,
        Outcome::Refused(refused) => bail!("{name} was not shown: {refused:?}"),
    };
    let targets = shown.targets().map(|target| {
        let (mut ended, mut total_ns) = (0, 0);
        for (_, latency) in target.latency() {
            ended += latency.count();
            total_ns += latency.total_ns;
        }
        TargetView {
            status: target.status,
            connections: target.connections().collect(),
            ended,
            total_ns,
            remembered: target.failures().count(),
        }
    });
    Ok(View { schema: shown.schema, targets: targets.collect() })
}

/// What the payload says of the first target of a volume.
pub fn first_target(site: &Site, name: &str) -> Result<TargetView> {
    view(site, name)?.targets.into_iter().next().context("a volume without a target")
}

/// Waits until the first target of a volume is in this state.
pub fn until_target_is(
    site: &Site,
    name: &str,
    state: TargetState,
    limit: Duration,
) -> Result<TargetView> {
    let mut last = None;
    let waited = wait::until(&format!("{name} is {}", state.name()), limit, || {
        let target = first_target(site, name)?;
        let reached = target.status.state == state;
        last = Some(target);
        Ok(reached)
    });
    waited.with_context(|| format!("{last:?}"))?;
    last.context("nobody looked")
}

fn composed(site: &Site, name: &str, command: &Command<'_>) -> Result<Result<Volume, Refusal>> {
    let answer = send(site, command)?;
    let composed = match understood(Composed::decode(&answer))? {
        Outcome::Done(composed) => composed,
        Outcome::Refused(refused) => return Ok(Err(refused.into())),
    };
    let device = format!("/dev/atom{}", composed.device);
    // The kernel makes the node before it returns.
    ensure!(Path::new(&device).exists(), "there is no {device}");
    Ok(Ok(Volume { name: name.to_owned(), device, bytes: composed.sectors << 9 }))
}

fn with_made<T>(
    layout: Layout,
    targets: &[Target],
    body: impl FnOnce(Made<'_>) -> Result<T>,
) -> Result<T> {
    let mut bytes = [0; spec::MAX_MADE_BYTES];
    let length = {
        let mut out = Output::new(&mut bytes);
        understood(Made::encode(layout, targets.iter().map(Target::spec), &mut out))?;
        out.len()
    };
    body(understood(Made::decode(bytes.get(..length).context("too long")?))?)
}

fn send(site: &Site, command: &Command<'_>) -> Result<Vec<u8>> {
    let mut bytes = [0; MAX_COMMAND_BYTES];
    let length = understood(command.encode(&mut bytes))?;
    let bytes = bytes.get(..length).context("too long")?;
    Ok(site.node().control().command(bytes)?)
}

fn understood<T>(read: Result<T, ProtocolError>) -> Result<T> {
    read.map_err(|error| anyhow::anyhow!("the payload's protocol: {error}"))
}
