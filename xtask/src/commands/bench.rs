// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `cargo xtask bench`: how fast volumes are, beside what the kernel itself has.

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use atom_tests::bench::{Cell, Document, How};
use atom_tests::kernel_log;
use atom_tests::scenarios::Tools;

use crate::problem::failed;
use crate::sysroot::{Sysroot, Target};
use crate::vm::link::Stream;
use crate::vm::{accel, Vm, VmConfig};
use crate::{places, product};

/// How long the whole run may take in the guest.
const LIMIT: Duration = Duration::from_secs(3 * 3600);

/// Measures, in a guest of its own.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// NBD volumes beside the kernel's NBD client, linear and striped ones beside device mapper's.
    Volumes {
        /// Three short pairs of measurements instead of ten: for a first look.
        #[arg(long)]
        quick: bool,
        /// Count instructions instead of time, which is the same each time, on a busy machine too; without the setups
        /// that wait for the host.
        #[arg(long, conflicts_with = "quick")]
        count: bool,
        /// Only the setups whose names contain this.
        #[arg(long, value_name = "NAME", default_value = "")]
        only: String,
        /// Print all measurements as one JSON document instead of a table.
        #[arg(long)]
        json: bool,
    },
}

pub fn run(args: &Args, target: &Target) -> Result<ExitCode> {
    let What::Volumes { quick, count, ref only, json } = args.what;
    let how = match (quick, count) {
        (true, _) => How::Quick,
        (false, true) => How::Counted,
        (false, false) => How::Thorough,
    };
    let sysroot = Sysroot::open(target)?;
    let initramfs = product::guest(&sysroot)?;
    let config = VmConfig {
        memory_mib: 3072,
        disks_mib: vec![256, 256],
        tools: Tools::Large,
        counted: count,
        ..VmConfig::named("bench-volumes")
    };
    let vm = Vm::boot(&sysroot, &initramfs, &config)?;
    let mut text = String::new();
    let argv = ["/init", "bench", how.name(), only];
    let code = vm.exec(&argv, LIMIT, |stream, line| match stream {
        Stream::Stdout => text = line.to_owned(),
        Stream::Stderr => eprintln!("  {}", line.strip_prefix("step: ").unwrap_or(line)),
    })?;
    let log = vm.kernel_log()?;
    let log_file = vm.dir().join("kernel.log");
    std::fs::write(&log_file, &log)?;
    let findings = kernel_log::scan(&log, &[] as &[&str]);
    vm.poweroff()?;
    if let Some(finding) = findings.first() {
        return Err(failed(
            "the guest's kernel complained",
            format!("{} ({})", finding.text, finding.meaning),
            format!("read line {} of {}", finding.line, log_file.display()),
        ));
    }
    anyhow::ensure!(code == 0, "the guest's program exited with {code}; what it said stands above");
    let document: Document =
        serde_json::from_str(&text).with_context(|| format!("this is no result: {text}"))?;
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let file = places::target().join("bench").join(format!("volumes-{seconds}.json"));
    let pretty = serde_json::to_string_pretty(&document)?;
    places::write_whole(&file, pretty.as_bytes())?;
    if json {
        println!("{pretty}");
    } else {
        let accel = if accel::find(&sysroot)?.kvm { "KVM" } else { "TCG" };
        print!("{}", table(&document, accel));
    }
    eprintln!("all measurements are in {}", file.display());
    Ok(ExitCode::SUCCESS)
}

/// A table in Markdown, as it goes into the documents.
fn table(document: &Document, accel: &str) -> String {
    let Document { kernel, payload, milliseconds, .. } = document;
    if document.counted {
        let mut text = format!(
            "Kernel {kernel}, payload {payload}, instructions of the whole guest, fio and the server included.\n\n\
             | setup | workload | depth | ours, per request | theirs, per request | speed, ours to theirs |\n\
             | --- | --- | ---: | ---: | ---: | ---: |\n"
        );
        document.cells.iter().for_each(|cell| text.push_str(&counted_row(cell)));
        return text;
    }
    let pairs = document.cells.first().map_or(0, |cell| cell.ours.len());
    let mut text = format!(
        "Kernel {kernel}, payload {payload}, {accel}, {pairs} pairs of {milliseconds} ms each.\n\n\
         | setup | workload | depth | ours, IOPS | theirs, IOPS | ratio | middle half | all pairs |\n\
         | --- | --- | ---: | ---: | ---: | ---: | --- | --- |\n"
    );
    document.cells.iter().for_each(|cell| text.push_str(&row(cell)));
    text
}

/// In a second of a clock that counts there are so many instructions.
const INSTRUCTIONS: f64 = 1e9;

fn depth(cell: &Cell) -> String {
    match cell.batch {
        1 => cell.depth.to_string(),
        batch => format!("{} by {batch}", cell.depth),
    }
}

fn counted_row(cell: &Cell) -> String {
    let Some(summary) = cell.summary() else { return String::new() };
    format!(
        "| {} | {} | {} | {:.0} | {:.0} | {:.2} |\n",
        cell.setup,
        cell.workload,
        depth(cell),
        INSTRUCTIONS / summary.ours,
        INSTRUCTIONS / summary.theirs,
        summary.ratio
    )
}

fn row(cell: &Cell) -> String {
    let Some(summary) = cell.summary() else { return String::new() };
    let (first, third) = summary.quartiles;
    let (least, most) = summary.range;
    format!(
        "| {} | {} | {} | {:.0} | {:.0} | {:.2} | {first:.2} to {third:.2} | {least:.2} to {most:.2} |\n",
        cell.setup, cell.workload, depth(cell), summary.ours, summary.theirs, summary.ratio
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_for_each_cell_with_its_ratio() {
        let cell = Cell {
            setup: "a / b".to_owned(),
            workload: "read".to_owned(),
            depth: 32,
            batch: 1,
            ours: vec![150.0, 50.0, 100.0],
            theirs: vec![100.0, 100.0, 100.0],
        };
        let document = Document {
            schema: String::new(),
            kernel: "7.2".to_owned(),
            payload: "2.1.0".to_owned(),
            counted: false,
            milliseconds: 2000,
            cells: vec![cell],
        };
        let text = table(&document, "TCG");
        let wanted = "| a / b | read | 32 | 100 | 100 | 1.00 | 0.75 to 1.25 | 0.50 to 1.50 |\n";
        assert!(text.ends_with(wanted), "{text}");
        let counted = table(&Document { counted: true, ..document }, "TCG");
        assert!(
            counted.ends_with("| a / b | read | 32 | 10000000 | 10000000 | 1.00 |\n"),
            "{counted}"
        );
        assert!(text.starts_with("Kernel 7.2, payload 2.1.0, TCG, 3 pairs of 2000 ms each."));
    }
}
