// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Runs a playbook of the collection: with the Ansible in the search path, else with the one of the sysroot.
//!
//! The sysroot's Ansible sees little of this machine: the folder of the inventory, and the folders that the run names. So
//! what an inventory names, such as keys, lies beside it then; keys and known hosts of the user's `.ssh` are shown to ssh.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::report::Report;
use super::wishes::Wishes;
use crate::command_line::CommandLine;
use crate::problem::{failed, refused};
use crate::sysroot::{Sysroot, Target};
use crate::{host, places};

/// Seconds in which a node must answer when it is connected to.
const CONNECT_SECONDS: u32 = 30;

/// What ssh is told: one connection for all tasks, and a node that is gone is noticed within some twenty seconds.
const SSH: &str =
    "-o ControlMaster=auto -o ControlPersist=60s -o ServerAliveInterval=5 -o ServerAliveCountMax=4";

/// Which Ansible runs.
pub enum Ansible {
    /// The one of this machine.
    Host(PathBuf),
    /// The one of the sysroot.
    Sysroot(Box<Sysroot>),
}

impl Ansible {
    /// The host's, else the sysroot's.
    pub fn find(target: &Target) -> Result<Self> {
        match host::find("ansible-playbook") {
            Some(program) => Ok(Self::Host(program)),
            None => Ok(Self::Sysroot(Box::new(Sysroot::open(target)?))),
        }
    }
}

/// Where what Ansible prints goes.
#[derive(Clone, Debug)]
pub enum Output {
    /// To the person.
    Terminal,
    /// To the person, on standard error: standard output is for a document.
    Stderr,
    /// To the end of a file.
    File(PathBuf),
}

/// One run of a playbook.
pub struct Run {
    /// The playbook: `plan`, `prepare`, `upgrade`, `verify`, `rollback` or `status`.
    pub verb: &'static str,
    /// The inventory.
    pub inventory: PathBuf,
    /// The nodes that are meant, as Ansible writes it.
    pub limit: Option<String>,
    /// Nodes at a time.
    pub forks: u32,
    /// Whether Ansible's own output is wanted.
    pub verbose: bool,
    /// Where the run's progress and its table go.
    pub output: Output,
    /// The variables. Their folders and the record are those below.
    pub wishes: Wishes,
    /// The folder of packages.
    pub packages: Option<PathBuf>,
    /// The folder of files.
    pub files: Option<PathBuf>,
    /// The record of the rollout; beside the inventory if not given.
    pub rollout: Option<PathBuf>,
}

/// Folders that Ansible is to see, and the names that it sees them by.
struct Sight {
    shown: Vec<(PathBuf, String)>,
    inside: bool,
}

impl Sight {
    /// Shows the folder `dir` and returns its path as Ansible sees it.
    fn show(&mut self, dir: &Path, name: &str) -> Result<String> {
        let dir = dir.canonicalize().map_err(|error| {
            refused(
                format!("there is no {}", dir.display()),
                error.to_string(),
                "name a folder that exists",
            )
        })?;
        if !self.inside {
            return Ok(dir.display().to_string());
        }
        self.shown.push((dir, name.to_owned()));
        Ok(format!("/mnt/{name}"))
    }
}

/// The folder that a file lies in.
fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn name_of(file: &Path) -> Result<String> {
    let name = file.file_name().with_context(|| format!("{} names no file", file.display()))?;
    Ok(name.to_string_lossy().into_owned())
}

impl Run {
    /// Runs it, and returns what it reports. An error when it left no report.
    pub fn run(&self, ansible: &Ansible) -> Result<Report> {
        if !self.inventory.exists() {
            return Err(refused(
                format!("there is no inventory {}", self.inventory.display()),
                "the nodes are named in it",
                "write one: a line with its address for each node, as Ansible reads it",
            ));
        }
        let own = places::target().join("fleet").join(std::process::id().to_string());
        std::fs::create_dir_all(&own)
            .with_context(|| format!("cannot create {}", own.display()))?;
        let result = self.run_in(ansible, &own);
        // What is in it was read; a folder that cannot be deleted costs space and nothing else.
        let _ = std::fs::remove_dir_all(&own);
        result
    }

