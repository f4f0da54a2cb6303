// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Virtual machines, in which silence is failure.
//!
//! [`Vm::boot`] returns once the guest's agent has said hello, or an error that shows the end of its console. From then
//! on [`Vm::exec`] runs programs in it. Whatever does not answer within its limit, and a QEMU that ends on its own, is
//! an error that shows the console too. A machine dies with its handle, and with us.
//!
//! - [`accel`] finds out whether KVM works here;
//! - [`initramfs`] makes what the guest boots from;
//! - [`qemu`] writes QEMU's command line;
//! - [`served`] are the NBD servers on the host;
//! - [`link`] talks to the agent;
//! - [`console`] finds the last words of one that fell silent;
//! - [`background`] keeps machines for several commands;
//! - [`saved`] lets machines go on from the memory of one that has booted.

pub mod accel;
pub mod background;
mod console;
pub mod initramfs;
pub mod link;
pub mod qemu;
pub mod saved;
mod served;

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use atom_tests::link::Action;
use atom_tests::scenarios::Tools;
use nix::sys::signal::{kill, Signal};
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use nix::unistd::Pid;

use crate::command_line::CommandLine;
use crate::problem::failed;
use crate::sysroot::Sysroot;
use console::{last_words, Unfit};
use initramfs::Initramfs;
use link::{Link, Stream};
use qemu::Folder;
use served::Served;

/// How long a guest may take from power-on to its agent's hello. Emulated ones on a busy host need most of it.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// The same of a node, which boots a whole Debian, in a fleet beside others.
const NODE_BOOT_LIMIT: Duration = Duration::from_secs(300);

/// How often a machine is booted whose kernel emulation spoils each time.
const BOOTS: u32 = 4;

/// How long a guest may take to turn itself off, and a node, in which systemd stops one unit after the other.
const POWEROFF_LIMIT: Duration = Duration::from_secs(30);
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(100);

/// How long two scans of all memory may take.
const SCAN: Duration = Duration::from_secs(100);

/// How long a guest from which no answer comes may take to say who waits in it for what, and how many lines of that an error shows.
const HANG: Duration = Duration::from_secs(20);
const HANG_LINES: usize = 40;

/// How long small requests may take.
const SHORT: Duration = Duration::from_secs(30);

/// The machine that is wanted.
#[derive(Clone, Debug)]
pub struct VmConfig {
    /// Its folder below `target/vm`, which holds its console log.
    pub name: String,
    /// Its memory in MiB.
    pub memory_mib: u32,
    /// Its processors.
    pub vcpus: u32,
    /// Words to add to the kernel's command line.
    pub cmdline: Vec<String>,
    /// Disks of so many MiB each. They are empty, unless they are kept.
    pub disks_mib: Vec<u64>,
    /// Whether the disks of the last machine of this name are kept.
    pub keep_disks: bool,
    /// Whether the machine will be cut off. Then its disks and that of the server lose what was not flushed, and it has a
    /// serial line for marks.
    pub will_be_cut: bool,
    /// MiB of an NBD server on the host; 0: none.
    pub server_mib: u64,
    /// The programs in the guest.
    pub tools: Tools,
    /// Whether it boots from the initramfs that the last machine of this name has written on its first disk.
    pub own_initramfs: bool,
    /// The port of the host's loopback that leads to its sshd. Only a node has one.
    pub ssh_port: Option<u16>,
    /// Whether its clock counts its instructions: a nanosecond each, whatever the host does meanwhile.
    pub counted: bool,
}

impl VmConfig {
    /// A machine of ordinary size.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            memory_mib: 1024,
            vcpus: 2,
            cmdline: Vec::new(),
            disks_mib: Vec::new(),
            keep_disks: false,
            will_be_cut: false,
            server_mib: 0,
            tools: Tools::Small,
            own_initramfs: false,
            ssh_port: None,
            counted: false,
        }
    }
}

/// A running machine.
pub struct Vm {
    qemu: Qemu,
    folder: Folder,
    link: Link,
    served: Served,
    poweroff_limit: Duration,
    /// All limits are those of the stock kernel; on this one everything may take so many times as long.
    patience: u32,
}

/// Cuts a machine off: no part of it does anything from one moment to the next.
#[derive(Clone, Debug)]
pub struct Cutter {
    qemu: Pid,
    servers: Vec<Pid>,
}

impl Cutter {
    /// Kills QEMU, and then the servers of its disks with what they have not flushed.
    pub fn cut(&self) {
        for pid in std::iter::once(&self.qemu).chain(&self.servers) {
            // None of them has been waited for, so the number is still theirs.
            let _ = kill(*pid, Signal::SIGKILL);
        }
    }
}

/// How we learn that a guest's agent is there.
#[derive(Clone, Copy)]
enum Hello {
    /// It says so when it starts.
    Comes,
    /// It has said so to somebody else.
    IsAsked,
}

enum Qemu {
    /// Started by us, and killed with us.
    Ours(Child),
    /// Kept in the background.
    Background(Pid),
}

