// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! One cell: load, fault, upgrade, what must hold, retry, what must hold.

use std::io::Write;
use std::sync::mpsc::{channel, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{ensure, Context as _, Result};
use atom_abi::lifecycle::Place;
use atomctl::node::Node;

use super::axes::{Cell, Fault, Volume, Way};
use super::judge;
use super::points;
use super::report::Ran;
use super::rules;
use super::stage::{Stage, NAME};
use super::tool::{self, Ended, Tool};
use super::workload::Workload;
use super::world::Trouble;
use crate::failpoint;
use crate::leaks;
use crate::pressure;
use crate::random::Random;
use crate::wait;

/// The deadline of the drain in the upgrade with the fault, and in one in which somebody hangs until after it.
const DEADLINE: &str = "2s";
const SHORT_DEADLINE: &str = "700ms";
/// The soak of the points that only the end of one comes to.
const SOAK: &str = "300ms";
/// How long somebody hangs until it is let go of: longer than the deadline, so that Atom goes back before.
const HANGS: Duration = Duration::from_millis(1500);
/// How long the upgrade with the fault may take in all.
const LIMIT: Duration = Duration::from_secs(40);
const PATIENCE: Duration = Duration::from_secs(30);
/// A cell that takes longer hangs.
const LONGEST: Duration = Duration::from_secs(150);

/// What was seen of a cell.
#[derive(Default)]
struct Seen {
    outcome: Option<String>,
    pause_us: Option<u64>,
    met: bool,
}

/// Runs cells until one fails, or leaves the machine as its fault wants it, and prints a line for each.
pub fn run_all(stage: &mut Stage, cells: &[Cell]) -> Result<()> {
    for (at, cell) in cells.iter().enumerate() {
        let mut ran = run(stage, cell)?;
        let is_last = rules::ends_the_boot(cell);
        // What a dead task or payload has is lost, and no leak of ours.
        if ran.passed && !is_last && cells.get(at + 1).is_none_or(rules::ends_the_boot) {
            look_for_leaks(&mut ran)?;
        }
        show(&ran)?;
        if !ran.passed || is_last {
            break;
        }
    }
    Ok(())
}

/// Fails a cell when memory was leaked in it or in one before it. Where the kernel does not look for that it costs nothing.
fn look_for_leaks(ran: &mut Ran) -> Result<()> {
    let list = leaks::find()?;
    if !list.is_empty() {
        ran.passed = false;
        ran.why = Some(format!("memory was leaked since the machine was started:\n{list}"));
    }
    Ok(())
}

fn show(ran: &Ran) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", serde_json::to_string(ran)?)?;
    Ok(stdout.flush()?)
}

/// Runs a cell. When it hangs its line is printed, and this process ends.
fn run(stage: &mut Stage, cell: &Cell) -> Result<Ran> {
    let begun = Instant::now();
    eprintln!("step: cell {cell}");
    let why = format!("it hangs: nothing for {LONGEST:?}");
    let mut ran = Ran { seconds: LONGEST.as_secs_f64(), ..Ran::of(cell.to_string(), Some(why)) };
    let (done, is_done) = channel::<()>();
    let hung = ran.clone();
    let guard = std::thread::spawn(move || {
        if is_done.recv_timeout(LONGEST) == Err(RecvTimeoutError::Timeout) {
            let _ = show(&hung);
            std::process::exit(1);
        }
    });
    let mut seen = Seen::default();
    let result = carry_out(stage, cell, &mut seen);
    let result = result.and_then(|()| {
        let complaints = stage.complaints(cell)?;
        ensure!(complaints.is_empty(), "the kernel complains: {}", complaints.join("; "));
        Ok(())
    });
    drop(done);
    guard.join().map_err(|_| anyhow::anyhow!("the guard panicked"))?;
    ran.met = seen.met;
    ran.outcome = seen.outcome;
    ran.pause_us = seen.pause_us;
    ran.passed = result.is_ok();
    ran.why = result.err().map(|error| format!("{error:#}"));
    ran.seconds = begun.elapsed().as_secs_f64();
    Ok(ran)
}

