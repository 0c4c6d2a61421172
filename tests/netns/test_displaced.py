# SPDX-License-Identifier: LGPL-2.1-or-later
"""Displaced sockets: they stay as long as they live, however small the quota of live ones, and flows with them."""

import socket

import pytest

from harness import sessions, worker
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
