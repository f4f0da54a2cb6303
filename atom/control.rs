// SPDX-License-Identifier: GPL-2.0

//! The ioctls of `/dev/atom-control`, as `abi/src/control.rs` has them. Process context, may sleep.

use core::mem::size_of;
use core::sync::atomic::Ordering;

use kernel::prelude::*;
use kernel::transmute::{AsBytes, FromBytes};
use kernel::uaccess::{UserPtr, UserSlice};

use crate::abi::control::{
    kind, payload_state, Command, DeviceInfo, Handoff, PayloadInfo, Report, ReportQuery, Status,
    IOC_ABANDON, IOC_ADOPT, IOC_COMMAND, IOC_DEVICE, IOC_PAYLOAD, IOC_REPORT, IOC_STATUS,
    IOC_SWITCH, MAX_DEADLINE_NS, REPORTS_KEPT,
};
use crate::abi::layout;
use crate::abi::table::MAX_COMMAND_BYTES;
use crate::abi::text::Text;
use crate::abi::version::{caps, AbiRange};
use crate::handoff;
use crate::state::Running;
use crate::sys::{self, Pinned, CONTROL, STALE_COMPLETIONS, STATE};

/// What a handoff works on. Behind the lock `CONTROL`.
pub(crate) struct ControlState {
    /// The payload that serves.
    pub(crate) live: Option<Pinned>,
    /// The state of nobody's payload, or room for the live one's.
    pub(crate) image: Option<StoredImage>,
    pub(crate) reports: Reports,
}

impl ControlState {
    /// As it is when Atom is loaded.
    pub(crate) const fn new() -> Self {
        Self { live: None, image: None, reports: Reports { kept: [Report::EMPTY; REPORTS_KEPT] } }
    }
}

/// An image in Atom's memory.
pub(crate) struct StoredImage {
    pub(crate) buffer: KVVec<u8>,
    pub(crate) used: usize,
    pub(crate) schema: u32,
}

impl StoredImage {
    /// The image itself.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.buffer.get(..self.used).unwrap_or(&[])
    }
}

/// The last reports, newest first; one without a sequence number is no report.
pub(crate) struct Reports {
    kept: [Report; REPORTS_KEPT],
}

impl Reports {
    /// Keeps a report and forgets the oldest.
    pub(crate) fn push(&mut self, report: &Report) {
        self.kept.rotate_right(1);
        self.kept[0] = *report;
    }

    fn get(&self, index: u32) -> Option<&Report> {
        self.kept.get(index as usize).filter(|report| report.sequence != 0)
    }
}

/// Carries out an ioctl.
pub(crate) fn dispatch(command: u32, address: UserPtr) -> Result {
    if !sys::may_control() {
        return Err(EPERM);
    }
    match command {
        IOC_STATUS => exchange(address, status),
        IOC_PAYLOAD => exchange(address, payload),
        IOC_DEVICE => exchange(address, device),
        IOC_SWITCH => exchange(address, |wish| carry_out(kind::SWITCH, wish)),
        IOC_ABANDON => exchange(address, |wish| carry_out(kind::ABANDON, wish)),
        IOC_ADOPT => exchange(address, |wish| carry_out(kind::ADOPT, wish)),
        IOC_COMMAND => exchange(address, forward),
        IOC_REPORT => exchange(address, |query: &mut ReportQuery| {
            let control = CONTROL.lock();
            query.report = *control.reports.get(query.index).ok_or(ENOENT)?;
            Ok(())
        }),
        _ => Err(ENOTTY),
    }
}

/// Reads a structure that begins with its size, lets `act` fill it, and writes it back.
fn exchange<T: FromBytes + AsBytes>(
    address: UserPtr,
    act: impl FnOnce(&mut T) -> Result,
) -> Result {
    let (mut reader, mut writer) = UserSlice::new(address, size_of::<T>()).reader_writer();
    if reader.clone_reader().read::<u32>()? as usize != size_of::<T>() {
        return Err(EINVAL);
    }
    let mut value: T = reader.read()?;
    act(&mut value)?;
    writer.write(&value)
}

fn carry_out(kind: u32, wish: &mut Handoff) -> Result {
    if wish.deadline_ns > MAX_DEADLINE_NS {
        return Err(EINVAL);
    }
    handoff::carry_out(kind, &mut CONTROL.lock(), wish);
    Ok(())
}

fn status(status: &mut Status) -> Result {
    let state = STATE.lock();
    *status = Status {
        size: size_of::<Status>() as u32,
        place: state.lifecycle.place.code(),
        abi: AbiRange::CURRENT,
        layout_hash: layout::HASH,
        provides: caps::OFFERED,
        epoch: state.epoch,
        live: state.live.unwrap_or(0),
        payloads: state.payloads.len() as u32,
        devices: state.devices.len() as u32,
        opens: state.opens(),
        preserved: state.stores.len() as u32,
        reserved: 0,
        image_bytes: state.image_bytes,
        handoffs: state.handoffs,
        stale_completions: STALE_COMPLETIONS.load(Ordering::Relaxed),
        held_ns: match state.held_since_ns {
            0 => 0,
            since => sys::now_ns().saturating_sub(since),
        },
        version: Text::new(crate::VERSION),
        refused: state.refused,
        refusal: state.refusal,
    };
    Ok(())
}

fn payload(info: &mut PayloadInfo) -> Result {
    let state = STATE.lock();
    let entry = state.payloads.get(info.index as usize).ok_or(ENOENT)?;
    *info = PayloadInfo {
        size: info.size,
        index: info.index,
        id: entry.id,
        state: match (state.live == Some(entry.id), entry.was_live) {
            (true, _) => payload_state::LIVE,
            (false, true) => payload_state::PARKED,
            (false, false) => payload_state::LOADED,
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
    *info = DeviceInfo {
        id: entry.disk.id(),
        opens: entry.disk.opens(),
        capacity_sectors: entry.spec.capacity_sectors,
        features: entry.spec.features,
        hw_queues: hw_queues as u16,
        queue_depth: queue_depth as u16,
        owed: entry.disk.owed(0, u32::MAX, &mut []),
        reserved: 0,
        ..*info
    };
    Ok(())
}

fn forward(command: &mut Command) -> Result {
    let input_bytes = command.input_bytes as usize;
    let output_bytes = (command.output_bytes as usize).min(MAX_COMMAND_BYTES);
    if input_bytes > MAX_COMMAND_BYTES {
        return Err(EINVAL);
    }
    let mut input = KVVec::from_elem(0u8, input_bytes, GFP_KERNEL)?;
    let mut output = KVVec::from_elem(0u8, output_bytes, GFP_KERNEL)?;
    user(command.input, input_bytes).reader().read_slice(&mut input)?;
    let used = {
        let control = CONTROL.lock();
        let live = control.live.as_ref().ok_or(ENODEV)?;
        STATE.lock().running = Running::Command;
        let (result, used) = live.command(&input, &mut output);
        STATE.lock().running = Running::Nothing;
        command.result = result;
        used
    };
    let answer = output.get(..used).unwrap_or(&[]);
    user(command.output, answer.len()).writer().write_slice(answer)?;
    command.output_bytes = answer.len() as u32;
    Ok(())
}

fn user(address: u64, bytes: usize) -> UserSlice {
    UserSlice::new(UserPtr::from_addr(address as usize), bytes)
}
