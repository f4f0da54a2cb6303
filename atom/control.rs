// SPDX-License-Identifier: GPL-2.0

//! The ioctls of `/dev/atom-control`, as `abi/src/control.rs` has them. Process context, may sleep.

use core::mem::size_of;
use core::sync::atomic::Ordering;

use kernel::prelude::*;
use kernel::transmute::{AsBytes, FromBytes};
use kernel::uaccess::{UserPtr, UserSlice};

use crate::abi::control::{
    kind, number, payload_state, policy, Command, Commit, DeviceInfo, Handoff, PayloadInfo,
    ReportQuery, Settings, Status, IOC_ABANDON, IOC_ADOPT, IOC_COMMAND, IOC_COMMIT, IOC_DEVICE,
    IOC_PAYLOAD, IOC_REPORT, IOC_SETTINGS, IOC_STATUS, IOC_SWITCH,
};
use crate::abi::layout::{first_bytes, HASH};
use crate::abi::lifecycle::{Event, Step};
use crate::abi::text::Text;
use crate::abi::version::{caps, AbiRange};
use crate::asked::{self, Extent, Wrong};
use crate::back::advance;
use crate::handoff::{self, Plan};
use crate::operation::{run, Stop};
use crate::points;
use crate::state::Operation;
use crate::sys::{self, Reader, STALE_COMPLETIONS, STATE, WATCH};
use crate::turn::Turn;

const STATUS: u32 = number(IOC_STATUS);
const PAYLOAD: u32 = number(IOC_PAYLOAD);
const DEVICE: u32 = number(IOC_DEVICE);
const SWITCH: u32 = number(IOC_SWITCH);
const ABANDON: u32 = number(IOC_ABANDON);
const ADOPT: u32 = number(IOC_ADOPT);
const COMMAND: u32 = number(IOC_COMMAND);
const REPORT: u32 = number(IOC_REPORT);
const SETTINGS: u32 = number(IOC_SETTINGS);
const COMMIT: u32 = number(IOC_COMMIT);

/// Carries out an ioctl.
pub(crate) fn dispatch(reader: &Reader, command: u32, address: UserPtr) -> Result {
    if !sys::may_control() {
        return Err(EPERM);
    }
    match number(command) {
        STATUS => exchange(address, first_bytes("Status"), |value| status(reader, value)),
        PAYLOAD => exchange(address, first_bytes("PayloadInfo"), payload),
        DEVICE => exchange(address, first_bytes("DeviceInfo"), device),
        SWITCH => exchange(address, HANDOFF, |wish| carry_out(kind::SWITCH, wish)),
        ABANDON => exchange(address, HANDOFF, |wish| carry_out(kind::ABANDON, wish)),
        ADOPT => exchange(address, HANDOFF, |wish| carry_out(kind::ADOPT, wish)),
        COMMAND => exchange(address, first_bytes("Command"), forward),
        REPORT => exchange(address, first_bytes("ReportQuery"), |query: &mut ReportQuery| {
            query.report = *STATE.lock().reports.get(query.index).ok_or(ENOENT)?;
            Ok(())
        }),
        SETTINGS => exchange(address, first_bytes("Settings"), settings),
        COMMIT => exchange(address, first_bytes("Commit"), commit),
        _ => Err(ENOTTY),
    }
}

const HANDOFF: usize = first_bytes("Handoff");

/// Reads a structure that begins with its size, lets `act` fill it, and writes it back. The caller's may be
/// shorter, down to `first` bytes, or longer, by what must be zero.
fn exchange<T: FromBytes + AsBytes>(
    address: UserPtr,
    first: usize,
    act: impl FnOnce(&mut T) -> Result,
) -> Result {
    let known = size_of::<T>();
    let theirs = UserSlice::new(address, size_of::<u32>()).reader().read::<u32>()?;
    // Before anything else is read: whoever hands over too much is told so, whatever lies there.
    let Extent { common, unknown } = asked::extent(theirs, first, known, PAGE_SIZE)?;
    // Too large for the stack. The tool may be what I/O is held for.
    let no_io = sys::NoIo::enter();
    let mut buffer = KVec::from_elem(0u8, known, GFP_KERNEL)?;
    let shared = buffer.get_mut(..common).ok_or(EINVAL)?;
    UserSlice::new(address, common).reader().read_slice(shared)?;
    if unknown > 0 {
        let mut rest = KVec::from_elem(0u8, unknown, GFP_KERNEL)?;
        UserSlice::new(address.wrapping_byte_add(known), unknown).reader().read_slice(&mut rest)?;
        if asked::asks_for_more(&rest) {
            return Err(E2BIG);
        }
    }
    drop(no_io);
    let value = T::from_bytes_mut(&mut buffer).ok_or(EINVAL)?;
    act(value)?;
    let answer = buffer.get(..common).ok_or(EINVAL)?;
    UserSlice::new(address, common).writer().write_slice(answer)
}

const PAGE_SIZE: usize = kernel::page::PAGE_SIZE;

impl From<Wrong> for Error {
    fn from(wrong: Wrong) -> Self {
        match wrong {
            Wrong::TooShort => EINVAL,
            Wrong::TooLong => E2BIG,
        }
    }
}

