// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What has to be done so that the volumes are those that are wanted. Pure: it asks nobody and changes nothing.

use atom_abi::text::Text;
use atom_payload::spec::Layout;

use super::present::{Present, PresentTarget};
use super::target::{At, Target};
use super::uri::Server;
use super::wanted::{chunk_bytes, Wanted};
use crate::quantity::show_bytes;

/// What the live payload and the machine allow.
pub struct Circumstances<'a> {
    /// Version of the live payload.
    pub payload: &'a str,
    /// Whether it can have volumes of several targets, of devices and of exports.
    pub has_client: bool,
    /// Whether volumes that are not wanted are to be destroyed.
    pub prune: bool,
    /// How large a target is that does not belong to a volume yet, in bytes; none when nobody knows.
    pub capacity: &'a dyn Fn(&At) -> Option<u64>,
}

/// What becomes of one volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Planned {
    /// Its name.
    pub name: Text,
    /// What is to be done.
    pub action: Action,
}

/// What is to be done with a volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// It is made, with so many bytes of each target; none: all.
    Create {
        /// The volume.
        volume: Wanted,
        /// Bytes of each target.
        parts: Vec<Option<u64>>,
    },
    /// It grows.
    Grow(Growth),
    /// It is as it should be.
    Unchanged,
    /// It is not wanted, and is left alone because nobody asked to destroy it.
    Unlisted,
    /// It is removed.
    Destroy,
    /// What is wanted cannot be done, and why.
    Refused(String),
}

/// How a volume grows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Growth {
    /// New numbers of bytes, by the positions of the targets.
    pub raised: Vec<Raise>,
    /// Targets that are appended, with the bytes of each; none: all.
    pub appended: Vec<(Target, Option<u64>)>,
}

/// More of a target is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Raise {
    /// Position of the target.
    pub index: usize,
    /// Bytes that are used of it.
    pub from: u64,
    /// Bytes that are to be used.
    pub to: u64,
}

impl Growth {
    fn is_empty(&self) -> bool {
        self.raised.is_empty() && self.appended.is_empty()
    }
}

/// The way from the volumes that are to those that are wanted: first what is destroyed, then the wanted ones in
/// their order. Carried out in this order, no step needs what a later one gives free.
pub fn plan(wanted: &[Wanted], present: &[Present], around: &Circumstances<'_>) -> Vec<Planned> {
    let is_wanted = |name: &Text| wanted.iter().any(|volume| volume.name == *name);
    let (kept, gone): (Vec<&Present>, Vec<&Present>) =
        present.iter().partition(|volume| !around.prune || is_wanted(&volume.name));
    let mut plan: Vec<Planned> = gone
        .iter()
        .map(|volume| Planned {
            name: volume.name,
            action: match volume.opens {
                0 => Action::Destroy,
                1 => Action::Refused("it is in use: 1 open handle".to_owned()),
                opens => Action::Refused(format!("it is in use: {opens} open handles")),
            },
        })
        .collect();
    for (index, volume) in wanted.iter().enumerate() {
        let is = kept.iter().find(|is| is.name == volume.name);
        let others = Others {
            earlier: wanted.get(..index).unwrap_or_default(),
            kept: &kept,
            name: &volume.name,
        };
        let decided = match is {
            Some(is) => grow(volume, is, &others, around),
            None => create(volume, &others, around),
        };
        let action = decided.unwrap_or_else(Action::Refused);
        plan.push(Planned { name: volume.name, action });
    }
    let unlisted = kept.iter().filter(|volume| !is_wanted(&volume.name));
    plan.extend(unlisted.map(|volume| Planned { name: volume.name, action: Action::Unlisted }));
    plan
}

/// A plan, or why there is none.
type Decided = Result<Action, String>;

/// The volumes besides the one that is planned for.
struct Others<'a> {
    earlier: &'a [Wanted],
    kept: &'a [&'a Present],
    name: &'a Text,
}

