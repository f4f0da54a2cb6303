// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The kernel's own NBD client, for comparison, and to try servers without Atom.

use std::process::Command;
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};

use crate::server::At;
use crate::wait;

const PATIENCE: Duration = Duration::from_secs(30);

/// A device of the kernel's client, `/dev/nbdN`.
pub struct NbdClient {
    device: String,
}

impl NbdClient {
    /// Connects device `index` to a server, with so many connections.
    pub fn connect(index: u32, at: &At, export: &str, connections: u32) -> Result<Self> {
        run("modprobe", &["nbd"])?;
        let device = format!("/dev/nbd{index}");
        let connections = connections.to_string();
        let mut args = match at {
            At::Port(port) => vec!["127.0.0.1".to_owned(), port.to_string()],
            At::Socket(path) => vec!["-unix".to_owned(), path.display().to_string()],
        };
        args.push(device.clone());
        args.extend(["-name", export, "-connections", &connections].map(str::to_owned));
        args.extend(["-block-size", "512"].map(str::to_owned));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        run("nbd-client", &args)?;
        let client = Self { device };
        // The size is set by another thread than the one that was waited for.
        wait::until("the device has a size", PATIENCE, || Ok(client.sectors()? > 0))?;
        Ok(client)
    }

    /// The path of the device.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Disconnects.
    pub fn disconnect(self) -> Result<()> {
        run("nbd-client", &["-d", &self.device])?;
        wait::until("the device is free", PATIENCE, || Ok(self.sectors()? == 0))
    }

    fn sectors(&self) -> Result<u64> {
        let name = self.device.trim_start_matches("/dev/");
        let text = std::fs::read_to_string(format!("/sys/block/{name}/size"))?;
        text.trim().parse().with_context(|| format!("the size of {name}: {text:?}"))
    }
}

fn run(program: &str, args: &[&str]) -> Result<()> {
    let output = Command::new(program).args(args).output().context(program.to_owned())?;
    ensure!(
        output.status.success(),
        "`{program} {}` failed ({}): {}{}",
        args.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
