// SPDX-License-Identifier: GPL-2.0

//! The commands about volumes over targets. Process context; may sleep.
//!
//! Each is answered, and where it is refused the answer says why, and nothing has changed: a target that was
//! made for it is let go of again.

use kernel::prelude::*;
use kernel::sync::{Arc, UniqueArc};

use crate::abi::device::{feature, DeviceSpec};
use crate::abi::text::Text;
use crate::answers::{encode_outcome_done, Composed as Answer, Refused, MAX_COMPOSED_BYTES};
use crate::bios;
use crate::commands::{errno, polled};
use crate::composed::Composed;
use crate::held::Held;
use crate::identity;
use crate::layout::{share, Map, Misfit, Share};
use crate::limits::{Facts, Limits};
use crate::protocol::{Compose, Output, ALL_TARGETS};
use crate::shape::{Description, Kind, Shape, VolumeId};
use crate::shown::{Connection, ShownWriter, TargetState};
use crate::spec::{self, Layout, Made, MAX_CONNECTIONS, MAX_TARGETS};
use crate::statistics::Statistics;
use crate::sys;
use crate::target::{key, Origin, Target};
use crate::volume::{Blank, Volume};
use crate::volumes::Volumes;
use crate::why::{Failure, Why};

/// Why a command is refused, and the target that it is about.
struct Refusal {
    target: Option<usize>,
    failure: Failure,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { target: None, failure: error.into() }
    }
}

impl From<kernel::alloc::AllocError> for Refusal {
    fn from(_: kernel::alloc::AllocError) -> Self {
        ENOMEM.into()
    }
}

fn refusal(error: Error, target: Option<usize>, why: core::fmt::Arguments<'_>) -> Refusal {
    Refusal { target, failure: Failure { error, why: Why::new(why) } }
}

/// Writes the answer of a command that was refused.
fn answer(refusal: &Refusal, output: &mut [u8]) -> Result<usize> {
    Refused {
        errno: refusal.failure.error.to_errno().unsigned_abs(),
        target: refusal.target.and_then(|target| u32::try_from(target).ok()),
        why: refusal.failure.why.as_str(),
    }
    .encode(output)
    .map_err(errno)
}

/// COMPOSE. Returns the length of the answer, and whether there is a new volume.
pub(crate) fn compose(
    volumes: &mut Volumes,
    wanted: &Compose<'_>,
    output: &mut [u8],
) -> Result<(usize, bool)> {
    if output.len() < MAX_COMPOSED_BYTES {
        // Known before anything is created.
        return Err(EMSGSIZE);
    }
    match try_compose(volumes, wanted) {
        Ok(id) => Ok((composed_answer(id.slot(), output)?, true)),
        Err(refused) => Ok((answer(&refused, output)?, false)),
    }
}

fn try_compose(volumes: &mut Volumes, wanted: &Compose<'_>) -> Result<VolumeId, Refusal> {
    let name = &wanted.name;
    if volumes.find(name).is_some() {
        return Err(refusal(EEXIST, None, format_args!("there is a volume {name} already")));
    }
    let block = wanted.block_bytes;
    if block != 0 && !((512..=4096).contains(&block) && block.is_power_of_two()) {
        return Err(refusal(
            EINVAL,
            None,
            format_args!("blocks of {block} bytes are not possible"),
        ));
    }
    let id = volumes.new_id()?;
    let mut targets = Fresh::new()?;
    targets.add(id, 0, wanted.made.targets())?;
    let plan = Plan::new(&wanted.made, wanted.block_bytes, &targets.0, |target| {
        Ok(target.facts().sectors)
    })?;
    let Plan { map, limits, made } = plan;
    let shape = shape(wanted.made.layout, &map, &limits, wanted.hw_queues, wanted.queue_depth);
    let description = Description { id, device: 0, shape, pages: 0, name: *name };
    let all = clones(&targets.0)?;
    let statistics = Arc::new(Statistics::new()?, GFP_KERNEL)?;
    let held = Arc::new(Held::new()?, GFP_KERNEL)?;
    let composed = Composed::new(map, all, (statistics, held), limits, made)?;
    let spec = polled(composed.spec(&shape), wanted.polled);
    if !spec.is_valid() || !shape.spec().is_valid() {
        return Err(refusal(EINVAL, None, format_args!("no device can be as the volume would be")));
    }
    let volume = Volume::over(volumes.blank()?, &description, composed);
    // Requests can arrive before the device's number is known here, so the volume goes first.
    volumes.insert(volume)?;
    let device = sys::create_device(&spec, id.slot()).map_err(|error| {
        volumes.remove(id.slot());
        refusal(error, None, format_args!("its device cannot be made: error {}", error.to_errno()))
    })?;
    sys::with_owned(id.slot(), |volume| volume.set_device(device));
    targets.keep();
    Ok(id)
}

