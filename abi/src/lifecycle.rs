// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The handoff as a pure state machine, used by Atom as it is.
//!
//! ```text
//!            Prepare        Close         Drain          Freeze         Adopt
//! live ----------> +ready -------> closed -----> drained ------> frozen ------> live (the next)
//!   \                                                              | Abandon
//!    `-- Close (no candidate) --> closed --> drained --> frozen ---'--> held --Prepare, Adopt--> live
//! vacant --Prepare--> +ready --Adopt--> live (the first)
//! ```
//!
//! A step that fails goes back by named inverses to the state in which the handoff began; nothing but
//! a completed *Abandon* leaves the devices without a payload.

/// Where the devices are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// No payload has been live yet, there are no devices.
    Vacant,
    /// A payload serves, the gate is open.
    Live,
    /// The gate is closed; the payload still owes requests.
    Closed,
    /// The gate is closed; the payload owes nothing.
    Drained,
    /// The image is written; the payload must change nothing.
    Frozen,
    /// No payload is live; Atom holds devices, image and I/O.
    Held,
}

impl Place {
    /// The number that the control interface shows.
    pub const fn code(self) -> u32 {
        match self {
            Self::Vacant => 0,
            Self::Live => 1,
            Self::Closed => 2,
            Self::Drained => 3,
            Self::Frozen => 4,
            Self::Held => 5,
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
            _ => "unknown",
        }
    }
}

/// The whole state: where the devices are, and whether a candidate is prepared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct State {
    /// Where the devices are.
    pub place: Place,
    /// A candidate is prepared beside them.
    pub ready: bool,
}

impl State {
    /// The state in which Atom is loaded.
    pub const INITIAL: Self = Self::at(Place::Vacant);

    /// At `place` without a candidate.
    pub const fn at(place: Place) -> Self {
        Self { place, ready: false }
    }

    /// True when requests reach a payload.
    pub const fn gate_open(self) -> bool {
        matches!(self.place, Place::Live)
    }

    /// True in the states in which no handoff is under way.
    pub const fn at_rest(self) -> bool {
        !self.ready && matches!(self.place, Place::Vacant | Place::Live | Place::Held)
    }
}

/// A step of a handoff.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Get the candidate ready beside the live payload.
    Prepare,
    /// Close the gate of every device, with one grace period.
    Close,
    /// Wait until the payload owes no request.
    Drain,
    /// Write the image.
    Freeze,
    /// The candidate takes over.
    Adopt,
    /// Atom takes over.
    Abandon,
}

impl Step {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Prepare, Self::Close, Self::Drain, Self::Freeze, Self::Adopt, Self::Abandon];
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
    use Event::{Done, Failed};
    use Place::{Closed, Drained, Frozen, Held, Live, Vacant};

    let ready = from.ready;
    let to = match (from.place, event, ready) {
        (Vacant | Live | Held, Done(Step::Prepare), false) => {
            State { place: from.place, ready: true }
        }
        (Vacant | Live | Held, Failed(Step::Prepare), false) => from,
        (Live, Done(Step::Close), _) => keep(Closed, ready),
        (Closed, Done(Step::Drain), _) => keep(Drained, ready),
        (Drained, Done(Step::Freeze), _) => keep(Frozen, ready),
        (Vacant | Frozen | Held, Done(Step::Adopt), true) => State::at(Live),
        (Frozen, Done(Step::Abandon), false) => State::at(Held),

        // A handoff that fails before the gate closes, or where no payload was live.
        (Live, Failed(Step::Close), true) | (Vacant | Held, Failed(Step::Adopt), true) => {
            return Ok(Transition { to: State::at(from.place), undo: &[Inverse::Unprepare] })
        }
        (Live, Failed(Step::Close), false) => from,
        // One that fails with the gate closed: back to the old payload, gate first.
        (Closed, Failed(Step::Drain), _) | (Drained, Failed(Step::Freeze), _) => {
            return Ok(Transition {
                to: State::at(Live),
                undo: if ready {
                    &[Inverse::Reopen, Inverse::Unprepare]
                } else {
                    &[Inverse::Reopen]
                },
            })
        }
        (Frozen, Failed(Step::Adopt), true) => {
            return Ok(Transition {
                to: State::at(Live),
                undo: &[Inverse::Thaw, Inverse::Reopen, Inverse::Unprepare],
            })
        }
        (Frozen, Failed(Step::Abandon), false) => {
            return Ok(Transition { to: State::at(Live), undo: &[Inverse::Thaw, Inverse::Reopen] })
        }
        _ => return Err(Illegal),
    };
    Ok(Transition { to, undo: &[] })
}

const fn keep(place: Place, ready: bool) -> State {
    State { place, ready }
}
