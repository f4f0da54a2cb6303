// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Colour, where there is somebody to see it.

use std::io::IsTerminal;

/// Colours text, or leaves it as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Paint {
    colour: bool,
}

impl Paint {
    /// No colour.
    pub const PLAIN: Self = Self { colour: false };

    /// Colour when `stream` is a terminal and the variable `NO_COLOR` is not set.
    pub fn for_stream(stream: &impl IsTerminal) -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { colour: stream.is_terminal() && !unwanted }
    }

    /// Something that is as it should be.
    pub fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    /// Something that needs somebody.
    pub fn bad(self, text: &str) -> String {
        self.with("1;31", text)
    }

    /// Something to take note of.
    pub fn notable(self, text: &str) -> String {
        self.with("33", text)
    }

    /// Something of less weight.
    pub fn faint(self, text: &str) -> String {
        self.with("2", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.colour && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_colour_text_stays_as_it_is() {
        assert_eq!(Paint::PLAIN.bad("x"), "x");
        assert_eq!(Paint { colour: true }.good("x"), "\x1b[32mx\x1b[0m");
        assert_eq!(Paint { colour: true }.good(""), "");
    }
}
