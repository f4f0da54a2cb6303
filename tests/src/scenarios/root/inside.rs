// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The half of a scenario that is executed from the Atom device, as everything that it starts.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::Duration;

use anyhow::{bail, ensure, Context as _, Result};
use atom_abi::request::op;
use atomctl::journal::Kind;
use atomctl::node::{Local, Node};
use atomctl::report::{AttemptEntry, JournalDocument, Outcome, UpgradeReport};
use atomctl::volume;
use serde_json::{Map, Value};

use super::locked_folder::LockedFolder;
use crate::kept::keep;
use crate::load::files::Files;
use crate::new_root::number;
use crate::pressure::GROUP;
use crate::scenarios::upgrades::quantiles;
use crate::wait;

const ATOMCTL: &str = "/usr/bin/atomctl";
const SHELL: &str = "/bin/sh";
const JOURNAL: &str = "/var/lib/atom/journal";
/// The folder above the one of the journal.
const STATE: &str = "/var/lib";
/// Where the files of the workload are: on the root file system itself.
const FILES: &str = "/files";
/// There and back, so often.
const ROUNDS: usize = 2;
/// So many writes are kept until one is the file system's own.
const TRIES: usize = 16;
/// The deadline that a kept request lets pass.
const DEADLINE: &str = "300ms";
/// How long progress may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is done on the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Warm,
    Cold,
    Rollback,
    Abort,
}

impl Part {
    const ALL: [Self; 4] = [Self::Warm, Self::Cold, Self::Rollback, Self::Abort];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Cold => "cold",
            Self::Rollback => "rollback",
            Self::Abort => "abort",
        }
    }

    fn named(name: &str) -> Result<Self> {
        let part = Self::ALL.into_iter().find(|part| part.name() == name);
        part.with_context(|| format!("there is no part {name:?}"))
    }
}

/// The root file system with its load.
struct Root {
    node: Local,
    device: String,
    files: Files,
    pauses: Vec<u64>,
    /// The outcomes of all upgrades and rollbacks.
    outcomes: Vec<String>,
    /// A request of the disk does not end.
    stuck: bool,
    reads_for_the_tool: u64,
}

/// Does the part, and returns what was measured.
pub fn run(part: &str, device: &str) -> Result<Map<String, Value>> {
    let part = Part::named(part)?;
    let disk = number(device)?;
    for path in ["/", "/proc/self/exe", "/proc/1/exe", "/proc/1/root", ATOMCTL, SHELL, "/lib/atom"]
    {
        let found = fs::metadata(path).with_context(|| path.to_owned())?.dev();
        ensure!(found == disk, "{path} is on {found:#x}, not on {device} ({disk:#x})");
    }
    let mut root = Root {
        node: Local::open()?,
        device: device.to_owned(),
        files: Files::start(FILES.as_ref())?,
        pauses: Vec::new(),
        outcomes: Vec::new(),
        stuck: false,
        reads_for_the_tool: 0,
    };
    root.progress()?;
    match part {
        Part::Warm => root.there_and_back(&[])?,
        Part::Cold => root.there_and_back(&["--cold"])?,
        Part::Rollback => root.roll_back()?,
        Part::Abort => root.abort()?,
    }
    root.journal_is_true(disk)?;
    let mut facts = Map::new();
    facts.insert("pause_us".to_owned(), quantiles(&mut root.pauses));
    facts.insert("reads_for_the_tool".to_owned(), root.reads_for_the_tool.into());
    facts.insert("files_checked".to_owned(), root.files.stop()?.checked.into());
    Ok(facts)
}

impl Root {
    fn there_and_back(&mut self, how: &[&str]) -> Result<()> {
        for _ in 0..ROUNDS {
            for version in ["1.1.0", "1.0.0"] {
                self.upgrade(version, how, Outcome::Committed)?;
                self.serves(version)?;
            }
        }
        Ok(())
    }

    fn roll_back(&mut self) -> Result<()> {
        for _ in 0..ROUNDS {
            self.upgrade("1.1.0", &["--keep-parked"], Outcome::Switched)?;
            self.serves("1.1.0")?;
            self.atomctl_reports(&["rollback"], Outcome::Switched)?;
            self.serves("1.0.0")?;
            self.atomctl(&["unload", "1.1.0"], 0)?;
            // The old file is inserted again after a candidate that failed: the way back of a cold upgrade.
            for how in [&[][..], &["--cold"]] {
                self.upgrade("adopt", how, Outcome::RolledBack)?;
                self.serves("1.0.0")?;
            }
        }
        Ok(())
    }

    fn abort(&mut self) -> Result<()> {
        fs::create_dir_all(STATE)?;
        for how in [&[][..], &["--cold"]] {
            // Whoever waits for the disk in vain gives up after some seconds, each time: once is enough.
            let locked = if how.is_empty() {
                Some(self.stick()?)
            } else {
                self.keep_a_write()?;
                None
            };
            for again in [&[][..], &["--cold"]] {
                let how = [again, &["--deadline", DEADLINE]].concat();
                let report = self.upgrade("1.1.0", &how, Outcome::Aborted)?;
                ensure!(report.owed == Some(1), "{report:?}");
                ensure!(self.live()? == "9.0.0-stuck", "{} is live", self.live()?);
            }
            volume::release(self.node.control())?;
            self.stuck = false;
            locked.map(LockedFolder::unlock).transpose()?;
            self.serves("9.0.0-stuck")?;
            // At once, and the way back.
            self.upgrade("1.1.0", how, Outcome::Committed)?;
            self.serves("1.1.0")?;
            self.upgrade("stuck", how, Outcome::Committed)?;
            self.serves("9.0.0-stuck")?;
        }
        Ok(())
    }

