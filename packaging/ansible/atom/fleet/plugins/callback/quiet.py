# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""Prints nothing of the tasks, for runs whose output is the report's."""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

DOCUMENTATION = r"""
name: quiet
type: stdout
short_description: Prints nothing of the tasks
description: For use beside P(atom.fleet.report#callback), which says what became of each node.
version_added: "1.0.0"
"""

from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    """Every method of the base does nothing."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "atom.fleet.quiet"
