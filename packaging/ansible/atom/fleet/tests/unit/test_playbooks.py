# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""The playbooks over a fleet of fake nodes: what is touched, what is not, and what is said of it."""

import glob
import json
import os
import signal
import subprocess
import time
import unittest

from fleet import COLLECTION, Fleet, states


class Playbooks(unittest.TestCase):

    def test_each_one_is_understood(self):
        with Fleet(1) as fleet:
            for path in sorted(glob.glob(os.path.join(COLLECTION, "playbooks", "*.yml"))):
                done = subprocess.run(
                    ["ansible-playbook", "--syntax-check", "-i", fleet.inventory, "-e", "atom_fleet_version=2.1.0", path],
                    env=fleet.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True,
                    check=False)
                self.assertEqual(done.returncode, 0, done.stdout)

    def test_a_plan_says_who_would_refuse_and_touches_nobody(self):
        with Fleet(3) as fleet:
            fleet.set("n2", faults=["refuses"])
            fleet.set("n3", live="2.1.0")
            report = fleet.run("plan")
            self.assertEqual(states(report), {"n1": "would-upgrade", "n2": "refused", "n3": "unchanged"}, fleet.said)
            self.assertEqual((report["outcome"], report["exit_code"]), ("refused", 3))
            self.assertIn("no schema in common", report["nodes"][0]["reason"])
            self.assertEqual([fleet.upgrades(name) for name in fleet.names], [[], [], []])
            self.assertFalse(os.path.exists(fleet.rollout))

    def test_a_rollout_goes_through_in_batches_and_once_more_does_nothing(self):
        with Fleet(4) as fleet:
            report = fleet.run("upgrade", atom_fleet_soak="10s")
            self.assertEqual(report["outcome"], "done", fleet.said)
            self.assertEqual(fleet.live(), ["2.1.0"] * 4)
            self.assertEqual({node["node"]: node["batch"] for node in report["nodes"]},
                             {"n1": 1, "n2": 2, "n3": 3, "n4": 3})
            self.assertEqual(fleet.upgrades("n1"), ["2.1.0 --soak 10s"])
            self.assertEqual(report["nodes"][0]["report"]["schema"], "atom.upgrade-report/1")
            self.assertEqual((fleet.code, fleet.record()["state"]), (0, "complete"))
            again = fleet.run("upgrade")
            self.assertEqual((again["outcome"], again["counts"]), ("done", {"upgraded": 4}), fleet.said)
            self.assertEqual(len(fleet.upgrades("n1")), 1)
            fleet.set("n2", wrong=True)
            report = fleet.run("verify")
            self.assertEqual((report["exit_code"], report["nodes"][0]["state"], report["nodes"][0]["node"]),
                             (1, "wrong", "n2"), fleet.said)
            self.assertIn("build id", report["nodes"][0]["reason"])

    def test_a_canary_that_fails_is_the_only_node_that_was_touched(self):
        with Fleet(4) as fleet:
            fleet.set("n1", faults=["fails", "fails"])
            report = fleet.run("upgrade", atom_fleet_max_failures="100%")
            self.assertEqual(states(report), {"n1": "failed", "n2": "not-reached", "n3": "not-reached",
                                              "n4": "not-reached"}, fleet.said)
            self.assertEqual((report["outcome"], report["exit_code"]), ("stopped", 1))
            self.assertIn("adopt failed", report["nodes"][0]["reason"])
            self.assertEqual(len(fleet.upgrades("n1")), 2, "it was tried again")
            self.assertEqual([len(fleet.upgrades(name)) for name in fleet.names[1:]], [0, 0, 0])
            self.assertNotEqual(fleet.code, 0)

    def test_what_becomes_of_a_node_is_told_once(self):
        with Fleet(4) as fleet:
            fleet.set("n2", faults=["fails"])
            fleet.set("n3", faults=["dies"])
            fleet.set("n4", wrong=True)
            report = fleet.run("upgrade", atom_fleet_batches=["100%"], atom_fleet_max_failures="100%", atom_fleet_retries=0)
            self.assertEqual(states(report), {"n1": "upgraded", "n2": "failed", "n3": "lost", "n4": "failed"}, fleet.said)
            told = [line.split(":")[0].strip() for line in fleet.said.splitlines() if line.startswith("  n")]
            self.assertEqual(sorted(line for line in told if line in fleet.names), fleet.names, fleet.said)
            report = fleet.run("rollback")
            self.assertEqual(report["outcome"], "incomplete", fleet.said)
            self.assertEqual(fleet.said.count("  n1: rolled-back"), 1, fleet.said)

    def test_what_fails_once_is_tried_again_and_what_is_refused_is_not(self):
        with Fleet(2) as fleet:
            fleet.set("n1", faults=["fails"])
            fleet.set("n2", faults=["refuses"])
            report = fleet.run("upgrade", atom_fleet_max_failures="1")
            self.assertEqual(states(report), {"n1": "upgraded", "n2": "refused"}, fleet.said)
            self.assertEqual((len(fleet.upgrades("n1")), len(fleet.upgrades("n2"))), (2, 1))
            self.assertEqual(report["exit_code"], 1)
            self.assertNotEqual(fleet.code, 0)

    def test_a_node_that_holds_io_stops_the_rollout_and_is_named_first(self):
        with Fleet(5) as fleet:
            # Two at a time: n4 and n5 wait for their turn in the batch of n2 and n3.
            fleet.set("n3", faults=["holds"])
            fleet.set("n2", slow=1)
            report = fleet.run("upgrade", atom_fleet_batches=["100%"], atom_fleet_max_failures="100%")
            self.assertEqual((report["outcome"], report["exit_code"], report["attention"]), ("held", 4, ["n3"]), fleet.said)
            self.assertEqual(report["nodes"][0]["node"], "n3")
            self.assertIn("I/O IS HELD on n3", fleet.said)
            self.assertEqual(states(report)["n5"], "not-reached")
            self.assertEqual(fleet.upgrades("n5"), [])
            # Nothing more is begun before somebody has looked.
            report = fleet.run("upgrade")
            self.assertEqual((report["exit_code"], report["nodes"][0]["node"]), (4, "n3"), fleet.said)
            self.assertEqual(fleet.upgrades("n5"), [])

    def test_unreachable_and_dying_nodes_are_reported_and_a_second_run_completes(self):
        with Fleet(5) as fleet:
            fleet.kill("n2")
            fleet.set("n3", faults=["dies"])
            fleet.set("n4", faults=["switches and dies"])
            report = fleet.run("upgrade", atom_fleet_batches=["1", "100%"], atom_fleet_max_failures="1")
            self.assertEqual(states(report), {"n1": "upgraded", "n2": "unreachable", "n3": "lost", "n4": "lost",
                                              "n5": "upgraded"}, fleet.said)
            self.assertEqual(report["exit_code"], 1)
            self.assertIsNone(next(node for node in report["nodes"] if node["node"] == "n4")["version"])
            for name in ("n2", "n3", "n4"):
                fleet.revive(name)
            report = fleet.run("upgrade")
            self.assertEqual((report["outcome"], report["counts"]), ("done", {"upgraded": 5}), fleet.said)
            self.assertEqual([len(fleet.upgrades(name)) for name in fleet.names], [1, 1, 2, 1, 1])
            self.assertEqual({node["from"] for node in report["nodes"]}, {"2.0.0"})
            # Back, one after the other as they can be reached.
            fleet.kill("n5")
            report = fleet.run("rollback")
            self.assertEqual((report["outcome"], report["counts"]), ("incomplete", {"rolled-back": 4, "lost": 1}), fleet.said)
            fleet.revive("n5")
            report = fleet.run("rollback")
            self.assertEqual((report["outcome"], fleet.live()), ("done", ["2.0.0"] * 5), fleet.said)
            self.assertEqual(fleet.record()["state"], "rolled-back")

    def test_only_what_was_touched_is_rolled_back_and_a_parked_payload_needs_no_file(self):
        with Fleet(3) as fleet:
            fleet.set("n2", live="2.1.0")
            fleet.set("n3", faults=["fails", "fails"])
            report = fleet.run("upgrade", atom_fleet_keep_parked=True)
            self.assertEqual(states(report), {"n1": "upgraded", "n2": "not-reached", "n3": "failed"}, fleet.said)
            report = fleet.run("rollback")
            self.assertEqual(states(report), {"n1": "rolled-back", "n2": "untouched", "n3": "rolled-back"}, fleet.said)
            self.assertEqual(fleet.live(), ["2.0.0", "2.1.0", "2.0.0"])
            self.assertEqual(fleet.upgrades("n1")[-1], "rollback 2.0.0")

    def interrupted(self, fleet, times):
        """Interrupts a rollout in the turn of n2. Returns the report of it."""
        run = subprocess.Popen(fleet.command("upgrade"), env=fleet.environment(), stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, universal_newlines=True)
        end = time.time() + 120
        while not fleet.upgrades("n2"):
            self.assertLess(time.time(), end, "the second node's turn did not come")
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        if times > 1:
            while not fleet.record()["stopped"]:
                self.assertLess(time.time(), end, "the rollout was not stopped")
                time.sleep(0.05)
            run.send_signal(signal.SIGINT)
        fleet.said = run.communicate(timeout=120)[0]
        self.assertNotEqual(run.returncode, 0, fleet.said)
        with open(os.path.join(fleet.folder, "report.json")) as file:
            return json.load(file)

    def test_an_interrupt_lets_the_nodes_in_their_turn_come_to_their_end(self):
        with Fleet(3) as fleet:
            fleet.set("n2", slow=3)
            report = self.interrupted(fleet, 1)
            self.assertEqual(states(report), {"n1": "upgraded", "n2": "upgraded", "n3": "not-reached"}, fleet.said)
            self.assertEqual((report["outcome"], report["exit_code"], report["reason"]),
                             ("stopped", 1, "the run was interrupted"), fleet.said)
            record = fleet.record()
            self.assertEqual([record["nodes"][name]["touched"] for name in fleet.names], [True, True, False], record)
            self.assertEqual((fleet.live(), fleet.upgrades("n3")), (["2.1.0", "2.1.0", "2.0.0"], []))
            report = fleet.run("upgrade")
            self.assertEqual((report["outcome"], fleet.live()), ("done", ["2.1.0"] * 3), fleet.said)
            self.assertEqual([len(fleet.upgrades(name)) for name in fleet.names], [1, 1, 1])

    def test_a_second_interrupt_ends_at_once_and_claims_nothing_of_the_node_in_its_turn(self):
        with Fleet(3) as fleet:
            fleet.set("n2", slow=60)
            began = time.time()
            report = self.interrupted(fleet, 2)
            self.assertLess(time.time() - began, 60, "it was waited for")
            self.assertEqual(states(report), {"n1": "upgraded", "n2": "lost", "n3": "not-reached"}, fleet.said)
            self.assertEqual((report["exit_code"], report["reason"]), (1, "the run was interrupted"), fleet.said)
            record = fleet.record()
            self.assertEqual([record["nodes"][name]["touched"] for name in fleet.names], [True, True, False], record)
            self.assertEqual(fleet.upgrades("n3"), [])
            fleet.set("n2", slow=0)
            report = fleet.run("upgrade")
            self.assertEqual((report["outcome"], fleet.live()), ("done", ["2.1.0"] * 3), fleet.said)
            self.assertEqual(len(fleet.upgrades("n1")), 1)

    def test_a_soak_that_somebody_else_has_under_way_is_waited_for(self):
        with Fleet(1, soaking=3) as fleet:
            self.assertEqual(fleet.run("upgrade")["outcome"], "done", fleet.said)
            self.assertEqual(fleet.get("n1")["soaking"], 0)

    def test_check_mode_of_the_module_shows_the_difference(self):
        with Fleet(1) as fleet:
            environment = fleet.environment()
            del environment["ANSIBLE_CALLBACKS_ENABLED"]
            done = subprocess.run(
                ["ansible", "-i", fleet.inventory, "n1", "-m", "atom.fleet.atom_upgrade", "--check", "--diff",
                 "-a", "version=2.1.0 atomctl=%s" % fleet.path("n1", "atomctl")], env=environment,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True, check=False)
            self.assertEqual(done.returncode, 0, done.stdout)
            self.assertIn("-payload 2.0.0", done.stdout)
            self.assertIn("+payload 2.1.0", done.stdout)
            self.assertEqual(fleet.upgrades("n1"), [])

    def test_each_module_has_documentation_that_ansible_reads(self):
        with Fleet(1) as fleet:
            for kind, name in (("module", "atom_upgrade"), ("module", "atom_facts"), ("module", "atom_rollout"),
                               ("callback", "report"), ("callback", "quiet")):
                done = subprocess.run(["ansible-doc", "-t", kind, "--json", "atom.fleet.%s" % name],
                                      env=fleet.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                      universal_newlines=True, check=False)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertIn("description", done.stdout)


if __name__ == "__main__":
    unittest.main()
