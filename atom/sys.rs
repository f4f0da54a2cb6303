// SPDX-License-Identifier: GPL-2.0

//! The layer on the kernel, and the calls from and into a payload: all `unsafe` code of Atom.
//!
//! What is here is thin: each item turns one thing of the kernel, or one thing of the boundary, into
//! something that the other files use without `unsafe`. Three arguments carry most of the proofs:
//!
//! - **Gate.** A payload's `queue_rq` is only called from [`queue_rq`], which the block layer calls on
//!   the RCU read side while the queue is not quiesced. After [`Disk::close_gate`] on every device and
//!   one [`grace_period`] no such call runs or begins until [`Disk::open_gate`]. A slot changes only in
//!   between, or before the disk is added.
//! - **Pin.** Operations of a payload are methods of [`Pinned`], which holds a reference on the
//!   payload's module, so the code and the table stay. The slot is filled only by whom `CONTROL`'s
//!   owner keeps pinned.
//! - **Record.** The per-request record lies behind each `struct request` of a tag set that was
//!   allocated with room for it ([`Disk::create`]). It exists while the request is in flight; without an
//!   I/O scheduler, which Atom's devices do not have by default, as long as the tag set.

use core::mem::{offset_of, size_of};
use core::ptr::{addr_of, addr_of_mut, null_mut};
use core::sync::atomic::{fence, AtomicBool, AtomicI32, AtomicPtr, AtomicU64, Ordering};

use kernel::prelude::*;
use kernel::str::CString;
use kernel::sync::Arc;
use kernel::transmute::{AsBytes, FromBytes};
use kernel::types::Opaque;
use kernel::uaccess::UserPtr;
use kernel::{bindings, ffi};

use crate::abi::control::Blocker;
use crate::abi::device::{feature, DeviceSpec, DEFAULT_QUEUE_DEPTH};
use crate::abi::request::{flags, status, Owner, Ownership, Request};
use crate::abi::table::{AdoptArgs, CommandArgs, FreezeArgs, PayloadTable, PrepareArgs};
use crate::abi::text::Text;
use crate::abi::version::{reason, Offer, Refusal, SchemaRange};
use crate::control::ControlState;
use crate::state::State;
use crate::{calls, control};

kernel::sync::global_lock! {
    /// Held over a whole handoff or command. Outermost.
    // SAFETY: `init` initialises it before anything else of Atom runs.
    pub(crate) unsafe(uninit) static CONTROL: Mutex<ControlState> = ControlState::new();
}

kernel::sync::global_lock! {
    /// Held for table look-ups. Innermost.
    // SAFETY: `init` initialises it before anything else of Atom runs.
    pub(crate) unsafe(uninit) static STATE: Mutex<State> = State::new();
}

/// A table of C function pointers that the kernel only reads.
#[repr(transparent)]
struct Table<T>(T);

// SAFETY: The value is never written after it was initialised at compile time.
unsafe impl<T> Sync for Table<T> {}

/// Initialises what the module's data cannot. Called once, first.
pub(crate) fn init() {
    // SAFETY: The module's init runs once and before every other user.
    unsafe {
        CONTROL.init();
        STATE.init();
        bindings::init_completion(DRAIN.ended.get());
    }
}

/// Waits for what may still run in Atom's code after everything was torn down. Sleeps.
pub(crate) fn exit() {
    // SAFETY: Waits for the callbacks of `page_free`, whose code is about to go.
    unsafe { bindings::rcu_barrier() };
}

/// Nanoseconds of the monotonic clock. Any context.
pub(crate) fn now_ns() -> u64 {
    // SAFETY: Has no precondition.
    u64::try_from(unsafe { bindings::ktime_get() }).unwrap_or(0)
}

/// Waits until every dispatch that had begun has ended (`synchronize_rcu_expedited`). Sleeps.
pub(crate) fn grace_period() {
    // SAFETY: Process context by the contract of the callers.
    unsafe { bindings::synchronize_rcu_expedited() };
}

/// True when the calling task may control Atom.
pub(crate) fn may_control() -> bool {
    // SAFETY: Has no precondition in process context.
    unsafe { bindings::capable(bindings::CAP_SYS_ADMIN as ffi::c_int) }
}

/// While it exists, what the calling task allocates does not wait for I/O: I/O may be what is held.
pub(crate) struct NoIo {
    before: u32,
}

