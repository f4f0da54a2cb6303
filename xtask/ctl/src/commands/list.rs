// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `atomctl list`

use std::path::PathBuf;

use atom_abi::control::{PayloadInfo, Status};

use super::output::Output;
use crate::control::Control;
use crate::kmod;
use crate::module_file::{check, check_file, ModuleFile, Refused};
use crate::node::kernel_release;
use crate::places::Places;
use crate::problem::{Exit, Result};
use crate::report::{Entry, Listing};
use crate::text;

pub(super) fn run(output: &Output, folders: Vec<PathBuf>) -> Result<Exit> {
    output.show(&read(folders)?, text::listing)?;
    Ok(Exit::Done)
}

/// All payloads of this machine.
pub(super) fn read(folders: Vec<PathBuf>) -> Result<Listing> {
    let release = kernel_release()?;
    // Files can be listed before Atom is loaded, and by anybody.
    let atom = match Control::open() {
        Ok(control) => Some((control.status()?, control.payloads()?)),
        Err(_) => None,
    };
    let places = Places::chosen(folders, &release);
    Ok(Listing {
        schema: Listing::SCHEMA.to_owned(),
        payloads: entries(&places, &release, atom.as_ref()),
        kernel: release,
    })
}

fn entries(
    places: &Places,
    release: &str,
    atom: Option<&(Status, Vec<PayloadInfo>)>,
) -> Vec<Entry> {
    let registered = atom.map_or(&[][..], |(_, payloads)| payloads);
    let mut entries: Vec<Entry> = registered
        .iter()
        .map(|payload| {
            Entry::registered(payload).with_build_id(kmod::build_id(payload.module.as_str()))
        })
        .collect();
    let fits = |file: &ModuleFile| match atom {
        Some((status, payloads)) => {
            let live = payloads.iter().find(|payload| payload.id == status.live);
            check(file, release, status, live).map(|_| ())
        }
        None => check_file(file, release).map(|_| ()),
    };
    for path in places.files() {
        let file = match ModuleFile::read(&path) {
            Ok(file) => file,
            Err(why) => {
                entries.push(Entry::unreadable(&path, why.to_string()));
                continue;
            }
        };
        let name = kmod::normalised(&file.name);
        let known = entries.iter_mut().find(|entry| {
            entry.file.is_none()
                && entry.version == file.version()
                && kmod::normalised(&entry.module) == name
        });
        match (known, fits(&file)) {
            (Some(entry), _) => {
                entry.file = Some(path.display().to_string());
                entry.installed = true;
            }
            // Atom itself, and whatever else lies there.
            (None, Err(Refused::NotAPayload { .. })) => {}
            (None, fits) => {
                let problem = fits.err().map(|why| why.to_string());
                entries.push(Entry::installed(&file, problem));
            }
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::module_file::test_file::{live, status, TestFile, KERNEL};
    use crate::report::EntryState;

    #[test]
    fn a_loaded_file_is_listed_once_and_damaged_ones_with_their_problem() {
        let folder = std::env::temp_dir().join(format!("atomctl-list-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).unwrap();
        write("payload_1_0_0.ko", &TestFile::payload("1.0.0").bytes());
        write("payload_1_1_0.ko", &TestFile::payload("1.1.0").bytes());
        write("atom.ko", &TestFile::payload("0").without_stamp().bytes());
        write("broken.ko", b"\x7fELF");
        let places = Places::of(vec![folder.clone()]);

        let found = entries(&places, KERNEL, Some(&(status(), vec![live()])));
        let states: Vec<_> =
            found.iter().map(|entry| (entry.version.as_str(), entry.state)).collect();
        assert_eq!(
            states,
            [
                ("1.0.0", EntryState::Live),
                ("", EntryState::Installed),
                ("1.1.0", EntryState::Installed)
            ]
        );
        assert!(found[0].file.is_some());
        assert!(found[1].problem.is_some());
        assert!(found[2].problem.is_none());

        let elsewhere = entries(&places, "7.3.1", None);
        assert!(elsewhere.iter().all(|entry| entry.problem.is_some()));
        fs::remove_dir_all(&folder).unwrap();
    }
}
