// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Connections and open disks outlive the payload: in every state of a target, under verified load.

use std::fs;
use std::time::Duration;

use anyhow::{anyhow, ensure, Context as _, Result};
use atom_abi::control::{outcome, Report};
use atom_abi::lifecycle::Place;
use atom_abi::version::reason;
use atom_payload::shown::TargetState;
use atom_payload::spec::{Layout, OnFailure};
use atomctl::drain::{AtDeadline, Drain};
use atomctl::node::Node;
use atomctl::report::Mode;

use super::upgrades::quantiles;
use super::Context;
use crate::composed::{self, first_target, stripe, until_target_is, Target};
use crate::firewall::Firewall;
use crate::load::crowd::Crowd;
use crate::load::fio::{Fio, Shape};
use crate::nbd_client::NbdClient;
use crate::relay::{Relay, Seen};
use crate::server::{self, At, Server};
use crate::site::Site;
use crate::spare::{self, Spare};
use crate::{queue, wait};

const PATIENCE: Duration = Duration::from_secs(60);
const LOAD: Shape = Shape { depth: 16, bytes: 8 << 20, verify: true };
/// Deadline of a drain that is waited for.
const DEADLINE: Duration = Duration::from_millis(500);
/// Upgrades each way, in each mode.
const EACH_WAY: usize = 10;
/// The two versions, by turns.
const VERSIONS: [&str; 2] = ["2.1.0", "2.0.0"];

/// The payload that is not live, loaded and ready to be switched to.
struct Other {
    ids: [u32; 2],
}

impl Other {
    /// 2.0.0 is live; 2.1.0 is loaded too.
    fn load(site: &Site) -> Result<Self> {
        let live = site.node().status()?.live;
        Ok(Self { ids: [live, site.insert(&site.file("2.1.0"))?] })
    }

    /// Switches to it within [`DEADLINE`].
    fn switch(&self, site: &Site, at_deadline: AtDeadline) -> Result<Report> {
        let live = site.node().status()?.live;
        let other = self.ids.iter().find(|id| **id != live).context("no other payload")?;
        let drain = Drain { deadline: DEADLINE, at_deadline, forsake: false };
        Ok(site.node().control().switch(*other, drain)?)
    }
}

fn done(report: &Report) -> Result<()> {
    ensure!(report.outcome == outcome::DONE, "{}: {report:?}", report.refusal);
    Ok(())
}

fn until_writes(device: &str, more: u64) -> Result<()> {
    let before = queue::stat(device)?.writes;
    wait::until("more writes", PATIENCE, || Ok(queue::stat(device)?.writes >= before + more))
}

/// nbdkit for a file of 64 MiB.
fn nbdkit(name: &str) -> Result<Server> {
    let file = server::file(&format!("{name}.disk"), 64)?;
    Server::nbdkit(name, At::free_port()?, &["file", &file.display().to_string()])
}

