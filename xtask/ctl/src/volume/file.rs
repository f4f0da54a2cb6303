// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A TOML file of volumes: what it says, or where it is wrong. Pure.
//!
//! `[defaults]` holds what a volume or a target does not say itself; then there is one `[[volume]]` for each
//! volume. A target is a string, or a table with `at` and what is special about it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use atom_payload::shape::MAX_VOLUMES;
use atom_payload::spec::OnFailure;
use toml::de::{DeTable, DeValue};
use toml::Spanned;

use super::name;
use super::target::{self, Agreed, Target};
use super::wanted::{layout, Fault, Wanted};
use crate::quantity::{parse_bytes, parse_duration};

/// Longest file, in bytes.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// A volume of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// The volume.
    pub volume: Wanted,
    /// The line on which it begins, from 1.
    pub line: usize,
    /// The lines of its fields, as they are named in a [`Fault`].
    lines: BTreeMap<String, usize>,
}

impl Listed {
    /// Where a fault of it is.
    pub fn wrong(&self, fault: Fault) -> Wrong {
        let line = self.lines.get(&fault.field).copied().unwrap_or(self.line);
        let volume = Some(self.volume.name.as_str().to_owned());
        Wrong { line, volume, field: Some(fault.field), why: fault.why }
    }
}

/// Where a file is wrong, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wrong {
    /// The line, from 1.
    pub line: usize,
    /// The volume, where it has a name already; `volume 3` where it has none.
    pub volume: Option<String>,
    /// The field.
    pub field: Option<String>,
    /// Why.
    pub why: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        if let Some(volume) = &self.volume {
            write!(f, ", volume {volume}")?;
        }
        if let Some(field) = &self.field {
            write!(f, ", {field}")?;
        }
        write!(f, ": {}", self.why)
    }
}

/// Reads the text of a file.
pub fn parse(text: &str) -> Result<Vec<Listed>, Wrong> {
    if text.len() > MAX_FILE_BYTES {
        let why = format!("the file is longer than {MAX_FILE_BYTES} bytes");
        return Err(Wrong { line: 1, volume: None, field: None, why });
    }
    let lines = Lines::of(text);
    let document = DeTable::parse(text).map_err(|error| Wrong {
        line: lines.at(&error.span().unwrap_or_default()),
        volume: None,
        field: None,
        why: error.message().trim().replace('\n', ", "),
    })?;
    let mut top = Fields::of(document.get_ref(), "", &lines);
    let outside = |(line, fault): Misplaced| Wrong {
        line,
        volume: None,
        field: Some(fault.field),
        why: fault.why,
    };
    let defaults = match top.table("defaults").map_err(outside)? {
        Some(table) => {
            let mut fields = Fields::of(table, "", &lines);
            let read = Defaults::read(&mut fields, Defaults::NONE).and_then(|read| {
                fields.end()?;
                Ok(read)
            });
            read.map_err(|(line, fault)| {
                outside((line, Fault { field: format!("defaults.{}", fault.field), ..fault }))
            })?
        }
        None => Defaults::NONE,
    };
    let tables = top.tables("volume").map_err(outside)?;
    top.end().map_err(outside)?;
    if tables.len() > MAX_VOLUMES {
        let why = format!("{} volumes: a payload has at most {MAX_VOLUMES}", tables.len());
        return Err(Wrong { line: 1, volume: None, field: Some("volume".to_owned()), why });
    }
    let mut listed: Vec<Listed> = Vec::new();
    for (index, (table, line)) in tables.into_iter().enumerate() {
        let one =
            read_volume(table, line, defaults, &lines).map_err(|(name, (line, fault))| Wrong {
                line,
                volume: Some(name.unwrap_or_else(|| index.saturating_add(1).to_string())),
                field: Some(fault.field),
                why: fault.why,
            })?;
        if let Some(first) = listed.iter().find(|other| other.volume.name == one.volume.name) {
            let why = format!("there is a volume of this name on line {} already", first.line);
            return Err(one.wrong(Fault::new("name", why)));
        }
        one.volume.check().map_err(|fault| one.wrong(fault))?;
        listed.push(one);
    }
    Ok(listed)
}

/// Something that is wrong, with its line.
type Misplaced = (usize, Fault);