fn carry_out(stage: &mut Stage, cell: &Cell, seen: &mut Seen) -> Result<()> {
    let (from, to) = Stage::versions(cell.direction);
    step("serve");
    stage.serve(from).context("before the cell")?;
    let before = stage.there()?;
    step("volume");
    let device = stage.volume(cell.volume, NAME, &stage.way_to_server(cell))?;
    let seed = Random::mixed(&cell.to_string().bytes().map(u64::from).collect::<Vec<_>>()).number();
    step("load");
    let mut load = Workload::start(cell, &device, seed).context("the load before the upgrade")?;
    step("history");
    tool::clear_history()?;

    step("the upgrade");
    let armed = Armed::new(stage, cell)?;
    step("tool");
    let trouble = Trouble::begin(stage, cell, &device)?;
    if rules::needs_a_stall(cell) {
        stage.server.freeze()?;
    }
    load.next_generation();
    let ended = upgrade(stage, cell, &armed, &trouble, seen);
    step("tool ended");
    trouble.ease(stage, cell)?;
    if rules::needs_a_stall(cell) {
        stage.server.go_on()?;
    }
    let ended = ended?;
    seen.met |= armed.met();
    // The module may have gone with its count before anybody looked.
    seen.met |= rules::shows_as_an_inverse_that_failed(cell) && ended.warns_of("inverse");
    seen.outcome = Some(ended.outcome().unwrap_or("killed").to_owned());
    seen.pause_us = ended.document["pause_us"].as_u64();
    stage.disarm()?;

    step("what serves");
    let is_dead = judge::serves(stage, cell, &ended).context("after the upgrade")?;
    step("journal");
    judge::journal(stage, &ended, from, to).context("the journal")?;
    seen.met |= trouble.end()?;
    step("flows");
    load.next_generation();
    // One that has let go of requests too late for Atom to take them will not end them.
    if !rules::may_leave_requests(cell) || stage.site.live()? == to {
        load.flows().context("after the upgrade")?;
    }

    if stage.site.live()? != to && !is_dead {
        step("a retry");
        judge::retry(stage, cell, to).context("the retry")?;
        load.flows().context("after the retry")?;
    }
    step("what was written");
    load.stop()?;
    step("stopped");
    if rules::ends_the_boot(cell) {
        return Ok(());
    }
    stage.site.destroy(NAME)?;
    stage.tidy()?;
    step("tidy");
    wait::until("everything is as before", PATIENCE, || Ok(stage.there()? == before))
        .with_context(|| format!("{before:?} became {:?}", stage.there()))?;
    step("end");
    stage.passed()
}

fn step(what: &str) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    eprintln!("step:   {}.{:03} {what}", now.as_secs() % 1000, now.subsec_millis());
}

/// The failpoints that are armed for a cell.
struct Armed {
    /// The module of the cell's point, and its name.
    point: Option<(String, String)>,
    /// The same of all that were armed: whoever hangs there is let go of.
    all: Vec<(String, String)>,
}

impl Armed {
    fn new(stage: &Stage, cell: &Cell) -> Result<Self> {
        let (from, to) = Stage::versions(cell.direction);
        let module = |version: &str| format!("payload_{}", version.replace('.', "_"));
        let of = |fault: &Fault| match fault.module() {
            Some("payload") if fault.is_of_candidate() => module(to),
            Some("payload") => module(from),
            Some(module) => module.to_owned(),
            None => String::new(),
        };
        let Some(_) = cell.fault.module() else { return Ok(Self { point: None, all: Vec::new() }) };
        let mut faults = vec![cell.fault.clone()];
        if rules::needs_a_hang(cell) {
            faults.push(Fault::new("payload.adopt.begin", "hang"));
        } else if rules::needs_the_way_back(cell) {
            faults.push(Fault::new("atom.switch.adopt", "error"));
        }
        if cell.way == Way::Warm && faults.iter().any(Fault::is_of_candidate) {
            stage.site.insert(&stage.site.file(to))?;
        }
        for fault in faults.iter().rev() {
            points::arm(&of(fault), fault)?;
        }
        let all: Vec<_> = faults.iter().map(|fault| (of(fault), fault.point.clone())).collect();
        let armed = Self { point: all.first().cloned(), all };
        if rules::needs_a_volume_to_come(cell) {
            armed.come_and_go(stage, cell)?;
        }
        Ok(armed)
    }

