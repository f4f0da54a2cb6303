// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What an upgrade is going to do: decided while nothing has changed.

use atom_abi::control::{payload_state, PayloadInfo};
use atom_abi::lifecycle::Place;
use atom_abi::version::{common_schema, SchemaRange};

use super::{check, Site};
use crate::kmod;
use crate::module_file::{ModuleFile, Refused};
use crate::node::Node;

/// An upgrade of which everything has been checked that can be checked before it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The payload that serves.
    pub live: PayloadInfo,
    /// The file of the next one.
    pub target: ModuleFile,
    /// How it comes in.
    pub way: Way,
}

/// How the next payload comes in.
#[derive(Clone, Debug)]
pub enum Way {
    /// Beside the old one.
    Warm(Warm),
    /// After the old one is gone.
    Cold {
        /// The file of the old module, for the way back.
        old: Box<ModuleFile>,
        /// The schema of the image: the next payload reads it, and the old one does.
        schema: u32,
    },
}

/// The choices of a warm upgrade.
#[derive(Clone, Copy, Debug)]
pub struct Warm {
    /// The target is registered already, under this identity.
    pub candidate: Option<u32>,
    /// The old payload stays parked.
    pub keep_parked: bool,
}

impl Plan {
    /// Checks the target against the site. `old`, the file of the live payload's module, makes it cold.
    pub fn new<N: Node>(
        node: &N,
        site: &Site,
        target: ModuleFile,
        old: Option<Result<ModuleFile, Refused>>,
        keep_parked: bool,
    ) -> Result<Self, Refused> {
        let live = *site.live().ok_or_else(|| nothing_live(site))?;
        check(&target, &site.release, &site.status, Some(&live))?;
        let way = match old {
            None => Way::Warm(Warm {
                candidate: warm_candidate(node, site, &live, &target)?,
                keep_parked,
            }),
            Some(old) => {
                let old = old?;
                if live.state == payload_state::DEAD {
                    return Err(Refused::situation(
                        format!(
                            "payload {} is dead, and its module cannot be removed",
                            live.version
                        ),
                        "upgrade without --cold, to a module of another name",
                    ));
                }
                check_old(node, site, &live, &old)?;
                check_cold_target(node, site, &live, &target)?;
                let schema = cold_schema(&live, &target)?;
                Way::Cold { old: Box::new(old), schema }
            }
        };
        Ok(Self { live, target, way })
    }

    /// Checks that the next payload can have the volumes of the live one, which is asked for them. Atom could say no more
    /// than that there is no image for them.
    pub(super) fn check_volumes<N: Node>(&self, node: &N) -> Result<(), Refused> {
        let Some(stamp) = &self.target.stamp else {
            return Ok(());
        };
        let beyond = node
            .beyond(stamp.schema.read_max)
            .map_err(|problem| Refused::situation(problem.in_one_line(), problem.remedy))?;
        if beyond.is_empty() {
            return Ok(());
        }
        let (version, names) = (self.target.version(), beyond.join(", "));
        Err(Refused::situation(
            format!("payload {version} has no client, and these volumes need one: {names}"),
            "upgrade to a payload from 2.0.0 on, or destroy these volumes first",
        ))
    }
}

fn nothing_live(site: &Site) -> Refused {
    if site.status.place == Place::Held.code() {
        Refused::situation(
            "no payload is live: Atom holds I/O",
            "let a payload take over: atomctl adopt, or atomctl load FILE",
        )
    } else {
        Refused::situation("no payload is live", "make the first one live with atomctl load FILE")
    }
}

fn warm_candidate<N: Node>(
    node: &N,
    site: &Site,
    live: &PayloadInfo,
    target: &ModuleFile,
) -> Result<Option<u32>, Refused> {
    let version = target.version();
    if live.version.as_str() == version {
        return Err(Refused::situation(
            format!("payload {version} is live already"),
            "replace it by another build of the same version with --cold",
        ));
    }
    let name = kmod::normalised(&target.name);
    let known = site.payloads.iter().find(|payload| payload.version.as_str() == version);
    let Some(known) = known else {
        if is_loaded(node, &name)? {
            return Err(Refused::situation(
                format!("a module named {name} is loaded already, and it is not payload {version}"),
                "unload it, or replace it with --cold if it is the live one",
            ));
        }
        return Ok(None);
    };
    if kmod::normalised(known.module.as_str()) != name || !same_build(node, known, target) {
        return Err(Refused::situation(
            format!(
                "another build of payload {version} is loaded already, as module {}",
                known.module
            ),
            format!("unload it first: atomctl unload {version}"),
        ));
    }
    Ok(Some(known.id))
}

fn check_old<N: Node>(
    node: &N,
    site: &Site,
    live: &PayloadInfo,
    old: &ModuleFile,
) -> Result<(), Refused> {
    check(old, &site.release, &site.status, None)?;
    let fits = kmod::normalised(&old.name) == kmod::normalised(live.module.as_str())
        && old.version() == live.version.as_str()
        && same_build(node, live, old);
    if fits {
        return Ok(());
    }
    Err(Refused::situation(
        format!(
            "{} is not the file of the live payload {} (module {}), so there would be no way back",
            old.path.display(),
            live.version,
            live.module
        ),
        "name the file that the live module was loaded from with --old FILE",
    ))
}

fn check_cold_target<N: Node>(
    node: &N,
    site: &Site,
    live: &PayloadInfo,
    target: &ModuleFile,
) -> Result<(), Refused> {
    let name = kmod::normalised(&target.name);
    let beside_the_live_one = name != kmod::normalised(live.module.as_str());
    let version = target.version();
    let known = site
        .payloads
        .iter()
        .any(|payload| payload.id != live.id && payload.version.as_str() == version);
    if known || (beside_the_live_one && is_loaded(node, &name)?) {
        return Err(Refused::situation(
            format!("module {name} or payload {version} is loaded already"),
            format!("upgrade without --cold, or unload it first: atomctl unload {version}"),
        ));
    }
    Ok(())
}

/// The image must be read by the next payload, and by the old one when it has to come back.
fn cold_schema(live: &PayloadInfo, target: &ModuleFile) -> Result<u32, Refused> {
    let refused = |refusal| Refused::Schema {
        path: target.path.clone(),
        live: live.version.as_str().to_owned(),
        refusal,
    };
    let Some(stamp) = &target.stamp else {
        return Err(Refused::NotAPayload { path: target.path.clone() });
    };
    let both = SchemaRange {
        read_min: stamp.schema.read_min.max(live.schema.read_min),
        read_max: stamp.schema.read_max.min(live.schema.read_max),
        ..stamp.schema
    };
    common_schema(&live.schema, &both).map_err(refused)
}

/// False only when both build ids are known and differ.
fn same_build<N: Node>(node: &N, payload: &PayloadInfo, file: &ModuleFile) -> bool {
    let loaded = node.build_id(payload.module.as_str());
    match (&loaded, &file.build_id) {
        (Some(loaded), Some(file)) => loaded == file,
        _ => true,
    }
}

fn is_loaded<N: Node>(node: &N, name: &str) -> Result<bool, Refused> {
    node.is_loaded(name)
        .map_err(|problem| Refused::situation(problem.in_one_line(), problem.remedy))
}