pub fn the_server_sees_one_connection_through_all_upgrades(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    let server = nbdkit("server")?;
    let several = nbdkit("several")?;
    let at = At::socket("unix");
    let unix = Server::nbdkit("unix", at, &["memory", "64M"])?;
    let targets = [
        ("one", Target::nbd(server.at(), ""), &server),
        ("several", Target::nbd(several.at(), "").connections(4), &several),
        ("unix", Target::nbd(unix.at(), ""), &unix),
    ];
    let mut loads = Vec::new();
    for (name, target, _) in &targets {
        let volume = composed::create(&site, name, Layout::Linear, std::slice::from_ref(target))?;
        loads.push((volume.device.clone(), Fio::start(&volume.device, LOAD)?));
    }
    let ports = || -> Result<Vec<Vec<u16>>> {
        targets.iter().map(|(name, ..)| Ok(first_target(&site, name)?.ports())).collect()
    };
    wait::until("all connections", PATIENCE, || Ok(ports()?[1].len() == 4))?;
    let before = ports()?;
    context.step(&format!("ports {before:?}"));
    for mode in [Mode::Warm, Mode::Cold] {
        let mut pauses = Vec::new();
        for round in 0..EACH_WAY {
            context.step(&format!("{mode} {round}"));
            for version in VERSIONS {
                let report = site.upgrade(version, mode)?;
                ensure!(ports()? == before, "the ports are {:?}, not {before:?}", ports()?);
                pauses.push(report.pause_us);
                for (device, load) in &mut loads {
                    load.check()?;
                    until_writes(device, 20)?;
                }
            }
        }
        context.fact(&format!("{mode}_pause_us"), quantiles(&mut pauses));
    }
    context.step("rollbacks to a parked payload");
    context.run(&[
        "atomctl",
        "upgrade",
        "--keep-parked",
        &site.file("2.1.0").display().to_string(),
    ])?;
    for _ in 0..5 {
        context.run(&["atomctl", "rollback"])?;
        ensure!(ports()? == before, "the ports are {:?}, not {before:?}", ports()?);
        for (device, _) in &loads {
            until_writes(device, 20)?;
        }
    }
    context.step("what the servers have seen");
    let mut ios = 0;
    for (_, load) in loads {
        ios += load.stop()?.ios;
    }
    context.fact("verified_ios", ios);
    for ((name, _, server), wanted) in targets.iter().zip([1, 4, 1]) {
        let (seen, view) = (server.seen()?, first_target(&site, name)?);
        ensure!(seen.connects == wanted && seen.disconnects == 0, "{name}: {seen:?}");
        ensure!(view.status.reconnects == 0 && view.status.resent == 0, "{name}: {view:?}");
        context.fact(&format!("{name}_seen_by_the_server"), format!("{seen:?}"));
        site.destroy(name)?;
        wait::until("a clean end", PATIENCE, || Ok(server.seen()?.disconnects == wanted))?;
    }
    for server in [server, several, unix] {
        server.stop()?;
    }
    site.leave()
}

/// The read is taken back and asked anew; what is left of its first answer is read and dropped.
pub fn batches_of_requests_go_through_switches(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    let server = nbdkit("server")?;
    let disks = ["/dev/vda", "/dev/vdb"].map(Target::bdev);
    let disks = composed::create(&site, "disks", stripe(64), &disks)?;
    let net = [Target::nbd(server.at(), "")];
    let net = composed::create(&site, "net", Layout::Linear, &net)?;
    let devices = [disks.device, net.device];
    let shape = Shape { depth: 32, ..LOAD };
    let mut loads = Vec::new();
    for device in &devices {
        loads.push(Fio::start_in_batches(device, shape, 16)?);
    }
    let mut pauses = Vec::new();
    for round in 0..EACH_WAY {
        context.step(&format!("round {round}"));
        for version in VERSIONS {
            let report = site.upgrade(version, Mode::Warm)?;
            pauses.push(report.pause_us);
            for (device, load) in devices.iter().zip(&mut loads) {
                load.check()?;
                until_writes(device, 40)?;
            }
        }
    }
    context.fact("pause_us", quantiles(&mut pauses));
    for load in loads {
        context.fact("verified_ios", load.stop()?.ios);
    }
    site.destroy("disks")?;
    site.destroy("net")?;
    server.stop()?;
    site.leave()
}

