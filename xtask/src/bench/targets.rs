// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The figures that are wanted, beside those that were measured.

use std::fmt::{self, Write as _};

use atom_tests::bench::series::{quantile, Metric, Series, OURS};
use atom_tests::bench::{Document, How};

/// A figure that is wanted.
struct Target {
    /// What is measured.
    what: &'static str,
    wanted: Wanted,
    /// Digits behind the point.
    digits: usize,
    /// Where the figure is.
    figure: fn(&Measured<'_>) -> Option<f64>,
    needs: Needs,
}

/// What a benchmark must do for a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// A few rounds of its suite have it.
    Rounds,
    /// Sizes or setups that a few rounds leave out.
    Whole,
    /// Instructions are counted.
    Counted,
}

/// What is wanted of a figure.
#[derive(Clone, Copy)]
enum Wanted {
    AtMost(f64),
    AtLeast(f64),
}

impl Wanted {
    fn is_reached(self, figure: f64) -> bool {
        match self {
            Self::AtMost(limit) => figure <= limit,
            Self::AtLeast(limit) => figure >= limit,
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(limit) => write!(f, "at most {limit}"),
            Self::AtLeast(limit) => write!(f, "at least {limit}"),
        }
    }
}

/// A target and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    pub what: &'static str,
    pub wanted: String,
    /// `None`: not measured.
    pub measured: Option<String>,
    pub is_reached: bool,
    pub needs: Needs,
}

/// What was measured, to be looked through.
struct Measured<'a>(&'a [Document]);

const NULL_ROW: &str = "one device that keeps nothing, in a row";
const RAM_ROW: &str = "one device in memory, in a row";
const BESIDE: &str = "one device, beside peers";
const NBD: &str = "nbd volume / kernel's nbd";

