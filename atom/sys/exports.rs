// SPDX-License-Identifier: GPL-2.0

//! What a payload calls: all of it, and nothing else. The contract is in `abi/src/calls.rs`.

use core::ptr::copy_nonoverlapping;

use kernel::prelude::*;
use kernel::{bindings, ffi};

use super::{dispatch, preserved, Object, Payload};
use crate::abi::bio::BioEnd;
use crate::abi::device::DeviceSpec;
use crate::abi::request::Request;
use crate::abi::table::PayloadTable;
use crate::abi::text::Text;
use crate::calls;

fn errno(result: Result) -> i32 {
    result.map_or_else(|error| error.to_errno(), |()| 0)
}

/// Writes what a call hands out, or says what went wrong.
///
/// # Safety
///
/// `to` must be valid for a write.
unsafe fn answer<T>(result: Result<T>, to: *mut T) -> i32 {
    match result {
        Ok(value) => {
            // SAFETY: By the function's contract.
            unsafe { to.write(value) };
            0
        }
        Err(error) => error.to_errno(),
    }
}

/// Copies a spec of as many bytes as it says; what its writer does not know is zero.
///
/// # Safety
///
/// `spec` must point to as many bytes as it says at its beginning.
unsafe fn read_spec(spec: *const DeviceSpec) -> Result<DeviceSpec> {
    // SAFETY: By the function's contract it begins with its size.
    let known = unsafe { spec.cast::<u32>().read() } as usize;
    let bytes = DeviceSpec::bytes_taken(known).ok_or(EINVAL)?;
    let mut copied = DeviceSpec::new(0);
    // SAFETY: Both sides have that many bytes; a spec is plain numbers.
    unsafe {
        copy_nonoverlapping(spec.cast::<u8>(), core::ptr::from_mut(&mut copied).cast(), bytes);
    }
    Ok(copied)
}

/// # Safety
///
/// See `abi/src/calls.rs`.
#[no_mangle]
unsafe extern "C" fn atom_payload_register(table: *const PayloadTable) -> i32 {
    // SAFETY: By the contract of the call.
    let result = match unsafe { Payload::copy(table) } {
        Ok(payload) => calls::register(Ok(payload)),
        Err(Ok(refusal)) => calls::register(Err((refusal, Text::EMPTY))),
        Err(Err(error)) => Err(error),
    };
    result.map_or_else(|error| error.to_errno(), |id| id as i32)
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
    // SAFETY: By the contract of the call.
    unsafe { answer(read_spec(spec).and_then(|spec| calls::device_create(&spec, cookie)), id) }
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
unsafe extern "C" fn atom_device_change(id: u32, spec: *const DeviceSpec) -> i32 {
    // SAFETY: By the contract of the call.
    errno(unsafe { read_spec(spec) }.and_then(|spec| calls::device_change(id, &spec)))
}

/// # Safety
///
/// See `abi/src/calls.rs`.
#[no_mangle]
unsafe extern "C" fn atom_request_end(request: *mut Request, epoch: u64, code: u32) -> i32 {
    // SAFETY: A record of one of our tag sets by contract.
    if !unsafe { dispatch::end(request, epoch, code) } {
        super::stale_completion();
        return super::STALE;
    }
    super::request_ended();
    0
}

/// # Safety
///
/// See `abi/src/calls.rs`.
#[no_mangle]
unsafe extern "C" fn atom_checkpoint(id: i32, image: *const u8, bytes: u64) -> i32 {
    let length = usize::try_from(bytes).unwrap_or(usize::MAX);
    if image.is_null() || length > crate::abi::image::MAX_BYTES {
        return EINVAL.to_errno();
    }
    // SAFETY: Valid for the call by contract.
    errno(calls::checkpoint(id as u32, unsafe { core::slice::from_raw_parts(image, length) }))
}

/// # Safety
///
/// See `abi/src/calls.rs`.
#[no_mangle]
unsafe extern "C" fn atom_pages_create(key: u64, store: *mut *mut ffi::c_void) -> i32 {
    // SAFETY: By the contract of the call.
    unsafe { answer(calls::pages_create(key), store.cast::<usize>()) }
}

/// # Safety
///
/// See `abi/src/calls.rs`.
#[no_mangle]
unsafe extern "C" fn atom_pages_claim(key: u64, store: *mut *mut ffi::c_void) -> i32 {
    // SAFETY: By the contract of the call.
    unsafe { answer(calls::claim(key, calls::PAGES), store.cast::<usize>()) }
}

#[no_mangle]
extern "C" fn atom_pages_release(key: u64) -> i32 {
    errno(calls::release(key, calls::PAGES))
}

/// # Safety
///
/// See `abi/src/calls.rs`.
#[no_mangle]
unsafe extern "C" fn atom_page_free(page: *mut ffi::c_void) -> i32 {
    // SAFETY: By the contract of the call.
    unsafe { preserved::free_page_later(page.cast()) };
    0
}

/// # Safety
///
/// See `abi/src/calls.rs`.
#[no_mangle]
unsafe extern "C" fn atom_object_preserve(key: u64, kind: u32, object: *mut ffi::c_void) -> i32 {
    // SAFETY: By the contract of the call.
    let taken = unsafe { Object::new(kind, object) };
    errno(taken.and_then(|taken| calls::preserve(key, kind, object as usize, taken)))
}

/// # Safety
///
/// See `abi/src/calls.rs`.
#[no_mangle]
unsafe extern "C" fn atom_object_claim(key: u64, kind: u32, object: *mut *mut ffi::c_void) -> i32 {
    if kind == calls::PAGES {
        return EINVAL.to_errno();
    }
    // SAFETY: By the contract of the call.
    unsafe { answer(calls::claim(key, kind), object.cast::<usize>()) }
}

#[no_mangle]
extern "C" fn atom_object_release(key: u64, kind: u32) -> i32 {
    match kind {
        calls::PAGES => EINVAL.to_errno(),
        _ => errno(calls::release(key, kind)),
    }
}

/// Context: any; whoever has completed the bio.
///
/// # Safety
///
/// See `abi/src/calls.rs`.
#[no_mangle]
unsafe extern "C" fn atom_bio_end(bio: *mut ffi::c_void) {
    // The payload lets its memory and code go after a grace period.
    let _guard = kernel::sync::rcu::read_lock();
    // SAFETY: By the contract of the call; what `bi_private` points to exists until the bio has ended.
    unsafe {
        let end = &*(*bio.cast::<bindings::bio>()).bi_private.cast::<BioEnd>();
        (end.end)(bio);
    }
}

/// # Safety
///
/// See `abi/src/calls.rs`.
#[no_mangle]
unsafe extern "C" fn atom_event(id: i32, device: u32, text: *const Text) -> i32 {
    // SAFETY: By the contract of the call.
    errno(calls::event(id as u32, device, unsafe { *text }))
}