pub fn an_answer_that_is_half_read_at_the_switch_is_read_to_its_end(
    context: &mut Context,
) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    let server = nbdkit("server")?;
    let relay = Relay::start(server.at().port()?)?;
    let target = Target::nbd(&At::Port(relay.port()), "");
    let volume = composed::create(&site, "data", Layout::Linear, &[target])?;
    let words: Vec<u64> = (1..=64).collect();
    queue::write_words(&volume.device, 0, &words)?;
    let other = Other::load(&site)?;
    // Within the header, right behind it, within the data, and so that only the last byte is missing.
    for pass in [1, 7, 16, 20, 5000, 200_000, 262_144] {
        context.step(&format!("{pass} bytes of the answer have come"));
        relay.stall_after(pass);
        let device = volume.device.clone();
        let reader = std::thread::spawn(move || queue::read_words(&device, 0, 64));
        wait::until("the answer stalls", PATIENCE, || Ok(relay.is_stalled()))?;
        let report = other.switch(&site, AtDeadline::Reissue)?;
        done(&report)?;
        ensure!(report.revoked >= 1, "nothing was taken back: {report:?}");
        ensure!(!reader.is_finished(), "the read has ended without its answer");
        relay.go_on();
        wait::until("the read ends", PATIENCE, || Ok(reader.is_finished()))?;
        let read = reader.join().map_err(|_| anyhow!("the reader panicked"))??;
        ensure!(read.iter().zip(&words).all(|(found, word)| *found == Some(*word)), "{read:?}");
        ensure!(relay.came() == 1 && relay.left() == 0, "{:?}", relay.seen());
        queue::write_words(&volume.device, 4096, &[pass])?;
        ensure!(queue::read_words(&volume.device, 4096, 1)? == [Some(pass)], "wrong data");
    }
    context.step("without reissue it is undone, and the answer is still right");
    relay.stall_after(5000);
    let device = volume.device.clone();
    let reader = std::thread::spawn(move || queue::read_words(&device, 0, 64));
    wait::until("the answer stalls", PATIENCE, || Ok(relay.is_stalled()))?;
    let report = other.switch(&site, AtDeadline::Abort)?;
    ensure!(report.outcome == outcome::UNDONE, "{report:?}");
    relay.go_on();
    wait::until("the read ends", PATIENCE, || Ok(reader.is_finished()))?;
    let read = reader.join().map_err(|_| anyhow!("the reader panicked"))??;
    ensure!(read.iter().zip(&words).all(|(found, word)| *found == Some(*word)), "{read:?}");
    site.destroy("data")?;
    let seen = relay.stop()?;
    ensure!(
        matches!(seen.as_slice(), [Seen::Came(_)] | [Seen::Came(_), Seen::Left(_)]),
        "{seen:?}"
    );
    server.stop()?;
    site.leave()
}

/// What a write that was taken back may still do, it does before a newer write of the same place is sent.
pub fn a_write_that_was_taken_back_never_lands_on_a_newer_one(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    let server = nbdkit("server")?;
    let target = Target::nbd(server.at(), "");
    let volume = composed::create(&site, "data", Layout::Linear, &[target])?;
    let other = Other::load(&site)?;
    for round in 1..=10u64 {
        context.step(&format!("round {round}"));
        server.freeze()?;
        let device = volume.device.clone();
        let old = std::thread::spawn(move || queue::write_words(&device, 5, &[round; 32]));
        wait::until("it is on its way", PATIENCE, || Ok(site.owed()? > 0))?;
        done(&other.switch(&site, AtDeadline::Reissue)?)?;
        server.go_on()?;
        wait::until("the old write ends", PATIENCE, || Ok(old.is_finished()))?;
        old.join().map_err(|_| anyhow!("the writer panicked"))??;
        queue::write_words(&volume.device, 5, &[round + 1000; 32])?;
        let words = queue::read_words(&volume.device, 5, 32)?;
        ensure!(words.iter().all(|word| *word == Some(round + 1000)), "{words:?}");
    }
    ensure!(server.seen()?.connects == 1, "{:?}", server.seen()?);
    site.destroy("data")?;
    server.stop()?;
    site.leave()
}

pub fn a_flush_in_flight_goes_through_a_switch(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    let server = nbdkit("server")?;
    let target = Target::nbd(server.at(), "");
    let volume = composed::create(&site, "data", Layout::Linear, &[target])?;
    let other = Other::load(&site)?;
    for round in 1..=4u64 {
        context.step(&format!("flush {round}"));
        queue::write_words(&volume.device, round, &[round])?;
        let flushes = server.seen()?.flushes;
        server.freeze()?;
        let device = volume.device.clone();
        let flush = std::thread::spawn(move || -> Result<()> {
            Ok(fs::OpenOptions::new().write(true).open(device)?.sync_data()?)
        });
        wait::until("it is on its way", PATIENCE, || Ok(site.owed()? > 0))?;
        done(&other.switch(&site, AtDeadline::Reissue)?)?;
        ensure!(!flush.is_finished(), "a flush has ended that the server has not carried out");
        server.go_on()?;
        wait::until("the flush ends", PATIENCE, || Ok(flush.is_finished()))?;
        flush.join().map_err(|_| anyhow!("the flusher panicked"))??;
        ensure!(server.seen()?.flushes > flushes, "the server has seen no flush");
    }
    site.destroy("data")?;
    server.stop()?;
    site.leave()
}

