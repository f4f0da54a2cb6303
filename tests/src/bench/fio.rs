// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Requests per second, by fio past the page cache.

use std::fs;
use std::process::Command;

use anyhow::{ensure, Context as _, Result};
use serde_json::Value;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// For people.
    pub name: &'static str,
    /// The pattern, in fio's word.
    pub pattern: &'static str,
    /// The size of a request, in fio's words.
    pub block: &'static str,
    /// Requests in flight of each job.
    pub depth: u32,
    /// Requests that are submitted, and reaped, by one call.
    pub batch: u32,
    /// Jobs beside each other.
    pub jobs: u32,
    /// Ends are looked for, and not told.
    pub polled: bool,
}

impl Workload {
    /// The name of it with a depth, a batch and jobs, as it stands in tables.
    pub fn title(&self) -> String {
        let mut text = format!("{}, depth {}", self.name, self.depth);
        if self.batch > 1 {
            text.push_str(&format!(" by {}", self.batch));
        }
        if self.jobs > 1 {
            text.push_str(&format!(", {} jobs", self.jobs));
        }
        text
    }
}

/// Requests per second on a device, of which so many MiB are used, for so many milliseconds.
pub fn iops(device: &str, workload: &Workload, mib: u64, milliseconds: u32) -> Result<f64> {
    let name = device.trim_start_matches("/dev/");
    let scheduler = format!("/sys/block/{name}/queue/scheduler");
    // What is made of bios has none.
    if fs::read_to_string(&scheduler).is_ok_and(|text| text.contains("none")) {
        fs::write(&scheduler, "none")?;
    }
    let output = Command::new("fio")
        .args(["--name=bench", "--direct=1", "--thread", "--time_based"])
        .args(match workload.polled {
            true => &["--ioengine=io_uring", "--hipri=1"][..],
            false => &["--ioengine=libaio"],
        })
        .args(["--output-format=json", "--eta=never", "--norandommap", "--randrepeat=1"])
        .arg("--group_reporting")
        .arg(format!("--rw={}", workload.pattern))
        .arg(format!("--bs={}", workload.block))
        .arg(format!("--filename={device}"))
        .arg(format!("--numjobs={}", workload.jobs))
        .arg(format!("--iodepth={}", workload.depth))
        .arg(format!("--iodepth_batch_submit={}", workload.batch))
        .arg(format!("--iodepth_batch_complete_min={}", workload.batch))
        .arg(format!("--runtime={milliseconds}ms"))
        .arg(format!("--size={mib}M"))
        .output()
        .context("no fio")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let start = text.find('{').context("no document")?;
    let document: Value = serde_json::from_str(&text[start..])?;
    let number = |path: &str| document.pointer(path).and_then(Value::as_f64).unwrap_or(0.0);
    ensure!(number("/jobs/0/error") == 0.0, "{text}");
    let done = number("/jobs/0/read/total_ios") + number("/jobs/0/write/total_ios");
    ensure!(done > 0.0, "nothing was done: {text}");
    // Its own figure divides by whole milliseconds, rounded up or not, which is a hundredth of a short run.
    Ok(done * 1000.0 / f64::from(milliseconds))
}
