// SPDX-License-Identifier: GPL-2.0

//! A payload: its operations table, its module, and the calls of its operations.

use core::mem::size_of;
use core::ptr::{addr_of, copy_nonoverlapping, null, null_mut};

use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::{bindings, ffi};

use super::Leaving;
use crate::abi::control::Blocker;
use crate::abi::table::{
    AdoptArgs, CommandArgs, FreezeArgs, PayloadTable, PrepareArgs, ResumeArgs, SuspendArgs,
};
use crate::abi::text::Text;
use crate::abi::version::{caps, reason, Offer, Refusal, SchemaRange};
use crate::slot::Seat;

/// A registered payload: Atom's copy of its table, in which what the payload's own version of the
/// interface does not have is absent.
#[derive(Clone)]
pub(crate) struct Payload {
    table: Arc<Copied>,
}

struct Copied(PayloadTable);

// SAFETY: The table is only read. Its pointers are used under the *Pin* argument.
unsafe impl Send for Copied {}
// SAFETY: As above.
unsafe impl Sync for Copied {}

/// A reference on a payload's module: its code stays, and `rmmod` says busy.
pub(crate) struct ModuleRef {
    module: *mut bindings::module,
}

// SAFETY: References on a module are counted by the kernel, whoever gives them back.
unsafe impl Send for ModuleRef {}

impl Drop for ModuleRef {
    fn drop(&mut self) {
        // SAFETY: Gives back the reference that `Payload::pin` took.
        unsafe { bindings::module_put(self.module) };
    }
}

/// Calls one operation; what is absent has `$absent` for its result.
macro_rules! operation {
    ($payload:expr, $name:ident($($argument:expr),*), or $absent:expr) => {
        match $payload.table.0.$name {
            // SAFETY: *Pin*: the methods with this macro are called by `operation::run` only. The
            // arguments are valid for the call, in process context, as the table's contract says.
            Some(operation) => unsafe { operation($($argument),*) },
            None => $absent,
        }
    };
}

/// What an operation is told that writes an image into `buffer`.
fn export(schema: u32, buffer: &mut [u8], flags: u32) -> FreezeArgs {
    FreezeArgs {
        size: size_of::<FreezeArgs>() as u32,
        schema,
        buffer: buffer.as_mut_ptr(),
        capacity: buffer.len() as u64,
        used: 0,
        flags,
        reserved: 0,
        delta_bytes: 0,
    }
}

/// How many bytes of `buffer` it has used.
fn used(args: &FreezeArgs, buffer: &[u8]) -> usize {
    usize::try_from(args.used).unwrap_or(usize::MAX).min(buffer.len())
}

/// What an operation is told that reads an image.
fn import(epoch: u64, devices: u32, image: Option<&[u8]>, flags: u32) -> AdoptArgs {
    AdoptArgs {
        size: size_of::<AdoptArgs>() as u32,
        devices,
        epoch,
        image: image.map_or(null(), <[u8]>::as_ptr),
        image_bytes: image.map_or(0, <[u8]>::len) as u64,
        flags,
        reserved: 0,
    }
}

const NO_OPERATION: i32 = -(bindings::ENOSYS as i32);

impl Payload {
    /// Copies the table of a payload that registers itself. `Err(Ok(refusal))` for one that is too short.
    ///
    /// # Safety
    ///
    /// `table` must be null or point to as many bytes as it says at its beginning.
    pub(super) unsafe fn copy(table: *const PayloadTable) -> Result<Self, Result<Refusal, Error>> {
        if table.is_null() {
            return Err(Err(EINVAL));
        }
        // SAFETY: The caller's table begins with its size; no more is read before the size is known.
        let known = unsafe { addr_of!((*table).size).read() } as usize;
        if known < PayloadTable::BYTES_1_0 {
            let needed = PayloadTable::BYTES_1_0 as u64;
            return Err(Ok(Refusal::new(reason::TABLE, needed, known as u64)));
        }
        // SAFETY: Zero is a value of each field; of an operation it is `None`.
        let mut copied: PayloadTable = unsafe { core::mem::zeroed() };
        // SAFETY: The caller has `known` bytes, and no more than the copy has are written.
        unsafe {
            copy_nonoverlapping(
                table.cast::<u8>(),
                core::ptr::from_mut(&mut copied).cast::<u8>(),
                known.min(size_of::<PayloadTable>()),
            );
        }
        let table = Arc::new(Copied(copied), GFP_KERNEL).map_err(|_| Err(ENOMEM))?;
        Ok(Self { table })
    }

    pub(crate) fn offer(&self) -> Offer {
        self.table.0.offer()
    }

    pub(crate) fn schema(&self) -> SchemaRange {
        self.table.0.schema
    }

    pub(crate) fn version(&self) -> Text {
        self.table.0.version
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.table.0.is_complete()
    }

    /// True when it can let go of requests and promises that nothing follows late.
    pub(crate) fn promises(&self) -> bool {
        self.table.0.provides & caps::REISSUE != 0 && self.table.0.revoke.is_some()
    }

    /// True when it can hand back what it has not started.
    pub(crate) fn hands_back(&self) -> bool {
        self.table.0.hand_back.is_some()
    }

    /// True when its state can be copied while it serves.
    pub(crate) fn copies_ahead(&self) -> bool {
        self.table.0.copy_ahead.is_some()
    }

