# SPDX-License-Identifier: LGPL-2.1-or-later
"""Announce= with a routing daemon beside the broker and a router behind it: when the router's kernel has the prefix,
and how long after an event that changes. With SOCKBROKER_ANYCAST=FILE the times are written there, a line of JSON each:
the table of docs/anycast.md."""

import json
import os
import shutil
import time

import pytest

from harness import namespace, routers, routes
from harness.load import Load
from harness.until import until
from words import ADDRESS, PORT, PREFIXES, listen, section

WEB = "".join(listen("tcp", prefix) for prefix in PREFIXES.values())
BOTH = list(PREFIXES.values())
LONG = "SOCKBROKER_LONG" in os.environ
ANNOUNCED = section("web", 61001, WEB, "LocalRoutes=yes", "Announce=any")


class Stage:
    """Broker, sockbroker-routes and routing daemon here, a router one veth away."""

    def __init__(self, broker, spawn, remote, daemon, prefixes):
        self.broker, self.spawn, self.remote = broker, spawn, remote
        self.daemon, self.prefixes = daemon, prefixes
        # The router has no other way to the prefixes than what it hears of.
        for family in ("-4", "-6"):
            namespace.run("nsenter", f"--net=/proc/{remote.pid}/ns/net", "ip", family, "route", "del", "default")
        self.router = routers.Router(remote.pid)
        self.maker = routes.RouteMaker(broker).start()
        broker.policy(ANNOUNCED).start()
        self.web = None

    def serve(self):
        self.web = self.spawn("web", 61001)
        self.web.for_load()
        self.web.open("tcp", "tcp", "127.0.0.1")
        self.web.open("tcp6", "tcp", "::1")
        assert self.web.register("tcp", "tcp6").result == "ok"

    def came(self):
        until("the router has it", lambda: self.router.has(*self.prefixes), 60)

    def went(self):
        until("the router has it no more", lambda: self.router.lacks(*self.prefixes), 60)

    def timed(self, event, act, changed):
        began = time.monotonic()
        act()
        changed()
        self.note(event, round(time.monotonic() - began, 2))

    def note(self, event, seconds):
        if "SOCKBROKER_ANYCAST" in os.environ:
            with open(os.environ["SOCKBROKER_ANYCAST"], "a", encoding="ascii") as file:
                file.write(json.dumps({"daemon": self.daemon, "event": event, "seconds": seconds}) + "\n")
        print(f"{self.daemon}: {event}: {seconds} s")

    def stays(self, event, act):
        """act() withdraws nothing, not even for a moment: not from the table that the routing daemon reads."""
        withdrawals = routers.Withdrawals(os.getpid())
        act()
        until("the broker has judged", lambda: self.broker.status()[1]["web"]["announced"] is True
              and len(self.broker.list()) == 2)
        assert withdrawals.end() == set() and routes.announced() >= set(BOTH), event
        assert self.router.has(*self.prefixes), event
        self.note(event, None)

    def take_over(self):
        old = self.web
        self.serve()
        old.kill()

    def restart_broker(self):
        self.broker.kill()
        assert self.router.has(*self.prefixes)
        self.broker.start()

    def all_events(self):
        self.timed("the service registers its sockets", self.serve, self.came)
        self.timed("the service is killed", self.web.kill, self.went)
        self.timed("the next instance registers", self.serve, self.came)
        self.timed("the service unregisters", lambda: self.web.control("FDSTOREREMOVE=1\nFDNAME=web"), self.went)
        self.timed("it registers again", lambda: self.web.register("tcp", "tcp6"), self.came)
        self.stays("another instance takes over, and the old one ends", self.take_over)
        self.timed("`sockbrokerctl drain`", lambda: self.broker.ctl("drain", "web"), self.went)
        self.timed("`sockbrokerctl undrain`", lambda: self.broker.ctl("undrain", "web"), self.came)
        self.broker.policy(section("web", 61001, WEB, "LocalRoutes=yes"))
        self.timed("the policy has it no more", self.broker.reload, self.went)
        self.broker.policy(ANNOUNCED)
        self.timed("the policy has it again", self.broker.reload, self.came)
        self.stays("the broker is killed, and the next one starts", self.restart_broker)
        self.timed("`sockbrokerctl unload`", lambda: self.broker.ctl("unload"), self.went)


@pytest.fixture(name="bird")
def _bird(broker, spawn, remote):
    if shutil.which("bird") is None:
        pytest.skip("there is no bird (bird2)")
    stage = Stage(broker, spawn, remote, "BIRD", BOTH)
    daemons = [routers.Bird("edge", routers.BIRD_EDGE, os.getpid()),
               routers.Bird("router", routers.BIRD_ROUTER, remote.pid)]
    yield stage
    for daemon in daemons:
        daemon.end()
    stage.maker.discard()


def test_bird_tells_a_router_whenever_a_service_comes_or_goes(bird):
    bird.all_events()


def test_no_connection_is_lost_while_a_service_is_drained(bird):
    """What still comes is served until the router has heard, and what runs goes on."""
    bird.serve()
    bird.came()
    # Packets find the machine also after the withdrawal, as those of routers that have not heard yet do.
    for family, host in (("-4", namespace.HOST4), ("-6", namespace.HOST6)):
        namespace.run("nsenter", f"--net=/proc/{bird.remote.pid}/ns/net", "ip", family, "route", "add", "default",
                      "via", host)
    wanted = 10_000 if LONG else 500
    load = Load([("tcp", address, PORT, "web") for address in ADDRESS.values()], bird.remote.pid)
    load.more(wanted // 2)
    assert bird.broker.ctl("drain", "web")[0] == 0
    load.more(wanted // 4)
    bird.went()
    load.more(wanted // 4)
    result = load.end()
    assert result["tcp"]["ok"] >= wanted and all(
        result["tcp"][cause] == 0
        for cause in ("refused", "reset", "timed_out", "misdirected", "short", "other")), result


@pytest.mark.skipif(not LONG, reason="SOCKBROKER_LONG=1: FRR takes its time")
@pytest.mark.skipif(not os.path.exists("/usr/lib/frr/bgpd"), reason="there is no frr")
def test_frr_tells_a_router_whenever_a_service_comes_or_goes(broker, spawn, remote):
    stage = Stage(broker, spawn, remote, "FRR", [PREFIXES["ipv4"]])
    daemons = [routers.Frr("edge", routers.FRR_EDGE, os.getpid()),
               routers.Bird("router", routers.BIRD_ROUTER, remote.pid)]
    try:
        stage.all_events()
    finally:
        for daemon in daemons:
            daemon.end()
        stage.maker.discard()
