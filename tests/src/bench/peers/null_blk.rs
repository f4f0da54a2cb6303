// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The kernel's `null_blk`, which ends each request where it is dispatched (`Documentation/block/null_blk.rst`).

use anyhow::{ensure, Result};

use crate::bench::call;

/// Its only device.
const DEVICE: &str = "/dev/nullb0";

/// The module, with one device of 1 GiB in blocks of 4 KiB, a hardware queue for each processor, and no scheduler.
pub struct NullBlk;

impl NullBlk {
    /// Loads it, with so many tags in each hardware queue.
    pub fn load(depth: u32) -> Result<Self> {
        Self::load_with(depth, 0)
    }

    /// The same with as many hardware queues again for polled I/O, which it ends in batches.
    pub fn load_polled(depth: u32) -> Result<Self> {
        Self::load_with(depth, std::thread::available_parallelism()?.get())
    }

    fn load_with(depth: u32, polled: usize) -> Result<Self> {
        let queues = std::thread::available_parallelism()?;
        call(
            "modprobe",
            &[
                "null_blk",
                "nr_devices=1",
                "gb=1",
                "bs=4096",
                // blk-mq, and no timer: a request ends in `queue_rq`.
                "queue_mode=2",
                "irqmode=0",
                "no_sched=1",
                &format!("submit_queues={queues}"),
                &format!("poll_queues={polled}"),
                &format!("hw_queue_depth={depth}"),
            ],
        )?;
        ensure!(std::fs::exists(DEVICE)?, "there is no {DEVICE}");
        Ok(Self)
    }

    pub fn device(&self) -> &'static str {
        DEVICE
    }

    pub fn unload(self) -> Result<()> {
        call("rmmod", &["null_blk"]).map(drop)
    }
}
