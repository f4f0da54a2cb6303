// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `cargo xtask vm`: a guest with Atom and its first payload, for people.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::node::{Ground, Node, NodeConfig};
use crate::problem::failed;
use crate::sysroot::{Sysroot, Target};
use crate::vm::background::{self, Background};
use crate::vm::{initramfs::Initramfs, link, qemu, VmConfig};
use crate::{product, programs};

/// Opens a shell in a fresh guest; `exit` turns it off.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Starts a guest in the background, which the other commands then use.
    Start,
    /// Stops the guest in the background.
    Stop,
    /// Boots a node, a Debian with sshd, says how to come in, and shuts it down when a line is entered.
    Node {
        /// A folder whose files will be in /packages.
        #[arg(long, value_name = "DIR")]
        packages: Option<PathBuf>,
        /// Disks of so many MiB, besides the root's.
        #[arg(long, value_name = "MIB,...", value_delimiter = ',')]
        disks: Vec<u64>,
    },
    /// Runs a program in the guest in the background and exits with its code.
    Exec {
        /// The program and its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        argv: Vec<String>,
        /// How many seconds it may take.
        #[arg(long, default_value_t = 600)]
        limit: u64,
    },
    /// Copies a file into the guest in the background.
    Put {
        /// The file on this machine.
        from: PathBuf,
        /// Its path in the guest.
        to: String,
    },
}

pub fn run(args: &Args, target: &Target) -> Result<ExitCode> {
    match &args.action {
        None => shell(target)?,
        Some(Action::Start) => {
            let background = background(target)?;
            let how = if background.started { "started" } else { "runs already" };
            println!("{how}; its folder is {}", background.vm.dir().display());
        }
        Some(Action::Stop) => {
            let how = if background::SHELL.stop()? { "stopped" } else { "there is none to stop" };
            println!("{how}");
        }
        Some(Action::Node { packages, disks }) => node(target, packages.as_deref(), disks)?,
        Some(Action::Exec { argv, limit }) => {
            let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
            let limit = Duration::from_secs(*limit);
            let code = background(target)?.vm.exec(&argv, limit, link::print)?;
            return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
        }
        Some(Action::Put { from, to }) => {
            let bytes =
                std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
            let mode = from.metadata()?.permissions().mode() & 0o7777;
            background(target)?.vm.put(to, mode, &bytes)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn node(target: &Target, packages: Option<&Path>, disks: &[u64]) -> Result<()> {
    let sysroot = Sysroot::open(target)?;
    programs::build()?;
    let ground = Ground::prepare(&sysroot, packages)?;
    let config = NodeConfig { disks_mib: disks.to_vec(), ..NodeConfig::named("node") };
    let node = Node::boot(&ground, &config)?;
    println!(
        "ssh -i {} -p {} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null root@127.0.0.1",
        ground.keys().client().display(),
        node.ssh_port()
    );
    eprintln!("its console is {}/console.log; Enter shuts it down", node.vm().dir().display());
    std::io::stdin().read_line(&mut String::new())?;
    node.poweroff()
}

/// The guest in the background; it is started, with all that was built, when there is none.
pub fn background(target: &Target) -> Result<Background> {
    let sysroot = Sysroot::open(target)?;
    background::SHELL.take(&sysroot, || guest_with_atom(&sysroot))
}

/// A guest with Atom, the first payload live, and a volume of each kind.
fn guest_with_atom(sysroot: &Sysroot) -> Result<(Initramfs, VmConfig)> {
    let initramfs = product::guest(sysroot)?;
    let mut config = VmConfig::named("shell");
    if let Some(version) = product::first_version()? {
        config.cmdline.push(format!("atom.start={version}"));
    }
    Ok((initramfs, config))
}

fn shell(target: &Target) -> Result<()> {
    let sysroot = Sysroot::open(target)?;
    let (initramfs, mut config) = guest_with_atom(&sysroot)?;
    config.cmdline.push("atom.shell".to_owned());
    let folder = qemu::prepare_dir(&sysroot, qemu::Origin::Initramfs(&initramfs), &config)?;
    let dir = &folder.path;
    let command = qemu::command(&sysroot, &config, dir, qemu::Use::Interactive)?;
    eprintln!("Ctrl-A x ends QEMU, `exit` turns the guest off");
    if command.passes_on_terminal()? {
        return Ok(());
    }
    Err(failed(
        "QEMU ended with an error",
        format!("this command failed: {command}"),
        format!("read console.log in {}", dir.display()),
    ))
}
