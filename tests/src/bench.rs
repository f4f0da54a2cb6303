// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Volumes beside what the kernel itself has: its NBD client against the same server, device mapper on the same disks.
//!
//! Everything runs in one guest and one run, by turns: ours, theirs, ours, theirs. What one pair of measurements shows is
//! their ratio, so that what else the host does meets both.

use std::fmt;
use std::fs;
use std::process::Command;

use anyhow::{ensure, Context as _, Result};
use atom_payload::spec::Layout;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::composed::{self, stripe, Target};
use crate::mapper::Mapped;
use crate::nbd_client::NbdClient;
use crate::server::{At, Server};
use crate::site::Site;

/// Name and version of [`Document`].
pub const SCHEMA: &str = "atom.bench-volumes/1";
/// The payload that is measured.
const VERSION: &str = "2.1.0";
/// Pairs of each cell, and milliseconds of each measurement.
const THOROUGH: (usize, u32) = (10, 2000);
const QUICK: (usize, u32) = (3, 1000);
/// Counted instructions are the same each time but for what the guest does by the way.
const COUNTED: (usize, u32) = (1, 200);
/// The names of our volume and of theirs.
const NAME: &str = "bench";
/// KiB of a stripe's chunk.
const CHUNK_KIB: u32 = 64;
/// MiB of the server, and of each disk in memory.
const MIB: u64 = 256;

/// All that was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Document {
    /// [`SCHEMA`].
    pub schema: String,
    /// Release of the running kernel.
    pub kernel: String,
    /// The payload.
    pub payload: String,
    /// Whether the guest's clock counts its instructions, a nanosecond each.
    pub counted: bool,
    /// Milliseconds of each measurement.
    pub milliseconds: u32,
    /// Each setup with each workload.
    pub cells: Vec<Cell>,
}

/// One setup with one workload.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cell {
    /// What is compared.
    pub setup: String,
    /// What is asked for.
    pub workload: String,
    /// Requests in flight.
    pub depth: u32,
    /// Requests that are submitted by one call.
    pub batch: u32,
    /// Requests per second of each measurement, pair by pair.
    pub ours: Vec<f64>,
    pub theirs: Vec<f64>,
}

/// What the pairs of a cell say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Requests per second, medians.
    pub ours: f64,
    pub theirs: f64,
    /// Ours to theirs: the median of the pairs, the first and the third quartile, the smallest and the largest.
    pub ratio: f64,
    pub quartiles: (f64, f64),
    pub range: (f64, f64),
}

impl Cell {
    /// Sums it up; `None` without a pair.
    pub fn summary(&self) -> Option<Summary> {
        let ratios: Vec<f64> =
            self.ours.iter().zip(&self.theirs).map(|(ours, theirs)| ours / theirs).collect();
        let of = |part: f64| quantile(&ratios, part);
        Some(Summary {
            ours: quantile(&self.ours, 0.5)?,
            theirs: quantile(&self.theirs, 0.5)?,
            ratio: of(0.5)?,
            quartiles: (of(0.25)?, of(0.75)?),
            range: (of(0.0)?, of(1.0)?),
        })
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}, depth {}", self.setup, self.workload, self.depth)?;
        if self.batch > 1 {
            write!(f, " in batches of {}", self.batch)?;
        }
        match self.summary() {
            Some(summary) => write!(f, ": {:.2}", summary.ratio),
            None => Ok(()),
        }
    }
}

/// The value below which this part of the values lies, between neighbours in proportion.
fn quantile(values: &[f64], part: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = part * sorted.len().checked_sub(1)? as f64;
    let (below, above) = (sorted.get(place.floor() as usize)?, sorted.get(place.ceil() as usize)?);
    Some(below + (above - below) * place.fract())
}

/// A workload in fio's words.
struct Workload {
    name: &'static str,
    args: [&'static str; 2],
}

const WORKLOADS: [Workload; 4] = [
    Workload { name: "random read 4k", args: ["--rw=randread", "--bs=4k"] },
    Workload { name: "random write 4k", args: ["--rw=randwrite", "--bs=4k"] },
    Workload { name: "sequential read 128k", args: ["--rw=read", "--bs=128k"] },
    Workload { name: "sequential write 128k", args: ["--rw=write", "--bs=128k"] },
];
/// Requests in flight, and how many are submitted by one call.
const DEPTHS: [(u32, u32); 3] = [(1, 1), (32, 1), (32, 16)];

/// Two ways to the same data, of which there is one at a time.
trait Setup {
    fn name(&self) -> String;
    /// Runs `measure` on our device.
    fn ours(&self, site: &Site, measure: &mut dyn FnMut(&str) -> Result<f64>) -> Result<f64>;
    /// The same on the kernel's.
    fn theirs(&self, measure: &mut dyn FnMut(&str) -> Result<f64>) -> Result<f64>;
}

/// One server, one connection.
struct Network {
    server: Server,
}

impl Setup for Network {
    fn name(&self) -> String {
        "nbd volume / kernel's nbd".to_owned()
    }