/// RESIZE. Returns the length of the answer, and whether the volume has changed.
pub(crate) fn resize(
    volumes: &mut Volumes,
    name: &Text,
    wanted: &Made<'_>,
    output: &mut [u8],
) -> Result<(usize, bool)> {
    if output.len() < MAX_COMPOSED_BYTES {
        return Err(EMSGSIZE);
    }
    let outcome = volumes
        .find(name)
        .ok_or_else(|| refusal(ENOENT, None, format_args!("there is no volume {name}")))
        .and_then(|slot| Ok((slot, try_resize(volumes, slot, wanted)?)));
    match outcome {
        Ok((slot, changed)) => Ok((composed_answer(slot, output)?, changed)),
        Err(refused) => Ok((answer(&refused, output)?, false)),
    }
}

/// What is known of the volume that is to grow.
struct Current {
    description: Description,
    map: Map,
    limits: Limits,
    shared: (Arc<Statistics>, Arc<Held>),
    targets: KVec<Arc<Target>>,
    made: KVec<u8>,
    sleeps: bool,
}

impl Current {
    /// May sleep; looks at the volume without that.
    fn new(slot: usize) -> Result<Self> {
        let mut targets = KVec::with_capacity(MAX_TARGETS, GFP_KERNEL)?;
        let mut made = KVec::from_elem(0u8, spec::MAX_MADE_BYTES, GFP_KERNEL)?;
        let found = sys::with_owned(slot, |volume| {
            let composed = volume.composed()?;
            for target in composed.targets() {
                // There is room: a volume has no more.
                targets.push_within_capacity(target.clone()).ok()?;
            }
            let mut out = Output::new(&mut made);
            composed.made().ok()?.put(&mut out).ok()?;
            let length = out.len();
            let (map, limits) = (*composed.map(), *composed.limits());
            let shared = (composed.statistics().clone(), composed.held().clone());
            Some((volume.describe(), map, limits, shared, composed.sleeps(), length))
        });
        let (description, map, limits, shared, sleeps, length) =
            found.flatten().ok_or(sys::eopnotsupp())?;
        made.truncate(length);
        Ok(Self { description, map, limits, shared, targets, made, sleeps })
    }
}

fn try_resize(volumes: &mut Volumes, slot: usize, wanted: &Made<'_>) -> Result<bool, Refusal> {
    let current = Current::new(slot).map_err(|error| match error {
        e if e == sys::eopnotsupp() => refusal(e, None, format_args!("the volume has no targets")),
        e => e.into(),
    })?;
    let old = Made::decode(&current.made).map_err(|_| EINVAL)?;
    check_same(&old, wanted)?;
    let mut fresh = Fresh::new()?;
    fresh.add(current.description.id, old.len(), wanted.targets().skip(old.len()))?;
    for (at, target) in (old.len()..).zip(&fresh.0) {
        let read_only = feature::READ_ONLY;
        if target.facts().features & !current.limits.features & read_only != 0 {
            return Err(refusal(
                EROFS,
                Some(at),
                format_args!("nobody may write to it, but to the volume"),
            ));
        }
        target.keep_untouched();
    }
    let mut all = KVec::with_capacity(MAX_TARGETS, GFP_KERNEL)?;
    for target in [&current.targets, &fresh.0].into_iter().flatten() {
        all.push(target.clone(), GFP_KERNEL)?;
    }
    let block_bytes = current.limits.logical_block_bytes;
    let Plan { map, mut limits, made } =
        Plan::new(wanted, block_bytes, &all, |target| target.sectors_now())?;
    check_growth(&old, &current.map, &made, &map)?;
    if map == current.map {
        return Ok(false);
    }
    // Whoever has the device open relies on what it can do.
    limits.features = current.limits.features & limits.features
        | (current.limits.features | limits.features) & feature::WRITE_CACHE;
    let before = current.description.shape;
    let shape = shape(wanted.layout, &map, &limits, before.hw_queues, before.queue_depth);
    let description = Description { shape, ..current.description };
    let composed = Composed::new(map, all, current.shared.clone(), limits, made)?;
    if composed.sleeps() != current.sleeps {
        return Err(refusal(
            sys::eopnotsupp(),
            Some(old.len()),
            format_args!("a volume of memory can only grow by memory"),
        ));
    }
    let spec = DeviceSpec { hw_queues: 0, queue_depth: 0, ..composed.spec(&shape) };
    if !spec.is_valid() {
        return Err(refusal(EINVAL, None, format_args!("no device can be as the volume would be")));
    }
    let volume = Volume::over(Blank::new()?, &description, composed);
    volumes.grow(volume, &spec).map_err(|error| match error {
        e if e == ETIMEDOUT => {
            refusal(e, None, format_args!("its requests have not ended in time"))
        }
        e => refusal(e, None, format_args!("its device cannot be changed: error {}", e.to_errno())),
    })?;
    fresh.keep();
    sys::with_owned(slot, |volume| {
        let Some((composed, made)) = volume.composed().and_then(|c| Some((c, c.made().ok()?)))
        else {
            return;
        };
        for (target, spec) in composed.targets().iter().zip(made.targets()) {
            target.set_sectors(spec.sectors);
        }
    });
    Ok(true)
}

