// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `atomctl verify`

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use atom_abi::control::{payload_state, DeviceInfo, PayloadInfo, Report, Status};
use atom_abi::lifecycle::Place;

mod package;
mod volumes;

use super::output::Output;
use crate::control::Control;
use crate::kmod;
use crate::module_file::{check, ModuleFile};
use crate::node::kernel_release;
use crate::places::Places;
use crate::problem::{Exit, Result};
use crate::report::{hex, Verdict, Verification};
use crate::text;

const ATOM: &str = "atom";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file that should be live; searched in the known folders if not given.
    file: Option<PathBuf>,
}

pub(super) fn run(output: &Output, args: &Args, folders: Vec<PathBuf>) -> Result<Exit> {
    let control = Control::open()?;
    let release = kernel_release()?;
    let status = control.status()?;
    let payloads = control.payloads()?;
    let live = payloads.iter().find(|payload| status.live != 0 && payload.id == status.live);
    let mut checks =
        vec![check_place(&status), check_alive(live), check_inverses(&control.reports()?)];
    let devices = control.devices()?;
    checks.push(check_handles(&status, &devices));
    checks.extend(devices.iter().map(check_device));
    checks.extend(volumes::check_volumes(&control));
    let places = Places::chosen(folders, &release);
    checks.extend(check_atom(&places));
    if let Some(live) = live {
        let file = match &args.file {
            Some(path) => ModuleFile::read(path),
            None => places.read(live.module.as_str()),
        };
        match file {
            Ok(file) => {
                let build_id = kmod::build_id(live.module.as_str());
                let fits = check(&file, &release, &status, None).map(|_| ());
                checks.push(verdict(
                    "file fits",
                    fits.is_ok(),
                    fits.err()
                        .map_or_else(|| file.path.display().to_string(), |why| why.to_string()),
                ));
                checks.extend(check_live(live, &file, build_id.as_deref()));
                checks.extend(check_source(&file, kmod::source_version(live.module.as_str())));
                checks.push(package::check_package(&file.path));
            }
            Err(why) => checks.push(verdict("file", false, why.to_string())),
        }
    }
    let document = Verification::new(checks);
    output.show(&document, text::verification)?;
    Ok(match status.place {
        place if [Place::Held.code(), Place::Failing.code()].contains(&place) => Exit::Attention,
        _ if document.ok => Exit::Done,
        _ => Exit::Undone,
    })
}

fn verdict(name: &str, ok: bool, detail: impl Into<String>) -> Verdict {
    Verdict { name: name.to_owned(), ok, detail: detail.into() }
}

fn check_place(status: &Status) -> Verdict {
    let detail = match Place::name_of(status.place) {
        "live" => "a payload is live".to_owned(),
        "held" => {
            "no payload is live and I/O is held: atomctl adopt, or atomctl load FILE".to_owned()
        }
        "failing" => {
            "no payload is live and I/O fails: atomctl adopt, or atomctl load FILE".to_owned()
        }
        other => format!("no payload is live ({other}): atomctl load FILE"),
    };
    verdict("state", status.place == Place::Live.code(), detail)
}

fn check_alive(live: Option<&PayloadInfo>) -> Verdict {
    let dead = live.is_some_and(|live| live.state == payload_state::DEAD);
    let detail = match dead {
        true => "a task died in the live payload: atomctl upgrade FILE replaces it",
        false => "no task has died in the live payload",
    };
    verdict("alive", !dead, detail)
}

fn check_inverses(reports: &[Report]) -> Verdict {
    let errors: u64 = reports.iter().map(|report| u64::from(report.inverse_errors)).sum();
    verdict(
        "handoffs",
        errors == 0,
        format!("{} kept, {errors} errors of steps that must not fail", reports.len()),
    )
}

fn check_handles(status: &Status, devices: &[DeviceInfo]) -> Verdict {
    let sum: u64 = devices.iter().map(|device| u64::from(device.opens)).sum();
    let detail = format!("{sum} open handles on {} devices", devices.len());
    match sum == u64::from(status.opens) {
        true => verdict("handles", true, detail),
        false => verdict("handles", false, format!("{detail}, Atom says {}", status.opens)),
    }
}

/// Atom itself, when its file is where modules are installed.
fn check_atom(places: &Places) -> Option<Verdict> {
    let file = ModuleFile::read(&places.find(ATOM)?).ok()?;
    let (loaded, of_file) = (kmod::build_id(ATOM)?, file.build_id?);
    let detail = format!("loaded {}, file {}", hex(&loaded), hex(&of_file));
    Some(verdict("atom build id", loaded == of_file, detail))
}

