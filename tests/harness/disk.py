# SPDX-License-Identifier: LGPL-2.1-or-later
"""A broker whose disk is slow when a test says so (tests/support/disk.c)."""

import struct

from harness.preloaded import preload
from harness.until import until


class Disk:
    def __init__(self, broker, path="/run/disk"):
        self._page = preload(broker, "libdisk.so", "SOCKBROKER_DISK", path)

    def slow(self):
        """From now on nothing is written to its end."""
        self._page[:4] = struct.pack("=I", 1)

    def wait(self):
        """Returns when somebody waits for it."""
        until("a write", lambda: struct.unpack_from("=I", self._page, 4)[0] > 0)

    def fast(self):
        self._page[:4] = struct.pack("=I", 0)
