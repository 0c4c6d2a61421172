# SPDX-License-Identifier: LGPL-2.1-or-later
"""No exception crosses a callback or ends a thread: whichever allocation fails, the broker goes on, and what it
remembers is what the kernel has."""

import contextlib
import json
import os
import re
import signal
import time

import pytest

from harness import long, wire
from harness.allocations import Allocations
from harness.until import until
from words import ADDRESS, add_routes, everywhere, handed_over, open_socket, section, who

UID = 61001
MANY = 1_000_000  # all from there on
FAILED = "cannot come back, which is tried again: out of memory"
STEPS = 400  # more than any of these acts has
STEP = 1 if long.LONG else 3


@pytest.fixture(name="scene")
def _scene(broker, spawn):
    """A broker with a service that serves, and one whose requests meet failing allocations."""
    allocations = Allocations(broker)
    add_routes()
    broker.policy(section("web", UID, everywhere()) + section("other", UID, everywhere(7100), "HoldSec=30")).start()
    one = spawn("web", UID)
    handed_over(one, "tcp", "ipv4")
    open_socket(one, "tcp", "ipv4", "again")
    open_socket(one, "udp", "ipv6", "udp")
    return broker, allocations, one


def survives(broker):
    assert broker.process.poll() is None, broker.log()[-2000:]
    with wire.Control(broker.control_path) as connection:
        assert connection.request("VERB=version").result == "ok"


@contextlib.contextmanager
def impatient(one):
    """For the few whose answer is lost with the rest; what comes afterwards may take its time."""
    usual = wire.TIMEOUT
    wire.TIMEOUT = 1
    one.wait_at_most(1)
    try:
        yield
    finally:
        wire.TIMEOUT = usual
        one.wait_at_most(usual)


def quietly(act, *arguments, **more):
    with contextlib.suppress(OSError, EOFError, KeyError, AssertionError, RuntimeError):
        act(*arguments, **more)


def notify(broker, one):
    del broker
    one.notify("FDSTORE=1\nFDNAME=web", "again", "udp")


def register(broker, one):
    del broker
    one.register("again", "udp")


def register_held(broker, one):
    del broker
    one.register("again", "udp", service="other")


def retrieve(broker, one):
    del broker
    one.retrieve("other")


def unregister(broker, one):
    del broker
    one.control("FDSTOREREMOVE=1\nFDNAME=web")


def refused(broker, one):
    del broker
    one.control("FDSTORE=1\nFDNAME=nosuch", "again")


def show(broker, one):
    del one
    broker.ask("VERB=status")
    broker.ask("VERB=list")
    broker.ask("VERB=bindings")


def reload(broker, one):
    del one
    broker.ask("VERB=reload")


def hangup(broker, one):
    del one
    broker.process.send_signal(signal.SIGHUP)
    broker.ask("VERB=reload")  # answered after that


@pytest.mark.parametrize("many", [1, MANY], ids=["one", "all from there"])
@pytest.mark.parametrize("act", [notify, register, register_held, retrieve, unregister, refused, show, reload, hangup],
                         ids=lambda act: act.__name__)
def test_the_broker_outlives_any_allocation_that_fails(scene, act, many):
    broker, allocations, one = scene
    first = 1
    while first < STEPS:
        with impatient(one), allocations.failing(first, many) as count:
            quietly(act, broker, one)
            # Messages that nobody answers, and what threads do after an answer, may take a moment.
            settled = time.monotonic() + 0.02
            while time.monotonic() < settled and count() < first:
                os.sched_yield()
            reached = count() >= first
        survives(broker)
        if not reached:
            break
        first += STEP if first < 60 else 3
    assert first > 1, "there was something to fail"
    reply = one.register("again", "udp")
    assert reply.result == "ok", reply
    assert broker.ask("VERB=reload").result == "ok"
    assert who("tcp", "ipv4") == "web"
    before = {row["cookie"] for row in broker.list() if row["state"] == "live"}
    capacity = broker.status()[0]["sockets"]
    broker.kill()
    broker.start()
    assert {row["cookie"] for row in broker.list() if row["state"] == "live"} == before, capacity


def test_a_reload_says_what_the_kernel_has_whichever_allocation_fails(scene):
    """When the rules are switched, nothing that follows may look as if they were not."""
    broker, allocations, one = scene
    policies = [section("web", UID, everywhere()) + section(name, UID, everywhere(port), line)
                for name, port, line in (("one", 7001, "Handover=share"), ("two", 7002, "Handover=replace"))]

    def of_kernel(port):
        return json.loads(broker.ctl("explain", "--json=short", "tcp", ADDRESS["ipv4"], str(port))[1])["service"]

    def digest():
        return broker.status()[0]["policy"]["digest"]

    def reload(first):  # and tells a person why it did not come off, as far as there is memory for that
        before = digest()
        broker.policy(f"{policies[first % 2]}# {first}\n")
        answers = []
        with impatient(one), allocations.failing(first) as count:
            quietly(lambda: answers.append(broker.ask("VERB=reload").result))
            reached = count()
        assert "bad_alloc" not in broker.log(), first
        survives(broker)
        in_force, = set(broker.status()[1]) - {"web"}
        assert {of_kernel(7001), of_kernel(7002)} == {in_force, None}, (first, broker.log()[-2000:])
        assert not answers or (answers[0] == "ok") == (digest() != before), (first, answers)
        return reached

    needed = max(reload(number) for number in (MANY, MANY + 1))
    assert needed < STEPS
    for first in range(1, needed + 10, STEP):
        reload(first)
    assert broker.ask("VERB=reload").result == "ok"
    assert broker.status()[0]["state"] == "running"
    assert who("tcp", "ipv4") == "web"


def test_a_policy_on_trial_that_cannot_go_back_stays_on_trial(scene):
    """It goes back when it can, and may be kept meanwhile."""
    broker, allocations, _ = scene
    before = broker.status()[0]["policy"]["digest"]
    broker.policy(section("web", UID, everywhere()) + section("new", UID, everywhere(7001)))
    failed = 0
    for first in range(1, STEPS, 5):
        assert broker.ask("VERB=reload\nTIMEOUT_USEC=100000").result == "ok"
        told = len(broker.log())
        with allocations.failing(first), contextlib.suppress(AssertionError):  # what would tell of it may be what fails
            until("the way back, or its failure", lambda: re.search(f"{FAILED}|kept in time", broker.log()[told:]), 3)
        if re.search(FAILED, broker.log()[told:]):
            failed += 1
            assert broker.status()[0]["policy"]["trial_until"] is not None and "new" in broker.status()[1]
            if failed == 2:
                break
        until("the one before to be in force", lambda: broker.status()[0]["policy"]["digest"] == before)
    assert failed == 2
    assert broker.ask("VERB=keep").result == "ok"
    assert "Service new" in (broker.state / "policy").read_text(encoding="utf-8")
    assert broker.status()[0]["state"] == "running"
