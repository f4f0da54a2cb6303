// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What a payload asks for when it creates a device.

/// Feature bits of a [`DeviceSpec`]. Those in [`KERNEL`](feature::KERNEL) are the kernel's `BLK_FEAT_*`
/// (`include/linux/blkdev.h`).
pub mod feature {
    /// Completed writes may be lost until a flush.
    pub const WRITE_CACHE: u32 = 1 << 0;
    /// Writes can be made durable one by one.
    pub const FUA: u32 = 1 << 1;
    /// A seek costs time.
    pub const ROTATIONAL: u32 = 1 << 2;
    /// Nobody may write.
    pub const READ_ONLY: u32 = 1 << 31;

    /// The bits that the block layer has by the same number.
    pub const KERNEL: u32 = WRITE_CACHE | FUA | ROTATIONAL;
    /// All that Atom knows; any other bit is refused.
    pub const ALL: u32 = KERNEL | READ_ONLY;
}

/// Requests per hardware queue when the payload leaves the choice to Atom.
pub const DEFAULT_QUEUE_DEPTH: u16 = 128;

/// The shape of a device. Lengths are in bytes or, where the name says so, in sectors of 512 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceSpec {
    /// Bytes of this structure that the payload knows.
    pub size: u32,
    /// Bits of [`feature`].
    pub features: u32,
    /// Capacity in sectors.
    pub capacity_sectors: u64,
    /// Smallest unit of addressing, a power of two from 512 to 4096.
    pub logical_block_bytes: u32,
    /// Smallest unit that is written without reading first, a power of two.
    pub physical_block_bytes: u32,
    /// Longest request, in sectors, at least 8; 0 leaves it to the kernel, which then takes 255.
    pub max_sectors: u32,
    /// Most data segments in one request; 0 leaves it to the kernel.
    pub max_segments: u32,
    /// Granularity of discard in bytes; 0: no discard, whatever the next field says.
    pub discard_granularity_bytes: u32,
    /// Longest discard, in sectors.
    pub max_discard_sectors: u32,
    /// Longest write-zeroes, in sectors; 0: none.
    pub max_write_zeroes_sectors: u32,
    /// Hardware queues; 0: one for each CPU.
    pub hw_queues: u16,
    /// Requests per hardware queue; 0: [`DEFAULT_QUEUE_DEPTH`].
    pub queue_depth: u16,

    /// Since 1.1. Milliseconds after which the payload's *timeout* is asked about a request that it owes; 0: never.
    pub timeout_ms: u32,
    /// Since 1.1. Zero.
    pub reserved: u32,
}

/// Kinds of preserved objects, besides page stores. Since 1.1.
pub mod object {
    /// A `struct file *`, as of an open block device; released with `fput`.
    pub const FILE: u32 = 1;
    /// A `struct socket *` of the kernel's own; released with `sock_release`.
    pub const SOCKET: u32 = 2;
}

/// Longest [`DeviceSpec::timeout_ms`]: an hour.
pub const MAX_TIMEOUT_MS: u32 = 3_600_000;

/// Most hardware queues that a device may ask for.
pub const MAX_HW_QUEUES: u16 = 256;
/// Deepest queue that a device may ask for (`BLK_MQ_MAX_DEPTH` of the kernel).
pub const MAX_QUEUE_DEPTH: u16 = 10240;

/// Why a device cannot be changed to another spec.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeError {
    /// The spec is outside the limits, or asks for what cannot be changed.
    Invalid,
    /// Whoever has the device open would break.
    Holder,
}

impl DeviceSpec {
    /// Bytes of the spec in 1.0: the shortest that Atom takes.
    pub const BYTES_1_0: usize = core::mem::offset_of!(Self, timeout_ms);

    /// Whether a device of this spec can become one of `wanted`, open or not. Pure.
    pub fn check_change(&self, wanted: &Self, open: bool) -> Result<(), ChangeError> {
        let kept = |now: u16, wanted: u16| wanted == 0 || wanted == now;
        if !wanted.is_valid()
            || !kept(self.hw_queues, wanted.hw_queues)
            || !kept(self.queue_depth, wanted.queue_depth)
        {
            return Err(ChangeError::Invalid);
        }
        let breaks = wanted.capacity_sectors < self.capacity_sectors
            || wanted.logical_block_bytes > self.logical_block_bytes;
        match open && breaks {
            true => Err(ChangeError::Holder),
            false => Ok(()),
        }
    }

    /// What a device of this spec is after it was changed to `wanted`: its queues stay.
    pub fn changed_to(&self, wanted: &Self) -> Self {
        Self { hw_queues: self.hw_queues, queue_depth: self.queue_depth, ..*wanted }
    }

    /// A spec of this version of the interface with nothing asked for.
    pub const fn new(capacity_sectors: u64) -> Self {
        Self {
            size: core::mem::size_of::<Self>() as u32,
            features: 0,
            capacity_sectors,
            logical_block_bytes: 512,
            physical_block_bytes: 4096,
            max_sectors: 0,
            max_segments: 0,
            discard_granularity_bytes: 0,
            max_discard_sectors: 0,
            max_write_zeroes_sectors: 0,
            hw_queues: 0,
            queue_depth: 0,
            timeout_ms: 0,
            reserved: 0,
        }
    }

    /// True when every value is within what Atom supports.
    pub fn is_valid(&self) -> bool {
        let block = self.logical_block_bytes;
        let physical = self.physical_block_bytes;
        self.size as usize >= Self::BYTES_1_0
            && self.timeout_ms <= MAX_TIMEOUT_MS
            && self.features & !feature::ALL == 0
            && self.capacity_sectors > 0
            && self.capacity_sectors <= i64::MAX as u64 / 512
            && (512..=4096).contains(&block)
            && block.is_power_of_two()
            && physical.is_power_of_two()
            && (block..=1 << 20).contains(&physical)
            && self.capacity_sectors % u64::from(block / 512) == 0
            && self.hw_queues <= MAX_HW_QUEUES
            && self.queue_depth <= MAX_QUEUE_DEPTH
            && (self.discard_granularity_bytes == 0
                || (self.discard_granularity_bytes % block == 0 && self.max_discard_sectors > 0))
            && (self.max_sectors == 0 || self.max_sectors >= 8)
            && self.max_segments <= u32::from(u16::MAX)
    }
}
