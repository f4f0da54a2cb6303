// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What is tested in a guest. Each scenario gets a freshly booted one for itself.
//!
//! To add one: write a file here with a function `fn(&mut Context) -> Result<()>`, and add a line to [`ALL`]. The
//! name is a sentence about what holds; `what` says it for people. Whatever the kernel complains about on purpose goes
//! to `expected_log`, or the scenario fails for it.

mod busy;
mod context;
mod faults;
mod handles;
mod hostile;
mod pause;
mod refusals;
mod semantics;
mod smoke;
mod upgrades;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

pub use context::Context;

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
}

/// The machine of scenarios that want nothing special.
pub const PLAIN: Machine = Machine { memory_mib: 1024, vcpus: 2, disks_mib: &[] };

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
    /// It has failed when it takes longer.
    pub limit_seconds: u64,
    /// What it does.
    pub run: fn(&mut Context) -> Result<()>,
}

/// The machine of scenarios with many devices.
pub const LARGE: Machine = Machine { memory_mib: 2048, ..PLAIN };

/// All scenarios.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "the_guest_boots_the_stock_kernel",
        what: "The guest runs exactly the kernel that the modules were built for.",
        machine: PLAIN,
        expected_log: &[],
        limit_seconds: 30,
        run: smoke::the_guest_boots_the_stock_kernel,
    },
    Scenario {
        name: "the_run_that_the_readme_shows_succeeds",
        what: "Warm, cold and warm again under fio and a file workload: no error, no wrong byte, nothing left.",
        machine: PLAIN,
        expected_log: &[],
        limit_seconds: 240,
        run: smoke::the_run_that_the_readme_shows_succeeds,
    },
    Scenario {
        name: "upgrades_in_a_row_with_one_device_at_depth_one",
        what: "50 warm and 50 cold upgrades each way, one device, one request in flight: no error, no mismatch.",
        machine: PLAIN,
        expected_log: &[],
        limit_seconds: 600,
        run: upgrades::one_device_at_depth_one,
    },
    Scenario {
        name: "upgrades_in_a_row_with_one_saturated_device",
        what: "The same with every tag taken.",
        machine: PLAIN,
        expected_log: &[],
        limit_seconds: 600,
        run: upgrades::one_device_saturated,
    },
    Scenario {
        name: "upgrades_in_a_row_with_sixteen_devices_at_depth_one",
        what: "The same with sixteen devices, one request in flight on each.",
        machine: LARGE,
        expected_log: &[],
        limit_seconds: 900,
        run: upgrades::sixteen_devices_at_depth_one,
    },
    Scenario {
        name: "upgrades_in_a_row_with_sixteen_saturated_devices",
        what: "The same with every tag of sixteen devices taken.",
        machine: LARGE,
        expected_log: &[],
        limit_seconds: 900,
        run: upgrades::sixteen_devices_saturated,
    },
    Scenario {
        name: "handles_mounts_holders_and_partitions_stay",
        what: "Open files, a mounted partition and an exclusive holder outlive warm and cold upgrades.",
        machine: PLAIN,
        expected_log: &[],
        limit_seconds: 120,
        run: handles::handles_mounts_holders_and_partitions_stay,
    },
    Scenario {
        name: "devices_open_and_close_while_io_is_held",
        what: "Devices can be opened and closed while nobody is adopted, and I/O waits instead of failing.",
        machine: PLAIN,
        expected_log: &[],
        limit_seconds: 120,
        run: handles::devices_open_and_close_while_io_is_held,
    },
    Scenario {
        name: "modules_in_use_say_busy",
        what: "rmmod of a live payload, and of Atom with an open device, says busy.",
        machine: PLAIN,
        expected_log: &[],
        limit_seconds: 120,
        run: busy::modules_in_use_say_busy,
    },
    Scenario {
        name: "unloading_everything_leaves_nothing_behind",
        what: "Unloading in order leaves no device, no module and no memory behind.",
        machine: PLAIN,
        expected_log: &[],
        limit_seconds: 240,
        run: busy::unloading_everything_leaves_nothing_behind,
    },
    Scenario {
        name: "the_pause_is_one_expedited_grace_period_and_loads_nothing",
        what: "For sixteen devices together the pause has one expedited grace period, no other one, and no module load.",
        machine: LARGE,
        expected_log: &[],
        limit_seconds: 240,
        run: pause::the_pause_is_one_expedited_grace_period_and_loads_nothing,
    },
    Scenario {
        name: "what_cannot_take_over_is_refused",
        what: "A module for another kernel, a truncated one, a foreign one is refused with its reason and no effect.",
        machine: PLAIN,
        expected_log: &[],
        limit_seconds: 240,
        run: refusals::what_cannot_take_over_is_refused,
    },
    Scenario {
        name: "atom_itself_refuses_what_the_tool_would_not_load",
        what: "Without the tool, Atom refuses foreign payloads and a second live one by itself.",
        machine: PLAIN,
        expected_log: &[],
        limit_seconds: 120,
        run: refusals::atom_itself_refuses_what_the_tool_would_not_load,
    },
    Scenario {
        name: "a_stored_image_of_an_unknown_schema_is_refused_and_kept",
        what: "A payload that does not read the stored image is refused, and the image stays for one that does.",
        machine: PLAIN,
        expected_log: &[],
        limit_seconds: 120,
        run: refusals::a_stored_image_of_an_unknown_schema_is_refused_and_kept,
    },
    Scenario {
        name: "a_candidate_that_fails_is_thrown_out",
        what: "A candidate that fails in prepare or adopt, or forgets a device, is undone under load, and a retry succeeds.",
        machine: PLAIN,
        expected_log: &[],
        limit_seconds: 240,
        run: faults::a_candidate_that_fails_is_thrown_out,
    },
    Scenario {
        name: "a_live_payload_that_cannot_freeze_serves_on",
        what: "When the live payload cannot write its image, the upgrade is undone and it serves on.",
        machine: PLAIN,
        expected_log: &[],
        limit_seconds: 120,
        run: faults::a_live_payload_that_cannot_freeze_serves_on,
    },
    Scenario {
        name: "a_cold_upgrade_that_fails_goes_back_to_the_old_file",
        what: "When the new module of a cold upgrade does not adopt, the old file is inserted again and serves.",
        machine: PLAIN,
        expected_log: &[],
        limit_seconds: 120,
        run: faults::a_cold_upgrade_that_fails_goes_back_to_the_old_file,
    },
    Scenario {
        name: "a_stuck_payload_runs_into_the_deadline_and_serves_on",
        what: "At the deadline the upgrade is undone, the blockers are named, and a retry succeeds once they have ended.",
        machine: PLAIN,
        expected_log: &[],
        limit_seconds: 120,
        run: faults::a_stuck_payload_runs_into_the_deadline_and_serves_on,
    },
    Scenario {
        name: "an_abandon_is_retried_after_its_deadline",
        what: "An abandon that met its deadline is undone, and succeeds once the requests have ended.",
        machine: PLAIN,
        expected_log: &[],
        limit_seconds: 120,
        run: faults::an_abandon_is_retried_after_its_deadline,
    },
    Scenario {
        name: "ram_volumes_keep_trim_and_zero_what_they_should",
        what: "Writes, discards and write-zeroes are what they should be before and after upgrades.",
        machine: PLAIN,
        expected_log: &[],
        limit_seconds: 120,
        run: semantics::ram_volumes_keep_trim_and_zero_what_they_should,
    },
    Scenario {
        name: "a_hostile_ioctl_is_refused",
        what: "Random ioctls with random content and addresses do no harm.",
        machine: PLAIN,
        expected_log: &[],
        limit_seconds: 120,
        run: hostile::a_hostile_ioctl_is_refused,
    },
];

/// What the host needs to know about a scenario.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Description {
    pub name: String,
    pub what: String,
    pub memory_mib: u32,
    pub vcpus: u32,
    pub disks_mib: Vec<u64>,
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
