# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""The controller's half of atom_upgrade: the record of the rollout, the tries, and the node's name in its errors."""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

import time

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible_collections.atom.fleet.plugins.plugin_utils.node import KEY, told
from ansible_collections.atom.fleet.plugins.plugin_utils.rollout import LOST, Refused, Rollout

# How atomctl exits when an upgrade failed and was undone: what may go better the next time.
UNDONE = 1


class ActionModule(ActionBase):
    """Runs the module of the same name on the node."""

    TRANSFERS_FILES = False

    def run(self, tmp=None, task_vars=None):
        result = super(ActionModule, self).run(tmp, task_vars)
        name = task_vars["inventory_hostname"]
        args = dict(self._task.args)
        retries = int(args.pop("retries", 0))
        delay = float(args.pop("retry_delay", 5))
        path = args.pop("rollout", None)
        back = str(args.get("back", False)).lower() in ("true", "yes", "1")
        rollout = Rollout(path) if path and not self._task.check_mode else None
        try:
            if rollout and not back:
                stopped = rollout.touch(name)
                if stopped:
                    result.update(skipped=True, skip_reason="the rollout was stopped: %s" % stopped)
                    return result
        except Refused as error:
            result.update(failed=True, msg="%s: %s" % (name, error))
            return result
        done = self._tries(name, args, retries, delay, task_vars)
        if rollout:
            record = rollout.end_back if back else rollout.end
            told_of = done[KEY]
            record(name, told_of["state"], told_of.get("reason"), told_of.get("remedy"))
        result.update(done)
        return result

    def _tries(self, name, args, retries, delay, task_vars):
        """What the last try has said."""
        number = 0
        while True:
            number += 1
            done = self._once(args, task_vars)
            again = done.get("failed") and done.get("exit_code") == UNDONE and number <= retries
            if not again or done.get("state") != "failed":
                break
            self._display.display("  %s: try %d of %d failed: %s" % (name, number, retries + 1, done.get("msg")))
            time.sleep(delay)
        done["tries"] = number
        done.setdefault("state", "failed")
        if done.get("failed"):
            done["msg"] = "%s: %s" % (name, done.get("msg"))
        done[KEY] = told(done)
        return done

    def _once(self, args, task_vars):
        try:
            return self._execute_module("atom.fleet.atom_upgrade", module_args=args, task_vars=task_vars)
        except AnsibleConnectionFailure as error:
            # Ansible would take the node out of the play, and nobody would know that it was touched.
            remedy = "look at the node, then run the same again: what it had begun is finished or undone there"
            return dict(failed=True, state=LOST, what="the connection ended in the middle of the upgrade",
                        why=str(error).strip(), remedy=remedy,
                        msg="the connection ended in the middle of the upgrade: %s (what to do: %s)" % (error, remedy))
