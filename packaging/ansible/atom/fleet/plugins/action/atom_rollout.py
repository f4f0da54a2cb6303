# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""Keeps the record of a rollout. It runs on the controller and asks nothing of a node."""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.atom.fleet.plugins.plugin_utils.node import KEY
from ansible_collections.atom.fleet.plugins.plugin_utils.rollout import HELD, LOST, Refused, Rollout

# The variable in which the survey of each node was registered.
SEEN = "atom_fleet_seen"


def look(seen):
    """What a node's survey says to Rollout.begin."""
    if not seen or seen.get("unreachable"):
        return {"version": None, "why": "it cannot be reached: %s" % (seen or {}).get("msg", "it was not asked"),
                "remedy": "make it reachable, then run the same again"}
    if seen.get("state") == "held":
        return {"version": None, "held": True, "why": seen.get("what") or "it holds I/O", "remedy": seen.get("remedy")}
    if seen.get("failed"):
        return {"version": None, "why": seen.get("msg", "it could not be asked"), "remedy": seen.get("remedy")}
    return {"version": seen.get("version")}


class ActionModule(ActionBase):
    """See the documentation of the module of this name."""

    TRANSFERS_FILES = False
    _VALID_ARGS = frozenset(("file", "step", "version", "canary", "max_failures", "reason", "remedy", "state"))

    def run(self, tmp=None, task_vars=None):
        result = super(ActionModule, self).run(tmp, task_vars)
        args = self._task.args
        if not args.get("file"):
            raise AnsibleError("atom_rollout needs 'file', the record on this machine")
        self.rollout = Rollout(args["file"])
        self.vars = task_vars
        self.name = task_vars["inventory_hostname"]
        step = getattr(self, "_%s" % args.get("step"), None)
        if step is None:
            raise AnsibleError("atom_rollout knows no step '%s'" % args.get("step"))
        result["changed"] = False
        result["rollout"] = self.rollout.path
        try:
            step(args, result)
        except Refused as error:
            result.update(failed=True, refused=True, msg=str(error))
        return result

    def _all_nodes(self):
        """The names of all nodes of the play, in the inventory's order, the first ones to be touched."""
        return list(self.vars["ansible_play_hosts_all"])

    def _begin(self, args, result):
        if not args.get("version"):
            raise Refused("no version is named: set atom_fleet_version")
        seen = {name: look(self.vars["hostvars"][name].get(SEEN)) for name in self._all_nodes()}
        todo = self.rollout.begin(str(args["version"]), seen, int(args.get("canary", 1)), args.get("max_failures", 0))
        record = self.rollout.read()
        result.update(todo=todo, record=record)
        if record["stopped"]:
            result.update(failed=True, msg="nothing was begun: %s" % record["stopped"]["why"])

    def _enter(self, args, result):
        stopped = self.rollout.enter(self.name)
        result["stopped"] = bool(stopped)
        record = self.rollout.read()
        result.update(batch=record["batch"], canary=self.name in record["canary"])

    def _failed(self, args, result):
        """Something of a node's turn failed: the upgrade, which has recorded it, or what comes before and after."""
        node = self.rollout.read()["nodes"][self.name]
        state = args.get("state") or "failed"
        if node.get("state") in ("failed", "refused", HELD, LOST):
            state = node["state"]
        else:
            self.rollout.end(self.name, state, args.get("reason"), args.get("remedy"))
        node = self.rollout.read()["nodes"][self.name]
        result[KEY] = {"state": state, "reason": node.get("reason")}

    def _confirm(self, args, result):
        node = self.rollout.confirm(self.name)
        result[KEY] = {"state": node["state"]}

    def _gate(self, args, result):
        stopped = self.rollout.gate(list(self.vars["hostvars"]))
        if stopped:
            result.update(failed=True, msg="the rollout was stopped: %s" % stopped)

    def _begin_back(self, args, result):
        back = self.rollout.begin_back(self._all_nodes())
        result.update(back=back, todo=list(back), record=self.rollout.read())

    def _close(self, args, result):
        record = self.rollout.close()
        result["record"] = record
        if record["state"] not in ("complete", "rolled-back"):
            result.update(failed=True, msg="the rollout is %s: run the same again to go on" % record["state"])