pub fn an_upgrade_works_while_a_target_reconnects_hangs_or_has_failed(
    context: &mut Context,
) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    let mut server = nbdkit("server")?;
    let target = Target::nbd(server.at(), "")
        .failing(Duration::from_secs(4), OnFailure::Hold)
        .answers_within(Duration::from_secs(20))
        .retries_each(Duration::from_millis(500));
    let volume = composed::create(&site, "data", Layout::Linear, &[target])?;
    let mut load = Fio::start(&volume.device, LOAD)?;
    let other = Other::load(&site)?;
    for round in 0..2 {
        context.step(&format!("it hangs, {round}"));
        server.freeze()?;
        wait::until("requests wait", PATIENCE, || Ok(site.owed()? > 0))?;
        let before = first_target(&site, "data")?.ports();
        done(&other.switch(&site, AtDeadline::Reissue)?)?;
        server.go_on()?;
        until_writes(&volume.device, 100)?;
        ensure!(first_target(&site, "data")?.ports() == before, "it is another connection");

        context.step(&format!("it reconnects, {round}"));
        server.kill()?;
        until_target_is(&site, "data", TargetState::Retrying, PATIENCE)?;
        done(&other.switch(&site, AtDeadline::Reissue)?)?;
        let view = first_target(&site, "data")?;
        ensure!(view.status.state != TargetState::Ready, "{view:?}");

        context.step(&format!("it has failed, {round}"));
        let failed = until_target_is(&site, "data", TargetState::Failed, PATIENCE)?;
        done(&other.switch(&site, AtDeadline::Reissue)?)?;
        let view = first_target(&site, "data")?;
        ensure!(view.status.state == TargetState::Failed, "{view:?}");
        ensure!(view.status.reconnects == failed.status.reconnects, "{failed:?}, then {view:?}");

        context.step(&format!("it is back, {round}"));
        server.start_again()?;
        until_target_is(&site, "data", TargetState::Ready, PATIENCE)?;
        until_writes(&volume.device, 100)?;
        load.check()?;
    }
    context.step("behind a firewall");
    let firewall = Firewall::drop_port(server.at().port()?)?;
    wait::until("requests wait", PATIENCE, || Ok(site.owed()? > 0))?;
    done(&other.switch(&site, AtDeadline::Reissue)?)?;
    firewall.open()?;
    until_writes(&volume.device, 100)?;
    context.fact("verified_ios", load.stop()?.ios);
    site.destroy("data")?;
    server.stop_cut_off()?;
    site.leave()
}

pub fn disks_stay_held_and_statistics_go_along(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    let spare = Spare::create(64)?;
    let server = nbdkit("server")?;
    let targets = [Target::bdev(spare.device()).mib(64), Target::nbd(server.at(), "")];
    let volume = composed::create(&site, "data", stripe(64), &targets)?;
    let load = Fio::start(&volume.device, LOAD)?;
    until_writes(&volume.device, 300)?;
    load.stop()?;
    let mut before = composed::view(&site, "data")?;
    ensure!(before.schema == 4, "{before:?}");
    ensure!(before.targets.iter().all(|target| target.ended > 0), "{before:?}");
    for (version, mode, schema) in
        [("2.1.0", Mode::Warm, 5), ("2.0.0", Mode::Cold, 4), ("2.1.0", Mode::Cold, 5)]
    {
        context.step(&format!("{mode} to {version}"));
        let upgrade = {
            // As long as the upgrade goes on, nobody else gets hold of the disk.
            let path = spare.device();
            let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
            let theirs = std::sync::Arc::clone(&stop);
            let burglar = std::thread::spawn(move || {
                let mut tries = 0u64;
                while !theirs.load(std::sync::atomic::Ordering::Relaxed) {
                    if spare::exclusive(path).is_ok() {
                        return Err(anyhow!("somebody else holds {path}"));
                    }
                    tries += 1;
                }
                Ok(tries)
            });
            let upgrade = site.upgrade(version, mode);
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            let tries = burglar.join().map_err(|_| anyhow!("the burglar panicked"))??;
            ensure!(tries > 0, "nobody tried");
            upgrade
        };
        upgrade?;
        let after = composed::view(&site, "data")?;
        ensure!(after.schema == schema, "{after:?}");
        for (old, new) in before.targets.iter().zip(&after.targets) {
            ensure!(
                new.ended >= old.ended && new.total_ns >= old.total_ns,
                "{old:?}, then {new:?}"
            );
            // Nothing was asked for in between, and nothing is made up.
            ensure!(new.ended <= old.ended + 64, "{old:?}, then {new:?}");
        }
        before = after;
    }
    site.destroy("data")?;
    spare.remove()?;
    server.stop()?;
    site.leave()
}

