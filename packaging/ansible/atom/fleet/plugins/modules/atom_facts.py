#!/usr/bin/python
# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""Tells what runs on one node."""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

DOCUMENTATION = r"""
module: atom_facts
short_description: Tells which payload of Atom serves on a node, and whether it is what is installed
description:
  - Returns what C(atomctl status) says, and on demand what C(atomctl list) and C(atomctl verify) say.
  - With O(expect) or O(verify) it fails when the node is not as it should be.
version_added: "1.0.0"
author: The Atom project
requirements: [atomctl on the node]
options:
  verify:
    description: Whether to prove that the code in memory is the code on the disk, and that devices are as they should be.
    type: bool
    default: false
  expect:
    description: The version that shall serve.
    type: str
  installed:
    description: Whether to list the payloads that are installed.
    type: bool
    default: false
  atomctl:
    description: The node tool, as a name in the search path or as a path.
    type: str
    default: atomctl
attributes:
  check_mode:
    description: Changes nothing at any time.
    support: full
"""

EXAMPLES = r"""
- name: Ask what serves
  atom.fleet.atom_facts:

- name: Prove that 2.1.0 serves
  atom.fleet.atom_facts:
    verify: true
    expect: 2.1.0
"""

RETURN = r"""
ansible_facts:
  description: The facts.
  type: dict
  returned: when atomctl could be asked
  contains:
    atom:
      description: The documents of atomctl, by verb.
      type: dict
      contains:
        status:
          description: The C(atom.status/1).
          type: dict
        list:
          description: The C(atom.list/1); with O(installed) or O(verify).
          type: dict
        verify:
          description: The C(atom.verify/1); with O(verify).
          type: dict
state:
  description: C(live), C(verified) (with O(verify)), C(wrong), C(held), C(vacant) or C(unknown).
  type: str
  returned: always
version:
  description: The version that serves.
  type: str
  returned: always
build_id:
  description: The build id of the payload that serves, with O(verify), where atomctl tells it.
  type: str
  returned: always
exit_code:
  description: What atomctl would exit with for it. 4 says that I/O is held.
  type: int
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.atom.fleet.plugins.module_utils.atomctl import (
    ATTENTION, DONE, HELD, UNDONE, Atomctl, live_version, sentence)

OPTIONS = dict(
    verify=dict(type="bool", default=False),
    expect=dict(type="str"),
    installed=dict(type="bool", default=False),
    atomctl=dict(type="str", default="atomctl"),
)


def build_id(listing):
    """The build id of the live payload, in a list document."""
    for entry in listing.get("payloads", []):
        if entry.get("state") == "live":
            return entry.get("build_id")
    return None


class Look:
    """One look at a node."""

    def __init__(self, module, atomctl):
        self.module = module
        self.atomctl = atomctl
        self.documents = {}
        self.version = None

    def run(self):
        wishes = self.module.params
        status = self.atomctl.status()
        self.documents["status"] = status.document
        self.version = live_version(status.document)
        if status.code != DONE:
            self.fail("unknown", status.code, status.problem())
        if wishes["installed"] or wishes["verify"]:
            self.documents["list"] = self.atomctl.ask("list").document
        place = status.document.get("place")
        if place in HELD:
            self.end("held", ATTENTION, {
                "what": "no payload serves, and I/O %s" % ("waits" if place == "held" else "fails"),
                "why": "the node is '%s'" % place,
                "remedy": "run 'atomctl recover' on it at once",
            })
        if wishes["verify"]:
            answer = self.atomctl.ask("verify")
            self.documents["verify"] = answer.document
            if answer.code != DONE:
                self.end("held" if answer.code == ATTENTION else "wrong", answer.code, answer.problem())
        if wishes["expect"] and self.version != wishes["expect"]:
            self.end("wrong", UNDONE, {
                "what": "%s serves instead of %s" % (self.version or "no payload", wishes["expect"]),
                "why": "it was not upgraded, or it went back: 'atomctl history' on the node says which",
                "remedy": "run the upgrade again",
            })
        if self.version is None:
            self.end("vacant", DONE, None)
        self.end("verified" if wishes["verify"] else "live", DONE, None)

    def end(self, state, code, problem):
        """A look that was not to prove anything succeeds whatever it has seen."""
        wishes = self.module.params
        facts = dict(atom=self.documents)
        if problem is not None and (wishes["verify"] or wishes["expect"]):
            self.fail(state, code, problem, ansible_facts=facts)
        self.module.exit_json(changed=False, state=state, exit_code=code, version=self.version,
                              build_id=build_id(self.documents.get("list", {})), ansible_facts=facts,
                              **({"remedy": problem["remedy"], "what": problem["what"]} if problem else {}))

    def fail(self, state, code, problem, **more):
        self.module.fail_json(msg=sentence(problem), state=state, exit_code=code, version=self.version,
                              build_id=build_id(self.documents.get("list", {})), remedy=problem.get("remedy"),
                              what=problem["what"], why=problem.get("why"), **more)


def main():
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    Look(module, Atomctl(module, module.params["atomctl"])).run()


if __name__ == "__main__":
    main()