/// What a volume or a target does not say itself.
#[derive(Clone, Copy)]
struct Defaults {
    agreed: Agreed,
    block_bytes: Option<u32>,
    hw_queues: u16,
    queue_depth: u16,
    polled: bool,
}

impl Defaults {
    const NONE: Self = Self {
        agreed: Agreed::DEFAULT,
        block_bytes: None,
        hw_queues: 0,
        queue_depth: 0,
        polled: false,
    };

    fn read(fields: &mut Fields<'_>, over: Self) -> Result<Self, Misplaced> {
        Ok(Self {
            agreed: read_agreed(fields, over.agreed)?,
            block_bytes: fields.bytes("block-size")?.map_or(
                Ok(over.block_bytes),
                |(bytes, line)| {
                    u32::try_from(bytes).map(Some).map_err(|_| {
                        (line, Fault::new("block-size", format!("{bytes} is too much")))
                    })
                },
            )?,
            hw_queues: fields.number("hw-queues")?.unwrap_or(over.hw_queues),
            queue_depth: fields.number("queue-depth")?.unwrap_or(over.queue_depth),
            polled: fields.flag("polled")?.unwrap_or(over.polled),
        })
    }
}

fn read_agreed(fields: &mut Fields<'_>, over: Agreed) -> Result<Agreed, Misplaced> {
    let mut agreed = over;
    let terms = &mut agreed.terms;
    if let Some((text, line)) = fields.text("on-failure")? {
        terms.on_failure = policy(text).map_err(|why| (line, fields.fault("on-failure", why)))?;
    }
    for (key, place, convert) in [
        (
            "deadline",
            &mut terms.deadline_ms,
            target::term_ms as fn(Duration) -> Result<u32, String>,
        ),
        ("answer-timeout", &mut terms.answer_ms, target::term_ms),
        ("retry-max", &mut terms.retry_ms, target::retry_ms),
        ("keepalive", &mut agreed.keepalive_s, target::keepalive_s),
    ] {
        if let Some((time, line)) = fields.time(key)? {
            *place = convert(time).map_err(|why| (line, fields.fault(key, why)))?;
        }
    }
    if let Some(retries) = fields.number("retries")? {
        terms.retries = retries;
    }
    let line = fields.line_of("connections");
    if let Some(number) = fields.number("connections")? {
        agreed.connections =
            target::connections(number).map_err(|why| (line, fields.fault("connections", why)))?;
    }
    Ok(agreed)
}

/// The policy of this name.
pub fn policy(text: &str) -> Result<OnFailure, String> {
    [OnFailure::Hold, OnFailure::Error]
        .into_iter()
        .find(|policy| policy.name() == text)
        .ok_or_else(|| format!("{text:?} is no policy: use hold or error"))
}

/// Reads one volume. An error comes with its name, when that is known.
fn read_volume(
    table: &DeTable<'_>,
    line: usize,
    defaults: Defaults,
    lines: &Lines,
) -> Result<Listed, (Option<String>, Misplaced)> {
    let mut fields = Fields::of(table, "", lines);
    fields.line = line;
    let missing = |field: &str| (line, Fault::new(field, "it is missing"));
    let named = fields.text("name").and_then(|found| found.ok_or_else(|| missing("name")));
    let (text, name_line) = named.map_err(|wrong| (None, wrong))?;
    let name = name(text)
        .map_err(|problem| (None, (name_line, Fault::new("name", problem.in_one_line()))))?;
    let mut read = || {
        let (kind, layout_line) = fields.text("layout")?.unwrap_or(("linear", line));
        let chunk = fields.bytes("chunk")?;
        let layout = layout(kind, chunk.map(|(bytes, _)| bytes)).map_err(|fault| {
            let chunk_line = chunk.map_or(layout_line, |(_, line)| line);
            (if fault.field == "chunk" { chunk_line } else { layout_line }, fault)
        })?;
        let bytes = match fields.bytes("size")? {
            Some((bytes, line)) => {
                Some(target::size(bytes).map_err(|why| (line, Fault::new("size", why)))?)
            }
            None => None,
        };
        let defaults = Defaults::read(&mut fields, defaults)?;
        let values = fields.array("targets")?.ok_or_else(|| missing("targets"))?;
        let mut targets = Vec::new();
        let mut known: BTreeMap<String, usize> = BTreeMap::new();
        for (index, value) in values.iter().enumerate() {
            let line = lines.at(&value.span());
            known.insert(Fault::of_target(index, "").field, line);
            targets.push(read_target(index, value, line, defaults.agreed, lines)?);
        }
        known.extend(fields.lines());
        fields.end()?;
        let Defaults { block_bytes, hw_queues, queue_depth, polled, .. } = defaults;
        let volume =
            Wanted { name, layout, targets, bytes, block_bytes, hw_queues, queue_depth, polled };
        Ok(Listed { volume, line, lines: known })
    };
    read().map_err(|wrong| (Some(text.to_owned()), wrong))
}

