# SPDX-License-Identifier: LGPL-2.1-or-later
"""INHERIT=1: who has a socket changes, and its place among the others does not. FAMILY=: which family a socket of both
serves."""

import pytest

from harness.until import until
from holding import HELD, states
from words import add_routes, each_protocol, everywhere, handed_over, listen, open_socket, section, who

UID = 61001


def register(one, label, *more):
    return one.control("\n".join(["FDSTORE=1", "FDNAME=web", *more]), label)


@pytest.fixture(name="pair")
def _pair(broker, spawn):
    """pair(*more): two processes; the older one's socket is displaced, unless the policy says more."""
    def start(*more):
        add_routes()
        broker.policy(section("web", UID, everywhere(), *more)).start()
        both = spawn("old"), spawn("new")
        return both, [handed_over(one, "tcp", "ipv4", service="web") for one in both]
    return start


def test_who_has_a_socket_changes_and_its_place_does_not(broker, spawn, pair):
    both, cookies = pair()
    before = broker.list()
    assert [row["state"] for row in before] == ["live", "draining"]
    heir = spawn("web")
    for one in both:
        assert register(one, "tcp-ipv4", "INHERIT=1", f"PID={heir.pid}").result == "ok"
        assert who("tcp", "ipv4") == "new"
    after = broker.list()
    assert after == [row | {"pid": heir.pid} for row in before]
    broker.wait_log(f"(?s)for web is of pid {heir.pid}.*for web is of pid {heir.pid}")
    assert broker.log().count("handover: ") == 1
    broker.kill()
    broker.start()
    assert broker.list() == after
    both[1].close("tcp-ipv4")
    assert who("tcp", "ipv4") == "old"
    assert [(row["cookie"], row["state"]) for row in broker.list()] == [(cookies[0], "live")]


@pytest.mark.parametrize("policy, refused", [(("Handover=refuse",), "busy"),
                                             (("Handover=share", "MaxSockets=1"), "quota")])
def test_nothing_refuses_a_socket_that_is_there_already(broker, pair, policy, refused):
    (old, new), _ = pair()
    broker.policy(section("web", UID, everywhere(), *policy)).reload()
    before = broker.list()
    assert register(old, "tcp-ipv4").result == refused
    for one in old, new:
        assert register(one, "tcp-ipv4", "INHERIT=1").result == "ok"
    assert [(row["cookie"], row["since"]) for row in broker.list()] == [
        (row["cookie"], row["since"]) for row in before]


def test_one_that_the_service_does_not_have_is_registered(broker, spawn, pair):
    pair()
    before = broker.list()
    third = spawn("third")
    open_socket(third, "tcp", "ipv4")
    assert register(third, "tcp-ipv4", "INHERIT=1").result == "ok"
    assert who("tcp", "ipv4") == "third"
    assert [row["cookie"] for row in broker.list()][1:] == [row["cookie"] for row in before]


def test_a_held_socket_that_is_inherited_is_live_and_its_clock_is_the_heirs(broker, spawn):
    broker.policy(section("web", UID, everywhere(), HELD)).start()
    helper, first, heir = spawn("web"), spawn("web"), spawn("web")
    open_socket(helper, "tcp", "ipv4")
    assert register(helper, "tcp-ipv4", f"PID={first.pid}").result == "ok"
    first.kill()
    broker.wait_log("waits")
    assert states(broker) == ["held"]
    assert register(helper, "tcp-ipv4", "INHERIT=1", f"PID={heir.pid}").result == "ok"
    assert [(row["state"], row["pid"]) for row in broker.list()] == [("live", heir.pid)]
    heir.kill()
    broker.wait_log("waits(.*\n)+.*waits")
    assert states(broker) == ["held"]


def test_the_broker_keeps_no_displaced_socket_that_is_inherited(broker, pair):
    (old, _), _ = pair(HELD)
    [live, _] = broker.list()
    assert register(old, "tcp-ipv4", "INHERIT=1").result == "ok"
    old.close("tcp-ipv4")
    until("the displaced one is gone", lambda: [row["cookie"] for row in broker.list()] == [live["cookie"]])


@each_protocol
@pytest.mark.parametrize("handover", ["replace", "refuse"])
def test_a_socket_of_both_families_serves_the_one_that_is_named(broker, spawn, protocol, handover):
    add_routes()
    broker.policy(section("web", UID, everywhere(), f"Handover={handover}")).start()
    six, dual = spawn("six"), spawn("dual")
    handed_over(six, protocol, "ipv6", service="web")
    open_socket(dual, protocol, "ipv4", "dual", dual=True)
    assert register(dual, "dual", "FAMILY=ipv4").result == "ok"
    assert (who(protocol, "ipv4"), who(protocol, "ipv6")) == ("dual", "six")
    assert sorted((row["family"], row["state"]) for row in broker.list()) == [("dual", "live"), ("ipv6", "live")]
    assert register(dual, "dual", "INHERIT=1").result == "ok"
    assert (who(protocol, "ipv4"), who(protocol, "ipv6")) == ("dual", "six")
    # Of one that serves one family anyway it says nothing.
    assert register(six, f"{protocol}-ipv6", "INHERIT=1", "FAMILY=ipv4").result == "ok"
    assert who(protocol, "ipv6") == "six"


def test_a_family_that_no_binding_of_the_service_uses_is_refused(broker, spawn):
    broker.policy(section("web", UID, listen("tcp", "2001:db8::/64"))).start()
    one = spawn("web")
    open_socket(one, "tcp", "ipv4", "dual", dual=True)
    assert register(one, "dual", "FAMILY=ipv4").result == "wrong-socket"
    assert register(one, "dual", "FAMILY=ipv6").result == "ok"
