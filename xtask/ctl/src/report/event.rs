// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What happens, one document for each thing.

use atom_abi::control::{payload_state, PayloadInfo, Status};
use atom_abi::lifecycle::Place;
use serde::{Deserialize, Serialize};

use super::{Handoff, SoakUnderWay};

/// One document of `events`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Event {
    /// [`Event::SCHEMA`].
    pub schema: String,
    /// What it is about.
    #[serde(flatten)]
    pub what: What,
}

/// What an event is about.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum What {
    /// A handoff was carried out or undone.
    Handoff(Box<Handoff>),
    /// The state is another one than before.
    Status(State),
    /// A payload tells something of itself.
    Payload(Told),
}

/// What a payload tells of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Told {
    /// Its version.
    pub version: String,
    /// The device that it is about, if it is about one, as `atom3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// What it tells, in one line.
    pub text: String,
}

/// The part of the state that events tell about.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// Where the devices are.
    pub place: String,
    /// Version of the payload that serves; empty when none does.
    pub live: String,
    /// The soak, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soak: Option<SoakUnderWay>,
    /// The payloads, each `version: state`.
    pub payloads: Vec<String>,
}

impl Event {
    /// Name and version of this document.
    pub const SCHEMA: &'static str = "atom.event/1";

    /// A handoff.
    pub fn handoff(handoff: Handoff) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), what: What::Handoff(Box::new(handoff)) }
    }

    /// Another state.
    pub fn status(state: State) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), what: What::Status(state) }
    }

    /// What a payload tells.
    pub fn payload(told: Told) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), what: What::Payload(told) }
    }
}

impl State {
    /// What Atom says about itself.
    pub fn of(status: &Status, payloads: &[PayloadInfo]) -> Self {
        let live = payloads.iter().find(|payload| status.live != 0 && payload.id == status.live);
        Self {
            place: Place::name_of(status.place).to_owned(),
            live: live.map(|live| live.version.as_str().to_owned()).unwrap_or_default(),
            soak: SoakUnderWay::of(status, payloads),
            payloads: payloads
                .iter()
                .map(|payload| format!("{}: {}", payload.version, state_name(payload)))
                .collect(),
        }
    }

    /// True when something else than the passing of time makes them different.
    pub fn differs(&self, other: &Self) -> bool {
        let parked = |state: &Self| state.soak.as_ref().map(|soak| soak.parked.clone());
        self.place != other.place
            || self.live != other.live
            || self.payloads != other.payloads
            || parked(self) != parked(other)
    }
}

/// The state of a registered payload, by name.
fn state_name(payload: &PayloadInfo) -> &'static str {
    match payload.state {
        payload_state::LOADED => "loaded",
        payload_state::LIVE => "live",
        payload_state::PARKED => "parked",
        payload_state::DEAD => "dead",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use atom_abi::control::Report;

    use super::*;
    use crate::module_file::test_file::{live, status};

    #[test]
    fn the_passing_of_a_soak_is_no_other_state_and_its_end_is() {
        let at = |left: u64, parked: u32| {
            let status = Status { soak_left_ns: left, parked, ..status() };
            State::of(&status, &[live()])
        };
        assert!(!at(5_000, 1).differs(&at(4_000, 1)));
        assert!(at(5_000, 1).differs(&at(0, 0)));
    }

    #[test]
    fn a_payload_that_dies_is_another_state() {
        let dead = PayloadInfo { state: payload_state::DEAD, ..live() };
        let before = State::of(&status(), &[live()]);
        let after = State::of(&status(), &[dead]);
        assert!(after.differs(&before));
        assert_eq!((after.live.as_str(), after.payloads[0].as_str()), ("1.0.0", "1.0.0: dead"));
    }

    #[test]
    fn events_are_told_apart_by_a_tag_and_read_back() {
        for event in [
            Event::handoff(Handoff::of(&Report::EMPTY)),
            Event::status(State::of(&status(), &[live()])),
            Event::payload(Told {
                version: "2.0.0".to_owned(),
                device: Some("atom3".to_owned()),
                text: "lost".to_owned(),
            }),
        ] {
            let json = serde_json::to_string(&event).unwrap();
            assert!(json.starts_with(r#"{"schema":"atom.event/1","event":""#), "{json}");
            assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event);
        }
    }
}