fn read_target(
    index: usize,
    value: &Spanned<DeValue<'_>>,
    line: usize,
    agreed: Agreed,
    lines: &Lines,
) -> Result<Target, Misplaced> {
    let parsed = |text: &str, line: usize| {
        Target::parse(text).map_err(|why| (line, Fault::of_target(index, why)))
    };
    match value.get_ref() {
        DeValue::String(text) => Ok(Target { agreed, ..parsed(text, line)? }),
        DeValue::Table(table) => {
            let mut fields = Fields::of(table, &Fault::of_target(index, "").field, lines);
            fields.line = line;
            let (text, at_line) = fields
                .text("at")?
                .ok_or_else(|| (line, fields.fault("at", "it is missing".to_owned())))?;
            let target = parsed(text, at_line)?;
            let bytes = match fields.bytes("size")? {
                Some((_, line)) if target.bytes.is_some() => {
                    return Err((line, fields.fault("size", format!("{text} says it already"))))
                }
                Some((bytes, line)) => {
                    Some(target::size(bytes).map_err(|why| (line, fields.fault("size", why)))?)
                }
                None => target.bytes,
            };
            let agreed = read_agreed(&mut fields, agreed)?;
            fields.end()?;
            Ok(Target { bytes, agreed, ..target })
        }
        other => Err((
            line,
            Fault::of_target(index, format!("this is {}: use a string or a table", kind(other))),
        )),
    }
}

/// A table of which each field is taken once, so that one which nobody takes is known.
struct Fields<'t> {
    table: &'t DeTable<'t>,
    /// What stands before the name of a field in a fault.
    prefix: String,
    taken: Vec<&'static str>,
    lines: &'t Lines,
    /// The line on which it begins.
    line: usize,
}

impl<'t> Fields<'t> {
    fn of(table: &'t DeTable<'_>, prefix: &str, lines: &'t Lines) -> Self {
        Self { table, prefix: prefix.to_owned(), taken: Vec::new(), lines, line: 1 }
    }

    fn fault(&self, key: &str, why: String) -> Fault {
        let dot = if self.prefix.is_empty() { "" } else { "." };
        Fault::new(format!("{}{dot}{key}", self.prefix), why)
    }

    fn take(&mut self, key: &'static str) -> Option<(&'t DeValue<'t>, usize)> {
        self.taken.push(key);
        let value = self.table.get(key)?;
        Some((value.get_ref(), self.lines.at(&value.span())))
    }

    /// The line of a field, or else that of the table.
    fn line_of(&self, key: &str) -> usize {
        self.table.get(key).map_or(self.line, |value| self.lines.at(&value.span()))
    }

