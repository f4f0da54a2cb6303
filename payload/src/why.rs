// SPDX-License-Identifier: GPL-2.0

//! Reasons of a refusal, in memory of fixed size.

use core::fmt::{self, Write};

use kernel::prelude::*;

use crate::answers::MAX_WHY_BYTES;

/// Some words.
pub(crate) struct Why {
    bytes: [u8; MAX_WHY_BYTES],
    length: usize,
}

impl Why {
    /// As much of it as fits.
    pub(crate) fn new(words: fmt::Arguments<'_>) -> Self {
        let mut why = Self { bytes: [0; MAX_WHY_BYTES], length: 0 };
        // What does not fit is cut off.
        let _ = why.write_fmt(words);
        why
    }

    /// The words.
    pub(crate) fn as_str(&self) -> &str {
        let used = self.bytes.get(..self.length).unwrap_or(&[]);
        core::str::from_utf8(used).unwrap_or("")
    }
}

impl Write for Why {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let left = self.bytes.len().saturating_sub(self.length);
        let mut length = text.len().min(left);
        while !text.is_char_boundary(length) {
            length = length.saturating_sub(1);
        }
        let places = self.bytes.iter_mut().skip(self.length).take(length);
        places.zip(text.as_bytes()).for_each(|(place, byte)| *place = *byte);
        self.length = self.length.saturating_add(length);
        if length < text.len() {
            return Err(fmt::Error);
        }
        Ok(())
    }
}

/// Why something was refused.
pub(crate) struct Failure {
    /// For programs.
    pub(crate) error: Error,
    /// For people.
    pub(crate) why: Why,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let why = match error {
            e if e == ENOMEM => "memory is short",
            _ => "it failed",
        };
        Self { error, why: Why::new(format_args!("{why}")) }
    }
}
