// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Power cuts: when, and what was going on.
//!
//! The moment is chosen by chance. When something has to be going on and is not, chance chooses again: so each moment of
//! it is as likely as any other. What was going on is judged after the cut, by the last mark of the guest.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{channel, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{anyhow, Context, Result};
use atom_tests::power::{Moment, Wish};
use atom_tests::random::Random;
use atom_tests::scenarios::Outcome;

use crate::vm::{qemu, Cutter, Vm};

/// A cut that was made.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// What was to be going on.
    wanted: Moment,
    /// What was.
    found: Moment,
}

/// What cuts the power of one machine.
pub struct PowerSwitch {
    cutter: Cutter,
    marks: PathBuf,
    random: Option<Random>,
    waiting: Option<Waiting>,
}

/// The thread that waits for the moment.
struct Waiting {
    wanted: Moment,
    /// Its end tells the thread that the machine is gone.
    machine: Sender<()>,
    /// Whether it has cut the power.
    thread: JoinHandle<Result<bool>>,
}

impl PowerSwitch {
    /// That of `vm`, with the chance that decides when.
    pub fn new(vm: &Vm, random: Random) -> Result<Self> {
        let marks = vm.dir().join(qemu::MARKS);
        Ok(Self { cutter: vm.cutter()?, marks, random: Some(random), waiting: None })
    }

    /// Cuts the power at a moment as it is wished. A second wish changes nothing.
    pub fn turn_off(&mut self, wish: Wish) {
        let Some(mut random) = self.random.take() else { return };
        let (machine, is_gone) = channel::<()>();
        let (cutter, marks) = (self.cutter.clone(), self.marks.clone());
        let thread = std::thread::spawn(move || loop {
            let wait = Duration::from_micros(random.below(wish.within.as_micros() as u64));
            if is_gone.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
                return Ok(false);
            }
            if going_on(&marks)? >= wish.during {
                cutter.cut();
                return Ok(true);
            }
        });
        self.waiting = Some(Waiting { wanted: wish.during, machine, thread });
    }

    /// What the cut was; none when the machine ended without one. Asked when nothing comes from the machine any more.
    pub fn was_turned_off(&mut self) -> Result<Option<Cut>> {
        let Some(Waiting { wanted, machine, thread }) = self.waiting.take() else {
            return Ok(None);
        };
        drop(machine);
        if !thread.join().map_err(|_| anyhow!("the thread that cuts the power panicked"))?? {
            return Ok(None);
        }
        Ok(Some(Cut { wanted, found: going_on(&self.marks)? }))
    }
}

fn going_on(marks: &Path) -> Result<Moment> {
    let marks = std::fs::read(marks).with_context(|| format!("no {}", marks.display()))?;
    Moment::last(&marks)
}

/// All cuts of a scenario.
#[derive(Debug, Default)]
pub struct Cuts(Vec<Cut>);

impl Cuts {
    /// One more.
    pub fn add(&mut self, cut: Cut) {
        self.0.push(cut);
    }

    /// Adds to the facts how many there were and what was going on, and fails the scenario when more than half of those
    /// that had to fall within an upgrade did not.
    pub fn judge(&self, outcome: &mut Outcome) {
        let wanted = self.count(|cut| cut.wanted >= Moment::Upgrade);
        let met = self.count(|cut| cut.wanted >= Moment::Upgrade && cut.found >= Moment::Upgrade);
        let facts = [
            ("cuts", self.0.len()),
            ("cuts_wanted_within_an_upgrade", wanted),
            ("cuts_within_an_upgrade", self.count(|cut| cut.found >= Moment::Upgrade)),
            ("cuts_within_a_switch", self.count(|cut| cut.found == Moment::Switch)),
        ];
        for (name, count) in facts {
            outcome.facts.insert(name.to_owned(), count.into());
        }
        if outcome.error.is_none() && met * 2 < wanted {
            outcome.passed = false;
            outcome.error =
                Some(format!("{met} of {wanted} cuts that had to fall within an upgrade did"));
        }
    }

    fn count(&self, which: impl Fn(&Cut) -> bool) -> usize {
        self.0.iter().filter(|cut| which(cut)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(cuts: &[(Moment, Moment)]) -> Outcome {
        let mut outcome = Outcome {
            schema: String::new(),
            name: String::new(),
            passed: true,
            seconds: 0.0,
            error: None,
            facts: Default::default(),
        };
        let mut all = Cuts::default();
        for &(wanted, found) in cuts {
            all.add(Cut { wanted, found });
        }
        all.judge(&mut outcome);
        outcome
    }

    #[test]
    fn cuts_are_counted_by_what_was_going_on_and_not_by_what_was_wanted() {
        use Moment::{Load, Switch, Upgrade};
        let cuts = [(Load, Load), (Upgrade, Switch), (Switch, Upgrade), (Switch, Load)];
        let outcome = judged(&cuts);
        assert!(outcome.error.is_none());
        let fact = |name: &str| outcome.facts[name].as_u64();
        assert_eq!(fact("cuts"), Some(4));
        assert_eq!(fact("cuts_wanted_within_an_upgrade"), Some(3));
        assert_eq!(fact("cuts_within_an_upgrade"), Some(2));
        assert_eq!(fact("cuts_within_a_switch"), Some(1));
    }

    #[test]
    fn a_scenario_whose_cuts_mostly_missed_the_upgrades_has_failed() {
        use Moment::{Load, Upgrade};
        let outcome = judged(&[(Upgrade, Load), (Upgrade, Load), (Upgrade, Upgrade)]);
        assert!(!outcome.passed && outcome.error.is_some());
        assert!(judged(&[(Load, Load), (Upgrade, Load), (Upgrade, Upgrade)]).passed);
        assert!(judged(&[(Load, Load)]).passed);
    }
}
