// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What `cargo xtask bench` measures: ours and its peers, in one guest and one run, by turns.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `series.rs` | numbers, and what pairs of them say |
//! | `fio.rs` | requests per second of a device |
//! | `window.rs` | the longest time in which an application gets nothing back |
//! | `volumes.rs` | the suite *volumes*: volumes beside what the kernel has |
//! | `path.rs` | the suite *path*: what a request costs |
//! | `pause.rs` | the suite *pause*: how long a change of code is seen |
//! | `scale.rs` | the suite *scale*: what grows with what |
//! | `size.rs` | the suite *size*: modules and memory |
//! | `against.rs` | this tree beside an earlier commit |
//! | `peers/` | the peers |

pub mod against;
mod fio;
mod path;
mod pause;
mod peers;
mod scale;
pub mod series;
mod size;
mod volumes;
pub mod window;

use std::process::Command;

use anyhow::{ensure, Context as _, Result};
use serde::{Deserialize, Serialize};

use series::Series;
use window::Trace;

/// Name and version of [`Document`].
pub const SCHEMA: &str = "atom.bench/1";

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Suite {
    /// How long a change of code is seen.
    Pause,
    /// What a request costs.
    Path,
    /// What grows with devices, handles and memory.
    Scale,
    /// Modules and memory.
    Size,
    /// Volumes over servers and disks.
    Volumes,
    /// This tree beside an earlier commit.
    Against,
}

impl Suite {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Pause, Self::Path, Self::Scale, Self::Size, Self::Volumes, Self::Against];

    /// As the guest is told, and as people say.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Path => "path",
            Self::Scale => "scale",
            Self::Size => "size",
            Self::Volumes => "volumes",
            Self::Against => "against",
        }
    }
}

/// How thoroughly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// As many rounds as a figure for the documents needs.
    Thorough,
    /// A few short ones: for a first look, and to try the benchmark itself.
    Quick,
    /// One round in a guest whose clock counts instructions, without what waits for the host.
    Counted,
}

impl How {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Thorough, Self::Quick, Self::Counted];

    /// As the guest is told.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Thorough => "thorough",
            Self::Quick => "quick",
            Self::Counted => "counted",
        }
    }
}

/// What the guest is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    pub suite: Suite,
    pub how: How,
    /// Only setups whose names contain this.
    pub only: &'a str,
}

/// All that was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Document {
    /// [`SCHEMA`].
    pub schema: String,
    pub suite: Suite,
    pub how: How,
    /// Release of the running kernel.
    pub kernel: String,
    /// The commit of the tree, as the host says it; empty: it has not.
    #[serde(default)]
    pub commit: String,
    /// Processors of the guest.
    pub processors: usize,
    /// All numbers.
    pub series: Vec<Series>,
    /// Of the suite *pause*: what a reader saw around a change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub traces: Vec<Trace>,
}

/// Measures; says on standard error what it is about.
pub fn run(wish: Wish<'_>) -> Result<Document> {
    let (series, traces) = match wish.suite {
        Suite::Pause => pause::run(wish)?,
        Suite::Path => (path::run(wish)?, Vec::new()),
        Suite::Scale => (scale::run(wish)?, Vec::new()),
        Suite::Size => (size::run(wish)?, Vec::new()),
        Suite::Volumes => (volumes::run(wish)?, Vec::new()),
        Suite::Against => (against::run(wish)?, Vec::new()),
    };
    ensure!(!series.is_empty(), "no setup of {} is called like {:?}", wish.suite.name(), wish.only);
    Ok(Document {
        schema: SCHEMA.to_owned(),
        suite: wish.suite,
        how: wish.how,
        kernel: nix::sys::utsname::uname()?.release().to_string_lossy().into_owned(),
        commit: String::new(),
        processors: std::thread::available_parallelism()?.get(),
        series,
        traces,
    })
}

fn call(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).output().context(program.to_owned())?;
    ensure!(
        output.status.success(),
        "`{program} {}` failed ({}): {}",
        args.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Writes so many MiB of a device, past the page cache: what was never written is read from nowhere.
fn write_all(device: &str, mib: u64) -> Result<()> {
    let (to, count) = (format!("of={device}"), format!("count={mib}"));
    call("dd", &["if=/dev/zero", &to, "bs=1M", "oflag=direct", &count]).map(drop)
}
