// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Memory of the kernel's that nobody knows the address of any more, as kmemleak finds it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// What scans when it is written to, and lists what was found when it is read.
const FILE: &str = "/sys/kernel/debug/kmemleak";

/// The allocator's caches.
const CACHES: &str = "/sys/kernel/slab";

/// What has been allocated within this time before a scan is not reported by it: `MSECS_MIN_AGE` in `mm/kmemleak.c`.
const YOUNG: Duration = Duration::from_millis(5100);

/// Whether this kernel looks for leaks.
pub fn are_found() -> bool {
    Path::new(FILE).exists()
}

/// Scans twice and returns the list, which is empty where the kernel does not look for leaks. The first scan takes the
/// checksum of each object; what still nobody refers to in the second, with the same content, is a leak. The second begins
/// when what was allocated before the first is old enough.
pub fn find() -> Result<String> {
    if !are_found() {
        return Ok(String::new());
    }
    empty_sheaves();
    let begun = Instant::now();
    scan()?;
    std::thread::sleep(YOUNG.saturating_sub(begun.elapsed()));
    scan()?;
    fs::read_to_string(FILE).context(FILE)
}

/// Has the allocator give back what it keeps for each processor. These lists still have the addresses of what was taken from
/// them last, and kmemleak looks at them like at any memory, so that a few leaks would have somebody who refers to them.
fn empty_sheaves() {
    let caches = fs::read_dir(CACHES).into_iter().flatten().flatten();
    for cache in caches {
        // A cache may go meanwhile, and some cannot be shrunk.
        let _ = fs::write(cache.path().join("shrink"), "1");
    }
}

/// Returns when the scan is done. The kernel refuses it when kmemleak has turned itself off, having run out of memory.
fn scan() -> Result<()> {
    fs::write(FILE, "scan").context("kmemleak does not scan")
}
