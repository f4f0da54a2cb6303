// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Kernel modules: insert from memory, remove, and what is loaded.

use std::ffi::CString;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::kmod::{delete_module, init_module, DeleteModuleFlags};

use crate::module_file::note;
use crate::problem::{Problem, Result};

const PROC_MODULES: &str = "/proc/modules";

/// A loaded module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loaded {
    /// Its name.
    pub name: String,
    /// References on it; none when the kernel does not count them.
    pub references: Option<u64>,
    /// Modules that use it.
    pub holders: Vec<String>,
    /// Somebody removes it, and its exit has not returned.
    pub going: bool,
}

/// How long a module is waited for that somebody else removes.
const GOING: Duration = Duration::from_secs(5);
/// How often it is looked for: the kernel tells nobody.
const LOOK: Duration = Duration::from_millis(10);

/// Inserts a module whose file is in memory. Touches no disk.
pub fn insert(image: &[u8], params: &str) -> Result<()> {
    let params = c_string("the module parameters", params)?;
    init_module(image, &params).map_err(|errno| {
        let (why, remedy) = match errno {
            Errno::EPERM => (
                "CAP_SYS_MODULE is missing, or loading modules is locked down",
                "run this as root; check /proc/sys/kernel/modules_disabled and Secure Boot's lockdown",
            ),
            Errno::EEXIST => (
                "a module of this name, or a payload of this version, is there already",
                "atomctl list shows it; atomctl unload removes it; --cold replaces a module of the same name",
            ),
            Errno::ENOEXEC => (
                "the kernel does not accept the file: it was built for another kernel or is damaged",
                "build it for the running kernel and read the kernel log (dmesg)",
            ),
            Errno::ENOENT => (
                "a symbol that the module needs is missing",
                "load atom.ko of the same release first and read the kernel log (dmesg)",
            ),
            Errno::EKEYREJECTED | Errno::ENOKEY | Errno::EBADMSG => (
                "the kernel does not accept the module's signature",
                "sign the module with a key that the kernel trusts",
            ),
            Errno::EPROTO => (
                "Atom refused the payload",
                "atomctl status shows why it was refused",
            ),
            Errno::ENOMEM => ("memory is short", "free memory and try again"),
            _ => (errno.desc(), "read the kernel log (dmesg)"),
        };
        Problem::refused("The module could not be inserted", why, remedy)
    })
}

/// Removes a module, without waiting for whoever uses it. One that is not loaded is removed already. One that somebody else is
/// removing, as `rmmod -f` does, is waited for: it goes as soon as nobody uses it.
pub fn remove(name: &str) -> Result<()> {
    let c_name = c_string("the name of the module", name)?;
    let removed = delete_module(&c_name, DeleteModuleFlags::O_NONBLOCK);
    if removed == Err(Errno::ENOENT) {
        return Ok(());
    }
    let begun = Instant::now();
    while removed == Err(Errno::EBUSY) && begun.elapsed() < GOING {
        match find(name)? {
            None => return Ok(()),
            Some(module) if module.going => thread::sleep(LOOK),
            Some(_) => break,
        }
    }
    removed.map_err(|errno| {
        let what = format!("Module {name} could not be removed");
        match errno {
            Errno::EBUSY | Errno::EWOULDBLOCK => Problem::refused(
                what,
                "it is in use: Atom keeps a reference on the live payload, and on a candidate while a handoff is under way",
                "if a handoff is under way, try again when it has ended; a live payload can go after an upgrade to another \
                 one, or when the devices are abandoned (their I/O is then held)",
            ),
            Errno::EPERM => Problem::refused(what, "CAP_SYS_MODULE is missing", "run this as root"),
            _ => Problem::refused(what, errno.desc(), "read the kernel log (dmesg)"),
        }
    })
}

/// Whether somebody removes the module, and its exit has not returned.
pub fn is_going(name: &str) -> Result<bool> {
    Ok(find(name)?.is_some_and(|module| module.going))
}

/// Everything that is loaded.
pub fn loaded() -> Result<Vec<Loaded>> {
    match fs::read_to_string(PROC_MODULES) {
        Ok(text) => Ok(parse(&text)),
        Err(error) => Err(Problem::refused(
            format!("{PROC_MODULES} could not be read"),
            error.to_string(),
            "check that /proc is mounted and that the kernel supports modules",
        )),
    }
}

/// The loaded module of this name.
pub fn find(name: &str) -> Result<Option<Loaded>> {
    let name = normalised(name);
    Ok(loaded()?.into_iter().find(|module| module.name == name))
}

/// The build id of a loaded module.
pub fn build_id(name: &str) -> Option<Vec<u8>> {
    let notes = Path::new("/sys/module").join(normalised(name)).join("notes");
    let bytes = fs::read(notes.join(note::BUILD_ID_SECTION)).ok()?;
    note::build_id(&bytes)
}

/// The checksum of its sources that a loaded module was built with, where the kernel keeps it.
pub fn source_version(name: &str) -> Option<String> {
    let path = Path::new("/sys/module").join(normalised(name)).join("srcversion");
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// The name that the kernel gives to a module: a dash in a file's name becomes an underscore.
pub fn normalised(name: &str) -> String {
    name.replace('-', "_")
}

fn parse(text: &str) -> Vec<Loaded> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let name = words.next()?.to_owned();
            let references = words.nth(1).and_then(|count| count.parse().ok());
            let holders = words
                .next()
                .unwrap_or("-")
                .split(',')
                .filter(|holder| !holder.is_empty() && *holder != "-")
                .map(str::to_owned)
                .collect();
            let going = words.next() == Some("Unloading");
            Some(Loaded { name, references, holders, going })
        })
        .collect()
}

fn c_string(what: &str, text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| {
        Problem::usage(
            format!("{text:?} cannot be handed to the kernel"),
            format!("{what} must not contain a zero byte"),
            "leave the zero byte out",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_and_holders_are_read_from_the_kernels_list() {
        let text = "payload_1_0_0 49152 1 - Unloading 0x0000000000000000 (OE)\n\
                    atom 65536 3 payload_1_1_0,payload_1_0_0, Live 0x0 (OE)\n\
                    odd 1 - - Live 0x0\n\n";
        let modules = parse(text);
        assert_eq!(modules.len(), 3);
        assert_eq!(modules[0].references, Some(1));
        assert!(modules[0].holders.is_empty() && modules[0].going);
        assert_eq!(modules[1].holders, ["payload_1_1_0", "payload_1_0_0"]);
        assert!(!modules[1].going);
        assert_eq!(modules[2].references, None);
    }

    #[test]
    fn a_dash_in_a_file_name_is_an_underscore_in_the_kernel() {
        assert_eq!(normalised("payload-1_0"), "payload_1_0");
    }

    #[test]
    fn parameters_with_a_zero_byte_never_reach_the_kernel() {
        assert_eq!(insert(b"", "a\0b").unwrap_err().exit, crate::problem::Exit::Usage);
    }
}
