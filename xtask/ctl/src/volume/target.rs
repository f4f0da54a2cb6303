// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! One target of a volume, as an operator writes it. Pure.

use std::fmt;
use std::time::Duration;

use atom_payload::spec::{Terms, MAX_CONNECTIONS, MAX_STRING_BYTES, MAX_TERM_MS};

use super::uri::Export;
use crate::quantity::{parse_bytes, show_bytes};

/// Seconds of silence after which a connection is probed, when nothing else is said.
pub const DEFAULT_KEEPALIVE_S: u32 = 30;
/// Longest time of silence, in seconds: the kernel's `MAX_TCP_KEEPIDLE`.
const MAX_KEEPALIVE_S: u32 = 32_767;

/// What a target is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum At {
    /// Ends every request at once.
    Null,
    /// Keeps the data in memory.
    Ram,
    /// A block device of this machine, by its absolute path.
    Bdev(String),
    /// An export of an NBD server.
    Nbd(Export),
}

impl At {
    /// Whether its size is whatever one asks for.
    pub fn is_made_up(&self) -> bool {
        matches!(self, Self::Null | Self::Ram)
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Ram => f.write_str("ram"),
            Self::Bdev(path) => write!(f, "bdev:{path}"),
            Self::Nbd(export) => export.fmt(f),
        }
    }
}

/// What is agreed about a target on a network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Agreed {
    /// For how long it is waited for.
    pub terms: Terms,
    /// Connections to make where the server allows several.
    pub connections: u32,
    /// Seconds of silence after which a connection is probed; 0: never.
    pub keepalive_s: u32,
}

impl Agreed {
    /// What holds where nothing else is said.
    pub const DEFAULT: Self =
        Self { terms: Terms::DEFAULT, connections: 1, keepalive_s: DEFAULT_KEEPALIVE_S };
}

/// A target of a volume that is wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// What it is.
    pub at: At,
    /// Bytes of it that the volume is to use; none: all, or what the size of the volume says.
    pub bytes: Option<u64>,
    /// What is agreed about it.
    pub agreed: Agreed,
}

impl Target {
    /// Reads `null:SIZE`, `ram:SIZE`, `bdev:PATH` or the URI of an NBD export. The error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (at, bytes) = match text.split_once(':') {
            Some(("null", size)) => (At::Null, Some(sized(size)?)),
            Some(("ram", size)) => (At::Ram, Some(sized(size)?)),
            None if text == "null" => (At::Null, None),
            None if text == "ram" => (At::Ram, None),
            Some(("bdev", path)) => (At::Bdev(device(path)?), None),
            _ if text.get(..3).is_some_and(|scheme| scheme.eq_ignore_ascii_case("nbd")) => {
                (At::Nbd(Export::parse(text)?), None)
            }
            _ => {
                return Err(format!(
                    "{text:?} is no target: use null:SIZE, ram:SIZE, bdev:/dev/NAME, nbd://HOST/EXPORT or \
                     nbd+unix:///EXPORT?socket=PATH"
                ))
            }
        };
        Ok(Self { at, bytes, agreed: Agreed::DEFAULT })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bytes {
            Some(bytes) if self.at.is_made_up() => write!(f, "{}:{}", self.at, compact(bytes)),
            Some(bytes) => write!(f, "{} ({})", self.at, show_bytes(bytes)),
            None => self.at.fmt(f),
        }
    }
}

/// A size as [`parse_bytes`] reads it: the largest unit without a remainder.
pub(super) fn compact(bytes: u64) -> String {
    [('P', 50), ('T', 40), ('G', 30), ('M', 20), ('K', 10)]
        .into_iter()
        .find(|(_, shift)| bytes > 0 && bytes.trailing_zeros() >= *shift)
        .map_or_else(|| bytes.to_string(), |(unit, shift)| format!("{}{unit}", bytes >> shift))
}

fn sized(text: &str) -> Result<u64, String> {
    let bytes = parse_bytes(text)?;
    size(bytes)
}

