// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `atomctl events`

use std::os::fd::AsFd as _;
use std::time::Duration;

use super::output::Output;
use crate::control::Control;
use crate::problem::{Exit, Problem, Result};
use crate::report::{Event, Handoff, State};
use crate::text;
use crate::uevents::Listener;

/// How long a wait may take before the next one begins: the number does not matter.
const WAIT: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Do not end: tell what happens when it happens.
    #[arg(long)]
    follow: bool,
}

pub(super) fn run(output: &Output, args: &Args) -> Result<Exit> {
    let control = Control::open()?;
    // What they tell is kept by nobody, so there is none of it from before.
    let payloads = if args.follow { Some(Listener::open()?) } else { None };
    let mut known = Known::default();
    loop {
        // The state first: what happens after it wakes the wait below.
        let status = control.status()?;
        if args.follow && status.abi.minor_max == 0 {
            return Err(Problem::refused(
                "Events cannot be followed",
                "the loaded Atom speaks ABI 1.0, which does not tell of them",
                "load an Atom of ABI 1.1, or leave out --follow",
            ));
        }
        let state = State::of(&status, &control.payloads()?);
        let handoffs = control.reports()?.iter().map(Handoff::of).collect();
        let told = payloads.iter().flat_map(Listener::news).map(Event::payload);
        for event in known.news(handoffs, state).into_iter().chain(told) {
            if !output.line(&event, text::event)? {
                return Ok(Exit::Done);
            }
        }
        if !args.follow {
            return Ok(Exit::Done);
        }
        while !control.wait_or(WAIT, payloads.as_ref().map(Listener::as_fd))? {}
    }
}

/// What has been told already.
#[derive(Default)]
struct Known {
    sequence: u64,
    state: Option<State>,
}

impl Known {
    /// What is new among the handoffs, newest first, and in the state.
    fn news(&mut self, handoffs: Vec<Handoff>, state: State) -> Vec<Event> {
        let mut news: Vec<Handoff> =
            handoffs.into_iter().filter(|handoff| handoff.sequence > self.sequence).collect();
        news.reverse();
        self.sequence = news.last().map_or(self.sequence, |newest| newest.sequence);
        let mut events: Vec<Event> = news.into_iter().map(Event::handoff).collect();
        if self.state.as_ref().is_none_or(|known| state.differs(known)) {
            events.push(Event::status(state.clone()));
            self.state = Some(state);
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use atom_abi::control::{Report, Status};

    use super::*;
    use crate::module_file::test_file::{live, status};
    use crate::report::What;

    fn handoff(sequence: u64) -> Handoff {
        Handoff::of(&Report { sequence, ..Report::EMPTY })
    }

    fn sequences(events: &[Event]) -> Vec<u64> {
        events
            .iter()
            .filter_map(|event| match &event.what {
                What::Handoff(handoff) => Some(handoff.sequence),
                What::Status(_) | What::Payload(_) => None,
            })
            .collect()
    }

    #[test]
    fn each_handoff_is_told_once_and_the_oldest_first() {
        let mut known = Known::default();
        let state = State::of(&status(), &[live()]);
        let first = known.news(vec![handoff(2), handoff(1)], state.clone());
        assert_eq!((sequences(&first), first.len()), (vec![1, 2], 3));
        let second = known.news(vec![handoff(3), handoff(2), handoff(1)], state.clone());
        assert_eq!((sequences(&second), second.len()), (vec![3], 1));
        assert!(known.news(vec![handoff(3)], state).is_empty());
    }

    #[test]
    fn a_change_of_the_state_is_told_without_a_handoff() {
        let mut known = Known::default();
        known.news(Vec::new(), State::of(&status(), &[live()]));
        let soaking = State::of(&Status { parked: 1, ..status() }, &[live()]);
        assert_eq!(known.news(Vec::new(), soaking).len(), 1);
    }
}
