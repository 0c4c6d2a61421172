# SPDX-License-Identifier: LGPL-2.1-or-later
"""What becomes of routes when dispatch is taken away, whoever runs."""

import os
import signal

import pytest

from harness import namespace, routes
from harness.until import until
from routing import BOTH, announced_is, begin, local_is
from words import handed_over


def test_withdrawn_before_unload_and_local_routes_stay(broker, maker, spawn):
    begin(broker, maker, "Announce=any", "LocalRoutes=yes")
    handed_over(spawn("web", 61001), "tcp", "ipv4")
    announced_is(BOTH)
    assert broker.ctl("unload")[0] == 0
    assert routes.announced() == set() and routes.local() == BOTH


def test_withdrawn_by_an_unload_where_no_broker_runs(broker, maker, spawn):
    begin(broker, maker, "Announce=any", "LocalRoutes=yes")
    handed_over(spawn("web", 61001), "tcp", "ipv4")
    announced_is(BOTH)
    broker.stop()
    status, said = broker.ctl("--bpffs", str(broker.bpffs), "unload")
    assert status == 0, said
    assert routes.announced() == set() and routes.local() == BOTH


@pytest.mark.parametrize("running", (True, False), ids=("a broker runs", "none runs"))
def test_withdrawn_by_an_unload_where_nobody_makes_routes(broker, maker, spawn, running):
    begin(broker, maker, "Announce=any", "LocalRoutes=yes", AnnounceTable=1000)
    handed_over(spawn("web", 61001), "tcp", "ipv4")
    until("they stand", lambda: routes.announced(1000) == BOTH)
    namespace.run("ip", "route", "add", "blackhole", "198.51.100.0/24", "table", "1000", "proto", "static")
    maker.kill()
    if running:
        broker.wait_log("nobody makes the routes")
    else:
        broker.stop()
    status, said = broker.ctl("--bpffs", str(broker.bpffs), "--config-dir", str(broker.config), "unload")
    assert (status, said) == (0, "")
    assert routes.announced(1000) == set() and routes.local() == BOTH
    assert "198.51.100.0/24" in namespace.run("ip", "route", "show", "table", "1000"), "it is somebody else's"


@pytest.mark.parametrize("makes", (True, False), ids=("its maker is there", "nobody makes routes"))
@pytest.mark.parametrize("runs", (True, False), ids=("a broker runs", "none runs"))
def test_an_unload_that_is_told_so_leaves_no_local_route_but_others(broker, maker, runs, makes):
    begin(broker, maker, "LocalRoutes=yes")
    local_is(BOTH)
    namespace.run("ip", "route", "add", "local", "198.51.100.0/24", "dev", "lo", "proto", "static")
    if not makes:
        maker.kill()
        broker.wait_log("nobody makes the routes")
    if not runs:
        broker.stop()
    status, said = broker.ctl("--bpffs", str(broker.bpffs), "--config-dir", str(broker.config), "unload",
                              "--local-routes")
    assert (status, said) == (0, "")
    assert routes.local() == set()
    assert "198.51.100.0/24" in namespace.run("ip", "route", "show", "table", "local"), "it is somebody else's"


def test_an_unload_after_another_still_removes_local_routes(broker, maker):
    begin(broker, maker, "LocalRoutes=yes")
    local_is(BOTH)
    assert broker.ctl("unload")[0] == 0
    maker.kill()
    assert routes.local() == BOTH
    status, said = broker.ctl("--bpffs", str(broker.bpffs), "--config-dir", str(broker.config), "unload",
                              "--local-routes")
    assert (status, routes.local()) == (0, set()), said


def test_an_unload_that_cannot_withdraw_is_a_failure(broker, maker, spawn):
    begin(broker, maker, "Announce=any")
    handed_over(spawn("web", 61001), "tcp", "ipv4")
    announced_is(BOTH)
    os.kill(maker.process.pid, signal.SIGSTOP)
    broker.stop()
    status, said = broker.ctl("--bpffs", str(broker.bpffs), "--config-dir", str(broker.config), "unload")
    assert status == 1 and "prefixes may still be announced (ip route flush table 153 proto 83" in said
    assert "unloaded" in broker.ctl("--bpffs", str(broker.bpffs), "status")[1]


def test_an_unload_withdraws_also_where_no_policy_could_be_taken(broker, maker, spawn):
    begin(broker, maker, "Announce=any")
    handed_over(spawn("web", 61001), "tcp", "ipv4")
    announced_is(BOTH)
    broker.kill()
    (broker.state / "policy").unlink()
    broker.policy("nonsense\n").start()
    assert broker.ctl("unload")[0] == 0
    assert routes.announced() == set()
