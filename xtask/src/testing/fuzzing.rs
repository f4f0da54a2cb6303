// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Coverage-guided fuzzing of everything that reads hostile bytes: the targets in `fuzz/`, with libFuzzer.
//!
//! The stable compiler can instrument for it: the flags are those of cargo-fuzz without a sanitizer.

use std::num::NonZeroUsize;
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};

use crate::command_line::CommandLine;
use crate::progress::Step;
use crate::{host, places};

/// The targets: their names, and folders of the clone with inputs that they begin with.
const TARGETS: &[(&str, &[&str])] = &[
    ("image", &["fuzz/seeds/image", "payload/tests/golden"]),
    ("state", &["payload/tests/golden"]),
    ("command", &["fuzz/seeds/command"]),
    ("spec", &["fuzz/seeds/spec"]),
    ("module-file", &["fuzz/seeds/module-file"]),
    ("stamp", &["fuzz/seeds/stamp"]),
    ("volumes-toml", &["fuzz/seeds/volumes-toml"]),
    ("nbd-handshake", &["fuzz/seeds/nbd-handshake"]),
    ("nbd-reply", &["fuzz/seeds/nbd-reply"]),
    ("nbd-record", &["fuzz/seeds/nbd-record"]),
    ("ioctl", &["fuzz/seeds/ioctl"]),
    ("journal", &["fuzz/seeds/journal"]),
    ("trace", &["fuzz/seeds/trace"]),
    ("live", &["fuzz/seeds/live"]),
    ("atom-toml", &["fuzz/seeds/atom-toml"]),
];

/// Not to be left out: with it Cargo keeps build scripts and macros free of the instrumentation.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

const RUSTFLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg fuzzing",
    "-Ccodegen-units=1",
];

/// Longest input, in bytes.
const MAX_INPUT_BYTES: u32 = 16 << 10;
/// Seconds after which an input hangs.
const INPUT_SECONDS: u32 = 10;
/// Memory of the whole process, in MiB.
const PROCESS_MIB: u32 = 1024;

/// The names of the targets.
pub fn names() -> impl Iterator<Item = &'static str> {
    TARGETS.iter().map(|(name, _)| *name)
}

/// What a run of a target has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Figures {
    /// Inputs that were tried.
    pub executions: u64,
    /// Edges of the program that they have covered, those of earlier runs included.
    pub covered: u64,
    /// Edges that it has.
    pub edges: u64,
}

/// Builds all targets. Installs a C++ compiler when there is none, since libFuzzer is written in it.
pub fn build() -> Result<()> {
    if host::find("c++").is_none() {
        host::install_missing(&[("g++", Path::new("/usr/bin/c++"))])?;
    }
    let step = Step::start("build the fuzzers", &places::target().join("logs/fuzz-build.log"))?;
    let cargo = CommandLine::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
        .args(["build", "--release", "--bins", "--target", TRIPLE, "--target-dir"])
        .arg(dir())
        .env("RUSTFLAGS", RUSTFLAGS.join(" "))
        .dir(&places::repository().join("fuzz"));
    step.run(&cargo)?;
    step.done();
    Ok(())
}

/// Runs all targets that were built, one a processor, each for so many seconds.
pub fn run_all(seconds: u32) -> Result<Vec<(&'static str, Figures)>> {
    let left = Mutex::new(names());
    let figures = Mutex::new(Vec::new());
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
    let runs = || -> Result<()> {
        while let Some(target) = next() {
            let run = (target, run(target, seconds)?);
            figures.lock().unwrap_or_else(PoisonError::into_inner).push(run);
        }
        Ok(())
    };
    let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    thread::scope(|scope| {
        let streams: Vec<_> = (0..processors).map(|_| scope.spawn(runs)).collect();
        streams.into_iter().try_for_each(|stream| {
            stream.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked))
        })
    })?;
    Ok(figures.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Runs a target that was built for so many seconds. What it finds interesting is kept for the next run.
///
/// Fails when an input makes the target panic, hang or allocate too much; the input is kept beside the log.
pub fn run(target: &str, seconds: u32) -> Result<Figures> {
    let seeds = TARGETS
        .iter()
        .find_map(|(name, seeds)| (*name == target).then_some(*seeds))
        .with_context(|| format!("there is no target {target}"))?;
    let corpus = dir().join("corpus").join(target);
    std::fs::create_dir_all(&corpus)
        .with_context(|| format!("cannot create {}", corpus.display()))?;
    let log = places::target().join(format!("logs/fuzz-{target}.log"));
    let found = places::target().join(format!("logs/fuzz-{target}-"));
    let command = CommandLine::new(dir().join(TRIPLE).join("release").join(target))
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={MAX_INPUT_BYTES}"))
        .arg(format!("-timeout={INPUT_SECONDS}"))
        .arg(format!("-rss_limit_mb={PROCESS_MIB}"))
        .arg(format!("-artifact_prefix={}", found.display()))
        .arg("-print_final_stats=1")
        .arg(&corpus)
        .args(seeds.iter().map(|seeds| places::repository().join(seeds)));
    let step = Step::start(format!("fuzz {target} for {seconds} s"), &log)?;
    step.run(&command)?;
    step.done();
    let text =
        std::fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
    figures(&text).with_context(|| format!("{} tells no figures", log.display()))
}

/// Where fuzzers and what they have found are kept. Not with other builds: the compiler flags are others.
fn dir() -> PathBuf {
    places::target().join("fuzz")
}

/// The figures in what libFuzzer has printed; none when it has tried nothing or its program is not instrumented.
fn figures(log: &str) -> Option<Figures> {
    let after = |mark: &str| {
        let (_, rest) = log.rsplit_once(mark)?;
        rest.split_whitespace().next()?.trim_matches('(').parse::<u64>().ok()
    };
    let figures = Figures {
        executions: after("stat::number_of_executed_units:")?,
        covered: after(" cov: ")?,
        edges: after("INFO: Loaded 1 modules ")?,
    };
    (figures.executions > 0 && figures.covered > 0).then_some(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "INFO: Loaded 1 modules   (338 inline 8-bit counters): 338 [0x1, 0x2),\n\
        #2\tINITED cov: 17 ft: 17 corp: 1/1b exec/s: 0 rss: 27Mb\n\
        #364\tDONE   cov: 140 ft: 235 corp: 121/25Kb lim: 8192 exec/s: 18 rss: 27Mb\n\
        stat::number_of_executed_units: 364\n";

    #[test]
    fn the_figures_of_a_run_are_its_last_ones() {
        assert_eq!(figures(LOG), Some(Figures { executions: 364, covered: 140, edges: 338 }));
    }

    #[test]
    fn a_run_that_covers_nothing_has_no_figures() {
        assert_eq!(figures(&LOG.replace("cov: 140", "cov: 0")), None);
        assert_eq!(figures(&LOG.replace("units: 364", "units: 0")), None);
        assert_eq!(figures(""), None);
    }

    #[test]
    fn every_target_is_one_of_the_fuzz_crate_and_begins_with_something() {
        let manifest =
            std::fs::read_to_string(places::repository().join("fuzz/Cargo.toml")).unwrap();
        assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
        for (name, seeds) in TARGETS {
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
            for seeds in *seeds {
                let dir = places::repository().join(seeds);
                assert!(std::fs::read_dir(dir).unwrap().next().is_some(), "{seeds}");
            }
        }
    }
}
