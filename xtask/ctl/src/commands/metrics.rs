// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `atomctl metrics`

use std::path::PathBuf;

use super::output::Output;
use super::whole_file::write_whole;
use super::{history, list, status};
use crate::metrics;
use crate::problem::{Exit, Problem, Result};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Write them to this file, whole, for the textfile collector of the node exporter.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(output: &Output, args: &Args, folders: Vec<PathBuf>) -> Result<Exit> {
    if output.is_json() {
        return Err(Problem::usage(
            "The metrics were not written",
            "they are in the text format of Prometheus, and not in JSON",
            "leave out --json; atomctl status --json has most of them",
        ));
    }
    // A machine without Atom has metrics, too.
    let status = status::read().ok();
    let text = metrics::render(status.as_ref(), &list::read(folders)?, &history::read());
    match &args.out {
        Some(path) => write_whole(path, text.as_bytes())?,
        None => output.text(&text),
    }
    Ok(Exit::Done)
}