pub fn a_volume_of_the_client_does_not_go_to_a_payload_without_one(
    context: &mut Context,
) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    let server = nbdkit("server")?;
    let target = Target::nbd(server.at(), "");
    let volume = composed::create(&site, "data", Layout::Linear, &[target])?;
    let mut load = Fio::start(&volume.device, LOAD)?;
    context.step("to 1.2.0, which knows nothing of it");
    let old = site.file("1.2.0");
    let report = site.try_upgrade(&old, Mode::Warm, Duration::from_secs(5));
    let refused = match &report {
        Ok(report) => report.outcome != atomctl::report::Outcome::Committed,
        Err(_) => true,
    };
    ensure!(refused && site.live()? == "2.0.0", "{report:?}, live is {}", site.live()?);
    let reason = report.as_ref().ok().and_then(|report| report.reason.clone()).unwrap_or_default();
    ensure!(reason.contains("data") && reason.contains("client"), "it does not say why: {reason}");
    load.check()?;
    until_writes(&volume.device, 50)?;
    load.stop()?;
    ensure!(server.seen()?.connects == 1, "{:?}", server.seen()?);
    site.destroy("data")?;
    server.stop()?;

    context.step("without such a volume it does go, and back");
    site.volume("plain", crate::site::Spec::ram(16))?;
    if site.knows("1.2.0")? {
        atomctl::kmod::remove("payload_1_2_0")?;
    }
    site.upgrade("1.2.0", Mode::Warm)?;
    site.upgrade("2.0.0", Mode::Warm)?;
    site.leave()
}

pub fn a_connection_that_is_lost_in_a_drain_is_made_again_for_it(
    context: &mut Context,
) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    let file = server::file("server.disk", 64)?;
    let path = file.display().to_string();
    let args = ["--filter=delay", "file", &path, "wdelay=3"];
    let mut server = Server::nbdkit("server", At::free_port()?, &args)?;
    let target = Target::nbd(server.at(), "").retries_each(Duration::from_millis(200));
    let volume = composed::create(&site, "data", Layout::Linear, &[target])?;
    let other = site.insert(&site.file("2.1.0"))?;
    // The first open reads the partition table, which is not to be taken for the write.
    queue::read_words(&volume.device, 5, 1)?;
    context.step("a write is waited for, and its server dies");
    let device = volume.device.clone();
    let writer = std::thread::spawn(move || queue::write_words(&device, 5, &[55]));
    wait::until("the write is owed", PATIENCE, || Ok(site.owed()? == 1))?;
    let switch = std::thread::spawn(move || -> Result<Report> {
        let drain = Drain::from(Duration::from_secs(50));
        Ok(atomctl::control::Control::open()?.switch(other, drain)?)
    });
    wait::until("the drain has begun", PATIENCE, || {
        Ok(site.node().status()?.place == Place::Closed.code())
    })?;
    server.kill()?;
    server.start_again()?;
    wait::until("the switch is over", PATIENCE, || Ok(switch.is_finished()))?;
    let report = switch.join().map_err(|_| anyhow!("the switch panicked"))??;
    done(&report)?;
    ensure!(writer.is_finished(), "the write was not waited for");
    writer.join().map_err(|_| anyhow!("the writer panicked"))??;
    ensure!(queue::read_words(&volume.device, 5, 1)? == [Some(55)], "wrong data");
    let view = first_target(&site, "data")?;
    ensure!(view.status.reconnects == 1, "{view:?}");
    site.destroy("data")?;
    server.stop()?;
    site.leave()
}