impl NoIo {
    /// Begins the scope; scopes nest (`memalloc_noio_save` of `linux/sched/mm.h`).
    pub(crate) fn enter() -> Self {
        // SAFETY: A task's flags are written by that task only, and this is the current one.
        let flags = unsafe { &mut (*bindings::get_current()).flags };
        let before = *flags & bindings::PF_MEMALLOC_NOIO;
        *flags |= bindings::PF_MEMALLOC_NOIO;
        Self { before }
    }
}

impl Drop for NoIo {
    fn drop(&mut self) {
        // SAFETY: As in `enter`; the value is a local of one task and never sent to another.
        let flags = unsafe { &mut (*bindings::get_current()).flags };
        *flags = (*flags & !bindings::PF_MEMALLOC_NOIO) | self.before;
    }
}

// --- Drain ---------------------------------------------------------------------------------------

struct Drain {
    /// Somebody waits: whoever ends a request says so.
    awaited: AtomicBool,
    ended: Opaque<bindings::completion>,
}

// SAFETY: The completion has its own lock.
unsafe impl Sync for Drain {}

static DRAIN: Drain = Drain { awaited: AtomicBool::new(false), ended: Opaque::uninit() };

/// The one task that waits for requests to end; `CONTROL` is held.
pub(crate) struct DrainWaiter;

impl DrainWaiter {
    /// From here on each request that ends wakes the waiter.
    pub(crate) fn new() -> Self {
        // What an earlier drain did not consume would only make this one look more often.
        // SAFETY: Nobody waits on the completion, and `done` is a number.
        unsafe { addr_of_mut!((*DRAIN.ended.get()).done).write_volatile(0) };
        // Pairs with the barrier in `Ownership::end`: either the ending side sees that somebody
        // waits, or the waiter sees that the request has ended.
        DRAIN.awaited.store(true, Ordering::SeqCst);
        Self
    }

    /// Waits for the next request to end. False when `until` has passed or the task is being killed.
    pub(crate) fn wait_until(&mut self, until: u64) -> bool {
        let left = until.saturating_sub(now_ns());
        if left == 0 {
            return false;
        }
        // SAFETY: Initialised in `init`; process context. One jiffy more, so that it never rounds to 0.
        let remains = unsafe {
            bindings::wait_for_completion_killable_timeout(
                DRAIN.ended.get(),
                bindings::nsecs_to_jiffies(left).saturating_add(1),
            )
        };
        remains > 0
    }
}

impl Drop for DrainWaiter {
    fn drop(&mut self) {
        DRAIN.awaited.store(false, Ordering::SeqCst);
    }
}

// --- Payloads ------------------------------------------------------------------------------------

type QueueRq = unsafe extern "C" fn(u64, *mut Request) -> u32;

/// What a slot is filled with.
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    entry: *mut ffi::c_void,
    epoch: u64,
}

/// A registered payload. Its table is valid until it unregisters, and the list of payloads holds it
/// until then, under `STATE`.
#[derive(Clone, Copy)]
pub(crate) struct Payload {
    table: *const PayloadTable,
}

// SAFETY: The table is only read, and does not change while it is registered.
unsafe impl Send for Payload {}

impl Payload {
    fn table(&self) -> &PayloadTable {
        // SAFETY: Whoever has a `Payload` holds `STATE` with the payload in the list, or has pinned
        // its module, or is in `atom_payload_register`; the table is valid in each of these.
        unsafe { &*self.table }
    }

    pub(crate) fn offer(&self) -> Offer {
        self.table().offer()
    }

    pub(crate) fn schema(&self) -> SchemaRange {
        self.table().schema
    }

    pub(crate) fn version(&self) -> Text {
        self.table().version
    }

    /// The name under which `rmmod` knows the payload.
    pub(crate) fn module_name(&self) -> Text {
        let module = self.table().module.cast::<bindings::module>();
        // SAFETY: `is_complete` has seen that there is a module; its name is an array of
        // plain characters that does not change.
        let name = unsafe { &(*module).name };
        let mut text = [0u8; crate::abi::text::TEXT_BYTES];
        text.iter_mut().zip(name.iter()).for_each(|(to, from)| *to = *from);
        Text::from_bytes(text)
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.table().is_complete()
    }

    /// What makes it the one that serves, in `epoch`.
    pub(crate) fn slot(&self, epoch: u64) -> Slot {
        let entry = self.table().queue_rq.map_or(null_mut(), |entry| entry as *mut ffi::c_void);
        Slot { entry, epoch }
    }