    fn run_in(&self, ansible: &Ansible, own: &Path) -> Result<Report> {
        let mut sight = Sight { shown: Vec::new(), inside: matches!(ansible, Ansible::Sysroot(_)) };
        let ours = sight.show(own, "fleet")?;
        let (inventory, beside) = self.inventory(&mut sight)?;
        let mut wishes = self.wishes.clone();
        if let Some(packages) = &self.packages {
            wishes.source = Some("packages");
            wishes.packages = Some(sight.show(packages, "packages")?);
        }
        if let Some(files) = &self.files {
            wishes.source = Some("files");
            wishes.files = Some(sight.show(files, "files")?);
        }
        let rollout = self.rollout.clone().unwrap_or_else(|| beside.join("atom-rollout.json"));
        let seen = sight.show(&folder_of(&rollout), "rollout")?;
        wishes.rollout = Some(format!("{seen}/{}", name_of(&rollout)?));
        places::write_whole(&own.join("variables.json"), &serde_json::to_vec_pretty(&wishes)?)?;
        let collections = own.join("collections");
        std::fs::create_dir_all(&collections)?;
        let mut environment: Vec<(&str, String)> = vec![
            ("ANSIBLE_CALLBACKS_ENABLED", "atom.fleet.report".to_owned()),
            ("ATOM_FLEET_REPORT", format!("{ours}/report.json")),
            ("ANSIBLE_FORKS", self.forks.to_string()),
            ("ANSIBLE_PIPELINING", "1".to_owned()),
            ("ANSIBLE_SSH_ARGS", SSH.to_owned()),
            ("ANSIBLE_TIMEOUT", CONNECT_SECONDS.to_string()),
            ("ANSIBLE_RETRY_FILES_ENABLED", "0".to_owned()),
            // The collection is in the clone, and stays as it is.
            ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
        ];
        if !self.verbose {
            environment.push(("ANSIBLE_STDOUT_CALLBACK", "atom.fleet.quiet".to_owned()));
        }
        let mut command = match ansible {
            Ansible::Host(program) => {
                let link = collections.join("ansible_collections");
                std::os::unix::fs::symlink(super::collections(), &link)?;
                environment.push(("ANSIBLE_COLLECTIONS_PATH", self.with_others(&collections)));
                // Cargo points it at its own toolchain.
                environment.push(("LD_LIBRARY_PATH", String::new()));
                CommandLine::new(program)
            }
            Ansible::Sysroot(sysroot) => {
                sight.show(&super::collections(), "collections/ansible_collections")?;
                // After what the inventory says, because ssh takes the first that it reads.
                let users = users_ssh(&mut sight)?;
                for name in
                    ["ANSIBLE_SSH_EXTRA_ARGS", "ANSIBLE_SFTP_EXTRA_ARGS", "ANSIBLE_SCP_EXTRA_ARGS"]
                {
                    environment.push((name, users.clone()));
                }
                if let Some(agent) = std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from) {
                    let seen = sight.show(&folder_of(&agent), "agent")?;
                    environment.push(("SSH_AUTH_SOCK", format!("{seen}/{}", name_of(&agent)?)));
                }
                environment.push(("ANSIBLE_COLLECTIONS_PATH", "/mnt/collections".to_owned()));
                environment.push(("ANSIBLE_HOME", "/mnt/fleet/ansible".to_owned()));
                environment.push(("ANSIBLE_SSH_CONTROL_PATH_DIR", "/mnt/fleet/cp".to_owned()));
                let mut chroot = sysroot.chroot();
                for (dir, name) in &sight.shown {
                    chroot = chroot.bind(dir, name);
                }
                chroot.command("ansible-playbook")
            }
        };
        for (name, value) in environment {
            command = command.env(name, value);
        }
        command = command
            .args(["--inventory", &inventory])
            .args(["--extra-vars", &format!("@{ours}/variables.json")])
            .args(self.limit.iter().flat_map(|limit| ["--limit", limit.as_str()]))
            .arg(format!("atom.fleet.{}", self.verb));
        let status = run_through_interrupts(command.command(), &self.output)
            .with_context(|| format!("this command could not be started: {command}"))?;
        let shown = rollout.display().to_string();
        match std::fs::read_to_string(own.join("report.json")) {
            Ok(text) => Ok(Report::parse(&text)?.with_rollout(Some(&shown))),
            Err(_) => Err(without_report(status, &rollout)),
        }
    }

    /// The inventory as Ansible sees it, and the folder that it lies in.
    fn inventory(&self, sight: &mut Sight) -> Result<(String, PathBuf)> {
        if self.inventory.is_dir() {
            return Ok((sight.show(&self.inventory, "inventory")?, self.inventory.clone()));
        }
        let folder = folder_of(&self.inventory);
        let seen = sight.show(&folder, "inventory")?;
        Ok((format!("{seen}/{}", name_of(&self.inventory)?), folder))
    }

    /// Where collections are, for the Ansible of this machine: ours first.
    fn with_others(&self, collections: &Path) -> String {
        let others = std::env::var("ANSIBLE_COLLECTIONS_PATH")
            .unwrap_or_else(|_| "~/.ansible/collections:/usr/share/ansible/collections".to_owned());
        format!("{}:{others}", collections.display())
    }
}

