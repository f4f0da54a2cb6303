// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Volumes over NBD servers, and what networks and servers do to them.

use std::fs;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure, Context as _, Result};
use atom_payload::shown::TargetState;
use atom_payload::spec::{Layout, OnFailure};
use atomctl::volume::machine::LOOKING;

use super::Context;
use crate::composed::{self, first_target, until_target_is, Target};
use crate::firewall::Firewall;
use crate::hostile::{Hostile, Wrong};
use crate::load::files::Files;
use crate::load::fio::{self, Fio, Shape};
use crate::random;
use crate::relay::Relay;
use crate::server::{self, At, Server};
use crate::site::Site;
use crate::{queue, wait};

const PATIENCE: Duration = Duration::from_secs(60);
/// fio on a volume of 64 MiB.
const LOAD: Shape = Shape { depth: 16, bytes: 8 << 20, verify: true };
/// A deadline that a scenario waits for.
const SHORT: Duration = Duration::from_secs(2);
/// `ENOLINK`, what the block layer makes of `BLK_STS_TRANSPORT`: a path that is dead.
const DEAD_PATH: &str = "os error 67";

/// nbdkit for a file, which keeps what was written when the server dies.
fn nbdkit(name: &str, at: At, mib: u64) -> Result<Server> {
    let file = server::file(&format!("{name}.disk"), mib)?;
    Server::nbdkit(name, at, &["file", &file.display().to_string()])
}

fn until_writes(device: &str, more: u64) -> Result<()> {
    let before = queue::stat(device)?.writes;
    wait::until("more writes", PATIENCE, || Ok(queue::stat(device)?.writes >= before + more))
}

pub fn every_server_serves_over_tcp_and_over_a_socket(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    let file = server::file("disk", 64)?;
    let mut verified = 0;
    for program in ["nbdkit", "qemu-nbd", "nbd-server"] {
        for at in [At::free_port()?, At::socket(program)] {
            let name = format!("{program}-{}", if at.port().is_ok() { "tcp" } else { "socket" });
            context.step(&name);
            let (server, export) = match program {
                "qemu-nbd" => (Server::qemu_nbd(&name, at, "disk", &file)?, "disk"),
                "nbd-server" => (Server::nbd_server(&name, at, "disk", &file)?, "disk"),
                _ => (Server::nbdkit(&name, at, &["memory", "64M"])?, ""),
            };
            let target = Target::nbd(server.at(), export);
            let volume = composed::create(&site, "data", Layout::Linear, &[target])?;
            ensure!(volume.bytes == 64 << 20, "{volume:?}");
            for (size, args) in [
                ("--size=2m", ["--iodepth=1", "--bs=4k"]),
                ("--size=16m", ["--iodepth=32", "--bsrange=4k-512k"]),
            ] {
                let both = ["--rw=randwrite", size, args[0], args[1]];
                verified += fio::pass(&volume.device, &both)?.ios;
            }
            fs::OpenOptions::new().write(true).open(&volume.device)?.sync_data()?;
            // A server that offers no trim has a volume without discard, and that is right too.
            if queue::limit(&volume.device, "discard_max_bytes")? > 0 {
                context.run(&["blkdiscard", "-o", "1M", "-l", "1M", &volume.device])?;
            }
            context.run(&["blkdiscard", "-z", "-o", "2M", "-l", "1M", &volume.device])?;
            let words = queue::read_words(&volume.device, 512, 256)?;
            ensure!(words.iter().all(|word| *word == Some(0)), "what was zeroed is not zero");
            let view = first_target(&site, "data")?;
            ensure!(view.status.state == TargetState::Ready, "{view:?}");
            ensure!(view.status.reconnects == 0 && view.status.protocol_errors == 0, "{view:?}");
            site.destroy("data")?;
            if program == "nbdkit" {
                wait::until("nbdkit sees the end", PATIENCE, || {
                    Ok(server.seen()?.disconnects == 1)
                })?;
                let seen = server.seen()?;
                ensure!(seen.connects == 1 && seen.flushes > 0 && seen.trims > 0, "{seen:?}");
            }
            server.stop()?;
        }
    }
    context.fact("verified_ios", verified);
    site.leave()
}

