// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Records of attempts from 1.0.0 to 1.1.0.

use serde_json::json;

use super::{Began, Ended, Identity, Kind, Moment, Origin, Process, Settled};
use crate::report::Mode;

fn identity(number: u64) -> Identity {
    Identity { attempt: number, boot: "b".to_owned() }
}

fn moment(second: u64) -> Moment {
    Moment {
        at: format!("2026-01-01T00:00:{second:02}.000Z"),
        monotonic_ns: second * 1_000_000_000,
    }
}

pub fn began(number: u64) -> Began {
    Began {
        identity: identity(number),
        moment: moment(1),
        kind: Kind::Upgrade,
        mode: Some(Mode::Warm),
        origin: Origin::Operator,
        user: "root".to_owned(),
        process: Process { id: 1, started: 2 },
        from: "1.0.0".to_owned(),
        to: "1.1.0".to_owned(),
        kernel: "7.2.12".to_owned(),
        tool: "0.1.0".to_owned(),
    }
}

pub fn ended(number: u64, outcome: &str, exit_code: u8) -> Ended {
    Ended {
        identity: identity(number),
        moment: moment(2),
        outcome: outcome.to_owned(),
        exit_code,
        reason: (exit_code != 0).then(|| "because".to_owned()),
        report: json!({
            "schema": "atom.upgrade-report/1", "outcome": outcome, "pause_us": 1000 * number,
            "remedy": "wait",
        }),
    }
}

pub fn settled(number: u64, outcome: &str) -> Settled {
    Settled {
        identity: identity(number),
        moment: moment(3),
        by: 99,
        live: "1.0.0".to_owned(),
        outcome: outcome.to_owned(),
    }
}
