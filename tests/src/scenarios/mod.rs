// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What is tested in a guest. Each scenario gets a freshly booted one for itself.
//!
//! To add one: write a file here with a function `fn(&mut Context) -> Result<()>`, and add a line to [`ALL`]. The
//! name is a sentence about what holds; `what` says it for people. Whatever the kernel complains about on purpose goes
//! to `expected_log`, or the scenario fails for it.

mod across;
mod ahead;
mod assembled;
mod busy;
mod changes;
mod completion_races_teardown;
mod context;
mod cuts;
mod dead;
mod detectors;
mod failpoints;
mod faults;
mod forced;
mod guest;
mod half_adopted;
mod handles;
mod hostile;
mod io_scheduler;
mod kernel_faults;
mod large_discard;
mod live_too_early;
mod living;
mod long_soak;
mod machine;
mod mixed;
mod network;
mod nobody;
mod node;
mod packages;
mod pause;
mod polled;
mod preserved;
mod queued;
mod reboots;
mod recover;
mod refusals;
pub mod root;
mod root_disk;
mod saturated_queue;
mod semantics;
mod sequences;
mod shortage;
mod smoke;
mod soak;
mod stale_aborting;
mod started_before_gone;
mod steps;
mod stuck;
mod table;
mod timers;
mod tool;
mod tool_failpoints;
mod upgrades;
mod versions;
mod volumes;
mod walk;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

pub use context::{Context, NOT_JUDGED};
pub use table::ALL;

/// The name and version of the document that a scenario ends with.
pub const RESULT_SCHEMA: &str = "atom.scenario-result/1";

/// The machine that a scenario wants.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Its memory in MiB.
    pub memory_mib: u32,
    /// Its processors.
    pub vcpus: u32,
    /// Its disks in MiB each; they are empty and sparse, and appear as `/dev/vda`, `/dev/vdb` and so on.
    pub disks_mib: &'static [u64],
    /// The programs on it.
    pub tools: Tools,
    /// MiB of an NBD server on the host, which the guest reaches over a network; 0: there is none, and no network. It is in
    /// memory, unless the power is cut; that of a node is kept from boot to boot.
    pub server_mib: u64,
    /// What becomes of its power.
    pub power: Power,
    /// A node that boots again from an initramfs of its own, with its root file system on `/dev/atom/root`: each boot but the
    /// last writes on the first of its disks the length of the initramfs, 8 bytes, little-endian, and then the initramfs.
    pub own_initramfs: bool,
    /// The kernel that it needs.
    pub kernel: Kernel,
    /// It takes long, and shows little that others do not: only with `--slow`, or by its name.
    pub only_slow: bool,
}

/// The programs on a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tools {
    /// What most scenarios need, and boots fast.
    Small,
    /// NBD servers, LVM, dm-crypt, udev and systemd as well.
    Large,
    /// A whole Debian on a disk of its own, booted by systemd, with nothing of Atom but packages in `/packages`.
    Node,
}

/// The kernel that a scenario needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kernel {
    /// The stock kernel or a debug kernel.
    Any,
    /// The stock kernel.
    Stock,
    /// The debug kernel of the flavour `debug`.
    Debug,
    /// The debug kernel of the flavour `kcsan`.
    Kcsan,
}

impl Kernel {
    /// Whether a kernel will do: the flavour of a debug kernel, or none for the stock kernel.
    pub fn is(self, flavour: Option<&str>) -> bool {
        match self {
            Kernel::Any => true,
            Kernel::Stock => flavour.is_none(),
            Kernel::Debug => flavour == Some("debug"),
            Kernel::Kcsan => flavour == Some("kcsan"),
        }
    }
}

