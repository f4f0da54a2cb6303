// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Memory with an end: what lies behind it is mapped for nobody.

use std::ptr::{null_mut, NonNull};

use anyhow::{ensure, Context as _, Result};
use nix::libc;

const PAGE: usize = 4096;
/// Pages before the end.
const PAGES: usize = 4;

/// The memory.
#[derive(Debug)]
pub(super) struct Memory {
    start: NonNull<u8>,
}

impl Memory {
    pub(super) fn new() -> Result<Self> {
        let (readable, whole) = (PAGES * PAGE, (PAGES + 1) * PAGE);
        // SAFETY: A new mapping, at an address of the kernel's choice, touches nothing that is there.
        let start = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            libc::mmap(null_mut(), whole, libc::PROT_NONE, flags, -1, 0)
        };
        ensure!(start != libc::MAP_FAILED, "no memory: {}", std::io::Error::last_os_error());
        let start = NonNull::new(start.cast::<u8>()).context("mapped at zero")?;
        let memory = Self { start };
        // SAFETY: These pages are a part of our mapping, and nobody has a reference to them.
        let opened = unsafe {
            libc::mprotect(start.as_ptr().cast(), readable, libc::PROT_READ | libc::PROT_WRITE)
        };
        ensure!(opened == 0, "no memory: {}", std::io::Error::last_os_error());
        Ok(memory)
    }

    /// Puts these bytes right before the end, and returns their address.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<u64> {
        let at = (PAGES * PAGE).checked_sub(bytes.len()).context("too many bytes")?;
        // SAFETY:
        // - `at` and what is behind it up to the end lie within the pages that may be written;
        // - `bytes` is not a part of them: nobody has a reference into them.
        let place = unsafe {
            let place = self.start.as_ptr().add(at);
            place.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            place
        };
        Ok(place as u64)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: The mapping is ours, of this length, and ends with its owner. A failure leaves it to the process.
        let _ = unsafe { libc::munmap(self.start.as_ptr().cast(), (PAGES + 1) * PAGE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_lie_before_the_end() {
        let mut memory = Memory::new().expect("memory");
        let (short, long) = (memory.put(&[1; 8]).expect("put"), memory.put(&[2; 64]).expect("put"));
        assert_eq!((short + 8) % PAGE as u64, 0);
        assert_eq!(short + 8, long + 64);
        assert!(memory.put(&[0; PAGES * PAGE + 1]).is_err());
    }
}
