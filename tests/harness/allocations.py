# SPDX-License-Identifier: LGPL-2.1-or-later
"""A broker whose allocations fail when a test says so (tests/support/allocations.c)."""

import contextlib
import mmap
import pathlib
import struct

from harness import broker as broker_module

LIBRARY = broker_module.BUILD / "tests/support/liballocations.so"


class Allocations:
    def __init__(self, broker, path="/run/allocations"):
        pathlib.Path(path).write_bytes(bytes(4096))
        pathlib.Path(path).chmod(0o666)
        with open(path, "r+b") as file:
            self.page = mmap.mmap(file.fileno(), 4096)
        broker.environment |= {"LD_PRELOAD": str(LIBRARY), "SOCKBROKER_ALLOCATIONS": path}

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
