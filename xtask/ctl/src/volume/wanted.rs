// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A volume as an operator wants it, whether it can be, and what it takes of each target. Pure.

use atom_abi::text::Text;
use atom_payload::protocol::Create;
use atom_payload::shape::Kind;
use atom_payload::spec::{
    Layout, MAX_CHUNK_SECTORS, MAX_STRING_BYTES, MAX_TARGETS, MIN_CHUNK_SECTORS,
};

use super::target::{At, Target};
use super::uri::Server;
use crate::quantity::show_bytes;

/// Bytes of a chunk when nothing else is said.
pub const DEFAULT_CHUNK_BYTES: u64 = 64 << 10;
/// Bytes of a block of a volume of null and RAM targets when nothing else is said.
pub const DEFAULT_BLOCK_BYTES: u32 = 4096;
/// Most hardware queues of a device.
const MAX_HW_QUEUES: u16 = atom_abi::device::MAX_HW_QUEUES;
/// Most requests per hardware queue.
const MAX_QUEUE_DEPTH: u16 = atom_abi::device::MAX_QUEUE_DEPTH;

/// A volume as it is wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// Its name.
    pub name: Text,
    /// How its sectors lie on the targets.
    pub layout: Layout,
    /// What it is made of.
    pub targets: Vec<Target>,
    /// Its size; none: what the targets give.
    pub bytes: Option<u64>,
    /// Smallest unit of addressing; none: what suits the targets.
    pub block_bytes: Option<u32>,
    /// Hardware queues; 0: one for each CPU.
    pub hw_queues: u16,
    /// Requests per hardware queue; 0: as many as Atom sees fit.
    pub queue_depth: u16,
    /// It has as many hardware queues again, for polled I/O.
    pub polled: bool,
}

/// What is wrong with a volume that is wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The part that is wrong, as it is called in a file: `chunk`, or `target 2` for the second one.
    pub field: String,
    /// Why.
    pub why: String,
}

impl Fault {
    /// Something is wrong with this field.
    pub fn new(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self { field: field.into(), why: why.into() }
    }

    /// Something is wrong with the target of this position.
    pub fn of_target(index: usize, why: impl Into<String>) -> Self {
        Self::new(format!("target {}", index.saturating_add(1)), why)
    }
}

/// The layout of this name. `chunk_bytes` is for stripes only.
pub fn layout(name: &str, chunk_bytes: Option<u64>) -> Result<Layout, Fault> {
    match (name, chunk_bytes) {
        ("linear", None) => Ok(Layout::Linear),
        ("linear", Some(_)) => Err(Fault::new("chunk", "only a stripe has chunks")),
        ("stripe", chunk) => {
            let bytes = chunk.unwrap_or(DEFAULT_CHUNK_BYTES);
            u32::try_from(bytes / 512)
                .ok()
                .filter(|sectors| (MIN_CHUNK_SECTORS..=MAX_CHUNK_SECTORS).contains(sectors))
                .filter(|_| bytes.is_power_of_two())
                .map(|chunk_sectors| Layout::Stripe { chunk_sectors })
                .ok_or_else(|| {
                    Fault::new("chunk", format!("{bytes} bytes: use a power of two from 4K to 1G"))
                })
        }
        _ => Err(Fault::new("layout", format!("{name:?} is no layout: use linear or stripe"))),
    }
}

/// Bytes of a chunk of a stripe; none for other layouts.
pub fn chunk_bytes(layout: Layout) -> Option<u64> {
    match layout {
        Layout::Linear => None,
        Layout::Stripe { chunk_sectors } => Some(u64::from(chunk_sectors) * 512),
    }
}

