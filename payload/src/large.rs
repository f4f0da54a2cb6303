// SPDX-License-Identifier: GPL-2.0

//! A test variant with much state: as many bytes as a command asks for. With each payload that serves, the first page of
//! them changes, and the rest stays: a difference to a copy has that page only.

use core::mem::take;

use kernel::prelude::*;

use crate::abi::image::{record_bytes, ImageError, Record};
use crate::answers::encode_done;
use crate::commands::errno;
use crate::fault::Points;
use crate::protocol::Command;
use crate::state::{Export, Import};

/// Key of the record with all of it, and of the one with its first page.
const KEY: u32 = 0x7003;
const KEY_PAGE: u32 = 0x7004;
const VERSION: u16 = 1;
const PAGE: usize = 4096;
/// Bytes of the number at its beginning, which counts the payloads that have served.
const NUMBER: usize = 8;

kernel::sync::global_lock! {
    // SAFETY: `init` initialises it before Atom knows the payload.
    unsafe(uninit) static STATE: Mutex<KVVec<u8>> = KVVec::new();
}

pub(crate) struct Large;

impl Points for Large {
    const KEYS: &'static [u32] = &[KEY, KEY_PAGE];

    fn init() {
        // SAFETY: Called once, before anything else of the variant.
        unsafe { STATE.init() };
    }

    fn exit() {
        drop(take(&mut *STATE.lock()));
    }

    fn command(command: &Command<'_>, output: &mut [u8]) -> Result<usize> {
        let Command::Fill { pages } = command else {
            return Err(EINVAL);
        };
        let bytes = usize::try_from(*pages).map_err(|_| EINVAL)?.saturating_mul(PAGE);
        let mut state = KVVec::from_elem(0u8, bytes, GFP_KERNEL)?;
        fill(&mut state);
        let before = core::mem::replace(&mut *STATE.lock(), state);
        drop(before);
        encode_done(output).map_err(errno)
    }

    fn image_bytes() -> usize {
        record_bytes(STATE.lock().len())
    }

    fn export(image: &mut Export<'_>) -> Result<(), ImageError> {
        let state = STATE.lock();
        image.other(&Record { key: KEY, version: VERSION, flags: 0, bytes: &state })
    }

    fn difference_bytes() -> usize {
        record_bytes(PAGE)
    }

    fn export_difference(image: &mut Export<'_>) -> Result<(), ImageError> {
        let state = STATE.lock();
        let bytes = state.get(..PAGE.min(state.len())).unwrap_or(&[]);
        image.other(&Record { key: KEY_PAGE, version: VERSION, flags: 0, bytes })
    }

    fn adopted_ahead(image: &Import<'_>, _difference: bool) -> Result {
        read(image)
    }

    fn adopted(image: Option<&Import<'_>>) -> Result {
        image.map_or(Ok(()), read)
    }

    fn unprepared() {
        Self::exit();
    }

    fn abandoned() {
        Self::exit();
    }

    fn resumed(_paused_ns: u64) {
        let mut state = STATE.lock();
        if state.is_empty() {
            return;
        }
        match is_whole(&state) {
            true => pr_info!("the large state is whole: {} bytes\n", state.len()),
            false => pr_err!("the large state is damaged\n"),
        }
        if let Some(number) = state.first_chunk_mut::<NUMBER>() {
            *number = u64::from_le_bytes(*number).wrapping_add(1).to_le_bytes();
        }
        let number = state.first_chunk::<NUMBER>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        if let Some(page) = state.get_mut(NUMBER..PAGE) {
            page.fill(number as u8);
        }
    }
}

/// Takes over what an image has of it: all, or the first page.
fn read(image: &Import<'_>) -> Result {
    for record in image.extra(KEY) {
        let mut state = KVVec::from_elem(0u8, record.bytes.len(), GFP_KERNEL)?;
        state.copy_from_slice(record.bytes);
        let before = core::mem::replace(&mut *STATE.lock(), state);
        drop(before);
    }
    for record in image.extra(KEY_PAGE) {
        let mut state = STATE.lock();
        let page = state.get_mut(..record.bytes.len()).ok_or(EINVAL)?;
        page.copy_from_slice(record.bytes);
    }
    Ok(())
}

/// What stands in a page: behind the first one, a byte that follows from its place.
fn byte_of(page: usize) -> u8 {
    (page % 251) as u8
}

fn fill(state: &mut [u8]) {
    for (at, page) in state.chunks_mut(PAGE).enumerate().skip(1) {
        page.fill(byte_of(at));
    }
}

/// Whether it is as the payloads before have left it.
fn is_whole(state: &[u8]) -> bool {
    let number = state.first_chunk::<NUMBER>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    state.chunks(PAGE).enumerate().all(|(at, page)| match at {
        0 => page.iter().skip(NUMBER).all(|byte| *byte == number as u8),
        _ => page.iter().all(|byte| *byte == byte_of(at)),
    })
}
