// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `cargo xtask test`: the host's tests, the gates, and each scenario in a guest of its own.

use std::io::Write;
use std::num::NonZeroUsize;
use std::panic;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use anyhow::{ensure, Result};
use atom_tests::matrix::plan::Shard;
use atom_tests::scenarios::{Description, Tools};

use crate::sysroot::{Sysroot, Target};
use crate::testing::{self, benchmark, fleet, gates, matrix, scenario, streams, Verdict};
use crate::{host, node, places, problem, product, programs};

/// The name and version of the document that `--json` prints.
const SCHEMA: &str = "atom.test-report/1";

/// Space for all that the tests build and boot from nothing, in GiB; and for some of them, when most of it is there.
const SPACE: u64 = 6;
const SPACE_FOR_SOME: u64 = 1;

/// Runs all tests, or those whose name contains one of the filters.
#[derive(clap::Args)]
pub struct Args {
    /// Parts of the names of the tests to run.
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
    /// Only what needs neither the kernel's build system nor a guest.
    #[arg(long, conflicts_with = "vm_only")]
    host_only: bool,
    /// Only the scenarios.
    #[arg(long)]
    vm_only: bool,
    /// Print the scenarios instead of running them.
    #[arg(long)]
    list: bool,
    /// Run each scenario so many times.
    #[arg(long, value_name = "N", default_value_t = 1)]
    repeat: u32,
    /// Run so many scenarios, or machines of the matrix, beside each other. Usually one a processor, as far as the memory goes.
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Do what takes long as often as it should be done: fifty cuts of the power instead of three, fifty upgrades each way with
    /// sixteen devices instead of ten.
    #[arg(long)]
    slow: bool,
    /// Only the matrix of faults: a covering of pairs, or every cell; with filters, the cells whose name contains one. What ran and what did not is in report.md in target/matrix/pruned or full.
    #[arg(long, value_name = "EXTENT", conflicts_with_all = ["host_only", "list"])]
    matrix: Option<matrix::Extent>,
    /// With --matrix: only the I-th of N parts.
    #[arg(long, value_name = "I/N", requires = "matrix")]
    shard: Option<Shard>,
    /// With --matrix: go on where the last run has ended.
    #[arg(long, requires = "matrix")]
    resume: bool,
    /// With --matrix: begin no boot after this time, as 90m. What has not run shows as not run.
    #[arg(long, value_name = "TIME", requires = "matrix", value_parser = humantime::parse_duration)]
    within: Option<Duration>,
    /// With --matrix full: write the table to docs/matrix.md, and the cells that have passed to docs/matrix-cells.txt.
    #[arg(long, requires = "matrix")]
    write: bool,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

impl Args {
    fn wants(&self, name: &str) -> bool {
        testing::is_meant(&self.filters, name)
    }
}

pub fn run(args: &Args, target: &Target) -> Result<ExitCode> {
    if args.list {
        return list(args).map(|()| ExitCode::SUCCESS);
    }
    std::fs::create_dir_all(places::target())?;
    host::require_space(
        &places::target(),
        if args.filters.is_empty() && !args.vm_only { SPACE } else { SPACE_FOR_SOME },
        "the host's tests, the modules, the fuzzers and the guests' disks are in it",
    )?;
    let mut verdicts = Vec::new();
    let mut report = |verdict: Verdict| {
        verdict.show();
        verdicts.push(verdict);
    };
    if let Some(extent) = args.matrix {
        ensure!(
            !args.write || extent == matrix::Extent::Full,
            "--write is about the documents of the full matrix: give --matrix full"
        );
        let sysroot = Sysroot::open(target)?;
        programs::build()?;
        let wish = matrix::Wish {
            extent,
            shard: args.shard,
            filters: &args.filters,
            resume: args.resume,
            within: args.within,
            jobs: args.jobs.unwrap_or_else(streams::usual),
            write: args.write,
        };
        report(matrix::run(&sysroot, &product::guest(&sysroot)?, &wish));
        return print(args, &verdicts);
    }
    // What runs on the host is the same whatever kernel is asked for.
    let vm_only = args.vm_only || target.flavour().is_some();
    // What guests need is fetched and built beside the gates that need Cargo alone: neither keeps all processors busy.
    let sysroot = thread::scope(|scope| {
        let opens = (!args.host_only).then(|| scope.spawn(|| Sysroot::open(target)));
        if !vm_only {
            gates::host_side(|name| args.wants(name), &mut report)?;
        }
        let joined = |opens: ScopedJoinHandle<'_, _>| match opens.join() {
            Ok(sysroot) => sysroot,
            Err(panicked) => panic::resume_unwind(panicked),
        };
        opens.map(joined).transpose()
    })?;
    if let Some(sysroot) = sysroot {
        if !vm_only {
            let report = Mutex::new(&mut report);
            let tell = |verdict| (report.lock().unwrap_or_else(PoisonError::into_inner))(verdict);
            // The first has one thing to do at a time.
            thread::scope(|scope| {
                scope.spawn(|| gates::collection(&sysroot, |name| args.wants(name), tell));
                gates::kernel_side(&sysroot, |name| args.wants(name), tell)
            })?;
        }
        scenarios(args, &sysroot, &mut report)?;
    }
    print(args, &verdicts)
}

