// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The commands of payloads with the client: volumes over several targets, over devices and over servers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use atom_abi::control::DeviceInfo;
use atom_abi::device::feature;
use atom_abi::text::Text;
use atom_payload::answers::{self, Outcome, Refused};
use atom_payload::protocol::{Command, Compose, Output, ProtocolError, ALL_TARGETS};
use atom_payload::shape::Description;
use atom_payload::shown::{Shown, TargetState};
use atom_payload::spec::{self, Address, Layout, Made, Nbd, Source, MAX_MADE_BYTES};

use super::machine::Machine;
use super::plan::without_client;
use super::present::{Present, PresentTarget};
use super::target::{Agreed, At, Target};
use super::uri::{Export, Server};
use super::wanted::Wanted;
use super::{described, entries, garbled, refusal, send, Commands};
use crate::problem::{Problem, Result};
use crate::report::{VolumeDocument, VolumeEntry};

/// A volume that was made or has grown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Composed {
    /// N of its `/dev/atomN`.
    pub device: u32,
    /// Its size.
    pub bytes: u64,
}

/// How much of a target a volume is to use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// As much as it does.
    AsBefore,
    /// All that the target has.
    All,
    /// So many bytes.
    Bytes(u64),
}

/// Refuses what only a payload with the client can do. `what` is what is not done then.
pub fn need_client(commands: &impl Commands, what: impl Into<String>) -> Result<()> {
    let live = commands.live()?;
    if live.has_client {
        return Ok(());
    }
    Err(Problem::refused(
        what,
        without_client(&live.version),
        "upgrade first: atomctl upgrade FILE, with the file of a payload from 2.0.0 on",
    ))
}

/// Creates a volume with so many bytes of each target; none: all.
pub fn compose(
    commands: &impl Commands,
    machine: &impl Machine,
    wanted: &Wanted,
    parts: &[Option<u64>],
) -> Result<Composed> {
    let what = || format!("Volume {} was not created", wanted.name);
    need_client(commands, what())?;
    let new: Vec<(&Target, Option<u64>)> = wanted
        .targets
        .iter()
        .enumerate()
        .map(|(index, target)| (target, parts.get(index).copied().flatten()))
        .collect();
    let reached = Reached::of(machine, &new, &what)?;
    reached.attempt(0, |addresses| {
        let mut buffer = vec![0; MAX_MADE_BYTES];
        let targets = encodable(&new, addresses);
        let made = made(wanted.layout, targets, &mut buffer)?;
        let command = Command::Compose(Compose {
            name: wanted.name,
            block_bytes: wanted.asked_block_bytes(),
            hw_queues: wanted.hw_queues,
            queue_depth: wanted.queue_depth,
            polled: wanted.polled,
            made,
        });
        composed(
            commands,
            &command,
            &what,
            &wanted.targets.iter().map(|one| one.at.to_string()).collect::<Vec<_>>(),
        )
    })
}

/// Makes a volume larger: of each target that it has so much is used, and more targets follow.
pub fn resize(
    commands: &impl Commands,
    machine: &impl Machine,
    name: Text,
    uses: impl Fn(usize) -> Use,
    appended: &[(Target, Option<u64>)],
) -> Result<Composed> {
    let what = || format!("Volume {name} was not resized");
    need_client(commands, what())?;
    let new: Vec<(&Target, Option<u64>)> =
        appended.iter().map(|(target, bytes)| (target, *bytes)).collect();
    let reached = Reached::of(machine, &new, &what)?;
    let answer = send(commands, &Command::Show { name }, what)?;
    let shown = done(Shown::decode(&answer), &what, &[])?;
    let had: Vec<spec::Target<'_>> = shown
        .made
        .targets()
        .enumerate()
        .map(|(index, target)| spec::Target {
            sectors: match uses(index) {
                Use::AsBefore => target.sectors,
                Use::All => 0,
                Use::Bytes(bytes) => bytes / 512,
            },
            ..target
        })
        .collect();
    let mut names: Vec<String> = had.iter().map(|target| at(&target.source).to_string()).collect();
    names.extend(new.iter().map(|(target, _)| target.at.to_string()));
    reached.attempt(had.len(), |addresses| {
        let mut buffer = vec![0; MAX_MADE_BYTES];
        let mut targets = had.clone();
        targets.extend(encodable(&new, addresses));
        let made = made(shown.made.layout, targets, &mut buffer)?;
        composed(commands, &Command::Resize { name, made }, &what, &names)
    })
}