type Figure = fn(&Measured<'_>) -> Option<f64>;

const fn at_most(what: &'static str, limit: f64, digits: usize, figure: Figure) -> Target {
    Target { what, wanted: Wanted::AtMost(limit), digits, figure, needs: Needs::Rounds }
}

const fn at_least(what: &'static str, limit: f64, digits: usize, figure: Figure) -> Target {
    Target { what, wanted: Wanted::AtLeast(limit), digits, figure, needs: Needs::Rounds }
}

impl Target {
    const fn that_needs(self, needs: Needs) -> Self {
        Self { needs, ..self }
    }
}

const TARGETS: &[Target] = &[
    at_most(
        "pause of a warm upgrade, one saturated device that keeps nothing, median, us",
        1000.0,
        0,
        |all| all.part(NULL_ROW, Metric::Pause, 0.5),
    ),
    at_most("the same, 99th percentile, us", 3000.0, 0, |all| {
        all.part(NULL_ROW, Metric::Pause, 0.99)
    }),
    at_most(
        "pause of a warm upgrade, one saturated device in memory, median, us",
        1000.0,
        0,
        |all| all.part(RAM_ROW, Metric::Pause, 0.5),
    ),
    at_most("the same, 99th percentile, us", 3000.0, 0, |all| {
        all.part(RAM_ROW, Metric::Pause, 0.99)
    }),
    at_most(
        "longest gap around an upgrade to that of a quiet time, nothing kept, median",
        1.5,
        2,
        |all| all.gaps(NULL_ROW),
    ),
    at_most("the same in memory", 1.5, 2, |all| all.gaps(RAM_ROW)),
    at_least("pause of ublk's change of a server to ours", 50.0, 1, |all| all.pause_of("ublk")),
    at_least("pause of our cold upgrade to that of a warm one", 20.0, 1, |all| {
        all.pause_of("atom, cold")
    }),
    at_least("pause of device mapper's change of a table to ours", 10.0, 1, |all| {
        all.pause_of("device mapper")
    }),
    at_most("pause with 128 devices to that with one", 3.0, 2, |all| all.growth("devices", 128, 1))
        .that_needs(Needs::Whole),
    at_most("pause with 10,000 open handles to that with one", 1.1, 2, |all| {
        all.growth("open handles", 10_000, 1)
    })
    .that_needs(Needs::Whole),
    at_most("pause with 1 GiB in memory to that with 1 MiB", 1.1, 2, |all| {
        all.growth("MiB in memory", 1024, 1)
    })
    .that_needs(Needs::Whole),
    at_most("pause with an image of 63 MiB to that with one of 64 KiB", 2.0, 2, |all| {
        all.growth("KiB of an image", 63 << 10, 64)
    })
    .that_needs(Needs::Whole),
    at_least("requests with as many instructions, to one module's, depth 1", 0.99, 3, |all| {
        all.counted("nothing kept: random read 4k, depth 1", "one module")
    })
    .that_needs(Needs::Counted),
    at_least("requests with as many instructions, to one module's, depth 32", 0.99, 3, |all| {
        all.counted("nothing kept: random read 4k, depth 32", "one module")
    })
    .that_needs(Needs::Counted),
    at_least(
        "requests with as many instructions, to one module's, in memory, depth 32",
        0.99,
        3,
        |all| all.counted("in memory: random read 4k, depth 32", "one module"),
    )
    .that_needs(Needs::Counted),
    at_least("IOPS to one module's, depth 1", 0.99, 2, |all| {
        all.to("nothing kept: random read 4k, depth 1", "one module")
    }),
    at_least("IOPS to one module's, depth 32", 0.99, 2, |all| {
        all.to("nothing kept: random read 4k, depth 32", "one module")
    }),
    at_least("IOPS to null_blk's, depth 1", 0.97, 2, |all| {
        all.to("nothing kept: random read 4k, depth 1", "null_blk")
    }),
    at_least("IOPS to null_blk's, depth 32", 0.97, 2, |all| {
        all.to("nothing kept: random read 4k, depth 32", "null_blk")
    }),
    at_least("IOPS to null_blk's, depth 32, batches of 16", 0.97, 2, |all| {
        all.to("nothing kept: random read 4k, depth 32 by 16", "null_blk")
    }),
    at_least("IOPS to null_blk's, depth 32, 4 jobs", 0.97, 2, |all| {
        all.to("nothing kept: random read 4k, depth 32, 4 jobs", "null_blk")
    }),
    at_least("IOPS to null_blk's, polled, depth 1", 0.97, 2, |all| {
        all.to("nothing kept, polled: random read 4k, depth 1", "null_blk")
    }),
    at_least("IOPS to null_blk's, polled, depth 32", 0.97, 2, |all| {
        all.to("nothing kept, polled: random read 4k, depth 32", "null_blk")
    }),
    at_least("IOPS to null_blk's, polled, depth 32, batches of 16", 0.97, 2, |all| {
        all.to("nothing kept, polled: random read 4k, depth 32 by 16", "null_blk")
    }),
    at_least("IOPS to those of ublk's null server, depth 32", 3.0, 1, |all| {
        all.to("nothing kept: random read 4k, depth 32", "ublk null")
    }),
    at_least("IOPS in memory to brd's, depth 32", 1.0, 2, |all| {
        all.to("in memory: random read 4k, depth 32", "brd")
    }),
    at_least(
        "requests of NBD volumes with as many instructions, to the kernel's client",
        1.0,
        2,
        |all| all.of_volumes(true, NBD, "kernel's nbd"),
    )
    .that_needs(Needs::Counted),
    at_least("the same of linear volumes in memory, to device mapper", 1.0, 2, |all| {
        all.of_volumes(true, "linear / device mapper, in memory", "device mapper")
    })
    .that_needs(Needs::Counted),
    at_least("the same of striped volumes in memory, to device mapper", 1.0, 2, |all| {
        all.of_volumes(true, "stripe / device mapper, in memory", "device mapper")
    })
    .that_needs(Needs::Counted),
    at_least("IOPS of NBD volumes to those of the kernel's client", 1.0, 2, |all| {
        all.of_volumes(false, NBD, "kernel's nbd")
    })
    .that_needs(Needs::Whole),
    at_least("IOPS of linear volumes to device mapper's, virtio disks", 1.0, 2, |all| {
        all.of_volumes(false, "linear / device mapper, virtio", "device mapper")
    })
    .that_needs(Needs::Whole),
    at_least("IOPS of striped volumes to device mapper's, virtio disks", 1.0, 2, |all| {
        all.of_volumes(false, "stripe / device mapper, virtio", "device mapper")
    })
    .that_needs(Needs::Whole),
];

impl<'a> Measured<'a> {
    /// Of time, not of instructions.
    fn series(&self) -> impl Iterator<Item = &'a Series> {
        self.0.iter().filter(|one| one.how != How::Counted).flat_map(|one| &one.series)
    }

    /// Of instructions, not of time.
    fn of_instructions(&self) -> impl Iterator<Item = &'a Series> {
        self.0.iter().filter(|one| one.how == How::Counted).flat_map(|one| &one.series)
    }

    fn find(
        &self,
        setup: &str,
        subject: &str,
        metric: Metric,
        at: Option<u64>,
    ) -> Option<&'a Series> {
        self.series().find(|one| {
            (one.setup.as_str(), one.subject.as_str(), one.metric, one.at)
                == (setup, subject, metric, at)
        })
    }

    /// A quantile of ours.
    fn part(&self, setup: &str, metric: Metric, part: f64) -> Option<f64> {
        quantile(&self.find(setup, OURS, metric, None)?.values, part)
    }

    /// The median of the ratios of ours to a peer's requests per second.
    fn to(&self, setup: &str, peer: &str) -> Option<f64> {
        let ours = self.find(setup, OURS, Metric::Iops, None)?;
        Some(ours.to(self.find(setup, peer, Metric::Iops, None)?)?.median)
    }

    /// The same of instructions.
    fn counted(&self, setup: &str, peer: &str) -> Option<f64> {
        let all: Vec<&Series> = self.of_instructions().collect();
        let find = |subject: &str| {
            let mut all = all.iter();
            all.find(|one| {
                (one.setup.as_str(), one.subject.as_str(), one.metric)
                    == (setup, subject, Metric::Iops)
            })
        };
        Some(find(OURS)?.to(find(peer)?)?.median)
    }

    /// The median, over all workloads, of the ratios of volumes to a peer: `counted`, of instructions, or of time.
    fn of_volumes(&self, counted: bool, volumes: &str, peer: &str) -> Option<f64> {
        let all: Vec<&Series> = match counted {
            true => self.of_instructions().collect(),
            false => self.series().collect(),
        };
        let is_ours =
            |one: &&&Series| one.subject == OURS && one.setup.split(": ").next() == Some(volumes);
        let setups = all.iter().filter(is_ours).map(|one| one.setup.as_str());
        let ratios: Option<Vec<f64>> = setups
            .map(|setup| if counted { self.counted(setup, peer) } else { self.to(setup, peer) })
            .collect();
        quantile(&ratios?, 0.5)
    }

    /// The median of the ratios of a peer's pause to ours.
    fn pause_of(&self, peer: &str) -> Option<f64> {
        let theirs = self.find(BESIDE, peer, Metric::Pause, None)?;
        Some(theirs.to(self.find(BESIDE, OURS, Metric::Pause, None)?)?.median)
    }

    /// The median of the ratios of a gap with an upgrade to the one without.
    fn gaps(&self, setup: &str) -> Option<f64> {
        let with = self.find(setup, OURS, Metric::Gap, None)?;
        Some(with.to(self.find(setup, OURS, Metric::QuietGap, None)?)?.median)
    }

    /// The median of the ratios of the pause at a size to that at a smaller one.
    fn growth(&self, setup: &str, size: u64, small: u64) -> Option<f64> {
        let large = self.find(setup, OURS, Metric::Pause, Some(size))?;
        Some(large.to(self.find(setup, OURS, Metric::Pause, Some(small))?)?.median)
    }
}

