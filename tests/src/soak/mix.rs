// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The volumes of a soak, and the load on them: the oracle on each that keeps what is written, and fio for depth.

use std::time::Duration;

use anyhow::{Context as _, Result};
use atom_payload::spec::Layout;

use crate::composed::{self, stripe, Target};
use crate::load::fio::{Fio, Shape};
use crate::oracle::device::{Device, Promise};
use crate::oracle::load::{volume_name, Load, Shape as Lanes};
use crate::oracle::schedule::Mix as Operations;
use crate::queue;
use crate::random::Random;
use crate::server::{self, At, Server};
use crate::site::{Site, Spec};
use crate::wait;

/// The disks that a machine for a soak has, in MiB.
pub const DISKS_MIB: &[u64] = &[32, 32, 32, 32, 32];

/// MiB of each volume, and of each target of several.
const MIB: u64 = 16;
/// The oracle's area on each volume: small, because all of it is read back after each block.
const BYTES: u64 = 512 << 10;
/// Bytes that fio writes again and again.
const FIO_BYTES: u64 = 4 << 20;
/// Requests that fio has in flight.
const DEPTH: u32 = 8;
/// Blocks that are written at a time before fio begins: a power of two, and fewer than fio has.
const FILLED_AT_ONCE: usize = 256;
/// Requests that fio asks for in a second: some in each upgrade, and no more, so that the upgrades have a processor.
const RATE: u32 = 100;
/// Time from one operation of the oracle on a volume to the next, for the same reason.
const PACE: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(60);

/// The name of the volume over a server.
pub const NET: &str = "net";

/// The volumes under load.
pub struct Mix {
    server: Server,
    lanes: Vec<(String, Load)>,
    fio: Vec<Fio>,
    /// The device of the volume that keeps nothing.
    null: String,
    /// The device of the volume over a server.
    net: String,
}

/// What the load did, all together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    pub ios: u64,
    pub slowest_us: u64,
}

impl Mix {
    /// Makes the volumes, and starts the load.
    pub fn start(site: &Site, random: &mut Random) -> Result<Self> {
        let file = server::file("soak.img", MIB)?.display().to_string();
        let server = Server::nbdkit_unseen("soak", At::free_port()?, &["file", &file])?;
        let net =
            || Target::nbd(server.at(), "").connections(2).retries_each(Duration::from_millis(200));
        let disk = |letter: &str| Target::bdev(&format!("/dev/vd{letter}")).mib(MIB);
        let ram = site.volume("ram", Spec::ram(MIB))?;
        let null = site.volume("null", Spec::null(MIB))?;
        let fio = site.volume("fio", Spec::ram(MIB))?;
        let made = |name: &str, layout, targets: &[Target]| -> Result<String> {
            Ok(composed::create(site, name, layout, targets)?.device)
        };
        let linear = made("linear", Layout::Linear, &[disk("a"), disk("b")])?;
        let striped = made("stripe", stripe(64), &[disk("c"), disk("d")])?;
        let mixed = made("mixed", Layout::Linear, &[Target::ram(1), disk("e")])?;
        let device = made(NET, Layout::Linear, &[net()])?;
        let mut lanes = Vec::new();
        let on = [
            ("ram", &ram),
            ("linear", &linear),
            ("stripe", &striped),
            ("mixed", &mixed),
            (NET, &device),
        ];
        for (name, path) in on {
            let seed = random.number();
            let promise = Promise { discard_zeroes: name == "ram", blank: false };
            let on = Device::open(path, volume_name(&[seed]), BYTES, promise)?;
            let shape = Lanes { lanes: 1, mix: Operations::ALL, seed };
            let load = Load::start_at_pace(on, &shape, PACE)
                .with_context(|| format!("the oracle on {name}"))?;
            lanes.push((name.to_owned(), load));
        }
        let shape = Shape { depth: DEPTH, bytes: FIO_BYTES, verify: true };
        fill(&fio, shape.bytes)?;
        let fio = vec![Fio::start_at_rate(&fio, shape, RATE)?];
        Ok(Self { server, lanes, fio, null, net: device })
    }

    /// The volumes, for people.
    pub fn describe() -> Vec<String> {
        [
            "`ram`: in memory; the oracle, with discards and zeroes",
            "`linear`: over two disks; the oracle",
            "`stripe`: over two disks in chunks of 64 KiB; the oracle",
            "`mixed`: the first 1 MiB in memory, the rest on a disk; the oracle",
            "`net`: an export of nbdkit, over two connections; the oracle",
            "`fio`: in memory; fio, 8 requests in flight, verified",
            "`null`: keeps nothing; a read after each attempt",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// An error when anything has failed, or was found to be wrong.
    pub fn check(&mut self) -> Result<()> {
        for (name, load) in &mut self.lanes {
            load.check().with_context(|| format!("the oracle on {name}"))?;
        }
        self.fio.iter_mut().try_for_each(Fio::check)
    }

    /// Another payload is to serve now.
    pub fn next_generation(&self) {
        self.lanes.iter().for_each(|(_, load)| load.next_generation());
    }

    /// Operations of the oracle so far.
    pub fn ended(&self) -> u64 {
        self.lanes.iter().map(|(_, load)| load.ended()).sum()
    }

    /// Waits until an operation that began after now has ended on each volume of the oracle.
    pub fn flows(&mut self) -> Result<()> {
        queue::read_block(&self.null, 0)?;
        let before: Vec<u64> = self.lanes.iter().map(|(_, load)| load.ended()).collect();
        wait::until("I/O on every volume", PATIENCE, || {
            self.check()?;
            // The first one to end may have begun before.
            let mut lanes = self.lanes.iter().zip(&before);
            Ok(lanes.all(|((_, load), before)| load.ended() > before + 1))
        })
    }

    /// Reads everything back that the oracle has written, while the load goes on.
    pub fn verify(&self) -> Result<()> {
        self.lanes.iter().try_for_each(|(name, load)| {
            load.verify().with_context(|| format!("the oracle on {name}"))
        })
    }

    /// Lets the server stand still, and returns when a request waits for it.
    pub fn freeze_server(&self) -> Result<()> {
        self.server.freeze()?;
        wait::until("a request waits for the server", PATIENCE, || {
            Ok(queue::in_flight(&self.net)? > 0)
        })
    }

    /// Lets the server go on.
    pub fn thaw_server(&self) -> Result<()> {
        self.server.go_on()
    }

    /// Stops, and judges everything that was written. The server is handed back: it is stopped when its volume is gone.
    pub fn stop(self) -> Result<(Done, Server)> {
        let mut done = Done::default();
        for (name, load) in self.lanes {
            let theirs = load.stop().with_context(|| format!("the oracle on {name}"))?;
            done.ios += theirs.operations;
            let slowest = u64::try_from(theirs.slowest.as_micros()).unwrap_or(u64::MAX);
            done.slowest_us = done.slowest_us.max(slowest);
        }
        let fio = Fio::stop_all(self.fio)?;
        done.ios += fio.ios;
        done.slowest_us = done.slowest_us.max(fio.slowest_us);
        Ok((done, self.server))
    }
}

/// Writes all of what fio will write. A volume in memory has pages for what was written once, and at its rate fio would be at its
/// first pass for as long as a short run takes.
fn fill(device: &str, bytes: u64) -> Result<()> {
    let blocks = bytes / queue::BLOCK as u64;
    for block in (0..blocks).step_by(FILLED_AT_ONCE) {
        queue::write_words(device, block, &[1; FILLED_AT_ONCE])?;
    }
    Ok(())
}
