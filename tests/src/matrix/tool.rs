// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `atomctl` as somebody else's process, which may be killed, or be left to hang.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};
use atomctl::report::JournalDocument;
use serde_json::Value;

use crate::pressure;
use crate::wait;

const FOLDER: &str = "/run";
/// Where the journal is.
const JOURNAL: &str = "/var/lib/atom";
/// Where its records wait that could not be written there.
const SPOOL: &str = "/run/atom/spool";
/// How long one that changes nothing may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A run of `atomctl`.
pub struct Tool {
    name: String,
    child: Child,
}

/// How a run has ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// None when it was killed.
    pub code: Option<i32>,
    /// What it printed; null when that was no document.
    pub document: Value,
    /// What it complained about.
    pub complaint: String,
}

impl Tool {
    /// Starts it with modules in these folders; `pressed`: it keeps no page that it has not locked.
    pub fn start(name: &str, folders: &[&str], args: &[&str], pressed: bool) -> Result<Self> {
        let said = |end: &str| File::create(format!("{FOLDER}/{name}.{end}"));
        let script = format!("echo $$ > {}/cgroup.procs && exec atomctl \"$@\"", pressure::GROUP);
        let mut command = match pressed {
            true => {
                let mut command = Command::new("sh");
                command.args(["-c", &script, "atomctl"]);
                command
            }
            false => Command::new("atomctl"),
        };
        command.arg("--json");
        folders.iter().for_each(|folder| {
            command.args(["--dir", folder]);
        });
        let child = command
            .args(args)
            .stdin(Stdio::null())
            .stdout(said("out")?)
            .stderr(said("err")?)
            .spawn()
            .context("cannot start atomctl")?;
        Ok(Self { name: name.to_owned(), child })
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Kills it. It ends once it is back from the kernel.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().context("it cannot be killed")
    }

    /// Waits for its end.
    pub fn end(mut self, limit: Duration) -> Result<Ended> {
        let what = format!("{} ends", self.name);
        wait::until(&what, limit, || Ok(self.child.try_wait()?.is_some()))?;
        let code = self.child.wait()?.code();
        let read = |end: &str| fs::read_to_string(format!("{FOLDER}/{}.{end}", self.name));
        let document = serde_json::from_str(&read("out")?).unwrap_or(Value::Null);
        Ok(Ended { code, document, complaint: read("err")? })
    }
}

impl Ended {
    /// The word for the outcome in its report.
    pub fn outcome(&self) -> Option<&str> {
        self.document["outcome"].as_str()
    }

    /// Whether one of its warnings has this word.
    pub fn warns_of(&self, word: &str) -> bool {
        let warnings = self.document["warnings"].as_array();
        warnings.is_some_and(|all| {
            all.iter().filter_map(serde_json::Value::as_str).any(|one| one.contains(word))
        })
    }
}

/// Runs it to its end.
pub fn run(folders: &[&str], args: &[&str]) -> Result<Ended> {
    Tool::start("atomctl-run", folders, args, false)?.end(PATIENCE)
}

/// The journal.
pub fn history() -> Result<JournalDocument> {
    let ended = run(&[], &["history"])?;
    ensure!(ended.code == Some(0), "history: {ended:?}");
    serde_json::from_value(ended.document).context("the journal cannot be read")
}

/// Removes the records of the cells before, also those that wait for room on the disk: each tool would read all of them
/// again.
pub fn clear_history() -> Result<()> {
    if let Ok(entries) = fs::read_dir(JOURNAL) {
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with("journal") && !name.ends_with(".lock") {
                fs::remove_file(entry.path())?;
            }
        }
    }
    match fs::remove_file(SPOOL) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
