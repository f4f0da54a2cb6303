// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `cargo xtask bench`: how long an upgrade is seen, and how fast devices are, beside what the kernel itself has.

use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{ensure, Context, Result};
use atom_tests::bench::{Document, How, Suite};

use crate::bench::{self, page, table, targets};
use crate::command_line::CommandLine;
use crate::places;
use crate::sysroot::{Sysroot, Target};
use crate::vm::accel;

/// The document with the figures, and the lines between which they are.
const FIGURES: &str = "docs/performance.md";
const BEGIN: &str = "<!-- written by `cargo xtask bench all --write`: begin -->\n";
const END: &str = "<!-- written by `cargo xtask bench all --write`: end -->\n";

/// Measures, in a guest of its own.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// How long a change of code is seen: upgrades, warm and cold, beside device mapper's change of a table and ublk's change of
    /// a server.
    Pause(Measured),
    /// What a request costs: beside null_blk, a ublk server that does nothing, and brd.
    Path(Measured),
    /// What grows with the number of devices and of open handles, and with the memory of a volume.
    Scale(Measured),
    /// NBD volumes beside the kernel's NBD client, linear and striped ones beside device mapper's.
    Volumes(Measured),
    /// This tree beside an earlier commit: the pause, and what a request costs.
    Against {
        /// The commit, as git calls it.
        revision: String,
        #[command(flatten)]
        measured: Measured,
    },
    /// Everything, one after the other, and one page with drawings; it takes hours.
    All {
        /// Few and short rounds: for a first look, and to try the benchmark itself.
        #[arg(long)]
        quick: bool,
        /// Write the tables into docs/performance.md.
        #[arg(long, conflicts_with = "quick")]
        write: bool,
    },
}

#[derive(clap::Args)]
struct Measured {
    /// Few and short rounds: for a first look.
    #[arg(long)]
    quick: bool,
    /// Count instructions instead of time, which is the same each time, on a busy machine too; without the setups that wait for
    /// the host.
    #[arg(long, conflicts_with = "quick")]
    count: bool,
    /// Only the setups whose names contain this.
    #[arg(long, value_name = "NAME", default_value = "")]
    only: String,
    /// Print all measurements as one JSON document instead of a table.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, target: &Target) -> Result<ExitCode> {
    let sysroot = Sysroot::open(target)?;
    let (suite, measured) = match &args.what {
        What::Pause(measured) => (Suite::Pause, measured),
        What::Path(measured) => (Suite::Path, measured),
        What::Scale(measured) => (Suite::Scale, measured),
        What::Volumes(measured) => (Suite::Volumes, measured),
        What::Against { measured, .. } => (Suite::Against, measured),
        What::All { quick, write } => return all(&sysroot, *quick, *write),
    };
    let how = match (measured.quick, measured.count) {
        (true, _) => How::Quick,
        (false, true) => How::Counted,
        (false, false) => How::Thorough,
    };
    let document = keep(match &args.what {
        What::Against { revision, .. } => bench::measure_against(&sysroot, revision, how)?,
        _ => bench::measure(&sysroot, suite, how, &measured.only)?,
    })?;
    if measured.json {
        println!("{}", serde_json::to_string_pretty(&document)?);
    } else {
        print!("{}", table::of(&document, accel(&sysroot)?));
    }
    Ok(ExitCode::SUCCESS)
}

/// All suites, and what instructions say of the path.
fn all(sysroot: &Sysroot, quick: bool, write: bool) -> Result<ExitCode> {
    let how = if quick { How::Quick } else { How::Thorough };
    let wanted = [
        (Suite::Pause, how),
        (Suite::Scale, how),
        (Suite::Path, how),
        (Suite::Path, How::Counted),
        (Suite::Volumes, how),
        (Suite::Volumes, How::Counted),
    ];
    let mut documents = Vec::new();
    for (suite, how) in wanted {
        eprintln!("{}, {}", suite.name(), how.name());
        documents.push(keep(bench::measure(sysroot, suite, how, "")?)?);
    }
    let accel = accel(sysroot)?;
    let kernel = documents.first().map_or("", |one| one.kernel.as_str());
    let about = format!("{}, kernel {kernel}, {accel}. {}", commit()?, machine());
    let file = places::target().join("bench").join("report.html");
    places::write_whole(&file, page::of(&documents, &about)?.as_bytes())?;
    let mut text = format!("{about}\n\n{}\n", targets::table(&documents));
    for document in &documents {
        let (suite, how) = (document.suite.name(), document.how.name());
        text.push_str(&format!("### Suite *{suite}*, {how}\n\n{}", table::of(document, accel)));
    }
    if write {
        let path = places::repository().join(FIGURES);
        let before = std::fs::read_to_string(&path).context(FIGURES)?;
        places::write_whole(&path, between(&before, &text)?.as_bytes())?;
    } else {
        print!("{text}");
    }
    eprintln!("the page is {}", file.display());
    Ok(ExitCode::SUCCESS)
}

/// Keeps all numbers of a measurement.
fn keep(document: Document) -> Result<Document> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let name = format!("{}-{}-{seconds}.json", document.suite.name(), document.how.name());
    let file = places::target().join("bench").join(name);
    places::write_whole(&file, serde_json::to_string_pretty(&document)?.as_bytes())?;
    eprintln!("all numbers are in {}", file.display());
    Ok(document)
}

/// A document with another text between its two lines.
fn between(document: &str, text: &str) -> Result<String> {
    let (before, rest) = document.split_once(BEGIN).context("no place for the tables")?;
    let (_, after) = rest.split_once(END).context("no end of the place for the tables")?;
    Ok([before, BEGIN, "\n", text, "\n", END, after].concat())
}

fn accel(sysroot: &Sysroot) -> Result<&'static str> {
    Ok(if accel::find(sysroot)?.kvm { "KVM" } else { "TCG" })
}

/// Which tree, and of which day.
fn commit() -> Result<String> {
    let format = "--format=commit %h of %cs";
    let git = CommandLine::new("git").args(["log", "-1", format]);
    let text = git.dir(&places::repository()).read()?;
    ensure!(!text.trim().is_empty(), "there is no commit");
    Ok(text.trim().to_owned())
}

/// The host's processors.
fn machine() -> String {
    let text = std::fs::read_to_string(Path::new("/proc/cpuinfo")).unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let count = std::thread::available_parallelism().map_or(0, |count| count.get());
    format!("Host: {count} processors, {}.", model.map_or("unknown", |(_, name)| name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_written_between_their_lines_and_nothing_else_changes() {
        let document = format!("# Title\n{BEGIN}old\n{END}the account\n");
        let new = between(&document, "new").expect("a place");
        assert_eq!(new, format!("# Title\n{BEGIN}\nnew\n{END}the account\n"));
        assert_eq!(between(&new, "new").expect("a place"), new);
        assert!(between("# Title\n", "new").is_err());
    }
}
