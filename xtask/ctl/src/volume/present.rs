// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A volume as it is, as far as a plan needs to know. Pure.

use atom_abi::text::Text;
use atom_payload::spec::Layout;

use super::target::{Agreed, At, Target};
use super::wanted::Wanted;

/// A volume of the live payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Present {
    /// Its name.
    pub name: Text,
    /// N of its `/dev/atomN`.
    pub device: u32,
    /// How its sectors lie on the targets.
    pub layout: Layout,
    /// Smallest unit of addressing, in bytes.
    pub block_bytes: u32,
    /// Hardware queues that were asked for; 0: one for each CPU.
    pub hw_queues: u16,
    /// Requests per hardware queue that were asked for; 0: as many as Atom sees fit.
    pub queue_depth: u16,
    /// It has hardware queues for polled I/O.
    pub polled: bool,
    /// Open handles of its device.
    pub opens: u32,
    /// Made without targets, as a payload without the client makes it: it cannot grow.
    pub is_simple: bool,
    /// What it is made of.
    pub targets: Vec<PresentTarget>,
}

/// One of its targets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PresentTarget {
    /// What it is.
    pub at: At,
    /// The literal address under which a server was reached, when it is not the host of `at`.
    pub literal: Option<String>,
    /// Bytes of it that the volume uses.
    pub bytes: u64,
    /// Bytes that it has; none when that is not known, or as many as one likes.
    pub capacity: Option<u64>,
    /// What is agreed about it.
    pub agreed: Agreed,
}

impl Present {
    /// The same volume with more targets, or with another size. What is new is at its end.
    pub fn larger(&self, bytes: Option<u64>, appended: Vec<Target>) -> Wanted {
        let fixed = match self.layout {
            // The rest of a given size comes from the last one.
            Layout::Linear if bytes.is_some() && appended.is_empty() => {
                self.targets.len().saturating_sub(1)
            }
            Layout::Linear => self.targets.len(),
            Layout::Stripe { .. } => 0,
        };
        let mut targets: Vec<Target> = self
            .targets
            .iter()
            .enumerate()
            .map(|(index, target)| Target {
                at: target.at.clone(),
                bytes: (index < fixed).then_some(target.bytes),
                agreed: target.agreed,
            })
            .collect();
        targets.extend(appended);
        Wanted {
            name: self.name,
            layout: self.layout,
            targets,
            bytes,
            block_bytes: Some(self.block_bytes),
            hw_queues: self.hw_queues,
            queue_depth: self.queue_depth,
            polled: self.polled,
        }
    }
}
