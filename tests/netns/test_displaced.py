# SPDX-License-Identifier: LGPL-2.1-or-later
"""Displaced sockets: they stay as long as they live, however small the quota of live ones, and flows with them."""

import socket

import pytest

from harness import kernel, sessions, worker
from words import ADDRESS, LOOPBACK, PORT, add_routes, listen, section
from test_limits import limits

UID = 61001
SESSIONS = 20
KEPT = 256


@pytest.fixture(name="instances")
def _instances(netns):  # pylint: disable=unused-argument
    """instances(name): another instance of a server with sessions, which is registered."""
    made = []

    def start(name):
        made.append(worker.Worker(sessions.Server, UID, f"127.0.0.{2 + len(made)}", PORT))
        assert made[-1].register(name)[0] == "ok"

    yield start
    for one in made:
        one.kill()


def test_s5_no_session_is_lost_over_hand_overs_while_all_instances_live_whatever_the_quota_is(broker, instances):
    add_routes()
    broker.policy(section("game", UID, listen("udp", "192.0.2.0/24"), "UdpFlows=stay", "MaxSockets=1")).start()
    instances("game")
    clients = sessions.Clients(ADDRESS["ipv4"], PORT, SESSIONS)
    clients.round()
    clients.round()
    for _ in range(5):
        instances("game")
        clients.round()
    assert not clients.lost
    assert sorted(row["state"] for row in broker.list()) == ["draining"] * 5 + ["live"]
    clients.close()


def test_s5_sessions_stay_where_slots_are_more_than_flows_can_name(broker, instances):
    """Sockets that came and went do not push those that come later to such a slot."""
    add_routes()
    limits(broker, MaxSockets=70000, RateLimitBurst=0)
    broker.policy(section("game", UID, listen("udp", "192.0.2.0/24"), "UdpFlows=stay")
                  + section("many", 0, listen("udp", "198.51.100.0/24"), "Handover=share")).start()
    for _ in range(66000 // 250):
        sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(250)]
        for one in sockets:
            one.bind(("127.0.0.9", 0))
        assert broker.ask("FDSTORE=1\nFDNAME=many", [one.fileno() for one in sockets]).result == "ok"
        assert broker.ask("FDSTOREREMOVE=1\nFDNAME=many").result == "ok"
        for one in sockets:
            one.close()
    instances("game")
    clients = sessions.Clients(ADDRESS["ipv4"], PORT, SESSIONS)
    clients.round()
    clients.round()
    instances("game")
    clients.round()
    assert not clients.lost
    assert sum(row.get("flows", 0) for row in broker.list()) >= SESSIONS
    clients.close()


def test_the_oldest_of_more_displaced_sockets_than_are_kept_is_forgotten_and_the_journal_says_so(broker):
    limits(broker, RateLimitBurst=0)
    broker.policy(section("web", 0, listen("tcp", "192.0.2.0/24"), "MaxSockets=1")).start()
    sockets = []
    for _ in range(KEPT + 3):
        sockets.append(socket.create_server((LOOPBACK["ipv4"], 0)))
        assert broker.ask("FDSTORE=1\nFDNAME=web", [sockets[-1].fileno()]).result == "ok"
    states = [row["state"] for row in broker.list()]
    assert states.count("live") == 1 and KEPT <= states.count("draining") <= KEPT + 1
    broker.wait_log(f"it was displaced, and the service has {KEPT} younger ones that were")
    for one in sockets:
        one.close()


def tcp():
    return socket.create_server((LOOPBACK["ipv4"], 0))


def udp():
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((LOOPBACK["ipv4"], 0))
    return made


@pytest.fixture(name="register")
def _register(broker):
    """register(name, makers): registers one after the other; register(name, makers, True): in one message. Cookies."""
    made = []

    def register(name, makers, at_once=False):
        sockets = [make() for make in makers]
        made.extend(sockets)
        for some in [sockets] if at_once else [[one] for one in sockets]:
            assert broker.ask(f"FDSTORE=1\nFDNAME={name}", [one.fileno() for one in some]).result == "ok"
        return [kernel.socket_cookie(one) for one in sockets]

    yield register
    for one in made:
        one.close()


def test_those_that_give_way_are_the_oldest_of_whoever_has_most(broker, register):
    limits(broker, MaxSockets=40, RateLimitBurst=0)
    broker.policy("".join(section(f"s{i}", 0, listen("tcp", f"10.{i}.0.0/24")) for i in range(3))
                  + section("new", 0, listen("tcp", "10.9.0.0/24"), "Handover=share")).start()
    cookies = {f"s{i}": register(f"s{i}", [tcp] * count) for i, count in enumerate((13, 9, 5))}
    register("new", [tcp] * 20, at_once=True)
    left = {name: [row["cookie"] for row in reversed(broker.list()) if row["service"] == name] for name in cookies}
    assert sum(map(len, left.values())) == 20 and left["s2"] == cookies["s2"]
    assert {len(left["s0"]), len(left["s1"])} == {7, 8}, "of those that have most, in turns"
    assert all(left[name] == cookies[name][-len(left[name]):] for name in left), "the oldest"


def test_what_displaced_sockets_cost_grows_with_their_number_and_no_faster(broker, register):
    """Half of them are UDP, and stand behind as many of TCP. Anybody may ask for `status`, and the loop answers nobody
    else meanwhile."""
    many = 2000
    limits(broker, RateLimitBurst=0)
    broker.policy("".join(section(name, 0, listen("tcp", f"10.{i}.0.0/24"), listen("udp", f"10.{i}.0.0/24"),
                                  f"MaxSockets={many}") for i, name in enumerate(("alike", "mixed")))).start()

    def ask():
        for _ in range(20):
            assert broker.ask("VERB=status").result == "ok"


    register("alike", [tcp] * many)
    one = broker.price_of(ask)
    register("mixed", [udp] * (many // 2) + [tcp] * (many // 2))
    two = broker.price_of(ask)
    assert two < 5 * one, (one, two)
