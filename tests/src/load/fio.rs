// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! fio on a raw device: writes at random, reads back and verifies all the while.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use serde_json::Value;

use crate::wait;

/// fio ends with this status when it is asked to by a signal and nothing else went wrong.
const ENDED_BY_SIGNAL: i32 = 128;

/// A fio that runs until it is stopped.
pub struct Fio {
    child: Child,
    device: String,
    /// Writes of the device before it began.
    before: u64,
}

/// What a fio did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// Requests that were completed.
    pub ios: u64,
    /// Requests that failed, or that returned what was not written.
    pub errors: u64,
    /// Longest time from submission to completion.
    pub slowest_us: u64,
}

/// How fio loads a device.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Requests in flight.
    pub depth: u32,
    /// Bytes of the device that are written.
    pub bytes: u64,
    /// Whether content is verified; a device that keeps none cannot be.
    pub verify: bool,
}

impl Fio {
    /// Starts fio on `device`, and returns when its first writes are done.
    pub fn start(device: &str, shape: Shape) -> Result<Self> {
        Self::start_with(device, shape, &[])
    }

    /// The same; so many requests are submitted by one call, which is one batch for the block layer.
    pub fn start_in_batches(device: &str, shape: Shape, of: u32) -> Result<Self> {
        let submit = format!("--iodepth_batch_submit={of}");
        let reap = format!("--iodepth_batch_complete_min={of}");
        Self::start_with(device, shape, &[&submit, &reap])
    }

    /// The same as [`Fio::start`] with polled I/O, which a device without queues for it refuses.
    pub fn start_polled(device: &str, shape: Shape) -> Result<Self> {
        Self::start_with(device, shape, &["--ioengine=io_uring", "--hipri=1"])
    }

    /// The same as [`Fio::start`] with blocks of another size, as `1m`.
    pub fn start_in_blocks(device: &str, shape: Shape, size: &str) -> Result<Self> {
        Self::start_with(device, shape, &[&format!("--bs={size}")])
    }

    /// The same as [`Fio::start`] with at most so many requests in a second.
    pub fn start_at_rate(device: &str, shape: Shape, in_a_second: u32) -> Result<Self> {
        Self::start_with(device, shape, &[&format!("--rate_iops={in_a_second}")])
    }

    /// Starts one on each device, all at the same time. Whoever comes last would have to wait beside all others that run.
    pub fn start_all(devices: &[String], shape: Shape) -> Result<Vec<Self>> {
        let spawned = devices.iter().map(|device| Self::spawn(device, shape, &[]));
        let mut all = spawned.collect::<Result<Vec<_>>>()?;
        all.iter_mut().try_for_each(Self::until_it_writes)?;
        Ok(all)
    }

    fn start_with(device: &str, shape: Shape, args: &[&str]) -> Result<Self> {
        let mut fio = Self::spawn(device, shape, args)?;
        fio.until_it_writes()?;
        Ok(fio)
    }