/// A size that a target or a volume can have.
pub(super) fn size(bytes: u64) -> Result<u64, String> {
    match bytes {
        0 => Err("a size is not zero".to_owned()),
        _ if !bytes.is_multiple_of(512) => {
            Err(format!("{bytes} is not a multiple of a sector, 512 bytes"))
        }
        _ if bytes > i64::MAX as u64 => Err(format!("{bytes} is more than a device can have")),
        _ => Ok(bytes),
    }
}

fn device(path: &str) -> Result<String, String> {
    match path.as_bytes() {
        [b'/', ..] if path.len() <= MAX_STRING_BYTES && !path.contains('\0') => Ok(path.to_owned()),
        [b'/', ..] => Err(format!(
            "the path of a device has at most {MAX_STRING_BYTES} bytes, none of them zero"
        )),
        _ => Err(format!("{path:?} is no absolute path: write bdev:/dev/NAME")),
    }
}

/// A time of [`Terms`], in milliseconds.
pub fn term_ms(time: Duration) -> Result<u32, String> {
    u32::try_from(time.as_millis()).ok().filter(|ms| *ms <= MAX_TERM_MS).map_or_else(
        || Err(format!("{time:?} is more than a day")),
        |ms| match ms {
            0 if !time.is_zero() => Err(format!("{time:?} is less than a millisecond")),
            ms => Ok(ms),
        },
    )
}

/// A longest time between two attempts, in milliseconds.
pub fn retry_ms(time: Duration) -> Result<u32, String> {
    match term_ms(time)? {
        0..=99 => Err(format!("{time:?} is less than 100ms")),
        ms => Ok(ms),
    }
}

/// A number of connections.
pub fn connections(number: u32) -> Result<u32, String> {
    match number {
        1..=MAX_CONNECTIONS => Ok(number),
        _ => Err(format!("{number} connections: use 1 to {MAX_CONNECTIONS}")),
    }
}

/// A time of silence, in seconds.
pub fn keepalive_s(time: Duration) -> Result<u32, String> {
    match u32::try_from(time.as_secs()) {
        Ok(0) if !time.is_zero() => Err(format!("{time:?} is less than a second")),
        Ok(seconds @ 0..=MAX_KEEPALIVE_S) => Ok(seconds),
        _ => Err(format!("{time:?} is more than {MAX_KEEPALIVE_S} seconds")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_of_every_kind_are_read_and_written() {
        for text in [
            "null:64M",
            "ram:1G",
            "ram:513K",
            "ram:1536",
            "ram",
            "bdev:/dev/vdb",
            "bdev:/dev/disk/by-id/a:b",
            "nbd://example.com/disk",
            "nbd+unix:///disk?socket=/run/sock",
        ] {
            assert_eq!(Target::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_target_is_refused_with_what_is_wrong() {
        for (text, why) in [
            ("tape:/dev/st0", "is no target"),
            ("", "is no target"),
            ("ram:", "is no size"),
            ("ram:0", "not zero"),
            ("null:1000", "multiple of a sector"),
            ("ram:9000P", "more than"),
            ("bdev:vdb", "absolute path"),
            ("bdev:", "absolute path"),
            ("nbd:/host", "begins with nbd://"),
            ("nbds://host/", "TLS"),
        ] {
            let said = Target::parse(text).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
    }

    #[test]
    fn times_and_numbers_beyond_their_limits_are_refused() {
        let seconds = Duration::from_secs;
        assert_eq!(term_ms(seconds(86_400)), Ok(86_400_000));
        assert_eq!(term_ms(Duration::ZERO), Ok(0));
        assert!(term_ms(seconds(86_401)).is_err());
        assert!(term_ms(Duration::from_micros(1)).is_err());
        assert_eq!(retry_ms(Duration::from_millis(100)), Ok(100));
        assert!(retry_ms(Duration::from_millis(99)).is_err());
        assert!(retry_ms(Duration::ZERO).is_err());
        assert_eq!(keepalive_s(Duration::ZERO), Ok(0));
        assert!(keepalive_s(Duration::from_millis(999)).is_err());
        assert!(keepalive_s(seconds(32_768)).is_err());
        assert_eq!(connections(8), Ok(8));
        assert!(connections(0).is_err());
        assert!(connections(9).is_err());
    }
}
