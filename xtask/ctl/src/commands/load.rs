// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `atomctl load`

use std::fmt::Write;
use std::path::PathBuf;

use super::adopt;
use super::output::Output;
use super::recorded::recorded;
use crate::critical::Critical;
use crate::journal::{Attempt, Kind, Origin};
use crate::module_file::{check, ModuleFile};
use crate::node::{Local, Node};
use crate::problem::{Exit, Problem, Result};
use crate::report::{failure_of, Handoff, LoadDocument};
use crate::text;
use crate::upgrade::{insert_payload, Site};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The payload to insert. It also takes over when no payload is live.
    file: PathBuf,
}

pub(super) fn run(output: &Output, args: &Args, origin: Origin) -> Result<Exit> {
    let node = Local::open()?;
    let document = bring(output, &node, &ModuleFile::read(&args.file)?, origin)?;
    output.show(&document, |document, paint| {
        let mut text = format!("payload {} is loaded", document.version);
        match &document.adopted {
            Some(adopted) => {
                let _ = write!(text, " and live\n{}", text::handoff(adopted, paint));
            }
            None => {
                let version = &document.version;
                let _ = writeln!(
                    text,
                    "; upgrade to {version} with atomctl upgrade {}",
                    args.file.display()
                );
            }
        }
        text
    })?;
    Ok(Exit::Done)
}

/// Inserts a payload, which takes over when none is live, and writes that to the journal. A boot also writes what became of
/// the attempts that the machine went down in: what serves now is what came of them.
pub(super) fn bring(
    output: &Output,
    node: &Local,
    file: &ModuleFile,
    origin: Origin,
) -> Result<LoadDocument> {
    let site = Site::survey(node)?;
    check(file, &site.release, &site.status, site.live())?;
    let from = site.live().map_or("", |live| live.version.as_str());
    let attempt = Attempt::begin(Kind::Load, origin, from, file.version());
    let settling = (origin == Origin::Boot).then(|| attempt.settling());
    recorded(output, attempt, || {
        let document = load(node, &site, file)?;
        let serves = settling.filter(|_| document.adopted.is_some());
        if let Some(Err(warning)) = serves.map(|settling| settling.settle(file.version(), false)) {
            output.warn(&warning);
        }
        Ok(document)
    })
}

fn load(node: &Local, site: &Site, file: &ModuleFile) -> Result<LoadDocument> {
    // I/O may be held, that of the disk which this program lies on included.
    let _critical = Critical::enter()?;
    let id = insert_payload(node, file)?;
    let adopted = match site.live() {
        Some(_) => None,
        None => Some(take_over(node, file, id)?),
    };
    Ok(LoadDocument {
        schema: LoadDocument::SCHEMA.to_owned(),
        module: file.name.clone(),
        version: file.version().to_owned(),
        adopted,
    })
}

/// Lets the new payload adopt. One that does not is removed again.
fn take_over(node: &Local, file: &ModuleFile, id: u32) -> Result<Handoff> {
    let report = node.adopt(id)?;
    let exit = adopt::exit(node.control(), &report);
    if exit == Exit::Done {
        return Ok(Handoff::of(&report));
    }
    let why = failure_of(&report).unwrap_or_else(|| "it did not take over".to_owned());
    let left = match node.remove(&file.name) {
        Ok(()) => String::new(),
        Err(problem) => format!("; {}", problem.in_one_line()),
    };
    let held = if exit == Exit::Attention { "; I/O is still held" } else { "" };
    Err(Problem::undone(
        format!("Payload {} was inserted and did not take over", file.version()),
        format!("{why}{left}{held}"),
        "read the kernel log (dmesg), and load a payload that reads the stored image",
    )
    .with_exit(exit))
}
