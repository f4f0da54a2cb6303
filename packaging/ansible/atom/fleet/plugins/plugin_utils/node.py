# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""What the tasks of a rollout tell the callback about a node: the key 'atom' of their results."""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

KEY = "atom"

# Fields of a node in atom.fleet-report/1 that a result has under the same name.
SAME = ("state", "exit_code", "version", "from_version", "build_id", "remedy", "tries", "report", "plan")


def told(result, **more):
    """The entry for a result of atom_upgrade or atom_facts."""
    node = {key: result[key] for key in SAME if result.get(key) is not None}
    if result.get("failed") or result.get("remedy"):
        what, why = result.get("what") or result.get("msg"), result.get("why")
        node["reason"] = "%s: %s" % (what, why) if why else what
    node.update(more)
    return node
