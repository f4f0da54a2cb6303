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
    /// Besides its hardware queues the device has as many again for polled I/O: whoever submits it looks for its end instead
    /// of being told (`RWF_HIPRI`, `IORING_SETUP_IOPOLL`). The payload gets these requests like all others, with numbers of
    /// hardware queues behind those of the others, and ends them by itself. A device has it for life, and what a change says of
    /// it does not count. Since 1.4.
    pub const POLLED: u32 = 1 << 29;
    /// *queue_rq* may sleep, so Atom has it called in process context. A device has it for life. Since 1.2.
    pub const SLEEPS: u32 = 1 << 30;
    /// Nobody may write.
    pub const READ_ONLY: u32 = 1 << 31;

    /// The bits that the block layer has by the same number.
    pub const KERNEL: u32 = WRITE_CACHE | FUA | ROTATIONAL;
    /// All that Atom knows; any other bit is refused.
    pub const ALL: u32 = KERNEL | POLLED | SLEEPS | READ_ONLY;
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

    /// Since 1.2. Smallest I/O that costs no more than its share, in bytes; 0, or less than a physical block: a
    /// physical block.
    pub io_min_bytes: u32,
    /// Since 1.2. Length of I/O that suits the device best, in bytes; 0: none.
    pub io_opt_bytes: u32,
    /// Since 1.2. A read, write or write-zeroes never crosses a multiple of so many sectors; 0: it may cross any.
    pub chunk_sectors: u32,
    /// Since 1.2. The bits that must be zero in address and length of the memory of direct I/O, one less than
    /// a power of two; 0 leaves it to the kernel, which then takes 511.
    pub dma_alignment_mask: u32,
}

/// Kinds of preserved objects, besides page stores. Since 1.1.
pub mod object {
    /// A `struct file *`, as of an open block device; released with `fput`.
    pub const FILE: u32 = 1;
    /// A `struct socket *` of the kernel's own; released with `sock_release`.
    pub const SOCKET: u32 = 2;
}

/// Largest [`DeviceSpec::dma_alignment_mask`]: a page.
pub const MAX_DMA_ALIGNMENT_MASK: u32 = 4095;

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
    /// Bytes of the spec in 1.1.
    pub const BYTES_1_1: usize = core::mem::offset_of!(Self, io_min_bytes);

    /// How many bytes are taken of a spec that says it has `size`: those of the newest version that both sides
    /// know. `None` when it is too short for any.
    pub const fn bytes_taken(size: usize) -> Option<usize> {
        const ALL: usize = core::mem::size_of::<DeviceSpec>();
        match size {
            ALL.. => Some(ALL),
            Self::BYTES_1_1.. => Some(Self::BYTES_1_1),
            Self::BYTES_1_0.. => Some(Self::BYTES_1_0),
            _ => None,
        }
    }

    /// Whether a device of this spec can become one of `wanted`, open or not. Pure.
    pub fn check_change(&self, wanted: &Self, open: bool) -> Result<(), ChangeError> {
        let kept = |now: u16, wanted: u16| wanted == 0 || wanted == now;
        if !wanted.is_valid()
            || !kept(self.hw_queues, wanted.hw_queues)
            || !kept(self.queue_depth, wanted.queue_depth)
            || (self.features ^ wanted.features) & feature::SLEEPS != 0
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
        let polled = self.features & feature::POLLED;
        Self {
            features: (wanted.features & !feature::POLLED) | polled,
            hw_queues: self.hw_queues,
            queue_depth: self.queue_depth,
            ..*wanted
        }
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
            io_min_bytes: 0,
            io_opt_bytes: 0,
            chunk_sectors: 0,
            dma_alignment_mask: 0,
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
            && self.io_min_bytes % block == 0
            && self.io_opt_bytes % block == 0
            && self.chunk_sectors % (block / 512) == 0
            && self.dma_alignment_mask <= MAX_DMA_ALIGNMENT_MASK
            && self.dma_alignment_mask & (self.dma_alignment_mask + 1) == 0
    }
}
