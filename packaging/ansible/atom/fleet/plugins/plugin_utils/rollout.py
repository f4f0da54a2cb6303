# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""The record of a rollout: a file on the controller that says which node was touched, and what became of it.

It is written before a node is touched and after it, whole and synced each time, so that whatever happens to the
controller, a later run knows where to go on and what there is to roll back. Tasks of several nodes write it from
several processes, one at a time.
"""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

import contextlib
import datetime
import fcntl
import json
import os

SCHEMA = "atom.rollout/1"

# What a node can be. With the first four it is on its way.
WAITING = "waiting"
PREPARING = "preparing"
BEGAN = "began"
PROVING = "proving"
UNREACHABLE = "unreachable"
UPGRADED = "upgraded"
UNCHANGED = "unchanged"
REFUSED = "refused"
FAILED = "failed"
HELD = "held"
LOST = "lost"
ROLLED_BACK = "rolled-back"

# Why a rollout stopped that nothing was wrong with.
INTERRUPTED = "the run was interrupted"

# As it should be.
GOOD = (UPGRADED, UNCHANGED)
# Its turn has come, and nobody has said yet that it is over.
IN_TURN = (PREPARING, BEGAN, PROVING)
# Counted by the limit.
BAD = (REFUSED, FAILED, HELD, LOST, UNREACHABLE)


class Refused(Exception):
    """What was asked for cannot be begun. Nothing was changed."""


def now():
    """The time as documents have it."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def allowance(limit, nodes):
    """How many of so many nodes may fail, of a limit such as '2' or '10%'; rounded down."""
    text = str(limit).strip()
    try:
        if text.endswith("%"):
            share = float(text[:-1])
            if 0 <= share <= 100:
                return int(nodes * share // 100)
        elif int(text) >= 0:
            return int(text)
    except ValueError:
        pass
    raise Refused("the limit on failures is '%s'; it is a number, such as 2, or a share, such as 10%%" % limit)


class Rollout:
    """The record in a file."""

    def __init__(self, path):
        self.path = os.path.abspath(os.path.expanduser(path))

    def read(self):
        """What is in it; None when there is none."""
        try:
            with open(self.path) as file:
                record = json.load(file)
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise Refused("%s is no record of a rollout: %s" % (self.path, error))
        if not isinstance(record, dict) or record.get("schema") != SCHEMA:
            raise Refused("%s is no %s" % (self.path, SCHEMA))
        return record

    def begin(self, version, seen, canary, limit):
        """Begins a rollout, or goes on with the one that there is. Of each node 'seen' tells, in the order in which they
        shall be touched, the version that serves; None for one that cannot be reached or asked, with 'why'.

        Returns the nodes that are to be upgraded."""
        with self._locked():
            record = self.read()
            if record is not None and record["version"] != version and record["state"] not in ("complete", "rolled-back"):
                raise Refused(
                    "%s records a rollout of %s that is not finished: finish it with that version, roll it back, or name "
                    "another file" % (self.path, record["version"]))
            if record is None or record["version"] != version or record["state"] == "rolled-back":
                record = {"schema": SCHEMA, "version": version, "began": now(), "nodes": {}}
            nodes = record["nodes"]
            todo, there = [], []
            for name, look in seen.items():
                node = nodes.setdefault(name, {"touched": False, "from": None, "tries": 0})
                if node.get("state") in GOOD and look.get("version") == version:
                    continue
                if look.get("held"):
                    # Nothing is begun anywhere while a node needs somebody.
                    node.update(state=HELD, reason=look["why"], remedy=look.get("remedy"))
                elif look.get("why"):
                    node.update(state=UNREACHABLE, reason=look["why"], remedy=look.get("remedy"))
                else:
                    if not node["touched"]:
                        node["from"] = look["version"]
                    node.update(state=WAITING, reason=None, remedy=None)
                    (there if look["version"] == version else todo).append(name)
            held = [name for name in seen if nodes[name].get("state") == HELD]
            # One that has the version already proves nothing as a canary.
            record.update(state="running", stopped=None, batch=1, canary=todo[:canary])
            todo += there
            record.update(allowed=allowance(limit, len(todo)), run=list(seen), todo=todo)
            if held:
                self._stop(record, held[0], "%s holds I/O" % held[0])
            self._write(record)
            return [] if held else todo

    def enter(self, name):
        """A batch begins with this node. Returns why it must not, or None."""
        with self._locked():
            record = self.read()
            if record["stopped"]:
                return record["stopped"]["why"]
            record["nodes"][name].update(state=PREPARING, batch=record["batch"], began=now(), ended=None)
            self._write(record)
            return None

    def touch(self, name):
        """The node is about to be touched. Returns why it must not, or None."""
        with self._locked():
            record = self.read()
            if record is None or name not in record["nodes"]:
                raise Refused("%s is in no rollout of %s: begin it with atom.fleet.atom_rollout" % (name, self.path))
            if record["stopped"]:
                record["nodes"][name].update(state=WAITING)
                self._write(record)
                return record["stopped"]["why"]
            node = record["nodes"][name]
            node.update(state=BEGAN, touched=True, tries=node["tries"] + 1)
            self._write(record)
            return None

    def end(self, name, state, reason=None, remedy=None):
        """What became of a node. One that must stop the rollout does it here, while others still wait for their turn."""
        with self._locked():
            record = self.read()
            node = record["nodes"][name]
            if state == UNCHANGED and node["from"] != record["version"]:
                # An earlier run has upgraded it, and did not live to see it.
                state = UPGRADED
            elif state == UNCHANGED or (state == REFUSED and node["tries"] == 1):
                node["touched"] = False
            if state in GOOD:
                # What has become of it counts when it was proved.
                node.update(state=PROVING, proves=state)
            else:
                node.update(state=state, reason=reason, remedy=remedy, ended=now())
            self._judge(record, name)
            self._write(record)

    def confirm(self, name):
        """The node was looked at after its upgrade, and is as it should be."""
        with self._locked():
            record = self.read()
            node = record["nodes"][name]
            node.update(state=node.pop("proves"), reason=None, remedy=None, ended=now())
            self._write(record)
            return node

    def gate(self, names):
        """A batch has ended. Returns why there is no next one, or None."""
        with self._locked():
            record = self.read()
            lost = [name for name in names if record["nodes"].get(name, {}).get("state") in IN_TURN]
            for name in lost:
                self._lose(record["nodes"][name])
            for name in lost:
                self._judge(record, name)
            record["batch"] += 1
            self._write(record)
            return record["stopped"]["why"] if record["stopped"] else None

    def close(self):
        """The run is over. Returns the record."""
        with self._locked():
            record = self.read()
            if record is None:
                return None
            back = record["state"] == "rolling-back"
            for node in record["nodes"].values():
                if node.get("state") in IN_TURN:
                    self._lose(node)
            states = [node.get("state") for node in record["nodes"].values()]
            if back:
                if not any(node["touched"] for node in record["nodes"].values()):
                    record["state"] = "rolled-back"
            elif all(state in GOOD for state in states):
                record["state"] = "complete"
            else:
                record["state"] = "stopped" if record["stopped"] else "incomplete"
            self._write(record)
            return record

    def interrupt(self):
        """Somebody wants the run to end: nodes in their turn go on to their end, and no other is touched. Returns whether there
        is a rollout to be stopped."""
        with self._locked():
            record = self.read()
            if record is None or record["state"] != "running":
                return False
            if not record["stopped"]:
                record["stopped"] = {"node": None, "why": INTERRUPTED}
            self._write(record)
            return True

    def begin_back(self, names):
        """Begins to roll back what was touched, or goes on with it. Returns the nodes among 'names' and the version that
        each had before."""
        with self._locked():
            record = self.read()
            if record is None:
                raise Refused("there is no %s, so it is not known what was touched" % self.path)
            back = {}
            for name, node in record["nodes"].items():
                if node["touched"] and name in names and node["from"]:
                    back[name] = node["from"]
            record.update(state="rolling-back", stopped=None, run=[name for name in names if name in record["nodes"]])
            self._write(record)
            return back

    def end_back(self, name, state, reason=None, remedy=None):
        """What became of a node that was to go back."""
        with self._locked():
            record = self.read()
            node = record["nodes"][name]
            if state in (ROLLED_BACK, UNCHANGED):
                node.update(touched=False, state=ROLLED_BACK, reason=None, remedy=None, ended=now())
            else:
                node.update(state=state, reason=reason, remedy=remedy, ended=now())
            self._write(record)

    def _judge(self, record, name):
        """Stops the rollout when it must not go on after what became of a node."""
        state = record["nodes"][name]["state"]
        if state not in BAD:
            return
        bad = [other for other in record["todo"] if record["nodes"][other].get("state") in BAD]
        if state == HELD:
            self._stop(record, name, "%s holds I/O" % name)
        elif name in record["canary"]:
            self._stop(record, name, "the canary %s failed" % name)
        elif len(bad) > record["allowed"]:
            self._stop(record, name, "%d node%s failed, and %d may" % (
                len(bad), "" if len(bad) == 1 else "s", record["allowed"]))

    @staticmethod
    def _lose(node):
        """Nobody has said what became of a node in its turn. One that was not touched yet is only unreachable."""
        state = UNREACHABLE if node["state"] == PREPARING else LOST
        node.update(state=state, ended=now(), reason="nothing was heard of it to the end of its turn",
                    remedy="look at the node, then run the same again")

    @staticmethod
    def _stop(record, name, why):
        # The node that holds I/O is the first to be named, whatever else has stopped the rollout.
        if not record["stopped"] or "holds I/O" in why:
            record["stopped"] = {"node": name, "why": why}

    @contextlib.contextmanager
    def _locked(self):
        folder = os.path.dirname(self.path)
        os.makedirs(folder, exist_ok=True)
        with open(self.path + ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _write(self, record):
        part = self.path + ".part"
        with open(part, "w") as file:
            json.dump(record, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.rename(part, self.path)
