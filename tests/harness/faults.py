# SPDX-License-Identifier: LGPL-2.1-or-later
"""Points at which a broker may be killed: between any two changes of what outlives it
(tests/support/fault_points.cc)."""

import mmap
import pathlib
import struct

from harness.broker import BUILD

_NAMES, _NAME_BYTES, _HEAD = 1024, 48, 16


class FaultPoints:
    """The memory that the test shares with a broker into which the library was preloaded. `process`: not the broker
    itself dies, but a process of this name, before any call by which it speaks with others."""

    def __init__(self, path="/run/fault-points", process=None):
        pathlib.Path(path).write_bytes(bytes(_HEAD + _NAMES * _NAME_BYTES))
        with open(path, "r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        self.environment = {"LD_PRELOAD": str(BUILD / "tests/support/libfault_points.so"),
                            "SOCKBROKER_FAULT_POINTS": path}
        if process is not None:
            self.environment["SOCKBROKER_FAULT_PROCESS"] = process

    def arm(self, kill_at=0, waits=False):
        """From now on points are counted from 1; the process dies before the one of this number, or waits there until
        go_on()."""
        self._memory[:_HEAD] = struct.pack("=IIII", 0, kill_at, 0, waits)
        self._memory[:4] = struct.pack("=I", 1)

    def go_on(self):
        self._memory[12:16] = struct.pack("=I", 0)

    def count(self):
        """How many points were passed so far."""
        return struct.unpack_from("=I", self._memory, 8)[0]

    def disarm(self):
        """Returns what was to be changed at each point passed, the one of the kill included."""
        self._memory[:4] = struct.pack("=I", 0)
        count = self.count()
        assert count < _NAMES, count
        return [self._name(number) for number in range(1, count + 1)]

    def _name(self, number):
        begin = _HEAD + number * _NAME_BYTES
        return self._memory[begin:begin + _NAME_BYTES].split(b"\0")[0].decode()