/// What becomes of the power of a machine. In each boot the scenario runs anew, with the disks and the notes of the boot
/// before: see [`crate::power`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Power {
    /// There is one boot.
    Stays,
    /// There are two, and the machine is turned off between them as it should be. In the second one systemd is the first
    /// process; on a node it is in both, and the first one ends with a reboot.
    Cycled,
    /// It is shut down in order, and booted again so many times.
    Again {
        /// Boots after the first one in an ordinary run.
        times: u32,
        /// The same with `--slow`.
        slow: u32,
    },
    /// It is cut at a random moment, so many times, and there is one more boot after the last. What the disks and the
    /// server on the host have not flushed is lost with it.
    Cut {
        /// Cuts in an ordinary run.
        times: u32,
        /// Cuts with `--slow`.
        slow: u32,
    },
}

/// The machine of scenarios that want nothing special.
pub const PLAIN: Machine = Machine {
    memory_mib: 1024,
    vcpus: 2,
    disks_mib: &[],
    tools: Tools::Small,
    server_mib: 0,
    power: Power::Stays,
    own_initramfs: false,
    kernel: Kernel::Any,
    only_slow: false,
};

/// A scenario.
pub struct Scenario {
    /// A sentence in snake case.
    pub name: &'static str,
    /// The same for people.
    pub what: &'static str,
    /// Where it runs.
    pub machine: Machine,
    /// Texts of kernel log lines that it provokes.
    pub expected_log: &'static [&'static str],
    /// It has failed when it takes longer, in each boot.
    pub limit_seconds: u64,
    /// What it does.
    pub run: fn(&mut Context) -> Result<()>,
}

/// The machine of scenarios with many devices.
pub const LARGE: Machine = Machine { memory_mib: 2048, ..PLAIN };

/// What the host needs to know about a scenario.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Description {
    pub name: String,
    pub what: String,
    pub memory_mib: u32,
    pub vcpus: u32,
    pub disks_mib: Vec<u64>,
    pub tools: Tools,
    pub server_mib: u64,
    pub power: Power,
    pub own_initramfs: bool,
    pub kernel: Kernel,
    pub only_slow: bool,
    pub expected_log: Vec<String>,
    pub limit_seconds: u64,
}

/// How a scenario went.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    pub schema: String,
    pub name: String,
    pub passed: bool,
    pub seconds: f64,
    pub error: Option<String>,
    /// What it measured.
    pub facts: serde_json::Map<String, serde_json::Value>,
}

impl Scenario {
    /// The scenario for the host.
    pub fn describe(&self) -> Description {
        Description {
            name: self.name.to_owned(),
            what: self.what.to_owned(),
            memory_mib: self.machine.memory_mib,
            vcpus: self.machine.vcpus,
            disks_mib: self.machine.disks_mib.to_vec(),
            tools: self.machine.tools,
            server_mib: self.machine.server_mib,
            power: self.machine.power,
            own_initramfs: self.machine.own_initramfs,
            kernel: self.machine.kernel,
            only_slow: self.machine.only_slow,
            expected_log: self.expected_log.iter().map(|s| (*s).to_owned()).collect(),
            limit_seconds: self.limit_seconds,
        }
    }

    /// Runs it here and now.
    pub fn run(&self) -> Outcome {
        let started = std::time::Instant::now();
        let (result, facts) = match Context::new() {
            Ok(mut context) => {
                let result = (self.run)(&mut context);
                (result, context.into_facts())
            }
            Err(error) => (Err(error), Default::default()),
        };
        Outcome {
            schema: RESULT_SCHEMA.to_owned(),
            name: self.name.to_owned(),
            passed: result.is_ok(),
            seconds: started.elapsed().as_secs_f64(),
            error: result.err().map(|error| format!("{error:#}")),
            facts,
        }
    }
}

/// Finds a scenario by its name.
pub fn named(name: &str) -> Result<&'static Scenario> {
    ALL.iter()
        .find(|scenario| scenario.name == name)
        .with_context(|| format!("there is no scenario {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_the_sentences_end() {
        for (index, scenario) in ALL.iter().enumerate() {
            assert!(!ALL[..index].iter().any(|s| s.name == scenario.name));
            assert!(scenario.what.ends_with('.'), "{}", scenario.what);
        }
    }
}
