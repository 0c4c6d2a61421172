# SPDX-License-Identifier: LGPL-2.1-or-later
"""A library that is preloaded into a broker, and the page that it shares with the test
(tests/support/shared_page.h)."""

import mmap
import pathlib

from harness import broker as broker_module


def preload(broker, library, variable, path):
    """The page."""
    pathlib.Path(path).write_bytes(bytes(4096))
    pathlib.Path(path).chmod(0o666)
    broker.environment |= {"LD_PRELOAD": str(broker_module.BUILD / "tests/support" / library), variable: path}
    with open(path, "r+b") as file:
        return mmap.mmap(file.fileno(), 4096)
