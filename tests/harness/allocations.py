# SPDX-License-Identifier: LGPL-2.1-or-later
"""A broker whose allocations fail when a test says so (tests/support/allocations.c)."""

import contextlib
import struct

from harness.preloaded import preload


class Allocations:
    def __init__(self, broker, path="/run/allocations"):
        self.page = preload(broker, "liballocations.so", "SOCKBROKER_ALLOCATIONS", path)

    @contextlib.contextmanager
    def failing(self, first, many=1):
        """From now on the allocation of that number fails, and as many as said. Yields a function that tells how many
        there were."""
        self.page[:16] = struct.pack("=IIII", 0, first, many, 0)
        self.page[:4] = struct.pack("=I", 1)
        try:
            yield lambda: struct.unpack_from("=I", self.page, 12)[0]
        finally:
            self.page[:4] = struct.pack("=I", 0)