impl Wanted {
    /// Whether such a volume can be, as far as this can be known without looking at its targets.
    pub fn check(&self) -> Result<(), Fault> {
        match self.targets.len() {
            0 => return Err(Fault::new("targets", "a volume has at least one target")),
            1..=MAX_TARGETS => {}
            many => {
                return Err(Fault::new(
                    "targets",
                    format!("{many} targets: use at most {MAX_TARGETS}"),
                ))
            }
        }
        if let Some(block) = self.block_bytes {
            if !(512..=4096).contains(&block) || !block.is_power_of_two() {
                let why = format!("{block} bytes: use 512, 1024, 2048 or 4096");
                return Err(Fault::new("block-size", why));
            }
        }
        if self.hw_queues > MAX_HW_QUEUES {
            let why = format!("{} queues: use at most {MAX_HW_QUEUES}", self.hw_queues);
            return Err(Fault::new("hw-queues", why));
        }
        if self.queue_depth > MAX_QUEUE_DEPTH {
            let why = format!("{} requests: use at most {MAX_QUEUE_DEPTH}", self.queue_depth);
            return Err(Fault::new("queue-depth", why));
        }
        for (index, target) in self.targets.iter().enumerate() {
            let earlier =
                self.targets.iter().take(index).position(|other| same(&other.at, &target.at));
            if let Some(earlier) = earlier {
                let why = format!("{} is target {} already", target.at, earlier.saturating_add(1));
                return Err(Fault::of_target(index, why));
            }
            if let At::Nbd(export) = &target.at {
                if let Server::Tcp { host, .. } = &export.server {
                    if host.len() > MAX_STRING_BYTES {
                        return Err(Fault::of_target(index, "the name of the host is too long"));
                    }
                }
            }
            if let Some(bytes) = target.bytes {
                self.whole("size", bytes).map_err(|fault| Fault::of_target(index, fault.why))?;
            }
        }
        if let Some(bytes) = self.bytes {
            self.whole("size", bytes)?;
        }
        match self.needs_capacities() {
            true => Ok(()),
            false => self.parts(|_| None).map(drop),
        }
    }

    /// Whether what it takes of each target depends on how large some of them are.
    pub fn needs_capacities(&self) -> bool {
        let Some((_, before)) = self.targets.split_last() else { return false };
        self.layout == Layout::Linear
            && self.bytes.is_some()
            && before.iter().any(|target| target.bytes.is_none() && !target.at.is_made_up())
    }

    /// Bytes that it takes of each target, none where that is all. `capacity` tells how large a target is, where
    /// that is known.
    pub fn parts(
        &self,
        capacity: impl Fn(usize) -> Option<u64>,
    ) -> Result<Vec<Option<u64>>, Fault> {
        match self.layout {
            Layout::Linear => self.linear_parts(capacity),
            Layout::Stripe { chunk_sectors } => self.stripe_parts(u64::from(chunk_sectors) * 512),
        }
    }

    fn linear_parts(
        &self,
        capacity: impl Fn(usize) -> Option<u64>,
    ) -> Result<Vec<Option<u64>>, Fault> {
        let mut parts: Vec<Option<u64>> = self.targets.iter().map(|target| target.bytes).collect();
        if let Some(bytes) = self.bytes {
            let mut left = bytes;
            let last = parts.len().saturating_sub(1);
            for (index, (part, target)) in parts.iter_mut().zip(&self.targets).enumerate() {
                if index == last {
                    match *part {
                        Some(own) if own != left => {
                            return Err(Fault::new(
                                "size",
                                format!(
                                    "the targets give {}, not {}",
                                    show_bytes(bytes.saturating_sub(left).saturating_add(own)),
                                    show_bytes(bytes)
                                ),
                            ))
                        }
                        _ => *part = Some(left),
                    }
                    break;
                }
                let own = part.or_else(|| capacity(index)).ok_or_else(|| {
                    Fault::of_target(index, format!(
                        "the size of {} is not known: with a size of the volume, give one to each target \
                         but the last",
                        target.at
                    ))
                })?;
                left = left.checked_sub(own).filter(|left| *left > 0).ok_or_else(|| {
                    Fault::new(
                        "size",
                        format!(
                            "{} do not reach beyond target {}",
                            show_bytes(bytes),
                            index.saturating_add(1)
                        ),
                    )
                })?;
                *part = Some(own);
            }
        }
        self.made_up_have_a_size(&parts)?;
        Ok(parts)
    }

