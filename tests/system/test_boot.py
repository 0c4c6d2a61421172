# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a first boot makes of the installed files, before and without any service."""
import re
import subprocess

import pytest

UNITS = ["sockbrokerd.service", "sockbrokerd.socket", "run-sockbroker-bpf.mount"]


def test_units_are_verified_without_a_word(broker):
    done = broker.run(f"systemd-analyze verify {' '.join(UNITS)}")
    assert done.stdout + done.stderr == ""
