# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pinned state that this build does not know (an older layout, a newer one, somebody else's map) is refused with a
message that says what to do. Nothing of it is changed, and dispatch goes on."""

import os
import struct

import pytest

from harness import pins
from words import add_routes, everywhere, handed_over, section, who


def kernel_state(folder):
    """Everything that a start could change."""
    maps = {}
    for name in sorted(os.listdir(folder)):
        if name in ("program", "link", "counters"):
            continue
        with pins.pinned(folder, name) as one:
            keys = range(min(one.size, 2000))
            maps[name] = [one.read(key) for key in keys]
    return sorted(os.listdir(folder)), maps


def change_meta(folder, magic=None, layout=None):
    """Writes what another program, or another build, would have written; returns the layout that was there."""
    with pins.pinned(folder, "meta") as meta:
        value = meta.read(0)
        found_magic, found_layout = struct.unpack_from("=QI", value)
        meta.write(0, struct.pack("=QI", found_magic if magic is None else magic,
                                  found_layout if layout is None else found_layout + layout) + value[12:])
    return found_layout


def refused_start(broker):
    with pytest.raises(RuntimeError, match="before READY=1") as refusal:
        broker.start()
    return str(refusal.value).splitlines()[-1]


@pytest.mark.parametrize("difference, raised", [(-2, True), (-1, False), (1, False)], ids=["oldest", "older", "newer"])
def test_another_layout_is_refused_and_dispatch_goes_on(broker, spawn, difference, raised):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    web = spawn("web")
    handed_over(web, "tcp", "ipv4")
    broker.stop()
    folder = broker.bpffs / "dispatch"
    layout = change_meta(folder, layout=difference)
    if raised:  # which would ask for larger maps
        (broker.config / "sockbrokerd.conf").write_text("[Broker]\nMaxSockets=5000\n")
    before = kernel_state(folder)

    said = refused_start(broker)
    assert f"have layout {layout + difference}, this broker knows {layout}" in said
    assert "dispatch goes on as it is" in said and "run sockbrokerctl unload, then start again" in said
    assert kernel_state(folder) == before
    assert who("tcp", "ipv4") == "web"

    # What the message says.
    status, output = broker.ctl("--bpffs", str(broker.bpffs), "unload")
    assert status == 0, output
    broker.start()
    assert web.register("tcp-ipv4").result == "ok"
    assert who("tcp", "ipv4") == "web"


def test_a_map_that_is_not_ours_is_refused_and_left_alone(broker, spawn):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    handed_over(spawn("web"), "tcp", "ipv4")
    broker.stop()
    folder = broker.bpffs / "dispatch"
    change_meta(folder, magic=0x1122334455667788)
    before = kernel_state(folder)
    said = refused_start(broker)
    assert "meta is not a map of sockbroker; point --bpffs at a directory of its own" in said
    assert kernel_state(folder) == before
    assert who("tcp", "ipv4") == "web"


def test_what_an_unfinished_growth_left_is_not_touched_in_another_layout(broker):
    """A pin that a growth would have made is there; cleaning up is a change too."""
    broker.policy(section("web", 61001, everywhere())).start()
    broker.stop()
    folder = broker.bpffs / "dispatch"
    with pins.pinned(folder, "names") as names:
        names.pin(folder / "grown_names")
    change_meta(folder, layout=-1)
    refused_start(broker)
    assert "grown_names" in os.listdir(folder)
    change_meta(folder, layout=1)
    broker.start()
    assert "grown_names" not in os.listdir(folder), "of its own layout it is"
