# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pinned state of another layout. That of releases before is taken along: nobody unloads for an upgrade, and nobody
notices. What this build does not know (older still, newer, somebody else's map) is refused with a message that says
what to do; nothing of it is changed, and dispatch goes on."""

import json
import os
import pathlib
import struct

import pytest

from harness import broker as brokers
from harness import earlier, faults, long, pins
from harness.until import until
from test_recovery import PINS, PROGRAMS
from words import ADDRESS, PORT, add_routes, everywhere, handed_over, refused, section, who

EARLIER = os.environ.get("SOCKBROKER_EARLIER")  # sockbrokerd of an earlier release
TARGETS = [(protocol, address, PORT) for protocol in ("tcp", "udp") for address in ADDRESS.values()]
SMALL = "[Broker]\nMaxBindings=64\nMaxServices=6\nMaxSockets=24\nMaxAccountedBindings=4\n"


def kernel_state(folder):
    """Everything that a start could change."""
    maps = {}
    for name in sorted(os.listdir(folder)):
        if name in PROGRAMS | {"link", "counters", "grace"}:
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


def in_order(rows):
    """By cookie, without what earlier releases did not tell."""
    return sorted([{key: value for key, value in row.items() if key != "flows"} for row in rows],
                  key=lambda row: row["cookie"])


class Upgrade:
    """A service of an earlier release's broker, which has been stopped for the upgrade."""

    def __init__(self, broker, spawn, layout):
        self.broker, self.spawn = broker, spawn
        self.folder = broker.bpffs / "dispatch"
        add_routes()
        (broker.config / "sockbrokerd.conf").write_text(SMALL)
        broker.policy(section("web", 61001, everywhere(), "HoldSec=30") +
                      section("pool", 61002, "ListenStream=198.51.100.0/24:81", "Handover=share"))
        if EARLIER:
            broker.program = pathlib.Path(EARLIER)
        broker.start()
        self.old, self.now = spawn("old"), spawn("now")
        for one in (self.old, self.now):
            for protocol in ("tcp", "udp"):
                for family in ("ipv4", "ipv6"):
                    handed_over(one, protocol, family, service="web", reuseport=True)
        self.pool = spawn("pool", 61002)
        for number in range(7):
            handed_over(self.pool, "tcp", "ipv4", label=str(number))
        self.rows = broker.list()
        self.counted = self.lookups()
        broker.stop()
        broker.program = brokers.BUILD / "sockbrokerd"
        if not EARLIER:
            earlier.remake(self.folder, layout)

    def lookups(self):
        return sum(one["lookups"] for one in self.broker.status()[1].values())

    def taken_along(self):
        """What must hold as soon as a broker of this release serves."""
        assert in_order(self.broker.list()) == in_order(self.rows)
        assert set(os.listdir(self.folder)) == PINS
        assert self.lookups() >= self.counted
        assert [who(protocol, family) for protocol in ("tcp", "udp") for family in ADDRESS] == ["now"] * 4
        # Nothing of before dispatches any more, and all that can be done to a socket can be done to these.
        self.now.kill()
        assert [who(protocol, family) for protocol in ("tcp", "udp") for family in ADDRESS] == ["old"] * 4
        assert self.broker.ask("VERB=unregister\nFDNAME=web").result == "ok"
        for protocol in ("tcp", "udp"):
            with refused():
                who(protocol, "ipv4")
        assert self.old.register("tcp-ipv4", service="web").result == "ok"
        assert who("tcp", "ipv4") == "old"


@pytest.fixture(name="upgrade", params=[0] if EARLIER else long.some([3, 4, 5, 6, 7, 8], 3, 6, 8),
                ids=lambda layout: f"layout-{layout}")
def _upgrade(request, broker, spawn):
    return Upgrade(broker, spawn, request.param)


def test_an_upgrade_takes_sockets_of_the_layout_before_along_and_no_client_notices(upgrade, clients):
    asking = clients(TARGETS)
    asking.more(20)
    upgrade.broker.start()
    asking.more(20)
    assert asking.end()[1] == []
    upgrade.broker.wait_log("taken along from maps of layout")
    upgrade.taken_along()
    upgrade.broker.kill()
    upgrade.broker.start()  # from now on it is as any other
    assert upgrade.broker.log().count("taken along from maps of layout") == 1
    assert who("tcp", "ipv4") == "old"


def test_limits_may_be_raised_with_the_upgrade(upgrade):
    (upgrade.broker.config / "sockbrokerd.conf").write_text(SMALL.replace("MaxSockets=24", "MaxSockets=3000"))
    upgrade.broker.start()
    upgrade.taken_along()


def test_without_a_policy_that_can_be_loaded_dispatch_goes_on_by_the_rules_of_before(upgrade):
    good = (upgrade.broker.config / "conf.d/50-test.conf").read_text()
    for copy in upgrade.broker.state.iterdir():
        copy.unlink()
    upgrade.broker.policy("[Service web]\nNoKey=1\n")
    for _ in range(2):  # a start that finds what another one left so is no different
        upgrade.broker.start()
        assert upgrade.broker.status()[0]["state"] == "degraded"
        assert [who(protocol, family) for protocol in ("tcp", "udp") for family in ADDRESS] == ["now"] * 4
        upgrade.broker.kill()
    upgrade.broker.start()
    upgrade.broker.policy(good)
    assert upgrade.broker.reload()[0] == 0
    upgrade.taken_along()


def test_unload_in_that_state_ends_what_dispatched_before_too(upgrade):
    for copy in upgrade.broker.state.iterdir():
        copy.unlink()
    upgrade.broker.policy("[Service web]\nNoKey=1\n")
    upgrade.broker.start()
    status, output = upgrade.broker.ctl("unload")
    assert status == 0, output
    with refused():
        who("tcp", "ipv4")


def test_an_upgrade_that_is_cut_off_anywhere_is_finished_or_undone(broker, spawn):
    """The broker dies before changes of a pin or link, and some of those that only fill what is not in force: before
    each of the former with SOCKBROKER_LONG, otherwise before every second one."""
    layout = 5
    points = faults.FaultPoints()
    upgrade = Upgrade(broker, spawn, layout)
    broker.environment = points.environment
    at, step, ended = 1, 1, False
    while not ended:
        points.arm(at)
        try:
            broker.start()
            ended = True
        except RuntimeError:
            pass
        passed = points.disarm()
        assert [who(protocol, family) for protocol in ("tcp", "udp") for family in ADDRESS] == ["now"] * 4, passed[-1]
        if not ended:
            broker.start()
        assert in_order(broker.list()) == in_order(upgrade.rows), passed[-1]
        until("the pins are those of any start", lambda: set(os.listdir(upgrade.folder)) == PINS)
        broker.stop()
        earlier.remake(upgrade.folder, layout)
        step = (1 if long.LONG else 2) if "pin" in passed[-1] or "rename" in passed[-1] else min(step * 2, 100)
        at += step


def left_by_a_broker(broker, spawn):
    """The service of one that has ended, which goes on, and the folder with its pins."""
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    web = spawn("web")
    handed_over(web, "tcp", "ipv4")
    broker.stop()
    return web, broker.bpffs / "dispatch"


@pytest.mark.parametrize("difference, raised", [(-8, True), (-5, False), (1, False)], ids=["oldest", "odd", "newer"])
def test_another_layout_is_refused_and_dispatch_goes_on(broker, spawn, difference, raised):
    web, folder = left_by_a_broker(broker, spawn)
    layout = change_meta(folder, layout=difference)
    if raised:  # which would ask for larger maps
        (broker.config / "sockbrokerd.conf").write_text("[Broker]\nMaxSockets=5000\n")
    before = kernel_state(folder)

    said = refused_start(broker)
    if difference == -5:  # what says that it is of a layout before, and has other maps
        assert f"is of another type or size than layout {layout + difference} says" in said
    else:
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


def stopped_tool(broker, *arguments):
    return broker.ctl("--bpffs", str(broker.bpffs), *arguments)


def says_that_dispatch_goes_on(broker, layout, today):
    """What the tool says without a broker of what it cannot read; it is of layout `today`."""
    why = f"maps pinned in {broker.bpffs}/dispatch/ have layout {layout}, this tool reads layout {today}"
    status, said = stopped_tool(broker, "status")
    assert status == 3 and "not running, dispatch goes on with the last rules and sockets, which cannot be" in said
    assert why in said and "only root" not in said and "listed" not in said
    status, said = stopped_tool(broker, "status", "web")
    assert status == 3 and "what serves is not known: dispatch goes on" in said and "no policy names" not in said
    status, said = stopped_tool(broker, "list")
    assert status == 3 and "dispatch goes on" in said and why in said
    status, said = stopped_tool(broker, "metrics")
    assert status == 3 and "dispatch goes on" in said and why in said and "unloaded" not in said
    status, said = stopped_tool(broker, "--json=short", "status")
    said = json.loads([line for line in said.splitlines() if line.startswith("{")][-1])
    assert status == 3 and said["dispatches"] is True and why in said["reason"] and said["services"] == []


def test_without_a_broker_the_tool_says_that_dispatch_goes_on_whatever_the_layout(broker, spawn):
    """As after an upgrade whose broker does not start."""
    web, folder = left_by_a_broker(broker, spawn)
    today = change_meta(folder, layout=1)
    says_that_dispatch_goes_on(broker, today + 1, today)
    change_meta(folder, layout=-1)
    for layout in sorted(earlier.REGISTRANTS, reverse=True):
        earlier.remake(folder, layout)
        assert who("tcp", "ipv4") == "web"
        says_that_dispatch_goes_on(broker, layout, today)
        stopped_tool(broker, "unload")
        assert "unloaded: nothing is dispatched" in stopped_tool(broker, "status")[1]
        broker.start()
        assert web.register("tcp-ipv4").result == "ok"
        broker.stop()
    os.unlink(folder / "flows")
    status, said = stopped_tool(broker, "status")
    assert status == 3 and f"cannot be read: cannot open the pin {folder}/flows" in said


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
    change_meta(folder, layout=-5)
    refused_start(broker)
    assert "grown_names" in os.listdir(folder)
    change_meta(folder, layout=5)
    broker.start()
    assert "grown_names" not in os.listdir(folder), "of its own layout it is"
