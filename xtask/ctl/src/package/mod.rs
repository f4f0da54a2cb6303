// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What the scripts of a payload's package ask for. The scripts are one line each; what it means for the node is decided
//! here.
//!
//! | when | what the script calls | what happens |
//! | --- | --- | --- |
//! | before anything is installed | [`coming`] | the payload announces itself |
//! | before a package goes | [`removing`] | refused when its payload is live and nothing takes its place |
//! | after all of the transaction | [`installed`] | the node upgrades, or says why not |

use std::path::PathBuf;

use atom_abi::control::Status;
use atom_abi::lifecycle::Place;

use crate::control::{Control, DEFAULT_DEADLINE};
use crate::failpoint::{meet, Point};
use crate::journal::Origin;
use crate::kmod;
use crate::live;
use crate::module_file::ModuleFile;
use crate::node::{kernel_release, Local};
use crate::places::Places;
use crate::problem::{Problem, Result};
use crate::report::{Mode, UpgradeReport};
use crate::upgrade::{self, Site, Soak, Target, Terms, DEFAULT_STALL};

mod decision;
mod here;
mod kept;
mod transaction;

pub use decision::{Farewell, Installed, Off, Reason, Removing, Serving, System};
pub use here::VARIABLE;
pub use transaction::{Payload, Process};

/// A package, as its scripts name it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Package {
    /// The payload that it has, and for which kernel.
    pub payload: Payload,
    /// The package manager that runs the script, when it says so.
    pub manager: Option<Process>,
}

/// What became of a package that was installed.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The node was to upgrade; how that went.
    Upgraded(Box<UpgradeReport>),
    /// It was not, for this reason.
    NotNow(Reason),
}

/// The package announces itself to those that are installed together with it. When it is about to write over the file of the
/// live payload, that file is kept.
pub fn coming(package: &Package) -> Result<()> {
    if here::system() != System::Running {
        return Ok(());
    }
    if let Some(manager) = package.manager {
        meet(Point::PackageAnnounce)?;
        transaction::announce(manager, package.payload.clone()).map_err(|error| {
            Problem::undone(
                "The other packages of this transaction do not know of this one",
                error.to_string(),
                "check that /run can be written; the last package that is installed decides what runs",
            )
        })?;
    }
    let running = kernel_release()?;
    match live_version() {
        Some(live) if live == package.payload.version && running == package.payload.kernel => {
            keep_live(&running)
        }
        _ => Ok(()),
    }
}

/// Upgrades the node to a payload whose package was installed, or says why not. `is_named`: the operator has named the
/// version.
pub fn installed(package: &Package, is_named: bool) -> Result<Outcome> {
    let release = kernel_release()?;
    let Payload { kernel, version } = &package.payload;
    let configuration = here::switched();
    let places = Places::packaged(&release);
    let together = package.manager.map(transaction::announced).unwrap_or_default();
    let node = Installed {
        version: version.clone(),
        is_named,
        off: configuration.as_ref().err().cloned(),
        system: here::system(),
        serving: serving(version, &places)?,
        together: together
            .into_iter()
            .filter(|other| other.kernel == release && places.read_version(&other.version).is_ok())
            .map(|other| other.version)
            .collect(),
        kernel: kernel.clone(),
        running: release.clone(),
    };
    let outcome = match (node.decide(), configuration) {
        (Ok(()), Ok(configuration)) => {
            let file = places.read_version(version)?;
            let soak = Soak {
                time: configuration.package_soak,
                stall: DEFAULT_STALL,
                max_errors: 0,
                canary: true,
            };
            let options = upgrade::Options {
                mode: Mode::Warm,
                deadline: DEFAULT_DEADLINE,
                keep_parked: false,
                old: None,
                places: Places::standard(&release),
            };
            let terms = Terms { soak: Some(soak), ..Terms::default() };
            let target = Target::File(file.path);
            let node = Local::open()?;
            meet(Point::PackageUpgrade)?;
            let report = upgrade::run_recorded(&node, &target, &options, &terms, Origin::Package)?;
            Outcome::Upgraded(Box::new(report))
        }
        (Ok(()), Err(off)) => Outcome::NotNow(Reason::Off(off)),
        (Err(reason), _) => Outcome::NotNow(reason),
    };
    if node.system == System::Running {
        prune(&release);
    }
    Ok(outcome)
}

