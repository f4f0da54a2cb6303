// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What an upgrade would do: all of its checks, and nothing else.

use crate::module_file::{check, check_file, ModuleFile, Refused};
use crate::node::Node;
use crate::problem::{Problem, Result};
use crate::report::{Mode, StatusDocument, UpgradePlan, Verdict};

use super::{Options, Plan, Site, Target, Terms, Way};

/// Looks at everything that an upgrade to `target` looks at before it begins. An error means that Atom could not be asked.
pub fn foresee<N: Node>(
    node: &N,
    target: &Target,
    options: &Options,
    terms: &Terms,
) -> Result<UpgradePlan> {
    let site = Site::survey(node)?;
    let devices = node.devices()?;
    let around = StatusDocument::new(&site.release, &site.status, &site.payloads, &devices);
    let mut plan = UpgradePlan {
        schema: UpgradePlan::SCHEMA.to_owned(),
        kernel: site.release.clone(),
        from: site.live().map_or_else(String::new, |live| live.version.as_str().to_owned()),
        to: String::new(),
        file: target.to_string(),
        mode: options.mode,
        ok: true,
        reason: None,
        remedy: None,
        checks: Vec::new(),
        notes: Vec::new(),
        devices: around.devices,
        volumes: Vec::new(),
        opens: around.opens,
        expected_pause: None,
    };
    match look(node, target, options, terms, &site, &mut plan) {
        Ok(()) => {}
        Err(Stop::Refused) => plan.ok = false,
        Err(Stop::Unknown(problem)) => return Err(problem),
    }
    Ok(plan)
}

/// Why nothing more is looked at.
enum Stop {
    /// The upgrade would be refused.
    Refused,
    /// Atom could not be asked.
    Unknown(Problem),
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Self::Unknown(problem)
    }
}

impl UpgradePlan {
    /// Writes down what was found.
    fn found<T>(
        &mut self,
        name: &str,
        found: std::result::Result<T, Refused>,
        detail: impl FnOnce(&T) -> String,
    ) -> std::result::Result<T, Stop> {
        let (ok, detail) = match &found {
            Ok(value) => (true, detail(value)),
            Err(why) => (false, why.to_string()),
        };
        self.checks.push(Verdict { name: name.to_owned(), ok, detail });
        found.map_err(|why| {
            self.reason = Some(why.to_string());
            self.remedy = Some(why.remedy());
            Stop::Refused
        })
    }
}

fn look<N: Node>(
    node: &N,
    target: &Target,
    options: &Options,
    terms: &Terms,
    site: &Site,
    plan: &mut UpgradePlan,
) -> std::result::Result<(), Stop> {
    let refused = |problem: Problem| Refused::situation(problem.in_one_line(), problem.remedy);
    let claim = node.claim().map_err(refused);
    plan.found("alone", claim, |_| "no other atomctl is at work".to_owned()).map(drop)?;

    let file = target.read(&options.places);
    let file = plan.found("file", file, |file| file.path.display().to_string())?;
    plan.to = file.version().to_owned();
    plan.file = file.path.display().to_string();
    let release = &site.release;
    let kernel = check_file(&file, release);
    plan.found("kernel", kernel, |_| format!("built for {}", file.kernel()))?;
    let agreed = check(&file, release, &site.status, None);
    plan.found("interface", agreed, |agreed| {
        format!("ABI {}.{}", site.status.abi.major, agreed.minor)
    })?;
    let reads = check(&file, release, &site.status, site.live());
    plan.found("schema", reads, |_| schemas(&file))?;

    let old = match options.mode {
        Mode::Warm => None,
        Mode::Cold => options.old_file(site),
    };
    let settled = terms.settle(node, site, options.deadline, options.mode)?;
    let settled = plan.found("terms", settled, |settled| {
        let soak = settled.soak.map_or_else(
            || "no soak".to_owned(),
            |soak| format!("a soak of {}", humantime::format_duration(soak.time)),
        );
        format!("{}, {soak}", settled.drain)
    })?;
    plan.notes.extend(settled.notes);

    let way = Plan::new(node, site, file, old, options.keep_parked);
    let way = plan.found("way", way, describe)?;
    if !settled.drain.forsake {
        let volumes = way.check_volumes(node);
        plan.found("volumes", volumes, |()| "the next payload can have them".to_owned())?;
    }
    Ok(())
}

fn schemas(file: &ModuleFile) -> String {
    file.stamp.map_or_else(String::new, |stamp| {
        format!("reads images of {} to {}", stamp.schema.read_min, stamp.schema.read_max)
    })
}

fn describe(plan: &Plan) -> String {
    let live = plan.live.version;
    match &plan.way {
        Way::Warm(way) => {
            let there = if way.candidate.is_some() { "is loaded already" } else { "is inserted" };
            let then = if way.keep_parked { "stays parked" } else { "is unloaded" };
            format!("the new payload {there} beside {live}, which {then} after the switch")
        }
        Way::Cold { old, schema } => format!(
            "{live} is removed first, with an image of schema {schema}; the way back is {}",
            old.path.display()
        ),
    }
}
