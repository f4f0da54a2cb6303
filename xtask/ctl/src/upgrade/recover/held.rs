// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What is left to do where no payload serves. Pure.
//!
//! Whoever is loaded and can serve needs no file, and a file may lie on a disk that is held. Going back to the
//! payload that let go is preferred all the same, unless its file is nowhere.

use atom_abi::control::{payload_state, PayloadInfo};
use atom_abi::lifecycle::Place;

use super::plan::{adopt, is_dead, module, parked, tidy, unload};
use super::snapshot::{KnownFile, Plan, Snapshot, Step, Wish};
use crate::kmod;
use crate::problem::Exit;

/// No payload serves: applications wait, or see errors.
pub(super) fn held(at: &Snapshot, wish: Wish) -> Plan {
    let doing = if at.status.place == Place::Held.code() { "holds" } else { "fails" };
    let came_from = at.came_from();
    let from = came_from.map_or_else(String::new, |from| format!(", since payload {from} let go"));
    let plan = Plan::found(format!("no payload serves and Atom {doing} I/O{from}"));
    let usable = || at.payloads.iter().filter(|payload| !is_dead(payload));
    let reads = |payload: &&PayloadInfo| {
        at.schema().is_none_or(|schema| payload.schema.reads(schema).is_ok())
    };
    let old = usable().find(|payload| Some(payload.version.as_str()) == came_from);
    let next = usable()
        .filter(|payload| Some(payload.version.as_str()) != came_from)
        .filter(reads)
        .max_by_key(|payload| (payload.state == payload_state::LOADED, payload.id));
    let forth = |plan: Plan, next: &PayloadInfo| finish_held(at, plan, next, old, wish);
    let named =
        matches!(&at.file, KnownFile::Found { version, .. } if Some(version.as_str()) != came_from);
    match (wish, old, next) {
        (Wish::Finish, _, _) if named => insert_held(at, plan, came_from, wish),
        (Wish::Finish, _, Some(next)) => forth(plan, next),
        (_, Some(old), _) => {
            let mut plan = plan;
            plan.steps.push(adopt(old));
            parked(at, &mut plan, wish, &[old.id]);
            tidy(at, &mut plan, &[old.id]);
            plan
        }
        (_, None, next) => {
            let by_file = insert_held(at, plan.clone(), came_from, wish);
            match next {
                Some(next) if wish == Wish::Least && by_file.blocked.is_some() => forth(plan, next),
                _ => by_file,
            }
        }
    }
}

/// The next payload is there already.
fn finish_held(
    at: &Snapshot,
    mut plan: Plan,
    next: &PayloadInfo,
    old: Option<&PayloadInfo>,
    wish: Wish,
) -> Plan {
    plan.steps.push(adopt(next));
    let kept = [next.id, old.map_or(0, |old| old.id)];
    plan.steps.extend(old.map(|old| unload(old, "which let go of the devices")));
    parked(at, &mut plan, wish, &kept);
    tidy(at, &mut plan, &kept);
    plan
}

/// A file has to be inserted first: that of the payload which let go, or the one that was named.
fn insert_held(at: &Snapshot, mut plan: Plan, came_from: Option<&str>, wish: Wish) -> Plan {
    let name_it = "name its file: atomctl recover --file FILE, from a disk that is not held; or let a loaded \
                   payload take over: atomctl recover --finish";
    let (wanted, file_module) = match (&at.file, came_from) {
        (KnownFile::Found { version, module }, _) => (version.as_str(), Some(module)),
        (KnownFile::Missing(why), _) => {
            let why = why.clone();
            return plan.blocked(Exit::Attention, why, name_it);
        }
        (KnownFile::NotLooked, Some(from)) => (from, None),
        (KnownFile::NotLooked, None) => {
            let why = "Atom's reports do not tell which payload let go of the devices";
            return plan.blocked(Exit::Attention, why, name_it);
        }
    };
    let insert = Step::Insert { version: wanted.to_owned() };
    let adopted = Step::AdoptInserted { version: wanted.to_owned() };
    let in_the_way: Vec<&PayloadInfo> = at
        .payloads
        .iter()
        .filter(|payload| {
            payload.version.as_str() == wanted
                || file_module.is_some_and(|name| kmod::normalised(name) == module(payload))
        })
        .collect();
    if let Some(dead) = in_the_way.iter().find(|payload| is_dead(payload)) {
        let why = format!(
            "payload {wanted} cannot be inserted: the dead payload {}, module {}, is in its way",
            dead.version, dead.module
        );
        return plan.blocked(Exit::Attention, why, name_it);
    }
    // What is there stays until the file has proved itself, unless it has the file's place.
    let gone: Vec<u32> = in_the_way.iter().map(|payload| payload.id).collect();
    plan.steps.extend(in_the_way.into_iter().map(|payload| unload(payload, "to make room")));
    plan.steps.extend([insert, adopted]);
    parked(at, &mut plan, wish, &gone);
    tidy(at, &mut plan, &gone);
    plan
}
