// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `atomctl apply`

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::output::Output;
use crate::control::Control;
use crate::problem::{Exit, Problem, Result};
use crate::report::{ApplyDocument, ApplyEntry, ApplyOutcome, ApplyResult, ErrorDocument};
use crate::text;
use crate::volume::file::{self, Listed, MAX_FILE_BYTES};
use crate::volume::machine::{Local, Machine};
use crate::volume::plan::{plan, Circumstances};
use crate::volume::target::At;
use crate::volume::wanted::Wanted;
use crate::volume::{apply, client, Commands};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file of volumes, in TOML.
    file: PathBuf,
    /// Only show what would be done.
    #[arg(long)]
    plan: bool,
    /// Destroy volumes that are not in the file and not in use.
    #[arg(long)]
    prune: bool,
    /// Only volumes over local targets, or only those over a network; the others stay as they are.
    #[arg(long, value_enum, value_name = "WHICH", conflicts_with = "prune")]
    only: Option<Scope>,
}

/// Volumes by what they need of the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(super) enum Scope {
    /// Memory and block devices of this machine.
    Local,
    /// At least one server, be it on this machine.
    Network,
}

impl Scope {
    /// Whether a volume over these targets belongs to it.
    pub(super) fn has<'t>(self, targets: impl IntoIterator<Item = &'t At>) -> bool {
        let needs_server = targets.into_iter().any(|at| matches!(at, At::Nbd(_)));
        needs_server == (self == Self::Network)
    }
}

/// Whether the file has a volume that belongs to `scope`.
pub(super) fn has_any(path: &Path, scope: Scope) -> Result<bool> {
    let listed = read(path)?;
    Ok(listed.iter().any(|one| scope.has(one.volume.targets.iter().map(|target| &target.at))))
}

/// What would have to be done so that the volumes are those of the file. Nothing is changed.
pub(super) fn planned(path: &Path, control: &Control) -> Result<Vec<ApplyEntry>> {
    let wanted: Vec<Wanted> = read(path)?.into_iter().map(|one| one.volume).collect();
    let live = control.live()?;
    let capacity = |at: &At| Local.capacity(at);
    let around = Circumstances {
        payload: &live.version,
        has_client: live.has_client,
        prune: false,
        capacity: &capacity,
    };
    Ok(apply::entries(&plan(&wanted, &client::present(control, &Local)?, &around)))
}

pub(super) fn run(output: &Output, args: &Args) -> Result<Exit> {
    let belongs = |volume: &Wanted| {
        args.only.is_none_or(|scope| scope.has(volume.targets.iter().map(|target| &target.at)))
    };
    let listed = read(&args.file)?.into_iter().map(|one| one.volume);
    let wanted: Vec<Wanted> = listed.filter(belongs).collect();
    let control = Control::open()?;
    let live = control.live()?;
    let capacity = |at: &At| Local.capacity(at);
    let around = Circumstances {
        payload: &live.version,
        has_client: live.has_client,
        prune: args.prune,
        capacity: &capacity,
    };
    let present = match args.prune && !args.plan {
        true => apply::present_unused(&control, &Local, &wanted)?,
        false => client::present(&control, &Local)?,
    };
    let plan = plan(&wanted, &present, &around);
    let mut document = ApplyDocument {
        schema: ApplyDocument::SCHEMA.to_owned(),
        file: args.file.display().to_string(),
        outcome: ApplyOutcome::Planned,
        volumes: apply::entries(&plan),
        problem: None,
    };
    output.first(&document, text::plan);
    let refused = apply::refused(&plan);
    let (problem, outcome) = match (refused, args.plan) {
        (Some(problem), _) => (Some(problem), ApplyOutcome::Refused),
        (None, true) => (None, ApplyOutcome::Planned),
        (None, false) => {
            let told = |entry: &ApplyEntry| output.first(entry, text::step);
            let (volumes, problem) = apply::run(&control, &Local, &plan, told);
            document.volumes = volumes;
            let outcome = match problem {
                Some(_) => ApplyOutcome::Failed,
                None => ApplyOutcome::Done,
            };
            (problem, outcome)
        }
    };
    document.outcome = outcome;
    document.problem = problem.as_ref().map(ErrorDocument::new);
    output.show(&document, text::applied)?;
    let Some(problem) = problem else { return Ok(Exit::Done) };
    output.explain(&problem);
    Ok(ended(&document, &problem))
}

/// How a plan ends that stopped: what was done before it stays.
fn ended(document: &ApplyDocument, problem: &Problem) -> Exit {
    match document.volumes.iter().any(|entry| entry.result == ApplyResult::Done) {
        true if problem.exit == Exit::Refused => Exit::Undone,
        _ => problem.exit,
    }
}

fn read(path: &Path) -> Result<Vec<Listed>> {
    let what = || format!("The volumes of {} are not known", path.display());
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| {
            Problem::usage(what(), error.to_string(), "name a file of volumes in TOML")
        })?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Problem::usage(what(), "it is not UTF-8", "name a file of volumes in TOML"))?;
    file::parse(&text).map_err(|wrong| {
        Problem::usage(
            what(),
            format!("{}, {wrong}", path.display()),
            "correct the file: nothing was changed",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::target::Target;

    #[test]
    fn a_file_that_is_wrong_is_told_with_its_name_and_its_line() {
        let path = std::env::temp_dir().join(format!("atomctl-apply-{}.toml", std::process::id()));
        std::fs::write(&path, "[[volume]]\nname = \"db\"\ntargets = [\"tape\"]\n").unwrap();
        let problem = read(&path).unwrap_err();
        assert_eq!(problem.exit, Exit::Usage);
        let place = format!("{}, line 3, volume db, target 1: ", path.display());
        assert!(problem.why.starts_with(&place), "{}", problem.why);
        std::fs::write(&path, b"\xff").unwrap();
        assert!(read(&path).unwrap_err().why.contains("UTF-8"));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read(&path).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn a_volume_that_needs_a_server_belongs_to_the_network() {
        let targets = |texts: &[&str]| -> Vec<At> {
            texts.iter().map(|text| Target::parse(text).unwrap().at).collect()
        };
        for (texts, scope) in [
            (&["ram:1M", "bdev:/dev/vda"][..], Scope::Local),
            (&["bdev:/dev/vda", "nbd://store/db"], Scope::Network),
            (&["nbd+unix:///db?socket=/run/nbd"], Scope::Network),
        ] {
            let ats = targets(texts);
            for one in [Scope::Local, Scope::Network] {
                assert_eq!(one.has(&ats), one == scope, "{texts:?}");
            }
        }
    }

    #[test]
    fn a_plan_that_stopped_after_something_was_done_was_not_refused() {
        let entry = |result| ApplyEntry {
            name: "db".to_owned(),
            action: "create".to_owned(),
            detail: String::new(),
            result,
            device: None,
        };
        let document = |volumes| ApplyDocument {
            schema: ApplyDocument::SCHEMA.to_owned(),
            file: String::new(),
            outcome: ApplyOutcome::Failed,
            volumes,
            problem: None,
        };
        let problem = Problem::refused("a", "b", "c");
        let failed = entry(ApplyResult::Failed);
        assert_eq!(ended(&document(vec![failed.clone()]), &problem), Exit::Refused);
        let after = document(vec![entry(ApplyResult::Done), failed]);
        assert_eq!(ended(&after, &problem), Exit::Undone);
    }
}
