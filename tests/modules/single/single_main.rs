// SPDX-License-Identifier: GPL-2.0

//! The client in one module, as it is without Atom: what the benchmark measures the split against.
//!
//! What serves a request is the payload's own code, the files of `payload/src` as they are. What stands in for Atom is what
//! every driver of blk-mq has: a queue whose dispatch calls its volume. There is no gate, no epoch and no record of a request, and
//! to change a line of it the devices have to go.
//!
//! There are two devices: `/dev/single0` keeps nothing, `/dev/single1` is in memory.

#[path = "abi/abi.rs"]
mod abi;
#[allow(dead_code, unreachable_pub)]
#[path = "payload/counts.rs"]
mod counts;
#[path = "payload/null.rs"]
mod null;
#[allow(dead_code)]
#[path = "payload/pages.rs"]
mod pages;
#[allow(dead_code)]
#[path = "payload/ram.rs"]
mod ram;
#[allow(dead_code, unreachable_pub)]
#[path = "payload/shape.rs"]
mod shape;
#[allow(dead_code)]
#[path = "payload/statistics.rs"]
mod statistics;
mod store;
#[allow(dead_code)]
#[path = "payload/volume.rs"]
mod volume;

use core::mem::MaybeUninit;
use core::ptr::{addr_of, addr_of_mut, null_mut, NonNull};

use kernel::prelude::*;
use kernel::str::CString;
use kernel::types::Opaque;
use kernel::{bindings, ffi};

use abi::device::{feature, DeviceSpec};
use abi::request::{flags, status, Request};
use counts::Counts;
use pages::Io;
use shape::{Description, Kind, Shape, VolumeId};
use volume::{Blank, NotServed, Pages, Volume};

module! {
    type: Single,
    name: "single",
    authors: ["The Atom authors"],
    description: "The client in one module, for the benchmark",
    license: "GPL",
    params: {
        depth: i64 {
            default: 128,
            description: "Tags of each hardware queue",
        },
        mib: i64 {
            default: 64,
            description: "MiB of each device",
        },
        traced: i64 {
            default: 0,
            description: "1: requests come by a function in C, which can be traced and patched",
        },
    },
}

/// The failpoints of the payload's files; here there are none.
mod points {
    use kernel::prelude::*;

    pub(crate) struct Never;

    impl Never {
        #[inline(always)]
        pub(crate) fn meet(&self) -> Result {
            Ok(())
        }
    }

    pub(crate) const QUEUE_PAGE: Never = Never;
}

/// What the payload's files ask of their own module.
mod sys {
    /// There are no epochs.
    pub(crate) fn epoch() -> u64 {
        0
    }
}

/// A table of C function pointers that the kernel only reads.
#[repr(transparent)]
struct Table<T>(T);

// SAFETY: The value is never written after it was initialised at compile time.
unsafe impl<T> Sync for Table<T> {}

static MQ_OPS: Table<bindings::blk_mq_ops> = Table(bindings::blk_mq_ops {
    queue_rq: Some(queue_rq),
    queue_rqs: Some(queue_rqs),
    ..pin_init::zeroed()
});

static TRACED_OPS: Table<bindings::blk_mq_ops> =
    Table(bindings::blk_mq_ops { queue_rq: Some(single_traced), ..pin_init::zeroed() });

static DISK_OPS: Table<bindings::block_device_operations> =
    Table(bindings::block_device_operations {
        owner: crate::THIS_MODULE.as_ptr(),
        ..pin_init::zeroed()
    });

#[expect(improper_ctypes, reason = "the kernel's own types, which bindgen has made")]
extern "C" {
    /// In `traced.c`: calls [`single_queue_rq`].
    fn single_traced(
        hctx: *mut bindings::blk_mq_hw_ctx,
        data: *const bindings::blk_mq_queue_data,
    ) -> u8;
}

/// A device.
#[pin_data(PinnedDrop)]
struct Disk {
    volume: KBox<Volume>,
    gendisk: *mut bindings::gendisk,
    #[pin]
    tag_set: Opaque<bindings::blk_mq_tag_set>,
}

// SAFETY: Tag set and gendisk are the kernel's and have their own locks.
unsafe impl Send for Disk {}
// SAFETY: As above.
unsafe impl Sync for Disk {}

