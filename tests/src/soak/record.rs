// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The lines that a run leaves, one JSON document each: how it began, a line for each block, how it ended.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::plan::Kind;
use super::sample::Sample;

/// The name and version of a line.
pub const SCHEMA: &str = "atom.soak-line/1";

/// What a run is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Upgrades.
    pub upgrades: u64,
    /// What chance begins with.
    pub seed: u64,
    /// Of the clone that everything was built from; what was changed in it is told by `-changed`.
    pub commit: String,
    /// What the guest runs on, for people.
    pub machine: String,
}

impl Wanted {
    /// Upgrades of a block: some 200 blocks, which is enough for a rule about medians, and at least 5 upgrades, so that
    /// sampling does not take longer than they do.
    pub fn block(&self) -> u64 {
        (self.upgrades / 200).clamp(5, 50)
    }

    /// The upgrades after which growth is judged: 1,000, or a tenth of a short run.
    pub fn warm_up(&self) -> u64 {
        (self.upgrades / 10).min(1000)
    }
}

/// How a run began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    #[serde(flatten)]
    pub wanted: Wanted,
    /// Release of the kernel.
    pub kernel: String,
    /// The volumes, for people.
    pub volumes: Vec<String>,
}

/// A block of upgrades.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Block {
    /// Upgrades since the beginning of the run.
    pub upgrades: u64,
    /// Since the beginning of the run.
    pub seconds: f64,
    /// What was tried in this block, and how often.
    pub kinds: BTreeMap<Kind, u64>,
    /// How long I/O was held, for each upgrade of this block.
    pub pauses_us: Vec<u64>,
    /// Operations of the oracle since the beginning of the run.
    pub ios: u64,
    /// What there was after it.
    pub sample: Sample,
}

/// How a run ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// Verified operations in all.
    pub ios: u64,
    /// The longest of them.
    pub slowest_io_us: u64,
    /// What went wrong; null: nothing, all was read back and judged, and everything was unloaded.
    pub error: Option<String>,
}

/// A line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    Begun(Begun),
    Block(Block),
    Ended(Ended),
}

#[derive(Serialize, Deserialize)]
struct Line {
    schema: String,
    #[serde(flatten)]
    event: Event,
}

/// The line of an event, without its end.
pub fn encode(event: &Event) -> serde_json::Result<String> {
    serde_json::to_string(&Line { schema: SCHEMA.to_owned(), event: event.clone() })
}

/// The event of a line; none when it is not one of ours.
pub fn decode(line: &str) -> Option<Event> {
    let line: Line = serde_json::from_str(line).ok()?;
    (line.schema == SCHEMA).then_some(line.event)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(upgrades: u64) -> Wanted {
        Wanted { upgrades, seed: 1, commit: String::new(), machine: String::new() }
    }

    #[test]
    fn blocks_and_warm_up_follow_from_the_length_of_a_run() {
        let of = |upgrades| (wanted(upgrades).block(), wanted(upgrades).warm_up());
        assert_eq!(of(10_000), (50, 1000));
        assert_eq!(of(60), (5, 6));
        assert_eq!(of(1000), (5, 100));
        assert_eq!(of(100_000), (50, 1000));
    }

    #[test]
    fn lines_are_read_as_they_are_written() {
        let block = Block {
            upgrades: 50,
            seconds: 12.5,
            kinds: BTreeMap::from([(Kind::Warm, 49), (Kind::RolledBack, 1)]),
            pauses_us: vec![1, 2],
            ios: 7,
            sample: Sample::default(),
        };
        let begun = Begun { wanted: wanted(60), kernel: "7.2".to_owned(), volumes: vec![] };
        for event in [Event::Begun(begun), Event::Block(block), Event::Ended(Ended::default())] {
            let line = encode(&event).expect("a line");
            assert!(!line.contains('\n') && line.contains(SCHEMA), "{line}");
            assert_eq!(decode(&line), Some(event));
        }
        assert_eq!(decode("{\"schema\":\"atom.soak-line/1\""), None);
        assert_eq!(decode("{\"schema\":\"atom.other/1\",\"ended\":{\"ios\":0}}"), None);
    }
}
