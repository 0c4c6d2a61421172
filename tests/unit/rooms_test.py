# SPDX-License-Identifier: LGPL-2.1-or-later
"""The rooms of broker/ stand in the order of the code map (docs/ARCHITECTURE.md); each uses only those before it."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
MAP = re.findall(r"^\| `broker/(\w+)` \|", (ROOT / "docs/ARCHITECTURE.md").read_text(), re.M)


def sources():
    """(room, path) of all of them; a main may bring any rooms together."""
    for path in sorted((ROOT / "broker").rglob("*")):
        if path.suffix in (".cc", ".h") and path.name != "main.cc":
            yield path.relative_to(ROOT / "broker").parts[0], path


def test_the_code_map_names_every_room():
    assert sorted({room for room, _ in sources()} | {"exporter"}) == sorted(MAP)


def test_a_room_includes_nothing_of_a_later_one():
    backwards = []
    for room, path in sources():
        for other in re.findall(r'^#include "broker/(\w+)/', path.read_text(), re.M):
            if MAP.index(other) > MAP.index(room):
                backwards.append(f"{path.relative_to(ROOT)} includes {other}")
    assert backwards == []
