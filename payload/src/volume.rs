// SPDX-License-Identifier: GPL-2.0

//! One volume: what all kinds have in common.

use core::sync::atomic::{AtomicU32, Ordering};

use kernel::prelude::*;

use crate::abi::request::status;
use crate::abi::text::Text;
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
        };
        blank.statistics.load(counts);
        let volume = Self {
            id: description.id,
            device: AtomicU32::new(description.device),
            shape: description.shape,
            name: description.name,
            backend,
            statistics: blank.statistics,
        };
        Ok(KBox::write(blank.memory, volume))
    }

    /// Carries out a request. `Ok` with the status to end it with; `Err` with why it was not taken.
    /// Does not sleep.
    #[inline]
    pub(crate) fn serve(&self, io: &Io) -> Result<u32, u32> {
        let outcome = match &self.backend {
            Backend::Null => null::serve(io),
            Backend::Ram(ram) => ram.serve(io),
        };
        if outcome == status::RESOURCE {
            return Err(outcome);
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
            },
            name: self.name,
        }
    }

    /// What it has counted.
    pub(crate) fn counts(&self) -> Counts {
        self.statistics.sum()
    }
}