    /// A second volume comes and goes, or does not come.
    fn come_and_go(&self, stage: &Stage, cell: &Cell) -> Result<()> {
        if cell.fault.kind == "oops" {
            // It kills whoever asks for the volume.
            let argv = ["volume", "create", "--kind", "ram", "--size", "1M", "other"];
            let ended = tool::run(&[stage.folder], &argv)?;
            ensure!(ended.code.is_none(), "it was to be killed: {ended:?}");
            return Ok(());
        }
        let (stop, stopped) = channel::<()>();
        let point = self.point.clone();
        let watch = std::thread::spawn(move || {
            if stopped.recv_timeout(HANGS / 4) == Err(RecvTimeoutError::Timeout) {
                let _ = point.map(|(module, name)| failpoint::release(&module, &name));
            }
        });
        let other = match cell.volume {
            // The disks are in use.
            Volume::Linear | Volume::Stripe => Volume::Ram,
            other => other,
        };
        // With the fault it may be refused.
        if stage.volume(other, "other", stage.server.at()).is_ok() {
            let _ = stage.site.destroy("other");
        }
        drop(stop);
        watch.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
        // A removal that was refused is asked for again.
        let names = atomctl::volume::list(stage.site.node().control())?;
        if names.iter().any(|entry| entry.name == "other") {
            stage.site.destroy("other")?;
        }
        Ok(())
    }

    fn met(&self) -> bool {
        self.point.as_ref().is_some_and(|(module, name)| points::hits(module, name) > 0)
    }
}

/// The upgrade with the fault.
fn upgrade(
    stage: &mut Stage,
    cell: &Cell,
    armed: &Armed,
    trouble: &Trouble,
    seen: &mut Seen,
) -> Result<Ended> {
    let (_, to) = Stage::versions(cell.direction);
    let file = stage.file(to);
    let hangs = cell.fault.kind == "hang" || rules::needs_a_hang(cell);
    let deadline = if hangs { SHORT_DEADLINE } else { DEADLINE };
    let mut args = vec!["upgrade", "--deadline", deadline];
    if cell.way == Way::Cold {
        args.push("--cold");
    }
    if rules::needs_a_stall(cell) {
        args.extend(["--at-deadline", "reissue"]);
    }
    if rules::needs_a_soak(cell) {
        args.extend(["--soak", SOAK]);
    }
    args.push(&file);
    let folders = [stage.folder];
    let pressed =
        cell.load == super::axes::Load::Pressure && std::path::Path::new(pressure::GROUP).exists();
    let events = stage.site.node().status()?.events;
    let mut tool = Tool::start("atomctl-cell", &folders, &args, pressed)?;
    trouble.meanwhile(stage, cell)?;
    match cell.fault.point.as_str() {
        "world.tool.running" => {
            until(stage, &mut tool, |stage| Ok(stage.site.node().status()?.events != events))?;
            let second = tool::run(&folders, &["upgrade", "--deadline", DEADLINE, &file])?;
            // It came too late when the first had ended.
            seen.met = second.outcome().is_none_or(|word| word == "refused");
        }
        "world.tool.start" => seen.met = kill(&mut tool)?,
        "world.tool.inserted" => {
            until(stage, &mut tool, |stage| Ok(stage.site.node().status()?.payloads != 1))?;
            seen.met = kill(&mut tool)?;
        }
        "world.tool.held" => {
            until(stage, &mut tool, |stage| {
                Ok(stage.site.node().status()?.place != Place::Live.code())
            })?;
            seen.met = kill(&mut tool)?;
        }
        "world.tool.switched" => {
            let live = stage.site.node().status()?.live;
            until(stage, &mut tool, |stage| {
                let status = stage.site.node().status()?;
                Ok(status.live != live && status.live != 0)
            })?;
            seen.met = kill(&mut tool)?;
        }
        "world.nothing" => seen.met = true,
        _ => {}
    }
    let mut hangs: Option<Instant> = None;
    wait::until("the upgrade ends", LIMIT, || {
        seen.met |= armed.met();
        for (module, name) in &armed.all {
            // The module may be gone.
            let waiting = failpoint::find(module, name).map_or(0, |point| point.waiting);
            if waiting > 0 && hangs.get_or_insert_with(Instant::now).elapsed() > HANGS {
                failpoint::release(module, name)?;
            }
        }
        Ok(!tool.runs()?)
    })?;
    tool.end(LIMIT)
}

/// Waits for something, or for the tool's end.
fn until(stage: &Stage, tool: &mut Tool, holds: impl Fn(&Stage) -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    // No sleep: what is waited for lasts a millisecond.
    while tool.runs()? && !holds(stage)? {
        ensure!(begun.elapsed() < PATIENCE, "neither an event nor an end of the tool");
    }
    Ok(())
}

/// Kills the tool, and says whether it was still there.
fn kill(tool: &mut Tool) -> Result<bool> {
    let runs = tool.runs()?;
    if runs {
        tool.kill()?;
    }
    Ok(runs)
}