/// All targets, beside what these documents have of them.
pub fn judge(documents: &[Document]) -> Vec<Judged> {
    let measured = Measured(documents);
    let judge = |target: &Target| {
        let figure = (target.figure)(&measured);
        Judged {
            what: target.what,
            wanted: target.wanted.to_string(),
            measured: figure.map(|figure| format!("{figure:.*}", target.digits)),
            is_reached: figure.is_some_and(|figure| target.wanted.is_reached(figure)),
            needs: target.needs,
        }
    };
    TARGETS.iter().map(judge).collect()
}

/// The same as a table in Markdown.
pub fn table(documents: &[Document]) -> String {
    let mut text = "| what | wanted | measured | |\n| --- | --- | ---: | --- |\n".to_owned();
    for one in judge(documents) {
        let (measured, word) = match (&one.measured, one.is_reached) {
            (None, _) => ("-", "not measured"),
            (Some(figure), true) => (figure.as_str(), "reached"),
            (Some(figure), false) => (figure.as_str(), "**not reached**"),
        };
        let _ = writeln!(text, "| {} | {} | {measured} | {word} |", one.what, one.wanted);
    }
    text
}

#[cfg(test)]
mod tests {
    use atom_tests::bench::{Suite, SCHEMA};

    use super::*;

    fn document(series: Vec<Series>) -> Document {
        Document {
            schema: SCHEMA.to_owned(),
            suite: Suite::Pause,
            how: How::Thorough,
            kernel: "7.2".to_owned(),
            commit: String::new(),
            processors: 2,
            series,
            traces: Vec::new(),
        }
    }

