// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Phases of a handoff with their times, in the order in which they happened.

use std::fmt;
use std::time::Duration;

use atom_abi::control::{kind, phase, Report};
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::micros;

/// Microseconds by phase. In JSON an object that keeps the order.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Phases(Vec<(String, u64)>);

impl Phases {
    /// The phases of a report of Atom. A phase of zero nanoseconds has not happened.
    pub fn of(report: &Report) -> Self {
        const WARM: [usize; phase::COUNT] = [
            phase::PREPARE,
            phase::CLOSE,
            phase::DRAIN,
            phase::FREEZE,
            phase::ADOPT,
            phase::OPEN,
            phase::RELEASE,
            phase::HELD,
        ];
        const TAKEN_FROM_ATOM: [usize; phase::COUNT] = [
            phase::CLOSE,
            phase::DRAIN,
            phase::FREEZE,
            phase::HELD,
            phase::PREPARE,
            phase::ADOPT,
            phase::OPEN,
            phase::RELEASE,
        ];
        let order = if report.kind == kind::ADOPT { TAKEN_FROM_ATOM } else { WARM };
        let mut phases = Self::default();
        for index in order {
            if let (Some(name), Some(ns)) = (phase::NAMES.get(index), report.phases_ns.get(index)) {
                if *ns > 0 {
                    phases.add(name, micros(*ns));
                }
            }
        }
        phases
    }

    /// Adds time to a phase, which comes last when it is new.
    pub fn add(&mut self, name: &str, us: u64) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, sum)) => *sum = sum.saturating_add(us),
            None => self.0.push((name.to_owned(), us)),
        }
    }

    /// Adds a time that the tool has taken itself.
    pub fn add_duration(&mut self, name: &str, time: Duration) {
        self.add(name, u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// Adds all phases of another handoff.
    pub fn extend(&mut self, other: &Self) {
        for (name, us) in other.iter() {
            self.add(name, us);
        }
    }

    /// Sets the time of a phase, which comes last when it is new.
    pub fn set(&mut self, name: &str, us: u64) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, time)) => *time = us,
            None => self.0.push((name.to_owned(), us)),
        }
    }

    /// Forgets a phase.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(known, _)| known != name);
    }

    /// The time of one phase, when it has happened.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.iter().find_map(|(known, us)| (known == name).then_some(us))
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, us)| (name.as_str(), *us))
    }

    /// True when nothing has happened.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<S: Into<String>> FromIterator<(S, u64)> for Phases {
    fn from_iter<I: IntoIterator<Item = (S, u64)>>(entries: I) -> Self {
        Self(entries.into_iter().map(|(name, us)| (name.into(), us)).collect())
    }
}

impl Serialize for Phases {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, us) in self.iter() {
            map.serialize_entry(name, &us)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Phases {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Phases;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of microseconds by phase")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Phases, M::Error> {
                let mut phases = Phases::default();
                while let Some((name, us)) = map.next_entry::<String, u64>()? {
                    phases.add(&name, us);
                }
                Ok(phases)
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_that_did_not_happen_are_left_out() {
        let mut report = Report::EMPTY;
        report.phases_ns[phase::DRAIN] = 2_500;
        report.phases_ns[phase::CLOSE] = 900;
        let phases = Phases::of(&report);
        assert_eq!(phases.iter().collect::<Vec<_>>(), [("close", 0), ("drain", 2)]);
    }

    #[test]
    fn json_keeps_the_order_there_and_back() {
        let phases = Phases::from_iter([("prepare", 3), ("close", 1), ("adopt", 2)]);
        let json = serde_json::to_string(&phases).unwrap();
        assert_eq!(json, r#"{"prepare":3,"close":1,"adopt":2}"#);
        assert_eq!(serde_json::from_str::<Phases>(&json).unwrap(), phases);
    }

    #[test]
    fn the_halves_of_a_cold_handoff_are_added_up() {
        let mut whole = Phases::from_iter([("close", 1), ("release", 2)]);
        whole.extend(&Phases::from_iter([("held", 9), ("release", 3)]));
        assert_eq!(whole.get("release"), Some(5));
        assert_eq!(whole.get("held"), Some(9));
        assert_eq!(whole.get("drain"), None);
    }
}