pub fn several_connections_are_made_where_the_server_allows_them(
    context: &mut Context,
) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    for (name, args, wanted) in [
        ("allows", &["memory", "64M"][..], 4),
        ("forbids", &["--filter=multi-conn", "memory", "64M", "multi-conn-mode=disable"][..], 1),
    ] {
        context.step(name);
        let server = Server::nbdkit(name, At::free_port()?, args)?;
        let target = Target::nbd(server.at(), "").connections(4);
        let volume = composed::create(&site, "data", Layout::Linear, &[target])?;
        wait::until("all connections", PATIENCE, || {
            Ok(first_target(&site, "data")?.ports().len() == wanted)
        })?;
        let load = Fio::start(&volume.device, LOAD)?;
        until_writes(&volume.device, 500)?;
        load.stop()?;
        let view = first_target(&site, "data")?;
        // Requests of one processor go to one connection, and the guest has two.
        let least = wanted.min(2);
        let used = view.connections.iter().filter(|one| one.answered > 0).count();
        ensure!(used >= least, "{used} of {wanted} connections were used: {view:?}");
        ensure!(server.seen()?.connects == wanted as u64, "{:?}", server.seen()?);
        site.destroy("data")?;
        server.stop()?;
    }
    site.leave()
}

pub fn a_server_that_dies_and_returns_costs_time_and_nothing_else(
    context: &mut Context,
) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    let mut server = nbdkit("server", At::free_port()?, 256)?;
    let target = Target::nbd(server.at(), "").retries_each(Duration::from_millis(500));
    let volume = composed::create(&site, "data", Layout::Linear, &[target])?;
    context.run(&["mkfs.ext4", "-q", &volume.device])?;
    fs::create_dir_all("/mnt/data")?;
    context.run(&["mount", &volume.device, "/mnt/data"])?;
    let mut files = Files::start("/mnt/data/files".as_ref())?;
    for round in 1..=4 {
        context.step(&format!("death {round}"));
        let checked = files.checked();
        wait::until("more files", PATIENCE, || Ok(files.checked() > checked + 2))?;
        server.kill()?;
        until_target_is(&site, "data", TargetState::Retrying, PATIENCE)?;
        server.start_again()?;
        let view = until_target_is(&site, "data", TargetState::Ready, PATIENCE)?;
        ensure!(view.status.reconnects == round, "{view:?}");
        files.check()?;
    }
    let checked = files.checked();
    wait::until("more files", PATIENCE, || {
        files.check()?;
        Ok(files.checked() > checked + 2)
    })?;
    context.fact("files_checked", files.stop()?.checked);
    context.fact("requests_sent_again", first_target(&site, "data")?.status.resent);
    context.run(&["umount", "/mnt/data"])?;
    context.run(&["e2fsck", "-f", "-n", &volume.device])?;
    site.destroy("data")?;
    server.stop()?;
    site.leave()
}

pub fn a_target_that_has_failed_holds_requests_or_fails_them_as_was_asked(
    context: &mut Context,
) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    for policy in [OnFailure::Hold, OnFailure::Error] {
        context.step(policy.name());
        let mut server = nbdkit(policy.name(), At::free_port()?, 64)?;
        let target = Target::nbd(server.at(), "")
            .failing(SHORT, policy)
            .retries_each(Duration::from_millis(500));
        let volume = composed::create(&site, "data", Layout::Linear, &[target])?;
        queue::write_words(&volume.device, 7, &[77])?;
        server.kill()?;
        let device = volume.device.clone();
        let begun = Instant::now();
        let reader = std::thread::spawn(move || queue::read_words(&device, 7, 1));
        let view = until_target_is(&site, "data", TargetState::Failed, PATIENCE)?;
        ensure!(begun.elapsed() + Duration::from_millis(500) >= SHORT, "{:?}", begun.elapsed());
        ensure!(!view.status.last_error.as_str().is_empty(), "it does not say why: {view:?}");
        match policy {
            OnFailure::Hold => {
                ensure!(!reader.is_finished(), "a held read has ended");
                server.start_again()?;
            }
            OnFailure::Error => {
                wait::until("the read ends", PATIENCE, || Ok(reader.is_finished()))?;
            }
        }
        let read = {
            wait::until("the read ends", PATIENCE, || Ok(reader.is_finished()))?;
            reader.join().map_err(|_| anyhow!("the reader panicked"))?
        };
        match policy {
            OnFailure::Hold => ensure!(read? == [Some(77)], "wrong data"),
            OnFailure::Error => {
                let error = format!("{:#}", read.err().context("a read without a server")?);
                ensure!(error.contains(DEAD_PATH), "{error}");
                let begun = Instant::now();
                let again = queue::read_words(&volume.device, 7, 1);
                ensure!(again.is_err(), "it was read without a server");
                context.ensure_within("a read that fails at once", begun.elapsed(), SHORT)?;
                server.start_again()?;
            }
        }
        until_target_is(&site, "data", TargetState::Ready, PATIENCE)?;
        ensure!(queue::read_words(&volume.device, 7, 1)? == [Some(77)], "wrong data");
        site.destroy("data")?;
        server.stop()?;
    }
    site.leave()
}

