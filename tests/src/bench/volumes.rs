// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Volumes beside what the kernel itself has: its NBD client against the same server, device mapper on the same disks.

use std::fs;

use anyhow::Result;
use atom_payload::spec::Layout;

use super::fio::{self, Workload};
use super::series::{Metric, Rounds, Series, OURS};
use super::{call, How, Wish};
use crate::composed::{self, stripe, Target};
use crate::mapper::Mapped;
use crate::nbd_client::NbdClient;
use crate::server::{At, Server};
use crate::site::Site;

/// The payload that is measured.
const VERSION: &str = "2.1.0";
/// Pairs of each setup with each workload, and milliseconds of each measurement.
const THOROUGH: (usize, u32) = (10, 500);
const QUICK: (usize, u32) = (3, 1000);
/// Counted instructions are the same each time but for what the guest does by the way.
const COUNTED: (usize, u32) = (1, 200);
/// The name of our volume and of theirs.
const NAME: &str = "bench";
/// KiB of a stripe's chunk.
const CHUNK_KIB: u32 = 64;
/// MiB of the server, and of each disk in memory.
const MIB: u64 = 256;

/// Name, pattern and size.
const PATTERNS: [(&str, &str, &str); 4] = [
    ("random read 4k", "randread", "4k"),
    ("random write 4k", "randwrite", "4k"),
    ("sequential read 128k", "read", "128k"),
    ("sequential write 128k", "write", "128k"),
];
/// Requests in flight, and how many are submitted by one call.
const DEPTHS: [(u32, u32); 3] = [(1, 1), (32, 1), (32, 16)];

/// Two ways to the same data, of which there is one at a time.
trait Setup {
    fn name(&self) -> String;
    /// Whose way theirs is.
    fn peer(&self) -> &'static str;
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

    fn peer(&self) -> &'static str {
        "kernel's nbd"
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

    fn peer(&self) -> &'static str {
        "device mapper"
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

/// Measures all setups whose names contain what is wished for.
pub fn run(wish: Wish<'_>) -> Result<Vec<Series>> {
    let (pairs, milliseconds) = match wish.how {
        How::Thorough => THOROUGH,
        How::Quick => QUICK,
        How::Counted => COUNTED,
    };
    call("modprobe", &["dm_mod"])?;
    call("modprobe", &["brd", "rd_nr=2", &format!("rd_size={}", MIB << 10)])?;
    let site = Site::on_guest(VERSION)?;
    let server = Server::nbdkit_unseen("bench", At::free_port()?, &["memory", &format!("{MIB}M")])?;
    // Whoever came first would pay for the server's memory.
    let volume = composed::create(&site, NAME, Layout::Linear, &[Target::nbd(server.at(), "")])?;
    fill(&volume.device)?;
    site.destroy(NAME)?;
    let mut setups: Vec<Box<dyn Setup>> = vec![Box::new(Network { server })];
    let disks = [("in memory", ["/dev/ram0", "/dev/ram1"]), ("virtio", ["/dev/vda", "/dev/vdb"])];
    // The host's disks do not wait for a clock that counts.
    let disks = if wish.how == How::Counted { &disks[..1] } else { &disks[..] };
    for &(what, paths) in disks {
        for path in paths {
            fill(path)?;
        }
        for layout in [Layout::Linear, stripe(CHUNK_KIB)] {
            setups.push(Box::new(Disks { what, paths, layout }));
        }
    }
    setups.retain(|setup| setup.name().contains(wish.only));
    let all = setups.len() * PATTERNS.len() * DEPTHS.len();
    let mut rounds = Rounds::default();
    let mut done = 0;
    for setup in &setups {
        for (name, pattern, block) in PATTERNS {
            for (depth, batch) in DEPTHS {
                let workload =
                    Workload { name, pattern, block, depth, batch, jobs: 1, polled: false };
                let mut measure = |device: &str| fio::iops(device, &workload, MIB, milliseconds);
                let title = format!("{}: {}", setup.name(), workload.title());
                for _ in 0..pairs {
                    let ours = setup.ours(&site, &mut measure)?;
                    rounds.add(&title, OURS, Metric::Iops, None, ours);
                    let theirs = setup.theirs(&mut measure)?;
                    rounds.add(&title, setup.peer(), Metric::Iops, None, theirs);
                }
                done += 1;
                eprintln!("step: {done} of {all}: {title}");
            }
        }
    }
    drop(setups);
    call("rmmod", &["brd"])?;
    site.leave()?;
    Ok(rounds.end())
}

/// Writes all of a device: what was never written is not read from anywhere. That it is full ends the writer with an error,
/// which is what it is written for.
fn fill(device: &str) -> Result<()> {
    let filled = call("dd", &["if=/dev/urandom", &format!("of={device}"), "bs=1M", "oflag=direct"]);
    match filled {
        Err(error) if !format!("{error:#}").contains("No space left") => Err(error),
        _ => Ok(()),
    }
}
