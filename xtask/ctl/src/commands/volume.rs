// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `atomctl volume`

use clap::Subcommand;

use super::output::Output;
use crate::control::Control;
use crate::problem::{Exit, Problem, Result};
use crate::quantity::parse_bytes;
use crate::report::Volumes;
use crate::text;
use crate::volume::{self, Create, Kind};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create a volume and its device.
    Create {
        /// Its name.
        name: String,
        /// What it is made of: null or ram.
        #[arg(long, value_parser = parse_kind)]
        kind: Kind,
        /// Its size, such as 64M.
        #[arg(long, value_parser = parse_bytes)]
        size: u64,
        /// Smallest unit of addressing, in bytes: 512 to 4096.
        #[arg(long, default_value_t = 4096)]
        block_size: u32,
        /// Hardware queues; 0: one for each CPU.
        #[arg(long, default_value_t = 0)]
        hw_queues: u16,
        /// Requests per hardware queue; 0: as many as Atom sees fit.
        #[arg(long, default_value_t = 0)]
        queue_depth: u16,
    },
    /// List the volumes.
    List,
    /// Remove a volume, its device and its data.
    Destroy {
        /// Its name.
        name: String,
    },
}

pub(super) fn run(output: &Output, args: &Args) -> Result<Exit> {
    let control = Control::open()?;
    let shown = match &args.verb {
        Verb::Create { name, kind, size, block_size, hw_queues, queue_depth } => {
            volume::create(
                &control,
                &Create {
                    name: volume::name(name)?,
                    kind: *kind,
                    bytes: *size,
                    block_bytes: *block_size,
                    hw_queues: *hw_queues,
                    queue_depth: *queue_depth,
                },
            )?;
            let mut volumes = volume::list(&control)?;
            volumes.retain(|volume| volume.name == *name);
            if volumes.is_empty() {
                return Err(Problem::undone(
                    format!("Volume {name} was created and is not there"),
                    "somebody else may have destroyed it",
                    "look at atomctl volume list",
                ));
            }
            volumes
        }
        Verb::List => volume::list(&control)?,
        Verb::Destroy { name } => {
            volume::destroy(&control, volume::name(name)?)?;
            volume::list(&control)?
        }
    };
    output.show(&Volumes::new(shown), |document, _| text::volumes(document))?;
    Ok(Exit::Done)
}

fn parse_kind(name: &str) -> std::result::Result<Kind, String> {
    volume::kind(name).ok_or_else(|| format!("{name:?} is no kind of volume: use null or ram"))
}
