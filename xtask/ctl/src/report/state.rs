// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What runs, whether it is what it should be, and failures.

use atom_abi::control::{payload_state, DeviceInfo, PayloadInfo, Settings, Status};
use atom_abi::device::feature;
use atom_abi::lifecycle::Place;
use atom_abi::version::{caps, reason, AbiRange};
use serde::{Deserialize, Serialize};

use super::{micros, schema_range, DrainUnderWay, HoldPolicy, LastAttempt, Schemas, SoakUnderWay};
use crate::problem::Problem;

/// What `status` prints.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StatusDocument {
    /// [`StatusDocument::SCHEMA`].
    pub schema: String,
    /// Release of the running kernel.
    pub kernel: String,
    /// Version of Atom.
    pub atom: String,
    /// Where the devices are: `vacant`, `live`, `held` or `failing` when nothing is under way.
    pub place: String,
    /// Versions of the interface, such as `1.0..=1.2`.
    pub abi: String,
    /// Hash of the interface's layout, in hexadecimal.
    pub layout_hash: String,
    /// What Atom offers to payloads.
    pub capabilities: Vec<String>,
    /// The generation that serves.
    pub epoch: u64,
    /// The payload that serves; null when none does.
    pub live: Option<LivePayload>,
    /// Payloads that are registered.
    pub payloads: u32,
    /// The devices.
    pub devices: Vec<StatusDevice>,
    /// Open handles on all devices together.
    pub opens: u32,
    /// Preserved objects.
    pub preserved: u32,
    /// Size of the stored image, 0 when none is.
    pub image_bytes: u64,
    /// Handoffs that were carried out or undone.
    pub handoffs: u64,
    /// Completions that were refused because they came from an older generation.
    pub stale_completions: u64,
    /// How long I/O has been held, 0 when it is served.
    pub held_us: u64,
    /// The payload that was refused last at its registration.
    pub refused: Option<RefusedPayload>,
    /// The soak after the last switch, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soak: Option<SoakUnderWay>,
    /// The drain that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainUnderWay>,
    /// Versions of parked payloads.
    #[serde(default)]
    pub parked: Vec<String>,
    /// Versions of payloads of which nothing is called any more.
    #[serde(default)]
    pub dead: Vec<String>,
    /// What happens when no payload is adopted; null when Atom does not know other ways than holding.
    #[serde(default)]
    pub hold: Option<HoldPolicy>,
    /// The errno of the fallback payload that could not be loaded, 0 when it was not asked for.
    #[serde(default)]
    pub fallback_error: i32,
    /// Size of the live payload's checkpoint, 0 when there is none that could stand in for it.
    #[serde(default)]
    pub checkpoint_bytes: u64,
    /// What has happened since Atom was loaded, counted.
    #[serde(default)]
    pub events: u64,
    /// The last attempt to change what serves, when it has failed and nothing has succeeded since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_attempt: Option<LastAttempt>,
}

/// The payload that serves.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LivePayload {
    /// Its version.
    pub version: String,
    /// Its kernel module.
    pub module: String,
    /// Schemas that it reads and writes.
    pub image_schemas: Schemas,
    /// A task died in it, and nothing of it is called any more: its requests fail or wait.
    #[serde(default)]
    pub dead: bool,
}

/// A payload that Atom refused.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RefusedPayload {
    /// Its version.
    pub version: String,
    /// Why.
    pub reason: String,
}

/// A device.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StatusDevice {
    /// Its name, such as `atom0`.
    pub name: String,
    /// Capacity in bytes.
    pub bytes: u64,
    /// Open handles.
    pub opens: u32,
    /// Hardware queues.
    pub hw_queues: u16,
    /// Requests per hardware queue.
    pub queue_depth: u16,
    /// Requests that the payload owes at this moment.
    pub owed: u32,
    /// What the device is, such as `write-cache`.
    pub features: Vec<String>,
    /// Requests that have ended with an error since the device exists.
    #[serde(default)]
    pub errors: u64,
    /// How long the oldest request has been owed, as far as Atom has seen.
    #[serde(default)]
    pub oldest_owed_us: u64,
}

impl StatusDocument {
    /// Name and version of this document.
    pub const SCHEMA: &'static str = "atom.status/1";