    fn ours(&self, site: &Site, measure: &mut dyn FnMut(&str) -> Result<f64>) -> Result<f64> {
        let target = Target::nbd(self.server.at(), "");
        let volume = composed::create(site, NAME, Layout::Linear, &[target])?;
        let measured = measure(&volume.device)?;
        site.destroy(NAME)?;
        Ok(measured)
    }

    fn theirs(&self, measure: &mut dyn FnMut(&str) -> Result<f64>) -> Result<f64> {
        let client = NbdClient::connect(0, self.server.at(), "", 1)?;
        let measured = measure(client.device())?;
        client.disconnect()?;
        Ok(measured)
    }
}

/// Two disks in a layout.
struct Disks {
    what: &'static str,
    paths: [&'static str; 2],
    layout: Layout,
}

impl Disks {
    /// The table of device mapper for the same layout over the same sectors.
    fn table(&self) -> Result<String> {
        let sectors = |path: &str| -> Result<u64> {
            let name = path.trim_start_matches("/dev/");
            Ok(fs::read_to_string(format!("/sys/block/{name}/size"))?.trim().parse()?)
        };
        let [first, second] = self.paths;
        let (one, two) = (sectors(first)?, sectors(second)?);
        Ok(match self.layout {
            Layout::Linear => {
                format!("0 {one} linear {first} 0\n{one} {two} linear {second} 0\n")
            }
            Layout::Stripe { chunk_sectors } => {
                let chunk = u64::from(chunk_sectors);
                let all = 2 * (one.min(two) / chunk * chunk);
                format!("0 {all} striped 2 {chunk} {first} 0 {second} 0\n")
            }
        })
    }
}

impl Setup for Disks {
    fn name(&self) -> String {
        format!("{} / device mapper, {}", self.layout.name(), self.what)
    }

    fn ours(&self, site: &Site, measure: &mut dyn FnMut(&str) -> Result<f64>) -> Result<f64> {
        let targets = self.paths.map(Target::bdev);
        let volume = composed::create(site, NAME, self.layout, &targets)?;
        let measured = measure(&volume.device)?;
        site.destroy(NAME)?;
        Ok(measured)
    }

    fn theirs(&self, measure: &mut dyn FnMut(&str) -> Result<f64>) -> Result<f64> {
        let mapped = Mapped::create(NAME, &self.table()?)?;
        let measured = measure(mapped.device())?;
        mapped.remove()?;
        Ok(measured)
    }
}

/// How thoroughly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Ten pairs.
    Thorough,
    /// Three short pairs.
    Quick,
    /// One pair in a guest whose clock counts instructions, without what waits for the host.
    Counted,
}

impl How {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Thorough, Self::Quick, Self::Counted];

    /// As the guest is told.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Thorough => "thorough",
            Self::Quick => "quick",
            Self::Counted => "counted",
        }
    }
}

