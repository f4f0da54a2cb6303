// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The lifecycle: every state with every event, and a machine that it is played on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use atom_abi::lifecycle::{
    advance, give_up, Event, Illegal, Inverse, Place, State, Step, Transition,
};
use proptest::prelude::*;

type Key = (u32, bool, bool);

fn key(state: State) -> Key {
    (state.place.code(), state.ready, state.soaking)
}

fn every_state() -> impl Iterator<Item = State> {
    Place::ALL.into_iter().flat_map(|place| {
        [(false, false), (false, true), (true, false), (true, true)].map(|(ready, soaking)| State {
            place,
            ready,
            soaking,
        })
    })
}

fn every_event() -> impl Iterator<Item = Event> {
    Step::ALL.into_iter().flat_map(|step| [Event::Done(step), Event::Failed(step)])
}

/// What follows a state: each event that it has, with where it leads.
type Next = Vec<(Event, Transition)>;

/// Every state that can be reached from the first, by events and by giving up.
fn reachable() -> BTreeMap<Key, (State, Next)> {
    let mut seen = BTreeMap::new();
    let mut queue = VecDeque::from([State::INITIAL]);
    while let Some(state) = queue.pop_front() {
        if seen.contains_key(&key(state)) {
            continue;
        }
        let next: Next =
            every_event().filter_map(|event| Some((event, advance(state, event).ok()?))).collect();
        queue.extend(next.iter().map(|(_, transition)| transition.to));
        queue.push_back(give_up(state).to);
        seen.insert(key(state), (state, next));
    }
    seen
}

/// Where a step leads from each place: with a candidate and without one. Written down by hand, as a second
/// opinion. `None`: the place has no such step.
fn table(place: Place, step: Step) -> (Option<Place>, Option<Place>) {
    use Place::{Closed, Drained, Failing, Forsaken, Frozen, Held, Live, Quiet, Vacant};
    let (with, without) = (|to| (Some(to), None), |to| (None, Some(to)));
    let both = |to| (Some(to), Some(to));
    match (place, step) {
        (Vacant, Step::Prepare) => without(Vacant),
        (Vacant, Step::Adopt) => with(Live),
        (Live, Step::Prepare | Step::Soak | Step::Commit) => without(Live),
        (Live, Step::Suspend) => both(Quiet),
        (Quiet, Step::Close) => both(Closed),
        (Closed, Step::Drain) => both(Drained),
        (Drained, Step::Freeze) => both(Frozen),
        (Drained, Step::Forsake) => both(Forsaken),
        (Frozen | Forsaken, Step::Adopt) => with(Live),
        (Frozen | Forsaken, Step::Abandon) => without(Held),
        (Held, Step::Prepare) => without(Held),
        (Held, Step::Adopt) => with(Live),
        (Held, Step::Expire) => without(Failing),
        (Failing, Step::Prepare) => without(Failing),
        (Failing, Step::Close) => with(Held),
        _ => (None, None),
    }
}

/// The state in which a step that is done leaves the devices, by [`table`].
fn expected(from: State, step: Step) -> Option<State> {
    let (with, without) = table(from.place, step);
    let place = if from.ready { with } else { without }?;
    let next = |ready, soaking| Some(State { place, ready, soaking });
    match step {
        Step::Commit if !from.soaking => None,
        Step::Prepare => next(true, from.soaking),
        Step::Soak => next(false, true),
        Step::Adopt | Step::Abandon | Step::Commit => next(false, false),
        _ => next(from.ready, from.soaking),
    }
}

/// Steps of which a failure leaves nothing to take back.
fn leaves_nothing(step: Step) -> bool {
    matches!(step, Step::Prepare | Step::Expire | Step::Soak | Step::Commit)
}

#[test]
fn every_state_does_with_every_event_what_the_table_says_and_nothing_else() {
    let (mut states, mut legal, mut illegal) = (0, 0, 0);
    for state in every_state() {
        states += 1;
        for event in every_event() {
            let (Event::Done(step) | Event::Failed(step)) = event;
            let wanted = match (expected(state, step), event) {
                (None, _) => Err(Illegal),
                (Some(to), Event::Done(_)) => Ok(Transition { to, undo: &[] }),
                (Some(_), _) if leaves_nothing(step) => Ok(Transition { to: state, undo: &[] }),
                (Some(_), _) => Ok(give_up(state)),
            };
            assert_eq!(advance(state, event), wanted, "{state:?} {event:?}");
            *if wanted.is_ok() { &mut legal } else { &mut illegal } += 1;
        }
    }
    println!("{states} states, {legal} legal transitions, {illegal} refused events");
    assert_eq!((states, legal + illegal), (36, 36 * 22));
}

