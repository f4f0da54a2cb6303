// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! From a file in memory to a registered payload.

use atom_abi::control::PayloadInfo;

use crate::kmod;
use crate::module_file::ModuleFile;
use crate::node::Node;
use crate::problem::{Problem, Result};

/// The registered payload that was loaded from a file like this one.
pub fn registered<'a>(payloads: &'a [PayloadInfo], file: &ModuleFile) -> Option<&'a PayloadInfo> {
    let name = kmod::normalised(&file.name);
    payloads.iter().find(|payload| {
        payload.version.as_str() == file.version()
            && kmod::normalised(payload.module.as_str()) == name
    })
}

/// Inserts the module and returns the identity under which it registered. On an error the module is
/// not there, unless the error says that it could not be removed. Reads no disk.
pub fn insert_payload<N: Node>(node: &N, file: &ModuleFile) -> Result<u32> {
    if let Err(problem) = node.insert(&file.bytes) {
        return Err(with_refusal(node, file, problem));
    }
    let lost = match node.payloads() {
        Ok(payloads) => match registered(&payloads, file) {
            Some(payload) => return Ok(payload.id),
            None => Problem::refused(
                format!("Module {} was inserted and registered no payload", file.name),
                format!("Atom knows no payload {} from it", file.version()),
                "build the payload so that its init registers with Atom",
            ),
        },
        Err(problem) => problem,
    };
    match node.remove(&file.name) {
        Ok(()) => Err(lost),
        Err(removal) => {
            Err(Problem { why: format!("{}; {}", lost.why, removal.in_one_line()), ..lost })
        }
    }
}

/// Atom's own reason, when it was Atom that refused the module.
fn with_refusal<N: Node>(node: &N, file: &ModuleFile, problem: Problem) -> Problem {
    match node.status() {
        Ok(status) if status.refusal.code != 0 && status.refused.as_str() == file.version() => {
            Problem {
                why: format!("{}; Atom refused it last because {}", problem.why, status.refusal),
                ..problem
            }
        }
        _ => problem,
    }
}
