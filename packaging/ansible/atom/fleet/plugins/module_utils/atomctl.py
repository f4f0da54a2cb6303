# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""Runs atomctl on a node, and reads the one document that it prints."""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

import json
import time

# How atomctl ends, see xtask/ctl/src/problem.rs.
DONE, UNDONE, USAGE, REFUSED, ATTENTION = range(5)

# Where the devices are when nobody serves them.
HELD = ("held", "failing")

# Seconds between two looks at a node that has something under way.
GLANCE = 0.5


class Answer:
    """What one call of atomctl has said."""

    def __init__(self, code, document, said):
        self.code = code
        self.document = document
        self.said = said

    def problem(self):
        """What happened, why, and what to do: of an error, of a report, or of a program that left no document."""
        document = self.document
        schema = document.get("schema", "")
        if schema.startswith("atom.error/"):
            return {key: document.get(key) for key in ("what", "why", "remedy")}
        if document.get("reason"):
            outcome = document.get("outcome") or "refused"
            return {"what": "the upgrade ended as %s" % outcome, "why": document["reason"],
                    "remedy": document.get("remedy")}
        wrong = ["%s: %s" % (check.get("name"), check.get("detail"))
                 for check in document.get("checks", []) if check.get("ok") is False]
        if wrong:
            return {"what": "not everything is as it should be", "why": "; ".join(wrong), "remedy": None}
        said = self.said.strip() or "it said nothing"
        return {"what": "atomctl exited with %d" % self.code, "why": said, "remedy": None}


def read(code, out, said):
    """The answer in what a call printed; without a document when it is none of atomctl's."""
    try:
        document = json.loads(out)
    except ValueError:
        document = {}
    if not isinstance(document, dict) or not str(document.get("schema", "")).startswith("atom."):
        # A document of somebody else is worth as much as none, and may be what there is to read.
        said, document = (said or out), {}
    return Answer(code, document, said)


def sentence(problem):
    """A problem on one line."""
    text = problem["what"]
    if problem.get("why"):
        text += ": " + problem["why"]
    if problem.get("remedy"):
        text += " (what to do: %s)" % problem["remedy"]
    return text


class Atomctl:
    """The node tool of the machine that a module runs on."""

    def __init__(self, module, program):
        self.module = module
        self.program = module.get_bin_path(program) or program

    def ask(self, *words):
        """Runs a verb. A program that is not there answers as one that refuses."""
        argv = [self.program] + list(words) + ["--json"]
        try:
            code, out, said = self.module.run_command(argv, handle_exceptions=False)
        except (OSError, IOError) as error:
            return Answer(REFUSED, {
                "schema": "atom.error/1",
                "what": "%s could not be started" % self.program,
                "why": str(error),
                "remedy": "install atom-tools on this node",
            }, "")
        return read(code, out, said)

    def status(self, seconds=0):
        """The state of Atom. For so many seconds a drain or soak that somebody else has under way is waited for."""
        end = time.time() + seconds
        while True:
            answer = self.ask("status")
            state = answer.document
            busy = (state.get("soak") or {}).get("left_us") or state.get("drain")
            if answer.code != DONE or not busy or time.time() >= end:
                return answer
            time.sleep(GLANCE)


def live_version(status):
    """The version of the payload that serves, in a status document; None when none does."""
    return (status.get("live") or {}).get("version")