    /// Takes a reference on its module; none when the module is being unloaded, or its init has not
    /// ended and could still fail. `STATE` is held.
    pub(crate) fn pin(&self) -> Option<Pinned> {
        let module = self.table().module.cast::<bindings::module>();
        // SAFETY: The payload is in the list, so its module has not been freed.
        let pinned = unsafe {
            (*module).state == bindings::module_state_MODULE_STATE_LIVE
                && bindings::try_module_get(module)
        };
        pinned.then_some(Pinned { payload: *self })
    }
}

/// A payload whose module cannot be unloaded.
pub(crate) struct Pinned {
    payload: Payload,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: Gives back the reference that `Payload::pin` took.
        unsafe { bindings::module_put(self.payload.table().module.cast()) };
    }
}

/// Calls one operation of a pinned payload; a table without it was refused at registration.
macro_rules! operation {
    ($pinned:expr, $name:ident($($argument:expr),*), or $absent:expr) => {
        match $pinned.payload.table().$name {
            // SAFETY: The module is pinned, the arguments are valid for the call, and `CONTROL` is
            // held in process context, as the table's contract says.
            Some(operation) => unsafe { operation($($argument),*) },
            None => $absent,
        }
    };
}

/// The errno of a payload that the negotiation refused.
pub(crate) const REFUSED: i32 = -(bindings::EPROTO as i32);
const NO_OPERATION: i32 = -(bindings::ENOSYS as i32);

impl Pinned {
    pub(crate) fn payload(&self) -> &Payload {
        &self.payload
    }

    pub(crate) fn prepare(&self, args: &PrepareArgs) -> i32 {
        operation!(self, prepare(args), or NO_OPERATION)
    }

    pub(crate) fn unprepare(&self) -> i32 {
        operation!(self, unprepare(), or NO_OPERATION)
    }

    pub(crate) fn image_bytes(&self, schema: u32) -> u64 {
        operation!(self, image_bytes(schema), or 0)
    }

    /// Lets the payload write its image into `buffer`; on success returns the bytes it has used.
    pub(crate) fn freeze(&self, schema: u32, buffer: &mut [u8]) -> Result<usize, i32> {
        let mut args = FreezeArgs {
            size: size_of::<FreezeArgs>() as u32,
            schema,
            buffer: buffer.as_mut_ptr(),
            capacity: buffer.len() as u64,
            used: 0,
        };
        match operation!(self, freeze(&mut args), or NO_OPERATION) {
            0 => Ok(usize::try_from(args.used).unwrap_or(usize::MAX).min(buffer.len())),
            error => Err(error),
        }
    }

    pub(crate) fn thaw(&self) -> i32 {
        operation!(self, thaw(), or NO_OPERATION)
    }

    /// Lets the payload take over; without an image it begins empty.
    pub(crate) fn adopt(&self, epoch: u64, devices: u32, image: Option<&[u8]>) -> i32 {
        let args = AdoptArgs {
            size: size_of::<AdoptArgs>() as u32,
            devices,
            epoch,
            image: image.map_or(core::ptr::null(), <[u8]>::as_ptr),
            image_bytes: image.map_or(0, <[u8]>::len) as u64,
        };
        operation!(self, adopt(&args), or NO_OPERATION)
    }

    pub(crate) fn abandon(&self) -> i32 {
        operation!(self, abandon(), or NO_OPERATION)
    }

    /// Forwards a command; returns the payload's result and the length of its answer.
    pub(crate) fn command(&self, input: &[u8], output: &mut [u8]) -> (i32, usize) {
        let mut args = CommandArgs {
            size: size_of::<CommandArgs>() as u32,
            reserved: 0,
            input: input.as_ptr(),
            input_bytes: input.len() as u64,
            output: output.as_mut_ptr(),
            output_capacity: output.len() as u64,
            output_bytes: 0,
        };
        let result = operation!(self, command(&mut args), or NO_OPERATION);
        let used = usize::try_from(args.output_bytes).unwrap_or(usize::MAX);
        (result, used.min(output.len()))
    }
}

// --- Devices -------------------------------------------------------------------------------------

