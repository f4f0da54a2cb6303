// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The fault injection of a debug kernel: which of the kernel's own functions fail, in which task and below which code. See
//! `Documentation/fault-injection/fault-injection.rst`.

use std::fs;
use std::ops::Range;

use anyhow::{Context as _, Result};

use crate::kernel_modules;

const DEBUGFS: &str = "/sys/kernel/debug";
/// Frames of a stack that are looked at; the most that the kernel takes.
const DEPTH: u32 = 32;

/// What can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An allocation of an object.
    Slab,
    /// An allocation of pages.
    Pages,
    /// A bio, at a disk that was chosen by [`fail_disk`].
    Bio,
}

impl Fault {
    fn folder(self) -> String {
        let name = match self {
            Fault::Slab => "failslab",
            Fault::Pages => "fail_page_alloc",
            Fault::Bio => "fail_make_request",
        };
        format!("{DEBUGFS}/{name}")
    }

    fn set(self, name: &str, value: &str) -> Result<()> {
        let file = format!("{}/{name}", self.folder());
        fs::write(&file, value).with_context(|| format!("{file}: {value}"))
    }
}

/// Faults that are armed. Dropping it disarms them.
pub struct Armed {
    faults: Vec<Fault>,
}

impl Armed {
    /// Arms these faults; nothing fails until a task asks for it with [`nth`], or is [`doomed`]. With `below` only what was
    /// called by code in this range of addresses fails.
    pub fn new(faults: &[Fault], below: Option<&Range<u64>>) -> Result<Self> {
        let armed = Self { faults: faults.to_vec() };
        for fault in faults {
            // Its stacks would be findings in the log.
            fault.set("verbose", "0")?;
            fault.set("times", "-1")?;
            fault.set("probability", "0")?;
            fault.set("task-filter", "Y")?;
            if let Some(range) = below {
                fault.set("stacktrace-depth", &DEPTH.to_string())?;
                fault.set("require-start", &range.start.to_string())?;
                fault.set("require-end", &range.end.to_string())?;
            }
            if *fault != Fault::Bio {
                // Those that may wait fail too.
                fault.set("ignore-gfp-wait", "N")?;
            }
            if *fault == Fault::Pages {
                fault.set("min-order", "0")?;
                fault.set("ignore-gfp-highmem", "N")?;
            }
        }
        Ok(armed)
    }

    /// From here on all of it fails in doomed threads.
    pub fn always(&self) -> Result<()> {
        self.faults.iter().try_for_each(|fault| fault.set("probability", "100"))
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        for fault in &self.faults {
            let _ = fault.set("probability", "0");
            let _ = fault.set("require-start", "0");
            let _ = fault.set("require-end", &u64::MAX.to_string());
        }
    }
}

/// Has the `number`th thing that can fail in this thread fail, and no other, while `body` runs. Returns what it returned, and
/// how many things that could have failed it did not come to: none when one has failed.
pub fn nth<T>(number: u32, body: impl FnOnce() -> T) -> Result<(T, u32)> {
    const FILE: &str = "/proc/thread-self/fail-nth";
    // Opened before, so that to disarm it takes no memory.
    let disarm = fs::OpenOptions::new().read(true).write(true).open(FILE).context(FILE)?;
    write_at_start(&disarm, &number.to_string())?;
    let result = body();
    // To read the number may itself come to it.
    let left = read_at_start(&disarm);
    write_at_start(&disarm, "0")?;
    Ok((result, left?))
}

/// Lets this thread be one in which what is armed fails, while `body` runs.
pub fn doomed<T>(body: impl FnOnce() -> T) -> Result<T> {
    const FILE: &str = "/proc/thread-self/make-it-fail";
    fs::write(FILE, "1").context(FILE)?;
    let result = body();
    fs::write(FILE, "0").context(FILE)?;
    Ok(result)
}

/// Lets bios of a disk fail, as `vda`, or not any more.
pub fn fail_disk(disk: &str, fails: bool) -> Result<()> {
    let file = format!("/sys/block/{disk}/make-it-fail");
    fs::write(&file, if fails { "1" } else { "0" }).context(file)
}

/// The addresses of a module's code.
pub fn code_of(module: &str) -> Result<Range<u64>> {
    kernel_modules::code_of(&fs::read_to_string("/proc/modules")?, module)
        .with_context(|| format!("the addresses of {module} are not known"))
}

fn write_at_start(file: &fs::File, text: &str) -> Result<()> {
    use std::os::unix::fs::FileExt as _;
    file.write_all_at(text.as_bytes(), 0).with_context(|| format!("fail-nth: {text}"))
}

fn read_at_start(file: &fs::File) -> Result<u32> {
    use std::os::unix::fs::FileExt as _;
    let mut text = [0; 16];
    let length = file.read_at(&mut text, 0).context("fail-nth")?;
    let text = text.get(..length).unwrap_or_default();
    Ok(String::from_utf8_lossy(text).trim().parse()?)
}