    /// The lines of all fields.
    fn lines(&self) -> impl Iterator<Item = (String, usize)> + '_ {
        self.table
            .iter()
            .map(|(key, value)| (key.get_ref().clone().into_owned(), self.lines.at(&value.span())))
    }

    fn other(&self, key: &str, line: usize, wanted: &str, found: &DeValue<'_>) -> Misplaced {
        (line, self.fault(key, format!("this is {}: use {wanted}", kind(found))))
    }

    fn text(&mut self, key: &'static str) -> Result<Option<(&'t str, usize)>, Misplaced> {
        match self.take(key) {
            None => Ok(None),
            Some((DeValue::String(text), line)) => Ok(Some((text, line))),
            Some((found, line)) => Err(self.other(key, line, "a string", found)),
        }
    }

    /// A size: a string such as `64K`, or a number of bytes.
    fn bytes(&mut self, key: &'static str) -> Result<Option<(u64, usize)>, Misplaced> {
        let (bytes, line) = match self.take(key) {
            None => return Ok(None),
            Some((DeValue::String(text), line)) => (parse_bytes(text), line),
            Some((DeValue::Integer(number), line)) => {
                let bytes = u64::from_str_radix(number.as_str(), number.radix());
                (bytes.map_err(|_| format!("{} is no size", number.as_str())), line)
            }
            Some((found, line)) => {
                return Err(self.other(key, line, "a size such as \"64M\"", found))
            }
        };
        bytes.map(|bytes| Some((bytes, line))).map_err(|why| (line, self.fault(key, why)))
    }

    fn time(&mut self, key: &'static str) -> Result<Option<(Duration, usize)>, Misplaced> {
        let Some((text, line)) = self.text(key)? else { return Ok(None) };
        match parse_duration(text) {
            Ok(time) => Ok(Some((time, line))),
            Err(why) => Err((line, self.fault(key, why))),
        }
    }

    fn number<N: TryFrom<u64>>(&mut self, key: &'static str) -> Result<Option<N>, Misplaced> {
        match self.take(key) {
            None => Ok(None),
            Some((DeValue::Integer(number), line)) => {
                u64::from_str_radix(number.as_str(), number.radix())
                    .ok()
                    .and_then(|number| N::try_from(number).ok())
                    .map(Some)
                    .ok_or_else(|| {
                        let why = format!("{} is not a number that this can be", number.as_str());
                        (line, self.fault(key, why))
                    })
            }
            Some((found, line)) => Err(self.other(key, line, "a whole number", found)),
        }
    }

    fn flag(&mut self, key: &'static str) -> Result<Option<bool>, Misplaced> {
        match self.take(key) {
            None => Ok(None),
            Some((DeValue::Boolean(flag), _)) => Ok(Some(*flag)),
            Some((found, line)) => Err(self.other(key, line, "true or false", found)),
        }
    }

    fn array(
        &mut self,
        key: &'static str,
    ) -> Result<Option<&'t [Spanned<DeValue<'t>>]>, Misplaced> {
        match self.take(key) {
            None => Ok(None),
            Some((DeValue::Array(array), _)) => Ok(Some(array)),
            Some((found, line)) => Err(self.other(key, line, "an array", found)),
        }
    }

    fn table(&mut self, key: &'static str) -> Result<Option<&'t DeTable<'t>>, Misplaced> {
        match self.take(key) {
            None => Ok(None),
            Some((DeValue::Table(table), _)) => Ok(Some(table)),
            Some((found, line)) => Err(self.other(key, line, &format!("[{key}]"), found)),
        }
    }

    /// An array of tables, each with its line.
    fn tables(&mut self, key: &'static str) -> Result<Vec<(&'t DeTable<'t>, usize)>, Misplaced> {
        let wanted = format!("[[{key}]]");
        let values = match self.take(key) {
            None => return Ok(Vec::new()),
            Some((DeValue::Array(array), _)) => array,
            Some((found, line)) => return Err(self.other(key, line, &wanted, found)),
        };
        let one = |value: &'t Spanned<DeValue<'t>>| {
            let line = self.lines.at(&value.span());
            match value.get_ref() {
                DeValue::Table(table) => Ok((table, line)),
                found => Err(self.other(key, line, &wanted, found)),
            }
        };
        values.iter().map(one).collect()
    }

    /// Refuses the first field that nobody took.
    fn end(&self) -> Result<(), Misplaced> {
        let unknown = self
            .table
            .iter()
            .map(|(key, _)| key)
            .filter(|key| !self.taken.contains(&key.get_ref().as_ref()))
            .min_by_key(|key| key.span().start);
        match unknown {
            None => Ok(()),
            Some(key) => Err((
                self.lines.at(&key.span()),
                self.fault(
                    key.get_ref(),
                    format!("there is no such field: known are {}", self.taken.join(", ")),
                ),
            )),
        }
    }
}

/// What a value is, in a message.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// Where the lines of a text begin.
struct Lines {
    starts: Vec<usize>,
}

impl Lines {
    fn of(text: &str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let starts = breaks.map(|(at, _)| at.saturating_add(1)).collect();
        Self { starts }
    }

    /// The line on which a span begins, from 1.
    fn at(&self, span: &Range<usize>) -> usize {
        self.starts.partition_point(|start| *start <= span.start).saturating_add(1)
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
