# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""Tells how a run over the fleet goes on, and at its end what became of each node: as a table, and as one document."""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

DOCUMENTATION = r"""
name: report
type: aggregate
short_description: The summary of a run over the fleet
description:
  - Prints a line when something became of a node, and a table at the end of the playbooks of this collection.
  - Writes one document, C(atom.fleet-report/1).
  - At the first interrupt of a rollout the nodes in their turn go on to their end, and no other is touched. At the second one,
    and in other playbooks, the run ends at once. The table and the document come in any case.
version_added: "1.0.0"
requirements:
  - enable in configuration, C(callbacks_enabled=atom.fleet.report)
options:
  report_file:
    description: Where the document goes. None is written when this is empty.
    type: str
    default: ""
    env:
      - name: ATOM_FLEET_REPORT
    ini:
      - section: atom_fleet
        key: report
"""

import atexit
import json
import os
import signal

from ansible.plugins.callback import CallbackBase
from ansible_collections.atom.fleet.plugins.plugin_utils.node import KEY
from ansible_collections.atom.fleet.plugins.plugin_utils.report import Report, table, why

# What an interrupt is answered with.
GOING_ON = "interrupted: nodes in their turn go on to their end, no other is touched; interrupt again to end at once\n"

VERBS = ("plan", "prepare", "upgrade", "verify", "rollback", "status")


class CallbackModule(CallbackBase):
    """Collects what the tasks tell of the nodes."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "atom.fleet.report"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args, **kwargs):
        super(CallbackModule, self).__init__(*args, **kwargs)
        self.report = None

    def v2_playbook_on_start(self, playbook):
        verb = os.path.splitext(os.path.basename(playbook._file_name))[0]
        self.report = Report(verb) if verb in VERBS else None
        if self.report is not None:
            self.process = os.getpid()
            self.interrupt = signal.signal(signal.SIGINT, self._interrupted)

    def v2_playbook_on_play_start(self, play):
        if self.report is None:
            return
        try:
            hosts = play.get_variable_manager()._inventory.get_hosts(play.hosts)
            self.report.know([host.get_name() for host in hosts])
        except Exception:  # pylint: disable=broad-except
            # Only for the order and for nodes of which nothing is heard; a play without hosts has none.
            return

    def v2_runner_on_ok(self, result):
        self._heard(result, None)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self._heard(result, "failed")

    def v2_runner_on_unreachable(self, result):
        self._heard(result, "unreachable")

    def v2_playbook_on_stats(self, stats):
        if self.report is not None:
            self._end()

    def _interrupted(self, number, frame):
        """Ansible's own answer ends the run at once, and with it what the nodes in their turn have to say."""
        if os.getpid() != self.process or self.report is None:
            return self.interrupt(number, frame)
        first = self.report.interrupted is None
        if first and self.report.interrupt():
            os.write(2, GOING_ON.encode())
            return None
        # What is known is told when everything else has ended.
        atexit.register(self._at_exit)
        return self.interrupt(number, frame)

    def _at_exit(self):
        if os.getpid() == self.process and self.report is not None:
            self._end()

    def _end(self):
        """Once."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        report, self.report = self.report, None
        document = report.end()
        # The document first: whoever reads only that is not to miss it because an output is closed.
        path = self.get_option("report_file")
        if path:
            part = path + ".part"
            with open(part, "w") as file:
                json.dump(document, file, indent=2)
                file.write("\n")
            os.rename(part, path)
        self._display.display(table(document))

    def _heard(self, result, trouble):
        if self.report is None:
            return
        said = result._result
        name = result._host.get_name()
        if said.get("rollout"):
            self.report.recorded_in(said["rollout"])
        if said.get("refused"):
            self.report.refuse(said.get("msg"))
        told = said.get(KEY)
        if told is None and trouble is not None and not said.get("rollout"):
            told = {"state": trouble, "reason": "%s: %s" % (result._task.get_name(), why(said) or trouble)}
        if told is None:
            if "batch" in said:
                self._say(self.report.batch(said["batch"], said.get("canary")))
            elif said.get("todo") is not None:
                self._say(self.report.begun(said))
            return
        self._say(self.report.tell(name, told))

    def _say(self, line):
        if line:
            self._display.display(line)
