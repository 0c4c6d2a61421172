# SPDX-License-Identifier: LGPL-2.1-or-later
"""Rows of the table in docs/reliability.md: traffic during an event, what of it failed and by which cause.

The same tests run short in ./check and long under tests/load/reliability, which sets SOCKBROKER_RELIABILITY to the
directory that takes one JSON file a row, and SOCKBROKER_CONNECTIONS to the least number of connections and queries of a
row.
"""

import json
import os
import pathlib

from harness import load

FOLDER = os.environ.get("SOCKBROKER_RELIABILITY")
CONNECTIONS = int(os.environ.get("SOCKBROKER_CONNECTIONS", "400"))


def rounds(short, long):
    """How often an event happens: in ./check, and where the table is made."""
    return long if FOLDER else short


def _sum(counts):
    """Of several clients of one protocol."""
    result = {"instances": {}}
    for one in counts:
        for name, value in one.items():
            if name == "instances":
                for instance, answers in value.items():
                    result[name][instance] = result[name].get(instance, 0) + answers
            elif name.endswith("_ms"):
                result[name] = max(result.get(name, 0), value)
            else:
                result[name] = result[name] + value if name in result else value
    return result


class Traffic:
    """Several loads that go on at the same time, for a with statement."""

    def __init__(self, *loads):
        self.loads = loads
        self.protocols = sorted({name for one in loads for name in one.protocols})
        self.result = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for one in self.loads:
            one.__exit__(*_)

    def more(self, number):
        """Returns after so many more of each protocol, spread over the clients."""
        for one in self.loads:
            one.more(-(-number // len(self.loads)))

    def until_answered_by(self, instance):
        for one in self.loads:
            one.until_answered_by(instance)

    def end(self):
        """{protocol: counts}"""
        ends = [one.end() for one in self.loads]
        self.result = {name: _sum([end[name] for end in ends]) for name in self.protocols}
        return self.result


def record(row, event, result, times=1, **more):
    """Keeps a row; prints it at least. `times`: how often the event happened."""
    line = {"row": row, "event": event, "times": times, **result, **more}
    print(json.dumps(line))
    if FOLDER:
        pathlib.Path(FOLDER, f"{row}.json").write_text(json.dumps(line), encoding="ascii")


def failures(result):
    """{protocol: {cause: number}} without what did not occur."""
    return {name: load.failed(counts) for name, counts in result.items() if load.failed(counts)}


def nothing_lost(row, event, result, times=1, **more):
    """The row of an event for which it is promised that nothing fails."""
    record(row, event, result, times, promised=True, **more)
    assert failures(result) == {}, result
    for counts in result.values():
        assert counts["begun"] == counts["ok"] >= CONNECTIONS, counts
