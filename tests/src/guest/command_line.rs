// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What the host tells the guest with the kernel's command line.

use anyhow::{Context, Result};

/// The words of the kernel's command line that are meant for us: those that begin with `atom.`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    words: Vec<(String, String)>,
}

impl CommandLine {
    /// Reads the running kernel's.
    pub fn read() -> Result<Self> {
        let text = std::fs::read_to_string("/proc/cmdline").context("cannot read /proc/cmdline")?;
        Ok(Self::parse(&text))
    }

    /// Parses one.
    pub fn parse(text: &str) -> Self {
        let words = text.split_whitespace().filter_map(|word| {
            let word = word.strip_prefix("atom.")?;
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            Some((name.to_owned(), value.to_owned()))
        });
        Self { words: words.collect() }
    }

    /// The value of `atom.<name>`; empty when it stands without one.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.words.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The parts of a value that is a list with commas.
    pub fn list(&self, name: &str) -> impl Iterator<Item = &str> {
        let value = self.value(name).unwrap_or_default();
        value.split(',').filter(|part| !part.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_words_are_read() {
        let line =
            CommandLine::parse("console=ttyS0 atom.shell atom.release=7.2 atom.modprobe=xfs,nbd\n");
        assert_eq!(line.value("shell"), Some(""));
        assert_eq!(line.value("release"), Some("7.2"));
        assert_eq!(line.list("modprobe").collect::<Vec<_>>(), ["xfs", "nbd"]);
        assert_eq!(line.value("console"), None);
        assert_eq!(line.list("none").count(), 0);
    }
}