pub fn an_operator_has_a_target_that_gave_up_connect_again(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    let mut server = nbdkit("server", At::free_port()?, 64)?;
    // After the first attempts the next one is an hour away.
    let target = Target::nbd(server.at(), "")
        .retries_each(Duration::from_secs(3600))
        .failing(SHORT, OnFailure::Hold);
    let volume = composed::create(&site, "data", Layout::Linear, &[target])?;
    server.kill()?;
    until_target_is(&site, "data", TargetState::Failed, PATIENCE)?;
    server.start_again()?;
    context.step("it is asked for");
    composed::reconnect(&site, "data")?;
    until_target_is(&site, "data", TargetState::Ready, Duration::from_secs(5))?;
    queue::write_words(&volume.device, 0, &[1])?;
    site.destroy("data")?;
    server.stop()?;
    site.leave()
}

pub fn a_firewall_that_drops_is_noticed_and_lived_through(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    let server = nbdkit("server", At::free_port()?, 64)?;
    let target = Target::nbd(server.at(), "")
        .answers_within(Duration::from_secs(3))
        .retries_each(Duration::from_secs(1));
    let volume = composed::create(&site, "data", Layout::Linear, &[target])?;
    let mut load = Fio::start(&volume.device, LOAD)?;
    for round in 0..2 {
        context.step(&format!("nothing passes, {round}"));
        let firewall = Firewall::drop_port(server.at().port()?)?;
        until_target_is(&site, "data", TargetState::Retrying, PATIENCE)?;
        load.check()?;
        firewall.open()?;
        until_target_is(&site, "data", TargetState::Ready, PATIENCE)?;
        until_writes(&volume.device, 200)?;
    }
    context.step("a moment that TCP itself bridges");
    let before = first_target(&site, "data")?;
    let firewall = Firewall::drop_port(server.at().port()?)?;
    wait::until("requests wait", PATIENCE, || Ok(queue::in_flight(&volume.device)? > 0))?;
    firewall.open()?;
    until_writes(&volume.device, 200)?;
    let after = first_target(&site, "data")?;
    ensure!(after.ports() == before.ports(), "it is another connection: {before:?}, {after:?}");
    context.fact("verified_ios", load.stop()?.ios);
    site.destroy("data")?;
    server.stop_cut_off()?;
    site.leave()
}

pub fn a_host_that_is_gone_is_noticed_where_answers_may_take_for_ever(
    context: &mut Context,
) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    let server = nbdkit("server", At::free_port()?, 64)?;
    let target = Target::nbd(server.at(), "")
        .answers_within(Duration::ZERO)
        .probed_after(Duration::from_secs(1))
        .retries_each(Duration::from_secs(1));
    let volume = composed::create(&site, "data", Layout::Linear, &[target])?;
    let load = Fio::start(&volume.device, LOAD)?;
    context.step("nothing passes, and something is on its way");
    let firewall = Firewall::drop_port(server.at().port()?)?;
    let begun = Instant::now();
    until_target_is(&site, "data", TargetState::Retrying, PATIENCE)?;
    context.fact("noticed_after_ms", begun.elapsed().as_millis() as u64);
    firewall.open()?;
    until_target_is(&site, "data", TargetState::Ready, PATIENCE)?;
    until_writes(&volume.device, 200)?;
    context.fact("verified_ios", load.stop()?.ios);
    site.destroy("data")?;
    server.stop_cut_off()?;
    site.leave()
}

