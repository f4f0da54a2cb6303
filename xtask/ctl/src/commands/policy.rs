// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `atomctl policy`

use std::time::Duration;

use atom_abi::control::{hold, setting, Settings};
use atom_abi::text::{Text, TEXT_BYTES};

use super::output::Output;
use crate::control::{nanoseconds, Control};
use crate::drain::AtDeadline;
use crate::problem::{Exit, Problem, Result};
use crate::quantity::parse_duration;
use crate::report::PolicyDocument;
use crate::text;

/// Without an option it shows the policies and changes nothing.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Args {
    /// When no payload is adopted, hold I/O until one is.
    #[arg(long, conflicts_with_all = ["fail_after", "fallback"])]
    hold: bool,
    /// When no payload is adopted, hold I/O for this time and then fail it as on a dead path.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with = "fallback")]
    fail_after: Option<Duration>,
    /// When no payload is adopted, have the kernel load this module after the time of --after.
    #[arg(long, value_name = "MODULE", requires = "after")]
    fallback: Option<String>,
    /// How long I/O is held before the fallback is loaded.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "fallback")]
    after: Option<Duration>,
    /// After every switch, go back when no commit comes within this time; 0s: commit at once.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    soak: Option<Duration>,
    /// During a soak, go back when a request is owed for longer than this; 0s: no limit.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    stall: Option<Duration>,
    /// What happens at the deadline of the switch back: abort, reissue or fail.
    #[arg(long, value_name = "POLICY", value_parser = AtDeadline::parse)]
    back_policy: Option<AtDeadline>,
    /// How long the drain of the switch back may take.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    back_deadline: Option<Duration>,
}

pub(super) fn run(output: &Output, args: &Args) -> Result<Exit> {
    let control = Control::open()?;
    if control.status()?.abi.minor_max == 0 {
        return Err(Problem::refused(
            "There are no policies",
            "the loaded Atom speaks ABI 1.0: it holds I/O until a payload adopts, and commits at once",
            "load an Atom of ABI 1.1",
        ));
    }
    let present = control.settings(&Settings::DEFAULT)?;
    let wanted = args.over(present)?;
    let settings = if wanted.change == 0 { present } else { control.settings(&wanted)? };
    output.show(&PolicyDocument::new(&settings), |document, _| text::policy(document))?;
    Ok(Exit::Done)
}

impl Args {
    /// The present settings with what was asked for.
    fn over(&self, present: Settings) -> Result<Settings> {
        let mut wanted = Settings { change: 0, ..present };
        if self.hold {
            wanted.change |= setting::HOLD;
            (wanted.hold, wanted.hold_deadline_ns) = (hold::HOLD, 0);
        }
        if let Some(time) = self.fail_after {
            wanted.change |= setting::HOLD;
            wanted.hold = hold::FAIL;
            wanted.hold_deadline_ns = whole(time);
        }
        if let Some(module) = &self.fallback {
            if module.is_empty() || module.len() > TEXT_BYTES {
                return Err(Problem::usage(
                    "The fallback cannot have this name",
                    format!("the name of a module has 1 to {TEXT_BYTES} bytes"),
                    "give the name as modprobe takes it",
                ));
            }
            wanted.change |= setting::HOLD;
            wanted.hold = hold::FALLBACK;
            wanted.fallback = Text::new(module);
            wanted.hold_deadline_ns = self.after.map_or(0, whole);
        }
        if let Some(time) = self.soak {
            wanted.change |= setting::SOAK;
            wanted.soak_ns = whole(time);
        }
        if let Some(time) = self.stall {
            wanted.change |= setting::SOAK;
            wanted.stall_ns = whole(time);
        }
        if let Some(policy) = self.back_policy {
            wanted.change |= setting::SOAK;
            wanted.back_policy = policy.code();
        }
        if let Some(time) = self.back_deadline {
            wanted.change |= setting::SOAK;
            wanted.back_deadline_ns = nanoseconds("deadline", time)?;
        }
        Ok(wanted)
    }
}

fn whole(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn without_an_option_nothing_changes() {
        assert_eq!(Args::default().over(Settings::DEFAULT).unwrap().change, 0);
    }

    #[test]
    fn what_is_not_named_stays_as_it_is() {
        let present = Settings { soak_ns: 7, stall_ns: 9, ..Settings::DEFAULT };
        let args = Args { stall: Some(SECOND), ..Args::default() };
        let wanted = args.over(present).unwrap();
        assert_eq!(wanted.change, setting::SOAK);
        let next = present.changed_by(&wanted).unwrap();
        assert_eq!((next.soak_ns, next.stall_ns), (7, 1_000_000_000));
    }

    #[test]
    fn each_way_of_holding_replaces_the_one_before() {
        let fallback = Args {
            fallback: Some("payload_1_0_0".to_owned()),
            after: Some(SECOND),
            ..Args::default()
        };
        let wanted = fallback.over(Settings::DEFAULT).unwrap();
        let settings = Settings::DEFAULT.changed_by(&wanted).unwrap();
        assert_eq!((settings.hold, settings.hold_deadline_ns), (hold::FALLBACK, 1_000_000_000));
        let fail = Args { fail_after: Some(2 * SECOND), ..Args::default() };
        let settings = settings.changed_by(&fail.over(settings).unwrap()).unwrap();
        assert_eq!((settings.hold, settings.hold_deadline_ns), (hold::FAIL, 2_000_000_000));
        let back = Args { hold: true, ..Args::default() };
        let settings = settings.changed_by(&back.over(settings).unwrap()).unwrap();
        assert_eq!((settings.hold, settings.hold_deadline_ns), (hold::HOLD, 0));
    }

    #[test]
    fn a_name_that_no_module_has_and_a_deadline_without_end_are_wrong_usage() {
        for args in [
            Args { fallback: Some("x".repeat(65)), ..Args::default() },
            Args { back_deadline: Some(Duration::MAX), ..Args::default() },
        ] {
            assert_eq!(args.over(Settings::DEFAULT).unwrap_err().exit, Exit::Usage);
        }
    }
}
