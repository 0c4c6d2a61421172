# SPDX-License-Identifier: LGPL-2.1-or-later
"""What an upgrade to another layout of the pinned maps does to services over UDP for which dispatch remembers clients:
UdpReply=original, whose answers need what dispatch has noted of the questions, and UdpFlows=stay. The program of before
goes on until there are new rules, over its own maps; with SOCKBROKER_EARLIER= it is one of an earlier release."""

import contextlib
import os
import pathlib
import time

import pytest

from harness import broker as brokers
from harness import earlier, faults, long, sessions, units, worker
from test_udp_replies import SERVER, UID, UNIT, ask, original
from waiting import inside
from words import ADDRESS, PORT, add_routes, each_family, listen, section

EARLIER = os.environ.get("SOCKBROKER_EARLIER")
QUESTIONS = 20


def since(layout):
    """The oldest and the newest of them always."""
    layouts = [0] if EARLIER else [one for one in earlier.HEADERS if one >= layout]
    return pytest.mark.parametrize("layout", long.some(layouts, layouts[0], layouts[-1]),
                                   ids=lambda one: f"layout-{one}")


def begin(broker, policy):
    add_routes()
    if EARLIER:
        broker.program = pathlib.Path(EARLIER)
    broker.policy(policy).start()


def leave_earlier(broker, layout):
    """The broker of before ends, and today's is the next to start."""
    broker.stop()
    broker.program = brokers.BUILD / "sockbrokerd"
    if not EARLIER:
        earlier.remake(broker.bpffs / "dispatch", layout)


def refuse_policy(broker):
    """Returns the one of before."""
    good = (broker.config / "conf.d/50-test.conf").read_text()
    for copy in broker.state.iterdir():
        copy.unlink()
    broker.policy("[Service dns]\nNoKey=1\n")
    return good


@pytest.fixture(name="dns")
def _dns(slice_):
    """dns(broker, family): a server of a unit that answers from the asked address."""
    servers = []

    def start(broker, family):
        servers.append(worker.Worker(units.Server, slice_.unit(UNIT), UID))
        servers[-1].open(family, SERVER[family], PORT)
        assert servers[-1].register("dns", family).result == "ok", broker.log()
        return servers[-1]

    yield start
    for one in servers:
        one.kill()


class Asker(worker.Child):
    """Asks without a pause, from a socket of its own each time."""

    def __init__(self, address):
        super().__init__()
        self.address = address
        self.answered, self.lost = 0, []
        self.busy = True

    def work(self):
        begun = time.monotonic()
        if ask(self.address, timeout=10) == b"who":
            self.answered += 1
        else:
            self.lost.append(begun)

    def end(self):
        self.busy = False
        return self.answered, self.lost


def answered(remote, family, questions=QUESTIONS):
    with inside(remote.pid):
        return sum(ask(ADDRESS[family], timeout=10) == b"who" for _ in range(questions))


@each_family
@since(7)
def test_without_a_policy_that_can_be_loaded_answers_go_on(broker, dns, remote, family, layout):
    begin(broker, original())
    dns(broker, family)
    assert answered(remote, family) == QUESTIONS
    leave_earlier(broker, layout)
    good = refuse_policy(broker)
    for _ in range(2):  # a start that finds what another one left so is no different
        broker.start()
        broker.wait_log("taken along from maps of layout")
        assert broker.status()[0]["state"] == "degraded"
        assert answered(remote, family) == QUESTIONS
        broker.kill()
    broker.start()
    broker.policy(good)
    assert broker.reload()[0] == 0
    assert answered(remote, family) == QUESTIONS, "by what the program of this layout has noted"
    broker.kill()
    broker.start()
    assert answered(remote, family) == QUESTIONS


@each_family
@since(7)
def test_no_question_is_lost_while_the_rules_are_compiled(broker, dns, remote, family, layout):
    """Many of them, so that it takes time."""
    (broker.config / "sockbrokerd.conf").write_text("[Broker]\nMaxBindings=200000\n")
    many = "".join(f"ListenStream=10.{i >> 16}.{i >> 8 & 255}.{i & 255}:80\n" for i in range(100000))
    begin(broker, original() + f"[Service many]\nUser=61009\n{many}")
    dns(broker, family)
    with inside(remote.pid):
        asking = worker.Worker(Asker, ADDRESS[family])
    leave_earlier(broker, layout)
    broker.start()
    broker.wait_log("taken along from maps of layout")
    assert answered(remote, family) == QUESTIONS
    count, lost = asking.end()
    asking.kill()
    print(f"{count} questions answered, {len(lost)} lost")
    assert count > QUESTIONS and lost == []


@pytest.mark.skipif(EARLIER is not None, reason="what it has pinned is there once")
@pytest.mark.parametrize("layout", long.some([7, 8, 9], 9), ids=lambda one: f"layout-{one}")
def test_a_broker_that_is_killed_anywhere_in_an_upgrade_leaves_answers_as_they_are(broker, dns, remote, layout):
    points = faults.FaultPoints()
    (broker.config / "sockbrokerd.conf").write_text("[Broker]\nMaxBindings=64\nMaxServices=6\nMaxSockets=24\n")
    begin(broker, original())
    dns(broker, "ipv4")
    broker.environment = points.environment

    def upgrade(kill_at):
        leave_earlier(broker, layout)
        points.arm(kill_at)
        with contextlib.suppress(RuntimeError):  # it ended before READY=1
            broker.start()
        return points.disarm()

    passed = upgrade(0)
    last = len(passed) - (60 if long.LONG else 10)  # in these the new rules come into force
    for kill_at in [*range(1, last, 1 if long.LONG else 12), *range(last, len(passed) + 1)]:
        upgrade(kill_at)
        assert answered(remote, "ipv4", 3) == 3, passed[kill_at - 1]
        broker.kill()
        broker.start()
        assert answered(remote, "ipv4", 3) == 3, passed[kill_at - 1]
    assert "earlier_link" in " ".join(passed[last:]), passed


@each_family
@pytest.mark.parametrize("good", [True, False], ids=["good", "refused"])
@since(6)
def test_sessions_stay_with_the_instance_that_has_them(broker, serve_game, remote, family, good, layout):
    begin(broker, section("game", "61001 61002", listen("udp", "192.0.2.0/24"), listen("udp", "2001:db8::/64"),
                          "UdpFlows=stay"))
    serve_game(family)
    with inside(remote.pid):
        clients = sessions.Clients(ADDRESS[family], PORT, 100)
    clients.round()
    clients.round()
    serve_game(family)
    with inside(remote.pid):
        clients.begin(100)  # these are the second one's
    clients.round()
    leave_earlier(broker, layout)
    policy = None if good else refuse_policy(broker)
    broker.start()
    broker.wait_log("taken along from maps of layout")
    clients.round()
    assert clients.lost == set()
    if not good:
        with inside(remote.pid):
            clients.begin(100)  # which only the program of before has seen
        clients.round()
        broker.policy(policy)
        assert broker.reload()[0] == 0
        clients.round()
        assert clients.lost == set()
    serve_game(family)
    clients.round()
    assert clients.lost == set(), "and with the next hand-over too"
    clients.close()
