// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What Atom decides of the bytes that a caller hands to an ioctl, by the same functions: which of them it reads, and
//! whether it does what they ask for. Two bytes choose the ioctl and how long Atom's own structure is.

#![no_main]

use atom_abi::control::MAX_DEADLINE_NS;
use atom_abi::table::MAX_COMMAND_BYTES;
use atom_core::asked::{asks_for_more, extent, is_wish, room, Extent, Wrong};
use atom_fuzz::budget;
use libfuzzer_sys::fuzz_target;

/// What is at most read behind the part that Atom knows.
const PAGE: usize = 4096;

fuzz_target!(|bytes: &[u8]| {
    let Some((&[choice, shorter], bytes)) = bytes.split_first_chunk() else { return };
    budget::within(0, || judge(choice, shorter, bytes));
});

fn judge(choice: u8, shorter: u8, bytes: &[u8]) {
    let known = 8 + 8 * usize::from(choice);
    let first = known.saturating_sub(usize::from(shorter)).max(4);
    let Some((size, _)) = bytes.split_first_chunk() else { return };
    let size = u32::from_le_bytes(*size);
    match extent(size, first, known, PAGE) {
        Ok(Extent { common, unknown }) => {
            assert!((first..=known).contains(&common) && unknown <= PAGE);
            assert_eq!(common + unknown, size as usize, "all of it is read, and nothing besides");
            if let Some(rest) = bytes.get(common..common + unknown) {
                assert_eq!(asks_for_more(rest), rest.iter().any(|byte| *byte != 0));
            }
        }
        Err(Wrong::TooShort) => assert!((size as usize) < first),
        Err(Wrong::TooLong) => assert!(size as usize > known + PAGE),
    }
    // `Handoff` begins with size, payload, schema, policy, deadline.
    if let (Some(policy), Some(deadline_ns)) = (word(bytes, 12), long(bytes, 16)) {
        assert!(!is_wish(policy, deadline_ns) || deadline_ns <= MAX_DEADLINE_NS);
    }
    // `Command` is size, result, two addresses, and the lengths of what they lead to.
    if let (Some(input_bytes), Some(output_bytes)) = (word(bytes, 24), word(bytes, 28)) {
        match room(input_bytes, output_bytes) {
            Some((input, output)) => {
                assert!(input <= MAX_COMMAND_BYTES && output <= MAX_COMMAND_BYTES);
                assert!(input == input_bytes as usize && output <= output_bytes as usize);
            }
            None => assert!(input_bytes as usize > MAX_COMMAND_BYTES),
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
