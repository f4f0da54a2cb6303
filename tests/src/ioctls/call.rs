// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! One ioctl: its number, its argument, where that lies, and which answers are right.

use anyhow::{ensure, Result};
use atom_abi::control::{
    number, policy, setting, Command, Commit, DeviceInfo, Handoff, PayloadInfo, ReportQuery,
    Settings, Status, IOC_ABANDON, IOC_ADOPT, IOC_COMMAND, IOC_COMMIT, IOC_DEVICE, IOC_PAYLOAD,
    IOC_REPORT, IOC_SETTINGS, IOC_STATUS, IOC_SWITCH, MAX_DEADLINE_NS,
};
use atom_abi::layout::first_bytes;
use atom_abi::table::MAX_COMMAND_BYTES;
use nix::errno::Errno;

use crate::random::Random;

/// An ioctl of Atom's: its request, the bytes of its structure, and those that the first version had.
#[derive(Clone, Copy, Debug)]
struct Shape {
    request: u32,
    bytes: usize,
    first: usize,
}

macro_rules! shape {
    ($request:ident, $name:ident) => {
        Shape {
            request: $request,
            bytes: size_of::<$name>(),
            first: first_bytes(stringify!($name)),
        }
    };
}

const SHAPES: [Shape; 10] = [
    shape!(IOC_STATUS, Status),
    shape!(IOC_PAYLOAD, PayloadInfo),
    shape!(IOC_DEVICE, DeviceInfo),
    shape!(IOC_SWITCH, Handoff),
    shape!(IOC_ABANDON, Handoff),
    shape!(IOC_ADOPT, Handoff),
    shape!(IOC_COMMAND, Command),
    shape!(IOC_REPORT, ReportQuery),
    shape!(IOC_SETTINGS, Settings),
    shape!(IOC_COMMIT, Commit),
];

/// What Atom looks through for zeroes behind its own structure.
const PAGE: usize = 4096;
/// The longest drain and soak that are asked for, so that nothing waits long.
const LONGEST_NS: u64 = 200_000_000;
/// An address of the kernel's.
const KERNEL: u64 = 0xffff_8880_0000_0000;

/// Where an argument lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In memory, all of it.
    Whole,
    /// Only so many bytes of it are mapped.
    Cut(usize),
    /// At an address that is not the caller's.
    At(u64),
}

/// The answers that are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// This error and no other.
    Error(Errno),
    /// Done, or an error of the situation: the argument is as it should be.
    NoFault,
    /// Whatever it is.
    Any,
}

/// One ioctl.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub request: u32,
    pub bytes: Vec<u8>,
    pub place: Place,
    pub right: Right,
}

impl Call {
    /// The next one.
    pub fn next(random: &mut Random) -> Result<Self> {
        Ok(match random.below(10) {
            0..=3 => valid(random)?.0,
            4..=7 => nearly(random)?,
            _ => hostile(random)?,
        })
    }

    /// An error when this answer is not right.
    pub fn judge(&self, answer: std::result::Result<(), Errno>) -> Result<()> {
        let faults = [Errno::EFAULT, Errno::ENOTTY, Errno::E2BIG, Errno::EPERM];
        let right = match self.right {
            Right::Any => true,
            Right::Error(errno) => answer == Err(errno),
            Right::NoFault => answer.is_ok() || !faults.iter().any(|one| answer == Err(*one)),
        };
        ensure!(
            right,
            "ioctl {:#x} with {} bytes at {:?} was answered with {answer:?}, not {:?}: {:02x?}",
            self.request,
            self.bytes.len(),
            self.place,
            self.right,
            self.bytes.get(..64).unwrap_or(&self.bytes)
        );
        Ok(())
    }
}

/// Writes a number where it stands in a structure.
fn set(bytes: &mut [u8], at: usize, number: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + number.len()) {
        place.copy_from_slice(number);
    }
}

fn set_size(bytes: &mut [u8], size: usize) {
    set(bytes, 0, &u32::try_from(size).unwrap_or(u32::MAX).to_ne_bytes());
}

