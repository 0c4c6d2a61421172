# SPDX-License-Identifier: LGPL-2.1-or-later
"""How slow the machine is at the moment: a bound that was measured on an idle one is multiplied by it, so that it holds
no less there, and does not fail on a machine that has slower processors, or others who use them."""

import time

PIECES, SIZE = 20, 400_000
IDLE = 0.005  # seconds for a piece, on the machine on which bounds were measured


def slowness():
    """So many times slower than an idle machine, 1 at least. Takes a tenth of a second where it is idle."""
    began = time.monotonic()
    for _ in range(PIECES):
        sum(range(SIZE))
    return max(1.0, (time.monotonic() - began) / (PIECES * IDLE))


class Pace:
    """Of the machine before and after what is to be timed, which itself may use the processors."""

    def __init__(self):
        self._slowness = slowness()

    def allows(self, seconds):
        """What takes so long on an idle machine, here."""
        self._slowness = max(self._slowness, slowness())
        return seconds * self._slowness