#[test]
fn every_place_is_reached_and_the_states_that_are_not_are_these() {
    let reached = reachable();
    let transitions: usize = reached.values().map(|(_, next)| next.len()).sum();
    println!("{} states reached, {transitions} transitions between them", reached.len());
    let places: BTreeSet<u32> = reached.keys().map(|(place, _, _)| *place).collect();
    assert_eq!(places.len(), Place::ALL.len());
    let unreached: Vec<Key> =
        every_state().map(key).filter(|state| !reached.contains_key(state)).collect();
    // Nothing is parked while nobody has been live, and an abandon ends the soak.
    let without_payload = [Place::Vacant, Place::Held, Place::Failing];
    let wanted: Vec<Key> = every_state()
        .filter(|state| state.soaking && without_payload.contains(&state.place))
        .map(key)
        .collect();
    assert_eq!(unreached, wanted);
    assert_eq!(reached.len(), 30);
}

/// A machine on which the lifecycle is played: what has been done to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Machine {
    /// Who serves: the number of a payload; none while Atom holds or fails I/O.
    serving: Option<u32>,
    /// The payload beside it that is prepared.
    prepared: Option<u32>,
    suspended: bool,
    closed: bool,
    frozen: bool,
    /// The payload is not asked, its checkpoint stands for the image.
    forsaken: bool,
    /// I/O fails, because nobody adopted in time.
    failing: bool,
    /// The payload that is parked until the commit.
    parked: Option<u32>,
    /// Payloads that there have been.
    payloads: u32,
}

impl Machine {
    const NEW: Self = Self {
        serving: None,
        prepared: None,
        suspended: false,
        closed: false,
        frozen: false,
        forsaken: false,
        failing: false,
        parked: None,
        payloads: 0,
    };

    /// A dispatch reaches a payload, or fails because nobody is there.
    fn gate_open(&self) -> bool {
        !self.closed && (self.serving.is_some() || self.failing)
    }

    /// Carries a step out. Each asserts what it needs of the machine.
    fn carry_out(&mut self, step: Step) {
        match step {
            Step::Prepare => {
                assert_eq!(self.prepared, None, "one candidate at a time");
                self.payloads += 1;
                self.prepared = Some(self.payloads);
            }
            Step::Suspend => {
                assert!(self.serving.is_some() && !self.closed, "I/O is served meanwhile");
                self.suspended = true;
            }
            Step::Close => {
                assert!(self.suspended || self.failing, "background work stands still first");
                self.closed = true;
                self.failing = false;
            }
            Step::Drain => assert!(self.closed, "what is owed must not grow"),
            Step::Freeze => {
                assert!(self.closed && self.suspended && !self.forsaken);
                self.frozen = true;
            }
            Step::Forsake => {
                assert!(self.closed && !self.frozen, "an image is better than a checkpoint");
                self.forsaken = true;
            }
            Step::Adopt => {
                let image = self.frozen || self.forsaken || self.serving.is_none();
                let empty = self.serving.is_none() && !self.failing;
                let behind_gate = self.closed && image;
                assert!(behind_gate || empty, "a switch is made behind a closed gate");
                self.serving = self.prepared.take();
                assert!(self.serving.is_some(), "a candidate is prepared before it adopts");
                self.resting();
            }
            Step::Abandon => {
                assert!(self.closed && (self.frozen || self.forsaken) && self.serving.is_some());
                self.serving = None;
                self.resting();
                self.closed = true;
            }
            Step::Expire => {
                assert!(self.serving.is_none() && self.closed, "only held I/O expires");
                self.closed = false;
                self.failing = true;
            }
            Step::Soak => {
                assert!(self.serving.is_some() && !self.closed);
                self.parked = Some(self.payloads);
            }
            Step::Commit => {
                assert!(self.parked.is_some(), "there is something to let go");
                self.parked = None;
            }
        }
    }

    /// What a handoff leaves when it is complete.
    fn resting(&mut self) {
        self.suspended = false;
        self.closed = false;
        self.frozen = false;
        self.forsaken = false;
        self.parked = None;
    }

    /// Carries an inverse out. Each asserts that it comes in an order that does no harm.
    fn take_back(&mut self, inverse: Inverse) {
        match inverse {
            Inverse::Thaw => {
                assert!(self.frozen, "there is something to thaw");
                self.frozen = false;
            }
            Inverse::Reopen => {
                assert!(self.closed, "there is a gate to open");
                assert!(!self.frozen, "a payload that must change nothing would be dispatched to");
                assert!(self.serving.is_some(), "somebody serves behind the gate");
                self.closed = false;
                // From here on the payload is the one that serves again, whether it answers or not.
                if std::mem::take(&mut self.forsaken) {
                    self.suspended = false;
                }
            }
            Inverse::Resume => {
                assert!(!self.closed, "I/O is served already");
                self.suspended = false;
            }
            Inverse::Unprepare => {
                assert!(self.serving.is_none() || !self.closed, "nothing is done while I/O waits");
                assert!(self.prepared.take().is_some(), "there is a candidate to let go");
            }
        }
    }

    fn take_all_back(&mut self, undo: &[Inverse]) {
        undo.iter().for_each(|inverse| self.take_back(*inverse));
    }

    /// Whether the machine is as the state says.
    fn is_at(&self, state: State) -> bool {
        let between = !state.at_rest();
        state.gate_open() == self.gate_open()
            && state.ready == self.prepared.is_some()
            && state.soaking == self.parked.is_some()
            && (state.place == Place::Frozen) == self.frozen
            && (state.place == Place::Forsaken) == self.forsaken
            && (state.place == Place::Failing) == self.failing
            && (between || !self.suspended)
    }
}

/// Every reachable state with a machine that got there by the shortest way.
fn played() -> Vec<(State, Machine)> {
    let mut seen: BTreeMap<Key, (State, Machine)> = BTreeMap::new();
    let mut queue = VecDeque::from([(State::INITIAL, Machine::NEW)]);
    while let Some((state, machine)) = queue.pop_front() {
        if seen.contains_key(&key(state)) {
            continue;
        }
        assert!(machine.is_at(state), "{state:?} {machine:?}");
        seen.insert(key(state), (state, machine));
        for step in Step::ALL {
            if let Ok(Transition { to, .. }) = advance(state, Event::Done(step)) {
                let mut next = machine;
                next.carry_out(step);
                queue.push_back((to, next));
            }
        }
    }
    seen.into_values().collect()
}

/// The inverses that a machine needs, from what has been done to it.
fn needed(machine: &Machine, state: State) -> Vec<Inverse> {
    let at_home = machine.serving.is_some() && !machine.forsaken;
    [
        (Inverse::Thaw, machine.frozen),
        (Inverse::Reopen, machine.closed && machine.serving.is_some()),
        // A live payload is asked even when nothing was suspended: it may have stopped in part.
        (Inverse::Resume, at_home && state.place != Place::Forsaken),
        (Inverse::Unprepare, machine.prepared.is_some()),
    ]
    .into_iter()
    .filter_map(|(inverse, needed)| needed.then_some(inverse))
    .collect()
}

#[test]
fn giving_up_takes_back_exactly_what_was_done_from_every_state() {
    let played = played();
    assert_eq!(played.len(), reachable().len(), "every state is reached by steps that are done");
    for (state, before) in played {
        let Transition { to, undo } = give_up(state);
        assert_eq!(undo, needed(&before, state), "{state:?} {before:?}");
        let mut after = before;
        after.take_all_back(undo);
        assert!(to.at_rest(), "{state:?} leads to {to:?}");
        assert!(after.is_at(to), "{state:?} {to:?} {after:?}");
        assert_eq!(after.serving, before.serving, "{state:?}: the same payload serves as before");
        assert_eq!(after.parked, before.parked, "{state:?}: what is parked stays parked");
        assert_eq!(after.failing, before.failing, "{state:?}");
        assert_eq!(to.soaking, state.soaking, "{state:?}");
        assert!(!after.suspended && !after.frozen && !after.forsaken, "{state:?} {after:?}");
    }
}

#[test]
fn giving_up_twice_is_giving_up_once() {
    for state in every_state() {
        let to = give_up(state).to;
        assert_eq!(give_up(to).to, to, "{state:?}");
    }
}

#[test]
fn the_gate_opens_behind_thaw_and_before_unprepare() {
    for state in every_state() {
        let undo = give_up(state).undo;
        let at = |wanted| undo.iter().position(|inverse| *inverse == wanted);
        let in_order = |first, second| match (at(first), at(second)) {
            (Some(first), Some(second)) => first < second,
            _ => true,
        };
        assert!(in_order(Inverse::Thaw, Inverse::Reopen), "{state:?}");
        assert!(in_order(Inverse::Reopen, Inverse::Resume), "{state:?}");
        assert!(in_order(Inverse::Reopen, Inverse::Unprepare), "{state:?}");
        assert!(in_order(Inverse::Resume, Inverse::Unprepare), "{state:?}");
        let each: BTreeSet<_> = undo.iter().map(|inverse| format!("{inverse:?}")).collect();
        assert_eq!(each.len(), undo.len(), "{state:?}: nothing is taken back twice");
    }
}

