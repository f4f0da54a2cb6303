// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Which combinations cannot be, and why.

use super::axes::{Cell, Load, Volume, Way};

/// Why a combination is left out.
pub struct Rule {
    /// Its name, in the table.
    pub name: &'static str,
    /// Why, for people.
    pub why: &'static str,
    applies: fn(&Cell) -> bool,
}

/// Points to which only a request comes.
const NEED_A_REQUEST: &[&str] =
    &["payload.queue", "atom.dispatch", "payload.nbd.send", "payload.nbd.receive"];

/// All of them. The first that applies is the reason.
pub const ALL: &[Rule] = &[
    Rule {
        name: "no server",
        why: "only a volume over an NBD server has connections, and a server that dies",
        applies: |cell| {
            cell.volume != Volume::Nbd
                && (at(cell, "payload.nbd") || at(cell, "world.server"))
        },
    },
    Rule {
        name: "no targets",
        why: "a volume in memory has no targets",
        applies: |cell| cell.volume == Volume::Ram && at(cell, "payload.target"),
    },
    Rule {
        name: "no page",
        why: "only a volume in memory has pages of its own",
        applies: |cell| cell.volume != Volume::Ram && at(cell, "payload.queue.page"),
    },
    Rule {
        name: "nothing owed",
        why: "requests are handed back, taken back and explained where they do not end: at a server that stands still",
        applies: |cell| {
            needs_a_stall(cell) && (cell.volume != Volume::Nbd || cell.load == Load::Idle)
        },
    },
    Rule {
        name: "no request",
        why: "without load no request comes to the point",
        applies: |cell| {
            cell.load == Load::Idle
                && NEED_A_REQUEST.iter().any(|begin| at(cell, begin))
        },
    },
    Rule {
        name: "kills the load",
        why: "it ends the task that issues the request, which is the load; a scenario of its own shows it",
        applies: |cell| at(cell, "payload.queue") && cell.fault.kind == "oops",
    },
    Rule {
        name: "no state left",
        why: "in a cold upgrade an image that goes bad in memory after Atom has checked it is refused by both payloads: I/O stays held",
        applies: |cell| {
            cell.way == Way::Cold && at(cell, "atom.image.keep") && cell.fault.kind == "data"
        },
    },
    Rule {
        name: "nothing ahead",
        why: "in a cold upgrade nobody is there yet that could read a copy",
        applies: |cell| {
            cell.way == Way::Cold
                && (at(cell, "atom.switch.copy")
                    || at(cell, "atom.image.difference")
                    || at(cell, "payload.copy")
                    || at(cell, "payload.ahead"))
        },
    },
    Rule {
        name: "comes in the pause",
        why: "in a cold upgrade the candidate is loaded within the pause, and its points cannot be set before",
        applies: |cell| cell.way == Way::Cold && cell.fault.is_of_candidate(),
    },
    Rule {
        name: "no soak",
        why: "a cold upgrade has no soak that could be ended",
        applies: |cell| cell.way == Way::Cold && needs_a_soak(cell),
    },
    Rule {
        name: "never without one",
        why: "in a warm upgrade one payload takes over from the other: Atom is never abandoned",
        applies: |cell| cell.way == Way::Warm && at(cell, "atom.switch.abandon"),
    },
    Rule {
        name: "nothing beside",
        why: "in a cold upgrade there is no candidate beside the live payload that could be let go of",
        applies: |cell| {
            cell.way == Way::Cold
                && (at(cell, "atom.undo") || at(cell, "atom.watch") || at(cell, "payload.thaw") || at(cell, "atom.release"))
        },
    },
];

fn at(cell: &Cell, begin: &str) -> bool {
    cell.fault.point.starts_with(begin)
}

/// Whether the point is met only when a drain has something to wait for, or at its deadline.
pub fn needs_a_stall(cell: &Cell) -> bool {
    const POINTS: [&str; 4] =
        ["payload.hand_back", "atom.drain.revoke", "payload.revoke", "payload.explain"];
    POINTS.iter().any(|begin| at(cell, begin))
}

/// Whether the volume's connections must lead somewhere else than to the server.
pub fn needs_a_relay(cell: &Cell) -> bool {
    at(cell, "world.server") && cell.fault.kind == "lies"
}

/// Whether the point is met only at the end of a soak.
pub fn needs_a_soak(cell: &Cell) -> bool {
    at(cell, "atom.control.commit")
}

/// Whether the point is met only on the way back.
pub fn needs_the_way_back(cell: &Cell) -> bool {
    cell.fault.step() == "undo"
}

/// Whether the tool warns of what has struck.
pub fn shows_as_an_inverse_that_failed(cell: &Cell) -> bool {
    cell.fault.kind == "error" && at(cell, "payload.abandon")
}

/// Whether it is met only if somebody else goes back, for a task that hangs.
pub fn needs_a_hang(cell: &Cell) -> bool {
    at(cell, "atom.watch") || at(cell, "atom.undo.inherit")
}

/// Whether the point is met when a volume comes or goes.
pub fn needs_a_volume_to_come(cell: &Cell) -> bool {
    matches!(cell.fault.step(), "command" | "keep" | "checkpoint")
        || at(cell, "payload.nbd.connect")
        || at(cell, "payload.nbd.preserve")
}

/// Whether the fault wants a payload or a task that is dead for ever, so that no other cell can follow in this boot.
pub fn ends_the_boot(cell: &Cell) -> bool {
    cell.fault.kind == "oops" || may_leave_requests(cell)
}

/// Whether the payload may have let go of requests when Atom did not wait for it any more. They wait for the next one, which
/// gets them at its deadline; the payload itself is dead.
pub fn may_leave_requests(cell: &Cell) -> bool {
    cell.fault.kind == "hang" && at(cell, "payload.revoke")
}

/// The rule by which a cell cannot be.
pub fn impossible(cell: &Cell) -> Option<&'static Rule> {
    ALL.iter().find(|rule| (rule.applies)(cell))
}
