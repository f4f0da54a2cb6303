// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Lanes on a device: each has one operation in flight at a time, and every read is judged at once.
//!
//! Lanes share the area. No two of them change a unit at the same time: memory does not promise to keep one of the two whole.
//! Reads go on beside writes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure, Context as _, Result};

use super::device::{Device, Memory};
use super::model::{Extent, Kind, Model};
use super::schedule::{sequence, Mix, Schedule, Step};
use super::verdict::listed;
use crate::random::Random;

/// Units of the writes that fill the area at the beginning, and of the reads at the end.
const CHUNK: u64 = 64;
/// The lane of the first writes. No other has this number.
const FIRST: u64 = 1 << 20;

/// The load that is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Operations in flight at a time; 0: none, until the end.
    pub lanes: u64,
    pub mix: Mix,
    pub seed: u64,
}

/// A load at work.
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<()>>>,
}

struct Shared {
    device: Device,
    schedule: Schedule,
    model: Mutex<Known>,
    stop: AtomicBool,
    generation: AtomicU64,
    ended: AtomicU64,
    slowest_us: AtomicU64,
    /// Least time from the beginning of an operation of a lane to that of the next.
    pace: Duration,
}

struct Known {
    model: Model,
    /// Units with a change in flight.
    taken: Vec<bool>,
}

/// What a load did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// Operations that ended.
    pub operations: u64,
    /// The longest of them.
    pub slowest: Duration,
}

impl Load {
    /// Fills the area, and starts.
    pub fn start(device: Device, shape: &Shape) -> Result<Self> {
        Self::start_at_pace(device, shape, Duration::ZERO)
    }

    /// The same with at most one operation of each lane in this time, so that something else has a processor.
    pub fn start_at_pace(device: Device, shape: &Shape, pace: Duration) -> Result<Self> {
        let terms = device.terms;
        ensure!(terms.units > CHUNK, "an area of {} units is too small", terms.units);
        let known = Known { model: Model::new(terms), taken: vec![false; terms.units as usize] };
        let shared = Arc::new(Shared {
            device,
            schedule: Schedule { seed: shape.seed, mix: shape.mix },
            model: Mutex::new(known),
            stop: AtomicBool::new(false),
            generation: AtomicU64::new(1),
            ended: AtomicU64::new(0),
            slowest_us: AtomicU64::new(0),
            pace,
        });
        shared.fill()?;
        let mut threads = Vec::new();
        for lane in 0..shape.lanes {
            let shared = Arc::clone(&shared);
            let named = std::thread::Builder::new().name("oracle".to_owned());
            threads.push(named.spawn(move || shared.go_on(lane))?);
        }
        Ok(Self { shared, threads })
    }

    /// What is written from now on is of the next generation.
    pub fn next_generation(&self) {
        self.shared.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Operations that have ended so far.
    pub fn ended(&self) -> u64 {
        self.shared.ended.load(Ordering::SeqCst)
    }

    /// Whether it has lanes.
    pub fn is_idle(&self) -> bool {
        self.threads.is_empty()
    }

    /// An error when a lane has ended, which it does by itself only at an error or a broken rule.
    pub fn check(&mut self) -> Result<()> {
        let Some(at) = self.threads.iter().position(JoinHandle::is_finished) else { return Ok(()) };
        let ended = self.threads.remove(at).join().map_err(|_| anyhow!("a lane panicked"))?;
        ended.and(Err(anyhow!("a lane has ended by itself")))
    }

    /// Reads the whole area and judges it, while the lanes go on.
    pub fn verify(&self) -> Result<()> {
        let units = self.shared.device.terms.units;
        let mut memory = Memory::new(self.shared.device.terms.bytes(CHUNK));
        for start in (0..units).step_by(CHUNK as usize) {
            self.shared.read(Extent { start, count: CHUNK.min(units - start) }, &mut memory)?;
        }
        Ok(())
    }

    /// Stops, and judges the whole area. An error when any operation failed or any rule is broken.
    pub fn stop(mut self) -> Result<Done> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in std::mem::take(&mut self.threads) {
            thread.join().map_err(|_| anyhow!("a lane panicked"))??;
        }
        self.verify()?;
        let slowest = Duration::from_micros(self.shared.slowest_us.load(Ordering::SeqCst));
        Ok(Done { operations: self.ended(), slowest })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn fill(&self) -> Result<()> {
        let mut memory = Memory::new(self.device.terms.bytes(CHUNK));
        let units = self.device.terms.units;
        for (step, start) in (0..).zip((0..units).step_by(CHUNK as usize)) {
            let extent = Extent { start, count: CHUNK.min(units - start) };
            self.change(
                Kind::Write { durable: false },
                extent,
                sequence(FIRST, step),
                &mut memory,
            )?;
        }
        Ok(())
    }

    fn go_on(&self, lane: u64) -> Result<()> {
        let mut memory = Memory::new(self.device.terms.bytes(CHUNK));
        let mut step = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let begun = Instant::now();
            self.step(lane, step, &mut memory).with_context(|| {
                format!("step {step} of lane {lane}, seed {}", self.schedule.seed)
            })?;
            let took = begun.elapsed();
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            self.slowest_us.fetch_max(micros, Ordering::SeqCst);
            self.ended.fetch_add(1, Ordering::SeqCst);
            step += 1;
            std::thread::sleep(self.pace.saturating_sub(took));
        }
        Ok(())
    }

