// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What has begun and not ended.

use atom_abi::control::{stage, PayloadInfo, Status};
use serde::{Deserialize, Serialize};

use super::micros;

/// A soak.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SoakUnderWay {
    /// Time until Atom switches back without a commit.
    pub left_us: u64,
    /// Version of the payload to which a switch goes back.
    pub parked: String,
}

impl SoakUnderWay {
    /// The soak of this state.
    pub fn of(status: &Status, payloads: &[PayloadInfo]) -> Option<Self> {
        let parked = payloads.iter().find(|payload| payload.id == status.parked);
        (status.parked != 0).then(|| Self {
            left_us: micros(status.soak_left_ns),
            parked: parked.map(|parked| parked.version.as_str().to_owned()).unwrap_or_default(),
        })
    }
}

/// A drain.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DrainUnderWay {
    /// What is waited for: `background`, `data` or `flushes`.
    pub stage: String,
    /// How much of it is outstanding.
    pub outstanding: u32,
}

impl DrainUnderWay {
    /// The drain of this state.
    pub fn of(status: &Status) -> Option<Self> {
        let index = usize::try_from(status.stage).ok()?.checked_sub(1)?;
        let stage = stage::NAMES.get(index).copied().unwrap_or("unknown").to_owned();
        Some(Self { stage, outstanding: status.outstanding })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module_file::test_file::{live, status};

    #[test]
    fn nothing_is_under_way_on_a_machine_at_rest() {
        assert_eq!(DrainUnderWay::of(&status()), None);
        assert_eq!(SoakUnderWay::of(&status(), &[live()]), None);
    }

    #[test]
    fn a_drain_is_named_by_its_stage_and_a_soak_by_its_way_back() {
        let busy = Status {
            stage: stage::FLUSHES as u32 + 1,
            outstanding: 4,
            parked: 1,
            soak_left_ns: 2_000,
            ..status()
        };
        let drain = DrainUnderWay { stage: "flushes".to_owned(), outstanding: 4 };
        assert_eq!(DrainUnderWay::of(&busy), Some(drain));
        let soak = SoakUnderWay { left_us: 2, parked: "1.0.0".to_owned() };
        assert_eq!(SoakUnderWay::of(&busy, &[live()]), Some(soak));
    }
}