/// Refuses anything but the same targets and more behind them.
fn check_same(old: &Made<'_>, wanted: &Made<'_>) -> Result<(), Refusal> {
    if old.layout != wanted.layout {
        return Err(refusal(
            sys::eopnotsupp(),
            None,
            format_args!("the layout of a volume cannot change"),
        ));
    }
    if wanted.len() < old.len() {
        return Err(refusal(
            sys::eopnotsupp(),
            None,
            format_args!("a target cannot be taken away"),
        ));
    }
    let stripe = matches!(old.layout, Layout::Stripe { .. });
    if stripe && wanted.len() > old.len() {
        return Err(refusal(
            sys::eopnotsupp(),
            Some(old.len()),
            format_args!("a target cannot be added to a stripe"),
        ));
    }
    for (at, (was, wanted)) in old.targets().zip(wanted.targets()).enumerate() {
        if (was.source, was.terms) != (wanted.source, wanted.terms) {
            return Err(refusal(
                sys::eopnotsupp(),
                Some(at),
                format_args!("a target cannot become another one"),
            ));
        }
    }
    Ok(())
}

/// Refuses a growth by which data would have to move.
fn check_growth(old: &Made<'_>, was: &Map, made: &[u8], map: &Map) -> Result<(), Refusal> {
    let made = Made::decode(made).map_err(|_| EINVAL)?;
    let last = old.len().saturating_sub(1);
    for (at, (was, now)) in old.targets().zip(made.targets()).enumerate() {
        if now.sectors < was.sectors {
            let (has, asked) = (was.sectors, now.sectors);
            return Err(refusal(
                sys::eopnotsupp(),
                Some(at),
                format_args!(
                    "it gives {has} sectors and would give {asked}: a volume cannot shrink"
                ),
            ));
        }
        if now.sectors != was.sectors && at != last && old.layout == Layout::Linear {
            return Err(refusal(
                sys::eopnotsupp(),
                Some(at),
                format_args!("only the last target of a linear volume can give more"),
            ));
        }
    }
    match map.capacity() >= was.capacity() {
        true => Ok(()),
        false => Err(refusal(sys::eopnotsupp(), None, format_args!("a volume cannot shrink"))),
    }
}

/// Targets that are being made for a volume. They are let go of again unless they are kept.
struct Fresh(KVec<Arc<Target>>);

impl Fresh {
    fn new() -> Result<Self> {
        Ok(Self(KVec::with_capacity(MAX_TARGETS, GFP_KERNEL)?))
    }

    /// Makes targets, the first of which is the target `first` of the volume.
    fn add<'a>(
        &mut self,
        id: VolumeId,
        first: usize,
        specs: impl Iterator<Item = spec::Target<'a>>,
    ) -> Result<(), Refusal> {
        // Also for memory behind a target on a network: at the end of a part it is left to the task.
        bios::prepare()?;
        for (at, spec) in (first..).zip(specs) {
            let about = |failure| Refusal { target: Some(at), failure };
            // Before there is something that would have to be closed.
            self.0.reserve(1, GFP_KERNEL)?;
            let memory = UniqueArc::new_uninit(GFP_KERNEL)?;
            let target = Target::new(&spec, key(id, at), Origin::Fresh).map_err(about)?;
            self.0.push(memory.write(target).into(), GFP_KERNEL)?;
        }
        Ok(())
    }

    /// They belong to a volume now.
    fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        for target in &self.0 {
            target.close();
        }
    }
}

