# SPDX-License-Identifier: LGPL-2.1-or-later
"""UdpFlows=stay: sessions over UDP go on in the process that has them, over hand-overs to processes of other users on
addresses of their own; new ones go to the newest."""

import os

import pytest

from harness import sessions
from harness.until import until
from waiting import inside
from words import ADDRESS, PORT, add_routes, each_family, listen, section

SESSIONS, HANDOVERS = (1000, 100) if "SOCKBROKER_LONG" in os.environ else (100, 10)


def begin(broker, *more):
    add_routes()
    broker.policy(section("game", "61001 61002", listen("udp", "192.0.2.0/24"), listen("udp", "2001:db8::/64"),
                          *more)).start()


@each_family
@pytest.mark.parametrize("stay", [True, False], ids=["stay", "newest"])
def test_sessions_over_many_hand_overs(broker, serve_game, remote, family, stay):
    begin(broker, *(["UdpFlows=stay"] if stay else []))
    first, _ = serve_game(family)
    with inside(remote.pid):
        clients = sessions.Clients(ADDRESS[family], PORT, SESSIONS)
    clients.round()
    clients.round()
    for _ in range(HANDOVERS):
        newest, _ = serve_game(family)
        with inside(remote.pid):
            clients.begin(2)
        clients.round()
        assert newest.known() == 2 or not stay, "new flows go to the newest"
    print(f"{len(clients.lost)} of {len(clients.sockets)} sessions lost over {HANDOVERS} hand-overs")
    if stay:
        assert clients.lost == set()
        assert first.known() == SESSIONS
        first.kill()  # its sessions are over, those of all others go on
        clients.round()
        assert clients.lost == set(range(SESSIONS))
    else:
        assert len(clients.lost) >= SESSIONS
    clients.close()


@each_family
@pytest.mark.parametrize("stay", [True, False], ids=["stay", "spread"])
def test_sessions_of_a_service_that_shares_when_servers_join(broker, serve_game, remote, family, stay):
    begin(broker, "Handover=share", *(["UdpFlows=stay"] if stay else []))
    serve_game(family)
    with inside(remote.pid):
        clients = sessions.Clients(ADDRESS[family], PORT, SESSIONS)
    clients.round()
    clients.round()
    for _ in range(HANDOVERS):
        serve_game(family)
        with inside(remote.pid):
            clients.begin(2)
        clients.round()
    print(f"{len(clients.lost)} of {len(clients.sockets)} sessions lost while {HANDOVERS} servers joined")
    assert clients.lost == set() if stay else len(clients.lost) > SESSIONS / 2
    clients.close()


@each_family
def test_a_client_that_changes_its_port_goes_on_only_where_the_newest_has_its_session(broker, serve_game, remote,
                                                                                     family):
    """sk_lookup sees no id of a session: by its new port it is a new flow."""
    begin(broker, "UdpFlows=stay")
    serve_game(family)
    with inside(remote.pid):
        clients = sessions.Clients(ADDRESS[family], PORT, 100)
        clients.round()
        clients.move()
        clients.round()
    assert clients.lost == set(), "there is one instance"
    serve_game(family)
    with inside(remote.pid):
        clients.begin(100)
        clients.round()
        clients.round()
        assert clients.lost == set()
        clients.move()
        clients.round()
    assert clients.lost == set(range(100)), "those that the older instance has"
    clients.close()


def flows(broker):
    return {row["cookie"]: row.get("flows") for row in broker.list()}


def test_list_and_wait_know_the_flows_that_an_old_instance_still_has(broker, serve_game):
    begin(broker, "UdpFlows=stay")
    old, first = serve_game("ipv4")
    clients = sessions.Clients(ADDRESS["ipv4"], PORT, 30)
    clients.round()
    _, second = serve_game("ipv4")
    # One datagram is no session.
    until("no flow is counted", lambda: flows(broker) == {first: 0, second: 0})
    status, output = broker.ctl("wait", "game", "--for=drained", "--timeout=10s")
    assert status == 0, output
    clients.round()
    until("all are counted", lambda: flows(broker) == {first: 30, second: 0})
    status, output = broker.ctl("wait", "game", "--for=drained", "--timeout=1s")
    assert status != 0 and "has 30 flows" in output, output
    broker.kill()
    clients.round()
    broker.start()
    assert flows(broker) == {first: 30, second: 0}
    assert clients.lost == set()
    old.kill()
    status, output = broker.ctl("wait", "game", "--for=drained", "--timeout=10s")
    assert status == 0, output
    clients.close()


def test_it_may_be_turned_on_and_off_by_a_reload(broker, serve_game):
    begin(broker)
    serve_game("ipv4")
    clients = sessions.Clients(ADDRESS["ipv4"], PORT, 30)
    clients.round()
    assert set(flows(broker).values()) == {None}
    policy = broker.config / "conf.d/50-test.conf"
    plain = policy.read_text()
    policy.write_text(plain + "UdpFlows=stay\n")
    assert broker.reload()[0] == 0
    clients.round()
    serve_game("ipv4")
    clients.round()
    assert clients.lost == set()
    policy.write_text(plain)
    assert broker.reload()[0] == 0
    clients.round()
    assert len(clients.lost) == 30, "all go to the newest"
    clients.close()


def test_a_session_of_an_instance_that_crashed_goes_to_the_one_that_reads(broker, serve_game):
    """With HoldSec= the socket of the crashed one is there still, and nobody reads it."""
    begin(broker, "UdpFlows=stay", "HoldSec=60")
    first, _ = serve_game("ipv4")
    clients = sessions.Clients(ADDRESS["ipv4"], PORT, 10)
    clients.round()
    clients.round()
    newest, _ = serve_game("ipv4")
    clients.round()
    assert clients.lost == set()
    first.kill()
    clients.round()  # unknown there, but answered
    assert len(clients.lost) == 10 and newest.known() == 0
    clients.numbers = [0] * 10
    clients.lost.clear()
    clients.round()
    clients.round()
    assert clients.lost == set() and newest.known() == 10
    clients.close()
