# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""What is told of a node."""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

import unittest

from ansible_collections.atom.fleet.plugins.plugin_utils.report import why


class Why(unittest.TestCase):
    def test_a_command_that_failed_is_told_with_what_it_has_said(self):
        told = why({"msg": "non-zero return code", "rc": 3, "stderr": "error: no\n  why: it is so\n", "stdout": "x"})
        self.assertEqual(told, "non-zero return code: error: no why: it is so")

    def test_of_a_long_output_the_end_is_told(self):
        told = why({"msg": "failed", "stdout": "\n".join("line %d" % number for number in range(9))})
        self.assertEqual(told, "failed: line 5 line 6 line 7 line 8")

    def test_a_task_without_a_command_is_told_by_its_message(self):
        self.assertEqual(why({"msg": "no folder"}), "no folder")
        self.assertEqual(why({}), "")
