// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! QEMU's command line. It runs from the sysroot and sees the machine's folder as `/mnt/vm`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use atom_tests::guest::node::{ROOT_SERIAL, WORD};
use atom_tests::link::PORT;
use atom_tests::scenarios::Tools;

use super::initramfs::Initramfs;
use super::link::{LINE, MONITOR};
use super::{accel, served, VmConfig};
use crate::command_line::CommandLine;
use crate::fingerprint::Fingerprint;
use crate::lock::{self, Lock};
use crate::places;
use crate::sysroot::Sysroot;

/// What a machine boots from, in its folder until it has booted.
pub const INITRD: &str = "initrd";

/// The memory of a machine that was saved; in the folder of one that goes on from it until it does.
pub const MEMORY: &str = "memory";

/// What came over the line for marks, in the folder of a machine that will be cut off.
pub const MARKS: &str = "marks";

/// The beginning of the names of a machine's disks, in its folder.
const DISK: &str = "disk";

/// The disk with the root file system of a node.
const ROOT_DISK: &str = "disk-root";

/// What a machine is started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Requests over the line; it ends with us.
    UnderControl,
    /// Requests over the line; it goes on after us.
    InBackground,
    /// A shell on our terminal.
    Interactive,
    /// The same as under control, and it goes on from the memory of a machine that was saved.
    GoesOn,
}

/// What a machine comes from.
#[derive(Clone, Copy)]
pub enum Origin<'a> {
    /// It boots from this, or from what it has written itself.
    Initramfs(&'a Initramfs),
    /// It goes on from the memory of a machine that was saved, in this file.
    Memory(&'a Path),
}

/// Words of every kernel command line.
const CMDLINE: &[&str] = &[
    "console=ttyS0",
    // Each character on an emulated serial line costs the guest an exit. The whole log is read over the agent's line,
    // and a panic or an oops is printed whatever the level.
    "loglevel=5",
    "log_buf_len=4M",
    // A panic ends QEMU (it runs with -no-reboot) instead of hanging until a limit.
    "panic=-1",
    // "random: crng init" would otherwise wait for interrupts that an idle guest does not have.
    "random.trust_cpu=on",
    // The monitor's `nmi` shows where a guest hangs that does not listen any more.
    "unknown_nmi_panic",
    // "clocksource: Marking clocksource 'tsc' as unstable" comes with emulation on a busy host.
    "tsc=reliable",
    // "Kernel panic: IO-APIC + timer doesn't work" comes when a busy host does not run an emulated processor for the ten
    // ticks in which the kernel looks whether the timer ticks.
    "no_timer_check",
    // "rcu: INFO: rcu_preempt detected stalls" comes within its usual 21 s when the host is busy, and means nothing then.
    "rcupdate.rcu_cpu_stall_timeout=60",
];

/// A machine's folder, which is ours as long as this value lives.
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
    _turn: Option<Lock>,
}

impl Folder {
    /// The folder of a machine that runs already, and that several commands may use in turn.
    pub fn of_running(path: PathBuf) -> Self {
        Self { path, _turn: None }
    }
}

/// Makes the machine's folder: empty but for what it boots from and its disks, which may be those of the last one. Waits for another machine of that name.
pub fn prepare_dir(sysroot: &Sysroot, origin: Origin<'_>, config: &VmConfig) -> Result<Folder> {
    let all = places::target().join("vm");
    std::fs::create_dir_all(&all).with_context(|| format!("cannot create {}", all.display()))?;
    let dir = all.join(&config.name);
    let turn = lock::take(
        &all.join(format!("{}.lock", config.name)),
        "runs the virtual machine of that name",
    )?;
    empty(&dir, config.keep_disks).with_context(|| format!("cannot empty {}", dir.display()))?;
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    match origin {
        Origin::Memory(memory) => std::fs::hard_link(memory, dir.join(MEMORY))
            .with_context(|| format!("cannot link {}", memory.display()))?,
        Origin::Initramfs(_) if config.own_initramfs => {
            take_initramfs(&dir.join(format!("{DISK}0")), &dir.join(INITRD))?;
        }
        Origin::Initramfs(initramfs) => initramfs
            .write(config.tools, &dir.join(INITRD))
            .with_context(|| format!("cannot write the initramfs for {}", sysroot.name()))?,
    }
    let disks = config.disks_mib.iter().enumerate();
    let mut files: Vec<_> = disks.map(|(index, mib)| (format!("{DISK}{index}"), *mib)).collect();
    if config.server_mib > 0 && served::is_kept(config) {
        files.push((served::SERVER_DISK.to_owned(), config.server_mib));
    }
    for (name, mib) in files {
        let path = dir.join(name);
        // With the size of the disk that is kept nothing changes.
        File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .and_then(|file| file.set_len(mib << 20))
            .with_context(|| format!("cannot create {}", path.display()))?;
    }
    if config.tools == Tools::Node && !(config.keep_disks && dir.join(ROOT_DISK).exists()) {
        let root = if config.will_be_cut { Root::Copy } else { Root::Overlay };
        let Origin::Initramfs(initramfs) = origin else {
            anyhow::bail!(
                "a node cannot go on from a memory: its disk would not be that of the memory"
            );
        };
        root.make(sysroot, &initramfs.node()?.image, &dir)?;
    }
    Ok(Folder { path: dir, _turn: Some(turn) })
}