/// A block device: its tag set, its gendisk, its slot.
///
/// The hot fields come first: a dispatch reads one cache line of it and writes none.
#[repr(C)]
#[pin_data(PinnedDrop)]
pub(crate) struct Disk {
    /// `queue_rq` of the payload that serves; null: what is dispatched fails.
    entry: AtomicPtr<ffi::c_void>,
    /// What the payload knows the device by.
    cookie: AtomicU64,
    /// The generation that serves.
    epoch: AtomicU64,
    id: u32,
    /// Handles; negative once the device is going and opens are refused.
    opens: AtomicI32,
    /// Null until there is one.
    gendisk: AtomicPtr<bindings::gendisk>,
    #[pin]
    tag_set: Opaque<bindings::blk_mq_tag_set>,
}

// SAFETY: The atomics may be shared; tag set and gendisk are the kernel's and have their own locks.
unsafe impl Send for Disk {}
// SAFETY: As above.
unsafe impl Sync for Disk {}

static MQ_OPS: Table<bindings::blk_mq_ops> = Table(bindings::blk_mq_ops {
    queue_rq: Some(queue_rq),
    timeout: Some(timeout),
    ..pin_init::zeroed()
});

static DISK_OPS: Table<bindings::block_device_operations> =
    Table(bindings::block_device_operations {
        // The owner makes every open handle a reference on Atom: `rmmod atom` says busy.
        owner: crate::THIS_MODULE.as_ptr(),
        open: Some(open),
        release: Some(release),
        ..pin_init::zeroed()
    });