fn carry_out(kind: u32, wish: &mut Handoff) -> Result {
    if !asked::is_wish(wish.policy, wish.deadline_ns) {
        return Err(EINVAL);
    }
    let turn = match wish.policy & policy::FORSAKE {
        0 => Turn::take()?,
        // The live payload may hang in what somebody has asked it for.
        _ => Turn::take_from_live()?,
    };
    wish.report = *handoff::carry_out(&turn, Plan::asked(kind, wish))?;
    Ok(())
}

fn status(reader: &Reader, status: &mut Status) -> Result {
    let size = status.size;
    *status = STATE.lock().status(sys::now_ns());
    status.size = size;
    status.abi = AbiRange::CURRENT;
    status.layout_hash = HASH;
    status.provides = caps::OFFERED;
    status.stale_completions = STALE_COMPLETIONS.load(Ordering::Relaxed);
    status.version = Text::new(crate::VERSION);
    status.events = reader.note_events();
    Ok(())
}

fn payload(info: &mut PayloadInfo) -> Result {
    let state = STATE.lock();
    let entry = state.payloads.get(info.index as usize).ok_or(ENOENT)?;
    *info = PayloadInfo {
        size: info.size,
        index: info.index,
        id: entry.id,
        state: match (entry.dead, state.live == entry.id, entry.was_live) {
            (true, _, _) => payload_state::DEAD,
            (_, true, _) => payload_state::LIVE,
            (_, _, true) => payload_state::PARKED,
            _ => payload_state::LOADED,
        },
        abi: entry.payload.offer().abi,
        schema: entry.payload.schema(),
        version: entry.payload.version(),
        module: entry.payload.module_name(),
    };
    Ok(())
}

fn device(info: &mut DeviceInfo) -> Result {
    let state = STATE.lock();
    let entry = state.devices.get(info.index as usize).ok_or(ENOENT)?;
    let (hw_queues, queue_depth) = entry.disk.shape();
    let owed = entry.disk.owed();
    *info = DeviceInfo {
        id: entry.disk.id(),
        opens: entry.disk.opens().count(),
        capacity_sectors: entry.spec.capacity_sectors,
        features: entry.spec.features,
        hw_queues: hw_queues as u16,
        queue_depth: queue_depth as u16,
        owed: owed.total(),
        reserved: 0,
        errors: entry.disk.errors(),
        oldest_ns: owed.oldest_ns,
        ..*info
    };
    Ok(())
}

fn forward(command: &mut Command) -> Result {
    let (input_bytes, output_bytes) =
        asked::room(command.input_bytes, command.output_bytes).ok_or(EINVAL)?;
    points::CONTROL_COMMAND.meet()?;
    let mut input = KVVec::from_elem(0u8, input_bytes, GFP_KERNEL)?;
    let mut output = KVVec::from_elem(0u8, output_bytes, GFP_KERNEL)?;
    user(command.input, input_bytes).reader().read_slice(&mut input)?;
    let used = {
        let turn = Turn::take()?;
        let live = STATE.lock().live;
        if live == 0 {
            return Err(ENODEV);
        }
        let carried_out =
            run(&turn, live, Operation::Command, |payload| payload.command(&input, &mut output));
        let (result, used) = match carried_out {
            Ok(answer) => answer,
            Err(Stop::Refused(_)) => return Err(ENODEV),
            Err(Stop::Lost) => return Err(Error::from_errno(sys::OWNER_DEAD)),
        };
        command.result = result;
        used
    };
    let answer = output.get(..used).unwrap_or(&[]);
    user(command.output, answer.len()).writer().write_slice(answer)?;
    command.output_bytes = answer.len() as u32;
    Ok(())
}

fn settings(wanted: &mut Settings) -> Result {
    let mut state = STATE.lock();
    let changed = state.settings.changed_by(wanted).ok_or(EINVAL)?;
    state.settings = changed;
    if wanted.change != 0 {
        state.hold_acted = false;
    }
    drop(state);
    *wanted = Settings { size: wanted.size, change: wanted.change, ..changed };
    WATCH.wake();
    Ok(())
}

fn commit(wanted: &mut Commit) -> Result {
    points::CONTROL_COMMIT.meet()?;
    let _turn = Turn::take()?;
    let version = {
        let state = STATE.lock();
        state.soak.ok_or(ENOENT)?;
        if state.live != wanted.payload {
            return Err(Error::from_errno(sys::STALE));
        }
        state.version(state.live)
    };
    advance(Event::Done(Step::Commit)).map_err(|_| ENOENT)?;
    {
        let mut state = STATE.lock();
        let before = state.soak.take();
        state.unpin(before.map_or(0, |before| before.parked));
    }
    sys::announce(&[fmt!("ATOM_EVENT=commit"), fmt!("ATOM_VERSION={version}")]);
    WATCH.wake();
    Ok(())
}

fn user(address: u64, bytes: usize) -> UserSlice {
    UserSlice::new(UserPtr::from_addr(address as usize), bytes)
}
