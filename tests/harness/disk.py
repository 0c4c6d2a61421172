# SPDX-License-Identifier: LGPL-2.1-or-later
"""A broker whose disk is slow when a test says so (tests/support/disk.c)."""

import mmap
import pathlib
import struct

from harness import broker as broker_module
from harness.until import until

LIBRARY = broker_module.BUILD / "tests/support/libdisk.so"


class Disk:
    def __init__(self, broker, path="/run/disk"):
        pathlib.Path(path).write_bytes(bytes(4096))
        pathlib.Path(path).chmod(0o666)
        with open(path, "r+b") as file:
            self._page = mmap.mmap(file.fileno(), 4096)
        broker.environment |= {"LD_PRELOAD": str(LIBRARY), "SOCKBROKER_DISK": path}

    def slow(self):
        """From now on nothing is written to its end."""
        self._page[:4] = struct.pack("=I", 1)

    def wait(self):
        """Returns when somebody waits for it."""
        until("a write", lambda: struct.unpack_from("=I", self._page, 4)[0] > 0)

    def fast(self):
        self._page[:4] = struct.pack("=I", 0)
