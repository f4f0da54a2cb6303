// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Back to the payload that was live before.

use std::time::Duration;

use atom_abi::control::{kind, outcome, payload_state, PayloadInfo, Report};

use super::{refused, soak, warm, Site, Terms};
use crate::node::Node;
use crate::problem::{Problem, Result};
use crate::report::{Mode, Outcome, UpgradeReport};

/// The parked payload to go back to: the one of `version`, or the one that was live last.
pub fn choose_parked<'a>(
    payloads: &'a [PayloadInfo],
    history: &[Report],
    version: Option<&str>,
) -> Result<&'a PayloadInfo> {
    let parked: Vec<&PayloadInfo> =
        payloads.iter().filter(|payload| payload.state == payload_state::PARKED).collect();
    let of_version =
        |wanted: &str| parked.iter().copied().find(|payload| payload.version.as_str() == wanted);
    let known: Vec<&str> = parked.iter().map(|payload| payload.version.as_str()).collect();
    if let Some(wanted) = version {
        return of_version(wanted).ok_or_else(|| {
            Problem::refused(
                format!("There is no way back to payload {wanted}"),
                format!("it is not parked; parked: {}", or_none(&known)),
                "upgrade to its file instead: atomctl upgrade FILE",
            )
        });
    }
    let last = history
        .iter()
        .find(|report| report.kind == kind::SWITCH && report.outcome == outcome::DONE)
        .and_then(|report| of_version(report.from.as_str()));
    match (last, parked.as_slice()) {
        (Some(last), _) => Ok(last),
        (None, [only]) => Ok(only),
        (None, []) => Err(Problem::refused(
            "There is nothing to go back to",
            "no payload is parked: the last upgrade was committed, or there was none",
            "upgrade to the older file instead: atomctl upgrade FILE",
        )),
        (None, _) => Err(Problem::usage(
            "It is not clear which payload to go back to",
            format!("several are parked: {}", or_none(&known)),
            "name one: atomctl rollback VERSION",
        )),
    }
}

/// Switches from the live payload to a parked one. The one that was live is parked then.
pub fn switch_back<N: Node>(
    node: &N,
    site: &Site,
    parked: &PayloadInfo,
    deadline: Duration,
) -> Result<UpgradeReport> {
    switch_back_on(node, site, parked, deadline, &Terms::default())
}

/// The same on other terms than the usual ones. It does not soak: whoever goes back stays there.
pub fn switch_back_on<N: Node>(
    node: &N,
    site: &Site,
    parked: &PayloadInfo,
    deadline: Duration,
    terms: &Terms,
) -> Result<UpgradeReport> {
    let live = site.live().ok_or_else(|| {
        Problem::refused(
            "There is nothing to go back from",
            "no payload is live",
            format!("let the payload take over: atomctl adopt {}", parked.version),
        )
    })?;
    let report = UpgradeReport::begin(
        &site.release,
        live.version.as_str(),
        parked.version.as_str(),
        Mode::Warm,
    );
    let (drain, notes) = match terms.drain(site, deadline) {
        Ok(both) => both,
        Err(why) => return Ok(refused(report, &why)),
    };
    let mut report = warm::switch(node, live.id, parked.id, &drain, report);
    report.warnings.extend(notes);
    if report.outcome == Outcome::Switched {
        soak::stay(node, parked.id, &mut report);
    }
    Ok(report)
}

fn or_none(versions: &[&str]) -> String {
    if versions.is_empty() {
        "none".to_owned()
    } else {
        versions.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use atom_abi::text::Text;

    use super::*;
    use crate::module_file::test_file::live;

    fn payload(id: u32, version: &str, state: u32) -> PayloadInfo {
        PayloadInfo { id, state, version: Text::new(version), ..live() }
    }

    fn switched_from(version: &str) -> Report {
        Report { outcome: outcome::DONE, from: Text::new(version), ..Report::EMPTY }
    }

    #[test]
    fn the_payload_that_was_live_last_is_the_one_to_go_back_to() {
        let payloads = [
            payload(1, "1.0.0", payload_state::PARKED),
            payload(2, "1.1.0", payload_state::PARKED),
            payload(3, "1.2.0", payload_state::LIVE),
        ];
        let history = [Report::EMPTY, switched_from("1.1.0"), switched_from("1.0.0")];
        assert_eq!(choose_parked(&payloads, &history, None).unwrap().id, 2);
        assert_eq!(choose_parked(&payloads, &history, Some("1.0.0")).unwrap().id, 1);
        assert_eq!(choose_parked(&payloads, &[], None).unwrap_err().exit.code(), 2);
    }

    #[test]
    fn a_live_or_missing_payload_is_nothing_to_go_back_to() {
        let payloads =
            [payload(1, "1.0.0", payload_state::LIVE), payload(2, "1.1.0", payload_state::LOADED)];
        for version in [None, Some("1.0.0"), Some("1.1.0"), Some("9")] {
            let problem = choose_parked(&payloads, &[], version).unwrap_err();
            assert_eq!(problem.exit.code(), 3);
        }
    }

    #[test]
    fn the_only_parked_payload_needs_no_name() {
        let payloads = [payload(1, "1.0.0", payload_state::PARKED)];
        assert_eq!(choose_parked(&payloads, &[], None).unwrap().id, 1);
    }
}
