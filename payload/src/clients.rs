// SPDX-License-Identifier: GPL-2.0

//! Volumes over targets in the operations of the lifecycle; `ops.rs` says when each is called.

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::abi::control::Blocker;
use crate::abi::image::ImageError;
use crate::abi::text::Text;
use crate::composed::Composed;
use crate::counts::Counts;
use crate::held::Held;
use crate::protocol::Output;
use crate::shape::Description;
use crate::spec::Made;
use crate::state::{composed_bytes, Export, Past, SCHEMA_TARGETS};
use crate::statistics::Statistics;
use crate::target::{key, Origin, Target};
use crate::volume::{Blank, Volume};
use crate::volumes::Volumes;
use crate::why::Failure;
use crate::{bios, identity, nbd, sys};

/// Memory in which the record of one target is put together.
pub(crate) struct Memory(KVVec<u8>);

impl Memory {
    /// Gets the memory, where a target may need it. May sleep.
    pub(crate) fn new(volumes: &Volumes) -> Result<Self> {
        let mut remote = false;
        let visit = |volume: &Volume| {
            remote |= volume
                .composed()
                .is_some_and(|composed| composed.targets().iter().any(|target| target.is_remote()));
            Ok::<(), ()>(())
        };
        // `visit` never breaks off.
        let _ = volumes.try_each(0, visit);
        let bytes = if remote { nbd::record::MAX_RECORD_BYTES } else { 0 };
        Ok(Self(KVVec::from_elem(0, bytes, GFP_KERNEL)?))
    }
}

/// Makes what all clients have in common. Sleeps.
pub(crate) fn prepare() -> Result {
    bios::prepare()?;
    nbd::prepare().inspect_err(|_| bios::unprepare())
}

/// Inverse of [`prepare`], when there is no volume. Sleeps.
pub(crate) fn unprepare() {
    nbd::unprepare();
    bios::unprepare();
}

/// Stops attempts to connect.
pub(crate) fn suspend() {
    nbd::suspend();
}

/// Inverse of [`suspend`].
pub(crate) fn resume(paused_ns: u64) {
    nbd::resume(paused_ns);
}

/// Whether nothing looks after connections.
pub(crate) fn is_quiet() -> bool {
    nbd::is_quiet()
}

/// Stops everything that looks after connections. Sleeps.
pub(crate) fn park() -> Result {
    nbd::park()
}

/// Inverse of [`park`].
pub(crate) fn unpark() {
    nbd::unpark();
}

/// Calls `visit` with each target of each volume until it answers an error.
fn each_target(volumes: &Volumes, mut visit: impl FnMut(&Target) -> Result) -> Result {
    volumes.try_each(0, |volume| match volume.composed() {
        Some(composed) => composed.targets().iter().try_for_each(|target| visit(target)),
        None => Ok(()),
    })
}

/// How many parts are issued that cannot be taken back, and how many of them have ended.
fn progress(volumes: &Volumes) -> (u64, u64) {
    let mut sum = (0u64, 0u64);
    let add = |target: &Target| {
        let (issued, ended) = target.progress();
        sum = (sum.0.wrapping_add(issued), sum.1.wrapping_add(ended));
        Ok(())
    };
    // `add` never breaks off.
    let _ = each_target(volumes, add);
    sum
}

/// Hands back every request that was not started. No request is dispatched meanwhile. Sleeps.
pub(crate) fn hand_back(volumes: &Volumes) {
    // No target breaks off.
    let _ = each_target(volumes, |target| {
        target.hand_back();
        Ok(())
    });
}

/// Lets go of every request. No request is dispatched meanwhile. `EBUSY` when a part is being carried out that
/// cannot be taken back, and then nothing has changed. Sleeps.
pub(crate) fn revoke(volumes: &Volumes) -> Result {
    // From here on no connection ends a part, so that only the ends of bios go on with a request.
    nbd::park()?;
    let outcome = revoke_parked(volumes);
    nbd::unpark();
    outcome
}

fn revoke_parked(volumes: &Volumes) -> Result {
    let (issued, ended) = progress(volumes);
    // Between the end of a part and the issue of the next one is a read side.
    sys::wait_for_readers();
    if issued != ended || progress(volumes) != (issued, ended) {
        return Err(EBUSY);
    }
    each_target(volumes, |target| target.revoke())
}