/// Has the targets on a network try to connect at once; `target` names one of them, from 0.
pub fn reconnect(commands: &impl Commands, name: Text, target: Option<u32>) -> Result<()> {
    let what = || format!("Volume {name} was not told to reconnect");
    need_client(commands, what())?;
    let command = Command::Reconnect { name, target: target.unwrap_or(ALL_TARGETS) };
    let answer = send(commands, &command, what)?;
    done(answers::decode_outcome_done(&answer), &what, &[])
}

/// All that is known of one volume.
pub fn show(commands: &impl Commands, name: Text) -> Result<VolumeDocument> {
    let what = || format!("Volume {name} cannot be shown");
    let missing = || refusal::plain(what(), nix::errno::Errno::ENOENT);
    let all = entries(commands)?;
    let found = all.iter().find(|entry| entry.volume.name == name).ok_or_else(missing)?;
    if found.volume.shape.kind.is_simple() {
        return Ok(VolumeDocument::without_targets(described(&found.volume, &found.counts)));
    }
    with_shown(commands, name, |shown| VolumeDocument::of(entry(shown), shown))?.ok_or_else(missing)
}

/// All volumes with their targets and states. One that goes while they are listed may be missing.
pub fn list(commands: &impl Commands) -> Result<Vec<VolumeEntry>> {
    let mut volumes = Vec::new();
    for one in entries(commands)? {
        if one.volume.shape.kind.is_simple() {
            volumes.push(described(&one.volume, &one.counts));
        } else if let Some(found) = with_shown(commands, one.volume.name, entry)? {
            volumes.push(found);
        }
    }
    Ok(volumes)
}

/// All volumes, as a plan needs to know them.
pub fn present(commands: &impl Commands, machine: &impl Machine) -> Result<Vec<Present>> {
    let devices = commands.devices()?;
    let mut volumes = Vec::new();
    for one in entries(commands)? {
        let device = devices.iter().find(|info| info.id == one.volume.device);
        if one.volume.shape.kind.is_simple() {
            volumes.push(simple(&one.volume, device));
            continue;
        }
        let found = with_shown(commands, one.volume.name, |shown| Present {
            targets: shown
                .made
                .targets()
                .zip(shown.targets())
                .map(|(target, shown)| present_target(&target, shown.status.facts.sectors, machine))
                .collect(),
            layout: shown.made.layout,
            is_simple: false,
            ..simple(&shown.volume, device)
        })?;
        volumes.extend(found);
    }
    Ok(volumes)
}

fn simple(volume: &Description, device: Option<&DeviceInfo>) -> Present {
    let shape = &volume.shape;
    Present {
        name: volume.name,
        device: volume.device,
        layout: Layout::Linear,
        block_bytes: shape.block_bytes,
        hw_queues: shape.hw_queues,
        queue_depth: shape.queue_depth,
        polled: device.is_some_and(|info| info.features & feature::POLLED != 0),
        opens: device.map_or(0, |info| info.opens),
        is_simple: true,
        targets: vec![PresentTarget {
            at: if shape.kind == super::Kind::Null { At::Null } else { At::Ram },
            literal: None,
            bytes: shape.capacity_sectors.saturating_mul(512),
            capacity: None,
            agreed: Agreed::DEFAULT,
        }],
    }
}

fn present_target(target: &spec::Target<'_>, has: u64, machine: &impl Machine) -> PresentTarget {
    let at = at(&target.source);
    // A device that has grown since it was opened shows here first.
    let capacity = machine.capacity(&at).or((!at.is_made_up()).then_some(has.saturating_mul(512)));
    PresentTarget {
        literal: literal(&target.source),
        bytes: target.sectors.saturating_mul(512),
        capacity,
        agreed: agreed(target),
        at,
    }
}

/// What a target is, as people write it.
pub(crate) fn at(source: &Source<'_>) -> At {
    match source {
        Source::Null => At::Null,
        Source::Ram => At::Ram,
        Source::Bdev(path) => At::Bdev((*path).to_owned()),
        Source::Nbd(nbd) => {
            let server = match nbd.address {
                Address::V4 { port, host, .. } | Address::V6 { port, host, .. } => {
                    Server::Tcp { host: host.to_owned(), port }
                }
                Address::Unix { path } => Server::Unix(path.to_owned()),
            };
            At::Nbd(Export { server, name: nbd.export.to_owned() })
        }
    }
}

