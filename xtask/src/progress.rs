// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Long steps: one line each on a terminal, the full output in a log file.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::command_line::CommandLine;
use crate::problem::failed;

/// How many lines of a failed command's output its error repeats.
const TAIL: usize = 15;

/// A step that takes long enough for somebody to wonder what it is doing.
pub struct Step {
    title: String,
    log: PathBuf,
    bar: Option<ProgressBar>,
    started: Instant,
    finished: bool,
}

impl Step {
    /// Begins a step whose commands write their output to `log`.
    pub fn start(title: impl Into<String>, log: &Path) -> Result<Self> {
        let title = title.into();
        if let Some(parent) = log.parent() {
            std::fs::create_dir_all(parent)
                .with_context(|| format!("cannot create {}", parent.display()))?;
        }
        File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
        let bar = std::io::stderr().is_terminal().then(|| spinner(&title));
        if bar.is_none() {
            eprintln!("{title} ...");
        }
        Ok(Self { title, log: log.to_owned(), bar, started: Instant::now(), finished: false })
    }

    /// Runs a command of this step. When it fails, the error shows the command, the end of its output and the log.
    pub fn run(&self, command: &CommandLine) -> Result<()> {
        let mut log = OpenOptions::new()
            .append(true)
            .open(&self.log)
            .with_context(|| format!("cannot append to {}", self.log.display()))?;
        writeln!(log, "$ {command}")?;
        let reader = command
            .expression()
            .stdin_null()
            .stderr_to_stdout()
            .unchecked()
            .reader()
            .with_context(|| format!("this command could not be started: {command}"))?;
        let mut tail: Vec<String> = Vec::new();
        let mut lines = BufReader::new(&reader);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? > 0 {
            log.write_all(&line)?;
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if text.is_empty() {
                continue;
            }
            self.say(&text);
            if tail.len() == TAIL {
                tail.remove(0);
            }
            tail.push(text);
        }
        let status = reader.try_wait()?.map(|output| output.status).with_context(|| {
            format!("this command closed its output and kept running: {command}")
        })?;
        if status.success() {
            return Ok(());
        }
        Err(failed(
            format!("{}: a command failed ({status}): {command}", self.title),
            format!("it ended with\n    {}", tail.join("\n    ")),
            format!("read its whole output in {}", self.log.display()),
        ))
    }

    /// Shows what the step is doing at the moment.
    pub fn say(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
        }
    }

    /// Ends the step and leaves one line with its duration.
    pub fn done(mut self) {
        self.finish("done");
    }

    fn finish(&mut self, how: &str) {
        self.finished = true;
        let line =
            format!("{}: {how} in {:.1} s", self.title, self.started.elapsed().as_secs_f64());
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        eprintln!("{line}");
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.finished {
            self.finish("not finished");
        }
    }
}

fn spinner(title: &str) -> ProgressBar {
    static BARS: OnceLock<MultiProgress> = OnceLock::new();
    let bar = BARS.get_or_init(MultiProgress::new).add(ProgressBar::new_spinner());
    if let Ok(style) =
        ProgressStyle::with_template("{spinner} {prefix} [{elapsed}] {wide_msg:.dim}")
    {
        bar.set_style(style);
    }
    bar.set_prefix(title.to_owned());
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}