impl Vm {
    /// Boots a machine and waits for its agent. One whose kernel emulation has spoiled is booted again: it is cut off before it
    /// has come to its first process.
    pub fn boot(sysroot: &Sysroot, initramfs: &Initramfs, config: &VmConfig) -> Result<Self> {
        let mut attempt = 1;
        loop {
            match Self::boot_once(sysroot, initramfs, config) {
                Err(error) if attempt < BOOTS && error.is::<Unfit>() => {
                    eprintln!("{} boots again: {error}", config.name);
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    fn boot_once(sysroot: &Sysroot, initramfs: &Initramfs, config: &VmConfig) -> Result<Self> {
        let folder = qemu::prepare_dir(sysroot, qemu::Origin::Initramfs(initramfs), config)?;
        let served = Served::start(sysroot, config, &folder.path)?;
        let mut config = config.clone();
        config.cmdline.extend(served.cmdline());
        let command = qemu::command(sysroot, &config, &folder.path, qemu::Use::UnderControl)?;
        let qemu = Qemu::start(&command, &folder)?;
        let limit = if config.tools == Tools::Node { NODE_BOOT_LIMIT } else { BOOT_LIMIT };
        let mut vm = Self::meet(qemu, folder, served, sysroot, (Hello::Comes, limit))?;
        if config.tools == Tools::Node {
            vm.poweroff_limit = SHUTDOWN_LIMIT;
        }
        Ok(vm)
    }

    /// Waits for a machine's line and for the hello on it.
    fn meet(
        mut qemu: Qemu,
        folder: Folder,
        served: Served,
        sysroot: &Sysroot,
        (hello, limit): (Hello, Duration),
    ) -> Result<Self> {
        let (release, patience) = (&sysroot.kernel().release, sysroot.patience());
        let limit = limit * patience;
        let deadline = Instant::now() + limit;
        let mut link = None;
        let result = loop {
            let end = qemu.end()?;
            // After that, so that of one that has ended all is there.
            if let Err(unfit) = console::look_at_boot(&folder.path) {
                qemu.kill();
                return Err(unfit.into());
            }
            if let Some(end) = end {
                break Err(format!("QEMU ended ({end}) before the guest's agent said hello"));
            }
            if Instant::now() > deadline {
                break Err(format!(
                    "the guest's agent did not say hello within {} s",
                    limit.as_secs()
                ));
            }
            match &link {
                None => link = Link::connect(&folder.path).ok(),
                Some(link) => {
                    let link: &Link = link;
                    let theirs = match hello {
                        Hello::Comes => link.await_hello(Duration::from_millis(100))?,
                        // It is asked again, unless QEMU has ended meanwhile.
                        Hello::IsAsked => link.ask_hello(Duration::from_millis(500)).ok(),
                    };
                    if let Some(theirs) = theirs {
                        break Ok(theirs);
                    }
                    continue;
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let problem = match (result, link) {
            (Ok(theirs), Some(link)) if theirs == *release => {
                // QEMU read it before the guest ran, and a hundred folders with one each fill a disk.
                for file in [qemu::INITRD, qemu::MEMORY] {
                    let _ = std::fs::remove_file(folder.path.join(file));
                }
                let poweroff_limit = POWEROFF_LIMIT;
                return Ok(Self { qemu, folder, link, served, poweroff_limit, patience });
            }
            (Ok(theirs), _) => format!("the guest runs {theirs} instead of {release}"),
            (Err(problem), _) => problem,
        };
        qemu.kill();
        Err(failed(
            "the virtual machine did not start",
            format!("{problem}{}", last_words(&folder.path)),
            format!("read console.log and qemu.log in {}", folder.path.display()),
        ))
    }

    /// The machine's folder.
    pub fn dir(&self) -> &Path {
        &self.folder.path
    }

    /// What cuts this machine off, for whoever decides when.
    pub fn cutter(&self) -> Result<Cutter> {
        let qemu = match &self.qemu {
            Qemu::Ours(child) => Pid::from_raw(child.id().try_into()?),
            Qemu::Background(pid) => *pid,
        };
        Ok(Cutter { qemu, servers: self.served.pids()? })
    }

    /// Runs a program, hands each line of its output to `on_line`, and returns its exit code.
    pub fn exec(
        &self,
        argv: &[&str],
        limit: Duration,
        on_line: impl FnMut(Stream, &str),
    ) -> Result<i32> {
        let result = self
            .link
            .call(link::exec(argv))
            .and_then(|call| call.finish(limit * self.patience, on_line));
        result.map_err(|error| {
            let what = format!("`{}` did not run to its end in the guest", argv.join(" "));
            if !link::is_silence(&error) {
                return error.context(what);
            }
            let hang = match link::is_timeout(&error) {
                true => self.ask_what_hangs(),
                false => String::new(),
            };
            failed(
                what,
                format!("{error:#}{hang}{}", last_words(&self.folder.path)),
                format!("read console.log and qemu.log in {}", self.folder.path.display()),
            )
        })
    }

    /// Runs a program that must succeed and returns what it printed.
    pub fn read(&self, argv: &[&str], limit: Duration) -> Result<String> {
        let (mut stdout, mut stderr) = (String::new(), String::new());
        let code = self.exec(argv, limit, |stream, line| {
            let text = match stream {
                Stream::Stdout => &mut stdout,
                Stream::Stderr => &mut stderr,
            };
            text.push_str(line);
            text.push('\n');
        })?;
        if code != 0 {
            bail!("in the guest, `{}` exited with {code}: {stderr}", argv.join(" "));
        }
        Ok(stdout)
    }

    /// Writes a file in the guest.
    pub fn put(&self, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        // An emulated guest takes in at least a megabyte each second.
        let limit = SHORT + Duration::from_secs(bytes.len() as u64 >> 20);
        self.link
            .call(link::put(path, mode, bytes))?
            .finish(limit * self.patience, |_, _| {})
            .with_context(|| format!("cannot write {path} in the guest"))?;
        Ok(())
    }

    /// Everything that the guest's kernel has logged.
    pub fn kernel_log(&self) -> Result<String> {
        self.read(&["/init", "kernel-log"], SHORT)
    }

    /// What kmemleak finds in the guest's kernel.
    pub fn leaks(&self) -> Result<String> {
        self.read(&["/init", "leaks"], SCAN)
    }

    /// Has the guest turn itself off, and waits until it has.
    pub fn poweroff(mut self) -> Result<()> {
        self.link.send(Action::Poweroff {})?;
        let limit = self.poweroff_limit * self.patience;
        let deadline = Instant::now() + limit;
        while self.qemu.end()?.is_none() {
            if Instant::now() > deadline {
                return Err(failed(
                    "the guest did not turn itself off",
                    format!(
                        "it was still running after {} s{}",
                        limit.as_secs(),
                        last_words(&self.folder.path)
                    ),
                    "something in it holds the shutdown up; read the console above",
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Lets the machine go on after our end.
    fn keep(&mut self) -> Result<()> {
        if let Qemu::Ours(child) = &self.qemu {
            self.qemu = Qemu::Background(Pid::from_raw(child.id().try_into()?));
        }
        Ok(())
    }

    /// Asks the guest who waits in it for what; when the agent is silent too, the monitor interrupts the processors.
    fn ask_what_hangs(&self) -> String {
        let asked = self.link.call(link::exec(&["/init", "hang"])).and_then(|call| {
            let mut lines = Vec::new();
            call.finish(HANG, |_, line| lines.push(line.to_owned()))?;
            Ok(lines)
        });
        match asked {
            Ok(lines) => {
                // The whole of it is for who looks closer; an error must stay readable.
                let _ = std::fs::write(self.folder.path.join("hang.log"), lines.join("\n"));
                let shown = &lines[..lines.len().min(HANG_LINES)];
                format!("\n  in the guest:\n    {}", shown.join("\n    "))
            }
            Err(_) => {
                // The command line has unknown_nmi_panic: the trace of the interrupted processor is the last clue.
                let _monitor = link::monitor(&self.folder.path, "nmi\n");
                std::thread::sleep(Duration::from_secs(2));
                String::new()
            }
        }
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        if let Qemu::Ours(_) = self.qemu {
            self.qemu.kill();
        }
    }
}

impl Qemu {
    /// Starts one in its folder.
    fn start(command: &CommandLine, folder: &Folder) -> Result<Self> {
        let log = std::fs::File::create(folder.path.join("qemu.log"))?;
        let child = command
            .command()
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start QEMU: {command}"))?;
        Ok(Self::Ours(child))
    }

    /// How it ended, if it did.
    fn end(&mut self) -> Result<Option<String>> {
        Ok(match self {
            Qemu::Ours(child) => child.try_wait()?.map(|status| status.to_string()),
            // It may have been started by this very process: then it stays in the list of processes until it is waited for.
            Qemu::Background(pid) => match waitpid(*pid, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => None,
                Ok(status) => Some(format!("{status:?}")),
                Err(_) => kill(*pid, None).is_err().then(|| "it is gone".to_owned()),
            },
        })
    }

    fn kill(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        match self {
            Qemu::Ours(child) => {
                let _ = child.kill();
                let _ = child.wait();
            }
            Qemu::Background(pid) => {
                let _ = kill(*pid, Signal::SIGKILL);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::zombie_processes, reason = "what is tested waits for it")]
    fn a_machine_in_the_background_has_ended_also_when_this_process_has_started_it() {
        let child = std::process::Command::new("true").spawn().unwrap();
        let mut qemu = Qemu::Background(Pid::from_raw(child.id().try_into().unwrap()));
        let begun = Instant::now();
        while qemu.end().unwrap().is_none() {
            assert!(begun.elapsed() < Duration::from_secs(30), "it is taken for running");
            std::thread::yield_now();
        }
    }
}
