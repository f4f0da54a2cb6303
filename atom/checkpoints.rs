// SPDX-License-Identifier: GPL-2.0

//! The checkpoints of the live payload, for the day on which it cannot be asked any more.
//!
//! Whoever replaces it then may be an older version or a newer one, and the schemas that these read may have nothing in
//! common but with the one between them. So two are kept, and the payload leaves one for each.

use kernel::sync::Arc;

use crate::abi::version::SchemaRange;
use crate::state::StoredImage;

/// The last one of each of two schemas, the latest first.
pub(crate) struct Checkpoints([Option<Arc<StoredImage>>; 2]);

impl Checkpoints {
    /// None was left.
    pub(crate) const NONE: Self = Self([None, None]);

    /// The image of a handoff, the first checkpoint of the payload that has adopted it.
    pub(crate) fn first(image: Option<Arc<StoredImage>>) -> Self {
        Self([image, None])
    }

    /// Takes all of them out, to be dropped without a lock: what they are about has changed.
    pub(crate) fn take(&mut self) -> Self {
        core::mem::replace(self, Self::NONE)
    }

    /// Adds one. Returns the one that makes room for it, to be dropped without a lock.
    pub(crate) fn leave(&mut self, image: Arc<StoredImage>) -> Option<Arc<StoredImage>> {
        let [latest, other] = &mut self.0;
        let same = latest.as_ref().is_some_and(|latest| latest.schema == image.schema);
        let before = latest.replace(image);
        match same {
            true => before,
            false => core::mem::replace(other, before),
        }
    }

    /// The latest that somebody with these schemas reads, or the latest of all, which tells why none fits.
    pub(crate) fn for_reader(&self, reads: Option<SchemaRange>) -> Option<Arc<StoredImage>> {
        let fits =
            |image: &&Arc<StoredImage>| reads.is_none_or(|reads| reads.reads(image.schema).is_ok());
        let mut all = self.0.iter().flatten();
        all.clone().find(fits).or_else(|| all.next()).cloned()
    }

    /// Bytes of the largest: what stands in for the image of the payload.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.iter().flatten().map(|image| image.bytes().len() as u64).max().unwrap_or(0)
    }
}
