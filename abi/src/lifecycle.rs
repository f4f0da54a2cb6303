// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The handoff as a pure state machine, used by Atom as it is.
//!
//! ```text
//!       Prepare      Suspend      Close         Drain          Freeze         Adopt
//! live --------> +ready ----> quiet -----> closed -----> drained -----> frozen -----> live (the next)
//!                                                           |             |
//!                                                           | Forsake     | Abandon (not ready)
//!                                                           v             v
//!                                                       forsaken ------> held --Prepare, Adopt--> live
//!                                                           | Adopt       | Expire
//!                                                           v             v
//!                                                          live        failing --Prepare, Close--> held
//! vacant --Prepare--> +ready --Adopt--> live (the first)
//! live --Soak--> live, soaking --Commit--> live
//! ```
//!
//! A step that fails goes back by named inverses to the state in which the handoff began. So does one
//! whose task dies in the middle of it: [`give_up`] says how, from every state. Nothing but a completed
//! *Abandon* leaves the devices without a payload.

/// Where the devices are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// No payload has been live yet, there are no devices.
    Vacant,
    /// A payload serves, the gate is open.
    Live,
    /// As live, but the payload's background work stands still.
    Quiet,
    /// The gate is closed; the payload still owes requests.
    Closed,
    /// The gate is closed; the payload owes nothing.
    Drained,
    /// The image is written; the payload must change nothing.
    Frozen,
    /// The gate is closed; the payload is not asked any more, its checkpoint stands for the image.
    Forsaken,
    /// No payload is live; Atom holds devices, image and I/O.
    Held,
    /// No payload is live; Atom holds devices and image, and fails I/O as a dead path does.
    Failing,
}

impl Place {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Vacant,
        Self::Live,
        Self::Closed,
        Self::Drained,
        Self::Frozen,
        Self::Held,
        Self::Quiet,
        Self::Forsaken,
        Self::Failing,
    ];

    /// The number that the control interface shows.
    pub const fn code(self) -> u32 {
        match self {
            Self::Vacant => 0,
            Self::Live => 1,
            Self::Closed => 2,
            Self::Drained => 3,
            Self::Frozen => 4,
            Self::Held => 5,
            Self::Quiet => 6,
            Self::Forsaken => 7,
            Self::Failing => 8,
        }
    }

    /// The name behind a number of the control interface.
    pub fn name_of(code: u32) -> &'static str {
        match code {
            0 => "vacant",
            1 => "live",
            2 => "closed",
            3 => "drained",
            4 => "frozen",
            5 => "held",
            6 => "quiet",
            7 => "forsaken",
            8 => "failing",
            _ => "unknown",
        }
    }
}

/// The whole state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct State {
    /// Where the devices are.
    pub place: Place,
    /// A candidate is prepared beside them.
    pub ready: bool,
    /// The payload that was live before is parked, and stays loaded until the commit.
    pub soaking: bool,
}

impl State {
    /// The state in which Atom is loaded.
    pub const INITIAL: Self = Self::at(Place::Vacant);

    /// At `place` without a candidate, committed.
    pub const fn at(place: Place) -> Self {
        Self { place, ready: false, soaking: false }
    }

    /// True when a dispatch reaches a payload, or fails because nobody is there: the gate is open.
    pub const fn gate_open(self) -> bool {
        matches!(self.place, Place::Live | Place::Quiet | Place::Failing)
    }

    /// True in the states in which no handoff is under way.
    pub const fn at_rest(self) -> bool {
        !self.ready
            && matches!(self.place, Place::Vacant | Place::Live | Place::Held | Place::Failing)
    }

    const fn moved(self, place: Place) -> Self {
        Self { place, ready: self.ready, soaking: self.soaking }
    }
}

/// A step of a handoff.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Get the candidate ready beside the live payload.
    Prepare,
    /// The live payload's background work comes to a stop; I/O is served.
    Suspend,
    /// Close the gate of every device, with one grace period.
    Close,
    /// Wait until the payload owes no request, or take back what it owes.
    Drain,
    /// Write the image.
    Freeze,
    /// Instead of it: the payload is not asked, its checkpoint stands for the image.
    Forsake,
    /// The candidate takes over.
    Adopt,
    /// Atom takes over.
    Abandon,
    /// Nobody adopted in time: fail I/O instead of holding it.
    Expire,
    /// Keep the payload that was live before, until the commit.
    Soak,
    /// Let it go.
    Commit,
}