pub fn a_volume_whose_server_is_gone_is_not_destroyed_and_holds_up_nobody(
    context: &mut Context,
) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    let mut server = nbdkit("server", At::free_port()?, 64)?;
    let target = Target::nbd(server.at(), "").retries_each(Duration::from_millis(500));
    let volume = composed::create(&site, "data", Layout::Linear, &[target])?;
    server.kill()?;
    until_target_is(&site, "data", TargetState::Retrying, PATIENCE)?;
    context.step("a reader is killed, and what it has asked for stays");
    let mut reader = std::process::Command::new("dd")
        .args([&format!("if={}", volume.device), "of=/dev/null", "bs=1M", "count=1"])
        .spawn()?;
    wait::until("a read waits", PATIENCE, || Ok(site.owed()? > 0))?;
    reader.kill()?;
    context.step("it is to go");
    let begun = Instant::now();
    let refused = site.destroy("data").err().context("it was destroyed")?;
    let text = format!("{refused:#}");
    ensure!(text.contains("not ended") && text.contains("data"), "{text}");
    context.ensure_within("the refusal", begun.elapsed(), LOOKING + SHORT)?;
    context.fact("said", text);
    let other = composed::create(&site, "other", Layout::Linear, &[Target::ram(16)])?;
    queue::write_words(&other.device, 0, &[1])?;
    context.step("its server returns");
    server.start_again()?;
    until_target_is(&site, "data", TargetState::Ready, PATIENCE)?;
    reader.wait()?;
    wait::until("nothing is owed", PATIENCE, || Ok(site.owed()? == 0))?;
    site.destroy("data")?;
    server.stop()?;
    site.leave()
}

pub fn a_server_that_stands_still_is_given_up_and_a_slow_one_is_not(
    context: &mut Context,
) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    context.step("slow");
    let args = ["--filter=delay", "memory", "64M", "rdelay=300ms", "wdelay=300ms"];
    let server = Server::nbdkit("slow", At::free_port()?, &args)?;
    let target = Target::nbd(server.at(), "").answers_within(Duration::from_secs(5));
    let volume = composed::create(&site, "slow", Layout::Linear, &[target])?;
    fio::pass(&volume.device, &["--rw=randwrite", "--size=1m", "--bs=16k", "--iodepth=8"])?;
    let view = first_target(&site, "slow")?;
    ensure!(view.status.reconnects == 0 && view.ended > 0, "{view:?}");
    ensure!(view.total_ns / view.ended > 100_000_000, "it was not slow: {view:?}");
    site.destroy("slow")?;
    server.stop()?;

    // What is given to the network at once takes it longer than an answer may take.
    context.step("narrow");
    let args = ["-t", "1", "--filter=rate", "memory", "64M", "rate=16M"];
    let server = Server::nbdkit("narrow", At::free_port()?, &args)?;
    let target = Target::nbd(server.at(), "").answers_within(Duration::from_secs(3));
    let volume = composed::create(&site, "narrow", Layout::Linear, &[target])?;
    fio::pass(&volume.device, &["--rw=write", "--size=24m", "--bs=1m", "--iodepth=24"])?;
    let view = first_target(&site, "narrow")?;
    ensure!(view.status.reconnects == 0 && view.status.resent == 0, "{view:?}");
    ensure!(view.total_ns / view.ended > 3_000_000_000, "it was not narrow: {view:?}");
    site.destroy("narrow")?;
    server.stop()?;

    context.step("still");
    let server = nbdkit("still", At::free_port()?, 64)?;
    let target = Target::nbd(server.at(), "").answers_within(SHORT);
    let volume = composed::create(&site, "still", Layout::Linear, &[target])?;
    let load = Fio::start(&volume.device, LOAD)?;
    server.freeze()?;
    until_target_is(&site, "still", TargetState::Retrying, PATIENCE)?;
    server.go_on()?;
    until_target_is(&site, "still", TargetState::Ready, PATIENCE)?;
    until_writes(&volume.device, 200)?;
    load.stop()?;
    let view = first_target(&site, "still")?;
    ensure!(view.status.reconnects >= 1 && view.status.resent >= 1, "{view:?}");
    site.destroy("still")?;
    server.stop()?;
    site.leave()
}

