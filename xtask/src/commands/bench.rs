// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `cargo xtask bench`: how fast volumes are, beside what the kernel itself has.

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use atom_tests::bench::{Cell, Document};
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
        /// Print all measurements as one JSON document instead of a table.
        #[arg(long)]
        json: bool,
    },
}

pub fn run(args: &Args, target: &Target) -> Result<ExitCode> {
    let What::Volumes { quick, json } = args.what;
    let sysroot = Sysroot::open(target)?;
    let initramfs = product::guest(&sysroot)?;
    let config = VmConfig {
        memory_mib: 3072,
        disks_mib: vec![256, 256],
        tools: Tools::Large,
        ..VmConfig::named("bench-volumes")
    };
    let vm = Vm::boot(&sysroot, &initramfs, &config)?;
    let mut text = String::new();
    let argv = ["/init", "bench", if quick { "quick" } else { "thorough" }];
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
    let pairs = document.cells.first().map_or(0, |cell| cell.ours.len());
    let mut text = format!(
        "Kernel {}, payload {}, {accel}, {pairs} pairs of {} s each.\n\n\
         | setup | workload | depth | ours, IOPS | theirs, IOPS | ratio | middle half | all pairs |\n\
         | --- | --- | ---: | ---: | ---: | ---: | --- | --- |\n",
        document.kernel, document.payload, document.seconds
    );
    for cell in &document.cells {
        text.push_str(&row(cell));
    }
    text
}

fn row(cell: &Cell) -> String {
    let Some(summary) = cell.summary() else { return String::new() };
    let (first, third) = summary.quartiles;
    let (least, most) = summary.range;
    format!(
        "| {} | {} | {} | {:.0} | {:.0} | {:.2} | {first:.2} to {third:.2} | {least:.2} to {most:.2} |\n",
        cell.setup, cell.workload, cell.depth, summary.ours, summary.theirs, summary.ratio
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
            ours: vec![150.0, 50.0, 100.0],
            theirs: vec![100.0, 100.0, 100.0],
        };
        let document = Document {
            schema: String::new(),
            kernel: "7.2".to_owned(),
            payload: "2.1.0".to_owned(),
            seconds: 2,
            cells: vec![cell],
        };
        let text = table(&document, "TCG");
        let wanted = "| a / b | read | 32 | 100 | 100 | 1.00 | 0.75 to 1.25 | 0.50 to 1.50 |\n";
        assert!(text.ends_with(wanted), "{text}");
        assert!(text.starts_with("Kernel 7.2, payload 2.1.0, TCG, 3 pairs of 2 s each."));
    }
}