impl Disk {
    /// Allocates tag set, queue and gendisk, with the gate open and the slot empty. Sleeps.
    pub(crate) fn create(id: u32, spec: &DeviceSpec) -> Result<Arc<Self>> {
        let tag_set = bindings::blk_mq_tag_set {
            ops: addr_of!(MQ_OPS.0),
            nr_hw_queues: match spec.hw_queues {
                // SAFETY: The kernel sets the number once, when it boots.
                0 => unsafe { bindings::nr_cpu_ids },
                queues => queues.into(),
            },
            queue_depth: match spec.queue_depth {
                0 => DEFAULT_QUEUE_DEPTH.into(),
                depth => depth.into(),
            },
            cmd_size: size_of::<Request>() as u32,
            numa_node: bindings::NUMA_NO_NODE,
            // STACKING: a processor that goes offline must not wait for requests that are held, because
            // the task that takes it down holds a lock that loading a module needs
            // (`blk_mq_hctx_notify_offline`). The record of a request outlives it without a scheduler.
            flags: bindings::BLK_MQ_F_STACKING | bindings::BLK_MQ_F_NO_SCHED_BY_DEFAULT,
            ..pin_init::zeroed()
        };
        let disk = Arc::pin_init(
            try_pin_init!(Self {
                entry: AtomicPtr::new(null_mut()),
                cookie: AtomicU64::new(0),
                epoch: AtomicU64::new(0),
                id,
                opens: AtomicI32::new(0),
                gendisk: AtomicPtr::new(null_mut()),
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
        let name = CString::try_from_fmt(fmt!("atom{id}"))?;
        let this: *mut ffi::c_void = addr_of!(*disk).cast_mut().cast();
        // SAFETY: The tag set is allocated; the disk, which is pinned in its `Arc`, outlives the queue.
        let gendisk = kernel::error::from_err_ptr(unsafe {
            let class = kernel::static_lock_class!().as_ptr();
            bindings::__blk_mq_alloc_disk(disk.tag_set.get(), &mut limits(spec), this, class)
        })?;
        disk.gendisk.store(gendisk, Ordering::Release);
        // SAFETY: The gendisk is not added yet, so this is its only user.
        unsafe {
            (*gendisk).fops = addr_of!(DISK_OPS.0);
            (*gendisk).private_data = this;
            let to = (*gendisk).disk_name.iter_mut();
            to.zip(name.to_bytes()).for_each(|(to, from)| *to = *from);
            bindings::set_capacity(gendisk, spec.capacity_sectors);
            bindings::set_disk_ro(gendisk, spec.features & feature::READ_ONLY != 0);
        }
        Ok(disk)
    }

    /// Makes the device visible; partitions are read from it here. Sleeps.
    pub(crate) fn add(&self) -> Result {
        // SAFETY: The gendisk is complete and is added once.
        kernel::error::to_result(unsafe {
            bindings::device_add_disk(null_mut(), self.gendisk(), null_mut())
        })
    }

    /// Takes the device away again, after [`Disk::add`] has succeeded and [`Disk::refuse_opens`]. When
    /// it returns, every request has ended and the device's name is free. Sleeps.
    pub(crate) fn remove(&self) {
        // SAFETY: The gendisk was added; nobody has it open, so nothing calls back later.
        unsafe { bindings::del_gendisk(self.gendisk()) };
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
    pub(crate) fn opens(&self) -> u32 {
        u32::try_from(self.opens.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Hardware queues and requests in each.
    pub(crate) fn shape(&self) -> (u32, u32) {
        // SAFETY: Written in `allocate`, before anybody else had the disk.
        unsafe { ((*self.tag_set.get()).nr_hw_queues, (*self.tag_set.get()).queue_depth) }
    }

    /// Holds what is dispatched from here on; complete after [`grace_period`]. Does not sleep.
    pub(crate) fn close_gate(&self) {
        // SAFETY: The queue exists as long as `self`.
        unsafe { bindings::blk_mq_quiesce_queue_nowait(self.queue()) };
    }

    /// Dispatches what was held. Once for each [`Disk::close_gate`].
    pub(crate) fn open_gate(&self) {
        // SAFETY: As in `close_gate`.
        unsafe { bindings::blk_mq_unquiesce_queue(self.queue()) };
    }

    /// Puts a payload behind the device. The gate is closed or the disk not added yet.
    pub(crate) fn fill_slot(&self, slot: Slot, cookie: u64) {
        self.cookie.store(cookie, Ordering::Relaxed);
        self.epoch.store(slot.epoch, Ordering::Relaxed);
        self.entry.store(slot.entry, Ordering::Release);
    }

    /// Puts nobody behind the device. The gate is closed.
    pub(crate) fn empty_slot(&self) {
        self.entry.store(null_mut(), Ordering::Release);
    }

    /// Refuses opens from here on; false, and nothing changes, while the device is open.
    pub(crate) fn refuse_opens(&self) -> bool {
        self.opens.compare_exchange(0, i32::MIN, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    /// Counts the requests that a payload owns, from `count` up to `most`, and names the first of them
    /// in `blockers`. Does not sleep.
    pub(crate) fn owed(&self, count: u32, most: u32, blockers: &mut [Blocker]) -> u32 {
        let mut visit = Visit { disk: self, now_ns: now_ns(), count, most, blockers };
        // SAFETY: The tag set is allocated; the callback takes its data as what is passed here.
        unsafe {
            bindings::blk_mq_tagset_busy_iter(
                self.tag_set.get(),
                Some(visit_request),
                addr_of_mut!(visit).cast(),
            )
        };
        visit.count
    }
}

/// What a walk over the started requests of a disk knows.
struct Visit<'a> {
    disk: &'a Disk,
    now_ns: u64,
    count: u32,
    most: u32,
    blockers: &'a mut [Blocker],
}

/// Returns false when the walk has seen enough.
///
/// # Safety
///
/// For [`Disk::owed`] only: `data` is its `Visit`, and the block layer holds the request.
unsafe extern "C" fn visit_request(
    request: *mut bindings::request,
    data: *mut ffi::c_void,
) -> bool {
    let record = record_of(request);
    // SAFETY: By the function's contract. What is read was written before the request was claimed.
    unsafe {
        let visit = &mut *data.cast::<Visit<'_>>();
        if (*record).ownership.read().1 != Owner::Payload {
            return true;
        }
        if let Some(blocker) = visit.blockers.get_mut(visit.count as usize) {
            *blocker = Blocker {
                sector: (*record).sector,
                age_ns: visit.now_ns.saturating_sub((*request).start_time_ns),
                bytes: (*record).bytes,
                device: visit.disk.id,
                tag: (*record).tag,
                hctx: (*record).hctx,
                op: (*record).op,
                flags: (*record).flags,
            };
        }
        visit.count = visit.count.saturating_add(1);
        visit.count < visit.most
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
            bindings::blk_mq_free_tag_set(self.tag_set.get());
        }
    }
}

fn limits(spec: &DeviceSpec) -> bindings::queue_limits {
    let discards = spec.discard_granularity_bytes != 0;
    bindings::queue_limits {
        features: spec.features & feature::KERNEL,
        logical_block_size: spec.logical_block_bytes,
        physical_block_size: spec.physical_block_bytes,
        max_hw_sectors: spec.max_sectors,
        max_segments: spec.max_segments as u16,
        max_hw_discard_sectors: if discards { spec.max_discard_sectors } else { 0 },
        discard_granularity: spec.discard_granularity_bytes,
        max_write_zeroes_sectors: spec.max_write_zeroes_sectors,
        ..pin_init::zeroed()
    }
}

/// The record of a request of one of our tag sets.
#[inline]
fn record_of(request: *mut bindings::request) -> *mut Request {
    request.wrapping_add(1).cast()
}

/// Context: RCU read side of a dispatch, must not sleep.
///
/// # Safety
///
/// For the block layer only, which passes objects of a `Disk`.
unsafe extern "C" fn queue_rq(
    hctx: *mut bindings::blk_mq_hw_ctx,
    data: *const bindings::blk_mq_queue_data,
) -> u8 {
    // SAFETY: The block layer passes a queue of a `Disk` and a request of its tag set, which is ours
    // until it is ended; the queue data is the `Disk` and outlives the queue.
    unsafe {
        // Whatever the gate's opening made visible is read after it; free on x86.
        fence(Ordering::Acquire);
        let request = (*data).rq;
        let disk = &*(*(*hctx).queue).queuedata.cast::<Disk>();
        let entry = disk.entry.load(Ordering::Acquire);
        if entry.is_null() {
            return status::IO as u8;
        }
        let code = ((*request).cmd_flags & ((1 << bindings::REQ_OP_BITS) - 1)) as u8;
        if !calls::is_known_op(code) {
            return status::NOT_SUPPORTED as u8;
        }
        let epoch = disk.epoch.load(Ordering::Relaxed);
        let record = record_of(request);
        (*record).rq = request.cast();
        (*record).sector = (*request).__sector;
        (*record).bytes = (*request).__data_len;
        (*record).op = code;
        (*record).flags = to_flags((*request).cmd_flags);
        (*record).hctx = (*hctx).queue_num as u16;
        (*record).tag = (*request).tag as u32;
        (*record).device = disk.id;
        bindings::blk_mq_start_request(request);
        (*record).ownership.claim(epoch);
        // The gate argument: a filled slot's entry can be called here.
        let entry = core::mem::transmute::<*mut ffi::c_void, QueueRq>(entry);
        match entry(disk.cookie.load(Ordering::Relaxed), record) {
            status::OK => status::OK as u8,
            refused => match (*record).ownership.give_back(epoch) {
                Ok(()) => status::to_kernel(refused),
                // It has ended the request all the same; the block layer must not end it again.
                Err(_) => status::OK as u8,
            },
        }
    }
}

fn to_flags(cmd_flags: u32) -> u8 {
    let ours = |bit: u32, flag: u8| if cmd_flags & (1 << bit) != 0 { flag } else { 0 };
    ours(bindings::req_flag_bits___REQ_FUA, flags::FUA)
        | ours(bindings::req_flag_bits___REQ_NOUNMAP, flags::NOUNMAP)
}

/// A payload has its own timers; the block layer's only starts again. Context: the timeout work.
///
/// # Safety
///
/// For the block layer only, which passes objects of a `Disk`.
unsafe extern "C" fn timeout(_request: *mut bindings::request) -> bindings::blk_eh_timer_return {
    bindings::blk_eh_timer_return_BLK_EH_RESET_TIMER
}

/// Context: process, under the disk's open mutex. Never waits for the payload.
///
/// # Safety
///
/// For the block layer only, which passes objects of a `Disk`.
unsafe extern "C" fn open(gendisk: *mut bindings::gendisk, _mode: bindings::blk_mode_t) -> i32 {
    // SAFETY: The private data is the `Disk`, which outlives the gendisk's last user.
    let disk = unsafe { &*(*gendisk).private_data.cast::<Disk>() };
    let opened = disk.opens.fetch_update(Ordering::SeqCst, Ordering::Relaxed, |opens| {
        if opens < 0 {
            None
        } else {
            opens.checked_add(1)
        }
    });
    match opened {
        Ok(_) => 0,
        Err(_) => ENXIO.to_errno(),
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
    disk.opens.fetch_sub(1, Ordering::SeqCst);
}

// --- Page stores ---------------------------------------------------------------------------------

/// An xarray of pages, in Atom's memory.
#[pin_data(PinnedDrop)]
pub(crate) struct PageStore {
    #[pin]
    pages: Opaque<bindings::xarray>,
}

// SAFETY: The xarray has its own lock.
unsafe impl Send for PageStore {}

impl PageStore {
    pub(crate) fn new() -> Result<Pin<KBox<Self>>> {
        KBox::pin_init(
            pin_init!(Self {
                pages <- Opaque::ffi_init(|slot: *mut bindings::xarray| {
                    // SAFETY: The slot is valid for writes and pinned.
                    unsafe { bindings::xa_init_flags(slot, 0) }
                }),
            }),
            GFP_KERNEL,
        )
    }

    /// Address of the `struct xarray`, valid as long as the store.
    pub(crate) fn address(&self) -> usize {
        self.pages.get() as usize
    }
}

#[pinned_drop]
impl PinnedDrop for PageStore {
    fn drop(self: Pin<&mut Self>) {
        let pages = self.pages.get();
        let mut index = 0;
        // SAFETY: Nobody uses the store any more; each entry is a page whose reference it owns.
        unsafe {
            let mut page = bindings::xa_find(pages, &mut index, usize::MAX, bindings::XA_PRESENT);
            while !page.is_null() {
                bindings::__free_pages(page.cast(), 0);
                bindings::__cond_resched();
                page = bindings::xa_find_after(pages, &mut index, usize::MAX, bindings::XA_PRESENT);
            }
            bindings::xa_destroy(pages);
        }
    }
}

/// Context: RCU callback, softirq.
///
/// # Safety
///
/// For RCU only, with a head that `atom_page_free` has queued.
unsafe extern "C" fn free_page(head: *mut bindings::callback_head) {
    let offset = offset_of!(bindings::page, __bindgen_anon_1);
    let page = head.wrapping_byte_sub(offset).cast();
    // SAFETY: `atom_page_free` passed the head within a page that is ours to free.
    unsafe { bindings::__free_pages(page, 0) };
}

// --- Control device ------------------------------------------------------------------------------

/// `/dev/atom-control`.
#[pin_data(PinnedDrop)]
pub(crate) struct ControlDevice {
    #[pin]
    misc: Opaque<bindings::miscdevice>,
}

// SAFETY: The misc device is the kernel's and has its own lock.
unsafe impl Send for ControlDevice {}
// SAFETY: As above.
unsafe impl Sync for ControlDevice {}

static CONTROL_OPS: Table<bindings::file_operations> = Table(bindings::file_operations {
    // Set here because the kernel crate's misc device leaves it out: an open file must pin the code.
    owner: crate::THIS_MODULE.as_ptr(),
    unlocked_ioctl: Some(ioctl),
    ..pin_init::zeroed()
});

impl ControlDevice {
    pub(crate) fn register() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            misc <- Opaque::try_ffi_init(|slot: *mut bindings::miscdevice| {
                // SAFETY: The slot is valid for writes and pinned; name and table are static.
                unsafe {
                    slot.write(pin_init::zeroed());
                    (*slot).minor = bindings::MISC_DYNAMIC_MINOR as ffi::c_int;
                    (*slot).name = c"atom-control".as_char_ptr();
                    (*slot).fops = addr_of!(CONTROL_OPS.0);
                    (*slot).mode = 0o600;
                    kernel::error::to_result(bindings::misc_register(slot))
                }
            }),
        })
    }
}

#[pinned_drop]
impl PinnedDrop for ControlDevice {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: It was registered when `self` came to be.
        unsafe { bindings::misc_deregister(self.misc.get()) };
    }
}

/// Context: process.
///
/// # Safety
///
/// For the file system layer only.
unsafe extern "C" fn ioctl(
    _file: *mut bindings::file,
    command: ffi::c_uint,
    argument: ffi::c_ulong,
) -> ffi::c_long {
    match control::dispatch(command, UserPtr::from_addr(argument)) {
        Ok(()) => 0,
        Err(error) => error.to_errno() as ffi::c_long,
    }
}

/// The structures of the control interface are plain numbers: any bits are a value.
macro_rules! plain {
    ($($name:ident),+) => {$(
        // SAFETY: `repr(C)` integers and byte arrays, for which any bits are a value.
        unsafe impl FromBytes for crate::abi::control::$name {}
        // SAFETY: As above; a test of the ABI crate holds that there is no padding.
        unsafe impl AsBytes for crate::abi::control::$name {}
    )+};
}
plain!(Status, PayloadInfo, DeviceInfo, Handoff, Command, ReportQuery);

// --- What a payload calls: the contract is in `abi/src/calls.rs` ---------------------------------

/// Completions that were refused because their epoch did not own the request.
pub(crate) static STALE_COMPLETIONS: AtomicU64 = AtomicU64::new(0);

fn errno(result: Result) -> i32 {
    result.map_or_else(|error| error.to_errno(), |()| 0)
}

/// # Safety
///
/// See `abi/src/calls.rs`.
#[no_mangle]
unsafe extern "C" fn atom_payload_register(table: *const PayloadTable) -> i32 {
    if table.is_null() {
        return EINVAL.to_errno();
    }
    // SAFETY: The caller's table begins with its size; no more is read before the size is known.
    let known = unsafe { addr_of!((*table).size).read() } as usize;
    let needed = size_of::<PayloadTable>();
    let (payload, version) = if known < needed {
        let refusal = Refusal::new(reason::TABLE, needed as u64, known as u64);
        (Err(refusal), Text::EMPTY)
    } else {
        let payload = Payload { table };
        (Ok(payload), payload.version())
    };
    calls::register(payload, version).map_or_else(|error| error.to_errno(), |id| id as i32)
}

#[no_mangle]
extern "C" fn atom_payload_unregister(id: i32) -> i32 {
    errno(calls::unregister(id as u32))
}

/// # Safety
///
/// See `abi/src/calls.rs`.
#[no_mangle]
unsafe extern "C" fn atom_device_create(spec: *const DeviceSpec, cookie: u64, id: *mut u32) -> i32 {
    // SAFETY: Valid for the call by contract; the size is checked before the rest is used.
    match calls::device_create(unsafe { &*spec }, cookie) {
        Ok(created) => {
            // SAFETY: Valid for the call by contract.
            unsafe { id.write(created) };
            0
        }
        Err(error) => error.to_errno(),
    }
}

#[no_mangle]
extern "C" fn atom_device_destroy(id: u32) -> i32 {
    errno(calls::device_destroy(id))
}

#[no_mangle]
extern "C" fn atom_device_bind(id: u32, cookie: u64) -> i32 {
    errno(calls::device_bind(id, cookie))
}

/// # Safety
///
/// See `abi/src/calls.rs`.
#[no_mangle]
unsafe extern "C" fn atom_request_end(request: *mut Request, epoch: u64, code: u32) -> i32 {
    // SAFETY: A record of one of our tag sets by contract: the memory exists as long as the device.
    let ownership: &Ownership = unsafe { &(*request).ownership };
    if ownership.end(epoch).is_err() {
        STALE_COMPLETIONS.fetch_add(1, Ordering::Relaxed);
        return -(bindings::ESTALE as i32);
    }
    // SAFETY: Only the call that moved the request from owned to ended comes here, so it is ended once.
    unsafe { bindings::blk_mq_end_request((*request).rq.cast(), status::at_end(code)) };
    if DRAIN.awaited.load(Ordering::SeqCst) {
        // SAFETY: Initialised in `init`.
        unsafe { bindings::complete(DRAIN.ended.get()) };
    }
    0
}

/// Writes a store's address, or says what went wrong.
///
/// # Safety
///
/// `store` must be valid for a write.
unsafe fn answer(result: Result<usize>, store: *mut *mut ffi::c_void) -> i32 {
    match result {
        Ok(address) => {
            // SAFETY: By the function's contract.
            unsafe { store.write(address as *mut ffi::c_void) };
            0
        }
        Err(error) => error.to_errno(),
    }
}

/// # Safety
///
/// See `abi/src/calls.rs`.
#[no_mangle]
unsafe extern "C" fn atom_pages_create(key: u64, store: *mut *mut ffi::c_void) -> i32 {
    // SAFETY: By the contract of the call.
    unsafe { answer(calls::pages_create(key), store) }
}

/// # Safety
///
/// See `abi/src/calls.rs`.
#[no_mangle]
unsafe extern "C" fn atom_pages_claim(key: u64, store: *mut *mut ffi::c_void) -> i32 {
    // SAFETY: By the contract of the call.
    unsafe { answer(calls::pages_claim(key), store) }
}

#[no_mangle]
extern "C" fn atom_pages_release(key: u64) -> i32 {
    errno(calls::pages_release(key))
}

/// # Safety
///
/// See `abi/src/calls.rs`.
#[no_mangle]
unsafe extern "C" fn atom_page_free(page: *mut ffi::c_void) -> i32 {
    let page = page.cast::<bindings::page>();
    // SAFETY: The page is the caller's to give away, so nobody uses the union that holds the head.
    unsafe {
        bindings::call_rcu(addr_of_mut!((*page).__bindgen_anon_1.callback_head), Some(free_page))
    };
    0
}