    fn spawn(device: &str, shape: Shape, args: &[&str]) -> Result<Self> {
        let before = writes_of(device)?;
        let log = format!("/tmp/fio-{}.json", file_name(device));
        let mut command = Command::new("fio");
        command
            .args(["--name=raw", "--direct=1", "--ioengine=libaio", "--bs=4k", "--thread"])
            .args(["--time_based", "--runtime=36000", "--output-format=json", "--eta=never"])
            .arg(format!("--filename={device}"))
            .arg(format!("--iodepth={}", shape.depth))
            .arg(format!("--size={}", shape.bytes))
            .arg(format!("--output={log}"))
            .args(args);
        if shape.verify {
            command.args(["--rw=randwrite", "--verify=crc32c", "--verify_fatal=1"]);
            command.arg(format!("--verify_backlog={}", 4 * shape.depth.max(16)));
        } else {
            command.arg("--rw=randrw");
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .with_context(|| format!("cannot start fio on {device}"))?;
        Ok(Self { child, device: device.to_owned(), before })
    }

    fn until_it_writes(&mut self) -> Result<()> {
        wait::until("fio begins to write", Duration::from_secs(120), || {
            let ended = self.child.try_wait()?;
            ensure!(ended.is_none(), "fio on {} ended before it began: {ended:?}", self.device);
            Ok(writes_of(&self.device)? > self.before)
        })
    }

    /// An error when fio has ended, which it does by itself only at an error or a wrong byte.
    pub fn check(&mut self) -> Result<()> {
        let ended = self.child.try_wait()?;
        ensure!(ended.is_none(), "fio on {} ended by itself: {ended:?}", self.device);
        Ok(())
    }

    /// Has it stand still, wherever it is, until it is asked to go on. What it has in flight may end, and it does not look.
    pub fn stand_still(&mut self, still: bool) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(pid, if still { Signal::SIGSTOP } else { Signal::SIGCONT })?;
        let tasks = format!("/proc/{pid}/task");
        wait::until("fio does as it is told", Duration::from_secs(30), || {
            self.check()?;
            let mut stopped = std::fs::read_dir(&tasks)?.map(|task| {
                let stat = std::fs::read_to_string(task?.path().join("stat"))?;
                // Behind the name, which may have any character in it.
                Ok(stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T')))
            });
            stopped.try_fold(true, |all, one: Result<bool>| Ok(all && one? == still))
        })
    }

    /// Stops fio and returns what it did. An error when it did not do its work.
    pub fn stop(mut self) -> Result<Done> {
        self.check()?;
        self.interrupt()?;
        self.result()
    }

    /// Stops all of them, at the same time; what they did together.
    pub fn stop_all(mut all: Vec<Self>) -> Result<Done> {
        all.iter_mut().try_for_each(Self::check)?;
        all.iter().try_for_each(Self::interrupt)?;
        let mut sum = Done::default();
        for fio in all {
            let done = fio.result()?;
            sum.ios += done.ios;
            sum.slowest_us = sum.slowest_us.max(done.slowest_us);
        }
        Ok(sum)
    }

    fn interrupt(&self) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGINT)?)
    }

    /// Waits for its end.
    fn result(mut self) -> Result<Done> {
        let status = self.child.wait()?;
        let path = format!("/tmp/fio-{}.json", file_name(&self.device));
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("fio on {} left no result", self.device))?;
        let code = status.code().unwrap_or(-1);
        let done = parse(&text).with_context(|| format!("{path}: {text}"))?;
        ensure!(
            matches!(code, 0 | ENDED_BY_SIGNAL) && done.errors == 0,
            "fio on {} saw {} errors and ended with {status}: {text}",
            self.device,
            done.errors
        );
        ensure!(done.ios > 0, "fio on {} did nothing", self.device);
        Ok(done)
    }
}

impl Drop for Fio {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // Only a scenario that has failed already comes here; what fio says does not matter. Nobody waits for its
            // end: where I/O is held it does not come, and would keep the scenario from saying why it failed.
            let _ = self.child.kill();
        }
    }
}

/// Runs fio once over a device, with these arguments besides the usual ones: what it writes is read back and verified
/// afterwards. An error when anything was wrong.
pub fn pass(device: &str, args: &[&str]) -> Result<Done> {
    let output = Command::new("fio")
        .args(["--name=pass", "--direct=1", "--ioengine=libaio", "--thread", "--eta=never"])
        .args(["--verify=crc32c", "--verify_fatal=1", "--output-format=json"])
        .arg(format!("--filename={device}"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start fio on {device}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "fio {args:?} on {device}: {said}{text}");
    let done = parse(&text).with_context(|| format!("{said}{text}"))?;
    ensure!(done.errors == 0 && done.ios > 0, "fio {args:?} on {device}: {done:?} {said}");
    Ok(done)
}

/// Writes that the block layer has completed on a device.
fn writes_of(device: &str) -> Result<u64> {
    let path = format!("/sys/block/{}/stat", file_name(device));
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // Documentation/block/stat.rst: the fifth number.
    text.split_whitespace().nth(4).and_then(|n| n.parse().ok()).context("no write count")
}

fn file_name(device: &str) -> String {
    Path::new(device).file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

fn parse(text: &str) -> Result<Done> {
    // fio may write lines of its own before the document.
    let start = text.find('{').context("no document")?;
    let document: Value = serde_json::from_str(&text[start..])?;
    let job = document.pointer("/jobs/0").context("no job")?;
    let number = |path: &str| job.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let slowest_ns = number("/read/lat_ns/max").max(number("/write/lat_ns/max"));
    Ok(Done {
        ios: number("/read/total_ios") + number("/write/total_ios") + number("/trim/total_ios"),
        errors: number("/error") + number("/total_err"),
        slowest_us: slowest_ns / 1000,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_in_the_document_is_not_overlooked() {
        let text = r#"note
            {"jobs": [{"error": 84, "total_err": 1, "read": {"total_ios": 5, "lat_ns": {"max": 7000}},
             "write": {"total_ios": 6, "lat_ns": {"max": 9000}}}]}"#;
        let done = parse(text).expect("a document");
        assert_eq!((done.ios, done.errors, done.slowest_us), (11, 85, 9));
    }

    #[test]
    fn a_document_without_a_job_is_an_error() {
        assert!(parse("{}").is_err());
        assert!(parse("fio: killed").is_err());
    }
}