    fn stripe_parts(&self, chunk: u64) -> Result<Vec<Option<u64>>, Fault> {
        let count = self.targets.len();
        let mut each = match self.bytes {
            None => None,
            Some(bytes) => {
                let row = chunk.saturating_mul(count as u64);
                if row == 0 || bytes % row != 0 {
                    return Err(Fault::new("size", format!(
                        "{bytes} is not a multiple of {row}: one chunk of {} on each of {count} targets",
                        show_bytes(chunk)
                    )));
                }
                Some(bytes / count as u64)
            }
        };
        for (index, target) in self.targets.iter().enumerate() {
            let Some(own) = target.bytes else { continue };
            if own % chunk != 0 {
                let why = format!("{own} is not a multiple of a chunk, {}", show_bytes(chunk));
                return Err(Fault::of_target(index, why));
            }
            match each {
                Some(each) if each != own => {
                    return Err(Fault::of_target(
                        index,
                        format!(
                            "all targets of a stripe give the same: {} here, {} elsewhere",
                            show_bytes(own),
                            show_bytes(each)
                        ),
                    ))
                }
                _ => each = Some(own),
            }
        }
        let parts = vec![each; count];
        self.made_up_have_a_size(&parts)?;
        Ok(parts)
    }

    fn made_up_have_a_size(&self, parts: &[Option<u64>]) -> Result<(), Fault> {
        let without =
            |(part, target): (&Option<u64>, &Target)| part.is_none() && target.at.is_made_up();
        match parts.iter().zip(&self.targets).position(without) {
            None => Ok(()),
            Some(index) => {
                let at = self
                    .targets
                    .get(index)
                    .map_or_else(String::new, |target| target.at.to_string());
                Err(Fault::of_target(index, format!("the size is missing: write {at}:SIZE")))
            }
        }
    }

    /// The same volume for a payload without the client, when it has such volumes.
    pub fn simple(&self) -> Option<Create> {
        if self.polled {
            return None;
        }
        let [target] = &self.targets[..] else { return None };
        let kind = match (self.layout, &target.at) {
            (Layout::Linear, At::Null) => Kind::Null,
            (Layout::Linear, At::Ram) => Kind::Ram,
            _ => return None,
        };
        Some(Create {
            name: self.name,
            kind,
            bytes: target.bytes.or(self.bytes)?,
            block_bytes: self.block_bytes.unwrap_or(DEFAULT_BLOCK_BYTES),
            hw_queues: self.hw_queues,
            queue_depth: self.queue_depth,
            polled: false,
        })
    }

    /// Smallest unit of addressing to ask for; 0: the largest of the targets.
    pub fn asked_block_bytes(&self) -> u32 {
        let made_up = self.targets.iter().all(|target| target.at.is_made_up());
        self.block_bytes.unwrap_or(if made_up { DEFAULT_BLOCK_BYTES } else { 0 })
    }

    /// Smallest unit of addressing that is certain to be allowed for.
    fn block(&self) -> u64 {
        self.asked_block_bytes().max(512).into()
    }

    fn whole(&self, field: &str, bytes: u64) -> Result<(), Fault> {
        let block = self.block();
        match bytes % block {
            0 if bytes > 0 => Ok(()),
            0 => Err(Fault::new(field, "a size is not zero")),
            _ => Err(Fault::new(
                field,
                format!("{bytes} is not a multiple of a block, {block} bytes"),
            )),
        }
    }
}