/// Says whether a package may go. `is_replaced`: the package manager says that another one of the same name takes its place;
/// that is also known when one has announced itself.
///
/// The error says why it may not; a problem beside that is returned.
pub fn removing(package: &Package, is_replaced: bool) -> Result<Option<Problem>> {
    let release = kernel_release()?;
    let Payload { kernel, version } = &package.payload;
    let others = package.manager.map(transaction::announced).unwrap_or_default();
    let system = here::system();
    let node = Removing {
        version: version.clone(),
        is_replaced: is_replaced || !others.is_empty(),
        system,
        kernel: kernel.clone(),
        live: (system == System::Running).then(live_version).flatten(),
        running: release.clone(),
    };
    match node.decide() {
        Farewell::Go => Ok(None),
        Farewell::Keep => Ok(keep_live(&release).err()),
        Farewell::Stay => Err(Problem::undone(
            format!("The package of payload {version} was not removed"),
            "the payload is live: it serves the devices of this node",
            "upgrade to another version first: install its package, or atomctl upgrade; then remove this one",
        )),
    }
}

/// The live payload's version; none without Atom or a payload.
fn live_version() -> Option<String> {
    let site = site()?;
    site.live().map(|live| live.version.as_str().to_owned())
}

fn site() -> Option<Site> {
    let control = Control::open().ok()?;
    let (status, payloads) = (control.status().ok()?, control.payloads().ok()?);
    Some(Site { release: String::new(), status, payloads })
}

/// What serves, beside `version` in `places`.
fn serving(version: &str, places: &Places) -> Result<Serving> {
    let Ok(control) = Control::open() else { return Ok(Serving::NoAtom) };
    let status: Status = control.status()?;
    let site = Site { release: String::new(), payloads: control.payloads()?, status };
    let Some(live) = site.live() else {
        let waits = [Place::Held.code(), Place::Failing.code()].contains(&site.status.place);
        return Ok(if waits { Serving::Held } else { Serving::Nothing });
    };
    let is_same_build = match live.version.as_str() == version {
        true => places.read_version(version).ok().as_ref().and_then(kept::is_build_of),
        false => None,
    };
    Ok(Serving::Live {
        version: live.version.as_str().to_owned(),
        is_installed: places.read_version(live.version.as_str()).is_ok(),
        is_same_build,
    })
}

/// Keeps a copy of the live payload's file, when the file of its package is the one that was loaded.
fn keep_live(release: &str) -> Result<()> {
    let Some(site) = site() else { return Ok(()) };
    let Some(live) = site.live() else { return Ok(()) };
    let Ok(file) = Places::packaged(release).read(live.module.as_str()) else { return Ok(()) };
    if kept::is_build_of(&file) == Some(false) {
        return Ok(());
    }
    let folder: PathBuf = kept::folder(release);
    kept::keep(&file, &folder).map(|_| ()).map_err(|error| {
        Problem::undone(
            format!("The file of payload {} was not kept", live.version),
            format!("{}: {error}", folder.display()),
            "free some space; without it a cold upgrade has no way back to this payload",
        )
    })
}

/// Removes the copies that are not loaded and not what the next boot loads.
fn prune(release: &str) {
    let committed = live::committed();
    let is_needed = |copy: &ModuleFile| {
        kmod::find(&copy.name).map_or(true, |found| found.is_some())
            || committed.as_deref() == Some(copy.version())
    };
    for packaged in Places::packaged(release).folders() {
        kept::prune(&kept::folder(release), packaged, is_needed);
    }
}
