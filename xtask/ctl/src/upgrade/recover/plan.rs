// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What is left to do where a tool has died: from a snapshot of the machine to a list of steps. Pure.
//!
//! The steps are ordered so that whoever dies after any of them leaves a snapshot whose plan is what remains.

use atom_abi::control::{payload_state, PayloadInfo};
use atom_abi::lifecycle::Place;

use super::held::held;
use super::snapshot::{Plan, Snapshot, Step, Wish};
use crate::kmod;
use crate::problem::Exit;
use crate::quantity::show_micros;

/// What is to be done about this machine.
pub(super) fn plan(at: &Snapshot, wish: Wish) -> Plan {
    let place = at.status.place;
    if place == Place::Live.code() {
        match at.live() {
            Some(live) if at.status.parked != 0 => soaking(at, live, wish),
            Some(live) if is_dead(live) => dead(at, live),
            Some(live) => serving(at, live, wish),
            None => under_way(at),
        }
    } else if place == Place::Held.code() || place == Place::Failing.code() {
        held(at, wish)
    } else if place == Place::Vacant.code() {
        vacant(at, wish)
    } else {
        under_way(at)
    }
}

pub(super) fn is_dead(payload: &PayloadInfo) -> bool {
    payload.state == payload_state::DEAD
}

pub(super) fn version(payload: &PayloadInfo) -> String {
    payload.version.as_str().to_owned()
}

pub(super) fn module(payload: &PayloadInfo) -> String {
    kmod::normalised(payload.module.as_str())
}

pub(super) fn adopt(payload: &PayloadInfo) -> Step {
    Step::Adopt { id: payload.id, version: version(payload) }
}

pub(super) fn switch(payload: &PayloadInfo, forsake: bool) -> Step {
    Step::Switch { id: payload.id, version: version(payload), forsake }
}

pub(super) fn unload(payload: &PayloadInfo, what: &str) -> Step {
    Step::Unload { module: module(payload), what: format!("payload {}, {what}", payload.version) }
}

const NEVER_LIVE: &str = "which never became live";
const BEFORE: &str = "which was live before";

/// What nobody needs any more: candidates that never became live, but not those in `but`.
pub(super) fn tidy(at: &Snapshot, plan: &mut Plan, but: &[u32]) {
    let candidates = at.in_state(payload_state::LOADED);
    plan.steps.extend(
        candidates
            .filter(|payload| !but.contains(&payload.id))
            .map(|payload| unload(payload, NEVER_LIVE)),
    );
    let known: Vec<String> = at.payloads.iter().map(module).collect();
    let strangers = at.users.iter().map(|user| kmod::normalised(user));
    plan.steps.extend(strangers.filter(|user| !known.contains(user)).map(|module| Step::Unload {
        module,
        what: "which uses Atom and has registered no payload".to_owned(),
    }));
    if at.soak_ns != 0 {
        plan.left.push(format!(
            "every switch soaks for {}, which a tool may have set that died: atomctl policy --soak 0s ends it",
            show_micros(at.soak_ns / 1000)
        ));
    }
    plan.left.extend(at.in_state(payload_state::DEAD).map(|dead| {
        format!(
            "payload {} is dead: its module {} stays loaded until the machine restarts",
            dead.version, dead.module
        )
    }));
}

/// Parked payloads, but not those in `but`: removed by whoever finishes, else left for a way back.
pub(super) fn parked(at: &Snapshot, plan: &mut Plan, wish: Wish, but: &[u32]) {
    for old in at.in_state(payload_state::PARKED).filter(|old| !but.contains(&old.id)) {
        if wish == Wish::Finish {
            plan.steps.push(unload(old, BEFORE));
        } else {
            plan.left.push(format!(
                "payload {0} stays parked: go back with atomctl rollback {0}, or unload it with atomctl \
                 recover --finish or atomctl unload {0}",
                old.version
            ));
        }
    }
}

/// A payload serves, and nothing is to be decided.
fn serving(at: &Snapshot, live: &PayloadInfo, wish: Wish) -> Plan {
    let mut plan = Plan::found(format!("payload {} serves, and nothing soaks", live.version));
    parked(at, &mut plan, wish, &[]);
    tidy(at, &mut plan, &[]);
    plan
}

/// A switch was made, and neither committed nor taken back.
fn soaking(at: &Snapshot, live: &PayloadInfo, wish: Wish) -> Plan {
    let old = at.payload(at.status.parked).filter(|old| !is_dead(old));
    let mut plan = Plan::found(match is_dead(live) {
        true => format!("payload {} soaks and is dead", live.version),
        false => format!("payload {} serves and soaks: it was not committed", live.version),
    });
    let back = wish != Wish::Finish && old.is_some();
    match old {
        _ if wish == Wish::Finish && is_dead(live) => plan.blocked(
            Exit::Refused,
            format!("payload {} is dead, so it cannot stay", live.version),
            "go back: atomctl recover --undo",
        ),
        None if wish == Wish::Undo => plan.blocked(
            Exit::Refused,
            "the payload that was live before is dead or gone",
            "stay with the one that serves: atomctl recover --finish",
        ),
        None if is_dead(live) => dead(at, live),
        Some(old) if back => {
            plan.steps.push(switch(old, is_dead(live)));
            if is_dead(live) {
                plan.left
                    .push(format!("the module {} of the dead payload stays loaded", live.module));
            } else {
                plan.steps.push(unload(live, "whose upgrade is undone"));
            }
            parked(at, &mut plan, wish, &[old.id]);
            tidy(at, &mut plan, &[]);
            plan
        }
        _ => {
            plan.steps.push(Step::Commit { id: live.id, version: version(live) });
            parked(at, &mut plan, wish, &[]);
            tidy(at, &mut plan, &[]);
            plan
        }
    }
}

/// The live payload is dead: whoever can serve takes its place.
fn dead(at: &Snapshot, live: &PayloadInfo) -> Plan {
    let mut plan = Plan::found(format!("the live payload {} is dead", live.version));
    let parked_one = at.in_state(payload_state::PARKED).max_by_key(|payload| payload.id);
    let loaded_one = at.in_state(payload_state::LOADED).max_by_key(|payload| payload.id);
    let Some(next) = parked_one.or(loaded_one) else {
        return plan.blocked(
            Exit::Attention,
            "no other payload is loaded that could take its place",
            "upgrade to one of another module name: atomctl upgrade FILE",
        );
    };
    plan.steps.push(switch(next, true));
    plan.left.push(format!("the module {} of the dead payload stays loaded", live.module));
    parked(at, &mut plan, Wish::Least, &[next.id]);
    tidy(at, &mut plan, &[next.id]);
    plan
}

/// No payload has been live yet.
fn vacant(at: &Snapshot, wish: Wish) -> Plan {
    let mut plan = Plan::found("no payload has been live, and there are no devices");
    let next = at.in_state(payload_state::LOADED).max_by_key(|payload| payload.id);
    match next.filter(|_| wish == Wish::Finish) {
        Some(next) => {
            plan.steps.push(adopt(next));
            tidy(at, &mut plan, &[next.id]);
        }
        None => tidy(at, &mut plan, &[]),
    }
    plan
}

fn under_way(at: &Snapshot) -> Plan {
    let place = Place::name_of(at.status.place);
    Plan::found(format!("a handoff is under way ({place})")).blocked(
        Exit::Refused,
        "it will end by itself, at its deadline at the latest",
        "try again then",
    )
}