fn valid(random: &mut Random) -> Result<(Call, Shape)> {
    let shape = *random.one_of(&SHAPES)?;
    let mut bytes = vec![0; shape.bytes];
    set_size(&mut bytes, shape.bytes);
    let few = u32::try_from(random.below(4))?;
    match shape.request {
        IOC_SWITCH | IOC_ABANDON | IOC_ADOPT => {
            let policy = *random.one_of(&[policy::ABORT, policy::REISSUE])?;
            set(&mut bytes, std::mem::offset_of!(Handoff, payload), &few.to_ne_bytes());
            set(&mut bytes, std::mem::offset_of!(Handoff, policy), &policy.to_ne_bytes());
            let deadline = random.below(LONGEST_NS).to_ne_bytes();
            set(&mut bytes, std::mem::offset_of!(Handoff, deadline_ns), &deadline);
        }
        IOC_SETTINGS => {
            // I/O that is held is never to fail: the load would notice, and be right.
            let change = *random.one_of(&[0, setting::SOAK])?;
            let soak = *random.one_of(&[0, LONGEST_NS])?;
            set(&mut bytes, std::mem::offset_of!(Settings, change), &change.to_ne_bytes());
            set(&mut bytes, std::mem::offset_of!(Settings, soak_ns), &soak.to_ne_bytes());
            let deadline = LONGEST_NS.to_ne_bytes();
            set(&mut bytes, std::mem::offset_of!(Settings, back_deadline_ns), &deadline);
        }
        // What they begin with behind the size: an index, or an identity.
        IOC_PAYLOAD | IOC_DEVICE | IOC_REPORT | IOC_COMMIT => {
            set(&mut bytes, size_of::<u32>(), &few.to_ne_bytes());
        }
        _ => {}
    }
    let call = Call { request: shape.request, bytes, place: Place::Whole, right: Right::NoFault };
    Ok((call, shape))
}

/// A valid one with one thing that is wrong, or unusual.
fn nearly(random: &mut Random) -> Result<Call> {
    let (mut call, shape) = valid(random)?;
    let some = 1 + usize::try_from(random.below(64))?;
    let known = shape.bytes;
    call.right = Right::Error(Errno::EFAULT);
    match random.below(12) {
        0 => {
            set_size(&mut call.bytes, shape.first.saturating_sub(some.min(shape.first)));
            call.right = Right::Error(Errno::EINVAL);
        }
        1 => {
            call.bytes.resize(known + some, 0);
            set_size(&mut call.bytes, known + some);
            let at = known + usize::try_from(random.below(some as u64))?;
            set(&mut call.bytes, at, &[1]);
            call.right = Right::Error(Errno::E2BIG);
        }
        2 => {
            call.bytes.resize(known + some, 0);
            set_size(&mut call.bytes, known + some);
            call.right = Right::NoFault;
        }
        // Too much: that is said before any of it is read.
        3 | 4 => {
            let size = *random.one_of(&[known + PAGE + some, 1 << 20, u32::MAX as usize])?;
            set_size(&mut call.bytes, size);
            call.place = Place::Cut(size_of::<u32>());
            call.right = Right::Error(Errno::E2BIG);
        }
        5 => {
            let mapped = size_of::<u32>() + usize::try_from(random.below(known as u64 - 4))?;
            call.place = Place::Cut(mapped);
        }
        6 => {
            set_size(&mut call.bytes, known + some);
            call.place = Place::Cut(known);
        }
        7 => call.place = Place::At(*random.one_of(&[0, 1, KERNEL, u64::MAX - 8])?),
        8 => {
            let unknown = 11 + u32::try_from(random.below(200))?;
            call.request = (call.request & !0xff) | unknown;
            call.right = Right::Error(Errno::ENOTTY);
        }
        9 => {
            call.request ^= 0x1_00;
            call.right = Right::Error(Errno::ENOTTY);
        }
        _ => call = out_of_range(random)?,
    }
    Ok(call)
}

/// A field that has a value which it cannot have.
fn out_of_range(random: &mut Random) -> Result<Call> {
    loop {
        let (mut call, _) = valid(random)?;
        let bytes = &mut call.bytes;
        match call.request {
            IOC_SWITCH | IOC_ABANDON | IOC_ADOPT => match random.below(3) {
                0 => {
                    let deadline = MAX_DEADLINE_NS + 1 + random.below(1 << 40);
                    let at = std::mem::offset_of!(Handoff, deadline_ns);
                    set(bytes, at, &deadline.to_ne_bytes());
                }
                which => {
                    let unknown = 1u32 << (9 + random.below(23));
                    let wanted = if which == 1 { unknown } else { policy::LEAVE };
                    set(bytes, std::mem::offset_of!(Handoff, policy), &wanted.to_ne_bytes());
                }
            },
            IOC_SETTINGS => {
                let unknown = 1u32 << (2 + random.below(30));
                set(bytes, std::mem::offset_of!(Settings, change), &unknown.to_ne_bytes());
            }
            IOC_COMMAND => {
                let most = u32::try_from(MAX_COMMAND_BYTES)?;
                let length = most + 1 + u32::try_from(random.below(1 << 30))?;
                set(bytes, std::mem::offset_of!(Command, input_bytes), &length.to_ne_bytes());
            }
            _ => continue,
        }
        call.right = Right::Error(Errno::EINVAL);
        return Ok(call);
    }
}