fn clones(targets: &[Arc<Target>]) -> Result<KVec<Arc<Target>>> {
    let mut all = KVec::with_capacity(targets.len(), GFP_KERNEL)?;
    for target in targets {
        all.push(target.clone(), GFP_KERNEL)?;
    }
    Ok(all)
}

fn shape(layout: Layout, map: &Map, limits: &Limits, hw_queues: u16, queue_depth: u16) -> Shape {
    Shape {
        kind: match layout {
            Layout::Linear => Kind::Linear,
            Layout::Stripe { .. } => Kind::Stripe,
        },
        capacity_sectors: map.capacity(),
        block_bytes: limits.logical_block_bytes,
        features: limits.features,
        max_discard_sectors: limits.max_discard_sectors,
        max_write_zeroes_sectors: limits.max_write_zeroes_sectors,
        hw_queues,
        queue_depth,
    }
}

/// What a volume over targets will be.
struct Plan {
    map: Map,
    limits: Limits,
    made: KVec<u8>,
}

impl Plan {
    fn new(
        wanted: &Made<'_>,
        block_bytes: u32,
        targets: &[Arc<Target>],
        sectors: impl Fn(&Target) -> Result<u64>,
    ) -> Result<Self, Refusal> {
        let mut facts = KVec::with_capacity(targets.len(), GFP_KERNEL)?;
        let mut shares = KVec::with_capacity(targets.len(), GFP_KERNEL)?;
        for (at, (target, spec)) in targets.iter().zip(wanted.targets()).enumerate() {
            let has = sectors(target).map_err(|error| {
                refusal(error, Some(at), format_args!("its size cannot be had now"))
            })?;
            facts.push(target.facts(), GFP_KERNEL)?;
            let asked = match (spec.sectors, has) {
                // Memory gives as much as before when nothing is said.
                (0, u64::MAX) => target.facts().sectors,
                (asked, _) => asked,
            };
            shares.push(Share { asked, has }, GFP_KERNEL)?;
        }
        let facts: &[Facts] = &facts;
        let limits =
            Limits::over(wanted.layout, block_bytes, facts.iter().copied()).map_err(|target| {
                let blocks = facts.get(target).map_or(0, |facts| facts.logical_block_bytes);
                refusal(
                    EINVAL,
                    Some(target),
                    format_args!("its blocks have {blocks} bytes, those of the volume have fewer"),
                )
            })?;
        let given = share(wanted.layout, limits.logical_block_bytes, &shares)
            .map_err(|(at, misfit)| misfit_refusal(at, misfit, shares.get(at).copied()))?;
        let given = given.get(..targets.len()).unwrap_or(&[]);
        let map = Map::new(wanted.layout, given.iter().copied())
            .ok_or_else(|| refusal(EFBIG, None, format_args!("the volume would be too large")))?;
        let mut made = KVec::from_elem(0u8, wanted.bytes(), GFP_KERNEL)?;
        let resolved = Resolved { targets: wanted.targets(), given, at: 0 };
        Made::encode(wanted.layout, resolved, &mut Output::new(&mut made)).map_err(|_| EINVAL)?;
        Ok(Self { map, limits, made })
    }
}

/// Targets with the sectors that they give.
struct Resolved<'g, I> {
    targets: I,
    given: &'g [u64],
    at: usize,
}

impl<'a, I: Iterator<Item = spec::Target<'a>>> Iterator for Resolved<'_, I> {
    type Item = spec::Target<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let target = self.targets.next()?;
        let sectors = *self.given.get(self.at)?;
        self.at = self.at.saturating_add(1);
        Some(spec::Target { sectors, ..target })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.given.len().saturating_sub(self.at);
        (left, Some(left))
    }
}

impl<'a, I: Iterator<Item = spec::Target<'a>>> ExactSizeIterator for Resolved<'_, I> {}

