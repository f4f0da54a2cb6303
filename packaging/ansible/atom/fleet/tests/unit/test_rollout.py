# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""The record of a rollout, without a fleet."""

import json
import os
import shutil
import tempfile
import unittest

from ansible_collections.atom.fleet.plugins.plugin_utils.rollout import Refused, Rollout, allowance


def at(version):
    return {"version": version}


class Record(unittest.TestCase):

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="atom-rollout-")
        self.rollout = Rollout(os.path.join(self.folder, "r.json"))

    def tearDown(self):
        shutil.rmtree(self.folder)

    def begin(self, canary=1, limit="0", version="2.1.0", **nodes):
        return self.rollout.begin(version, nodes, canary, limit)

    def pass_through(self, name, state="upgraded"):
        self.assertIsNone(self.rollout.enter(name))
        self.assertIsNone(self.rollout.touch(name))
        self.rollout.end(name, state)
        if state in ("upgraded", "unchanged"):
            self.rollout.confirm(name)

    def node(self, name):
        return self.rollout.read()["nodes"][name]

    def test_a_limit_is_a_number_or_a_share_rounded_down(self):
        self.assertEqual(allowance("2", 10), 2)
        self.assertEqual(allowance("10%", 19), 1)
        self.assertEqual(allowance("100%", 3), 3)
        for wrong in ("-1", "110%", "many", "", "5 %%"):
            with self.assertRaises(Refused):
                allowance(wrong, 10)

    def test_a_node_is_recorded_as_touched_before_anything_happens_to_it(self):
        self.begin(a=at("2.0.0"))
        self.assertFalse(self.node("a")["touched"])
        self.rollout.enter("a")
        self.assertFalse(self.node("a")["touched"])
        self.rollout.touch("a")
        self.assertTrue(self.node("a")["touched"])
        self.assertEqual(self.node("a")["from"], "2.0.0")

    def test_what_an_interrupted_run_has_touched_is_touched_in_the_next_one(self):
        self.begin(a=at("2.0.0"), b=at("2.0.0"))
        self.rollout.enter("a")
        self.rollout.touch("a")
        # Nothing more is heard of this run. The node was upgraded all the same.
        self.assertEqual(self.begin(a=at("2.1.0"), b=at("2.0.0")), ["b", "a"])
        self.pass_through("b")
        self.pass_through("a", "unchanged")
        self.assertEqual((self.node("a")["state"], self.node("a")["from"]), ("upgraded", "2.0.0"))
        self.assertEqual(self.rollout.close()["state"], "complete")
        self.assertEqual(self.rollout.begin_back(["a", "b"]), {"a": "2.0.0", "b": "2.0.0"})

    def test_a_node_that_had_the_version_is_not_rolled_back_and_is_no_canary(self):
        self.assertEqual(self.begin(a=at("2.1.0"), b=at("2.0.0")), ["b", "a"])
        self.assertEqual(self.rollout.read()["canary"], ["b"])
        self.pass_through("b")
        self.pass_through("a", "unchanged")
        self.assertEqual(self.rollout.begin_back(["a", "b"]), {"b": "2.0.0"})

    def test_a_canary_that_fails_stops_whatever_the_limit_is(self):
        self.begin(limit="100%", a=at("2.0.0"), b=at("2.0.0"))
        self.pass_through("a", "failed")
        self.assertIn("canary a", self.rollout.enter("b"))
        self.assertFalse(self.node("b")["touched"])

    def test_failures_count_over_all_batches(self):
        self.begin(limit="1", a=at("1"), b=at("1"), c=at("1"), d=at("1"))
        self.pass_through("a")
        self.pass_through("b", "failed")
        self.assertIsNone(self.rollout.gate(["a", "b"]))
        self.pass_through("c", "failed")
        self.assertEqual(self.rollout.gate(["c"]), "2 nodes failed, and 1 may")
        self.assertEqual(self.rollout.enter("d"), "2 nodes failed, and 1 may")

    def test_a_node_that_holds_io_stops_those_that_wait_in_the_same_batch(self):
        self.begin(limit="100%", a=at("1"), b=at("1"), c=at("1"))
        self.pass_through("a")
        for name in ("b", "c"):
            self.rollout.enter(name)
        self.rollout.touch("b")
        self.rollout.end("b", "held", "neither payload adopts")
        self.assertEqual(self.rollout.touch("c"), "b holds I/O")
        self.assertEqual((self.node("c")["state"], self.node("c")["touched"]), ("waiting", False))
        # It stays the reason, whatever comes after it.
        self.rollout.end("a", "failed")
        self.assertEqual(self.rollout.gate(["a", "b", "c"]), "b holds I/O")

    def test_nothing_begins_while_a_node_holds_io(self):
        self.assertEqual(self.begin(a=at("1"), b={"version": None, "held": True, "why": "no payload serves"}), [])
        self.assertEqual(self.rollout.read()["stopped"]["why"], "b holds I/O")

    def test_a_node_of_which_nothing_was_heard_in_its_turn_is_lost_and_counts(self):
        self.begin(a=at("1"), b=at("1"), c=at("1"))
        self.pass_through("a")
        self.rollout.enter("b")
        self.rollout.touch("b")
        self.rollout.enter("c")
        self.assertIn("2 nodes failed", self.rollout.gate(["a", "b", "c"]))
        self.assertEqual((self.node("b")["state"], self.node("c")["state"]), ("lost", "unreachable"))

    def test_a_node_that_was_not_proved_to_be_well_is_lost(self):
        self.begin(a=at("1"))
        self.rollout.enter("a")
        self.rollout.touch("a")
        self.rollout.end("a", "upgraded")
        self.assertIsNotNone(self.rollout.gate(["a"]))
        self.assertEqual(self.node("a")["state"], "lost")

    def test_a_node_that_cannot_be_reached_takes_no_part_and_keeps_the_rollout_open(self):
        self.assertEqual(self.begin(a=at("1"), b={"version": None, "why": "it cannot be reached"}), ["a"])
        self.pass_through("a")
        self.assertEqual(self.rollout.close()["state"], "incomplete")
        self.assertEqual(self.begin(a=at("2.1.0"), b=at("1")), ["b"])
        self.pass_through("b")
        self.assertEqual(self.rollout.close()["state"], "complete")

    def test_another_rollout_does_not_take_the_place_of_one_that_is_not_finished(self):
        self.begin(a=at("1"), b=at("1"))
        self.pass_through("a")
        with self.assertRaises(Refused):
            self.begin(version="3.0.0", a=at("2.1.0"), b=at("1"))
        self.pass_through("b")
        self.rollout.close()
        self.assertEqual(self.begin(version="3.0.0", a=at("2.1.0"), b=at("2.1.0")), ["a", "b"])
        self.assertEqual(self.node("a")["from"], "2.1.0")

    def test_a_way_back_that_reached_not_everybody_goes_on(self):
        self.begin(a=at("1"), b=at("1"))
        self.pass_through("a")
        self.pass_through("b")
        self.rollout.close()
        self.assertEqual(sorted(self.rollout.begin_back(["a", "b"])), ["a", "b"])
        self.rollout.end_back("a", "rolled-back")
        self.rollout.end_back("b", "lost", "no route to host")
        self.assertEqual(self.rollout.close()["state"], "rolling-back")
        self.assertEqual(self.rollout.begin_back(["a", "b"]), {"b": "1"})
        self.rollout.end_back("b", "unchanged")
        self.assertEqual(self.rollout.close()["state"], "rolled-back")

    def test_a_file_of_somebody_else_is_neither_used_nor_overwritten(self):
        for content in ("{", json.dumps({"schema": "atom.status/1"}), "[]"):
            with open(self.rollout.path, "w") as file:
                file.write(content)
            with self.assertRaises(Refused):
                self.begin(a=at("1"))
            with open(self.rollout.path) as file:
                self.assertEqual(file.read(), content)

    def test_there_is_nothing_to_take_back_without_a_record(self):
        with self.assertRaises(Refused):
            self.rollout.begin_back(["a"])


if __name__ == "__main__":
    unittest.main()