/// The checksum that the build made of the sources, where the kernel keeps it.
fn check_source(file: &ModuleFile, loaded: Option<String>) -> Option<Verdict> {
    let (loaded, of_file) = (loaded?, file.source_version.as_ref()?);
    let detail = format!("live {loaded}, file {of_file}");
    Some(verdict("source version", &loaded == of_file, detail))
}

fn check_device(device: &DeviceInfo) -> Verdict {
    let name = format!("atom{}", device.id);
    let node = Path::new("/dev").join(&name);
    let is_block = fs::metadata(&node).is_ok_and(|facts| facts.file_type().is_block_device());
    let sectors = fs::read_to_string(Path::new("/sys/block").join(&name).join("size"))
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok());
    let detail = match sectors {
        _ if !is_block => format!("{} is missing or no block device", node.display()),
        None => "the kernel does not know it".to_owned(),
        Some(sectors) => format!("{sectors} sectors, Atom says {}", device.capacity_sectors),
    };
    verdict(&name, is_block && sectors == Some(device.capacity_sectors), detail)
}

fn check_live(live: &PayloadInfo, file: &ModuleFile, loaded: Option<&[u8]>) -> Vec<Verdict> {
    let schema = file.stamp.map(|stamp| stamp.schema);
    let mut checks = vec![
        verdict(
            "version",
            live.version.as_str() == file.version(),
            format!("live {}, file {}", live.version, file.version()),
        ),
        verdict(
            "module",
            kmod::normalised(live.module.as_str()) == kmod::normalised(&file.name),
            format!("live {}, file {}", live.module, file.name),
        ),
        verdict(
            "schemas",
            schema == Some(live.schema),
            if schema == Some(live.schema) { "as in the file" } else { "not as in the file" },
        ),
    ];
    if let (Some(loaded), Some(of_file)) = (loaded, file.build_id.as_deref()) {
        checks.push(verdict(
            "build id",
            loaded == of_file,
            format!("live {}, file {}", hex(loaded), hex(of_file)),
        ));
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module_file::test_file::{live, status, TestFile};

    #[test]
    fn the_file_of_the_live_payload_passes_and_another_build_does_not() {
        let file = TestFile::payload("1.0.0").parse().unwrap();
        let all_ok = |id: &[u8]| check_live(&live(), &file, Some(id)).iter().all(|check| check.ok);
        assert!(all_ok(&[0xab; 20]));
        assert!(!all_ok(&[0xac; 20]));
    }

    #[test]
    fn another_version_does_not_pass() {
        let file = TestFile::payload("1.1.0").parse().unwrap();
        let wrong: Vec<_> = check_live(&live(), &file, None)
            .into_iter()
            .filter(|check| !check.ok)
            .map(|check| check.name)
            .collect();
        assert_eq!(wrong, ["version", "module"]);
    }

    #[test]
    fn another_source_does_not_pass_and_one_that_nobody_knows_is_not_looked_at() {
        let mut file = TestFile::payload("1.0.0").parse().unwrap();
        file.source_version = Some("A1".to_owned());
        assert!(check_source(&file, Some("A1".to_owned())).unwrap().ok);
        assert!(!check_source(&file, Some("B2".to_owned())).unwrap().ok);
        assert_eq!(check_source(&file, None), None);
    }

    #[test]
    fn handles_that_no_device_has_do_not_pass() {
        let device = DeviceInfo { opens: 2, ..crate::blank::DEVICE };
        let status = |opens| Status { opens, ..status() };
        assert!(check_handles(&status(4), &[device, device]).ok);
        assert!(!check_handles(&status(5), &[device, device]).ok);
    }

    #[test]
    fn held_io_does_not_pass() {
        assert!(check_place(&status()).ok);
        let held = Status { place: Place::Held.code(), ..status() };
        assert!(!check_place(&held).ok);
        let failing = Status { place: Place::Failing.code(), ..status() };
        assert!(check_place(&failing).detail.contains("fails"));
    }

    #[test]
    fn a_dead_payload_does_not_pass() {
        let dead = PayloadInfo { state: payload_state::DEAD, ..live() };
        assert!(check_alive(Some(&live())).ok && check_alive(None).ok);
        assert!(!check_alive(Some(&dead)).ok);
    }
}
