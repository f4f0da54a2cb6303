// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Reads the text format as a strict scraper does.

use std::collections::{BTreeMap, BTreeSet};

/// The values by name and labels, or what is wrong with the first line that is.
pub fn parse(text: &str) -> Result<BTreeMap<String, f64>, String> {
    let mut reader = Reader::default();
    if !text.ends_with('\n') {
        return Err("the last line has no end".to_owned());
    }
    for (number, line) in text.lines().enumerate() {
        reader.line(line).map_err(|why| format!("line {}: {why}: {line}", number + 1))?;
    }
    Ok(reader.values)
}

#[derive(Default)]
struct Reader {
    helped: BTreeSet<String>,
    kinds: BTreeMap<String, String>,
    /// The metric whose lines these are: all of its lines are together.
    family: String,
    closed: BTreeSet<String>,
    values: BTreeMap<String, f64>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), String> {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').ok_or("no help")?;
            check_escapes(help, false)?;
            self.begin(name)?;
            return self.helped.insert(name.to_owned()).then_some(()).ok_or("helped twice".into());
        }
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').ok_or("no type")?;
            if name != self.family || !self.helped.contains(name) {
                return Err("a type without its help".to_owned());
            }
            if !["gauge", "counter"].contains(&kind)
                || (kind == "counter") != name.ends_with("_total")
            {
                return Err("a counter ends in _total, and nothing else does".to_owned());
            }
            self.kinds.insert(name.to_owned(), kind.to_owned());
            return Ok(());
        }
        self.sample(line)
    }

    fn begin(&mut self, name: &str) -> Result<(), String> {
        check_name(name)?;
        let before = std::mem::replace(&mut self.family, name.to_owned());
        self.closed.insert(before);
        if self.closed.contains(name) {
            return Err("its lines are not together".to_owned());
        }
        Ok(())
    }

    fn sample(&mut self, line: &str) -> Result<(), String> {
        let end = line.find(['{', ' ']).ok_or("no value")?;
        let (name, rest) = line.split_at(end);
        check_name(name)?;
        if name != self.family || !self.kinds.contains_key(name) {
            return Err("a value without its type".to_owned());
        }
        let value = match rest.strip_prefix('{') {
            Some(labels) => check_labels(labels)?,
            None => rest,
        };
        let number = value.strip_prefix(' ').ok_or("no space before the value")?;
        let number: f64 = number.parse().map_err(|_| "no number")?;
        if !number.is_finite() || number < 0.0 {
            return Err("no plain number".to_owned());
        }
        let key = line.rsplit_once(' ').map(|(key, _)| key.to_owned()).unwrap_or_default();
        self.values.insert(key, number).map_or(Ok(()), |_| Err("twice".to_owned()))
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let fits = name.starts_with("atom_") && name.chars().all(plain);
    fits.then_some(()).ok_or_else(|| format!("{name:?} is no name"))
}

/// Reads labels up to the closing brace, and returns what is behind it.
fn check_labels(text: &str) -> Result<&str, String> {
    let mut rest = text;
    let mut names = BTreeSet::new();
    loop {
        let (name, value) = rest.split_once("=\"").ok_or("no label")?;
        let letters = |c: char| c.is_ascii_lowercase() || c == '_';
        if name.is_empty() || !name.chars().all(letters) || !names.insert(name) {
            return Err(format!("{name:?} is no label, or there twice"));
        }
        let mut escape = false;
        let end = value.find(|c| {
            let ends = c == '"' && !escape;
            escape = c == '\\' && !escape;
            ends
        });
        let (value, behind) = value.split_at(end.ok_or("a label's value without an end")?);
        check_escapes(value, true)?;
        rest = behind.get(1..).unwrap_or_default();
        match rest.split_at_checked(1) {
            Some((",", more)) => rest = more,
            Some(("}", more)) => return Ok(more),
            _ => return Err("neither a comma nor a brace".to_owned()),
        }
    }
}

fn check_escapes(text: &str, quotes: bool) -> Result<(), String> {
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter == '\\' {
            match letters.next() {
                Some('\\' | 'n') => {}
                Some('"') if quotes => {}
                other => return Err(format!("\\{other:?} is no escape")),
            }
        }
    }
    Ok(())
}
