// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `cargo xtask fleet`: plans, upgrades, proves and rolls back many nodes, with Ansible.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::fleet::ansible::{Ansible, Output, Run};
use crate::fleet::wishes::{batch, Amount, Wishes};
use crate::places;
use crate::sysroot::Target;

/// Drives many nodes with Ansible: canary first, then batches that grow.
///
/// Exit codes: 0 done on every node; 1 not on every node, see the summary; 2 wrong usage; 3 refused before anything
/// changed; 4 a node holds I/O and needs somebody at once.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Say for each node what an upgrade would do. Changes nothing.
    Plan(Plan),
    /// Install Atom, its tools and a first payload on machines.
    Prepare(Prepare),
    /// Upgrade all nodes, or go on with an upgrade that was stopped or interrupted.
    Upgrade(Upgrade),
    /// Prove on each node what serves, and that it is what is on the disk.
    Verify(Verify),
    /// Take every node that the last rollout has touched back to the version that it had.
    Rollback(Rollback),
    /// Show what serves on each node.
    Status(Status),
}

/// Which nodes, and what is printed.
#[derive(Clone, clap::Args)]
struct Common {
    /// The nodes, as Ansible reads them.
    #[arg(long, value_name = "FILE")]
    inventory: PathBuf,
    /// Only these nodes: names, groups or patterns of Ansible's.
    #[arg(long, value_name = "PATTERN")]
    limit: Option<String>,
    /// So many nodes at a time, within a batch.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    forks: u32,
    /// Print one JSON document, atom.fleet-report/1, and nothing else on standard output.
    #[arg(long)]
    json: bool,
    /// Write the document into this file too.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Show each task, as Ansible does by itself.
    #[arg(long)]
    verbose: bool,
}

/// The software that is brought to the nodes.
#[derive(Clone, clap::Args)]
struct Software {
    /// Install packages from this folder on the nodes first.
    #[arg(long, value_name = "DIR", conflicts_with = "files")]
    packages: Option<PathBuf>,
    /// Copy modules and atomctl from this folder to the nodes first.
    #[arg(long, value_name = "DIR")]
    files: Option<PathBuf>,
}

#[derive(Clone, clap::Args)]
struct Plan {
    #[command(flatten)]
    common: Common,
    /// The version that shall serve.
    #[arg(long)]
    version: String,
}

#[derive(Clone, clap::Args)]
struct Prepare {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    software: Software,
    /// The payload that is loaded where none serves.
    #[arg(long)]
    version: Option<String>,
}

#[derive(Clone, clap::Args)]
struct Upgrade {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    software: Software,
    /// The version that shall serve.
    #[arg(long)]
    version: String,
    /// So many nodes are upgraded first; when one of them fails, no other is touched.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    canary: u32,
    /// The batches after the canary, as numbers of nodes or shares of all. The last one is repeated.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "25%,100%", value_parser = batch)]
    batches: Vec<Amount>,
    /// Stop when more nodes than this have failed.
    #[arg(long, value_name = "N|P%", default_value = "0")]
    max_failures: Amount,
    /// Watch each node for this time before its upgrade is committed.
    #[arg(long, value_name = "TIME", default_value = "30s")]
    soak: String,
    /// How long requests may take to end at the switch.
    #[arg(long, value_name = "TIME")]
    deadline: Option<String>,
    /// Try an upgrade that failed and was undone so many times again.
    #[arg(long, value_name = "N", default_value_t = 1)]
    retries: u32,
    /// Keep the old payload loaded, so that going back is one switch.
    #[arg(long)]
    keep_parked: bool,
    #[command(flatten)]
    record: Record,
}

#[derive(Clone, clap::Args)]
struct Verify {
    #[command(flatten)]
    common: Common,
    /// The version that shall serve; any if not given.
    #[arg(long)]
    version: Option<String>,
}

#[derive(Clone, clap::Args)]
struct Rollback {
    #[command(flatten)]
    common: Common,
    /// Watch each node for this time before the way back is committed.
    #[arg(long, value_name = "TIME")]
    soak: Option<String>,
    #[command(flatten)]
    record: Record,
}

#[derive(Clone, clap::Args)]
struct Status {
    #[command(flatten)]
    common: Common,
}

/// The record of the rollout.
#[derive(Clone, clap::Args)]
struct Record {
    /// What was touched is recorded in this file; atom-rollout.json beside the inventory if not given.
    #[arg(long, value_name = "FILE")]
    rollout: Option<PathBuf>,
}

impl Verb {
    /// The options that all have, and the run.
    fn run(&self) -> (&Common, Run) {
        let run = |verb, common: &Common, wishes| Run {
            verb,
            inventory: common.inventory.clone(),
            limit: common.limit.clone(),
            forks: common.forks,
            verbose: common.verbose,
            output: if common.json { Output::Stderr } else { Output::Terminal },
            wishes,
            packages: None,
            files: None,
            rollout: None,
        };
        let none = Wishes::default();
        match self {
            Self::Plan(plan) => {
                let wishes = Wishes { version: Some(plan.version.clone()), ..none };
                (&plan.common, run("plan", &plan.common, wishes))
            }
            Self::Prepare(prepare) => {
                let wishes = Wishes {
                    version: prepare.version.clone(),
                    first: prepare.version.clone(),
                    ..none
                };
                let Software { packages, files } = prepare.software.clone();
                (
                    &prepare.common,
                    Run { packages, files, ..run("prepare", &prepare.common, wishes) },
                )
            }
            Self::Upgrade(upgrade) => {
                let wishes = Wishes {
                    version: Some(upgrade.version.clone()),
                    canary: Some(upgrade.canary),
                    batches: upgrade.batches.iter().map(Amount::to_string).collect(),
                    max_failures: Some(upgrade.max_failures.to_string()),
                    soak: Some(upgrade.soak.clone()),
                    deadline: upgrade.deadline.clone(),
                    retries: Some(upgrade.retries),
                    keep_parked: upgrade.keep_parked,
                    ..none
                };
                let Software { packages, files } = upgrade.software.clone();
                let rollout = upgrade.record.rollout.clone();
                let base = run("upgrade", &upgrade.common, wishes);
                (&upgrade.common, Run { packages, files, rollout, ..base })
            }
            Self::Verify(verify) => {
                let wishes = Wishes { version: verify.version.clone(), ..none };
                (&verify.common, run("verify", &verify.common, wishes))
            }
            Self::Rollback(back) => {
                let wishes = Wishes { soak: back.soak.clone(), ..none };
                let base = run("rollback", &back.common, wishes);
                (&back.common, Run { rollout: back.record.rollout.clone(), ..base })
            }
            Self::Status(status) => (&status.common, run("status", &status.common, none)),
        }
    }
}

pub fn run(args: &Args, target: &Target) -> Result<ExitCode> {
    let (common, run) = args.verb.run();
    let report = run.run(&Ansible::find(target)?)?;
    let text = report.text()?;
    if let Some(path) = &common.report {
        places::write_whole(path, text.as_bytes())?;
    }
    if common.json {
        print!("{text}");
    }
    Ok(ExitCode::from(report.exit_code()))
}