    fn step(&self, lane: u64, step: u64, memory: &mut Memory) -> Result<()> {
        let all = Extent { start: 0, count: self.device.terms.units };
        for attempt in 0.. {
            match self.schedule.step(lane, step, attempt, all) {
                Step::Read(extent) => return self.read(extent, memory),
                Step::Flush => return self.flush(),
                Step::Change(kind, extent) if self.take(extent) => {
                    let result = self.change(kind, extent, sequence(lane, step), memory);
                    self.known().set(extent, false);
                    return result;
                }
                // Somebody is at work there.
                Step::Change(..) => {}
            }
        }
        Ok(())
    }

    fn change(&self, kind: Kind, extent: Extent, sequence: u64, memory: &mut Memory) -> Result<()> {
        let generation = self.generation.load(Ordering::SeqCst);
        let ticket = self.known().model.issue(kind, extent, sequence, generation);
        let result = self.device.change(kind, extent, sequence, generation, memory);
        let mut known = self.known();
        match &result {
            Ok(()) => known.model.acknowledge(ticket),
            Err(_) => known.model.fail(ticket),
        }
        result
    }

    fn flush(&self) -> Result<()> {
        let flush = self.known().model.flush();
        self.device.flush()?;
        self.known().model.flushed(flush);
        Ok(())
    }

    fn read(&self, extent: Extent, memory: &mut Memory) -> Result<()> {
        let read = self.known().model.read(extent);
        let data = match self.device.read(extent, memory) {
            Ok(data) => data,
            Err(error) => {
                self.known().model.read_failed(read);
                return Err(error);
            }
        };
        let findings = self.known().model.judge(read, data);
        ensure!(findings.is_empty(), "{}", listed(&findings));
        Ok(())
    }

    fn take(&self, extent: Extent) -> bool {
        let mut known = self.known();
        let is_free = extent.units().all(|unit| known.taken.get(unit as usize) == Some(&false));
        if is_free {
            known.set(extent, true);
        }
        is_free
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn set(&mut self, extent: Extent, taken: bool) {
        for unit in extent.units() {
            if let Some(place) = self.taken.get_mut(unit as usize) {
                *place = taken;
            }
        }
    }
}

/// A name for a run that no other has.
pub fn volume_name(words: &[u64]) -> u64 {
    Random::mixed(words).number() | 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::Terms;
    use crate::wait;

    #[test]
    fn a_file_is_a_right_device_until_somebody_else_writes_to_it() {
        let path = std::env::temp_dir().join(format!("atom-oracle-{}", std::process::id()));
        let terms =
            Terms { volume: 5, unit_sectors: 8, units: 256, discard_zeroes: true, blank: true };
        std::fs::write(&path, vec![0; terms.bytes(terms.units)]).expect("a temporary file");
        let name = path.to_str().expect("a path");
        let mix = Mix { zeroes: 0, discards: 0, ..Mix::ALL };
        let shape = Shape { lanes: 4, mix, seed: 7 };
        let start = || {
            let device = Device::with_terms(name, terms).expect("a device");
            Load::start(device, &shape).expect("lanes")
        };
        let load = start();
        wait::until("work", Duration::from_secs(60), || Ok(load.ended() > 200)).expect("work");
        load.next_generation();
        let seen = load.ended() + 200;
        wait::until("work", Duration::from_secs(60), || Ok(load.ended() > seen)).expect("work");
        assert!(load.stop().expect("all is right").operations > 400);

        let load = start();
        let file = std::fs::OpenOptions::new().write(true).open(&path).expect("the file");
        // Faster than anybody who writes the unit anew could hide it.
        for unit in 0..256 {
            use std::os::unix::fs::FileExt;
            file.write_all_at(&[1], unit * 4096 + 100).expect("written");
        }
        let error = load.stop().map(|done| done.operations).expect_err("bytes were changed");
        let said = format!("{error:#}");
        assert!(said.contains("nobody has written") || said.contains("torn"), "{said}");
        let _ = std::fs::remove_file(&path);
    }
}
