#!/usr/bin/python
# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""Upgrades the payload of one node."""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

DOCUMENTATION = r"""
module: atom_upgrade
short_description: Replaces the live payload of Atom while the node's disks stay in use
description:
  - Calls C(atomctl) on the node and returns the documents that it prints.
  - Does nothing when the wanted payload serves already and C(atomctl verify) finds nothing wrong with it.
  - In check mode C(atomctl plan) judges the upgrade, and nothing changes.
  - With O(rollout) the node's part of a rollout is recorded on the controller before the node is touched and after
    it, and the node is left alone when the rollout has been stopped meanwhile.
version_added: "1.0.0"
author: The Atom project
requirements: [atomctl on the node]
options:
  version:
    description: The version that shall serve. It is installed on the node.
    type: str
  file:
    description: The module file of the payload that shall serve, on the node. Instead of O(version).
    type: path
  mode:
    description: C(warm) loads the new payload beside the old one; C(cold) removes the old one first.
    type: str
    choices: [warm, cold]
    default: warm
  soak:
    description: How long the new payload is watched before it is committed, such as C(30s). Not with C(cold).
    type: str
  stall:
    description: During the soak, how long a request may be owed.
    type: str
  max_errors:
    description: During the soak, how many requests of a device may fail.
    type: int
  deadline:
    description: How long requests may take to end at the switch, such as C(5s); then everything is undone.
    type: str
  at_deadline:
    description: What happens at the deadline.
    type: str
    choices: [abort, reissue, fail]
  keep_parked:
    description: Whether the old payload stays loaded, so that one switch goes back.
    type: bool
    default: false
  back:
    description: Whether this goes back. Then a parked payload of the version is switched to, which needs no file.
    type: bool
    default: false
  settle:
    description: Seconds to wait for a drain or soak that somebody else has under way on the node.
    type: int
    default: 60
  origin:
    description: What the node's journal says of who wanted it.
    type: str
    choices: [operator, fleet]
    default: fleet
  atomctl:
    description: The node tool, as a name in the search path or as a path.
    type: str
    default: atomctl
  rollout:
    description: A file on the controller that records what was touched. See M(atom.fleet.atom_rollout).
    type: path
  retries:
    description:
      - How often an upgrade that failed and was undone is tried again. One that was refused, and one after which I/O
        is held, is not.
    type: int
    default: 0
  retry_delay:
    description: Seconds between two tries.
    type: int
    default: 5
attributes:
  check_mode:
    description: Calls C(atomctl plan).
    support: full
  diff_mode:
    description: Shows the version that serves before and after.
    support: full
"""

EXAMPLES = r"""
- name: Upgrade to 2.1.0, and watch it for half a minute before it is committed
  atom.fleet.atom_upgrade:
    version: 2.1.0
    soak: 30s

- name: Say what an upgrade would do
  atom.fleet.atom_upgrade:
    version: 2.1.0
  check_mode: true

- name: Go back
  atom.fleet.atom_upgrade:
    version: 2.0.0
    back: true
"""