/// Leaves nothing in a machine's folder, or what outlives a boot: what the boot before has said on the console does not.
fn empty(dir: &Path, keep_disks: bool) -> std::io::Result<()> {
    let removed = match keep_disks {
        true => std::fs::remove_file(dir.join(super::console::FILE)),
        false => std::fs::remove_dir_all(dir),
    };
    removed.or_else(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })
}

/// Takes from a disk what a machine has written there to be booted from: its length, 8 bytes, little-endian, and then itself.
fn take_initramfs(disk: &Path, to: &Path) -> Result<()> {
    let mut from = File::open(disk).with_context(|| format!("cannot open {}", disk.display()))?;
    let mut length = [0; 8];
    from.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    anyhow::ensure!(length > 0, "the machine has written no initramfs on its disk");
    let copied = std::io::copy(&mut from.take(length), &mut File::create(to)?)?;
    anyhow::ensure!(copied == length, "{} is cut short", disk.display());
    Ok(())
}

/// A node's own root file system.
#[derive(Clone, Copy, Debug)]
enum Root {
    /// What differs from the image, which all machines read.
    Overlay,
    /// A copy, because the server of a disk that loses what was not flushed serves whole files.
    Copy,
}

impl Root {
    fn make(self, sysroot: &Sysroot, image: &Path, dir: &Path) -> Result<()> {
        let cache = places::cache()?;
        let name = image.file_name().context("an image without a name")?.to_string_lossy();
        let to = format!("/mnt/vm/{ROOT_DISK}");
        let inside = sysroot.chroot().bind(dir, "vm").bind(&cache, "cache");
        let command = match self {
            Root::Overlay => inside
                .command("qemu-img")
                .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
                .args([format!("/mnt/cache/{name}"), to]),
            Root::Copy => inside
                .command("cp")
                .args(["--sparse=always", "--reflink=auto"])
                .args([format!("/mnt/cache/{name}"), to]),
        };
        anyhow::ensure!(command.passes()?, "this command failed: {command}");
        Ok(())
    }
}

/// The names of a machine's disks, in the order in which it has them.
pub fn disks(config: &VmConfig) -> Vec<String> {
    let root = (config.tools == Tools::Node).then(|| ROOT_DISK.to_owned());
    (0..config.disks_mib.len()).map(|index| format!("{DISK}{index}")).chain(root).collect()
}