fn misfit_refusal(at: usize, misfit: Misfit, share: Option<Share>) -> Refusal {
    let Share { asked, has } = share.unwrap_or_default();
    let at = Some(at);
    match misfit {
        Misfit::TooSmall => {
            refusal(ENOSPC, at, format_args!("it has {has} sectors, and {asked} were asked for"))
        }
        Misfit::NotWhole(unit) => {
            refusal(EINVAL, at, format_args!("{asked} sectors are no multiple of {unit}"))
        }
        Misfit::Unequal => refusal(
            EINVAL,
            at,
            format_args!("all targets of a stripe give the same number of sectors"),
        ),
        Misfit::Empty => {
            refusal(ENOSPC, at, format_args!("it has {has} sectors, too few for a block or chunk"))
        }
    }
}

fn composed_answer(slot: usize, output: &mut [u8]) -> Result<usize> {
    let written = sys::with_owned(slot, |volume| {
        let composed = volume.composed().ok_or(EINVAL)?;
        let (id, capacity) = (volume.id().to_u64(), composed.map().capacity());
        Answer::encode(id, volume.device(), capacity, composed.given()?, output).map_err(errno)
    });
    written.ok_or(ENOENT)?
}

/// SHOW. Returns the length of the answer.
pub(crate) fn show(volumes: &Volumes, name: &Text, output: &mut [u8]) -> Result<usize> {
    let Some(slot) = volumes.find(name) else {
        let refused = refusal(ENOENT, None, format_args!("there is no volume {name}"));
        return answer(&refused, output);
    };
    let written = sys::with_owned(slot, |volume| match volume.composed() {
        Some(composed) => show_composed(volume, composed, output),
        None => {
            let refused =
                refusal(sys::eopnotsupp(), None, format_args!("the volume {name} has no targets"));
            answer(&refused, output)
        }
    });
    written.ok_or(ENOENT)?
}

fn show_composed(volume: &Volume, composed: &Composed, output: &mut [u8]) -> Result<usize> {
    let counts = volume.counts().as_two();
    let schema = identity::NEWEST_SCHEMA;
    let made = composed.made()?;
    let mut answer =
        ShownWriter::new(output, schema, &volume.describe(), &counts, &made).map_err(errno)?;
    const NONE: Connection =
        Connection { local_port: 0, state: TargetState::Connecting, sent: 0, answered: 0 };
    for target in composed.targets() {
        let mut connections = [NONE; MAX_CONNECTIONS as usize];
        let (status, count) = target.status(&mut connections);
        let connections = connections.iter().copied().take(count);
        let latency = |at| target.latency(at);
        answer.target(&status, connections, latency, target.history().failures()).map_err(errno)?;
    }
    Ok(answer.finish())
}

/// RECONNECT. Returns the length of the answer.
pub(crate) fn reconnect(
    volumes: &Volumes,
    name: &Text,
    target: u32,
    output: &mut [u8],
) -> Result<usize> {
    let Some(slot) = volumes.find(name) else {
        let refused = refusal(ENOENT, None, format_args!("there is no volume {name}"));
        return answer(&refused, output);
    };
    let outcome = sys::with_owned(slot, |volume| {
        let targets = volume.composed().map_or(&[][..], |composed| composed.targets());
        if target == ALL_TARGETS {
            targets.iter().for_each(|target| target.retry_now());
            return Ok(());
        }
        let at = Some(target as usize);
        match targets.get(target as usize) {
            Some(target) if target.is_remote() => {
                target.retry_now();
                Ok(())
            }
            Some(_) => Err(refusal(EINVAL, at, format_args!("it is not on a network"))),
            None => Err(refusal(EINVAL, at, format_args!("the volume has no such target"))),
        }
    });
    match outcome.unwrap_or(Ok(())) {
        Ok(()) => encode_outcome_done(output).map_err(errno),
        Err(refused) => answer(&refused, output),
    }
}

/// The targets of a volume, to be closed when it is gone.
pub(crate) struct Closing([Option<Arc<Target>>; MAX_TARGETS]);

impl Closing {
    /// Those of the volume at a place.
    pub(crate) fn of(slot: usize) -> Self {
        let mut closing = Self([const { None }; MAX_TARGETS]);
        sys::with_owned(slot, |volume| {
            let targets = volume.composed().map_or(&[][..], |composed| composed.targets());
            for (place, target) in closing.0.iter_mut().zip(targets) {
                *place = Some(target.clone());
            }
        });
        closing
    }

    /// Closes them. No request may be carried out on them any more. Sleeps.
    pub(crate) fn close(self) {
        for target in self.0.into_iter().flatten() {
            target.close();
        }
    }
}
