# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""The report of a run over the fleet: atom.fleet-report/1, and the same as a table."""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

from ansible_collections.atom.fleet.plugins.plugin_utils import rollout as record_of
from ansible_collections.atom.fleet.plugins.plugin_utils.rollout import Rollout, now

SCHEMA = "atom.fleet-report/1"

# What each verb calls a node that is as it should be.
GOOD = {
    "plan": ("would-upgrade", "unchanged"),
    "prepare": ("verified", "live", "vacant"),
    "upgrade": record_of.GOOD,
    "verify": ("verified",),
    "rollback": (record_of.ROLLED_BACK, "untouched"),
    "status": ("live", "vacant"),
}
# The verbs whose nodes are as the record says.
RECORDED = ("upgrade", "rollback")
# The verbs in which every outcome other than a good one has changed nothing.
ASKING = ("plan", "verify", "status")

# Lines of what a command has said before it failed.
LINES = 4


def why(result):
    """Why a task failed: its message, and for a command what that has said."""
    said = (result.get("stderr") or result.get("stdout") or "").strip().splitlines()[-LINES:]
    return ": ".join(part for part in [result.get("msg"), " ".join(line.strip() for line in said)] if part)


class Report:
    """What was heard of the nodes so far."""

    def __init__(self, verb):
        self.verb = verb
        self.began = now()
        self.nodes = {}
        self.rollout = None
        self.refused = None
        self.interrupted = None
        self.batch_said = None
        self.states_said = {}

    def know(self, names):
        """Nodes that take part, in their order."""
        for name in names:
            self.nodes.setdefault(name, {})

    def recorded_in(self, path):
        """The record that the run works with."""
        self.rollout = path

    def interrupt(self):
        """Somebody wants the run to end. Returns whether it does so by itself, once the nodes in their turn have had it."""
        self.interrupted = record_of.INTERRUPTED
        return self.verb == "upgrade" and self.rollout is not None and Rollout(self.rollout).interrupt()

    def refuse(self, why):
        """Nothing was begun."""
        self.refused = why

    def begun(self, said):
        """A line for the beginning of a rollout, or of the way back."""
        record, todo = said["record"], said["todo"]
        if self.verb == "rollback":
            return "back: %d node%s" % (len(todo), plural(todo))
        canary = ", ".join(record["canary"]) or "none"
        return "rollout of %s: %d of %d node%s to go, canary %s, %d may fail" % (
            record["version"], len(todo), len(record["run"]), plural(record["run"]), canary, record["allowed"])

    def batch(self, number, canary):
        """A line for the first node of a batch."""
        if number == self.batch_said:
            return None
        self.batch_said = number
        return "batch %d%s" % (number, ", the canary" if canary else "")

    def tell(self, name, told):
        """Something became of a node. Returns a line about it, when there is something to say."""
        node = self.nodes.setdefault(name, {})
        reports = {key: value for key, value in told.items() if value is not None}
        if node.get("report") and "report" not in told:
            # A look afterwards does not tell where the node came from.
            reports.pop("from_version", None)
        node.update(reports)
        if told.get("reason") is None and told.get("state") in ("upgraded", "verified", "live", "unchanged", "rolled-back"):
            node.pop("reason", None)
            node.pop("remedy", None)
        if self.verb not in RECORDED or told.get("status"):
            return None
        if self.verb == "upgrade" and told.get("report") and told["state"] in record_of.GOOD:
            # It is said when the node was proved to be well.
            return None
        if self.states_said.get(name) == node["state"]:
            # The task that failed has said it, and the one that records it says the same.
            return None
        self.states_said[name] = node["state"]
        line = "  %s: %s" % (name, node["state"])
        if node.get("report"):
            line += " %s" % change(node)
        if node.get("reason"):
            line += ": %s" % node["reason"]
        return line

    def end(self):
        """The document."""
        record = None
        if self.rollout and not self.refused:
            record = Rollout(self.rollout).close()
        nodes = [self._node(name, record) for name in self.nodes]
        # The one that needs somebody comes first.
        order = {"held": 0, "lost": 1, "failed": 2, "refused": 3, "wrong": 4, "unreachable": 5, "unknown": 6}
        nodes.sort(key=lambda node: order.get(node["state"], 9))
        counts = {}
        for node in nodes:
            counts[node["state"]] = counts.get(node["state"], 0) + 1
        outcome, code = self._outcome(nodes, record)
        document = {
            "schema": SCHEMA,
            "verb": self.verb,
            "version": record["version"] if record else None,
            "outcome": outcome,
            "exit_code": code,
            "reason": self.refused or ((record or {}).get("stopped") or {}).get("why") or self.interrupted,
            "attention": [node["node"] for node in nodes if node["state"] == "held"],
            "rollout": self.rollout,
            "began": self.began,
            "ended": now(),
            "counts": counts,
            "nodes": nodes,
        }
        return document

    def _node(self, name, record):
        heard = self.nodes[name]
        node = {
            "node": name,
            "state": heard.get("state", "not-reached"),
            "from": heard.get("from_version"),
            "version": heard.get("version"),
            "build_id": heard.get("build_id"),
            "batch": None,
            "tries": heard.get("tries"),
            "pause_us": (heard.get("report") or {}).get("pause_us"),
            "reason": heard.get("reason"),
            "remedy": heard.get("remedy"),
        }
        for key in ("report", "plan", "status", "verification"):
            if heard.get(key):
                node[key] = heard[key]
        theirs = (record or {}).get("nodes", {}).get(name)
        if theirs is not None and self.verb in RECORDED:
            state = theirs.get("state", "not-reached")
            if state == record_of.WAITING:
                state = "not-reached"
            if self.verb == "rollback" and not theirs["touched"] and state != record_of.ROLLED_BACK:
                state = "untouched"
            node.update(state=state, batch=theirs.get("batch"))
            node["from"] = theirs.get("from")
            node["reason"] = theirs.get("reason") or (None if state in GOOD[self.verb] else node["reason"])
            node["remedy"] = theirs.get("remedy") or (None if state in GOOD[self.verb] else node["remedy"])
            if state == record_of.LOST:
                # What it serves now nobody knows.
                node["version"] = None
        elif self.verb in RECORDED and not self.refused and heard.get("state") is None:
            node["state"] = "untouched" if self.verb == "rollback" else "not-reached"
        return node

    def _outcome(self, nodes, record):
        """The outcome, and how the run exits."""
        states = [node["state"] for node in nodes]
        if "held" in states:
            return "held", 4
        if self.refused:
            return "refused", 3
        if not nodes:
            return "refused", 3
        if all(state in GOOD[self.verb] for state in states):
            return "done", 0
        if self.verb == "plan" and "unreachable" not in states and "unknown" not in states:
            return "refused", 3
        if self.verb in ASKING:
            return "wrong", 1
        stopped = bool((record or {}).get("stopped"))
        if self.verb == "upgrade" and "refused" in states and not any(
                state in ("upgraded", "failed", "lost") for state in states):
            return "refused", 3
        return ("stopped" if stopped else "incomplete"), 1


