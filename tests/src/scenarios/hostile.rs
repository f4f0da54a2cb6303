// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Whatever is thrown at the control device, it answers with an error and serves on.

use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{ensure, Result};
use atomctl::node::Node;

use super::Context;
use crate::load::probe::Probe;
use crate::site::{Site, Spec};
use crate::wait;

/// Ioctls at random.
const CALLS: u64 = 20_000;

pub fn a_hostile_ioctl_is_refused(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("1.0.0")?;
    let device = site.volume("data", Spec::ram(8))?;
    let probe = Probe::start(&device)?;
    let control = OpenOptions::new().read(true).write(true).open("/dev/atom-control")?;

    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        // xorshift64, Marsaglia 2003.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let known = [
        atom_abi::control::IOC_STATUS,
        atom_abi::control::IOC_PAYLOAD,
        atom_abi::control::IOC_DEVICE,
        atom_abi::control::IOC_SWITCH,
        atom_abi::control::IOC_ADOPT,
        atom_abi::control::IOC_COMMAND,
        atom_abi::control::IOC_REPORT,
    ];
    let mut answered = 0u64;
    let mut buffer = vec![0u64; 4096];
    for call in 0..CALLS {
        let request = match next() % 4 {
            0 => next() as u32,
            _ => known[(next() % known.len() as u64) as usize],
        };
        if request == atom_abi::control::IOC_ABANDON {
            continue;
        }
        buffer.iter_mut().take(256).for_each(|word| *word = next());
        // Half of them claim the size that Atom wants, so that they get further.
        if call % 2 == 0 {
            buffer[0] = (buffer[0] & !0xffff_ffff) | u64::from(request >> 16 & 0x3fff);
        }
        let address = match next() % 16 {
            0 => 0,
            1 => 1,
            2 => usize::MAX - 8,
            3 => 0xffff_8880_0000_0000,
            _ => buffer.as_mut_ptr() as usize,
        };
        // SAFETY: The buffer is larger than any structure that the kernel writes; the other addresses
        // are none of ours, and the kernel has to refuse them. Pointers within a command are random.
        let result = unsafe { nix::libc::ioctl(control.as_raw_fd(), request as _, address) };
        answered += u64::from(result == 0);
    }
    context.fact("ioctls_that_were_carried_out", answered);
    ensure!(answered > 0 && answered < CALLS, "{answered} of {CALLS} ioctls were carried out");
    let status = site.node().status()?;
    ensure!(status.epoch == 1 && status.held_ns == 0, "something has changed: {status:?}");
    let reads = probe.reads();
    wait::until("a read", Duration::from_secs(30), || Ok(probe.reads() > reads))?;
    probe.stop()?;
    drop(control);
    site.leave()
}
