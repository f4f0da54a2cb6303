// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What is to be thought of a payload that soaks. Pure.

use std::collections::BTreeMap;

use atom_abi::control::{cause, payload_state, DeviceInfo, PayloadInfo, Report, Status};

/// Requests that have ended with an error, by device.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct Errors(BTreeMap<u32, u64>);

impl Errors {
    /// Those that the devices have counted so far.
    pub(super) fn of(devices: &[DeviceInfo]) -> Self {
        Self(devices.iter().map(|device| (device.id, device.errors)).collect())
    }

    /// What was added since. A device that is new counts from its beginning, and so does one that got the
    /// number of another one.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let grown = self.0.iter().map(|(device, errors)| {
            let before = earlier.0.get(device).filter(|before| *before <= errors);
            (*device, errors.saturating_sub(before.copied().unwrap_or(0)))
        });
        Self(grown.filter(|(_, errors)| *errors != 0).collect())
    }

    /// True when no request has failed.
    pub(super) fn is_none(&self) -> bool {
        self.0.values().all(|errors| *errors == 0)
    }

    /// The first device with more errors than in an equal time before, and `more` besides.
    pub(super) fn beyond(&self, before: &Self, more: u64) -> Option<String> {
        self.0.iter().find_map(|(device, errors)| {
            let usual = before.0.get(device).copied().unwrap_or(0);
            (*errors > usual.saturating_add(more)).then(|| {
                format!("{errors} requests of atom{device} failed, {usual} in an equal time before")
            })
        })
    }

    /// The same by the names of the devices.
    pub(super) fn by_name(&self) -> BTreeMap<String, u64> {
        let some = self.0.iter().filter(|(_, errors)| **errors != 0);
        some.map(|(device, errors)| (format!("atom{device}"), *errors)).collect()
    }
}

/// What has become of a soak.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Course {
    /// It goes on.
    Soaking,
    /// Somebody has committed.
    Committed,
    /// The old payload serves again.
    Back,
    /// The new one serves, and is dead.
    Dead,
    /// Another payload serves, or none.
    Elsewhere,
}

/// What has become of the soak of `new`, from which a switch goes back to `old`.
pub(super) fn course(status: &Status, payloads: &[PayloadInfo], old: u32, new: u32) -> Course {
    match status.live {
        live if live == new && is_dead(payloads, new) => Course::Dead,
        live if live == new && status.parked == 0 => Course::Committed,
        live if live == new => Course::Soaking,
        live if live == old => Course::Back,
        _ => Course::Elsewhere,
    }
}

/// True when nothing of the payload is called any more.
pub(super) fn is_dead(payloads: &[PayloadInfo], id: u32) -> bool {
    payloads.iter().any(|payload| payload.id == id && payload.state == payload_state::DEAD)
}

/// Why the old payload serves again, by the handoff that made it.
pub(super) fn why_back(report: Option<&Report>) -> String {
    let why = match report.map(|report| report.cause) {
        Some(cause::ASKED) => return "somebody switched back during the soak".to_owned(),
        Some(cause::STALL) => "a request was owed for longer than the soak allows",
        Some(cause::NO_COMMIT) => "the soak ended without a commit",
        Some(cause::DIED) => "the payload died",
        _ => "atomctl history may say why",
    };
    format!("Atom switched back by itself: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blank;
    use crate::module_file::test_file::{live, status};

    fn errors(counts: &[(u32, u64)]) -> Errors {
        let devices: Vec<_> = counts
            .iter()
            .map(|(id, errors)| DeviceInfo { id: *id, errors: *errors, ..blank::DEVICE })
            .collect();
        Errors::of(&devices)
    }

    #[test]
    fn only_growth_beyond_an_equal_time_before_counts() {
        let before = errors(&[(0, 3), (1, 0)]);
        assert_eq!(errors(&[(0, 3), (1, 0)]).beyond(&before, 0), None);
        assert!(errors(&[(0, 4)]).beyond(&before, 0).unwrap().contains("4 requests of atom0"));
        assert_eq!(errors(&[(0, 4)]).beyond(&before, 1), None);
        assert!(errors(&[(1, 2)]).beyond(&before, 1).unwrap().contains("atom1"));
        assert!(errors(&[(7, 1)]).beyond(&before, 0).is_some());
    }

    #[test]
    fn a_device_that_is_new_or_has_an_old_number_counts_from_its_beginning() {
        let earlier = errors(&[(0, 10), (1, 5)]);
        let now = errors(&[(0, 12), (1, 2), (2, 3)]);
        assert_eq!(now.since(&earlier), errors(&[(0, 2), (1, 2), (2, 3)]));
        assert!(earlier.since(&earlier).is_none());
    }

    #[test]
    fn the_course_of_a_soak_is_told_from_who_serves() {
        let new = PayloadInfo { id: 2, ..live() };
        let dead = PayloadInfo { state: payload_state::DEAD, ..new };
        let at = |live, parked| Status { live, parked, ..status() };
        assert_eq!(course(&at(2, 1), &[new], 1, 2), Course::Soaking);
        assert_eq!(course(&at(2, 0), &[new], 1, 2), Course::Committed);
        assert_eq!(course(&at(2, 1), &[dead], 1, 2), Course::Dead);
        assert_eq!(course(&at(1, 0), &[new], 1, 2), Course::Back);
        assert_eq!(course(&at(0, 0), &[new], 1, 2), Course::Elsewhere);
        assert_eq!(course(&at(3, 0), &[new], 1, 2), Course::Elsewhere);
    }

    #[test]
    fn every_cause_of_a_way_back_is_told() {
        let of = |cause| why_back(Some(&Report { cause, ..Report::EMPTY }));
        assert!(of(cause::STALL).contains("longer than"));
        assert!(of(cause::NO_COMMIT).contains("without a commit"));
        assert!(of(cause::DIED).contains("died"));
        assert!(!of(cause::ASKED).contains("by itself"));
        assert!(why_back(None).contains("history"));
    }
}