impl Others<'_> {
    /// Refuses a device that another volume has: it is held exclusively.
    fn leave_free(&self, at: &At) -> Result<(), String> {
        if !matches!(at, At::Bdev(_)) {
            return Ok(());
        }
        let taken = |name: &Text| Err(format!("{at} belongs to volume {name}"));
        let mut kept = self.kept.iter().filter(|volume| volume.name != *self.name);
        if let Some(volume) = kept.find(|volume| volume.targets.iter().any(|one| one.at == *at)) {
            return taken(&volume.name);
        }
        match self.earlier.iter().find(|volume| volume.targets.iter().any(|one| one.at == *at)) {
            Some(volume) => taken(&volume.name),
            None => Ok(()),
        }
    }
}

fn create(volume: &Wanted, others: &Others<'_>, around: &Circumstances<'_>) -> Decided {
    volume.targets.iter().try_for_each(|target| others.leave_free(&target.at))?;
    if !around.has_client && volume.simple().is_none() {
        return Err(without_client(around.payload));
    }
    let parts = volume
        .parts(|index| volume.targets.get(index).and_then(|target| (around.capacity)(&target.at)))
        .map_err(|fault| format!("{}: {}", fault.field, fault.why))?;
    Ok(Action::Create { volume: volume.clone(), parts })
}

/// Why a payload without the client cannot do what is wanted.
pub fn without_client(payload: &str) -> String {
    format!(
        "payload {payload} has volumes of one null or ram target only; payloads from 2.0.0 on have the others"
    )
}

fn grow(volume: &Wanted, is: &Present, others: &Others<'_>, around: &Circumstances<'_>) -> Decided {
    fixed(volume, is)?;
    let known = |index: usize| match is.targets.get(index) {
        Some(target) => Some(target.bytes),
        None => volume.targets.get(index).and_then(|target| (around.capacity)(&target.at)),
    };
    let parts = volume.parts(known).map_err(|fault| format!("{}: {}", fault.field, fault.why))?;
    let growth = match volume.layout {
        Layout::Linear => grow_linear(volume, is, &parts)?,
        Layout::Stripe { .. } => grow_stripe(is, &parts)?,
    };
    if growth.is_empty() {
        return Ok(Action::Unchanged);
    }
    if !around.has_client {
        return Err(format!(
            "it would have to grow, which payload {} cannot; payloads from 2.0.0 on can",
            around.payload
        ));
    }
    if is.is_simple {
        return Err(
            "it was made without targets and cannot grow: make it anew with --target".to_owned()
        );
    }
    let in_memory = is.targets.iter().all(|target| target.at.is_made_up());
    if let Some((target, _)) =
        growth.appended.iter().find(|(target, _)| in_memory && !target.at.is_made_up())
    {
        return Err(format!("it is made of memory, and cannot grow by {}", target.at));
    }
    growth.appended.iter().try_for_each(|(target, _)| others.leave_free(&target.at))?;
    Ok(Action::Grow(growth))
}

/// Refuses what cannot change while a volume exists.
fn fixed(volume: &Wanted, is: &Present) -> Result<(), String> {
    let anew = "a volume has to be made anew for that";
    if volume.layout.name() != is.layout.name() {
        let (from, to) = (is.layout.name(), volume.layout.name());
        return Err(format!("it is {from}, not {to}: its data would have to move"));
    }
    if let (Some(from), Some(to)) = (chunk_bytes(is.layout), chunk_bytes(volume.layout)) {
        if from != to {
            let (from, to) = (show_bytes(from), show_bytes(to));
            return Err(format!("its chunks have {from}, not {to}: its data would have to move"));
        }
    }
    if let Some(to) = volume.block_bytes.filter(|to| *to != is.block_bytes) {
        return Err(format!("its blocks have {} bytes, not {to}: {anew}", is.block_bytes));
    }
    for (what, from, to) in [
        ("hardware queues", is.hw_queues, volume.hw_queues),
        ("requests per queue", is.queue_depth, volume.queue_depth),
    ] {
        if to != 0 && from != to {
            return Err(format!("it was made with {from} {what}, not {to}: {anew}"));
        }
    }
    if volume.polled && !is.polled {
        return Err(format!("it was made without queues for polled I/O: {anew}"));
    }
    if volume.targets.len() < is.targets.len() {
        return Err(format!(
            "it has {} targets, not {}: its data would have to move",
            is.targets.len(),
            volume.targets.len()
        ));
    }
    for (index, (to, from)) in volume.targets.iter().zip(&is.targets).enumerate() {
        let number = index.saturating_add(1);
        if !same(&to.at, from) {
            return Err(format!(
                "target {number} is {}, not {}: its data would have to move",
                from.at, to.at
            ));
        }
        if matches!(to.at, At::Nbd(_)) && to.agreed != from.agreed {
            return Err(format!("target {number}, {}, has other terms: {anew}", to.at));
        }
    }
    Ok(())
}