    fn series(
        setup: &str,
        subject: &str,
        metric: Metric,
        at: Option<u64>,
        values: &[f64],
    ) -> Series {
        let (setup, subject) = (setup.to_owned(), subject.to_owned());
        Series { setup, subject, metric, at, values: values.to_vec() }
    }

    #[test]
    fn a_target_is_reached_missed_or_not_measured_and_says_so() {
        let text = table(&[document(vec![
            series(NULL_ROW, OURS, Metric::Pause, None, &[800.0, 900.0, 10_000.0]),
            series(BESIDE, OURS, Metric::Pause, None, &[1000.0]),
            series(BESIDE, "ublk", Metric::Pause, None, &[51_000.0]),
        ])]);
        let row = |what: &str| text.lines().find(|line| line.contains(what)).unwrap_or_default();
        assert!(row("keeps nothing, median").ends_with("| 900 | reached |"), "{text}");
        assert!(row("the same, 99th").ends_with("| 9818 | **not reached** |"), "{text}");
        assert!(row("ublk's change").ends_with("| 51.0 | reached |"), "{text}");
        assert!(row("device mapper's").ends_with("| - | not measured |"), "{text}");
    }

    #[test]
    fn instructions_come_from_what_was_counted_and_time_from_what_was_not() {
        let setup = "nothing kept: random read 4k, depth 1";
        let both = |ours: f64, theirs: f64| {
            let one = |subject, value| series(setup, subject, Metric::Iops, None, &[value]);
            document(vec![one(OURS, ours), one("one module", theirs)])
        };
        let counted = Document { how: How::Counted, ..both(98.0, 100.0) };
        let all = [both(80.0, 100.0), counted];
        assert_eq!(Measured(&all).counted(setup, "one module"), Some(0.98));
        assert_eq!(Measured(&all).to(setup, "one module"), Some(0.8));
        assert_eq!(Measured(&all[..1]).counted(setup, "one module"), None);
    }

    #[test]
    fn volumes_are_judged_by_the_median_of_their_workloads() {
        let workload = |name: &str, ours: f64| {
            let setup = format!("{NBD}: {name}");
            let one = |subject, value| series(&setup, subject, Metric::Iops, None, &[value]);
            [one(OURS, ours), one("kernel's nbd", 100.0)]
        };
        let mut all: Vec<Series> = [("a", 80.0), ("b", 110.0), ("c", 130.0)]
            .into_iter()
            .flat_map(|(name, ours)| workload(name, ours))
            .collect();
        let of = |all: &[Series], counted| {
            Measured(&[document(all.to_vec())]).of_volumes(counted, NBD, "kernel's nbd")
        };
        assert_eq!(of(&all, false), Some(1.1));
        assert_eq!(of(&all, true), None);
        all.pop();
        assert_eq!(of(&all, false), None, "a workload without its peer says nothing");
    }

    #[test]
    fn growth_is_that_of_each_round() {
        let all = [document(vec![
            series("devices", OURS, Metric::Pause, Some(1), &[100.0, 400.0]),
            series("devices", OURS, Metric::Pause, Some(128), &[200.0, 800.0]),
        ])];
        assert_eq!(Measured(&all).growth("devices", 128, 1), Some(2.0));
    }
}