/// Random bytes. Half of them claim the size that Atom wants, so that they get further.
fn hostile(random: &mut Random) -> Result<Call> {
    let shape = *random.one_of(&SHAPES)?;
    let mut bytes: Vec<u8> = Vec::with_capacity(shape.bytes + 8);
    while bytes.len() < shape.bytes {
        bytes.extend(random.number().to_ne_bytes());
    }
    bytes.truncate(shape.bytes);
    if random.below(2) == 0 {
        set_size(&mut bytes, shape.bytes);
    }
    let request = match random.below(4) {
        0 => u32::try_from(random.number() >> 32)?,
        _ => shape.request,
    };
    // A random handoff that happens to be possible is not asked for: it might be for any policy.
    let request = if number(request) == number(IOC_ABANDON) { IOC_STATUS } else { request };
    Ok(Call { request, bytes, place: Place::Whole, right: Right::Any })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(seed: u64) -> Vec<Call> {
        let mut random = Random::new(seed);
        (0..3000).map(|_| Call::next(&mut random).expect("a call")).collect()
    }

    #[test]
    fn a_seed_repeats_a_sequence() {
        assert_eq!(calls(5), calls(5));
        assert_ne!(calls(5), calls(6));
    }

    #[test]
    fn every_ioctl_and_every_kind_of_answer_comes_up() {
        let calls = calls(1);
        for shape in SHAPES {
            let theirs = |right: fn(&Right) -> bool| {
                calls.iter().any(|call| call.request == shape.request && right(&call.right))
            };
            assert!(theirs(|right| *right == Right::NoFault), "{shape:?}");
            // A random abandon is not asked for.
            let random = shape.request != IOC_ABANDON;
            assert_eq!(theirs(|right| *right == Right::Any), random, "{shape:?}");
            assert!(theirs(|right| matches!(right, Right::Error(_))), "{shape:?}");
        }
        for errno in [Errno::EFAULT, Errno::E2BIG, Errno::EINVAL, Errno::ENOTTY] {
            assert!(calls.iter().any(|call| call.right == Right::Error(errno)), "{errno}");
        }
    }

    #[test]
    fn no_valid_call_fails_held_io_or_what_is_owed() {
        for call in calls(2).iter().filter(|call| call.right == Right::NoFault) {
            let word = |at: usize| {
                let bytes: [u8; 4] = call.bytes[at..at + 4].try_into().expect("four");
                u32::from_ne_bytes(bytes)
            };
            match call.request {
                IOC_SWITCH | IOC_ABANDON | IOC_ADOPT => {
                    let policy = word(std::mem::offset_of!(Handoff, policy));
                    assert!([policy::ABORT, policy::REISSUE].contains(&policy));
                }
                IOC_SETTINGS => {
                    assert_eq!(word(std::mem::offset_of!(Settings, change)) & !setting::SOAK, 0);
                    assert_eq!(word(std::mem::offset_of!(Settings, hold)), 0);
                }
                _ => {}
            }
        }
    }

    #[test]
    fn an_answer_is_judged() {
        let call = |right| Call { request: 1, bytes: vec![0; 8], place: Place::Whole, right };
        assert!(call(Right::Error(Errno::E2BIG)).judge(Err(Errno::EFAULT)).is_err());
        assert!(call(Right::Error(Errno::E2BIG)).judge(Err(Errno::E2BIG)).is_ok());
        assert!(call(Right::Error(Errno::EINVAL)).judge(Ok(())).is_err());
        assert!(call(Right::NoFault).judge(Err(Errno::EFAULT)).is_err());
        assert!(call(Right::NoFault).judge(Err(Errno::ENOENT)).is_ok());
        assert!(call(Right::Any).judge(Err(Errno::EFAULT)).is_ok());
    }
}