    fn keep_a_write(&mut self) -> Result<()> {
        say("a write that does not end");
        keep(self.node.control(), op::WRITE, 1)?;
        self.stuck = true;
        Ok(())
    }

    /// A write does not end, and somebody who waits for that has the folder locked that the journal's is in.
    fn stick(&mut self) -> Result<LockedFolder> {
        for _ in 0..TRIES {
            self.keep_a_write()?;
            if let Some(locked) = LockedFolder::lock(STATE.as_ref())? {
                return Ok(locked);
            }
            say("it was one that only its file waits for");
            volume::release(self.node.control())?;
            self.stuck = false;
            self.progress()?;
        }
        bail!("none of {TRIES} writes was one of the file system's journal")
    }

    fn upgrade(&mut self, version: &str, how: &[&str], wanted: Outcome) -> Result<UpgradeReport> {
        let file = match version {
            release if release.starts_with(char::is_numeric) => {
                format!("/lib/atom/payload_{}.ko", release.replace('.', "_"))
            }
            variant => format!("/lib/atom/test/payload_test_{variant}.ko"),
        };
        // The file of the old module is looked for where the variants are, too.
        let folders = ["--dir", "/lib/atom", "--dir", "/lib/atom/test", "upgrade", &file];
        self.atomctl_reports(&[&folders, how].concat(), wanted)
    }

    /// Runs the tool and reads the report, which must have this outcome.
    fn atomctl_reports(&mut self, args: &[&str], wanted: Outcome) -> Result<UpgradeReport> {
        let code = i32::from(wanted.exit().code());
        let said = self.atomctl(args, code)?;
        let report: UpgradeReport =
            serde_json::from_str(&said).with_context(|| format!("{args:?}: {said}"))?;
        ensure!(report.outcome == wanted, "{args:?}: {report:?}");
        // A write that does not end can be the journal's own, which is told and changes nothing.
        let only_the_journal = |warning: &String| {
            self.stuck && warning.starts_with("the journal could not be written")
        };
        ensure!(report.warnings.iter().all(only_the_journal), "{args:?}: {report:?}");
        self.pauses.push(report.pause_us);
        self.outcomes.push(wanted.to_string());
        Ok(report)
    }

    /// Runs the tool from the disk, of which nothing is in memory, and under pressure.
    fn atomctl(&mut self, args: &[&str], code: i32) -> Result<String> {
        say(&format!("atomctl {}", args.join(" ")));
        fs::write("/proc/sys/vm/drop_caches", "3")?;
        let before = self.reads()?;
        let script = format!("echo $$ > {GROUP}/cgroup.procs && exec {ATOMCTL} --json \"$@\"");
        let output = Command::new(SHELL)
            .args(["-c", &script, "sh"])
            .args(args)
            .output()
            .context("cannot start the shell")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.code() != Some(code) {
            let complaint = String::from_utf8_lossy(&output.stderr);
            bail!("atomctl {args:?} ended with {}: {said}{complaint}", output.status);
        }
        let reads = self.reads()?.saturating_sub(before);
        ensure!(reads > 0, "atomctl {args:?} was executed from memory");
        self.reads_for_the_tool += reads;
        Ok(said)
    }

    /// The journal is on the disk that changed hands, and has every outcome in its order.
    fn journal_is_true(&mut self, disk: u64) -> Result<()> {
        let said = self.atomctl(&["history"], 0)?;
        let found = fs::metadata(JOURNAL).context(JOURNAL)?.dev();
        ensure!(found == disk, "{JOURNAL} is on {found:#x}");
        let journal: JournalDocument = serde_json::from_str(&said).with_context(|| said.clone())?;
        ensure!(journal.damaged == 0 && journal.notes.is_empty(), "{said}");
        let handoffs = |one: &&AttemptEntry| matches!(one.kind, Kind::Upgrade | Kind::Rollback);
        let ended = |one: &AttemptEntry| one.outcome.clone().unwrap_or_default();
        let there: Vec<String> = journal.attempts.iter().filter(handoffs).map(ended).collect();
        ensure!(there == self.outcomes, "{there:?} in the journal, {:?}", self.outcomes);
        Ok(())
    }

    /// This version serves, and the load goes on.
    fn serves(&mut self, version: &str) -> Result<()> {
        let live = self.live()?;
        ensure!(live == version, "{live} is live, not {version}");
        ensure!(self.node.status()?.held_ns == 0, "I/O is held");
        self.progress()
    }

    fn progress(&mut self) -> Result<()> {
        let before = self.files.checked();
        wait::until("two more files", PATIENCE, || {
            self.files.check()?;
            Ok(self.files.checked() >= before + 2)
        })
    }

    fn live(&self) -> Result<String> {
        let live = self.node.status()?.live;
        let payloads = self.node.payloads()?;
        let live = payloads.iter().find(|payload| payload.id == live);
        Ok(live.map(|payload| payload.version.as_str().to_owned()).unwrap_or_default())
    }

    /// Reads that the disk has completed.
    fn reads(&self) -> Result<u64> {
        let path = format!("/sys/block/{}/stat", self.device.trim_start_matches("/dev/"));
        let text = fs::read_to_string(&path).with_context(|| path)?;
        let first = text.split_whitespace().next().and_then(|number| number.parse().ok());
        first.context("no number of reads")
    }
}

fn say(what: &str) {
    eprintln!("step: {what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_found_by_its_name() {
        for part in Part::ALL {
            assert_eq!(Part::named(part.name()).ok(), Some(part));
        }
        assert!(Part::named("half").is_err());
    }
}
