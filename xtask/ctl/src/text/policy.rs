// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What Atom does by itself, for people.

use super::{row, table};
use crate::quantity::show_micros;
use crate::report::{HoldPolicy, PolicyDocument};

/// The policies.
pub fn policy(document: &PolicyDocument) -> String {
    let soak = &document.soak;
    let or = |us: u64, without: &str| match us {
        0 => without.to_owned(),
        us => show_micros(us),
    };
    let rows = [
        row(["nobody adopts", &hold(&document.hold)]),
        row(["soak", &or(soak.commit_within_us, "none: every switch is committed at once")]),
        row(["stall", &or(soak.stall_us, "no limit")]),
        row([
            "switch back",
            &format!("{} after {}", soak.back_policy, show_micros(soak.back_deadline_us)),
        ]),
    ];
    table(&rows)
}

/// What happens when no payload is adopted.
pub(super) fn hold(hold: &HoldPolicy) -> String {
    match (&hold.fallback, hold.policy.as_str()) {
        (Some(module), _) => {
            format!("load module {module} after {}", show_micros(hold.after_us))
        }
        (None, "hold") => "hold I/O".to_owned(),
        (None, policy) => format!("{policy} I/O after {}", show_micros(hold.after_us)),
    }
}

#[cfg(test)]
mod tests {
    use atom_abi::control::{hold as how, Settings};
    use atom_abi::text::Text;

    use super::*;

    #[test]
    fn the_policies_are_told_in_words() {
        let text = policy(&PolicyDocument::new(&Settings::DEFAULT));
        assert!(text.starts_with("nobody adopts  hold I/O\nsoak           none"), "{text}");
        let settings = Settings {
            hold: how::FALLBACK,
            hold_deadline_ns: 10_000_000_000,
            fallback: Text::new("payload_1_0_0"),
            soak_ns: 30_000_000_000,
            ..Settings::DEFAULT
        };
        let text = policy(&PolicyDocument::new(&settings));
        assert!(text.contains("load module payload_1_0_0 after 10.00 s"), "{text}");
        assert!(text.contains("soak           30.00 s"), "{text}");
        let failing = Settings { hold: how::FAIL, ..settings };
        assert_eq!(hold(&HoldPolicy::of(&failing)), "fail I/O after 10.00 s");
    }
}