#[test]
fn nothing_but_a_completed_abandon_leaves_devices_without_a_payload() {
    for (state, next) in reachable().values() {
        let served = !matches!(state.place, Place::Vacant | Place::Held | Place::Failing);
        for (event, Transition { to, .. }) in next {
            let without = matches!(to.place, Place::Vacant | Place::Held | Place::Failing);
            let lost = served && without;
            assert_eq!(lost, *event == Event::Done(Step::Abandon), "{state:?} {event:?}");
        }
        let to = give_up(*state).to.place;
        let without = matches!(to, Place::Vacant | Place::Held | Place::Failing);
        assert!(!(served && without), "{state:?} is given up to {to:?}");
    }
}

#[test]
fn the_gate_is_open_in_exactly_these_places() {
    for state in every_state() {
        let open = match state.place {
            Place::Live | Place::Quiet | Place::Failing => true,
            Place::Vacant | Place::Closed | Place::Drained | Place::Frozen => false,
            Place::Forsaken | Place::Held => false,
        };
        assert_eq!(state.gate_open(), open, "{state:?}");
    }
}

#[test]
fn a_candidate_becomes_live_by_adopting_and_by_nothing_else() {
    for (state, next) in reachable().values() {
        for (event, Transition { to, undo }) in next {
            let used_up = state.ready && !to.ready && !undo.contains(&Inverse::Unprepare);
            assert_eq!(used_up, *event == Event::Done(Step::Adopt), "{state:?} {event:?}");
            let serves_now = !state.gate_open() && to.gate_open() && to.place == Place::Live;
            let by = *event == Event::Done(Step::Adopt) || undo.contains(&Inverse::Reopen);
            assert!(!serves_now || by, "{state:?} {event:?}");
        }
    }
}

#[test]
fn every_step_that_can_succeed_can_fail() {
    for state in every_state() {
        for step in Step::ALL {
            let can = |event| advance(state, event).is_ok();
            assert_eq!(can(Event::Done(step)), can(Event::Failed(step)), "{state:?} {step:?}");
        }
    }
}

#[test]
fn a_payload_can_serve_again_from_every_state() {
    let states = reachable();
    for (start, _) in states.values() {
        let mut queue = VecDeque::from([*start]);
        let mut seen = BTreeSet::new();
        let mut live = false;
        while let Some(state) = queue.pop_front() {
            live |= state.at_rest() && state.place == Place::Live;
            if seen.insert(key(state)) {
                let (_, next) = &states[&key(state)];
                queue.extend(next.iter().map(|(_, transition)| transition.to));
            }
        }
        assert!(live, "{start:?}");
    }
}

#[test]
fn every_place_has_a_number_and_a_name_of_its_own() {
    let codes: BTreeSet<u32> = Place::ALL.into_iter().map(Place::code).collect();
    let names: BTreeSet<&str> = codes.iter().map(|code| Place::name_of(*code)).collect();
    assert_eq!((codes.len(), names.len()), (Place::ALL.len(), Place::ALL.len()));
    assert!(!names.contains("unknown"));
    assert_eq!(Place::name_of(9), "unknown");
}

/// What happens in a walk.
#[derive(Clone, Copy, Debug)]
enum Happens {
    Done(Step),
    Failed(Step),
    /// The task that carries out the handoff dies.
    GivenUp,
}

fn happens() -> impl Strategy<Value = Happens> {
    let step = || proptest::sample::select(Step::ALL.to_vec());
    prop_oneof![
        6 => step().prop_map(Happens::Done),
        2 => step().prop_map(Happens::Failed),
        1 => Just(Happens::GivenUp),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_machine_is_always_where_the_lifecycle_says(
        events in proptest::collection::vec(happens(), 1..200)
    ) {
        let (mut state, mut machine) = (State::INITIAL, Machine::NEW);
        for event in events {
            let served = machine.serving;
            let transition = match event {
                Happens::Done(step) => advance(state, Event::Done(step)),
                Happens::Failed(step) => advance(state, Event::Failed(step)),
                Happens::GivenUp => Ok(give_up(state)),
            };
            let Ok(Transition { to, undo }) = transition else { continue };
            match event {
                Happens::Done(step) => machine.carry_out(step),
                Happens::Failed(_) | Happens::GivenUp => {
                    machine.take_all_back(undo);
                    prop_assert_eq!(machine.serving, served, "{:?} {:?}", state, event);
                }
            }
            prop_assert!(machine.is_at(to), "{:?} {:?} {:?} {:?}", state, event, to, machine);
            state = to;
        }
    }
}
