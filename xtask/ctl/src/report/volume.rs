// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Which volumes there are, and all that is known of one of them.

use std::collections::BTreeMap;

use atom_abi::request::{op, status};
use atom_payload::latency::{bucket_end_ns, OpLatency};
use atom_payload::shape::PAGE_BYTES;
use atom_payload::shown::{Shown, TargetShown};
use atom_payload::spec::{Source, Target};
use serde::{Deserialize, Serialize};

use super::micros;
use crate::volume::client::{agreed, at, literal};
use crate::volume::target::Agreed;
use crate::volume::wanted::chunk_bytes;

/// What `volume create`, `list` and `destroy` print.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Volumes {
    /// [`Volumes::SCHEMA`].
    pub schema: String,
    /// The volumes.
    pub volumes: Vec<VolumeEntry>,
}

impl Volumes {
    /// Name and version of this document.
    pub const SCHEMA: &'static str = "atom.volumes/1";

    /// The document of these volumes.
    pub fn new(volumes: Vec<VolumeEntry>) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), volumes }
    }
}

/// A volume of the live payload.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VolumeEntry {
    /// Its name.
    pub name: String,
    /// What it is made of: `null`, `ram`, or its layout.
    pub kind: String,
    /// How its sectors lie on its targets.
    #[serde(default)]
    pub layout: String,
    /// What it is made of.
    #[serde(default)]
    pub targets: Vec<String>,
    /// That of its worst target: ready, connecting, retrying or failed.
    #[serde(default)]
    pub state: String,
    /// Its device, such as `/dev/atom0`.
    pub device: String,
    /// Its name as a path, when udev has made it.
    #[serde(default)]
    pub link: Option<String>,
    /// Capacity in bytes.
    pub bytes: u64,
    /// Smallest unit of addressing.
    pub block_bytes: u32,
    /// Hardware queues; 0: one for each CPU.
    pub hw_queues: u16,
    /// Requests per hardware queue; 0: as many as Atom sees fit.
    pub queue_depth: u16,
    /// Bytes that it has in memory.
    pub resident_bytes: u64,
    /// What it has done, by operation; operations that the payload does not count are zero.
    pub done: BTreeMap<String, Work>,
    /// Requests that ended with an error.
    pub errors: u64,
}

/// What a volume has done of one operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Work {
    /// Requests that ended.
    pub ios: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// What `volume name` prints.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NameDocument {
    /// [`NameDocument::SCHEMA`].
    pub schema: String,
    /// Name of the volume.
    pub name: String,
    /// Its device.
    pub device: String,
}

impl NameDocument {
    /// Name and version of this document.
    pub const SCHEMA: &'static str = "atom.volume-name/1";
}

/// What `volume show`, `resize` and `reconnect` print.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VolumeDocument {
    /// [`VolumeDocument::SCHEMA`].
    pub schema: String,
    /// The volume.
    pub volume: VolumeEntry,
    /// Bytes of a chunk of a stripe; null for other layouts.
    pub chunk_bytes: Option<u64>,
    /// Its targets; none when the live payload does not tell of them.
    pub targets: Vec<TargetReport>,
}

/// A target of a volume.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TargetReport {
    /// What it is.
    pub at: String,
    /// `null`, `ram`, `bdev` or `nbd`.
    pub kind: String,
    /// The literal address of a server on TCP.
    pub address: Option<String>,
    /// Bytes of it that the volume uses.
    pub bytes: u64,
    /// Bytes that it has.
    pub capacity_bytes: u64,
    /// Smallest unit of addressing.
    pub block_bytes: u32,
    /// `ready`, `connecting`, `retrying` or `failed`.
    pub state: String,
    /// For how long it has been in this state.
    pub since_us: u64,
    /// What is agreed about it; null when it is not on a network.
    pub terms: Option<TermsReport>,
    /// Connections that serve.
    pub connected: u32,
    /// The connections that are open.
    pub connections: Vec<ConnectionReport>,
    /// Requests that wait for it and were not sent.
    pub waiting: u32,
    /// Connections that were made after one was lost.
    pub reconnects: u64,
    /// Requests that were sent again.
    pub resent: u64,
    /// Answers that broke the protocol.
    pub protocol_errors: u64,
    /// Parts of requests that it has failed.
    pub failures: u64,
    /// Bytes that it has in memory.
    pub resident_bytes: u64,
    /// The last thing that went wrong; empty when nothing did.
    pub last_error: String,
    /// How long it took, by operation; operations that it has not had are missing.
    pub latency: BTreeMap<String, LatencyReport>,
    /// The last parts of requests that it has failed, the oldest first.
    pub last_failures: Vec<FailureReport>,
}

/// What is agreed about a target on a network. A time of 0 is none.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TermsReport {
    /// What becomes of requests when it has failed: `hold` or `error`.
    pub on_failure: String,
    /// Time without a connection after which it counts as failed.
    pub deadline_ms: u32,
    /// Time after which a connection is given up on which nothing happens to the oldest request.
    pub answer_ms: u32,
    /// Longest time between two attempts to connect.
    pub retry_ms: u32,
    /// Attempts in a row after which no more are made; 0: no limit.
    pub retries: u32,
    /// Connections that are wanted.
    pub connections: u32,
    /// Time of silence after which a connection is probed.
    pub keepalive_s: u32,
}