/// Measures all setups whose names contain `only`; says on standard error what it is about.
pub fn run_all(how: How, only: &str) -> Result<Document> {
    let (pairs, milliseconds) = match how {
        How::Thorough => THOROUGH,
        How::Quick => QUICK,
        How::Counted => COUNTED,
    };
    run("modprobe", &["dm_mod"])?;
    run("modprobe", &["brd", "rd_nr=2", &format!("rd_size={}", MIB << 10)])?;
    let site = Site::on_guest(VERSION)?;
    let server = Server::nbdkit_unseen("bench", At::free_port()?, &["memory", &format!("{MIB}M")])?;
    // Whoever came first would pay for the server's memory.
    let volume = composed::create(&site, NAME, Layout::Linear, &[Target::nbd(server.at(), "")])?;
    fill(&volume.device)?;
    site.destroy(NAME)?;
    let mut setups: Vec<Box<dyn Setup>> = vec![Box::new(Network { server })];
    let disks = [("in memory", ["/dev/ram0", "/dev/ram1"]), ("virtio", ["/dev/vda", "/dev/vdb"])];
    // The host's disks do not wait for a clock that counts.
    let disks = if how == How::Counted { &disks[..1] } else { &disks[..] };
    for &(what, paths) in disks {
        for path in paths {
            fill(path)?;
        }
        for layout in [Layout::Linear, stripe(CHUNK_KIB)] {
            setups.push(Box::new(Disks { what, paths, layout }));
        }
    }
    setups.retain(|setup| setup.name().contains(only));
    let all = setups.len() * WORKLOADS.len() * DEPTHS.len();
    let mut cells = Vec::with_capacity(all);
    for setup in &setups {
        for workload in &WORKLOADS {
            for (depth, batch) in DEPTHS {
                let mut measure =
                    |device: &str| iops(device, workload, (depth, batch), milliseconds);
                let (mut ours, mut theirs) = (Vec::new(), Vec::new());
                for _ in 0..pairs {
                    ours.push(setup.ours(&site, &mut measure)?);
                    theirs.push(setup.theirs(&mut measure)?);
                }
                let (setup, workload) = (setup.name(), workload.name.to_owned());
                let cell = Cell { setup, workload, depth, batch, ours, theirs };
                eprintln!("step: {} of {all}: {cell}", cells.len() + 1);
                cells.push(cell);
            }
        }
    }
    drop(setups);
    run("rmmod", &["brd"])?;
    site.leave()?;
    let kernel = nix::sys::utsname::uname()?.release().to_string_lossy().into_owned();
    Ok(Document {
        schema: SCHEMA.to_owned(),
        kernel,
        payload: VERSION.to_owned(),
        counted: how == How::Counted,
        milliseconds,
        cells,
    })
}

/// Requests per second of a workload.
fn iops(
    device: &str,
    workload: &Workload,
    (depth, batch): (u32, u32),
    milliseconds: u32,
) -> Result<f64> {
    let name = device.trim_start_matches("/dev/");
    let scheduler = format!("/sys/block/{name}/queue/scheduler");
    // What is made of bios has none.
    if fs::read_to_string(&scheduler).is_ok_and(|text| text.contains("none")) {
        fs::write(&scheduler, "none")?;
    }
    let output = Command::new("fio")
        .args(["--name=bench", "--direct=1", "--ioengine=libaio", "--thread", "--time_based"])
        .args(["--output-format=json", "--eta=never", "--norandommap", "--randrepeat=1"])
        .args(workload.args)
        .arg(format!("--filename={device}"))
        .arg(format!("--iodepth={depth}"))
        .arg(format!("--iodepth_batch_submit={batch}"))
        .arg(format!("--iodepth_batch_complete_min={batch}"))
        .arg(format!("--runtime={milliseconds}ms"))
        .arg(format!("--size={}M", MIB))
        .output()
        .context("no fio")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let start = text.find('{').context("no document")?;
    let document: Value = serde_json::from_str(&text[start..])?;
    let number = |path: &str| document.pointer(path).and_then(Value::as_f64).unwrap_or(0.0);
    ensure!(number("/jobs/0/error") == 0.0, "{text}");
    let iops = number("/jobs/0/read/iops") + number("/jobs/0/write/iops");
    ensure!(iops > 0.0, "nothing was done: {text}");
    Ok(iops)
}

/// Writes all of a device: what was never written is not read from anywhere. That it is full ends the writer with an error,
/// which is what it is written for.
fn fill(device: &str) -> Result<()> {
    let filled = run("dd", &["if=/dev/urandom", &format!("of={device}"), "bs=1M", "oflag=direct"]);
    match filled {
        Err(error) if !format!("{error:#}").contains("No space left") => Err(error),
        _ => Ok(()),
    }
}

fn run(program: &str, args: &[&str]) -> Result<()> {
    let output = Command::new(program).args(args).output().context(program.to_owned())?;
    ensure!(
        output.status.success(),
        "`{program} {}` failed ({}): {}",
        args.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_summed_up_pair_by_pair() {
        let cell = Cell {
            setup: String::new(),
            workload: String::new(),
            depth: 1,
            batch: 1,
            // The host was busy in the second pair, and both sides have felt it.
            ours: vec![100.0, 10.0, 120.0],
            theirs: vec![100.0, 20.0, 100.0],
        };
        let summary = cell.summary().expect("three pairs");
        assert_eq!((summary.ours, summary.theirs, summary.ratio), (100.0, 100.0, 1.0));
        assert_eq!(summary.range, (0.5, 1.2));
        assert_eq!(summary.quartiles, (0.75, 1.1));
        assert_eq!(Cell { ours: vec![], theirs: vec![], ..cell }.summary(), None);
    }
}
