// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! How much memory the kernel has taken, in its own words (`Documentation/filesystems/proc.rst`).

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use anyhow::{anyhow, Context as _, Result};

const MEMINFO: &str = "/proc/meminfo";
/// Where the kernel's caches are, one folder each.
const CACHES: &str = "/sys/kernel/slab";
/// Memory for objects that nobody can take from the kernel, and for each processor.
const OBJECTS: [&str; 2] = ["SUnreclaim", "Percpu"];
/// The same with modules, images, stacks and page tables. A stack that is mapped counts twice, and pages that belong to nobody's
/// list, as those of a volume in memory, do not count.
const KERNEL: [&str; 5] = ["SUnreclaim", "VmallocUsed", "Percpu", "KernelStack", "PageTables"];
/// Entries of file systems that were used since the last look at their list are only taken off it by a later one
/// (`dentry_lru_isolate` in `fs/dcache.c`): one time leaves hundreds, by chance, and what is left after four is in use.
const DROPS: u32 = 4;
/// Time between two looks of [`peak`]: what comes and goes within it is not seen.
const LOOK: Duration = Duration::from_millis(1);
/// More than `/proc/meminfo` has.
const ROOM: usize = 16 << 10;
const PAGE_KIB: u64 = 4;
const ZONEINFO: &str = "/proc/zoneinfo";
/// Memory that is free, or that is not the kernel's own: caches, processes. What a module has leaked is in none of these.
const OTHERS: [&str; 7] =
    ["MemFree", "Buffers", "Cached", "AnonPages", "SReclaimable", "KernelStack", "PageTables"];

/// Has the kernel give back what it only keeps: cached entries of file systems, and objects that lie ready for a processor.
pub fn settle() -> Result<()> {
    for _ in 0..DROPS {
        fs::write("/proc/sys/vm/drop_caches", "3")?;
    }
    for cache in fs::read_dir(CACHES).with_context(|| format!("cannot list {CACHES}"))? {
        let cache = cache?.path();
        // Other names of one cache are links to it; one that is gone needs nothing.
        if !cache.is_symlink() {
            let _ = fs::write(cache.join("shrink"), "1");
        }
    }
    Ok(())
}

/// A field of `/proc/meminfo`, in KiB.
pub fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// KiB on the free lists of the processors, from `/proc/zoneinfo`: they are free, though `MemFree` leaves them out.
pub fn ready(lists: &str) -> u64 {
    let counts = lists.lines().filter_map(|line| line.trim().strip_prefix("count:"));
    PAGE_KIB * counts.filter_map(|number| number.trim().parse::<u64>().ok()).sum::<u64>()
}

/// KiB that are free, or that are not the kernel's own, from `/proc/meminfo` and `/proc/zoneinfo`.
pub fn others(text: &str, lists: &str) -> Option<u64> {
    Some(OTHERS.iter().map(|name| field(text, name)).sum::<Option<u64>>()? + ready(lists))
}

/// [`others`] of this moment.
pub fn others_kib() -> Result<u64> {
    let (text, lists) = (fs::read_to_string(MEMINFO)?, fs::read_to_string(ZONEINFO)?);
    others(&text, &lists).with_context(|| format!("{MEMINFO} is not as it must be"))
}

/// Bytes that programs could still get without swapping.
pub fn available_bytes() -> Result<u64> {
    sum(&fs::read_to_string(MEMINFO)?, &["MemAvailable"])
}

/// Bytes that the kernel has for objects that nobody can take from it, and for each processor.
pub fn object_bytes() -> Result<u64> {
    sum(&fs::read_to_string(MEMINFO)?, &OBJECTS)
}

/// Bytes that the kernel has for itself.
pub fn kernel_bytes() -> Result<u64> {
    sum(&fs::read_to_string(MEMINFO)?, &KERNEL)
}

/// Bytes that are free once the kernel has given back what it only keeps.
pub fn free_bytes() -> Result<u64> {
    settle()?;
    let free = sum(&fs::read_to_string(MEMINFO)?, &["MemFree"])?;
    Ok(free + (ready(&fs::read_to_string(ZONEINFO)?) << 10))
}

/// Does something, and returns how many of [`kernel_bytes`] there were meanwhile at most beyond those before.
pub fn peak<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, u64)> {
    let file = File::open(MEMINFO).context(MEMINFO)?;
    let (begun, ends) = (Barrier::new(2), AtomicBool::new(false));
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            // The thread itself is in what was before.
            let before = look(&file);
            begun.wait();
            let (before, mut most) = (before?, 0);
            while !ends.load(Ordering::Relaxed) {
                most = most.max(look(&file)?.saturating_sub(before));
                thread::sleep(LOOK);
            }
            anyhow::Ok(most)
        });
        begun.wait();
        let done = work();
        ends.store(true, Ordering::Relaxed);
        let most = watcher.join().map_err(|_| anyhow!("the thread that looks has panicked"))?;
        Ok((done?, most?))
    })
}

/// [`kernel_bytes`] from an open file, so that looking often takes little.
fn look(file: &File) -> Result<u64> {
    let mut bytes = [0; ROOM];
    let count = file.read_at(&mut bytes, 0).context(MEMINFO)?;
    sum(&String::from_utf8_lossy(bytes.get(..count).unwrap_or_default()), &KERNEL)
}

/// The sum of fields of `/proc/meminfo`, in bytes.
fn sum(text: &str, names: &[&str]) -> Result<u64> {
    names
        .iter()
        .map(|name| Ok(field(text, name).with_context(|| format!("no {name} in {MEMINFO}"))? << 10))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "MemFree:  4000 kB\nCached: 2000 kB\nSwapCached: 7 kB\nPercpu:     3 kB\n";
        assert_eq!(field(text, "Cached"), Some(2000));
        assert_eq!(field(text, "Mem"), None);
        assert_eq!(sum(text, &["MemFree", "Percpu"]).expect("both"), 4003 << 10);
        assert!(sum(text, &["MemFree", "Slab"]).is_err());
    }

    #[test]
    fn pages_that_lie_ready_are_summed_over_the_processors() {
        let lists = "  pagesets\n    cpu: 0\n              count:    20\n              high:  9\n    cpu: 1\n   count: 5\n";
        assert_eq!(ready(lists), 100);
    }

    #[test]
    fn a_peak_comes_with_what_was_done_and_an_error_ends_the_looking() {
        // A host may have another kernel, which leaves some of the fields out.
        if kernel_bytes().is_ok() {
            assert_eq!(peak(|| Ok(7)).expect("a peak").0, 7);
            assert!(peak(|| -> Result<()> { Err(anyhow!("no")) }).is_err());
        }
    }
}
