// SPDX-License-Identifier: GPL-2.0

//! The table of volumes, and what its owner has beside it.
//!
//! The places themselves lie in `sys.rs`, where the I/O path reads them without a lock. [`Volumes`] is
//! behind the lock `table::TABLE_OWNER`: only who holds it puts volumes in and takes them out.

use kernel::prelude::*;

#[cfg(payload_client)]
use crate::abi::device::DeviceSpec;
use crate::abi::text::Text;
use crate::carried;
use crate::shape::{VolumeId, MAX_VOLUMES};
use crate::state::Import;
use crate::sys;
use crate::volume::{Blank, Volume};

/// What belongs to the table, apart from the places.
pub(crate) struct Volumes {
    /// Memory got by *prepare* for *adopt*.
    prepared: KVec<Blank>,
    /// Every place from here on is empty.
    end: usize,
    /// The serial number for the next new volume, greater than zero.
    pub(crate) next_serial: u32,
    /// Records of the last image that this version does not know, packed.
    pub(crate) carried: KVec<u8>,
    /// Volumes were adopted ahead, and another payload serves them.
    #[cfg(payload_ahead)]
    pub(crate) ahead: bool,
}

impl Volumes {
    /// As it is when the module is loaded.
    pub(crate) const fn new() -> Self {
        Self {
            prepared: KVec::new(),
            end: 0,
            next_serial: 1,
            carried: KVec::new(),
            #[cfg(payload_ahead)]
            ahead: false,
        }
    }

    /// Gets memory for so many volumes. May sleep.
    pub(crate) fn prepare(&mut self, volumes: usize) -> Result {
        self.unprepare();
        let mut prepared = KVec::with_capacity(volumes, GFP_KERNEL)?;
        for _ in 0..volumes {
            prepared.push(Blank::new()?, GFP_KERNEL)?;
        }
        self.prepared = prepared;
        Ok(())
    }

    /// Drops the memory that no volume took.
    pub(crate) fn unprepare(&mut self) {
        self.prepared = KVec::new();
    }

    /// Memory for one volume: prepared, or got now. May sleep.
    pub(crate) fn blank(&mut self) -> Result<Blank> {
        self.prepared.pop().map_or_else(Blank::new, Ok)
    }

    /// Puts a volume into its place. From here on the I/O path finds it.
    pub(crate) fn insert(&mut self, volume: KBox<Volume>) -> Result {
        let slot = volume.id().slot();
        sys::fill(slot, volume).map_err(|_| EEXIST)?;
        self.end = self.end.max(slot.saturating_add(1));
        Ok(())
    }

    /// Takes one volume out and drops it. Waits for a grace period, so that no CPU is within it.
    pub(crate) fn remove(&mut self, slot: usize) {
        sys::retire(slot..slot.saturating_add(1));
    }

    /// Takes all volumes out and drops them. Waits for one grace period.
    pub(crate) fn clear(&mut self) {
        sys::retire(0..MAX_VOLUMES);
        self.end = 0;
        self.next_serial = 1;
        self.carried = KVec::new();
        #[cfg(payload_ahead)]
        {
            self.ahead = false;
        }
    }

    /// Takes the records of an image that this version does not know, to be written again. May sleep.
    pub(crate) fn carry(&mut self, image: &Import<'_>) -> Result {
        let mut memory = KVec::from_elem(0, image.load.packed_bytes(), GFP_KERNEL)?;
        carried::pack(image.carried(), &mut memory).map_err(|_| EINVAL)?;
        self.carried = memory;
        Ok(())
    }

    /// Calls `visit` for each volume from place `from` on, until it breaks off with an error. `visit`
    /// may sleep.
    pub(crate) fn try_each<E>(
        &self,
        from: usize,
        mut visit: impl FnMut(&Volume) -> Result<(), E>,
    ) -> Result<(), E> {
        (from..self.end).try_for_each(|slot| sys::with_owned(slot, &mut visit).unwrap_or(Ok(())))
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        (0..self.end).filter(|slot| sys::with_owned(*slot, |_| ()).is_some()).count()
    }

    /// The place of a name.
    pub(crate) fn find(&self, name: &Text) -> Option<usize> {
        (0..self.end)
            .find(|slot| sys::with_owned(*slot, |volume| volume.name() == *name) == Some(true))
    }

    /// Puts a volume into the place of one with fewer sectors, and makes its device as large. On an error nothing
    /// has changed.
    #[cfg(payload_client)]
    pub(crate) fn grow(&mut self, volume: KBox<Volume>, spec: &DeviceSpec) -> Result {
        sys::grow(volume.id().slot(), volume, spec)
    }

    /// An identity that no volume has had. Errors: `ENOSPC` when every place or number is taken.
    pub(crate) fn new_id(&mut self) -> Result<VolumeId> {
        let slot =
            (0..MAX_VOLUMES).find(|slot| sys::with_owned(*slot, |_| ()).is_none()).ok_or(ENOSPC)?;
        let id = VolumeId::new(slot, self.next_serial).ok_or(ENOSPC)?;
        self.next_serial = self.next_serial.checked_add(1).ok_or(ENOSPC)?;
        Ok(id)
    }
}
