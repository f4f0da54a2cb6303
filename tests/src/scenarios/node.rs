// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The node itself, before anything is installed on it.

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};

use super::Context;
use crate::wait;

const PATIENCE: Duration = Duration::from_secs(60);
/// Seconds from the kernel's start until everything is up. An idle host with two processors takes a fourth of it.
const UP_LIMIT: f64 = 80.0;
/// What is on the root file system from the first boot on.
const FILE: &str = "/root/first-boot";

/// Two boots, with the same root.
pub fn a_node_is_a_debian_that_boots_and_shuts_down(context: &mut Context) -> Result<()> {
    context.fact("agent_after_seconds", uptime()?);
    wait::until("systemd is done", PATIENCE, || {
        let state = std::process::Command::new("systemctl").arg("is-system-running").output()?;
        Ok(String::from_utf8_lossy(&state.stdout).trim() == "running")
    })
    .with_context(|| context.run(&["systemctl", "--failed", "--no-legend"]).unwrap_or_default())?;
    let up = uptime()?;
    context.fact("up_after_seconds", up);
    ensure!(up < UP_LIMIT, "it was up after {up} s");
    ensure!(fs::read_to_string("/proc/1/comm")?.trim() == "systemd", "not booted by systemd");
    let release = nix::sys::utsname::uname()?.release().to_string_lossy().into_owned();
    ensure!(Path::new("/usr/lib/modules").join(&release).exists(), "no modules of {release}");

    context.step("what tells packages");
    context.run(&["dpkg", "--audit"])?;
    let whose = context.run(&["dpkg-query", "-S", "/usr/bin/systemctl"])?;
    ensure!(whose.starts_with("systemd:"), "{whose}");
    let provides = format!("kernel-uname-r = {release}");
    context.run(&["rpm", "-q", "--whatprovides", &provides])?;
    ensure!(context.run(&["rpm", "-qa"])?.trim() == "debian-base-1-1.noarch", "other packages");

    context.step("sshd");
    let mut banner = [0; 4];
    TcpStream::connect("127.0.0.1:22")?.read_exact(&mut banner)?;
    ensure!(&banner == b"SSH-", "sshd says {banner:?}");

    context.step("nothing of Atom");
    for path in ["/dev/atom-control", "/usr/bin/atomctl", "/sys/module/atom"] {
        ensure!(!Path::new(path).exists(), "there is {path}");
    }
    if context.boot()? == 0 {
        fs::write(FILE, "kept")?;
        return Ok(());
    }
    ensure!(fs::read_to_string(FILE)? == "kept", "the root is another one");
    Ok(())
}

/// Seconds since the kernel's start.
fn uptime() -> Result<f64> {
    let text = fs::read_to_string("/proc/uptime")?;
    text.split(' ').next().and_then(|first| first.parse().ok()).context("no uptime")
}
