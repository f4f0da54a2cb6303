# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""The controller's half of atom_facts: what it saw, for the report; and the node's name in its errors."""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

from ansible.plugins.action import ActionBase
from ansible_collections.atom.fleet.plugins.plugin_utils.node import KEY, told


class ActionModule(ActionBase):
    """Runs the module of the same name on the node."""

    TRANSFERS_FILES = False

    def run(self, tmp=None, task_vars=None):
        result = super(ActionModule, self).run(tmp, task_vars)
        result.update(self._execute_module("atom.fleet.atom_facts", module_args=dict(self._task.args),
                                           task_vars=task_vars))
        if result.get("failed"):
            result["msg"] = "%s: %s" % (task_vars["inventory_hostname"], result.get("msg"))
        documents = result.get("ansible_facts", {}).get("atom", {})
        result[KEY] = told(result, status=documents.get("status"), verification=documents.get("verify"))
        return result
