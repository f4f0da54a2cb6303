// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What the machine does meanwhile: processors that go, tools that look, devices that come and go.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};
use atom_abi::control::outcome;
use atomctl::control::Control;
use atomctl::kmod;
use atomctl::node::Node;

use super::Context;
use crate::load::fio::{Fio, Shape};
use crate::site::{Site, Spec};
use crate::wait;

const CPU1: &str = "/sys/devices/system/cpu/cpu1/online";

/// Taking a processor down holds a lock that loading a module needs, so it must not wait for held I/O.
pub fn a_processor_goes_offline_while_io_is_held(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("1.0.0")?;
    let device = site.volume("data", Spec::ram(16).depth(8))?;
    let load = Fio::start(&device, Shape { depth: 64, bytes: 4 << 20, verify: true })?;

    context.step("holding, with every tag taken");
    let report = site.node().abandon(0, Duration::from_secs(5))?;
    ensure!(report.outcome == outcome::DONE, "abandon: {}", report.refusal);
    kmod::remove("payload_1_0_0")?;

    context.step("a processor goes offline");
    let offline = std::thread::spawn(|| fs::write(CPU1, "0"));
    wait::until("the processor is offline", Duration::from_secs(30), || Ok(offline.is_finished()))?;
    offline.join().map_err(|_| anyhow::anyhow!("the thread panicked"))??;

    context.step("the next payload");
    let id = site.insert(&site.file("1.1.0"))?;
    site.adopt(id)?;
    fs::write(CPU1, "1").context("the processor cannot come back")?;
    load.stop()?;
    site.leave()
}

/// A query may be looking at a device when it is destroyed; its number is given away only once it is gone.
pub fn devices_come_and_go_while_tools_look(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("1.0.0")?;
    let stop = Arc::new(AtomicBool::new(false));
    let lookers: Vec<_> = (0..3)
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || -> Result<u64> {
                let control = Control::open()?;
                let mut looks = 0;
                while !stop.load(Ordering::Relaxed) {
                    control.devices()?;
                    control.status()?;
                    looks += 1;
                }
                Ok(looks)
            })
        })
        .collect();
    for round in 0..60 {
        context.step(&format!("round {round}"));
        let device = site.volume("fleeting", Spec::ram(8))?;
        ensure!(device == "/dev/atom0", "round {round}: the number is taken: {device}");
        fs::write(&device, [round; 4096])?;
        site.destroy("fleeting")?;
        ensure!(!fs::exists(&device)?, "{device} is still there");
    }
    stop.store(true, Ordering::Relaxed);
    let mut looks = 0;
    for looker in lookers {
        looks += looker.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
    }
    context.fact("looks", looks);
    ensure!(looks > 0, "nobody looked");
    site.leave()
}
