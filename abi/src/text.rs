// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Fixed-size strings that cross the boundary: UTF-8, padded with zero bytes.

use core::fmt;

/// Bytes in a [`Text`].
pub const TEXT_BYTES: usize = 64;

/// A short string by value, such as a payload's version.
///
/// The reader treats the bytes as hostile: [`Text::as_str`] never fails and never reads past the end.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Text {
    bytes: [u8; TEXT_BYTES],
}

impl Text {
    /// The empty string.
    pub const EMPTY: Self = Self { bytes: [0; TEXT_BYTES] };

    /// Takes as much of `text` as fits.
    pub const fn new(text: &str) -> Self {
        let source = text.as_bytes();
        let mut bytes = [0; TEXT_BYTES];
        let mut at = 0;
        while at < source.len() && at < TEXT_BYTES {
            bytes[at] = source[at];
            at += 1;
        }
        Self { bytes }
    }

    /// The longest valid UTF-8 prefix before the first zero byte.
    pub fn as_str(&self) -> &str {
        let end = self.bytes.iter().position(|byte| *byte == 0).unwrap_or(TEXT_BYTES);
        let used = self.bytes.get(..end).unwrap_or(&[]);
        match core::str::from_utf8(used) {
            Ok(text) => text,
            Err(error) => used
                .get(..error.valid_up_to())
                .and_then(|valid| core::str::from_utf8(valid).ok())
                .unwrap_or(""),
        }
    }

    /// True when no byte is used.
    pub fn is_empty(&self) -> bool {
        self.as_str().is_empty()
    }

    /// The same without control characters of ASCII, each of which becomes a space.
    pub fn one_line(mut self) -> Self {
        let end = self.as_str().len();
        let used = self.bytes.get_mut(..end).unwrap_or(&mut []);
        used.iter_mut().filter(|byte| byte.is_ascii_control()).for_each(|byte| *byte = b' ');
        self
    }

    /// The raw bytes, as they stand in an image.
    pub const fn to_bytes(self) -> [u8; TEXT_BYTES] {
        self.bytes
    }

    /// Takes raw bytes, as they stand in an image.
    pub const fn from_bytes(bytes: [u8; TEXT_BYTES]) -> Self {
        Self { bytes }
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}
