// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! One document on the standard output, for people or for programs.

use std::io::{stderr, stdout, IsTerminal, Write};

use serde::Serialize;

use crate::node::Local;
use crate::problem::{Exit, Problem, Result};
use crate::report::ErrorDocument;
use crate::text::{self, Paint};

/// Where the documents go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    json: bool,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints a document, as JSON or as `human` puts it.
    pub(super) fn show<D: Serialize>(
        &self,
        document: &D,
        human: impl FnOnce(&D, Paint) -> String,
    ) -> Result<()> {
        let text =
            if self.json { json(document)? } else { human(document, Paint::for_stream(&stdout())) };
        // Whoever closed the output does not want to read why it cannot be written.
        let _ = stdout().write_all(text.as_bytes());
        Ok(())
    }

    /// Whether a program reads the output.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints text that is the same for everybody.
    pub(super) fn text(&self, text: &str) {
        // Whoever closed the output does not want to read why it cannot be written.
        let _ = stdout().write_all(text.as_bytes());
    }

    /// Prints for people what comes before the document that [`Output::show`] prints.
    pub(super) fn first<D>(&self, part: &D, human: impl FnOnce(&D, Paint) -> String) {
        if !self.json {
            // Whoever closed the output does not want to read why it cannot be written.
            let _ = stdout().write_all(human(part, Paint::for_stream(&stdout())).as_bytes());
        }
    }

    /// Tells people of a problem that the document has for programs.
    pub(super) fn explain(&self, problem: &Problem) {
        if !self.json {
            self.fail(problem);
        }
    }

    /// Prints one of many documents, on a line of its own. False when nobody reads any more.
    pub(super) fn line<D: Serialize>(
        &self,
        document: &D,
        human: impl FnOnce(&D, Paint) -> String,
    ) -> Result<bool> {
        let text = if self.json {
            serde_json::to_string(document).map_err(|error| not_json(&error))? + "\n"
        } else {
            human(document, Paint::for_stream(&stdout()))
        };
        let mut out = stdout();
        Ok(out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok())
    }

    /// Tells somebody at a terminal what is going on.
    pub(super) fn note(&self, text: &str) {
        if !self.json && stderr().is_terminal() {
            let _ = writeln!(stderr(), "  {}", Paint::for_stream(&stderr()).faint(text));
        }
    }

    /// Tells of something that went wrong beside what was asked for.
    pub(super) fn warn(&self, text: &str) {
        let paint = Paint::for_stream(&stderr());
        let _ = writeln!(stderr(), "  {} {text}", paint.notable("warning:"));
    }

    /// The machine that this process runs on. For people, drains that take long are shown.
    pub(super) fn local(&self) -> Result<Local> {
        let node = Local::open()?;
        Ok(if self.json { node } else { node.showing_progress() })
    }

    /// Prints a problem.
    pub(super) fn fail(&self, problem: &Problem) {
        let _ = match json(&ErrorDocument::new(problem)) {
            Ok(text) if self.json => stdout().write_all(text.as_bytes()),
            _ => {
                let text = text::problem(problem, Paint::for_stream(&stderr()));
                stderr().write_all(text.as_bytes())
            }
        };
    }
}

fn json<D: Serialize>(document: &D) -> Result<String> {
    let text = serde_json::to_string_pretty(document).map_err(|error| not_json(&error))?;
    Ok(text + "\n")
}

fn not_json(error: &serde_json::Error) -> Problem {
    let what = "The result could not be written as JSON";
    Problem::undone(what, error.to_string(), "leave out --json").with_exit(Exit::Attention)
}