/// Why a request of a volume has not ended.
pub(crate) fn explain(slot: usize, blocker: &Blocker) -> Option<Text> {
    let known = sys::with_owned(slot, |volume| {
        volume.composed().map(|composed| composed.explain(blocker.op, blocker.sector))
    });
    known.flatten().filter(|text| !text.is_empty())
}

/// The oldest schema that has a place for all of the volumes.
pub(crate) fn oldest_schema(volumes: &Volumes) -> u32 {
    let none = |volume: &Volume| volume.composed().map_or(Ok(()), |_| Err(()));
    match volumes.try_each(0, none) {
        Ok(()) => identity::SCHEMA.write_min,
        Err(()) => identity::SCHEMA.write_min.max(SCHEMA_TARGETS),
    }
}

/// Most bytes that the targets take in an image; `None` when the schema has no place for them.
pub(crate) fn image_bytes(volumes: &Volumes, schema: u32) -> Option<usize> {
    let mut bytes = 0usize;
    let add = |volume: &Volume| {
        let Some(composed) = volume.composed() else {
            return Ok(());
        };
        let made = composed.made().map_err(|_| ())?;
        bytes = bytes.saturating_add(composed_bytes(&made, nbd::record::MAX_RECORD_BYTES));
        if schema < SCHEMA_TARGETS {
            let name = volume.name();
            pr_err!("volume {}: only a payload with the client can have it\n", name.as_str());
            return Err(());
        }
        Ok(())
    };
    volumes.try_each(0, add).ok().map(|()| bytes)
}

/// Adds what a volume is made of to an image. Does not sleep.
pub(crate) fn export(
    volume: &Volume,
    image: &mut Export<'_>,
    memory: &mut Memory,
    parked: bool,
) -> Result<(), ImageError> {
    let Some(composed) = volume.composed() else {
        return Ok(());
    };
    let id = volume.id();
    let made = composed.made().map_err(|_| ImageError::Inconsistent)?;
    image.made(id, composed.limits(), &made)?;
    for (at, target) in composed.targets().iter().enumerate() {
        image.target(id, at, target.pages(), target.history(), |op| target.latency(op))?;
        if target.is_remote() {
            let written = match parked {
                true => target.record(&mut memory.0),
                false => target.checkpoint(&mut memory.0),
            };
            let length = written.map_err(|_| ImageError::Inconsistent)?;
            let record = memory.0.get(..length).ok_or(ImageError::NoRoom)?;
            image.nbd(id, at, record)?;
        }
    }
    Ok(())
}

/// Takes over a volume that an earlier payload has left. On an error nothing is left of it but what Atom forgets
/// by itself. Sleeps.
pub(crate) fn adopt(
    blank: Blank,
    description: &Description,
    counts: Counts,
    past: &Past<'_>,
    checkpoint: bool,
) -> Result<KBox<Volume>> {
    let mut targets = KVec::with_capacity(past.made.len(), GFP_KERNEL)?;
    for (at, (spec, past)) in past.made.targets().zip(past.targets()).enumerate() {
        let origin = Origin::Left { past, checkpoint };
        let made = Target::new(&spec, key(description.id, at), origin)
            .and_then(|target| Ok(Arc::new(target, GFP_KERNEL).map_err(Error::from)?))
            .and_then(|target| Ok(targets.push(target, GFP_KERNEL).map_err(Error::from)?));
        if let Err(Failure { error, why }) = made {
            let name = description.name;
            pr_err!("volume {}, target {at}: {}\n", name.as_str(), why.as_str());
            // Whoever looks after the connections lets go of them before the targets go.
            nbd::park()?;
            return Err(error);
        }
    }
    let statistics = Arc::new(Statistics::new()?, GFP_KERNEL)?;
    statistics.load(counts);
    let made = encode(&past.made)?;
    let held = Arc::new(Held::new()?, GFP_KERNEL)?;
    let composed = Composed::new(past.map, targets, (statistics, held), past.limits, made)?;
    Ok(Volume::over(blank, description, composed))
}

/// What a volume is made of, in memory of its own. May sleep.
pub(crate) fn encode(made: &Made<'_>) -> Result<KVec<u8>> {
    let mut bytes = KVec::from_elem(0, made.bytes(), GFP_KERNEL)?;
    made.put(&mut Output::new(&mut bytes)).map_err(|_| EINVAL)?;
    Ok(bytes)
}
