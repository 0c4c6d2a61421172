# SPDX-License-Identifier: LGPL-2.1-or-later
"""Several live sockets of one service: Handover=share, and ReusePort= which leaves the choice to the kernel."""

import collections
import socket

from harness import client
from words import ADDRESS, LOOPBACK, PORT, add_routes, each_family, each_protocol, everywhere, handed_over, open_socket
from words import refused, section, who

FLOWS = 200


def answers(protocol, family, count=FLOWS):
    """How often each service answered, each question a flow of its own."""
    return collections.Counter(who(protocol, family) for _ in range(count))


def shared(broker, spawn, protocol, family, count, *lines):
    add_routes()
    broker.policy(section("web", 61001, everywhere(), *lines)).start()
    members = [spawn(f"web-{i}") for i in range(count)]
    for one in members:
        handed_over(one, protocol, family, service="web", reuseport=True)
    return members


@each_protocol
@each_family
def test_share_spreads_flows_over_all_sockets_and_refuses_when_the_last_goes(broker, spawn, protocol, family):
    members = shared(broker, spawn, protocol, family, 4, "Handover=share")
    assert [entry["state"] for entry in broker.list()] == ["live"] * 4
    seen = answers(protocol, family)
    assert set(seen) == {"web-0", "web-1", "web-2", "web-3"}
    assert min(seen.values()) > FLOWS / 4 - 5 * (FLOWS / 4) ** 0.5
    for number, one in enumerate(members[:3]):
        one.close(f"{protocol}-{family}")
        assert set(answers(protocol, family, 60)) == {f"web-{i}" for i in range(number + 1, 4)}
    members[3].close(f"{protocol}-{family}")
    with refused():
        who(protocol, family)


@each_family
def test_a_shared_udp_flow_stays_with_its_socket_while_others_come_and_go(broker, spawn, family):
    members = shared(broker, spawn, "udp", family, 3, "Handover=share")
    flows = [socket.socket(client.family_of(ADDRESS[family]), socket.SOCK_DGRAM) for _ in range(30)]

    def ask(flow):
        flow.settimeout(20)
        flow.sendto(b"?", (ADDRESS[family], PORT))
        return flow.recv(4096).split()[0].decode()

    before = [ask(flow) for flow in flows]
    assert [ask(flow) for flow in flows] == before

    handed_over(spawn("web-3"), "udp", family, service="web", reuseport=True)
    came = [ask(flow) for flow in flows]
    assert all(now in (was, "web-3") for was, now in zip(before, came))

    broker.kill()
    broker.start()
    assert [ask(flow) for flow in flows] == came, "the next broker moves none"

    members[0].close(f"udp-{family}")
    for was, flow in zip(came, flows):
        now = ask(flow)
        assert now != "web-0" and (was == "web-0" or now == was)
    for flow in flows:
        flow.close()


def test_share_takes_several_sockets_in_one_message(broker, spawn):
    add_routes()
    broker.policy(section("web", 61001, everywhere(), "Handover=share")).start()
    one = spawn("web")
    labels = [open_socket(one, "tcp", "ipv4", label=f"tcp-{i}") for i in range(5)]
    assert one.register(*labels).result == "ok"
    assert len(broker.list()) == 5
    assert {entry["state"] for entry in broker.list()} == {"live"}


def test_the_quota_of_a_sharing_service_counts_each_of_its_sockets(broker, spawn):
    add_routes()
    broker.policy(section("web", 61001, everywhere(), "Handover=share", "MaxSockets=3")).start()
    one = spawn("web")
    for i in range(3):
        handed_over(one, "tcp", "ipv4", label=f"tcp-{i}")
    open_socket(one, "tcp", "ipv4", label="tcp-3")
    assert one.register("tcp-3").result == "quota"
    one.close("tcp-1")
    assert one.register("tcp-3").result == "ok", "the dead one was found"


def test_a_reload_turns_reserve_into_sharing_and_back(broker, spawn):
    shared(broker, spawn, "tcp", "ipv4", 3)
    assert set(answers("tcp", "ipv4", 30)) == {"web-2"}
    for lines, served in ((["Handover=share"], {"web-0", "web-1", "web-2"}), ([], {"web-2"})):
        broker.policy(section("web", 61001, everywhere(), *lines))
        status, output = broker.reload()
        assert status == 0, output
        assert set(answers("tcp", "ipv4")) == served


@each_protocol
@each_family
def test_reuse_port_decides_whether_an_unregistered_socket_of_the_group_gets_traffic(broker, spawn, protocol, family):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    registered, joined = spawn("registered"), spawn("joined")
    port = registered.open("tcp" if protocol == "tcp" else "udp", protocol, LOOPBACK[family],
                           0 if protocol == "tcp" else PORT, reuseport=True)[0]
    joined.open("its own", protocol, LOOPBACK[family], port, reuseport=True)
    assert registered.register(protocol, service="web").result == "ok"
    assert set(answers(protocol, family, 60)) == {"registered"}

    broker.policy(section("web", 61001, everywhere(), "ReusePort=yes"))
    status, output = broker.reload()
    assert status == 0, output
    assert set(answers(protocol, family, 60)) == {"registered", "joined"}
