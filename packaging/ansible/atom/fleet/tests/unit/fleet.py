# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""A fleet of fake nodes on this machine, and the playbooks of the collection over it."""

import json
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
COLLECTION = os.path.dirname(os.path.dirname(HERE))
FAKE = os.path.join(COLLECTION, "tests", "fake")


class Fleet:
    """Nodes n1, n2, ... that serve 2.0.0 and have 2.1.0 installed."""

    def __init__(self, count, **state):
        self.folder = tempfile.mkdtemp(prefix="atom-fleet-")
        self.names = ["n%d" % number for number in range(1, count + 1)]
        self.rollout = os.path.join(self.folder, "atom-rollout.json")
        self.inventory = os.path.join(self.folder, "inventory")
        self.said = ""
        collections = os.path.join(self.folder, "collections", "ansible_collections")
        os.makedirs(os.path.join(collections, "atom"))
        os.symlink(COLLECTION, os.path.join(collections, "atom", "fleet"))
        with open(self.inventory, "w") as file:
            for name in self.names:
                node = os.path.join(self.folder, name)
                os.makedirs(node)
                shutil.copy(os.path.join(FAKE, "atomctl"), node)
                file.write("%s atom_fleet_atomctl=%s/atomctl atom_fake_folder=%s\n" % (name, node, node))
                self.set(name, **dict({"live": "2.0.0", "place": "live", "parked": [], "faults": [],
                                       "installed": ["2.0.0", "2.1.0"]}, **state))
            file.write("[all:vars]\nansible_connection=dying\nansible_python_interpreter=%s\n" % sys.executable)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.folder)

    def path(self, name, file):
        return os.path.join(self.folder, name, file)

    def get(self, name):
        with open(self.path(name, "state.json")) as file:
            return json.load(file)

    def set(self, name, **state):
        whole = self.get(name) if os.path.exists(self.path(name, "state.json")) else {}
        whole.update(state)
        with open(self.path(name, "state.json"), "w") as file:
            json.dump(whole, file)

    def kill(self, name):
        """The node cannot be reached any more."""
        with open(self.path(name, "dead"), "w"):
            pass

    def revive(self, name):
        os.remove(self.path(name, "dead"))

    def upgrades(self, name):
        """What the node was told to do, a line each."""
        if not os.path.exists(self.path(name, "calls")):
            return []
        with open(self.path(name, "calls")) as file:
            return file.read().splitlines()

    def live(self):
        """What serves, node by node."""
        return [self.get(name)["live"] for name in self.names]

    def record(self):
        with open(self.rollout) as file:
            return json.load(file)

    def environment(self):
        collections = os.path.join(self.folder, "collections")
        return dict(
            os.environ, ANSIBLE_COLLECTIONS_PATH=collections, ANSIBLE_COLLECTIONS_PATHS=collections,
            ANSIBLE_CONNECTION_PLUGINS=os.path.join(FAKE, "connection_plugins"), ANSIBLE_HOME=self.folder,
            ANSIBLE_LOCAL_TEMP=os.path.join(self.folder, "tmp"), ANSIBLE_REMOTE_TEMP=os.path.join(self.folder, "tmp"),
            ANSIBLE_STDOUT_CALLBACK="atom.fleet.quiet", ANSIBLE_CALLBACKS_ENABLED="atom.fleet.report",
            ANSIBLE_RETRY_FILES_ENABLED="0", ANSIBLE_NOCOLOR="1", ANSIBLE_PIPELINING="1", ANSIBLE_FORKS="2",
            ANSIBLE_LOCALHOST_WARNING="0", LC_ALL="C.UTF-8", ATOM_FLEET_REPORT=os.path.join(self.folder, "report.json"))

    def command(self, verb, *more, **variables):
        wishes = dict({"atom_fleet_version": "2.1.0", "atom_fleet_retry_delay": 0, "atom_fleet_settle": 5}, **variables)
        return ["ansible-playbook", "-i", self.inventory, "-e", json.dumps(wishes), *more, "atom.fleet.%s" % verb]

    def run(self, verb, *more, **variables):
        """Runs a playbook and returns its report."""
        report = os.path.join(self.folder, "report.json")
        if os.path.exists(report):
            os.remove(report)
        done = subprocess.run(self.command(verb, *more, **variables), env=self.environment(), stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, universal_newlines=True, check=False)
        self.said, self.code = done.stdout, done.returncode
        if not os.path.exists(report):
            raise AssertionError("there is no report: %s" % self.said)
        with open(report) as file:
            return json.load(file)


def states(report):
    """State by node."""
    return {node["node"]: node["state"] for node in report["nodes"]}
