// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The lines that set failpoints. Pure.
//!
//! ```text
//! POINT KIND[=ARGUMENT] [next=N | after=M | chance=PPM seed=S]
//! POINT off
//! POINT release
//! off
//! ```
//!
//! Without one of the triggers a point strikes at every pass.

use super::fault::{number, Fault, Kind};
use super::point::Failpoint;
use super::trigger::{Trigger, MILLION};

/// The longest line, in bytes.
pub const MAX_BYTES: usize = 256;

/// Why a line is not carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// It is no line of this language: `EINVAL`.
    Invalid,
    /// There is no such point: `ENOENT`.
    Unknown,
    /// The point cannot do that: `EOPNOTSUPP`.
    Impossible,
}

/// What is to become of a point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Order {
    Off,
    Release,
    Arm(Fault, Trigger),
}

/// Carries out a line. One caller at a time. When it is refused, nothing has changed.
pub fn carry_out(points: &[&Failpoint], line: &[u8]) -> Result<(), Refused> {
    let line = core::str::from_utf8(line).map_err(|_| Refused::Invalid)?;
    let line = line.strip_suffix('\n').unwrap_or(line);
    if line.contains('\n') {
        return Err(Refused::Invalid);
    }
    let mut words = line.split(' ').filter(|word| !word.is_empty());
    let name = words.next().ok_or(Refused::Invalid)?;
    let Some(word) = words.next() else {
        if name != "off" {
            return Err(Refused::Invalid);
        }
        points.iter().for_each(|point| point.disarm());
        return Ok(());
    };
    let order = order(word, words).ok_or(Refused::Invalid)?;
    let point = points.iter().find(|point| point.name() == name).ok_or(Refused::Unknown)?;
    match order {
        Order::Off => point.disarm(),
        Order::Release => point.release(),
        Order::Arm(fault, _) if !point.kinds().has(fault.kind) => return Err(Refused::Impossible),
        Order::Arm(fault, trigger) => point.arm(fault, trigger),
    }
    Ok(())
}

fn order<'a>(word: &str, mut rest: impl Iterator<Item = &'a str>) -> Option<Order> {
    let order = match word {
        "off" => Order::Off,
        "release" => Order::Release,
        fault => {
            let (kind, argument) = match fault.split_once('=') {
                Some((kind, argument)) => (kind, Some(argument)),
                None => (fault, None),
            };
            Order::Arm(Fault::parse(Kind::named(kind)?, argument)?, trigger(&mut rest)?)
        }
    };
    match rest.next() {
        None => Some(order),
        Some(_) => None,
    }
}

fn trigger<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<Trigger> {
    let Some(word) = words.next() else {
        return Some(Trigger::Always);
    };
    let (name, value) = word.split_once('=')?;
    match name {
        "next" => number(value).map(Trigger::Next),
        "after" => number(value).map(Trigger::After),
        "chance" => {
            let ppm = number(value).filter(|ppm| *ppm <= MILLION)?;
            let (name, seed) = words.next()?.split_once('=')?;
            (name == "seed").then_some(Trigger::Chance { ppm, seed: number(seed)? })
        }
        _ => None,
    }
}
