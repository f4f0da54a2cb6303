# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""A connection to a node on this machine, which is gone once the file 'dead' lies in the node's folder."""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

DOCUMENTATION = r"""
name: dying
short_description: A local connection that ends
description: As C(local), until the file C(dead) appears in O(folder).
options:
  folder:
    description: The node's folder.
    type: str
    vars:
      - name: atom_fake_folder
"""

import os

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection.local import Connection as Local


class Connection(Local):
    """The local connection, but for its end."""

    transport = "dying"

    def exec_command(self, cmd, in_data=None, sudoable=True):
        self._alive()
        done = super(Connection, self).exec_command(cmd, in_data=in_data, sudoable=sudoable)
        self._alive()
        return done

    def put_file(self, in_path, out_path):
        self._alive()
        return super(Connection, self).put_file(in_path, out_path)

    def _alive(self):
        if os.path.exists(os.path.join(self.get_option("folder"), "dead")):
            raise AnsibleConnectionFailure("Failed to connect to the host via ssh: no route to host")
