// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Events, a line each.

use super::upgrade::arrow;
use super::Paint;
use crate::quantity::show_micros;
use crate::report::{Event, What};

/// One line.
pub fn event(event: &Event, paint: Paint) -> String {
    match &event.what {
        What::Handoff(handoff) => {
            let outcome = match handoff.is_done() {
                true => paint.good(&handoff.outcome),
                false => paint.notable(&handoff.outcome),
            };
            let cause = match handoff.cause.as_str() {
                "" | "asked" => String::new(),
                cause => format!(", {}", paint.notable(cause)),
            };
            let why = handoff.reason.as_ref().map_or_else(String::new, |why| format!(": {why}"));
            format!(
                "{} {} {} {outcome}, paused {}{cause}{why}\n",
                handoff.sequence,
                handoff.kind,
                arrow(&handoff.from, &handoff.to),
                show_micros(handoff.pause_us),
            )
        }
        What::Status(state) => {
            let place = match state.place.as_str() {
                "live" => paint.good("live"),
                "held" | "failing" => paint.bad(&state.place),
                other => paint.notable(other),
            };
            let soak = state.soak.as_ref().map_or_else(String::new, |soak| {
                format!(
                    ", soaks for {} with a way back to {}",
                    show_micros(soak.left_us),
                    soak.parked
                )
            });
            let live = if state.live.is_empty() { "nobody" } else { &state.live };
            let payloads: Vec<String> = state
                .payloads
                .iter()
                .map(|payload| match payload.ends_with(": dead") {
                    true => paint.bad(payload),
                    false => payload.clone(),
                })
                .collect();
            format!("state {place}: {live} serves{soak} [{}]\n", payloads.join(", "))
        }
        What::Payload(told) => {
            let device = told.device.as_ref().map_or_else(String::new, |name| format!(" {name}"));
            format!("payload {}{device}: {}\n", told.version, told.text)
        }
    }
}

#[cfg(test)]
mod tests {
    use atom_abi::control::{cause, outcome, Report, Status};
    use atom_abi::text::Text;

    use super::*;
    use crate::module_file::test_file::{live, status};
    use crate::report::{Handoff, State, Told};

    #[test]
    fn a_switch_of_atoms_own_says_why_in_one_line() {
        let report = Report {
            sequence: 7,
            outcome: outcome::DONE,
            from: Text::new("1.1.0"),
            to: Text::new("1.0.0"),
            pause_ns: 2_000_000,
            cause: cause::STALL,
            ..Report::EMPTY
        };
        let line = event(&Event::handoff(Handoff::of(&report)), Paint::PLAIN);
        assert_eq!(line, "7 switch 1.1.0 -> 1.0.0 done, paused 2.00 ms, stall\n");
    }

    #[test]
    fn what_a_payload_tells_names_it_and_the_device_if_there_is_one() {
        let line = |device: Option<&str>| {
            let told = Told {
                version: "2.0.0".to_owned(),
                device: device.map(str::to_owned),
                text: "lost nbd://store/a".to_owned(),
            };
            event(&Event::payload(told), Paint::PLAIN)
        };
        assert_eq!(line(Some("atom3")), "payload 2.0.0 atom3: lost nbd://store/a\n");
        assert_eq!(line(None), "payload 2.0.0: lost nbd://store/a\n");
    }

    #[test]
    fn a_soak_is_part_of_the_state() {
        let soaking = Status { parked: 1, soak_left_ns: 5_000_000_000, ..status() };
        let line = event(&Event::status(State::of(&soaking, &[live()])), Paint::PLAIN);
        assert_eq!(
            line,
            "state live: 1.0.0 serves, soaks for 5.00 s with a way back to 1.0.0 [1.0.0: live]\n"
        );
    }
}
