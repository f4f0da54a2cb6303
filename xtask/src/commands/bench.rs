// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `cargo xtask bench`: how long an upgrade is seen, and how fast devices are, beside what the kernel itself has.

use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{ensure, Context, Result};
use atom_tests::bench::{Document, How, Suite};

use crate::bench::{self, page, table, targets};
use crate::sysroot::{Sysroot, Target};
use crate::vm::accel;
use crate::{places, revision};

/// The document with the figures, and the lines between which they are.
const FIGURES: &str = "docs/performance.md";
const BEGIN: &str = "<!-- written by `cargo xtask bench all --write`: begin -->\n";
const END: &str = "<!-- written by `cargo xtask bench all --write`: end -->\n";

/// Suites, and how they are measured, of which the tables and the page are made.
const ALL: [(Suite, How); 7] = [
    (Suite::Pause, How::Thorough),
    (Suite::Scale, How::Thorough),
    (Suite::Size, How::Thorough),
    (Suite::Path, How::Thorough),
    (Suite::Path, How::Counted),
    (Suite::Volumes, How::Thorough),
    (Suite::Volumes, How::Counted),
];

/// Measures, in a guest of its own.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// How long a change of code is seen: upgrades, warm and cold, beside device mapper's change of a table, ublk's change of
    /// a server, the kernel's NBD client's change of a connection, and a live patch.
    Pause(Measured),
    /// What a request costs: beside the same code in one module, null_blk, a ublk server that does nothing, and brd.
    Path(Measured),
    /// What grows with the number of devices and of open handles, and with the memory of a volume.
    Scale(Measured),
    /// How large the modules are, how long loading one takes, and what memory an upgrade and a volume take.
    Size(Measured),
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
    /// The same tables and the same page of what was measured last of each suite, without measuring anything.
    Report {
        /// Write the tables into docs/performance.md.
        #[arg(long)]
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
        What::Size(measured) => (Suite::Size, measured),
        What::Volumes(measured) => (Suite::Volumes, measured),
        What::Against { measured, .. } => (Suite::Against, measured),
        What::All { quick, write } => {
            let mut documents = Vec::new();
            for (suite, how) in ALL {
                let how = if *quick && how == How::Thorough { How::Quick } else { how };
                eprintln!("{}, {}", suite.name(), how.name());
                documents.push(keep(bench::measure(&sysroot, suite, how, "")?)?);
            }
            return report(&sysroot, &documents, *write);
        }
        What::Report { write } => return report(&sysroot, &kept()?, *write),
    };
    let how = match (measured.quick, measured.count) {
        (true, _) => How::Quick,
        (false, true) => How::Counted,
        (false, false) => How::Thorough,
    };
    let document = match &args.what {
        What::Against { revision, .. } => bench::measure_against(&sysroot, revision, how)?,
        _ => bench::measure(&sysroot, suite, how, &measured.only)?,
    };
    let document = keep_some(document, &measured.only)?;
    if measured.json {
        println!("{}", serde_json::to_string_pretty(&document)?);
    } else {
        print!("{}", table::of(&document, accel(&sysroot)?));
    }
    Ok(ExitCode::SUCCESS)
}

/// All that was measured as one text and one page.
fn report(sysroot: &Sysroot, documents: &[Document], write: bool) -> Result<ExitCode> {
    let accel = accel(sysroot)?;
    let kernel = documents.first().map_or("", |one| one.kernel.as_str());
    let about = format!("Kernel {kernel}, {accel}. {}", machine());
    let file = places::target().join("bench").join("report.html");
    places::write_whole(&file, page::of(documents, &about)?.as_bytes())?;
    let mut text = format!("{about}\n\n{}\n", targets::table(documents));
    for document in documents {
        let (suite, how) = (document.suite.name(), document.how.name());
        let table = table::of(document, accel);
        text.push_str(&format!("### Suite *{suite}*, {how}: {}\n\n{table}\n", document.commit));
    }
    if write {
        let path = places::repository().join(FIGURES);
        let before = std::fs::read_to_string(&path).context(FIGURES)?;
        places::write_whole(&path, between(&before, text.trim_end())?.as_bytes())?;
    } else {
        print!("{text}");
    }
    eprintln!("the page is {}", file.display());
    Ok(ExitCode::SUCCESS)
}

/// Of each suite what was kept last, as far as all of it was measured.
fn kept() -> Result<Vec<Document>> {
    let folder = places::target().join("bench");
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .with_context(|| format!("nothing was measured: there is no {}", folder.display()))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.sort();
    let mut documents = Vec::new();
    for (suite, how) in ALL {
        let begin = format!("{}-{}-", suite.name(), how.name());
        let Some(name) = newest(&names, &begin) else {
            eprintln!("note: {}, {} was not measured", suite.name(), how.name());
            continue;
        };
        let text = std::fs::read_to_string(folder.join(name))?;
        let document = serde_json::from_str(&text);
        documents.push(document.with_context(|| format!("{name} is no result of this version"))?);
    }
    ensure!(!documents.is_empty(), "nothing was measured yet; `cargo xtask bench all` does");
    Ok(documents)
}

/// The last one of sorted names that begin so; behind that stands a time, in digits.
fn newest<'a>(names: &'a [String], begin: &str) -> Option<&'a str> {
    let is_one = |name: &&String| {
        let time = name.strip_prefix(begin).and_then(|rest| rest.strip_suffix(".json"));
        time.is_some_and(|time| time.bytes().all(|byte| byte.is_ascii_digit()))
    };
    names.iter().rev().find(is_one).map(String::as_str)
}

/// Keeps all numbers of a measurement. One of some setups only has another name, by which [`kept`] does not take it.
fn keep_some(mut document: Document, only: &str) -> Result<Document> {
    document.commit = revision::commit_and_day()?;
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let some = if only.is_empty() { "" } else { "some-" };
    let name = format!("{}-{}-{some}{seconds}.json", document.suite.name(), document.how.name());
    let file = places::target().join("bench").join(name);
    places::write_whole(&file, serde_json::to_string_pretty(&document)?.as_bytes())?;
    eprintln!("all numbers are in {}", file.display());
    Ok(document)
}

/// Keeps all numbers of a whole suite.
fn keep(document: Document) -> Result<Document> {
    keep_some(document, "")
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
    fn the_newest_of_a_suite_is_the_one_with_the_latest_time_and_is_whole() {
        let names = ["pause-quick-9.json", "pause-thorough-1.json", "pause-thorough-2.json"];
        let some = ["pause-thorough-some-3.json", "pause-thorough-x.txt"];
        let names: Vec<String> = names.iter().chain(&some).map(|name| (*name).to_owned()).collect();
        assert_eq!(newest(&names, "pause-thorough-"), Some("pause-thorough-2.json"));
        assert_eq!(newest(&names, "scale-thorough-"), None);
    }

    #[test]
    fn tables_are_written_between_their_lines_and_nothing_else_changes() {
        let document = format!("# Title\n{BEGIN}old\n{END}the account\n");
        let new = between(&document, "new").expect("a place");
        assert_eq!(new, format!("# Title\n{BEGIN}\nnew\n{END}the account\n"));
        assert_eq!(between(&new, "new").expect("a place"), new);
        assert!(between("# Title\n", "new").is_err());
    }
}