/// Whether a target is the one that is wanted. A server is the same by its name or by its address.
fn same(wanted: &At, is: &PresentTarget) -> bool {
    let (At::Nbd(wanted), At::Nbd(found)) = (wanted, &is.at) else {
        return *wanted == is.at;
    };
    if wanted.name != found.name {
        return false;
    }
    match (&wanted.server, &found.server) {
        (Server::Tcp { host, port }, Server::Tcp { host: found, port: found_port }) => {
            port == found_port && (host == found || is.literal.as_ref() == Some(host))
        }
        (wanted, found) => wanted == found,
    }
}

fn grow_linear(volume: &Wanted, is: &Present, parts: &[Option<u64>]) -> Result<Growth, String> {
    let mut growth = Growth::default();
    let last = is.targets.len().saturating_sub(1);
    for (index, (target, part)) in is.targets.iter().zip(parts).enumerate() {
        let all =
            target.capacity.filter(|_| index == last && volume.targets.len() == is.targets.len());
        let to = match part {
            Some(bytes) => *bytes,
            None => all.map_or(0, |bytes| whole(bytes, is.block_bytes.into())).max(target.bytes),
        };
        if to < target.bytes {
            return Err(shrink(index, target, to));
        }
        if to > target.bytes && index != last {
            return Err(format!(
                "target {} would grow from {} to {}, and what lies behind it would have to move",
                index.saturating_add(1),
                show_bytes(target.bytes),
                show_bytes(to)
            ));
        }
        if to > target.bytes {
            growth.raised.push(Raise { index, from: target.bytes, to });
        }
    }
    growth.appended = volume
        .targets
        .iter()
        .zip(parts)
        .skip(is.targets.len())
        .map(|(target, part)| (target.clone(), *part))
        .collect();
    Ok(growth)
}

fn grow_stripe(is: &Present, parts: &[Option<u64>]) -> Result<Growth, String> {
    if parts.len() != is.targets.len() {
        return Err(format!(
            "it is a stripe over {} targets, not {}: its data would have to move",
            is.targets.len(),
            parts.len()
        ));
    }
    // The smallest of them limits the others.
    let capacities: Option<Vec<u64>> = is.targets.iter().map(|target| target.capacity).collect();
    let all = capacities.and_then(|all| all.into_iter().min());
    let all = all.map_or(0, |bytes| whole(bytes, chunk_bytes(is.layout).unwrap_or(512)));
    let mut growth = Growth::default();
    for (index, (target, part)) in is.targets.iter().zip(parts).enumerate() {
        let to = part.unwrap_or_else(|| all.max(target.bytes));
        if to < target.bytes {
            return Err(shrink(index, target, to));
        }
        if to > target.bytes {
            growth.raised.push(Raise { index, from: target.bytes, to });
        }
    }
    Ok(growth)
}

fn shrink(index: usize, target: &PresentTarget, to: u64) -> String {
    format!(
        "target {} gives {} and would give {}: a volume does not shrink",
        index.saturating_add(1),
        show_bytes(target.bytes),
        show_bytes(to)
    )
}

/// As many bytes as are whole units.
fn whole(bytes: u64, unit: u64) -> u64 {
    bytes.checked_rem(unit).map_or(bytes, |rest| bytes.saturating_sub(rest))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
