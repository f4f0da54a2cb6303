// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The node itself, before anything is installed on it, and how it comes up and goes down with volumes.

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{anyhow, ensure, Context as _, Result};
use serde_json::Value;

use super::Context;
use crate::guest::kmsg;
use crate::guest::node::CONSOLE_BEFORE;
use crate::packaged::{
    configure, fstab, live, over_disks, rpm, run, run_saying, start, until_up, volumes, Load,
    DEVICE, PLACE,
};
use crate::{console, wait};

const PATIENCE: Duration = Duration::from_secs(60);
/// Seconds from the kernel's start until everything is up. An idle host with two processors takes a fourth of it.
const UP_LIMIT: f64 = 80.0;
/// What is on the root file system from the first boot on.
const FILE: &str = "/root/first-boot";

/// Two boots, with the same root.
pub fn a_node_is_a_debian_that_boots_and_shuts_down(context: &mut Context) -> Result<()> {
    context.fact("agent_after_seconds", uptime()?);
    until_up()?;
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
    context.run(&["rpm", "-q", "--whatprovides", "kernel-uname-r"])?;
    context.run(&["dpkg-query", "-W", "node-kernel"])?;
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

/// What stands on the console in the order in which a node must stop: each file system before its volume is closed, and the
/// network after that.
pub(super) const STOPS_IN_ORDER: &[&str] = &[
    "Stopped atom-recover.service",
    "Unmounted srv.mount",
    "closed: data",
    "Stopped atom-volumes.service",
];
const NETWORK_ORDER: &[&str] = &[
    "Stopped atom-recover.service",
    "Unmounted mnt.mount",
    "closed: far",
    "Stopped atom-volumes-network",
];
/// Where the volume over the network is mounted.
const FAR_PLACE: &str = "/mnt";
/// What atom-metrics.service writes. Its timer waits for a minute after the boot.
const METRICS: &str = "/var/lib/prometheus/node-exporter/atom.prom";
const METRICS_PATIENCE: Duration = Duration::from_secs(150);
/// Has what the units' programs say on the console, which outlives everything, before systemd says that they have ended.
pub(super) const ON_CONSOLE: &str =
    "[Service]\nStandardOutput=tty\nStandardError=tty\nTTYPath=/dev/console\n";

/// Two boots, with what Atom knows on a volume. In the first one the volumes get file systems and lines in `fstab`; in the second one they are there by
/// themselves.
pub fn a_node_boots_and_shuts_down_with_its_volumes(context: &mut Context) -> Result<()> {
    let files = [PLACE, FAR_PLACE].map(|place| format!("{place}/file"));
    until_up()?;
    if context.boot()? == 0 {
        first_boot_with_volumes(context)?;
        for file in &files {
            fs::write(file, "written in the first boot")?;
        }
        context.step("down while an upgrade holds I/O and its tool is gone");
        context.run(&["atomctl", "abandon"])?;
        ensure!(live().is_err(), "a payload serves");
        return Ok(());
    }
    context.step("what the first boot said at its end");
    let console = fs::read_to_string(CONSOLE_BEFORE).context("no console of the first boot")?;
    let end = console.find("Stopping ").map_or("", |at| &console[at..]);
    for order in [STOPS_IN_ORDER, NETWORK_ORDER, &["Restarting system"]] {
        console::has_in_order(end, order).map_err(|why| anyhow!("{why}; it said: {end}"))?;
    }
    let complaints = console::complaints(&console);
    ensure!(complaints.is_empty(), "{complaints:?}");
    let log = kmsg::read()?;
    ensure!(!log.contains("recovery complete"), "a file system was not unmounted: {log}");

    context.step("volumes before file systems, and file systems before what needs them");
    ensure!(live()? == "2.0.0", "{} serves, and 2.0.0 was committed last", live()?);
    for file in &files {
        ensure!(fs::read_to_string(file)? == "written in the first boot", "{file} is wrong");
    }
    let order = [
        ("atom.service", "atom-volumes.service"),
        ("atom-volumes.service", "srv.mount"),
        ("srv.mount", "local-fs.target"),
        ("atom-volumes-network.service", "mnt.mount"),
        ("mnt.mount", "remote-fs.target"),
    ];
    for (first, then) in order {
        let (done, begun) = (when("ActiveEnter", first)?, when("InactiveExit", then)?);
        ensure!(
            done > 0 && done <= begun,
            "{then} began at {begun} us, {first} was up at {done} us"
        );
    }

    context.step("what the boot did is in the journal, whose disk came later");
    run_saying("findmnt", &["-n", "-o", "SOURCE", "/var/lib/atom"], "/dev/loop")?;
    ensure!(boots(context)? == 2, "the journal has not both boots");

    context.step("the metrics come by their timer");
    // The exporter's package brings its folder.
    fs::create_dir_all(Path::new(METRICS).parent().context("no folder")?)?;
    start(&["atom-metrics.timer"])?;
    wait::until("the metrics are there", METRICS_PATIENCE, || {
        Ok(fs::read_to_string(METRICS)
            .is_ok_and(|text| text.lines().any(|line| line == "atom_up 1")))
    })?;

    context.step("an upgrade by a package, and down with another payload than it came up with");
    let mut load = Load::start()?;
    let new = rpm("kmod-atom-payload", "2.1.0", "1")?;
    run_saying("rpm", &["-i", "--replacepkgs", &new], "payload 2.1.0 is live")?;
    load.goes_on()?;
    load.stop(context)
}

fn first_boot_with_volumes(context: &mut Context) -> Result<()> {
    for unit in ["atom-volumes.service", "atom-volumes-network.service"] {
        let folder = format!("/etc/systemd/system/{unit}.d");
        fs::create_dir_all(&folder)?;
        fs::write(format!("{folder}/console.conf"), ON_CONSOLE)?;
    }
    let packages = [
        rpm("kmod-atom", "*", "1")?,
        rpm("atom-tools", "*", "1")?,
        rpm("kmod-atom-payload", "2.0.0", "1")?,
    ];
    run_saying("rpm", &["-i", &packages[0], &packages[1], &packages[2]], "")?;
    configure("[packages]\nsoak = \"1s\"\n")?;
    let server = context.command_line().value("server").context("no server on the host")?;
    let far = format!("[[volume]]\nname = \"far\"\ntargets = [\"nbd://{server}/\"]\n");
    volumes(&format!("{}{far}", over_disks()))?;
    start(&["atom.service", "atom-volumes.service", "atom-volumes-network.service"])?;
    for (device, place, options) in
        [(DEVICE, PLACE, "defaults"), ("/dev/atom/far", FAR_PLACE, "defaults,_netdev")]
    {
        wait::until(device, PATIENCE, || Ok(Path::new(device).exists()))?;
        context.run(&["mkfs.ext4", "-q", device])?;
        fstab(&format!("{device} {place} ext4 {options} 0 2"))?;
    }
    start(&["srv.mount", "mnt.mount"])?;
    state_on_a_volume(context)
}

/// Has what Atom knows lie on a file system that is there only after the volumes are, and a newer payload installed that was
/// not committed.
fn state_on_a_volume(context: &Context) -> Result<()> {
    let (image, place) = (format!("{PLACE}/state"), "/run/state");
    context.run(&["truncate", "--size=32M", &image])?;
    context.run(&["mkfs.ext4", "-q", &image])?;
    fs::create_dir_all(place)?;
    context.run(&["mount", "-o", "loop", &image, place])?;
    context.run(&["cp", "-a", "/var/lib/atom/.", place])?;
    context.run(&["umount", place])?;
    fstab(&format!("{image} /var/lib/atom ext4 loop 0 0"))?;
    start(&["var-lib-atom.mount"])?;
    let new = rpm("kmod-atom-payload", "2.1.0", "1")?;
    run_saying("env", &["ATOM_PACKAGE_UPGRADE=off", "rpm", "-i", &new], "ATOM_PACKAGE_UPGRADE")
}

/// Attempts of boots in the journal.
fn boots(context: &Context) -> Result<usize> {
    let journal: Value = serde_json::from_str(&context.run(&["atomctl", "--json", "history"])?)?;
    ensure!(journal["damaged"] == 0, "{journal}");
    let attempts = journal["attempts"].as_array().context("no attempts")?;
    Ok(attempts.iter().filter(|one| one["origin"] == "boot").count())
}

/// When a unit came to a state, in microseconds since the kernel's start.
fn when(what: &str, unit: &str) -> Result<u64> {
    let property = format!("{what}TimestampMonotonic");
    let said = run("systemctl", &["show", "--value", "-p", &property, unit])?;
    said.text.trim().parse().with_context(|| format!("{property} of {unit}: {said:?}"))
}

/// Seconds since the kernel's start.
fn uptime() -> Result<f64> {
    let text = fs::read_to_string("/proc/uptime")?;
    text.split(' ').next().and_then(|first| first.parse().ok()).context("no uptime")
}