impl Disk {
    fn create(
        number: u32,
        kind: Kind,
        mib: u64,
        depth: u16,
        traced: bool,
    ) -> Result<Pin<KBox<Self>>> {
        let bytes = mib.checked_mul(1 << 20).ok_or(EINVAL)?;
        let shape = Shape::new(kind, bytes, 4096, 0, depth).ok_or(EINVAL)?;
        let id = VolumeId::new(number as usize, 1).ok_or(EINVAL)?;
        let name = abi::text::Text::new("single");
        let description = Description { id, device: number, shape, pages: 0, name };
        let counts = Counts::none();
        let volume = Volume::new(Blank::new()?, &description, counts, Pages::Fresh)?;
        let tag_set = bindings::blk_mq_tag_set {
            ops: if traced { addr_of!(TRACED_OPS.0) } else { addr_of!(MQ_OPS.0) },
            // SAFETY: The kernel sets the number once, when it boots.
            nr_hw_queues: unsafe { bindings::nr_cpu_ids },
            queue_depth: depth.into(),
            numa_node: bindings::NUMA_NO_NODE,
            flags: bindings::BLK_MQ_F_NO_SCHED_BY_DEFAULT,
            ..pin_init::zeroed()
        };
        let mut disk = KBox::pin_init(
            try_pin_init!(Self {
                volume,
                gendisk: null_mut(),
                tag_set <- Opaque::try_ffi_init(|slot: *mut bindings::blk_mq_tag_set| {
                    // SAFETY: The slot is valid for writes and pinned.
                    unsafe {
                        slot.write(tag_set);
                        kernel::error::to_result(bindings::blk_mq_alloc_tag_set(slot))
                    }
                }),
            }? Error),
            GFP_KERNEL,
        )?;
        let this: *mut ffi::c_void = addr_of!(*disk).cast_mut().cast();
        // SAFETY: All bits zero are a value of the limits.
        let mut limits: bindings::queue_limits = unsafe { core::mem::zeroed() };
        set_limits(&mut limits, &shape.spec());
        // SAFETY: The tag set is allocated; the disk, which is pinned in its box, outlives the queue.
        let gendisk = kernel::error::from_err_ptr(unsafe {
            let class = kernel::static_lock_class!().as_ptr();
            bindings::__blk_mq_alloc_disk(disk.tag_set.get(), &mut limits, this, class)
        })?;
        // SAFETY: A pointer is replaced; what is pinned stays.
        unsafe { disk.as_mut().get_unchecked_mut().gendisk = gendisk };
        let name = CString::try_from_fmt(fmt!("single{number}"))?;
        // SAFETY: The gendisk is not added yet, so this is its only user.
        unsafe {
            (*gendisk).fops = addr_of!(DISK_OPS.0);
            (*gendisk).private_data = this;
            let to = (*gendisk).disk_name.iter_mut();
            to.zip(name.to_bytes()).for_each(|(to, from)| *to = *from);
            bindings::set_capacity(gendisk, shape.capacity_sectors);
            kernel::error::to_result(bindings::device_add_disk(null_mut(), gendisk, null_mut()))
                .inspect_err(|_| bindings::put_disk(gendisk))
                .inspect_err(|_| disk.as_mut().get_unchecked_mut().gendisk = null_mut())?;
        }
        Ok(disk)
    }
}

#[pinned_drop]
impl PinnedDrop for Disk {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: The gendisk, if there is one, was added; the tag set was allocated when `self` came to be, and nothing but
        // the gendisk's queue uses it.
        unsafe {
            if !self.gendisk.is_null() {
                bindings::del_gendisk(self.gendisk);
                bindings::put_disk(self.gendisk);
            }
            bindings::blk_mq_free_tag_set(self.tag_set.get());
        }
    }
}

/// The limits that Atom's device has.
fn set_limits(limits: &mut bindings::queue_limits, spec: &DeviceSpec) {
    limits.features |= spec.features & feature::KERNEL;
    limits.logical_block_size = spec.logical_block_bytes;
    limits.physical_block_size = spec.physical_block_bytes;
    limits.max_hw_sectors = spec.max_sectors;
    limits.max_segments = spec.max_segments as u16;
    limits.max_hw_discard_sectors = spec.max_discard_sectors;
    limits.discard_granularity = spec.discard_granularity_bytes;
    limits.max_write_zeroes_sectors = spec.max_write_zeroes_sectors;
    limits.dma_alignment = spec.dma_alignment_mask;
}