/// Prints what became of all of them.
fn print(args: &Args, verdicts: &[Verdict]) -> Result<ExitCode> {
    let failed = verdicts.iter().filter(|v| !v.passed).count();
    let passed = verdicts.len() - failed;
    if verdicts.is_empty() {
        return Err(problem::refused(
            "no test was run",
            format!("no name contains `{}`", args.filters.join("` or `")),
            "see the scenarios with `cargo xtask test --list`",
        ));
    }
    if args.json {
        let document = serde_json::json!({
            "schema": SCHEMA,
                "passed": passed,
            "failed": failed,
            "tests": verdicts,
        });
        println!("{}", serde_json::to_string_pretty(&document)?);
        eprintln!("{passed} passed, {failed} failed");
    } else {
        println!("{passed} passed, {failed} failed");
    }
    Ok(ExitCode::from(u8::from(failed > 0)))
}

fn scenarios(args: &Args, sysroot: &Sysroot, mut report: impl FnMut(Verdict) + Send) -> Result<()> {
    programs::build()?;
    let mut wanted = scenario::all()?;
    let all = args.slow || !args.filters.is_empty();
    wanted.retain(|description| args.wants(&description.name) && (all || !description.only_slow));
    let flavour = sysroot.flavour().map(|flavour| flavour.name());
    wanted.retain(|description| {
        // A node's packages are for the stock kernel.
        let packed = description.tools == Tools::Node && flavour.is_some();
        let runs = description.kernel.is(flavour) && !packed;
        if !runs {
            eprintln!("not run  {} (not on this kernel)", description.name);
        }
        runs
    });
    let fleet = args.wants(fleet::NAME) && flavour.is_none();
    let matrix = args.wants(matrix::NAME);
    let benchmark = args.wants(benchmark::NAME) && flavour.is_none();
    if wanted.is_empty() && !fleet && !matrix && !benchmark {
        return Ok(());
    }
    let mut initramfs = product::guest(sysroot)?;
    if wanted.iter().any(|description| description.tools == Tools::Node) {
        let packages = node::packages::for_scenarios(sysroot)?;
        initramfs = initramfs.and_nodes(node::Parts::make(sysroot, Some(&packages))?);
    }
    let carry_out = |job: Job| match job {
        Job::Scenario(one) => scenario::run(sysroot, &initramfs, one, args.slow),
        Job::Matrix => matrix::run(sysroot, &initramfs, &matrix::Wish::USUAL),
        Job::Fleet => fleet::run(sysroot, args.slow),
        Job::Benchmark => benchmark::run(sysroot),
    };
    let jobs = args.jobs.unwrap_or_else(streams::usual);
    // One after the other: a scenario has one folder for its machine.
    for round in 1..=args.repeat {
        if args.repeat > 1 {
            eprintln!("round {round} of {}", args.repeat);
        }
        // The matrix takes longest, so it comes first. The fleet has guests of its own, and comes when the others leave it the
        // machine.
        let first = [matrix.then_some(Job::Matrix), benchmark.then_some(Job::Benchmark)];
        let all = wanted.iter().map(Job::Scenario).chain(fleet.then_some(Job::Fleet));
        let all = first.into_iter().flatten().chain(all);
        streams::run(all, jobs, carry_out, &mut report);
    }
    Ok(())
}

/// What is run in a guest, or in several.
enum Job<'a> {
    Scenario(&'a Description),
    Matrix,
    Benchmark,
    Fleet,
}

fn list(args: &Args) -> Result<()> {
    let all: Vec<_> = atom_tests::scenarios::ALL
        .iter()
        .map(|scenario| scenario.describe())
        .filter(|scenario| args.wants(&scenario.name))
        .collect();
    let text = if args.json {
        serde_json::to_string_pretty(&all)? + "\n"
    } else {
        let own = [
            (matrix::NAME, matrix::WHAT),
            (benchmark::NAME, benchmark::WHAT),
            (fleet::NAME, fleet::WHAT),
        ];
        let own = own.iter().filter(|(name, _)| args.wants(name)).copied();
        let scenarios = all.iter().map(|scenario| (&*scenario.name, &*scenario.what));
        scenarios.chain(own).map(|(name, what)| format!("{name}\n    {what}\n")).collect()
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever reads it has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}
