// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What is combined: the axes and their values.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// An axis whose values are fixed, with a word for each.
macro_rules! axis {
    ($(#[$doc:meta])* $axis:ident { $($(#[$value_doc:meta])* $value:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $axis {
            $($(#[$value_doc])* $value,)*
        }

        impl $axis {
            /// All values.
            pub const ALL: &'static [Self] = &[$(Self::$value),*];

            /// The word for it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $word,)*
                }
            }
        }

        impl FromStr for $axis {
            type Err = anyhow::Error;

            fn from_str(word: &str) -> Result<Self> {
                let found = Self::ALL.iter().copied().find(|value| value.name() == word);
                found.with_context(|| format!("no {} is called {word:?}", stringify!($axis)))
            }
        }
    };
}

axis! {
    /// What goes on on the device meanwhile.
    Load {
        /// Nothing; what was written before is read back.
        Idle = "idle",
        /// One request at a time.
        DepthOne = "depth-1",
        /// More requests than the queues take.
        Saturated = "saturated",
        /// Flushes, FUA, discards and write-zeroes among reads and writes.
        Mixed = "mixed",
        /// Files on ext4, some of them written past the page cache.
        FileSystem = "filesystem",
        /// The same as mixed, and the tool keeps no page that it has not locked.
        Pressure = "pressure",
    }
}

axis! {
    /// How the new payload comes in.
    Way {
        Warm = "warm",
        Cold = "cold",
    }
}

axis! {
    /// To the newer or to the older version.
    Direction {
        Up = "up",
        Down = "down",
    }
}

axis! {
    /// What the volume is made of.
    Volume {
        Ram = "ram",
        /// Two disks, one behind the other.
        Linear = "linear",
        /// Two disks in turns.
        Stripe = "stripe",
        /// An export of a server.
        Nbd = "nbd",
    }
}

/// What goes wrong: a failpoint and one of its kinds, or something in the world, whose place begins with `world`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fault {
    pub point: String,
    pub kind: String,
}

/// What the world does, and when.
pub const WORLD: &[(&str, &str)] = &[
    ("world.nothing", "none"),
    ("world.tool.start", "kill"),
    ("world.tool.inserted", "kill"),
    ("world.tool.held", "kill"),
    ("world.tool.switched", "kill"),
    ("world.tool.running", "second-tool"),
    ("world.machine.processors", "cpu-hotplug"),
    ("world.machine.clock", "clock-jump"),
    ("world.machine.opens", "open-close"),
    ("world.modules.unload", "race"),
    ("world.journal.disk", "full"),
    ("world.server.process", "dies"),
    ("world.server.process", "stalls"),
    ("world.server.process", "lies"),
];

/// The steps of the lifecycle by what the names of points begin with. The first that fits counts.
const STEPS: &[(&str, &str)] = &[
    ("atom.register", "load"),
    ("atom.unregister", "load"),
    ("atom.device", "command"),
    ("atom.control", "command"),
    ("atom.dispatch", "io"),
    ("atom.switch.begin", "prepare"),
    ("atom.switch.open", "open"),
    ("atom.switch.abandon", "release"),
    ("atom.image.room", "prepare"),
    ("atom.image.difference", "copy"),
    ("payload.ahead", "copy"),
    ("atom.image", "freeze"),
    ("atom.object", "keep"),
    ("atom.watch", "undo"),
    ("payload.unprepare", "undo"),
    ("payload.thaw", "undo"),
    ("payload.image_bytes", "prepare"),
    ("payload.abandon", "release"),
    ("payload.resume", "open"),
    ("payload.hand_back", "drain"),
    ("payload.revoke", "drain"),
    ("payload.explain", "drain"),
    ("payload.queue", "io"),
    ("payload.nbd", "connections"),
    ("payload.target", "connections"),
];

impl Fault {
    /// What the world can do.
    pub fn of_the_world() -> impl Iterator<Item = Self> {
        WORLD.iter().map(|(point, kind)| Self::new(point, kind))
    }