/// Whether two targets are the same thing, which a volume cannot have twice.
fn same(one: &At, other: &At) -> bool {
    !one.is_made_up() && one == other
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A volume of these targets.
    pub fn wanted(layout: Layout, targets: &[&str]) -> Wanted {
        Wanted {
            name: Text::new("db"),
            layout,
            targets: targets.iter().map(|text| Target::parse(text).unwrap()).collect(),
            bytes: None,
            block_bytes: None,
            hw_queues: 0,
            queue_depth: 0,
            polled: false,
        }
    }

    pub const STRIPE: Layout = Layout::Stripe { chunk_sectors: 128 };
    const M: u64 = 1 << 20;

    fn parts(wanted: &Wanted) -> Result<Vec<Option<u64>>, Fault> {
        wanted.check()?;
        wanted.parts(|_| Some(100 * M))
    }

    #[test]
    fn without_a_size_each_target_gives_what_it_says_or_all() {
        let linear = wanted(Layout::Linear, &["ram:1M", "bdev:/dev/a", "null:2M"]);
        assert_eq!(parts(&linear), Ok(vec![Some(M), None, Some(2 * M)]));
        let stripe = wanted(STRIPE, &["bdev:/dev/a", "nbd://h/e"]);
        assert_eq!(parts(&stripe), Ok(vec![None, None]));
    }

    #[test]
    fn the_last_target_of_a_linear_volume_gives_the_rest_of_its_size() {
        let volume = Wanted {
            bytes: Some(130 * M),
            ..wanted(Layout::Linear, &["ram:10M", "bdev:/dev/a", "nbd://h/e"])
        };
        assert!(volume.needs_capacities());
        assert_eq!(parts(&volume), Ok(vec![Some(10 * M), Some(100 * M), Some(20 * M)]));
        let one = Wanted { bytes: Some(M), ..wanted(Layout::Linear, &["ram"]) };
        assert_eq!(parts(&one), Ok(vec![Some(M)]));
        let unknown = volume.parts(|_| None).unwrap_err();
        assert_eq!(unknown.field, "target 2");
    }

    #[test]
    fn a_stripe_takes_the_same_of_each_target() {
        let volume = Wanted { bytes: Some(128 * M), ..wanted(STRIPE, &["bdev:/dev/a", "ram"]) };
        assert_eq!(parts(&volume), Ok(vec![Some(64 * M); 2]));
        let one_says = wanted(STRIPE, &["bdev:/dev/a", "ram:1M"]);
        assert_eq!(parts(&one_says), Ok(vec![Some(M); 2]));
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_field_that_is_wrong() {
        let linear = |targets: &[&str]| wanted(Layout::Linear, targets);
        let many: Vec<String> = (0..17).map(|n| format!("bdev:/dev/d{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        for (volume, field) in [
            (linear(&[]), "targets"),
            (linear(&many), "targets"),
            (linear(&["bdev:/dev/a", "ram:1M", "bdev:/dev/a"]), "target 3"),
            (linear(&["nbd://h/e", "nbd://h:10809/e"]), "target 2"),
            (linear(&["bdev:/dev/a", "ram"]), "target 2"),
            (linear(&["ram:1536"]), "target 1"),
            (Wanted { bytes: Some(1536), ..linear(&["ram"]) }, "size"),
            (Wanted { bytes: Some(0), ..linear(&["bdev:/dev/a"]) }, "size"),
            (Wanted { bytes: Some(M), ..linear(&["ram:1M", "ram:1M"]) }, "size"),
            (Wanted { bytes: Some(3 * M), ..linear(&["ram:1M", "ram:1M"]) }, "size"),
            (Wanted { block_bytes: Some(513), ..linear(&["ram:1M"]) }, "block-size"),
            (Wanted { block_bytes: Some(8192), ..linear(&["ram:1M"]) }, "block-size"),
            (Wanted { hw_queues: u16::MAX, ..linear(&["ram:1M"]) }, "hw-queues"),
            (Wanted { queue_depth: u16::MAX, ..linear(&["ram:1M"]) }, "queue-depth"),
            (wanted(STRIPE, &["ram:1M", "ram:2M"]), "target 2"),
            (wanted(STRIPE, &["ram:68K", "ram:68K"]), "target 1"),
            (Wanted { bytes: Some(M + 65536), ..wanted(STRIPE, &["ram", "ram"]) }, "size"),
        ] {
            assert_eq!(volume.check().unwrap_err().field, field, "{volume:?}");
        }
    }

    #[test]
    fn layouts_are_known_by_name_and_only_a_stripe_has_chunks() {
        assert_eq!(layout("linear", None), Ok(Layout::Linear));
        assert_eq!(layout("stripe", None), Ok(STRIPE));
        assert_eq!(layout("stripe", Some(4096)), Ok(Layout::Stripe { chunk_sectors: 8 }));
        for (name, chunk, field) in [
            ("mirror", None, "layout"),
            ("linear", Some(65536), "chunk"),
            ("stripe", Some(2048), "chunk"),
            ("stripe", Some(65536 + 512), "chunk"),
            ("stripe", Some(2 << 30), "chunk"),
        ] {
            assert_eq!(layout(name, chunk).unwrap_err().field, field, "{name} {chunk:?}");
        }
    }
}
