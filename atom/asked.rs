// SPDX-License-Identifier: GPL-2.0

//! What a caller of an ioctl may ask for. Every number here is hostile; nothing is read, allocated or done before it
//! was looked at. Pure.

#![allow(unreachable_pub, reason = "the same file is part of a library on the host")]

use crate::abi::control::{policy, MAX_DEADLINE_NS};
use crate::abi::table::MAX_COMMAND_BYTES;

/// Why a structure is refused by its size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wrong {
    /// Shorter than it was in the first version of the interface: `-EINVAL`.
    TooShort,
    /// Longer than Atom's by more than it looks through for zeroes: `-E2BIG`.
    TooLong,
}

/// What is read of a caller's structure, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// What both sides know.
    pub common: usize,
    /// What stands behind it, of which Atom knows nothing.
    pub unknown: usize,
}

/// What to read of a structure that says it has `size` bytes, where the first version had `first`, Atom's own has
/// `known`, and at most `most` unknown ones are looked through.
pub fn extent(size: u32, first: usize, known: usize, most: usize) -> Result<Extent, Wrong> {
    let Ok(size) = usize::try_from(size) else { return Err(Wrong::TooLong) };
    if size < first {
        return Err(Wrong::TooShort);
    }
    let unknown = size.saturating_sub(known);
    if unknown > most {
        return Err(Wrong::TooLong);
    }
    Ok(Extent { common: size.min(known), unknown })
}

/// Whether bytes that Atom does not know ask for something: `-E2BIG`.
pub fn asks_for_more(unknown: &[u8]) -> bool {
    unknown.iter().any(|byte| *byte != 0)
}

/// Whether a handoff can be wished for on these terms.
pub fn is_wish(wanted: u32, deadline_ns: u64) -> bool {
    let known = policy::AT_DEADLINE | policy::FORSAKE;
    deadline_ns <= MAX_DEADLINE_NS
        && wanted & !known == 0
        && wanted & policy::AT_DEADLINE <= policy::LEAVE
        && wanted != policy::LEAVE
}

/// Memory for a command and for its answer, in bytes. A command is carried out whole or not at all, and an answer has
/// no more room than any payload may use.
pub fn room(input_bytes: u32, output_bytes: u32) -> Option<(usize, usize)> {
    let (input, output) = (usize::try_from(input_bytes).ok()?, usize::try_from(output_bytes).ok()?);
    (input <= MAX_COMMAND_BYTES).then_some((input, output.min(MAX_COMMAND_BYTES)))
}