    pub fn new(point: &str, kind: &str) -> Self {
        Self { point: point.to_owned(), kind: kind.to_owned() }
    }

    /// The step of the lifecycle; of a fault of the world, who is struck.
    pub fn step(&self) -> &str {
        let known = STEPS.iter().find(|(begin, _)| self.point.starts_with(begin));
        if let Some((_, step)) = known {
            return step;
        }
        // `atom.switch.adopt` is named after the step, `payload.adopt.claim` after the operation in it.
        let mut words = self.point.split('.').skip(1);
        match (words.next(), words.next()) {
            (Some("switch"), Some(step)) => step,
            (Some(step), _) => step,
            _ => &self.point,
        }
    }

    /// The module that has the point; none for the world.
    pub fn module(&self) -> Option<&str> {
        let first = self.point.split('.').next()?;
        (first != "world").then_some(first)
    }

    /// Whether the point is one of the payload that is to take over.
    pub fn is_of_candidate(&self) -> bool {
        const CANDIDATE: &[&str] = &[
            "payload.prepare",
            "payload.unprepare",
            "payload.ahead",
            "payload.adopt",
            "payload.resume",
            "payload.target",
            "payload.nbd.restore",
        ];
        CANDIDATE.iter().any(|begin| self.point.starts_with(begin))
    }
}

/// One combination.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell {
    pub fault: Fault,
    pub load: Load,
    pub way: Way,
    pub direction: Direction,
    pub volume: Volume,
}

impl Cell {
    /// The values of a cell by the names of the axes.
    pub fn values(&self) -> [(&'static str, &str); 6] {
        [
            ("step", self.fault.step()),
            ("kind", &self.fault.kind),
            ("load", self.load.name()),
            ("way", self.way.name()),
            ("direction", self.direction.name()),
            ("volume", self.volume.name()),
        ]
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fault: Fault { point, kind }, load, way, direction, volume } = self;
        let names = [load.name(), way.name(), direction.name(), volume.name()];
        write!(f, "{point}:{kind}/{}", names.join("/"))
    }
}

impl FromStr for Cell {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let words: Vec<&str> = text.split('/').collect();
        let [fault, load, way, direction, volume] = words[..] else {
            anyhow::bail!("no cell is called {text:?}")
        };
        let (point, kind) = fault.split_once(':').context("a fault without a kind")?;
        Ok(Self {
            fault: Fault::new(point, kind),
            load: load.parse()?,
            way: way.parse()?,
            direction: direction.parse()?,
            volume: volume.parse()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_read_as_it_is_called() {
        let cell = Cell {
            fault: Fault::new("payload.adopt.bind", "error"),
            load: Load::DepthOne,
            way: Way::Cold,
            direction: Direction::Down,
            volume: Volume::Nbd,
        };
        assert_eq!(cell.to_string(), "payload.adopt.bind:error/depth-1/cold/down/nbd");
        assert_eq!(cell.to_string().parse::<Cell>().ok(), Some(cell));
        for wrong in ["", "a:b/idle/warm/up", "a/idle/warm/up/ram", "a:b/idle/warm/up/tape"] {
            assert!(wrong.parse::<Cell>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn points_of_both_modules_belong_to_the_steps_of_the_lifecycle() {
        for (point, step) in [
            ("atom.switch.adopt", "adopt"),
            ("payload.adopt.claim", "adopt"),
            ("atom.adopt.bind", "adopt"),
            ("atom.undo.thaw", "undo"),
            ("payload.thaw.begin", "undo"),
            ("payload.freeze.image", "freeze"),
            ("atom.switch.freeze", "freeze"),
            ("atom.image.store", "freeze"),
            ("atom.drain.wait", "drain"),
            ("payload.queue.page", "io"),
            ("world.tool.held", "tool"),
        ] {
            assert_eq!(Fault::new(point, "error").step(), step, "{point}");
        }
        assert_eq!(Fault::new("world.journal.disk", "full").module(), None);
        assert_eq!(Fault::new("atom.drain.wait", "error").module(), Some("atom"));
    }
}