/// Deletes the disks of the machine called `name`, and leaves its logs.
pub fn forget_disks(name: &str) {
    let dir = places::target().join("vm").join(name);
    // What cannot be deleted costs space and nothing else.
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(DISK) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// The command that starts the machine in `dir`.
pub fn command(sysroot: &Sysroot, config: &VmConfig, dir: &Path, what: Use) -> Result<CommandLine> {
    let accel = accel::find(sysroot)?;
    let mut cmdline: Vec<String> = CMDLINE.iter().map(|word| (*word).to_owned()).collect();
    cmdline.push(format!("atom.release={}", sysroot.kernel().release));
    let (words, memory_mib) = match sysroot.flavour() {
        None => (Vec::new(), config.memory_mib),
        Some(flavour) => (flavour.words(), flavour.memory_mib(config.memory_mib)),
    };
    cmdline.extend(words);
    let modules =
        [("virtio_blk", !config.disks_mib.is_empty()), ("virtio_net", config.server_mib > 0)];
    let wanted: Vec<_> =
        modules.iter().filter(|(_, wanted)| *wanted).map(|(module, _)| *module).collect();
    let has_network = config.server_mib > 0 || config.ssh_port.is_some();
    if config.tools == Tools::Node {
        cmdline.extend(node_words(&config.name, has_network));
    } else if !wanted.is_empty() {
        cmdline.push(format!("atom.modprobe={}", wanted.join(",")));
    }
    cmdline.extend(config.cmdline.iter().cloned());
    let mut chroot = sysroot.chroot().bind(dir, "vm");
    if config.tools == Tools::Node {
        // The image that the root is an overlay of.
        chroot = chroot.bind(&places::cache()?, "cache");
    }
    if what == Use::InBackground {
        chroot = chroot.outlive_us();
    }
    let socket =
        |id: &str, file: &str| format!("socket,id={id},path=/mnt/vm/{file},server=on,wait=off");
    let mut command = chroot
        .command("qemu-system-x86_64")
        .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
        .args(match config.counted {
            false => accel.options().to_vec(),
            true => accel::COUNTED.to_vec(),
        })
        .arg("-m")
        .arg(memory_mib.to_string())
        .arg("-smp")
        .arg(config.vcpus.to_string())
        .args(["-kernel", &sysroot.vmlinuz()])
        .arg("-append")
        .arg(cmdline.join(" "));
    command = match what {
        Use::GoesOn => command.arg("-incoming").arg(format!("file:/mnt/vm/{MEMORY}")),
        _ => command.arg("-initrd").arg(format!("/mnt/vm/{INITRD}")),
    };
    command = match what {
        Use::Interactive => command
            .arg("-chardev")
            .arg("stdio,id=console,mux=on,signal=off,logfile=/mnt/vm/console.log")
            .args(["-serial", "chardev:console", "-mon", "chardev=console"]),
        Use::UnderControl | Use::InBackground | Use::GoesOn => command
            .args(["-serial", "file:/mnt/vm/console.log", "-chardev"])
            .arg(socket("monitor", MONITOR))
            .args(["-mon", "chardev=monitor"]),
    };
    if config.will_be_cut {
        // The second serial line; the console is the first.
        command = command.arg("-serial").arg(format!("file:/mnt/vm/{MARKS}"));
    }
    command = command
        .arg("-chardev")
        .arg(socket("link", LINE))
        .args(["-device", "virtio-serial-pci"])
        .args(["-device", &format!("virtserialport,chardev=link,name={PORT}")]);
    for disk in disks(config) {
        let (file, cache) = match config.will_be_cut {
            false => (format!("/mnt/vm/{disk}"), "unsafe"),
            // Every flush of the guest becomes one of the server.
            true => (format!("nbd+unix:///?socket={}", served::socket(&disk)), "none"),
        };
        let is_root = disk == ROOT_DISK;
        let format = if is_root && !config.will_be_cut { "qcow2" } else { "raw" };
        let serial = if is_root { format!(",serial={ROOT_SERIAL}") } else { String::new() };
        command = command
            .arg("-drive")
            .arg(format!(
                "file={file},format={format},if=none,id={disk},cache={cache},discard=unmap"
            ))
            .arg("-device")
            .arg(format!("virtio-blk-pci,drive={disk}{serial}"));
    }
    if has_network {
        let forward = config.ssh_port.map(|port| format!(",hostfwd=tcp:127.0.0.1:{port}-:22"));
        // The guest reaches the host's loopback at 10.0.2.2.
        command = command
            .arg("-netdev")
            .arg(format!("user,id=net,restrict=off{}", forward.unwrap_or_default()))
            .args(["-device", "virtio-net-pci,netdev=net,romfile="]);
    }
    Ok(command)
}

/// Words of a node's kernel command line.
fn node_words(name: &str, has_network: bool) -> Vec<String> {
    let mut key = Fingerprint::default();
    let machine = key.add(name).name();
    let mut words = vec![
        format!("atom.{WORD}"),
        format!("systemd.hostname={}", host_name(name)),
        // Machines of the same image are different ones.
        format!("systemd.machine_id={machine}{machine}"),
        // What systemd does, and in which order, is on the console.
        "systemd.show_status=yes".to_owned(),
        "systemd.log_color=no".to_owned(),
        "net.ifnames=0".to_owned(),
        // No moving picture on the console.
        "TERM=dumb".to_owned(),
    ];
    if has_network {
        words.push("atom.network".to_owned());
    }
    words
}

/// A machine's name as a host may have it.
fn host_name(name: &str) -> String {
    let dashed = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    dashed.chars().take(60).collect::<String>().trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_has_letters_digits_and_dashes_and_is_short_enough() {
        assert_eq!(host_name("canary"), "canary");
        assert_eq!(host_name("a_node.1"), "a-node-1");
        assert_eq!(host_name(&"x_".repeat(50)).len(), 59);
    }

    #[test]
    fn a_boot_is_not_judged_by_what_the_boot_before_it_has_said() -> Result<()> {
        let dir = std::env::temp_dir().join(format!("atom-kept-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let said = "APIC calibration not consistent with PM-Timer: 7ms instead of 100ms\n";
        std::fs::write(dir.join(crate::vm::console::FILE), said)?;
        std::fs::write(dir.join(DISK), "data")?;
        assert!(crate::vm::console::look_at_boot(&dir).is_err());
        empty(&dir, true)?;
        crate::vm::console::look_at_boot(&dir)?;
        assert_eq!(std::fs::read(dir.join(DISK))?, b"data");
        for _ in 0..2 {
            empty(&dir, false)?;
            assert!(!dir.exists());
        }
        Ok(())
    }
}