RETURN = r"""
state:
  description:
    - What became of it. C(upgraded), C(rolled-back) (with O(back)) and C(unchanged) are good; with C(failed) the old
      payload serves; C(refused) was refused before anything changed; with C(held) nobody serves, and I/O waits.
    - In check mode C(would-upgrade), C(unchanged) or C(refused).
  type: str
  returned: always
  sample: upgraded
exit_code:
  description: How atomctl has ended. 4 says that the node needs somebody at once.
  type: int
  returned: always
from_version:
  description: The version that served before.
  type: str
  returned: always
version:
  description: The version that serves now.
  type: str
  returned: always
report:
  description: The C(atom.upgrade-report/1) of the upgrade.
  type: dict
  returned: when atomctl upgrade was called
plan:
  description: The C(atom.plan/1) of the upgrade.
  type: dict
  returned: in check mode
remedy:
  description: What to do.
  type: str
  returned: on failure
tries:
  description: How often it was tried.
  type: int
  returned: when it was tried
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.atom.fleet.plugins.module_utils.atomctl import (
    ATTENTION, DONE, HELD, REFUSED, UNDONE, USAGE, Atomctl, live_version, sentence)

OPTIONS = dict(
    version=dict(type="str"),
    file=dict(type="path"),
    mode=dict(type="str", choices=["warm", "cold"], default="warm"),
    soak=dict(type="str"),
    stall=dict(type="str"),
    max_errors=dict(type="int"),
    deadline=dict(type="str"),
    at_deadline=dict(type="str", choices=["abort", "reissue", "fail"]),
    keep_parked=dict(type="bool", default=False),
    back=dict(type="bool", default=False),
    settle=dict(type="int", default=60),
    origin=dict(type="str", choices=["operator", "fleet"], default="fleet"),
    atomctl=dict(type="str", default="atomctl"),
)


class Upgrade:
    """One node on its way to the wanted payload. Each step ends the module or returns."""

    def __init__(self, module, atomctl):
        self.module = module
        self.wishes = module.params
        self.atomctl = atomctl
        self.before = None
        self.status = {}

    def run(self):
        self.survey()
        if self.is_there():
            self.leave("unchanged", DONE)
        if self.module.check_mode:
            self.plan()
        else:
            self.upgrade()

    def survey(self):
        """Nothing is begun on a node that has something else under way, or whose I/O is held."""
        answer = self.atomctl.status(self.wishes["settle"])
        self.status = answer.document
        if answer.code != DONE:
            self.fail("refused", answer.code, answer.problem())
        self.before = live_version(self.status)
        if self.status.get("place") in HELD:
            self.fail("held", ATTENTION, {
                "what": "no payload serves, and I/O %s" % (
                    "waits" if self.status["place"] == "held" else "fails"),
                "why": "the node was so before this run touched it",
                "remedy": "run 'atomctl recover' on it, and read 'atomctl history' there",
            })

    def is_there(self):
        """Whether the wanted payload serves. One that does and is not what is on the disk is an error."""
        named = self.wishes["file"]
        if named:
            return self.atomctl.ask("verify", named).code == DONE
        if self.before != self.wishes["version"]:
            return False
        answer = self.atomctl.ask("verify")
        if answer.code != DONE:
            problem = answer.problem()
            problem["what"] = "%s serves, and atomctl verify is not content" % self.before
            problem["remedy"] = problem.get("remedy") or "run 'atomctl verify' on the node"
            self.fail("held" if answer.code == ATTENTION else "failed", answer.code, problem)
        return True

    def target(self):
        return self.wishes["file"] or self.wishes["version"]

    def way(self):
        """The verb and its words: back to a parked payload, or forth to one from its file."""
        wishes = self.wishes
        if wishes["back"] and wishes["version"] in self.status.get("parked", []):
            words = ["rollback", wishes["version"]]
            return words + self.drained()
        words = ["upgrade", self.target()] + self.drained()
        if wishes["mode"] == "cold":
            return words + ["--cold"]
        if wishes["soak"]:
            words += ["--soak", wishes["soak"]]
            if wishes["stall"]:
                words += ["--stall", wishes["stall"]]
            if wishes["max_errors"] is not None:
                words += ["--max-errors", str(wishes["max_errors"])]
        if wishes["keep_parked"]:
            words.append("--keep-parked")
        return words

    def drained(self):
        words = []
        for option in ("deadline", "at_deadline"):
            if self.wishes[option]:
                words += ["--" + option.replace("_", "-"), self.wishes[option]]
        return words

    def plan(self):
        words = ["plan", self.target()]
        if self.wishes["mode"] == "cold":
            words.append("--cold")
        answer = self.atomctl.ask(*words)
        if answer.code != DONE:
            self.fail("refused", answer.code, answer.problem(), plan=answer.document)
        self.leave("would-upgrade", DONE, after=self.wishes["version"] or self.target(), plan=answer.document)

    def upgrade(self):
        answer = self.atomctl.ask("--origin", self.wishes["origin"], *self.way())
        self.status = self.atomctl.status().document
        report = answer.document
        if answer.code == DONE:
            self.leave("rolled-back" if self.wishes["back"] else "upgraded", DONE, after=live_version(self.status),
                       report=report)
        state = {USAGE: "refused", REFUSED: "refused", ATTENTION: "held"}.get(answer.code, "failed")
        # A program that was killed has another code, and may have left anything.
        if state == "failed" and self.status.get("place") in HELD:
            state = "held"
        code = ATTENTION if state == "held" else answer.code if answer.code in (REFUSED, USAGE) else UNDONE
        self.fail(state, code, answer.problem(), report=report)

    def leave(self, state, code, after=None, **more):
        changed = state != "unchanged"
        result = dict(changed=changed, state=state, exit_code=code, from_version=self.before,
                      version=(after if changed else self.before), **more)
        # In check mode nothing is live yet, so the version is the one that would be.
        if self.module._diff:
            result["diff"] = dict(before="payload %s\n" % self.before,
                                  after="payload %s\n" % result["version"])
        self.module.exit_json(**result)

    def fail(self, state, code, problem, **more):
        remedy = problem.get("remedy")
        if state == "held" and not remedy:
            remedy = "run 'atomctl recover' on the node at once"
        self.module.fail_json(
            msg=sentence(dict(problem, remedy=remedy)), state=state, exit_code=code, from_version=self.before,
            version=live_version(self.status), remedy=remedy, what=problem["what"], why=problem.get("why"), **more)


def main():
    module = AnsibleModule(
        argument_spec=OPTIONS,
        required_one_of=[("version", "file")],
        mutually_exclusive=[("version", "file")],
        supports_check_mode=True,
    )
    Upgrade(module, Atomctl(module, module.params["atomctl"])).run()


if __name__ == "__main__":
    main()
