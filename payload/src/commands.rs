// SPDX-License-Identifier: GPL-2.0

//! The commands that Atom forwards to the live payload. Process context; may sleep.

use core::ops::ControlFlow;

use kernel::prelude::*;

use crate::abi::device::{feature, DeviceSpec};
use crate::answers::{encode_done, Created, Entry, ListWriter, CREATED_BYTES, END_OF_LIST};
#[cfg(payload_client)]
use crate::compose;
use crate::counts::Counts;
use crate::fault::{Points, Variant};
use crate::identity;
use crate::ops;
use crate::points;
use crate::protocol::{Command, Create, ProtocolError};
use crate::shape::{Description, MAX_VOLUMES};
use crate::sys;
use crate::volume::{Pages, Volume};
use crate::volumes::Volumes;

/// Carries out the command in `input` and writes the answer into `output`. Returns its length.
///
/// Errors: `EPROTO` for another version of the encoding, `EINVAL` for what is no command or has values
/// that it must not have, `EMSGSIZE` when the answer does not fit, and those of each command.
pub(crate) fn carry_out(volumes: &mut Volumes, input: &[u8], output: &mut [u8]) -> Result<usize> {
    match Command::decode(input).map_err(errno)? {
        Command::Create(command) => {
            let length = create(volumes, &command, output)?;
            ops::checkpoint(volumes);
            Ok(length)
        }
        Command::Destroy { name } => {
            destroy(volumes, volumes.find(&name).ok_or(ENOENT)?)?;
            ops::checkpoint(volumes);
            encode_done(output).map_err(errno)
        }
        Command::List { from } => list(volumes, from, output),
        #[cfg(payload_client)]
        Command::Compose(wanted) => {
            let (length, changed) = compose::compose(volumes, &wanted, output)?;
            if changed {
                ops::checkpoint(volumes);
            }
            Ok(length)
        }
        #[cfg(payload_client)]
        Command::Show { name } => compose::show(volumes, &name, output),
        #[cfg(payload_client)]
        Command::Resize { name, made } => {
            let (length, changed) = compose::resize(volumes, &name, &made, output)?;
            if changed {
                ops::checkpoint(volumes);
            }
            Ok(length)
        }
        #[cfg(payload_client)]
        Command::Reconnect { name, target } => compose::reconnect(volumes, &name, target, output),
        other => Variant::command(&other, output),
    }
}

/// The error of the kernel that says the same.
pub(crate) fn errno(error: ProtocolError) -> Error {
    match error {
        ProtocolError::NoRoom => EMSGSIZE,
        ProtocolError::Version(_) => sys::eproto(),
        _ => EINVAL,
    }
}

/// Errors: `EEXIST` for a name that is taken, `ENOSPC` for a full table, `EINVAL`, `ENOMEM`, and what
/// Atom says to the device.
fn create(volumes: &mut Volumes, create: &Create, output: &mut [u8]) -> Result<usize> {
    let shape = create.shape().map_err(errno)?;
    if output.len() < CREATED_BYTES {
        // Known before anything is created.
        return Err(EMSGSIZE);
    }
    if create.polled && !cfg!(payload_client) {
        return Err(EINVAL);
    }
    if volumes.find(&create.name).is_some() {
        return Err(EEXIST);
    }
    let id = volumes.new_id()?;
    let description = Description { id, device: 0, shape, pages: 0, name: create.name };
    let blank = volumes.blank()?;
    let volume = Volume::new(blank, &description, Counts::none(), Pages::Fresh)?;
    let store = volume.store_key();
    // Requests can arrive before the device's number is known here, so the volume goes first.
    volumes.insert(volume).inspect_err(|_| release(store))?;
    let spec = polled(Variant::spec(shape.spec()), create.polled);
    let made = points::COMMAND_DEVICE.meet().and_then(|()| sys::create_device(&spec, id.slot()));
    let device = made.inspect_err(|_| {
        volumes.remove(id.slot());
        release(store);
    })?;
    sys::with_owned(id.slot(), |volume| volume.set_device(device));
    let answer = Created { volume: id.to_u64(), device };
    answer.encode(output).map_err(errno)
}

/// The device with queues for polled I/O, if it is to have some. Atom keeps in mind that it has: no image says so, and no
/// change.
pub(crate) fn polled(spec: DeviceSpec, polled: bool) -> DeviceSpec {
    match polled {
        true => DeviceSpec { features: spec.features | feature::POLLED, ..spec },
        false => spec,
    }
}

/// Errors: `EBUSY` while somebody has the device open.
fn destroy(volumes: &mut Volumes, slot: usize) -> Result {
    let (device, store) =
        sys::with_owned(slot, |volume| (volume.device(), volume.store_key())).ok_or(ENOENT)?;
    #[cfg(payload_client)]
    let targets = compose::Closing::of(slot);
    // When it returns, all requests have ended and none will come.
    sys::destroy_device(device)?;
    volumes.remove(slot);
    release(store);
    #[cfg(payload_client)]
    targets.close();
    Ok(())
}

fn release(store: Option<u64>) {
    if let Some(Err(error)) = store.map(sys::release_pages) {
        pr_warn!("a page store was not released: error {}\n", error.to_errno());
    }
}

fn list(volumes: &Volumes, from: u32, output: &mut [u8]) -> Result<usize> {
    let from = usize::try_from(from).unwrap_or(MAX_VOLUMES);
    let mut answer = ListWriter::new(output, identity::NEWEST_SCHEMA).map_err(errno)?;
    let outcome = volumes.try_each(from, |volume| {
        if !answer.has_room() {
            return Err(ControlFlow::Break(volume.id().slot()));
        }
        let entry = Entry { volume: volume.describe(), counts: volume.counts().as_two() };
        answer.entry(&entry).map_err(ControlFlow::Continue)
    });
    let next = match outcome {
        Ok(()) => END_OF_LIST,
        // An answer without an entry would have the caller ask for ever.
        Err(ControlFlow::Break(_)) if answer.is_empty() => return Err(EMSGSIZE),
        Err(ControlFlow::Break(slot)) => u32::try_from(slot).unwrap_or(END_OF_LIST),
        Err(ControlFlow::Continue(error)) => return Err(errno(error)),
    };
    answer.finish(next).map_err(errno)
}
