// SPDX-License-Identifier: GPL-2.0

//! One volume: what all kinds have in common.

#[cfg(payload_client)]
use core::ptr::NonNull;
#[cfg(payload_ahead)]
use core::sync::atomic::AtomicU64;
use core::sync::atomic::{AtomicU32, Ordering};

use kernel::prelude::*;

use crate::abi::request::status;
use crate::abi::text::Text;
#[cfg(payload_client)]
use crate::composed::Composed;
use crate::counts::Counts;
use crate::null;
use crate::pages::{Io, Store};
use crate::ram::Ram;
use crate::shape::{Description, Kind, Shape, VolumeId};
use crate::statistics::Statistics;

/// Memory for a volume, got before it is known which one.
pub(crate) struct Blank {
    memory: KBox<core::mem::MaybeUninit<Volume>>,
    statistics: Statistics,
}

impl Blank {
    /// Gets the memory. May sleep.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self { memory: KBox::new_uninit(GFP_KERNEL)?, statistics: Statistics::new()? })
    }
}

/// Where the pages of a volume come from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pages {
    /// There are none yet.
    Fresh,
    /// An earlier payload has left them, and its description says how many.
    Claimed,
    /// The same with a description that is old: they are counted, which takes as long as there are pages.
    Recounted,
}

/// What serves a volume.
enum Backend {
    Null,
    Ram(Ram),
    #[cfg(payload_client)]
    Composed(KBox<Composed>),
}

/// Why a request was not served.
pub(crate) enum NotServed {
    /// The status with which it is not taken.
    Status(u32),
    /// Its volume has targets that carry it out.
    #[cfg(payload_client)]
    Targets(NonNull<Composed>),
}

/// A volume. Shared between all CPUs; what changes on the I/O path is atomic.
pub(crate) struct Volume {
    id: VolumeId,
    /// N of `/dev/atomN`. Unknown while the device is being created, and not needed for I/O.
    device: AtomicU32,
    shape: Shape,
    name: Text,
    backend: Backend,
    statistics: Statistics,
    /// What its counts had grown to when it was copied last.
    #[cfg(payload_ahead)]
    copied: AtomicU64,
}

impl Volume {
    /// Makes the volume of a description, on the store of its identity, which Atom has. May sleep.
    pub(crate) fn new(
        blank: Blank,
        description: &Description,
        counts: Counts,
        pages: Pages,
    ) -> Result<KBox<Self>> {
        let key = description.id.to_u64();
        let backend = match (description.shape.kind, pages) {
            (Kind::Null, _) => Backend::Null,
            (Kind::Ram, Pages::Fresh) => Backend::Ram(Ram::new(Store::create(key)?, 0)),
            (Kind::Ram, Pages::Claimed) => {
                Backend::Ram(Ram::new(Store::claim(key)?, description.pages))
            }
            (Kind::Ram, Pages::Recounted) => {
                let store = Store::claim(key)?;
                let pages = store.count();
                Backend::Ram(Ram::new(store, pages))
            }
            // Made by `over`.
            (Kind::Linear | Kind::Stripe, _) => return Err(EINVAL),
        };
        blank.statistics.load(counts);
        Ok(Self::with(blank, description, backend))
    }

    /// Makes the volume of a description over targets, which count by themselves.
    #[cfg(payload_client)]
    pub(crate) fn over(
        blank: Blank,
        description: &Description,
        composed: KBox<Composed>,
    ) -> KBox<Self> {
        Self::with(blank, description, Backend::Composed(composed))
    }

    fn with(blank: Blank, description: &Description, backend: Backend) -> KBox<Self> {
        let volume = Self {
            id: description.id,
            device: AtomicU32::new(description.device),
            shape: description.shape,
            name: description.name,
            backend,
            statistics: blank.statistics,
            #[cfg(payload_ahead)]
            copied: AtomicU64::new(0),
        };
        KBox::write(blank.memory, volume)
    }

    /// Carries out a request. `Ok` with the status to end it with; `Err` with why it was not taken.
    /// Does not sleep.
    #[inline]
    pub(crate) fn serve(&self, io: &Io) -> Result<u32, NotServed> {
        let outcome = match &self.backend {
            Backend::Null => null::serve(io),
            Backend::Ram(ram) => ram.serve(io),
            #[cfg(payload_client)]
            Backend::Composed(composed) => {
                return Err(NotServed::Targets(NonNull::from(&**composed)));
            }
        };
        if outcome == status::RESOURCE {
            return Err(NotServed::Status(outcome));
        }
        // Before the request ends, so that whoever waits for the end finds it counted.
        self.statistics.count(io.hctx, io.op, io.bytes, outcome != status::OK);
        Ok(outcome)
    }

    /// The key of its store, when it has one.
    pub(crate) fn store_key(&self) -> Option<u64> {
        matches!(self.backend, Backend::Ram(_)).then(|| self.id.to_u64())
    }

    /// Its identity.
    pub(crate) fn id(&self) -> VolumeId {
        self.id
    }

    /// Its name.
    pub(crate) fn name(&self) -> Text {
        self.name
    }

    /// Learns the number of its device.
    pub(crate) fn set_device(&self, device: u32) {
        self.device.store(device, Ordering::Relaxed);
    }

    /// The number of its device.
    pub(crate) fn device(&self) -> u32 {
        self.device.load(Ordering::Relaxed)
    }

    /// What it is.
    pub(crate) fn describe(&self) -> Description {
        Description {
            id: self.id,
            device: self.device(),
            shape: self.shape,
            pages: match &self.backend {
                Backend::Null => 0,
                Backend::Ram(ram) => ram.pages(),
                #[cfg(payload_client)]
                Backend::Composed(composed) => composed.pages(),
            },
            name: self.name,
        }
    }

    /// What it has counted.
    pub(crate) fn counts(&self) -> Counts {
        #[cfg(payload_client)]
        if let Backend::Composed(composed) = &self.backend {
            return composed.statistics().sum();
        }
        self.statistics.sum()
    }

    /// Notes that it is being copied with these counts, which were read before anything else of it.
    #[cfg(payload_ahead)]
    pub(crate) fn note_copy(&self, counts: &Counts) {
        self.copied.store(counts.grown(), Ordering::Relaxed);
    }

    /// Whether it may be another one than the one that was copied last. Of a volume over targets more changes than
    /// is counted here.
    #[cfg(payload_ahead)]
    pub(crate) fn has_changed(&self, counts: &Counts) -> bool {
        #[cfg(payload_client)]
        if self.composed().is_some() {
            return true;
        }
        self.copied.load(Ordering::Relaxed) != counts.grown()
    }

    /// Brings a volume that serves nobody yet to a later state of the same volume. `EINVAL` for another one.
    #[cfg(payload_ahead)]
    pub(crate) fn catch_up(&self, description: &Description, counts: Counts) -> Result {
        let now = Description { pages: description.pages, ..self.describe() };
        if now != *description {
            return Err(EINVAL);
        }
        if let Backend::Ram(ram) = &self.backend {
            ram.set_pages(description.pages);
        }
        self.statistics.reload(counts);
        Ok(())
    }

    /// The targets that it has.
    #[cfg(payload_client)]
    pub(crate) fn composed(&self) -> Option<&Composed> {
        match &self.backend {
            Backend::Composed(composed) => Some(composed),
            _ => None,
        }
    }
}