    /// The document of what Atom says about itself.
    pub fn new(
        kernel: &str,
        status: &Status,
        payloads: &[PayloadInfo],
        devices: &[DeviceInfo],
    ) -> Self {
        let live = payloads.iter().find(|payload| status.live != 0 && payload.id == status.live);
        let in_state = |state| {
            let these = payloads.iter().filter(move |payload| payload.state == state);
            these.map(|payload| payload.version.as_str().to_owned()).collect()
        };
        Self {
            schema: Self::SCHEMA.to_owned(),
            kernel: kernel.to_owned(),
            atom: status.version.as_str().to_owned(),
            place: Place::name_of(status.place).to_owned(),
            abi: abi_range(&status.abi),
            layout_hash: format!("{:#018x}", status.layout_hash),
            capabilities: bits(status.provides)
                .map(|bit| match caps::name(bit) {
                    "unknown" => format!("bit {}", bit.trailing_zeros()),
                    name => name.to_owned(),
                })
                .collect(),
            epoch: status.epoch,
            live: live.map(|payload| LivePayload {
                version: payload.version.as_str().to_owned(),
                module: payload.module.as_str().to_owned(),
                image_schemas: schema_range(&payload.schema),
                dead: payload.state == payload_state::DEAD,
            }),
            payloads: status.payloads,
            devices: devices.iter().map(StatusDevice::of).collect(),
            opens: status.opens,
            preserved: status.preserved,
            image_bytes: status.image_bytes,
            handoffs: status.handoffs,
            stale_completions: status.stale_completions,
            held_us: micros(status.held_ns),
            refused: (status.refusal.code != reason::NONE).then(|| RefusedPayload {
                version: status.refused.as_str().to_owned(),
                reason: status.refusal.to_string(),
            }),
            soak: SoakUnderWay::of(status, payloads),
            drain: DrainUnderWay::of(status),
            parked: in_state(payload_state::PARKED),
            dead: in_state(payload_state::DEAD),
            hold: None,
            fallback_error: status.fallback_error,
            checkpoint_bytes: status.checkpoint_bytes,
            events: status.events,
            last_attempt: None,
        }
    }

    /// The same with what Atom does by itself.
    pub fn with_settings(mut self, settings: &Settings) -> Self {
        self.hold = Some(HoldPolicy::of(settings));
        self
    }
}

impl StatusDevice {
    fn of(device: &DeviceInfo) -> Self {
        const NAMES: [(u32, &str); 6] = [
            (feature::WRITE_CACHE, "write-cache"),
            (feature::FUA, "fua"),
            (feature::ROTATIONAL, "rotational"),
            (feature::POLLED, "polled"),
            (feature::SLEEPS, "sleeps"),
            (feature::READ_ONLY, "read-only"),
        ];
        Self {
            name: format!("atom{}", device.id),
            bytes: device.capacity_sectors.saturating_mul(512),
            opens: device.opens,
            hw_queues: device.hw_queues,
            queue_depth: device.queue_depth,
            owed: device.owed,
            features: NAMES
                .iter()
                .filter(|(bit, _)| device.features & bit != 0)
                .map(|(_, name)| (*name).to_owned())
                .collect(),
            errors: device.errors,
            oldest_owed_us: micros(device.oldest_ns),
        }
    }
}

/// `1.0`, or `1.0..=1.2` where several minor versions will do.
pub(super) fn abi_range(abi: &AbiRange) -> String {
    let AbiRange { major, minor_min, minor_max, .. } = abi;
    if minor_min == minor_max {
        format!("{major}.{minor_min}")
    } else {
        format!("{major}.{minor_min}..={major}.{minor_max}")
    }
}

fn bits(set: u64) -> impl Iterator<Item = u64> {
    (0..u64::BITS).map(|shift| 1u64 << shift).filter(move |bit| set & bit != 0)
}

/// What `verify` prints.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Verification {
    /// [`Verification::SCHEMA`].
    pub schema: String,
    /// True when nothing is wrong.
    pub ok: bool,
    /// What was looked at.
    pub checks: Vec<Verdict>,
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// What was looked at.
    pub name: String,
    /// True when nothing is wrong with it.
    pub ok: bool,
    /// What was found.
    pub detail: String,
}

impl Verification {
    /// Name and version of this document.
    pub const SCHEMA: &'static str = "atom.verify/1";

    /// The document of these checks.
    pub fn new(checks: Vec<Verdict>) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), ok: checks.iter().all(|check| check.ok), checks }
    }
}

/// What every command prints when it fails.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ErrorDocument {
    /// [`ErrorDocument::SCHEMA`].
    pub schema: String,
    /// The exit code of the process.
    pub exit_code: u8,
    /// What happened.
    pub what: String,
    /// Why it happened.
    pub why: String,
    /// What to do about it.
    pub remedy: String,
}

impl ErrorDocument {
    /// Name and version of this document.
    pub const SCHEMA: &'static str = "atom.error/1";

    /// The document of a problem.
    pub fn new(problem: &Problem) -> Self {
        Self {
            schema: Self::SCHEMA.to_owned(),
            exit_code: problem.exit.code(),
            what: problem.what.clone(),
            why: problem.why.clone(),
            remedy: problem.remedy.clone(),
        }
    }
}