pub fn a_server_that_breaks_the_protocol_loses_its_connection_and_no_data_is_wrong(
    context: &mut Context,
) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    let server = nbdkit("server", At::free_port()?, 64)?;
    let relay = Relay::start(server.at().port()?)?;
    let target = Target::nbd(&At::Port(relay.port()), "").retries_each(Duration::from_millis(500));
    let volume = composed::create(&site, "data", Layout::Linear, &[target])?;
    // Only writes have answers without data: any byte but those of an error's number breaks them.
    let args = ["--rw=randwrite", "--bs=4k", "--iodepth=4", "--size=1m", "--do_verify=0"];
    for (round, place) in (1..).zip([0, 1, 3, 9, 15]) {
        context.step(&format!("byte {place} of an answer is another"));
        let before = first_target(&site, "data")?.status;
        relay.flip_after(place);
        fio::pass(&volume.device, &args)?;
        ensure!(relay.flipped() == round, "nothing was changed");
        let after = until_target_is(&site, "data", TargetState::Ready, PATIENCE)?.status;
        ensure!(after.protocol_errors == before.protocol_errors + 1, "{before:?}, {after:?}");
        ensure!(after.reconnects == before.reconnects + 1, "{before:?}, {after:?}");
    }
    fio::pass(
        &volume.device,
        &["--rw=randwrite", "--bsrange=4k-128k", "--iodepth=16", "--size=8m"],
    )?;
    site.destroy("data")?;
    relay.stop()?;
    server.stop()?;
    site.leave()
}

pub fn a_connection_that_is_cut_in_the_middle_of_an_answer_is_made_again(
    context: &mut Context,
) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    let server = nbdkit("server", At::free_port()?, 64)?;
    let relay = Relay::start(server.at().port()?)?;
    let target = Target::nbd(&At::Port(relay.port()), "").retries_each(Duration::from_millis(500));
    let volume = composed::create(&site, "data", Layout::Linear, &[target])?;
    let words: Vec<u64> = (1..=64).collect();
    queue::write_words(&volume.device, 32, &words)?;
    for pass in [0, 3, 16, 20, 4096, 100_000] {
        context.step(&format!("after {pass} bytes"));
        relay.stall_after(pass);
        let device = volume.device.clone();
        let reader = std::thread::spawn(move || queue::read_words(&device, 32, 64));
        wait::until("the answer stalls", PATIENCE, || Ok(relay.is_stalled()))?;
        relay.cut();
        relay.go_on();
        wait::until("the read ends", PATIENCE, || Ok(reader.is_finished()))?;
        let read = reader.join().map_err(|_| anyhow!("the reader panicked"))??;
        ensure!(read.iter().zip(&words).all(|(found, word)| *found == Some(*word)), "{read:?}");
    }
    site.destroy("data")?;
    relay.stop()?;
    server.stop()?;
    site.leave()
}

