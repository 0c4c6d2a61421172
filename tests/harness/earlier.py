# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pinned state as an earlier release left it, made from what this build has pinned.

A broker that takes such state along reads maps by their pins and the link, and nothing else of it. So the pins of those
maps that had another shape are replaced by maps of that shape with the same content. The programs of the link and of
units go on over the maps that they have, whatever is pinned, and the next broker makes others: so, as after a real
upgrade, a program of before and one of today do not understand each other. `SOCKBROKER_EARLIER=` names a sockbrokerd of
that release for the same tests with what it has really pinned.
"""

import os
import struct

from harness import pins

ARRAY = 2
# By layout: bytes of a registrant, and how many of them, from its start, are as they are today; the unit's name
# follows.
REGISTRANTS = {3: (312, 56), 4: (328, 72), 5: (352, 96), 6: (352, 96), 7: (352, 96), 8: (352, 96), 9: (352, 96)}
HEADERS = {3: 40, 4: 40, 5: 40, 6: 56, 7: 56, 8: 56, 9: 56}
# Maps that they did not have.
ADDED = {3: ("slots", "flows", "replies", "questions", "answered", "units"),
         6: ("replies", "questions", "answered", "units"), 7: ("questions", "answered"), 9: ("questions",)}
UNIT_BYTES = 256


def remake(folder, layout):
    """The broker must have ended."""
    size, common = REGISTRANTS[layout]
    with pins.pinned(folder, "registrants") as today:
        with pins.created(ARRAY, size, today.size) as then:
            for slot in range(today.size):
                value = today.read(slot)
                then.write(slot, value[:common] + value[-UNIT_BYTES:])
            _replace(folder, "registrants", then)
    with pins.pinned(folder, "meta") as today:
        with pins.created(ARRAY, HEADERS[layout], 1) as then:
            value = today.read(0)
            then.write(0, value[:8] + struct.pack("=I", layout) + value[12:HEADERS[layout]])
            _replace(folder, "meta", then)
    with pins.created(ARRAY, 4, 1) as then:  # of another size, and not read
        _replace(folder, "tables", then)
        if layout == 7:
            _replace(folder, "replies", then)
    for name in ADDED[max(added for added in ADDED if added <= layout)]:
        os.unlink(folder / name)


def _replace(folder, name, one):
    os.unlink(folder / name)
    one.pin(folder / name)
