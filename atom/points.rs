// SPDX-License-Identifier: GPL-2.0

//! The failpoints of Atom: the steps of a handoff and of its way back, and what in them can really fail.
//!
//! Names are `atom.STEP.OPERATION`. A point hangs only where the gates may be open for so long, or where Atom's watch goes
//! back for whoever hangs; where neither is so it is slow at most.

crate::failpoint::failpoints! {
    /// A payload offers itself, in the init of its module.
    REGISTER_PAYLOAD = "atom.register.payload": Error | NoMemory | Delay | Hang;
    /// A payload goes, in the exit of its module.
    UNREGISTER_PAYLOAD = "atom.unregister.payload": Delay | Hang;

    /// Memory for the queues of a new device.
    DEVICE_CREATE = "atom.device.create": Error | NoMemory | Delay | Hang;
    /// A new device becomes visible.
    DEVICE_ADD = "atom.device.add": Error | NoMemory | Delay | Hang;
    /// A device goes.
    DEVICE_DESTROY = "atom.device.destroy": Error | Delay | Hang;
    /// A request is handed over. Atomic.
    DISPATCH_REQUEST = "atom.dispatch.request": NoMemory;

    /// Memory for a command to the payload.
    CONTROL_COMMAND = "atom.control.command": Error | NoMemory | Delay | Hang;
    /// The old payload is let go of.
    CONTROL_COMMIT = "atom.control.commit": Error | Delay | Hang;

    /// A handoff begins: memory for its report.
    SWITCH_BEGIN = "atom.switch.begin": Error | NoMemory | Delay | Hang;
    /// Memory for the image.
    IMAGE_ROOM = "atom.image.room": NoMemory | Delay | Hang;
    /// The candidate is about to prepare.
    SWITCH_PREPARE = "atom.switch.prepare": Error | NoMemory | Delay | Hang | Oops;
    /// The live payload is about to copy its state ahead; what fails is left to be frozen.
    SWITCH_COPY = "atom.switch.copy": Error | NoMemory | Delay | Hang | Oops;
    /// Memory for what differs from a copy; what fails is left to be frozen.
    IMAGE_DIFFERENCE = "atom.image.difference": NoMemory | Delay | Hang;
    /// The live payload is about to suspend.
    SWITCH_SUSPEND = "atom.switch.suspend": Error | Delay | Hang | Oops;
    /// The gates are about to close.
    SWITCH_CLOSE = "atom.switch.close": Error | Delay | Hang | Oops;
    /// The gates are closed, and what is owed is about to be waited for.
    DRAIN_WAIT = "atom.drain.wait": Error | Delay | Oops;
    /// The live payload is about to hand back what it has not started; what fails is waited for.
    DRAIN_HAND_BACK = "atom.drain.hand_back": Error | Delay | Oops;
    /// The live payload is about to let go of requests.
    DRAIN_REVOKE = "atom.drain.revoke": Error | Delay;
    /// The live payload is about to freeze.
    SWITCH_FREEZE = "atom.switch.freeze": Error | Delay | Oops;
    /// The image was written, and is about to be checked.
    IMAGE_STORE = "atom.image.store": Error | Delay | Data;
    /// The image was found to be good.
    IMAGE_KEEP = "atom.image.keep": Error | Delay | Data;
    /// Nobody is in the slots: an abandon cannot be undone any more.
    SWITCH_ABANDON = "atom.switch.abandon": Delay;
    /// The candidate is about to adopt.
    SWITCH_ADOPT = "atom.switch.adopt": Error | NoMemory | Delay | Oops;
    /// The adopting payload takes a device.
    ADOPT_BIND = "atom.adopt.bind": Error | Delay | Hang | Oops;
    /// The adopting payload takes something that Atom kept.
    ADOPT_CLAIM = "atom.adopt.claim": Error | Delay | Hang | Oops;
    /// The new payload is in the slots, and the gates are about to open.
    SWITCH_OPEN = "atom.switch.open": Delay;
    /// The old payload is about to forget.
    RELEASE_OLD = "atom.release.old": Delay | Hang;

    /// A payload has Atom keep something.
    OBJECT_PRESERVE = "atom.object.preserve": Error | NoMemory | Delay | Hang;
    /// A payload has Atom release what it keeps.
    OBJECT_RELEASE = "atom.object.release": Error | Delay | Hang;
    /// A payload leaves a checkpoint.
    CHECKPOINT_STORE = "atom.checkpoint.store": Error | NoMemory | Delay | Data;

    /// Somebody has taken the turn from a task that died or hangs, and has not begun to go back for it.
    UNDO_INHERIT = "atom.undo.inherit": Delay;
    /// On the way back, before *thaw*.
    UNDO_THAW = "atom.undo.thaw": Delay;
    /// On the way back, before the gates open.
    UNDO_REOPEN = "atom.undo.reopen": Delay;
    /// Before *resume*, after a handoff and on the way back.
    UNDO_RESUME = "atom.undo.resume": Delay | Hang;
    /// On the way back, before *unprepare*.
    UNDO_UNPREPARE = "atom.undo.unprepare": Delay | Hang;
    /// The watch has something done by a task of its own.
    WATCH_SPAWN = "atom.watch.spawn": Error | NoMemory | Delay;
}
