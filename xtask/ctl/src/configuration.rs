// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What the operator of a node has chosen: `/etc/atom/atom.toml`. A file that is not there chooses nothing; one with
//! a word that is not known is wrong as a whole, because what was meant by it would not happen.

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use toml::de::{DeTable, DeValue};
use toml::Spanned;

use crate::problem::{Problem, Result};
use crate::quantity::parse_duration;

/// Where the file is.
pub const PATH: &str = "/etc/atom/atom.toml";

/// How long a payload is watched that came with a package, when nobody says otherwise.
pub const DEFAULT_PACKAGE_SOAK: Duration = Duration::from_secs(10);

/// What the operator has chosen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Configuration {
    /// `[packages] hot-upgrade`: whether the node upgrades to a payload whose package is installed.
    pub hot_upgrade: bool,
    /// `[packages] soak`: how long the new payload is watched then before the commit.
    pub package_soak: Duration,
    /// `[boot] payload`: the version that is loaded at boot, instead of the one that was committed last.
    pub boot_payload: Option<String>,
}

impl Default for Configuration {
    fn default() -> Self {
        Self { hot_upgrade: true, package_soak: DEFAULT_PACKAGE_SOAK, boot_payload: None }
    }
}

/// Where the file is wrong, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wrong {
    /// The line, from 1.
    pub line: usize,
    /// Why.
    pub why: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

impl Configuration {
    /// Reads the file of this machine.
    pub fn read() -> Result<Self> {
        Self::read_from(Path::new(PATH))
    }

    fn read_from(path: &Path) -> Result<Self> {
        let wrong = |why: String| {
            Problem::usage(
                "The configuration of this node is not known",
                format!("{}, {why}", path.display()),
                "correct the file",
            )
        };
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(wrong(error.to_string())),
        };
        let text = String::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8".to_owned()))?;
        Self::parse(&text).map_err(|error| wrong(error.to_string()))
    }

    /// Reads the text of a file.
    pub fn parse(text: &str) -> std::result::Result<Self, Wrong> {
        let at = |span: Range<usize>| line_of(text, span);
        let document = DeTable::parse(text).map_err(|error| Wrong {
            line: at(error.span().unwrap_or_default()),
            why: error.message().trim().replace('\n', ", "),
        })?;
        let mut chosen = Self::default();
        for (section, value) in document.get_ref() {
            let DeValue::Table(table) = value.get_ref() else {
                return Err(unknown(section.get_ref(), at(section.span())));
            };
            for (key, value) in table {
                let (section, name) = (section.get_ref().as_ref(), key.get_ref().as_ref());
                let wrong = |why: String| Wrong {
                    line: at(value.span()),
                    why: format!("{section}.{name}: {why}"),
                };
                match (section, name) {
                    ("packages", "hot-upgrade") => {
                        chosen.hot_upgrade = boolean(value).map_err(wrong)?;
                    }
                    ("packages", "soak") => {
                        chosen.package_soak =
                            text_of(value).and_then(parse_duration).map_err(wrong)?;
                    }
                    ("boot", "payload") => {
                        chosen.boot_payload = Some(text_of(value).map_err(wrong)?.to_owned());
                    }
                    _ => return Err(unknown(&format!("{section}.{name}"), at(key.span()))),
                }
            }
            if table.is_empty() && !["packages", "boot"].contains(&section.get_ref().as_ref()) {
                return Err(unknown(section.get_ref(), at(section.span())));
            }
        }
        Ok(chosen)
    }
}

fn unknown(name: &str, line: usize) -> Wrong {
    Wrong {
        line,
        why: format!(
            "{name} is not known: use packages.hot-upgrade, packages.soak and boot.payload"
        ),
    }
}

fn boolean(value: &Spanned<DeValue<'_>>) -> std::result::Result<bool, String> {
    match value.get_ref() {
        DeValue::Boolean(chosen) => Ok(*chosen),
        _ => Err("use true or false".to_owned()),
    }
}

fn text_of<'v>(value: &'v Spanned<DeValue<'_>>) -> std::result::Result<&'v str, String> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text),
        _ => Err("use a text in quotation marks".to_owned()),
    }
}

/// The line, from 1, on which something begins.
fn line_of(text: &str, span: Range<usize>) -> usize {
    let before = text.as_bytes().get(..span.start).unwrap_or_default();
    before.iter().filter(|byte| **byte == b'\n').count().saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_chooses_what_it_says_and_leaves_the_rest() {
        assert_eq!(Configuration::parse("").unwrap(), Configuration::default());
        let some = Configuration::parse("# mine\n[packages]\nhot-upgrade = false\n").unwrap();
        assert!(!some.hot_upgrade);
        assert_eq!(some.package_soak, DEFAULT_PACKAGE_SOAK);
        let all = Configuration::parse("[packages]\nsoak = \"1m\"\n[boot]\npayload = \"2.0.0\"\n")
            .unwrap();
        assert!(all.hot_upgrade);
        assert_eq!(all.package_soak, Duration::from_secs(60));
        assert_eq!(all.boot_payload.as_deref(), Some("2.0.0"));
    }

    #[test]
    fn what_is_not_understood_is_told_with_its_line() {
        for (text, line, part) in [
            ("[packages]\n\nhot_upgrade = true\n", 3, "packages.hot_upgrade is not known"),
            ("[packages]\nhot-upgrade = \"no\"\n", 2, "true or false"),
            ("\n[packages]\nsoak = 10\n", 3, "quotation marks"),
            ("[packages]\nsoak = \"ten\"\n", 2, "packages.soak: "),
            ("[package]\n", 1, "package is not known"),
            ("hot-upgrade = true\n", 1, "hot-upgrade is not known"),
            ("[boot\n", 1, ""),
        ] {
            let wrong = Configuration::parse(text).unwrap_err();
            assert_eq!(wrong.line, line, "{text}");
            assert!(wrong.why.contains(part), "{text}: {wrong}");
        }
    }

    #[test]
    fn a_file_that_is_missing_chooses_nothing_and_one_that_is_wrong_is_named() {
        let path = std::env::temp_dir().join(format!("atomctl-conf-{}.toml", std::process::id()));
        assert_eq!(Configuration::read_from(&path).unwrap(), Configuration::default());
        fs::write(&path, "[packages]\nsoak = 1\n").unwrap();
        let problem = Configuration::read_from(&path).unwrap_err();
        assert!(problem.why.starts_with(&format!("{}, line 2", path.display())), "{problem}");
        fs::remove_file(&path).unwrap();
    }
}