/// One connection of a target.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ConnectionReport {
    /// The local port; 0 for a socket in the file system.
    pub local_port: u16,
    /// How it is.
    pub state: String,
    /// Requests that were sent on it.
    pub sent: u64,
    /// Requests that were answered on it.
    pub answered: u64,
}

/// How long a target took for one operation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LatencyReport {
    /// Parts of requests.
    pub count: u64,
    /// Their mean.
    pub mean_ns: u64,
    /// The longest.
    pub longest_ns: u64,
    /// How many of them have no class, because a payload has counted them that knows none.
    pub unplaced: u64,
    /// Classes with something in them: where each ends, in nanoseconds (null: it has no end), and how many.
    pub classes: Vec<(Option<u64>, u64)>,
}

/// A part of a request that a target has failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FailureReport {
    /// When, since the machine has started.
    pub boot_us: u64,
    /// The operation.
    pub operation: String,
    /// First sector on the target.
    pub sector: u64,
    /// What went wrong.
    pub status: String,
}

impl VolumeDocument {
    /// Name and version of this document.
    pub const SCHEMA: &'static str = "atom.volume/1";

    /// A volume of a payload that tells of its targets.
    pub fn of(volume: VolumeEntry, shown: &Shown<'_>) -> Self {
        let targets = shown.made.targets().zip(shown.targets());
        Self {
            schema: Self::SCHEMA.to_owned(),
            volume,
            chunk_bytes: chunk_bytes(shown.made.layout),
            targets: targets.map(|(target, shown)| TargetReport::of(&target, &shown)).collect(),
        }
    }

    /// A volume of a payload that does not.
    pub fn without_targets(volume: VolumeEntry) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), volume, chunk_bytes: None, targets: Vec::new() }
    }
}

impl TargetReport {
    fn of(target: &Target<'_>, shown: &TargetShown<'_>) -> Self {
        let now = &shown.status;
        let on_network = matches!(target.source, Source::Nbd(_));
        Self {
            at: at(&target.source).to_string(),
            kind: target.source.name().to_owned(),
            address: literal(&target.source),
            bytes: target.sectors.saturating_mul(512),
            capacity_bytes: now.facts.sectors.saturating_mul(512),
            block_bytes: now.facts.logical_block_bytes,
            state: now.state.name().to_owned(),
            since_us: micros(now.since_ns),
            terms: on_network.then(|| TermsReport::of(&agreed(target))),
            connected: now.connections,
            connections: shown
                .connections()
                .map(|one| ConnectionReport {
                    local_port: one.local_port,
                    state: one.state.name().to_owned(),
                    sent: one.sent,
                    answered: one.answered,
                })
                .collect(),
            waiting: now.waiting,
            reconnects: now.reconnects,
            resent: now.resent,
            protocol_errors: now.protocol_errors,
            failures: now.failures,
            resident_bytes: now.pages.saturating_mul(PAGE_BYTES.into()),
            last_error: now.last_error.as_str().to_owned(),
            latency: shown
                .latency()
                .filter(|(_, latency)| latency.count() > 0)
                .map(|(code, latency)| (op::name(code).to_owned(), LatencyReport::of(&latency)))
                .collect(),
            last_failures: shown
                .failures()
                .map(|failure| FailureReport {
                    boot_us: micros(failure.when_ns),
                    operation: op::name(failure.op).to_owned(),
                    sector: failure.sector,
                    status: meaning(failure.status).to_owned(),
                })
                .collect(),
        }
    }
}

impl TermsReport {
    fn of(agreed: &Agreed) -> Self {
        let terms = &agreed.terms;
        Self {
            on_failure: terms.on_failure.name().to_owned(),
            deadline_ms: terms.deadline_ms,
            answer_ms: terms.answer_ms,
            retry_ms: terms.retry_ms,
            retries: terms.retries,
            connections: agreed.connections,
            keepalive_s: agreed.keepalive_s,
        }
    }
}

impl LatencyReport {
    /// What was counted of one operation.
    pub fn of(latency: &OpLatency) -> Self {
        let classes = latency.buckets.iter().enumerate().filter(|(_, count)| **count > 0);
        Self {
            count: latency.count(),
            mean_ns: latency.total_ns.checked_div(latency.count()).unwrap_or(0),
            longest_ns: latency.longest_ns,
            unplaced: latency.unplaced,
            classes: classes.map(|(class, count)| (bucket_end_ns(class), *count)).collect(),
        }
    }
}

/// What a status says.
fn meaning(code: u32) -> &'static str {
    match code {
        status::NOT_SUPPORTED => "not supported",
        status::TIMEOUT => "no answer in time",
        status::NO_SPACE => "no space",
        status::TRANSPORT => "cannot be reached",
        status::MEDIUM => "damaged medium",
        _ => "I/O error",
    }
}
