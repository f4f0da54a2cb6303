// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A run in a process of its own.
//!
//! It goes on by itself, and is not asked for one block after the other: what the oracle knows of the volumes is in its
//! memory, the load has to go on between blocks, and so it does not matter whether, or how long, somebody looks. The record
//! is a file; whoever looks says how many lines they have.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};

use super::record::{self, Ended, Event, Wanted};
use super::run::Run;
use crate::wait;

const FOLDER: &str = "/run/soak";
const WANTED: &str = "/run/soak/wanted.json";
const RECORD: &str = "/run/soak/record";
const PROCESS: &str = "/run/soak/pid";
const SAID: &str = "/run/soak/log";

/// How long a look waits for a line. Whoever looks comes back, so it bounds nothing but how often.
const LOOK: Duration = Duration::from_secs(10);

/// Starts a run, and returns while it goes on.
pub fn begin(wanted: &Path) -> Result<()> {
    ensure!(!Path::new(FOLDER).exists(), "there was a run in this boot already");
    fs::create_dir_all(FOLDER)?;
    let text = fs::read(wanted).with_context(|| format!("no {}", wanted.display()))?;
    fs::write(WANTED, text)?;
    File::create(RECORD)?;
    let said = File::create(SAID)?;
    let child = Command::new(std::env::current_exe()?)
        .args(["soak", "run"])
        .stdin(Stdio::null())
        .stdout(said.try_clone()?)
        .stderr(said)
        .process_group(0)
        .spawn()
        .context("cannot start a process for the run")?;
    Ok(fs::write(PROCESS, child.id().to_string())?)
}

/// The run itself. Its errors are in the record.
pub fn run() -> Result<()> {
    let wanted: Wanted = serde_json::from_str(&fs::read_to_string(WANTED)?)?;
    let mut record = File::options().append(true).open(RECORD)?;
    let mut write = |event: &Event| -> Result<()> {
        Ok(record.write_all(format!("{}\n", record::encode(event)?).as_bytes())?)
    };
    let error = match all(&wanted, &mut write) {
        Ok(ended) => return write(&Event::Ended(ended)),
        Err(error) => error,
    };
    write(&Event::Ended(Ended { error: Some(format!("{error:#}")), ..Ended::default() }))?;
    // Where I/O is held, threads of the load never end.
    std::process::exit(1)
}

fn all(wanted: &Wanted, write: &mut impl FnMut(&Event) -> Result<()>) -> Result<Ended> {
    let (mut run, begun) = Run::start(wanted)?;
    write(&Event::Begun(begun))?;
    let mut done = 0;
    while done < wanted.upgrades {
        let block = run.block(wanted.block().min(wanted.upgrades - done))?;
        done = block.upgrades;
        write(&Event::Block(block))?;
    }
    let done = run.end()?;
    Ok(Ended { ios: done.ios, slowest_io_us: done.slowest_us, error: None })
}

/// Prints the lines of the record behind the first `known`, as soon as there is one, or none after some time. An error
/// when the run is gone without having said how it ended.
pub fn look(known: usize) -> Result<()> {
    let mut fresh = Vec::new();
    // That there is none yet is no error: the next look waits again.
    let _ = wait::until("a line", LOOK, || {
        let runs = runs();
        fresh = lines_behind(&fs::read_to_string(RECORD).context("there is no run")?, known);
        Ok(!fresh.is_empty() || !runs)
    });
    if fresh.is_empty() && !runs() {
        let text = fs::read_to_string(RECORD)?;
        ensure!(
            has_ended(&text),
            "the run is gone: {}",
            fs::read_to_string(SAID).unwrap_or_default()
        );
    }
    fresh.iter().for_each(|line| println!("{line}"));
    Ok(())
}

/// Lines behind the first `known` that are whole.
fn lines_behind(text: &str, known: usize) -> Vec<String> {
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().skip(known).map(str::to_owned).collect()
}

fn has_ended(text: &str) -> bool {
    text.lines().last().and_then(record::decode).is_some_and(|last| matches!(last, Event::Ended(_)))
}

fn runs() -> bool {
    let number = fs::read_to_string(PROCESS).unwrap_or_default();
    // A process that has ended and that nobody waits for has no command line.
    !number.is_empty()
        && fs::read(format!("/proc/{number}/cmdline")).is_ok_and(|argv| !argv.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_line_is_none_yet() {
        assert_eq!(lines_behind("a\nb\nc", 0), ["a", "b"]);
        assert_eq!(lines_behind("a\nb\nc\n", 1), ["b", "c"]);
        assert!(lines_behind("a\n", 1).is_empty() && lines_behind("", 0).is_empty());
    }

    #[test]
    fn a_record_has_ended_with_its_last_line() {
        let ended = record::encode(&Event::Ended(Ended::default())).expect("a line");
        assert!(has_ended(&format!("x\n{ended}\n")));
        assert!(!has_ended("x\n") && !has_ended(""));
    }
}