    /// True when it can read such a copy before it adopts.
    pub(crate) fn adopts_ahead(&self) -> bool {
        self.table.0.adopt_ahead.is_some()
    }

    /// Its module, when its exit runs.
    pub(crate) fn leaving(&self) -> Leaving {
        Leaving::payload(self.module())
    }

    fn module(&self) -> *mut bindings::module {
        self.table.0.module.cast()
    }

    /// The name under which `rmmod` knows the payload.
    pub(crate) fn module_name(&self) -> Text {
        // SAFETY: `is_complete` has seen that there is a module, which does not go while the payload is
        // in the list; its name is an array of plain characters that does not change.
        let name = unsafe { &(*self.module()).name };
        let mut text = [0u8; crate::abi::text::TEXT_BYTES];
        text.iter_mut().zip(name.iter()).for_each(|(to, from)| *to = *from);
        Text::from_bytes(text)
    }

    /// What makes it the one that serves, in `epoch`.
    pub(crate) fn seat(&self, epoch: u64) -> Seat {
        let table = &self.table.0;
        Seat {
            entry: table.queue_rq.map_or(null_mut(), |entry| entry as *mut ffi::c_void),
            timeout: table.timeout.map_or(null_mut(), |entry| entry as *mut ffi::c_void),
            commit: table.commit.map_or(null_mut(), |entry| entry as *mut ffi::c_void),
            epoch,
        }
    }

    /// Takes a reference on its module; none when the module is being unloaded, or its init has not
    /// ended and could still fail. `STATE` is held.
    pub(crate) fn pin(&self) -> Option<ModuleRef> {
        let module = self.module();
        // SAFETY: The payload is in the list, so its module has not been freed.
        let pinned = unsafe {
            (*module).state == bindings::module_state_MODULE_STATE_LIVE
                && bindings::try_module_get(module)
        };
        // Not made before: dropping it gives back what was not taken.
        pinned.then(|| ModuleRef { module })
    }
}

/// The operations. Called by `operation::run` only.
impl Payload {
    pub(crate) fn prepare(&self, devices: u32, image_bytes: u64) -> i32 {
        let args = PrepareArgs { size: size_of::<PrepareArgs>() as u32, devices, image_bytes };
        operation!(self, prepare(&args), or NO_OPERATION)
    }

    pub(crate) fn unprepare(&self) -> i32 {
        operation!(self, unprepare(), or NO_OPERATION)
    }

    pub(crate) fn image_bytes(&self, schema: u32) -> u64 {
        operation!(self, image_bytes(schema), or 0)
    }

    /// Returns how much background work is left.
    pub(crate) fn suspend(&self, wait_ns: u64) -> Result<u32, i32> {
        let args = SuspendArgs { size: size_of::<SuspendArgs>() as u32, reserved: 0, wait_ns };
        let left = operation!(self, suspend(&args), or 0);
        u32::try_from(left).map_err(|_| left)
    }

    pub(crate) fn resume(&self, unchanged: u32, paused_ns: u64) -> i32 {
        let args = ResumeArgs { size: size_of::<ResumeArgs>() as u32, unchanged, paused_ns };
        operation!(self, resume(&args), or 0)
    }

    pub(crate) fn hand_back(&self) -> i32 {
        operation!(self, hand_back(), or NO_OPERATION)
    }

    pub(crate) fn revoke(&self) -> i32 {
        operation!(self, revoke(), or NO_OPERATION)
    }

    /// The payload's own reason for not having ended a request; may be empty.
    pub(crate) fn explain(&self, cookie: u64, blocker: &Blocker) -> Text {
        let mut reason = Text::EMPTY;
        match operation!(self, explain(cookie, blocker, &mut reason), or NO_OPERATION) {
            0 => reason,
            _ => Text::EMPTY,
        }
    }

    /// Lets the payload write its image into `buffer`; on success returns the bytes it has used.
    pub(crate) fn freeze(&self, schema: u32, buffer: &mut [u8], flags: u32) -> Result<usize, i32> {
        let mut args = export(schema, buffer, flags);
        match operation!(self, freeze(&mut args), or NO_OPERATION) {
            0 => Ok(used(&args, buffer)),
            error => Err(error),
        }
    }

    /// The same while it serves; also returns the most bytes that a difference can have.
    pub(crate) fn copy_ahead(
        &self,
        schema: u32,
        buffer: &mut [u8],
        flags: u32,
    ) -> Result<(usize, u64), i32> {
        let mut args = export(schema, buffer, flags);
        match operation!(self, copy_ahead(&mut args), or NO_OPERATION) {
            0 => Ok((used(&args, buffer), args.delta_bytes)),
            error => Err(error),
        }
    }

    pub(crate) fn thaw(&self) -> i32 {
        operation!(self, thaw(), or NO_OPERATION)
    }

    /// Lets the payload take over; without an image it begins empty.
    pub(crate) fn adopt(&self, epoch: u64, devices: u32, image: Option<&[u8]>, flags: u32) -> i32 {
        let args = import(epoch, devices, image, flags);
        operation!(self, adopt(&args), or NO_OPERATION)
    }

    /// Lets the payload read what the live one has copied, while that serves.
    pub(crate) fn adopt_ahead(&self, devices: u32, image: &[u8], flags: u32) -> i32 {
        let args = import(0, devices, Some(image), flags);
        operation!(self, adopt_ahead(&args), or NO_OPERATION)
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
