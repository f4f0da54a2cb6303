// SPDX-License-Identifier: GPL-2.0

//! Test variants with a record of their own in the image: an optional one that other versions carry
//! along, or with "must" a mandatory one that they refuse.

use core::sync::atomic::{AtomicU64, Ordering};

use kernel::prelude::*;

use crate::abi::image::{record_bytes, Fields, ImageError, Record, MANDATORY};
use crate::fault::Points;
use crate::state::{Export, Import};

const MUST: bool = cfg!(payload_fault = "must");
const KEY: u32 = if MUST { 0x7002 } else { 0x7001 };
const FLAGS: u16 = if MUST { MANDATORY } else { 0 };
const VERSION: u16 = 7;
const BYTES: usize = 40;

/// Counts the payloads of this kind that have served one after the other.
static COUNTER: AtomicU64 = AtomicU64::new(0);

pub(crate) struct Extra;

impl Points for Extra {
    const KEYS: &'static [u32] = &[KEY];

    fn adopted(image: Option<&Import<'_>>) -> Result {
        let mut records = image.into_iter().flat_map(|image| image.extra(KEY));
        let before = match (records.next(), records.next()) {
            (None, _) => None,
            (Some(record), None) => Some(read(&record)),
            // There was one.
            (Some(_), Some(_)) => Some(None),
        };
        match before {
            None => {}
            Some(Some(_)) => pr_info!("the extra record came back unchanged\n"),
            Some(None) => pr_info!("the extra record came back changed\n"),
        }
        let before = before.flatten().unwrap_or(0);
        COUNTER.store(before.wrapping_add(1), Ordering::Relaxed);
        Ok(())
    }

    fn image_bytes() -> usize {
        record_bytes(BYTES)
    }

    fn export(image: &mut Export<'_>) -> Result<(), ImageError> {
        let content = content(COUNTER.load(Ordering::Relaxed));
        image.other(&Record { key: KEY, version: VERSION, flags: FLAGS, bytes: &content })
    }
}

/// The counter, and four numbers that follow from it (the generator is SplitMix64: Steele, Lea, Flood,
/// OOPSLA 2014).
fn content(counter: u64) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    let mut state = counter;
    for (at, place) in bytes.chunks_exact_mut(8).enumerate() {
        let number = if at == 0 { counter } else { mixed(&mut state) };
        place.copy_from_slice(&number.to_le_bytes());
    }
    bytes
}

fn mixed(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// The counter of a record; `None` when the record is not as it was written.
fn read(record: &Record<'_>) -> Option<u64> {
    let counter = Fields::new(record.bytes).u64().ok()?;
    let same = (record.version, record.flags) == (VERSION, FLAGS);
    (same && record.bytes == content(counter)).then_some(counter)
}