pub fn a_hostile_server_is_refused_or_left_and_takes_no_memory(
    context: &mut Context,
) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    let seed = random::seed()?;
    context.step(&format!("seed {seed}"));
    let before = available_kib()?;
    for wrong in Wrong::BEFORE {
        context.step(&format!("{wrong:?}"));
        let server = Hostile::start(wrong, seed)?;
        let target = Target::nbd_on(Ipv4Addr::LOCALHOST, server.port(), "disk");
        let begun = Instant::now();
        let made = composed::try_create(&site, "data", Layout::Linear, &[target])?;
        let refusal = made.err().with_context(|| format!("{wrong:?} became a volume"))?;
        ensure!(refusal.target == Some(0) && !refusal.why.is_empty(), "{wrong:?}: {refusal:?}");
        context.ensure_within(&format!("{wrong:?}"), begun.elapsed(), Duration::from_secs(20))?;
        ensure!(server.came() > 0, "nobody came");
        server.stop()?;
    }
    for wrong in Wrong::AFTER {
        context.step(&format!("{wrong:?}"));
        let server = Hostile::start(wrong, seed)?;
        let target = Target::nbd_on(Ipv4Addr::LOCALHOST, server.port(), "disk")
            .failing(SHORT, OnFailure::Error)
            .answers_within(SHORT)
            .retries_each(Duration::from_millis(200));
        let volume = composed::create(&site, "data", Layout::Linear, &[target])?;
        let device = volume.device.clone();
        // It may be asked again and again; what ends it is that the volume goes.
        let reader = std::thread::spawn(move || queue::read_words(&device, 1, 1));
        wait::until("it is noticed", PATIENCE, || {
            Ok(first_target(&site, "data")?.status.protocol_errors > 2)
        })?;
        drop(server);
        wait::until("the read ends", PATIENCE, || Ok(reader.is_finished()))?;
        let read = reader.join().map_err(|_| anyhow!("the reader panicked"))?;
        ensure!(read.is_err(), "{wrong:?}: something was read: {read:?}");
        site.destroy("data")?;
    }
    let after = available_kib()?;
    context.fact("kib_less", before.saturating_sub(after));
    ensure!(before.saturating_sub(after) < 64 << 10, "{before} KiB before, {after} after");
    site.leave()
}

pub fn an_export_that_vanishes_or_shrinks_is_said_and_is_not_used(
    context: &mut Context,
) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    let file = server::file("disk", 64)?;
    context.step("an export that there is not");
    let mut server = Server::qemu_nbd("server", At::free_port()?, "disk", &file)?;
    let none = Target::nbd(server.at(), "none");
    let refused = composed::try_create(&site, "data", Layout::Linear, &[none])?;
    let refusal = refused.err().context("there is a volume")?;
    ensure!(refusal.target == Some(0) && refusal.why.contains("none"), "{refusal:?}");

    context.step("it vanishes");
    let target = Target::nbd(server.at(), "disk")
        .failing(SHORT, OnFailure::Hold)
        .retries_each(Duration::from_millis(500));
    let volume = composed::create(&site, "data", Layout::Linear, &[target])?;
    queue::write_words(&volume.device, 9, &[9])?;
    server.kill()?;
    server.start_again_with("--export-name=", "--export-name=other")?;
    let view = until_target_is(&site, "data", TargetState::Failed, PATIENCE)?;
    ensure!(!view.status.last_error.as_str().is_empty(), "{view:?}");
    context.fact("said_when_it_vanished", view.status.last_error.as_str());

    context.step("it is back, and smaller");
    server.kill()?;
    let small = server::file("small", 32)?;
    server.start_again_with("/tmp/disk", &small.display().to_string())?;
    server.kill()?;
    server.start_again_with("--export-name=", "--export-name=disk")?;
    let smaller = |text: &str| text.contains("shrunk");
    wait::until("it is said that it is smaller", PATIENCE, || {
        let status = first_target(&site, "data")?.status;
        ensure!(status.state != TargetState::Ready, "a smaller export is used");
        Ok(smaller(status.last_error.as_str()))
    })?;
    let view = first_target(&site, "data")?;
    context.fact("said_when_it_shrank", view.status.last_error.as_str());

    context.step("it is back as it was");
    server.kill()?;
    server.start_again_with("/tmp/small", &file.display().to_string())?;
    until_target_is(&site, "data", TargetState::Ready, PATIENCE)?;
    ensure!(queue::read_words(&volume.device, 9, 1)? == [Some(9)], "wrong data");
    site.destroy("data")?;
    server.stop()?;
    site.leave()
}

/// Memory that can be had, in KiB.
fn available_kib() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let number = line.and_then(|line| line.split_whitespace().next()).context("no MemAvailable")?;
    Ok(number.parse()?)
}
