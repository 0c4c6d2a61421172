# SPDX-License-Identifier: LGPL-2.1-or-later
"""promtool of Debian's prometheus: where it is installed, and with SOCKBROKER_LONG unpacked."""

import os
import shutil
import subprocess

import pytest

from harness import broker as broker_module


def _find():
    """Before a test has a network namespace of its own, from which nothing can be downloaded."""
    installed = shutil.which("promtool")
    if installed or "SOCKBROKER_LONG" not in os.environ:
        return installed
    unpacked = subprocess.run([broker_module.TOP / "tests/servers/unpack", "prometheus"], stdout=subprocess.PIPE,
                              text=True, check=True).stdout.strip()
    return f"{unpacked}/usr/bin/promtool"


_PROGRAM = _find()
needed = pytest.mark.skipif(_PROGRAM is None, reason="promtool is not installed, and only SOCKBROKER_LONG unpacks it")


def run(*words, text="", folder=None):
    """Status, and all that it printed."""
    done = subprocess.run([_PROGRAM, *words], input=text, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr
