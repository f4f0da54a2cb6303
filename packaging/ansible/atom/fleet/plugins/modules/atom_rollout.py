#!/usr/bin/python
# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""Only the documentation; the work is done on the controller, in the action plugin of this name."""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

DOCUMENTATION = r"""
module: atom_rollout
short_description: Keeps the record of a rollout
description:
  - Runs on the controller. The playbooks of this collection use it; a playbook of one's own can, in the same order.
  - The record says which node was touched, from which version, and what became of it. It is what a later run goes on
    from, and what is rolled back.
version_added: "1.0.0"
author: The Atom project
options:
  file:
    description: The record, on the controller. It is an C(atom.rollout/1).
    type: path
    required: true
  step:
    description:
      - C(begin) begins a rollout of O(version), or goes on with the one that the file records. The nodes were asked with
        M(atom.fleet.atom_facts) before, registered as C(atom_fleet_seen). Once for all nodes.
      - C(enter) says that this node's batch begins, or that it must not.
      - C(failed) records that something beside the upgrade itself failed on this node.
      - C(confirm) records that this node was proved to be well after its upgrade.
      - C(gate) ends a batch, and fails when there must not be another one. Once for all nodes.
      - C(begin_back) begins to roll back. Once for all nodes.
      - C(close) ends a run, and fails when it is not complete. Once for all nodes.
    type: str
    choices: [begin, enter, failed, confirm, gate, begin_back, close]
    required: true
  version:
    description: The version that shall serve everywhere. With C(begin).
    type: str
  canary:
    description: How many nodes are the canary. When one of them fails, the rollout stops. With C(begin).
    type: int
    default: 1
  max_failures:
    description: How many nodes may fail before the rollout stops, such as C(2) or C(10%). With C(begin).
    type: str
    default: "0"
  reason:
    description: Why it failed. With C(failed).
    type: str
  remedy:
    description: What to do about it. With C(failed).
    type: str
  state:
    description: What the node is now. With C(failed).
    type: str
    default: failed
"""

EXAMPLES = r"""
- name: Begin or go on
  atom.fleet.atom_rollout:
    file: rollout.json
    step: begin
    version: 2.1.0
    canary: 2
    max_failures: 5%
  run_once: true
  register: atom_fleet_begun
"""

RETURN = r"""
todo:
  description: The nodes that are to be touched, in their order.
  type: list
  returned: with begin and begin_back
back:
  description: The version that each of these nodes had before.
  type: dict
  returned: with begin_back
stopped:
  description: Whether the rollout was stopped, so that this node must not be touched.
  type: bool
  returned: with enter
record:
  description: The record.
  type: dict
  returned: with begin and begin_back
"""
