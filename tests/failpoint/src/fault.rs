// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What a failpoint can do when it strikes. Pure.

use core::fmt;

/// The longest delay, in milliseconds.
pub const MAX_DELAY_MS: u32 = 60_000;
/// The greatest error number.
pub const MAX_ERRNO: u32 = 4095;

/// The kinds of faults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The operation returns an error, whose number is the argument.
    Error = 1,
    /// The operation finds no memory.
    NoMemory = 2,
    /// The operation takes longer, by as many milliseconds as the argument says.
    Delay = 3,
    /// The operation does not go on before it is released.
    Hang = 4,
    /// One bit of the data is wrong, in the byte that the argument says.
    Data = 5,
    /// The operation reads from address zero, which ends the task.
    Oops = 6,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Error, Self::NoMemory, Self::Delay, Self::Hang, Self::Data, Self::Oops];

    /// Its word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::NoMemory => "no_memory",
            Self::Delay => "delay",
            Self::Hang => "hang",
            Self::Data => "data",
            Self::Oops => "oops",
        }
    }

    /// The kind of a word.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The kind of a number.
    pub(crate) fn of(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u64 == number)
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of kinds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kinds(u8);

impl Kinds {
    /// None of them.
    pub const NONE: Self = Self(0);

    /// One more.
    pub const fn with(self, kind: Kind) -> Self {
        Self(self.0 | kind.bit())
    }

    /// Whether a kind is among them.
    pub const fn has(self, kind: Kind) -> bool {
        self.0 & kind.bit() != 0
    }
}

impl fmt::Display for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut kinds = Kind::ALL.into_iter().filter(|kind| self.has(*kind));
        if let Some(first) = kinds.next() {
            f.write_str(first.name())?;
        }
        kinds.try_for_each(|kind| write!(f, ",{}", kind.name()))
    }
}

/// A fault: what is done, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// What is done.
    pub kind: Kind,
    /// An error number, milliseconds or a place, by the kind; of the others 0.
    pub argument: u32,
}

/// Names of errors, as people write them.
const ERRORS: [(&str, u32); 14] = [
    ("EPERM", 1),
    ("ENOENT", 2),
    ("EINTR", 4),
    ("EIO", 5),
    ("EAGAIN", 11),
    ("ENOMEM", 12),
    ("EBUSY", 16),
    ("EEXIST", 17),
    ("ENODEV", 19),
    ("EINVAL", 22),
    ("ENOSPC", 28),
    ("EPROTO", 71),
    ("ECONNRESET", 104),
    ("ETIMEDOUT", 110),
];

impl Fault {
    /// The fault of a kind and its argument as it is written. None: it cannot have that one.
    pub fn parse(kind: Kind, argument: Option<&str>) -> Option<Self> {
        let argument = match (kind, argument) {
            (Kind::Error, None) => 5,
            (Kind::Error, Some(text)) => {
                let named = ERRORS.iter().find(|(name, _)| *name == text);
                let errno = named.map(|(_, errno)| *errno).or_else(|| number(text))?;
                (1..=MAX_ERRNO).contains(&errno).then_some(errno)?
            }
            (Kind::Delay, None) => 100,
            (Kind::Delay, Some(text)) => number(text).filter(|ms| *ms <= MAX_DELAY_MS)?,
            (Kind::Data, None) => 0,
            (Kind::Data, Some(text)) => number(text)?,
            (Kind::NoMemory | Kind::Hang | Kind::Oops, None) => 0,
            (Kind::NoMemory | Kind::Hang | Kind::Oops, Some(_)) => return None,
        };
        Some(Self { kind, argument })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Error | Kind::Delay | Kind::Data => {
                write!(f, "{}={}", self.kind.name(), self.argument)
            }
            Kind::NoMemory | Kind::Hang | Kind::Oops => f.write_str(self.kind.name()),
        }
    }
}

/// Makes one bit of the data wrong: the lowest of the byte at `place`, counted around the end.
pub fn spoil(data: &mut [u8], place: u32) {
    let place = usize::try_from(place).unwrap_or(0).checked_rem(data.len()).unwrap_or(0);
    if let Some(byte) = data.get_mut(place) {
        *byte ^= 1;
    }
}

/// A number of digits alone: no sign, no space.
pub(crate) fn number(text: &str) -> Option<u32> {
    match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse().ok(),
        false => None,
    }
}
