# SPDX-License-Identifier: LGPL-2.1-or-later
"""promtool of Debian's prometheus: where it is installed, and with SOCKBROKER_LONG unpacked."""

import os
import shutil
import subprocess

import pytest

from harness import broker as broker_module

needed = pytest.mark.skipif("SOCKBROKER_LONG" not in os.environ and not shutil.which("promtool"),
                            reason="promtool is not installed, and only SOCKBROKER_LONG unpacks it")


def run(*words, text="", folder=None):
    """Status, and all that it printed."""
    program = shutil.which("promtool")
    if program is None:
        unpacked = subprocess.run([broker_module.TOP / "tests/servers/unpack", "prometheus"], stdout=subprocess.PIPE,
                                  text=True, check=True).stdout.strip()
        program = f"{unpacked}/usr/bin/promtool"
    done = subprocess.run([program, *words], input=text, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr
