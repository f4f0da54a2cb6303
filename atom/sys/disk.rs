// SPDX-License-Identifier: GPL-2.0

//! A block device on blk-mq: its gate, its slot, its requests.

use core::mem::size_of;
use core::ptr::{addr_of, addr_of_mut, null_mut, without_provenance_mut};
use core::sync::atomic::{fence, AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use kernel::prelude::*;
use kernel::str::CString;
use kernel::sync::Arc;
use kernel::types::Opaque;
use kernel::{bindings, ffi};

use crate::abi::control::{policy, stage, Blocker};
use crate::abi::device::{feature, DeviceSpec, DEFAULT_QUEUE_DEPTH};
use crate::abi::request::{reissue, stage_of, status, Owner, Reissue, Request};
use crate::handles::Handles;
use crate::slot::Slot;

use super::classes::Classes;
use super::dispatch::{self, jiffies, record_of, Record};
use super::queues::{self, Lane};

/// A block device: its tag set, its gendisk, its slot.
///
/// The hot fields come first: a dispatch reads one cache line of it and writes none.
#[repr(C)]
#[pin_data(PinnedDrop)]
pub(crate) struct Disk {
    pub(super) slot: Slot,
    pub(super) id: u32,
    opens: Handles,
    /// Null until there is one.
    gendisk: AtomicPtr<bindings::gendisk>,
    /// Requests that have ended with an error.
    pub(super) errors: AtomicU64,
    /// Requests that were left as they are, for ever.
    left: AtomicU32,
    /// The payload is asked about requests that take long.
    pub(super) asks: AtomicBool,
    /// The grace period after which no dispatch runs that had begun before the gate closed; only of a device
    /// whose dispatches may sleep.
    settling: AtomicU64,
    /// Of the hardware queues for polled I/O, in their order.
    lanes: KVec<Lane>,
    #[pin]
    tag_set: Opaque<bindings::blk_mq_tag_set>,
    #[pin]
    classes: Classes,
}

// SAFETY: The atomics may be shared; tag set and gendisk are the kernel's and have their own locks.
unsafe impl Send for Disk {}
// SAFETY: As above.
unsafe impl Sync for Disk {}

static MQ_OPS: super::Table<bindings::blk_mq_ops> = super::Table(mq_ops::<false>());
/// Of devices whose dispatches may sleep.
static SLEEPING_MQ_OPS: super::Table<bindings::blk_mq_ops> = super::Table(mq_ops::<true>());

const fn mq_ops<const SLEEPS: bool>() -> bindings::blk_mq_ops {
    bindings::blk_mq_ops {
        queue_rq: Some(dispatch::queue_rq::<SLEEPS>),
        queue_rqs: Some(dispatch::queue_rqs::<SLEEPS>),
        timeout: Some(dispatch::timed_out),
        map_queues: Some(queues::map),
        poll: Some(queues::poll),
        init_request: Some(dispatch::init_request),
        init_hctx: Some(init_hctx),
        ..pin_init::zeroed()
    }
}

static DISK_OPS: super::Table<bindings::block_device_operations> =
    super::Table(bindings::block_device_operations {
        // The owner makes every open handle a reference on Atom: `rmmod atom` says busy.
        owner: crate::THIS_MODULE.as_ptr(),
        open: Some(open),
        release: Some(release),
        ..pin_init::zeroed()
    });

/// Requests that a payload owes, by the stages of a drain in which they are waited for.
#[derive(Clone, Copy, Default)]
pub(crate) struct Owed {
    stages: [u32; stage::COUNT],
    /// Nanoseconds since the oldest was handed over, to a jiffy.
    pub(crate) oldest_ns: u64,
}

impl Owed {
    /// Of one stage.
    pub(crate) fn of(&self, stage: usize) -> u32 {
        self.stages.get(stage).copied().unwrap_or(0)
    }

    /// Of all stages.
    pub(crate) fn total(&self) -> u32 {
        self.stages.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Adds what another device owes.
    pub(crate) fn join(&mut self, other: &Self) {
        for (count, more) in self.stages.iter_mut().zip(other.stages) {
            *count = count.saturating_add(more);
        }
        self.oldest_ns = self.oldest_ns.max(other.oldest_ns);
    }

    fn add(&mut self, stage: usize) {
        if let Some(count) = self.stages.get_mut(stage) {
            *count = count.saturating_add(1);
        }
    }
}

impl Disk {
    /// Allocates tag set, queue and gendisk, with the gate open and the slot empty. Sleeps.
    pub(crate) fn create(id: u32, spec: &DeviceSpec) -> Result<Arc<Self>> {
        let (nr_maps, nr_hw_queues) = queues::wanted(spec);
        let (ops, blocking) = match spec.features & feature::SLEEPS {
            0 => (addr_of!(MQ_OPS.0), 0),
            // Dispatches in process context, and on the read side of the tag set's SRCU instead of RCU's.
            _ => (addr_of!(SLEEPING_MQ_OPS.0), bindings::BLK_MQ_F_BLOCKING),
        };
        let tag_set = bindings::blk_mq_tag_set {
            ops,
            driver_data: without_provenance_mut(id as usize),
            nr_maps,
            nr_hw_queues,
            queue_depth: match spec.queue_depth {
                0 => DEFAULT_QUEUE_DEPTH.into(),
                depth => depth.into(),
            },
            cmd_size: size_of::<Record>() as u32,
            numa_node: bindings::NUMA_NO_NODE,
            timeout: super::to_jiffies(patience_ns(spec)) as u32,
            // STACKING: a processor that goes offline must not wait for requests that are held, because
            // the task that takes it down holds a lock that loading a module needs
            // (`blk_mq_hctx_notify_offline`). The record of a request outlives it without a scheduler.
            flags: bindings::BLK_MQ_F_STACKING | bindings::BLK_MQ_F_NO_SCHED_BY_DEFAULT | blocking,
            ..pin_init::zeroed()
        };
        let disk = Arc::pin_init(
            try_pin_init!(Self {
                slot: Slot::empty(),
                id,
                opens: Handles::none(),
                gendisk: AtomicPtr::new(null_mut()),
                errors: AtomicU64::new(0),
                left: AtomicU32::new(0),
                asks: AtomicBool::new(spec.timeout_ms != 0),
                settling: AtomicU64::new(0),
                lanes: Lane::of(spec)?,
                tag_set <- Opaque::try_ffi_init(|slot: *mut bindings::blk_mq_tag_set| {
                    // SAFETY: The slot is valid for writes and pinned.
                    unsafe {
                        slot.write(tag_set);
                        kernel::error::to_result(bindings::blk_mq_alloc_tag_set(slot))
                    }
                }),
                classes <- Classes::new(),
            }? Error),
            GFP_KERNEL,
        )?;
        let name = CString::try_from_fmt(fmt!("atom{id}"))?;
        let this: *mut ffi::c_void = addr_of!(*disk).cast_mut().cast();
        // SAFETY: All bits zero are a value of the limits.
        let mut limits: bindings::queue_limits = unsafe { core::mem::zeroed() };
        set_limits(&mut limits, spec);
        // SAFETY: The tag set is allocated; the disk, which is pinned in its `Arc`, outlives the queue.
        let gendisk = kernel::error::from_err_ptr(unsafe {
            let class = kernel::static_lock_class!().as_ptr();
            bindings::__blk_mq_alloc_disk(disk.tag_set.get(), &mut limits, this, class)
        })?;
        disk.gendisk.store(gendisk, Ordering::Release);
        // SAFETY: The gendisk is not added yet, so this is its only user.
        unsafe {
            (*gendisk).fops = addr_of!(DISK_OPS.0);
            (*gendisk).private_data = this;
            let to = (*gendisk).disk_name.iter_mut();
            to.zip(name.to_bytes()).for_each(|(to, from)| *to = *from);
            disk.classes.of_device((*gendisk).queue, disk.srcu());
            bindings::set_capacity(gendisk, spec.capacity_sectors);
            bindings::set_disk_ro(gendisk, spec.features & feature::READ_ONLY != 0);
        }
        Ok(disk)
    }

    /// Makes the device visible. Sleeps, and does no I/O: its partitions are read when it is opened first.
    pub(crate) fn add(&self) -> Result {
        let gendisk = self.gendisk();
        let suppress = bindings::GD_SUPPRESS_PART_SCAN as ffi::c_ulong;
        let need = bindings::GD_NEED_PART_SCAN as ffi::c_ulong;
        // SAFETY: The gendisk is complete and is added once; its state is a set of bits that everybody changes
        // like this.
        unsafe {
            let state = addr_of_mut!((*gendisk).state);
            bindings::set_bit(suppress, state);
            bindings::set_bit(need, state);
            kernel::error::to_result(bindings::device_add_disk(null_mut(), gendisk, null_mut()))?;
            bindings::clear_bit(suppress, state);
            fence(Ordering::SeqCst);
            if state.read_volatile() & (1 << need) == 0 {
                // It was opened already, in vain: whoever looks for partitions is to open it again.
                bindings::set_bit(need, state);
                let device = addr_of_mut!((*(*gendisk).part0).bd_device.kobj);
                bindings::kobject_uevent(device, bindings::kobject_action_KOBJ_CHANGE);
            }
        }
        Ok(())
    }

    /// Takes the device away again, after [`Disk::add`] has succeeded and [`Handles::refuse`]. When
    /// it returns, every request has ended and the device's name is free. Sleeps.
    pub(crate) fn remove(&self) {
        // SAFETY: The gendisk was added; nobody has it open, so nothing calls back later.
        unsafe { bindings::del_gendisk(self.gendisk()) };
    }

    /// Changes a device whose gate is open to another spec, as the block layer and whoever has it open see
    /// it. Waits for its requests, for at most `wait_ns`: `ETIMEDOUT`, and nothing has changed; `EBUSY`
    /// where one will never end. Sleeps.
    pub(crate) fn change(&self, spec: &DeviceSpec, wait_ns: u64) -> Result {
        if self.left() != 0 {
            return Err(EBUSY);
        }
        let (gendisk, queue) = (self.gendisk(), self.queue());
        // SAFETY:
        // - Disk and queue exist as long as `self`.
        // - The locks are taken in the order of the block layer's own `queue_limits_commit_update_frozen`:
        //   limits, then freeze; `queue_limits_commit_update` gives the first one back, also on an error.
        // - In a frozen queue there are no requests.
        unsafe {
            bindings::mutex_lock(addr_of_mut!((*queue).limits_lock));
            let mut limits = (*queue).limits;
            set_limits(&mut limits, spec);
            let _no_io = super::NoIo::enter();
            bindings::blk_freeze_queue_start(queue);
            let jiffies = super::to_jiffies(wait_ns).saturating_add(1);
            let frozen = bindings::blk_mq_freeze_queue_wait_timeout(queue, jiffies) != 0;
            let result = if frozen {
                let error = bindings::queue_limits_commit_update(queue, &mut limits);
                if error == 0 {
                    let patience = super::to_jiffies(patience_ns(spec)) as u32;
                    bindings::blk_queue_rq_timeout(queue, patience);
                    self.asks.store(spec.timeout_ms != 0, Ordering::Relaxed);
                }
                kernel::error::to_result(error)
            } else {
                bindings::mutex_unlock(addr_of_mut!((*queue).limits_lock));
                Err(ETIMEDOUT)
            };
            bindings::blk_mq_unfreeze_queue_nomemrestore(queue);
            if result.is_ok() {
                bindings::set_capacity_and_notify(gendisk, spec.capacity_sectors);
                bindings::set_disk_ro(gendisk, spec.features & feature::READ_ONLY != 0);
            }
            result
        }
    }

    fn gendisk(&self) -> *mut bindings::gendisk {
        self.gendisk.load(Ordering::Acquire)
    }

    fn queue(&self) -> *mut bindings::request_queue {
        // SAFETY: Every `Disk` that `create` has returned has a gendisk, and a gendisk has a queue.
        unsafe { (*self.gendisk()).queue }
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Open handles.
    pub(crate) fn opens(&self) -> &Handles {
        &self.opens
    }

    /// What it has of the live payload. Changed while the gate is closed or the disk not added yet.
    pub(crate) fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Requests that have ended with an error.
    pub(crate) fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// Requests that were left as they are, for ever.
    pub(crate) fn left(&self) -> u32 {
        self.left.load(Ordering::Relaxed)
    }

    /// Hardware queues, those for polled I/O not counted, and requests in each.
    pub(crate) fn shape(&self) -> (u32, u32) {
        // SAFETY: Written in `create`, before anybody else had the disk. The first map is that of the ordinary queues.
        unsafe {
            let [ordinary, ..] = &(*self.tag_set.get()).map;
            (ordinary.nr_queues, (*self.tag_set.get()).queue_depth)
        }
    }

    /// Holds what is dispatched from here on; complete after [`super::grace_period`] and once it
    /// [`Disk::is_settled`]. Does not sleep.
    pub(crate) fn close_gate(&self) {
        let queue = self.queue();
        // SAFETY: The queue exists as long as `self`.
        unsafe { bindings::blk_mq_quiesce_queue_nowait(queue) };
        let Some(srcu) = self.srcu() else {
            return;
        };
        // SAFETY: As above. A spinlock of the kernel begins with its raw one. It is taken to have interrupts off:
        // the one that starts the grace period has to see that it is urgent, else it waits for a jiffy.
        unsafe {
            let lock = addr_of_mut!((*queue).queue_lock).cast();
            let flags = bindings::_raw_spin_lock_irqsave(lock);
            let settling = bindings::start_poll_synchronize_srcu(srcu);
            bindings::srcu_expedite_current(srcu);
            bindings::_raw_spin_unlock_irqrestore(lock, flags);
            self.settling.store(settling as u64, Ordering::Relaxed);
        }
    }

    /// True when no dispatch runs any more that had begun before the gate closed, also none that sleeps.
    /// [`super::grace_period`] came before. Does not sleep.
    pub(crate) fn is_settled(&self) -> bool {
        let Some(srcu) = self.srcu() else {
            return true;
        };
        let settling = self.settling.load(Ordering::Relaxed) as ffi::c_ulong;
        // SAFETY: The SRCU exists as long as the tag set.
        unsafe { bindings::poll_state_synchronize_srcu(srcu, settling) }
    }

    /// The SRCU of dispatches that may sleep; none where they may not.
    fn srcu(&self) -> Option<*mut bindings::srcu_struct> {
        // SAFETY: Written when the tag set was allocated, and not changed after.
        let srcu = unsafe { (*self.tag_set.get()).srcu };
        (!srcu.is_null()).then_some(srcu)
    }

    /// Dispatches what was held. Once for each [`Disk::close_gate`].
    pub(crate) fn open_gate(&self) {
        // SAFETY: As in `close_gate`.
        unsafe { bindings::blk_mq_unquiesce_queue(self.queue()) };
    }

    /// Calls `visit` for each request that a payload owns, until it returns false. Does not sleep.
    fn each_owned(&self, visit: &mut dyn FnMut(*mut bindings::request, &Request) -> bool) {
        let mut visit = visit;
        // SAFETY: The tag set is allocated; the callback takes its data as what is passed here.
        unsafe {
            bindings::blk_mq_tagset_busy_iter(
                self.tag_set.get(),
                Some(visit_request),
                addr_of_mut!(visit).cast(),
            )
        };
    }

    /// Counts the requests that a payload owns.
    pub(crate) fn owed(&self) -> Owed {
        let mut owed = Owed::default();
        self.each_owned(&mut |request, record| {
            owed.add(stage_of(record.op));
            owed.oldest_ns = owed.oldest_ns.max(self.age_ns(request));
            true
        });
        owed
    }

    /// True when a payload owns a request of that stage.
    pub(crate) fn owes(&self, stage: usize) -> bool {
        let mut found = false;
        self.each_owned(&mut |_, record| {
            // False ends the walk over one hardware queue only.
            found |= stage_of(record.op) == stage;
            !found
        });
        found
    }

    /// Names the requests that a payload owns. Returns how many were named.
    pub(crate) fn name_owed(&self, blockers: &mut [Blocker]) -> usize {
        let mut named = 0;
        self.each_owned(&mut |request, record| {
            let Some(blocker) = blockers.get_mut(named) else {
                return false;
            };
            *blocker = Blocker {
                sector: record.sector,
                age_ns: self.age_ns(request),
                bytes: record.bytes,
                device: self.id,
                tag: record.tag,
                hctx: record.hctx,
                op: record.op,
                flags: record.flags,
            };
            named += 1;
            true
        });
        named
    }

    /// Takes every request back that a payload owns, and does with it what the policy says. The gate is
    /// closed, so what is to be reissued waits in the block layer. Returns how many. Does not sleep.
    pub(crate) fn take_back(&self, at_deadline: u32) -> u32 {
        let mut taken: u32 = 0;
        self.each_owned(&mut |request, record| {
            if !record.ownership.revoke() {
                // Its end came first.
                return true;
            }
            taken = taken.saturating_add(1);
            // SAFETY: The request is the block layer's and nobody else's again; the walk holds it.
            unsafe {
                match (at_deadline, reissue(record.op)) {
                    (policy::REISSUE, Reissue::Replay) => {
                        bindings::blk_mq_requeue_request(request, false);
                    }
                    (policy::REISSUE, Reissue::Done) => {
                        record.ownership.free();
                        bindings::blk_mq_end_request(request, status::OK as u8);
                    }
                    (policy::LEAVE, _) => {
                        self.left.fetch_add(1, Ordering::Relaxed);
                    }
                    _ => {
                        self.errors.fetch_add(1, Ordering::Relaxed);
                        record.ownership.free();
                        bindings::blk_mq_end_request(request, status::TIMEOUT as u8);
                    }
                }
            }
            true
        });
        if taken != 0 {
            // SAFETY: The queue exists as long as `self`.
            unsafe { bindings::blk_mq_kick_requeue_list(self.queue()) };
        }
        taken
    }

    /// Gives the requests that a payload still owns as much more time as the gate was closed.
    pub(crate) fn refresh_timers(&self, paused_ns: u64) {
        let jiffies = super::to_jiffies(paused_ns).saturating_add(1);
        self.each_owned(&mut |request, _| {
            // SAFETY: The walk holds the request; the block layer writes the field the same way, and a
            // timeout that reads the old value only looks again.
            unsafe {
                let deadline = addr_of_mut!((*request).deadline);
                deadline.write_volatile(deadline.read_volatile().wrapping_add(jiffies));
                let claimed = addr_of_mut!((*record_of(request).cast::<Record>()).claimed);
                claimed.write_volatile(claimed.read_volatile().wrapping_add(jiffies));
            }
            true
        });
    }

    /// Nanoseconds since the request was handed to a payload, to a jiffy. Time in which the gate was closed
    /// is not counted.
    fn age_ns(&self, request: *mut bindings::request) -> u64 {
        // SAFETY: The walk holds the request; the fields are numbers that were written before it was claimed.
        unsafe {
            let started = if self.asks.load(Ordering::Relaxed) {
                addr_of!((*record_of(request).cast::<Record>()).claimed).read_volatile()
            } else {
                let deadline = addr_of!((*request).deadline).read_volatile();
                deadline.wrapping_sub((*request).timeout as ffi::c_ulong)
            };
            let age = jiffies().wrapping_sub(started);
            // What was refreshed by more than its age is new.
            match ffi::c_long::try_from(age) {
                Ok(_) => bindings::jiffies64_to_nsecs(age as u64),
                Err(_) => 0,
            }
        }
    }
}

/// For how long a request may be owed before the block layer asks [`timed_out`].
fn patience_ns(spec: &DeviceSpec) -> u64 {
    match spec.timeout_ms {
        // Nobody is asked; the age of a request is counted by it, see `age_ns`.
        0 => 3_600_000_000_000,
        ms => u64::from(ms).saturating_mul(1_000_000),
    }
}

/// Context: process, while the hardware queues of a new device are made.
///
/// # Safety
///
/// For the block layer only, which passes objects of a `Disk`.
unsafe extern "C" fn init_hctx(
    hctx: *mut bindings::blk_mq_hw_ctx,
    _data: *mut ffi::c_void,
    index: ffi::c_uint,
) -> i32 {
    // SAFETY: The queue's data is the `Disk`, which outlives the queue and so its lanes and the locks of this class.
    unsafe {
        let disk = &*(*(*hctx).queue).queuedata.cast::<Disk>();
        Lane::join(&disk.lanes, &mut *hctx, index);
        disk.classes.of_queue(hctx);
    }
    0
}

/// Returns false when the walk has seen enough.
///
/// # Safety
///
/// For [`Disk::each_owned`] only: `data` is its closure, and the block layer holds the request.
unsafe extern "C" fn visit_request(
    request: *mut bindings::request,
    data: *mut ffi::c_void,
) -> bool {
    // SAFETY: By the function's contract. What is read of the record was written before the request was
    // claimed.
    unsafe {
        let visit = &mut *data.cast::<&mut dyn FnMut(*mut bindings::request, &Request) -> bool>();
        let record = &*record_of(request);
        record.ownership.read().1 != Owner::Payload || visit(request, record)
    }
}

#[pinned_drop]
impl PinnedDrop for Disk {
    fn drop(self: Pin<&mut Self>) {
        let gendisk = self.gendisk();
        // SAFETY: The gendisk, if there is one, was removed or never added; the tag set was allocated
        // when `self` came to be, and nothing but the gendisk's queue uses it.
        unsafe {
            if !gendisk.is_null() {
                bindings::put_disk(gendisk);
            }
            if let Some(srcu) = self.srcu() {
                // For what `close_gate` has begun; and again for what the end of that may begin.
                bindings::srcu_barrier(srcu);
                bindings::srcu_barrier(srcu);
            }
            bindings::blk_mq_free_tag_set(self.tag_set.get());
        }
    }
}

/// Sets what a spec says, and leaves the rest, which may be the user's.
fn set_limits(limits: &mut bindings::queue_limits, spec: &DeviceSpec) {
    let discards = spec.discard_granularity_bytes != 0;
    limits.features = (limits.features & !feature::KERNEL) | (spec.features & feature::KERNEL);
    limits.logical_block_size = spec.logical_block_bytes;
    limits.physical_block_size = spec.physical_block_bytes;
    limits.max_hw_sectors = spec.max_sectors;
    limits.max_segments = spec.max_segments as u16;
    limits.max_hw_discard_sectors = if discards { spec.max_discard_sectors } else { 0 };
    limits.discard_granularity = spec.discard_granularity_bytes;
    limits.max_write_zeroes_sectors = spec.max_write_zeroes_sectors;
    limits.io_min = spec.io_min_bytes;
    limits.io_opt = spec.io_opt_bytes;
    limits.chunk_sectors = spec.chunk_sectors;
    limits.dma_alignment = spec.dma_alignment_mask;
}

/// Context: process, under the disk's open mutex. Never waits for the payload.
///
/// # Safety
///
/// For the block layer only, which passes objects of a `Disk`.
unsafe extern "C" fn open(gendisk: *mut bindings::gendisk, _mode: bindings::blk_mode_t) -> i32 {
    // SAFETY: The private data is the `Disk`, which outlives the gendisk's last user.
    let disk = unsafe { &*(*gendisk).private_data.cast::<Disk>() };
    match disk.opens.open() {
        true => 0,
        false => ENXIO.to_errno(),
    }
}

/// Context: as for [`open`].
///
/// # Safety
///
/// For the block layer only, which passes objects of a `Disk`.
unsafe extern "C" fn release(gendisk: *mut bindings::gendisk) {
    // SAFETY: As in `open`.
    let disk = unsafe { &*(*gendisk).private_data.cast::<Disk>() };
    disk.opens.release();
}
