# SPDX-License-Identifier: LGPL-2.1-or-later
"""Clients of a stock server, in a process of their own: tests/system/hammering.py says what they do."""

import json
import pathlib
import subprocess
import sys

from harness import supervised

CLIENT = pathlib.Path(__file__).resolve().parents[1] / "system/client.py"


class Hammer:
    def __init__(self, address, port, protocol="http"):
        self.protocol, self.address = protocol, address
        self.process = subprocess.Popen([sys.executable, CLIENT, "hammer", address, str(port), protocol], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == "through\n"

    def more(self, number):
        """Until so many more were answered."""
        goal = self.counts()["good"] + number
        supervised.until(lambda: self.counts()["good"] >= goal)

    def counts(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def end(self):
        self.process.stdin.close()
        counts = json.loads(self.process.stdout.readline())
        self.process.wait(25)
        return counts


def has_ended(pid):
    """Whether or not somebody has waited for it."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def nothing_failed(hammers, what):
    """How many connections that were."""
    total = 0
    for hammer in hammers:
        counts = hammer.end()
        assert counts["failed"] == 0, counts["errors"]
        total += counts["good"]
    print(f"{what}: 0 failed of {total}")
    return total


def only_accepted_ones_failed(hammers, deaths, what):
    """`deaths`: for each, the monotonic times before the kill and after the last process was gone. What fails was under
    way then: of four clients no more than four. Whoever began later was answered."""
    total, failed = 0, 0
    for hammer in hammers:
        counts = hammer.end()
        total += counts["good"]
        failed += counts["failed"]
        assert counts["refused"] == 0 and counts["failed"] <= 4 * len(deaths), counts["errors"]
        for began, ended in counts["failures"]:
            assert any(began <= gone and killed <= ended for killed, gone in deaths), (began, ended, deaths)
    print(f"{what}: {failed} that were accepted failed, and none of {total} others")
    return total