def plural(things):
    """The ending of a word for so many."""
    return "" if len(things) == 1 else "s"


def change(node):
    """What a node's last upgrade did, and for how long I/O waited."""
    report = node["report"]
    text = "%s -> %s" % (report.get("from") or "?", report.get("to") or node.get("version") or "?")
    if report.get("pause_us"):
        text += ", pause %s" % milliseconds(report["pause_us"])
    return text


def milliseconds(micros):
    """A time for people."""
    return "%.1f ms" % (micros / 1000.0)


def table(document):
    """The document as a table, for people."""
    rows = [("node", "state", "from", "serves", "pause", "")]
    for node in document["nodes"]:
        pause = milliseconds(node["pause_us"]) if node["pause_us"] else "-"
        rows.append((node["node"], node["state"], node["from"] or "-", node["version"] or "-", pause,
                     first_line(node["reason"])))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [""]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths)]
        lines.append("  ".join(cells + [row[5]]).rstrip())
    lines.append("")
    if document["attention"]:
        lines.append("I/O IS HELD on %s: run 'atomctl recover' there at once" % ", ".join(document["attention"]))
    counts = ", ".join("%d %s" % (count, state) for state, count in sorted(document["counts"].items()))
    lines.append("%s %s: %s" % (document["verb"], document["outcome"], counts or "no node"))
    if document["reason"]:
        lines.append("  why: %s" % document["reason"])
    remedies = []
    for node in document["nodes"]:
        if node["remedy"]:
            remedies.append("  %s: %s" % (node["node"], first_line(node["remedy"])))
    if remedies:
        lines.append("  what to do:")
        lines.extend("  " + line for line in remedies)
    if document["rollout"] and document["outcome"] in ("stopped", "incomplete"):
        lines.append("  the same command goes on where this stopped; 'rollback' takes back what was touched")
    return "\n".join(lines)


def first_line(text):
    """The first line of a text, for a cell."""
    return (text or "").strip().split("\n")[0]