/// Serves a request. Context: a dispatch: RCU read side, must not sleep.
///
/// # Safety
///
/// `hctx` must be of a [`Disk`] and the request of its tag set, in a dispatch of it.
#[inline]
unsafe fn serve(hctx: *mut bindings::blk_mq_hw_ctx, request: *mut bindings::request) -> u8 {
    // SAFETY: By the function's contract; the queue's data is the `Disk`, which outlives the queue. What `Io` reads of the record
    // is written before, and nothing of it is looked at later.
    unsafe {
        let disk = &*(*(*hctx).queue).queuedata.cast::<Disk>();
        bindings::blk_mq_start_request(request);
        let mut record = MaybeUninit::<Request>::uninit();
        let place = record.as_mut_ptr();
        addr_of_mut!((*place).rq).write(request.cast());
        addr_of_mut!((*place).sector).write((*request).__sector);
        addr_of_mut!((*place).bytes).write((*request).__data_len);
        let op = ((*request).cmd_flags & ((1 << bindings::REQ_OP_BITS) - 1)) as u8;
        addr_of_mut!((*place).op).write(op);
        addr_of_mut!((*place).flags).write(to_flags((*request).cmd_flags));
        addr_of_mut!((*place).hctx).write((*hctx).queue_num as u16);
        match disk.volume.serve(&Io::new(place)) {
            Ok(outcome) => {
                bindings::blk_mq_end_request(request, status::at_end(outcome));
                status::OK as u8
            }
            Err(NotServed::Status(refused)) => status::to_kernel(refused),
        }
    }
}

fn to_flags(cmd_flags: u32) -> u8 {
    let ours = |bit: u32, flag: u8| if cmd_flags & (1 << bit) != 0 { flag } else { 0 };
    ours(bindings::req_flag_bits___REQ_FUA, flags::FUA)
        | ours(bindings::req_flag_bits___REQ_NOUNMAP, flags::NOUNMAP)
}

/// Context: as for [`serve`].
///
/// # Safety
///
/// For the block layer only, which passes objects of a [`Disk`].
unsafe extern "C" fn queue_rq(
    hctx: *mut bindings::blk_mq_hw_ctx,
    data: *const bindings::blk_mq_queue_data,
) -> u8 {
    // SAFETY: As the block layer passes them.
    unsafe { serve(hctx, (*data).rq) }
}

/// The same for `traced.c` and for what patches it.
///
/// # Safety
///
/// As for [`queue_rq`].
#[no_mangle]
unsafe extern "C" fn single_queue_rq(
    hctx: *mut bindings::blk_mq_hw_ctx,
    data: *const bindings::blk_mq_queue_data,
) -> u8 {
    // SAFETY: By the contract of this function.
    unsafe { serve(hctx, (*data).rq) }
}

/// The same for many requests of one device; none is left in the list.
///
/// # Safety
///
/// For the block layer only, which passes a list of requests of a [`Disk`].
unsafe extern "C" fn queue_rqs(list: *mut bindings::rq_list) {
    // SAFETY: The block layer passes its own list, of requests that are ours until they are ended or left in it.
    unsafe {
        while let Some(first) = NonNull::new((*list).head) {
            let request = first.as_ptr();
            (*list).head = (*request).__bindgen_anon_1.rq_next;
            (*request).__bindgen_anon_1.rq_next = null_mut();
            match u32::from(serve((*request).mq_hctx, request)) {
                status::OK => {}
                // It was started.
                status::RESOURCE => bindings::blk_mq_requeue_request(request, true),
                refused => bindings::blk_mq_end_request(request, refused as u8),
            }
        }
        (*list).tail = null_mut();
    }
}

struct Single {
    disks: KVec<Pin<KBox<Disk>>>,
}

impl kernel::Module for Single {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let number = |value: i64| u64::try_from(value).map_err(|_| EINVAL);
        let mib = number(*module_parameters::mib.value())?;
        let depth = u16::try_from(*module_parameters::depth.value()).map_err(|_| EINVAL)?;
        let traced = *module_parameters::traced.value() != 0;
        let mut disks = KVec::with_capacity(2, GFP_KERNEL)?;
        for (at, kind) in [Kind::Null, Kind::Ram].into_iter().enumerate() {
            disks.push(Disk::create(at as u32, kind, mib, depth, traced)?, GFP_KERNEL)?;
        }
        Ok(Self { disks })
    }
}

impl Drop for Single {
    fn drop(&mut self) {
        self.disks.clear();
        store::free();
    }
}
