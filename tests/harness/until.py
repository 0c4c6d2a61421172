# SPDX-License-Identifier: LGPL-2.1-or-later
"""For what happens by itself, and tells nobody when."""

import time


def until(what, condition, seconds=25):
    """Asks again and again, until the condition is true; fails with the words of `what` if that takes too long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain: {what}"
        time.sleep(0.01)