/// The literal address of a server on TCP.
pub(crate) fn literal(source: &Source<'_>) -> Option<String> {
    let Source::Nbd(nbd) = source else { return None };
    match nbd.address {
        Address::V4 { address, .. } => Some(Ipv4Addr::from(address).to_string()),
        Address::V6 { address, scope: 0, .. } => Some(Ipv6Addr::from(address).to_string()),
        Address::V6 { address, scope, .. } => Some(format!("{}%{scope}", Ipv6Addr::from(address))),
        Address::Unix { .. } => None,
    }
}

/// What is agreed about a target.
pub(crate) fn agreed(target: &spec::Target<'_>) -> Agreed {
    match target.source {
        Source::Nbd(Nbd { connections, keepalive_s, .. }) => {
            Agreed { terms: target.terms, connections, keepalive_s }
        }
        _ => Agreed { terms: target.terms, ..Agreed::DEFAULT },
    }
}

/// A volume with its targets and its state.
fn entry(shown: &Shown<'_>) -> VolumeEntry {
    let targets = shown.made.targets().map(|target| {
        let written = Target {
            at: at(&target.source),
            bytes: Some(target.sectors.saturating_mul(512)),
            agreed: Agreed::DEFAULT,
        };
        if written.at.is_made_up() {
            written.to_string()
        } else {
            written.at.to_string()
        }
    });
    let states: Vec<TargetState> = shown.targets().map(|target| target.status.state).collect();
    VolumeEntry {
        layout: shown.made.layout.name().to_owned(),
        targets: targets.collect(),
        state: worst(&states).to_owned(),
        resident_bytes: shown.targets().fold(0u64, |sum, target| {
            let pages = target.status.pages.saturating_mul(super::PAGE_BYTES.into());
            sum.saturating_add(pages)
        }),
        ..described(&shown.volume, &shown.counts)
    }
}

/// The state of a volume: that of its worst target.
fn worst(states: &[TargetState]) -> &'static str {
    [TargetState::Failed, TargetState::Retrying, TargetState::Connecting]
        .into_iter()
        .find(|state| states.contains(state))
        .unwrap_or(TargetState::Ready)
        .name()
}

/// What a volume shows; none when there is no such volume any more.
fn with_shown<T>(
    commands: &impl Commands,
    name: Text,
    of: impl FnOnce(&Shown<'_>) -> T,
) -> Result<Option<T>> {
    const GONE: u32 = nix::errno::Errno::ENOENT as u32;
    let what = || format!("Volume {name} cannot be shown");
    let answer = send(commands, &Command::Show { name }, what)?;
    match Shown::decode(&answer) {
        Ok(Outcome::Refused(Refused { errno: GONE, .. })) => Ok(None),
        decoded => done(decoded, &what, &[]).map(|shown| Some(of(&shown))),
    }
}

fn made<'b>(
    layout: Layout,
    targets: Vec<spec::Target<'_>>,
    buffer: &'b mut [u8],
) -> Result<Made<'b>> {
    let mut out = Output::new(buffer);
    Made::encode(layout, targets.into_iter(), &mut out).map_err(|error| garbled(&error))?;
    let length = out.len();
    Made::decode(buffer.get(..length).unwrap_or_default()).map_err(|error| garbled(&error))
}

fn encodable<'t>(
    targets: &[(&'t Target, Option<u64>)],
    addresses: &[Option<SocketAddr>],
) -> Vec<spec::Target<'t>> {
    let address = |index: usize| addresses.get(index).copied().flatten();
    targets
        .iter()
        .enumerate()
        .map(|(index, (target, bytes))| spec::Target {
            source: source(target, address(index)),
            sectors: bytes.unwrap_or(0) / 512,
            terms: target.agreed.terms,
        })
        .collect()
}

fn source(target: &Target, address: Option<SocketAddr>) -> Source<'_> {
    let export = match &target.at {
        At::Null => return Source::Null,
        At::Ram => return Source::Ram,
        At::Bdev(path) => return Source::Bdev(path),
        At::Nbd(export) => export,
    };
    let address = match (&export.server, address) {
        (Server::Unix(path), _) => Address::Unix { path },
        (Server::Tcp { host, port }, Some(SocketAddr::V6(v6))) => {
            Address::V6 { address: v6.ip().octets(), port: *port, scope: v6.scope_id(), host }
        }
        (Server::Tcp { host, port }, Some(SocketAddr::V4(v4))) => {
            Address::V4 { address: v4.ip().octets(), port: *port, host }
        }
        // `Reached` has an address for each of them.
        (Server::Tcp { host, port }, None) => {
            Address::V4 { address: Ipv4Addr::UNSPECIFIED.octets(), port: *port, host }
        }
    };
    Source::Nbd(Nbd {
        address,
        export: &export.name,
        connections: target.agreed.connections,
        keepalive_s: target.agreed.keepalive_s,
    })
}

/// The addresses of new targets, of which each is tried while the ones before it cannot be reached.
struct Reached {
    addresses: Vec<Vec<SocketAddr>>,
}

impl Reached {
    fn of(
        machine: &impl Machine,
        targets: &[(&Target, Option<u64>)],
        what: &impl Fn() -> String,
    ) -> Result<Self> {
        let one = |target: &Target| -> Result<Vec<SocketAddr>> {
            let At::Nbd(Export { server: Server::Tcp { host, port }, .. }) = &target.at else {
                return Ok(Vec::new());
            };
            let unknown = |why: String| {
                Problem::refused(
                    what(),
                    format!("{}: the address of host {host} is not known: {why}", target.at),
                    "check the name and the resolver (getent hosts), or write a literal address",
                )
            };
            let mut found =
                machine.addresses(host, *port).map_err(|error| unknown(error.to_string()))?;
            // The same address once, in whatever order.
            let mut seen: Vec<(IpAddr, u32)> = Vec::new();
            found.retain(|address| {
                let scope = match address {
                    SocketAddr::V6(v6) => v6.scope_id(),
                    SocketAddr::V4(_) => 0,
                };
                let new = !seen.contains(&(address.ip(), scope));
                seen.push((address.ip(), scope));
                new
            });
            match found.is_empty() {
                true => Err(unknown("it has none".to_owned())),
                false => Ok(found),
            }
        };
        let addresses = targets.iter().map(|(target, _)| one(target)).collect::<Result<_>>()?;
        Ok(Self { addresses })
    }

    /// Carries out `attempt` until it succeeds or is refused for another reason than an address. The first of
    /// these targets has the position `first` in the volume.
    fn attempt<T>(
        &self,
        first: usize,
        mut attempt: impl FnMut(&[Option<SocketAddr>]) -> Result<std::result::Result<T, Declined>>,
    ) -> Result<T> {
        let mut chosen = vec![0usize; self.addresses.len()];
        loop {
            let addresses: Vec<Option<SocketAddr>> = self
                .addresses
                .iter()
                .zip(&chosen)
                .map(|(all, choice)| all.get(*choice).copied())
                .collect();
            let declined = match attempt(&addresses)? {
                Ok(done) => return Ok(done),
                Err(declined) => declined,
            };
            let place = declined.unreachable.and_then(|target| target.checked_sub(first));
            let next = place.and_then(|place| {
                let all = self.addresses.get(place)?;
                let choice = chosen.get_mut(place)?;
                *choice = choice.saturating_add(1);
                (*choice < all.len()).then_some(())
            });
            if next.is_none() {
                return Err(declined.problem);
            }
        }
    }
}

/// A refusal of a volume that is made or grows.
struct Declined {
    problem: Problem,
    /// The target that could not be reached, when that was why.
    unreachable: Option<usize>,
}

fn composed(
    commands: &impl Commands,
    command: &Command<'_>,
    what: &impl Fn() -> String,
    targets: &[String],
) -> Result<std::result::Result<Composed, Declined>> {
    let answer = send(commands, command, what)?;
    let outcome = answers::Composed::decode(&answer).map_err(|error| garbled(&error))?;
    Ok(match outcome {
        Outcome::Done(composed) => {
            Ok(Composed { device: composed.device, bytes: composed.sectors.saturating_mul(512) })
        }
        Outcome::Refused(refused) => Err(Declined {
            problem: refusal::with_reason(what(), &refused, targets),
            unreachable: refused
                .target
                .filter(|_| refusal::is_unreachable(refused.errno))
                .and_then(|target| usize::try_from(target).ok()),
        }),
    })
}

/// What was done, or why it was refused.
fn done<T>(
    outcome: std::result::Result<Outcome<'_, T>, ProtocolError>,
    what: &impl Fn() -> String,
    targets: &[String],
) -> Result<T> {
    match outcome.map_err(|error| garbled(&error))? {
        Outcome::Done(done) => Ok(done),
        Outcome::Refused(refused) => Err(refusal::with_reason(what(), &refused, targets)),
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