/// Options that have the sysroot's ssh use the user's configuration, keys and known hosts.
fn users_ssh(sight: &mut Sight) -> Result<String> {
    let Some(dir) = std::env::var_os("HOME")
        .map(|home| Path::new(&home).join(".ssh"))
        .filter(|dir| dir.is_dir())
    else {
        return Ok(String::new());
    };
    let seen = sight.show(&dir, "ssh")?;
    let mut options = format!("-o UserKnownHostsFile={seen}/known_hosts");
    if dir.join("config").exists() {
        options.push_str(&format!(" -F {seen}/config"));
    }
    for key in ["id_ed25519", "id_ecdsa", "id_rsa"] {
        if dir.join(key).exists() {
            options.push_str(&format!(" -o IdentityFile={seen}/{key}"));
        }
    }
    Ok(options)
}

/// Waits for the command's end. An interrupt from the terminal reaches it too: it ends in order, and we go on after it, with what
/// it has left.
fn run_through_interrupts(mut command: Command, output: &Output) -> Result<ExitStatus> {
    command.stdin(Stdio::null());
    match output {
        Output::Terminal => {}
        Output::Stderr => {
            command.stdout(std::io::stderr());
        }
        Output::File(path) => {
            let file = std::fs::File::options().create(true).append(true).open(path)?;
            command.stdout(file.try_clone()?).stderr(file);
        }
    }
    let interrupt = SigSet::from(Signal::SIGINT);
    // The child begins with an empty mask; it is ours alone that holds the signal back.
    interrupt.thread_block()?;
    let status = command.status();
    // What has come meanwhile was for the child, which has obeyed.
    let arrived = SignalFd::with_flags(&interrupt, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    while arrived.read_signal()?.is_some() {}
    interrupt.thread_unblock()?;
    Ok(status?)
}

fn without_report(status: ExitStatus, rollout: &Path) -> anyhow::Error {
    /// How Ansible ends after an interrupt.
    const INTERRUPTED: i32 = 99;
    if status.code() == Some(INTERRUPTED) {
        return failed(
            "the run was interrupted",
            "nodes that were in their turn may go on with it by themselves",
            format!("run the same again: it goes on with what {} records", rollout.display()),
        );
    }
    failed(
        "Ansible left no report",
        format!("it ended with {status}; see what it printed above"),
        "repair what it complains about, then run the same again; --verbose shows each task",
    )
}
