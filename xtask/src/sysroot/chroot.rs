// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Commands inside a sysroot.
//!
//! Each runs in a mount namespace of its own: its mounts are invisible outside and go away with its last process,
//! so that a killed run leaves nothing behind. The chain `setpriv`, `unshare`, `sh`, `chroot`, program is made of
//! execs alone: the process that we start is the program, and killing it kills the program.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::command_line::CommandLine;
use crate::fingerprint::Fingerprint;
use crate::places;

/// Mounts what the program needs, then becomes it. The binds are pairs of a host path and a name below `/mnt`.
const ENTER: &str = r#"set -e
root=$1; count=$2; shift 2
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/mnt"
while [ "$count" -gt 0 ]; do
  [ -e "$root/mnt/$2" ] || mkdir -p "$root/mnt/$2"
  mount --bind "$1" "$root/mnt/$2"
  shift 2; count=$((count - 1))
done
exec chroot "$root" "$@"
"#;

/// The search path inside.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where the script for a root is. It is a file so that the commands in our errors stay readable, beside the root so
/// that they can be pasted, and named by its content so that clones of different ages do not get in each other's way.
fn script(root: &Path) -> PathBuf {
    let mut name = Fingerprint::default();
    name.add(ENTER);
    root.with_file_name(format!("enter-{}.sh", name.name()))
}

/// Makes sure that the script is there.
pub fn write_script(root: &Path) -> Result<()> {
    let path = script(root);
    if path.exists() {
        return Ok(());
    }
    places::write_whole(&path, ENTER.as_bytes())
}

/// A place to run commands in: a root folder and the host folders that it sees below `/mnt`.
#[derive(Clone, Debug)]
pub struct Chroot {
    root: PathBuf,
    binds: Vec<(PathBuf, String)>,
    env: Vec<(&'static str, String)>,
    outlives_us: bool,
}

impl Chroot {
    /// A sysroot without any folder of the host.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), binds: Vec::new(), env: Vec::new(), outlives_us: false }
    }

    /// Shows the host's folder `from` as `/mnt/<name>`.
    pub fn bind(mut self, from: &Path, name: &str) -> Self {
        self.binds.push((from.to_owned(), name.to_owned()));
        self
    }

    /// Shows the host's folder or file `from` in the place of one inside, as `/opt/kernel`.
    pub fn cover(self, from: &Path, place: &str) -> Self {
        self.bind(from, &format!("..{place}"))
    }

    /// Sets a variable of the environment of every command inside.
    pub fn env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    /// Lets the program go on after our end. Without this the kernel kills it when the thread that started it ends.
    pub fn outlive_us(mut self) -> Self {
        self.outlives_us = true;
        self
    }

    /// The command that runs `program` inside; arguments can be added to it.
    pub fn command(&self, program: &str) -> CommandLine {
        let mut argv: Vec<OsString> = Vec::new();
        if !self.outlives_us {
            argv.extend(["setpriv", "--pdeathsig", "KILL"].map(OsString::from));
        }
        argv.extend(["unshare", "--mount", "--propagation", "private"].map(OsString::from));
        argv.push("sh".into());
        argv.push(script(&self.root).into());
        argv.push(self.root.clone().into());
        argv.push(self.binds.len().to_string().into());
        for (from, name) in &self.binds {
            argv.push(from.clone().into());
            argv.push(name.into());
        }
        argv.push(program.into());
        let command = CommandLine::new(&argv[0])
            .args(&argv[1..])
            .env("PATH", PATH)
            .env("LC_ALL", "C.UTF-8")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("MAKEFLAGS", "")
            // Cargo points it at its own toolchain, which is not the one inside.
            .env("LD_LIBRARY_PATH", "")
            .dir(Path::new("/"));
        self.env.iter().fold(command, |command, (name, value)| command.env(name, value))
    }

    /// The command that runs a line of shell inside.
    pub fn shell(&self, line: &str) -> CommandLine {
        self.command("sh").args(["-e", "-c", line])
    }
}
