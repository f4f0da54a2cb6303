# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""What is made of the answers of atomctl."""

import json
import unittest

from ansible_collections.atom.fleet.plugins.module_utils.atomctl import live_version, read, sentence
from ansible_collections.atom.fleet.plugins.plugin_utils.report import Report, table


class Answers(unittest.TestCase):

    def test_an_error_keeps_its_three_parts(self):
        error = {"schema": "atom.error/1", "exit_code": 3, "what": "no", "why": "because", "remedy": "do"}
        problem = read(3, json.dumps(error), "").problem()
        self.assertEqual(sentence(problem), "no: because (what to do: do)")

    def test_a_report_says_its_reason(self):
        report = {"schema": "atom.upgrade-report/1", "outcome": "rolled-back", "reason": "adopt failed"}
        self.assertEqual(sentence(read(1, json.dumps(report), "").problem()),
                         "the upgrade ended as rolled-back: adopt failed")

    def test_a_verification_says_what_is_wrong(self):
        document = {"schema": "atom.verify/1", "ok": False, "checks": [
            {"name": "state", "ok": True, "detail": "live"}, {"name": "build id", "ok": False, "detail": "12, not 34"}]}
        self.assertIn("build id: 12, not 34", sentence(read(1, json.dumps(document), "").problem()))

    def test_a_program_without_a_document_is_quoted(self):
        for out in ("", "{", "[]", '{"schema": "other"}'):
            answer = read(127, out, "not found")
            self.assertEqual(answer.document, {})
            self.assertIn("not found", sentence(answer.problem()))

    def test_nobody_serves_where_nobody_does(self):
        self.assertIsNone(live_version({"live": None}))
        self.assertIsNone(live_version({}))
        self.assertEqual(live_version({"live": {"version": "1.0.0"}}), "1.0.0")


class Summary(unittest.TestCase):

    def test_who_holds_io_is_named_first(self):
        report = Report("status")
        report.know(["a", "b"])
        report.tell("a", {"state": "live", "version": "1.0.0", "status": {}})
        report.tell("b", {"state": "held", "reason": "no payload serves", "remedy": "atomctl recover"})
        document = report.end()
        self.assertEqual([node["node"] for node in document["nodes"]], ["b", "a"])
        self.assertEqual((document["outcome"], document["exit_code"], document["attention"]), ("held", 4, ["b"]))
        self.assertIn("I/O IS HELD on b", table(document))

    def test_a_node_of_which_nothing_was_heard_is_not_taken_for_good(self):
        for verb in ("plan", "verify", "status"):
            report = Report(verb)
            report.know(["a"])
            self.assertNotEqual(report.end()["exit_code"], 0, verb)

    def test_no_node_at_all_is_not_success(self):
        self.assertEqual(Report("verify").end()["exit_code"], 3)


if __name__ == "__main__":
    unittest.main()