impl Step {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Prepare,
        Self::Suspend,
        Self::Close,
        Self::Drain,
        Self::Freeze,
        Self::Forsake,
        Self::Adopt,
        Self::Abandon,
        Self::Expire,
        Self::Soak,
        Self::Commit,
    ];
}

/// What became of a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// It is done.
    Done(Step),
    /// It failed, or its deadline passed.
    Failed(Step),
}

/// What takes a step back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Inverse {
    /// The old payload's state lives on.
    Thaw,
    /// Open the gate for the payload that was live before.
    Reopen,
    /// Its background work goes on.
    Resume,
    /// The candidate lets go of what it prepared.
    Unprepare,
}

/// Where an event leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transition {
    /// The next state.
    pub to: State,
    /// What must be done to get there, in this order.
    pub undo: &'static [Inverse],
}

/// The state has no such step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Illegal;

/// The one transition function.
pub const fn advance(from: State, event: Event) -> Result<Transition, Illegal> {
    use Place::{Closed, Drained, Failing, Forsaken, Frozen, Held, Live, Quiet, Vacant};

    let (step, done) = match event {
        Event::Done(step) => (step, true),
        Event::Failed(step) => (step, false),
    };
    let to = match (from.place, step, from.ready) {
        (Vacant | Live | Held | Failing, Step::Prepare, false) => {
            State { place: from.place, ready: true, soaking: from.soaking }
        }
        (Live, Step::Suspend, _) => from.moved(Quiet),
        (Quiet, Step::Close, _) => from.moved(Closed),
        (Failing, Step::Close, true) => from.moved(Held),
        (Closed, Step::Drain, _) => from.moved(Drained),
        (Drained, Step::Freeze, _) => from.moved(Frozen),
        (Drained, Step::Forsake, _) => from.moved(Forsaken),
        (Vacant | Frozen | Forsaken | Held, Step::Adopt, true) => State::at(Live),
        (Frozen | Forsaken, Step::Abandon, false) => State::at(Held),
        (Held, Step::Expire, false) => from.moved(Failing),
        (Live, Step::Soak, false) => State { place: Live, ready: false, soaking: true },
        (Live, Step::Commit, false) if from.soaking => State::at(Live),
        _ => return Err(Illegal),
    };
    match (done, step) {
        (true, _) => Ok(Transition { to, undo: &[] }),
        // These change nothing when they fail.
        (false, Step::Prepare | Step::Expire | Step::Soak | Step::Commit) => {
            Ok(Transition { to: from, undo: &[] })
        }
        (false, _) => Ok(give_up(from)),
    }
}

/// The way back from any state, to the one in which the handoff began. One that began while I/O was failing, and
/// had closed the gate, ends with I/O held: Atom's watch opens it again by the policy.
pub const fn give_up(from: State) -> Transition {
    use Inverse::{Reopen, Resume, Thaw, Unprepare};

    let undo: &'static [Inverse] = match (from.place, from.ready) {
        (Place::Vacant | Place::Held | Place::Failing, false) => &[],
        (Place::Vacant | Place::Held | Place::Failing, true) => &[Unprepare],
        // Background work may have been stopped in part.
        (Place::Live | Place::Quiet, false) => &[Resume],
        (Place::Live | Place::Quiet, true) => &[Resume, Unprepare],
        (Place::Closed | Place::Drained, false) => &[Reopen, Resume],
        (Place::Closed | Place::Drained, true) => &[Reopen, Resume, Unprepare],
        (Place::Frozen, false) => &[Thaw, Reopen, Resume],
        (Place::Frozen, true) => &[Thaw, Reopen, Resume, Unprepare],
        (Place::Forsaken, false) => &[Reopen],
        (Place::Forsaken, true) => &[Reopen, Unprepare],
    };
    let place = match from.place {
        Place::Vacant | Place::Held | Place::Failing => from.place,
        _ => Place::Live,
    };
    Transition { to: State { place, ready: false, soaking: from.soaking }, undo }
}
