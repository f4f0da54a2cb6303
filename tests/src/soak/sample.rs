// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What is counted of the kernel after each block of upgrades, and by how much each count may rise.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use atomctl::node::Node;
use serde::{Deserialize, Serialize};

use super::growth::Limit;
use crate::memory::{field, others, settle};
use crate::site::Site;
use crate::{leaks, slab};

/// Fields of `/proc/meminfo` that are the kernel's, and not a cache that it gives back when it is asked to.
const MEMORY: [&str; 6] =
    ["SUnreclaim", "SReclaimable", "VmallocUsed", "Percpu", "KernelStack", "SecPageTables"];

const SLAB: &str = "slab/";
const KIB: &str = "kib/";
const COUNT: &str = "count/";

/// Objects of a cache. Most leaks are one object in each upgrade, or in each that goes a rare way: one in fifty is found
/// in a long run. The floor is what a cache differs by because somebody does I/O while it is counted: fio and some lanes with a
/// dozen requests, their bios and their pages, each in flight or waiting for the grace period after which it is freed.
const OBJECTS: Limit = Limit { floor: 40.0, per_upgrade: 0.02, step: 2.0 };
/// KiB. A page that is lost in each tenth upgrade is found in a long run; less than a page cannot be lost here, because
/// smaller pieces are objects. The floor is what the free lists of the processors and half-full slabs come and go by.
const KIBIBYTES: Limit = Limit { floor: 1024.0, per_upgrade: 0.4, step: 2.0 };
/// What is the same after each block, because the same things run: a single one more is one too many.
const EXACT: Limit = Limit { floor: 0.5, per_upgrade: 0.0, step: 1.0 };
/// Open files and tasks of the whole machine: the agent and who looks at us come and go.
const NEARLY: Limit = Limit { floor: 8.0, per_upgrade: 0.001, step: 1.0 };

/// Counts by name. `slab/NAME` are objects in use, `kib/NAME` memory in KiB, `count/NAME` anything else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sample(pub BTreeMap<String, u64>);

impl Sample {
    /// Counts now. The caches give back first what they only keep, so that an object that counts is an object in use. A kernel that
    /// looks for leaks itself keeps what is freed, and records of what is not, so that its memory is not counted.
    pub fn take(site: &Site) -> Result<Self> {
        settle()?;
        let mut counts = BTreeMap::new();
        if !leaks::are_found() {
            memory(&mut counts)?;
        }
        let modules = fs::read_to_string("/proc/modules")?;
        let bytes: u64 = modules.lines().filter_map(module_bytes).sum();
        counts.insert(format!("{KIB}modules"), bytes >> 10);
        let status = site.node().status()?;
        let open = fs::read_to_string("/proc/sys/fs/file-nr")?;
        let open = open.split_whitespace().next().and_then(|number| number.parse().ok());
        let mut count = |name: &str, value| counts.insert(format!("{COUNT}{name}"), value);
        count("modules", modules.lines().count() as u64);
        count("payloads", u64::from(status.payloads));
        count("devices", site.node().devices()?.len() as u64);
        count("preserved", u64::from(status.preserved));
        count("descriptors", entries("/proc/self/fd")?);
        count("threads", entries("/proc/self/task")?);
        count("open_files", open.context("/proc/sys/fs/file-nr is not as it must be")?);
        count("tasks", tasks()?);
        Ok(Self(counts))
    }
}

/// Counts the kernel's memory.
fn memory(counts: &mut BTreeMap<String, u64>) -> Result<()> {
    let caches = slab::objects_in_use()?.into_iter();
    counts.extend(caches.map(|(name, objects)| (format!("{SLAB}{name}"), objects)));
    let text = fs::read_to_string("/proc/meminfo")?;
    let lists = fs::read_to_string("/proc/zoneinfo")?;
    // Older kernels have fewer fields.
    let fields =
        MEMORY.iter().filter_map(|name| Some((format!("{KIB}{name}"), field(&text, name)?)));
    counts.extend(fields);
    let taken = taken(&text, &lists).context("/proc/meminfo is not as it must be")?;
    counts.insert(format!("{KIB}taken"), taken);
    Ok(())
}

/// By how much a count may rise.
pub fn limit_of(name: &str) -> &'static Limit {
    match name {
        "count/open_files" | "count/tasks" => &NEARLY,
        _ if name.starts_with(SLAB) => &OBJECTS,
        _ if name.starts_with(KIB) => &KIBIBYTES,
        _ => &EXACT,
    }
}

/// Memory in KiB that the kernel has and does not call anybody's, from `/proc/meminfo` and `/proc/zoneinfo`.
fn taken(text: &str, lists: &str) -> Option<u64> {
    Some(field(text, "MemTotal")?.saturating_sub(others(text, lists)?))
}

/// The size of a module, from its line of `/proc/modules`.
fn module_bytes(line: &str) -> Option<u64> {
    line.split_whitespace().nth(1)?.parse().ok()
}

fn entries(folder: impl AsRef<Path>) -> Result<u64> {
    let folder = folder.as_ref();
    Ok(fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?.count()
        as u64)
}

/// Processes and threads of the kernel. Its workers come and go as there is work.
fn tasks() -> Result<u64> {
    let mut count = 0;
    for entry in fs::read_dir("/proc")?.flatten() {
        // One that is gone meanwhile is not counted.
        let comm = fs::read_to_string(entry.path().join("comm"));
        count += u64::from(comm.is_ok_and(|comm| !comm.starts_with("kworker")));
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_has_is_the_kernels() {
        let text = "MemTotal:  10000 kB\nMemFree:  4000 kB\nBuffers: 100 kB\nCached: 2000 kB\nSwapCached: 7 kB\n\
            AnonPages: 900 kB\nSReclaimable: 300 kB\nKernelStack: 150 kB\nPageTables: 50 kB\n";
        let lists = "  pagesets\n    cpu: 0\n              count:    20\n              high:  9\n    cpu: 1\n   count: 5\n";
        assert_eq!(taken(text, lists), Some(10_000 - 7500 - 4 * 25));
        assert_eq!(taken("MemTotal: 1 kB\n", lists), None);
        assert_eq!(module_bytes("payload_2_0_0 262144 1 - Live 0x0 (OE)"), Some(262_144));
    }

    #[test]
    fn one_module_or_descriptor_more_is_too_many() {
        for name in ["count/modules", "count/descriptors", "count/preserved", "count/threads"] {
            assert_eq!(limit_of(name), &EXACT, "{name}");
        }
        assert_eq!(limit_of("slab/kmalloc-64"), &OBJECTS);
        assert_eq!(limit_of("kib/taken"), &KIBIBYTES);
        assert_eq!(limit_of("count/tasks"), &NEARLY);
    }
}
