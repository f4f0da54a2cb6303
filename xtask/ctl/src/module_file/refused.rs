// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Why a module's file is refused. Nothing has changed when one of these comes up.

use std::path::PathBuf;

use atom_abi::version::{reason, Refusal};
use thiserror::Error;

use crate::problem::Problem;

/// Why a module's file is refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Refused {
    /// The file cannot be read.
    #[error("{} could not be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Something else than an ELF file.
    #[error("{} is no ELF file", path.display())]
    NotElf {
        /// The file.
        path: PathBuf,
    },
    /// The end of the file is missing.
    #[error("{} is cut short: {why}", path.display())]
    CutShort {
        /// The file.
        path: PathBuf,
        /// What lies beyond its end.
        why: String,
    },
    /// The file contradicts itself.
    #[error("{} is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What cannot be read.
        why: String,
    },
    /// An ELF file, but no kernel module.
    #[error("{} is no kernel module: {why}", path.display())]
    NotAModule {
        /// The file.
        path: PathBuf,
        /// What is missing.
        why: String,
    },
    /// A kernel module, but no payload.
    #[error("{} is a kernel module, but no payload of Atom: it has no stamp", path.display())]
    NotAPayload {
        /// The file.
        path: PathBuf,
    },
    /// The stamp cannot be read.
    #[error("the stamp of {} cannot be read: {why}", path.display())]
    BadStamp {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Built for another kernel.
    #[error("{} was built for kernel {built_for}, this machine runs {running}", path.display())]
    OtherKernel {
        /// The file.
        path: PathBuf,
        /// The release that the file names.
        built_for: String,
        /// The release that runs.
        running: String,
    },
    /// Atom and the payload cannot work together.
    #[error("{} does not fit the loaded Atom: {refusal}", path.display())]
    Negotiation {
        /// The file.
        path: PathBuf,
        /// What the negotiation said.
        refusal: Refusal,
    },
    /// The payload does not read what the live one writes.
    #[error("{} cannot take over from payload {live}: {refusal}", path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// Version of the live payload.
        live: String,
        /// What the negotiation said.
        refusal: Refusal,
    },
    /// The state of the machine does not allow it.
    #[error("{why}")]
    Situation {
        /// What stands in the way.
        why: String,
        /// What to do about it.
        remedy: String,
    },
}

impl Refused {
    /// A refusal for the state that the machine is in.
    pub fn situation(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Situation { why: why.into(), remedy: remedy.into() }
    }

    /// What to do about it.
    pub fn remedy(&self) -> String {
        let remedy = match self {
            Self::Unreadable { .. } => "check the path and the permissions",
            Self::NotElf { .. } => {
                "give a payload_<version>.ko; a compressed module must be unpacked first"
            }
            Self::CutShort { .. } | Self::Damaged { .. } | Self::BadStamp { .. } => {
                "copy or build the file again"
            }
            Self::NotAModule { .. } | Self::NotAPayload { .. } => "give a payload_<version>.ko",
            Self::OtherKernel { .. } => "build the payload for the kernel that runs",
            Self::Negotiation { refusal, .. } if refusal.code == reason::ABI_MINOR => {
                "install a newer Atom, or an older payload"
            }
            Self::Negotiation { .. } => "use a payload that was built against the ABI of this Atom",
            Self::Schema { .. } => "go through a version in between that knows both schemas",
            Self::Situation { remedy, .. } => remedy,
        };
        remedy.to_owned()
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        Problem::refused(
            "The payload was refused, nothing has changed",
            refused.to_string(),
            refused.remedy(),
        )
    }
}