pub fn nothing_is_taken_back_beside_a_dispatch_that_sleeps(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    let server = nbdkit("server")?;
    let below = NbdClient::connect(0, server.at(), "", 1)?;
    fs::write("/sys/block/nbd0/queue/scheduler", "none")?;
    fs::write("/sys/block/nbd0/queue/nr_requests", "4")?;
    let target = Target::bdev(below.device());
    let volume = composed::create(&site, "data", Layout::Linear, &[target])?;
    let other = Other::load(&site)?;
    let mut crowd = Crowd::start(&volume.device, 16)?;
    context.step("more is dispatched than the disk below has tags for");
    let checked = crowd.checked();
    wait::until("the crowd writes", PATIENCE, || Ok(crowd.checked() > checked + 32))?;
    server.freeze()?;
    wait::until("a dispatch sleeps", PATIENCE, dispatch_sleeps)?;
    let report = other.switch(&site, AtDeadline::Reissue)?;
    ensure!(report.outcome == outcome::UNDONE, "{report:?}");
    ensure!(report.refusal.code == reason::DEADLINE, "{}: {report:?}", report.refusal);
    ensure!(report.revoked == 0, "something was taken back: {report:?}");
    ensure!(site.live()? == "2.0.0", "{} serves", site.live()?);
    context.step("it goes on");
    server.go_on()?;
    let checked = crowd.checked();
    wait::until("the crowd writes", PATIENCE, || {
        crowd.check()?;
        Ok(crowd.checked() > checked + 32)
    })?;
    done(&other.switch(&site, AtDeadline::Reissue)?)?;
    context.fact("checked", crowd.stop()?);
    site.destroy("data")?;
    below.disconnect()?;
    server.stop()?;
    site.leave()
}

/// Whether a task stands in a dispatch of a payload, waiting for a tag of the disk below.
fn dispatch_sleeps() -> Result<bool> {
    for process in fs::read_dir("/proc")? {
        let Ok(tasks) = fs::read_dir(process?.path().join("task")) else { continue };
        for task in tasks.flatten() {
            let stack = fs::read_to_string(task.path().join("stack")).unwrap_or_default();
            if stack.contains("blk_mq_get_tag") && stack.contains("payload_2") {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

pub fn volumes_are_made_on_a_payload_that_came_without_any(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    context.step("an upgrade without a device");
    site.upgrade("2.1.0", Mode::Warm)?;
    let server = nbdkit("server")?;
    for (version, mode) in [("2.0.0", Mode::Warm), ("2.1.0", Mode::Cold)] {
        context.step(&format!("volumes, and then {version}, {mode}"));
        let both = [Target::ram(16), Target::nbd(server.at(), "")];
        let volumes = [
            composed::create(&site, "both", Layout::Linear, &both)?,
            composed::create(&site, "memory", Layout::Linear, &[Target::ram(16)])?,
        ];
        // A request over both targets goes on in memory at the end of its part on the network.
        queue::write_words(&volumes[0].device, 16 * 256 - 4, &[1, 2, 3, 4, 5, 6, 7, 8])?;
        let loads = [
            Fio::start(&volumes[0].device, Shape { bytes: 24 << 20, ..LOAD })?,
            Fio::start(&volumes[1].device, LOAD)?,
        ];
        site.upgrade(version, mode)?;
        for (volume, load) in volumes.iter().zip(loads) {
            until_writes(&volume.device, 100)?;
            load.stop()?;
        }
        site.destroy("both")?;
        site.destroy("memory")?;
    }
    context.step("an upgrade without a device again");
    site.upgrade("2.0.0", Mode::Warm)?;
    server.stop()?;
    site.leave()
}
