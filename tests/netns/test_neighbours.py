# SPDX-License-Identifier: LGPL-2.1-or-later
"""The broker among others: row S9 (packet programs find the brokered listener), row S10 (ordinary binds), and sk_lookup
programs of other owners before and after ours, as the kernel's own selftest arranges them."""

import errno
import socket

import pytest

from harness import client, namespace
from harness import neighbours as neighbours_module
from words import ADDRESS, LOOPBACK, PORT, PREFIXES, add_routes, each_family, each_protocol, everywhere, handed_over
from words import listen, open_socket, refused, section, who

assert PORT == neighbours_module.PORT


def bound_port(one, protocol, family):
    return one.facts(f"{protocol}-{family}")[0]


@each_protocol
@each_family
def test_s9_a_tc_program_finds_the_brokered_listener(broker, spawn, neighbours, protocol, family):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    neighbours.find_by_tc("lo")
    with refused():
        who(protocol, family)
    assert neighbours.found(protocol, family == "ipv6") == 0
    web = spawn("web")
    handed_over(web, protocol, family)
    assert who(protocol, family) == "web"
    assert neighbours.found(protocol, family == "ipv6") == bound_port(web, protocol, family)


@each_protocol
@each_family
def test_s9_an_xdp_program_finds_the_brokered_listener(broker, spawn, neighbours, remote, protocol, family):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    neighbours.find_by_xdp("host")
    web = spawn("web")
    handed_over(web, protocol, family)
    assert remote.ask(protocol, ADDRESS[family], PORT).name == "web"
    assert neighbours.found(protocol, family == "ipv6") == bound_port(web, protocol, family)


@each_protocol
@each_family
def test_s10_a_more_specific_ordinary_bind_cannot_steal(broker, spawn, protocol, family):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    handed_over(spawn("web"), protocol, family)
    assert who(protocol, family) == "web"
    thief = spawn("thief", 61666)
    thief.open("exact", protocol, ADDRESS[family], PORT, freebind=True)
    if protocol == "tcp":
        thief.open("wildcard", protocol, "0.0.0.0" if family == "ipv4" else "::", PORT + 1)
    for _ in range(20):
        assert who(protocol, family) == "web"
    # What no binding covers is still theirs: the thief's sockets do work.
    if protocol == "tcp":
        assert client.tcp_ask(ADDRESS[family], PORT + 1).name == "thief"


@each_family
def test_s10_the_way_left_is_a_udp_socket_connected_to_one_client(broker, spawn, family):
    """Connected sockets are found before sk_lookup: whoever may bind the port can take the flow of one client."""
    add_routes()
    broker.policy(section("dns", 61001, everywhere())).start()
    handed_over(spawn("dns"), "udp", family)
    thief = spawn("thief", 61666)
    with socket.socket(client.family_of(ADDRESS[family]), socket.SOCK_DGRAM) as victim:
        victim.settimeout(client.TIMEOUT)
        victim.bind((LOOPBACK[family], 0))
        thief.open("flow", "udp", ADDRESS[family], PORT, freebind=True)
        for connected, expected in ((False, b"dns"), (True, b"thief")):
            if connected:
                thief.connect("flow", *victim.getsockname()[:2])
            victim.sendto(b"who\n", (ADDRESS[family], PORT))
            assert victim.recv(4096).split()[0] == expected
    assert who("udp", family) == "dns", "other clients are not affected"
    reply = thief.register("flow", service="dns")
    assert reply.result == "not-permitted", "and the broker would not take it"


@each_family
def test_s10_an_old_wildcard_listener_is_moved_over_without_one_refused_connection(broker, spawn, clients, family):
    add_routes()
    old = spawn("old", 61002)
    old.open("wildcard", "tcp", "0.0.0.0" if family == "ipv4" else "::", 4443)
    asking = [clients([("tcp", ADDRESS[family], 4443)]) for _ in range(2)]
    for one in asking:
        one.until("old")
    broker.policy(section("web", 61001, listen("tcp", "0.0.0.0/0" if family == "ipv4" else "::/0", 4443),
                          "WhenAbsent=pass")).start()
    for one in asking:
        one.until("old")
        one.more(50)
    new = spawn("new", 61001)
    handed_over(new, "tcp", family, service="web")
    for one in asking:
        one.until("new")
    old.kill()  # its queue is empty: each client waits for its answer before it asks again
    for one in asking:
        one.more(50)
    # Now nobody is left to pass to: the policy can refuse.
    broker.policy(section("web", 61001, listen("tcp", PREFIXES[family], 4443)))
    assert broker.reload()[0] == 0
    for one in asking:
        one.more(50)
        answers, failures = one.end()
        assert failures == []
        assert answers["old"] >= 52 and answers["new"] >= 100
    new.kill()
    with refused():
        client.tcp_ask(ADDRESS[family], 4443)


# Programs of other owners. In attach order; the last one to select wins, a drop counts only if nobody selects.
# (before ours, after ours) -> who answers while our service lives, and while it does not (WhenAbsent=refuse)
MULTI = [
    ("other_pass", None, "web", None),
    ("other_drop", None, "web", None),
    ("other_redirect", None, "web", "other"),
    (None, "other_pass", "web", None),
    (None, "other_drop", "web", None),
    (None, "other_redirect", "web", "other"),
    (None, "other_replace", "other", "other"),
    ("other_redirect", "other_redirect", "web", "other"),
    ("other_drop", "other_drop", "web", None),
    ("other_drop", "other_replace", "other", "other"),
    ("other_redirect", "other_drop", "web", "other"),
]


@pytest.mark.parametrize("before,after,alive,dead", MULTI, ids=lambda value: str(value).removeprefix("other_"))
def test_several_programs(broker, spawn, neighbours, before, after, alive, dead):
    add_routes()
    with_sockets = []
    other = spawn("other", 61500)
    for protocol in ("tcp", "udp"):
        for family in ("ipv4", "ipv6"):
            # A neighbour's socket is put into its own map by a privileged loader, here the test itself.
            label = open_socket(other, protocol, family, address="127.0.0.9" if family == "ipv4" else "::1",
                                port=PORT if (protocol, family) == ("udp", "ipv4") else PORT + 9)
            with other.borrowed(label) as sock:
                neighbours.set_target(protocol, family == "ipv6", sock)
            with_sockets.append((protocol, family))
    if before:
        neighbours.attach(before)
    broker.policy(section("web", 61001, everywhere())).start()
    if after:
        neighbours.attach(after)
    web = spawn("web")
    for protocol, family in with_sockets:
        handed_over(web, protocol, family)
        assert name_of_answer(protocol, family) == alive
    errors = broker.status()[1]["web"]["errors"]
    assert set(errors.values()) == {0}, "ours never meets EEXIST"
    web.kill()
    for protocol, family in with_sockets:
        assert name_of_answer(protocol, family) == dead


def name_of_answer(protocol, family):
    """None: refused. The port that a redirected UDP answer comes from is its socket's own."""
    try:
        return who(protocol, family)
    except ConnectionRefusedError as error:
        assert error.errno == errno.ECONNREFUSED
        return None


@each_protocol
def test_a_drop_of_another_program_counts_where_ours_has_nothing_to_say(broker, spawn, neighbours, protocol):
    add_routes()
    plain = spawn("plain", 61500)
    open_socket(plain, protocol, "ipv4", address=ADDRESS["ipv4"], port=PORT)
    broker.policy(section("web", 61001, listen(protocol, "198.51.100.0/24"))).start()
    assert who(protocol, "ipv4") == "plain"
    neighbours.attach("other_drop")
    with refused():
        who(protocol, "ipv4")


def test_neighbours_are_as_the_test_believes(spawn, neighbours):
    """Without a broker: the programs do act."""
    add_routes()
    plain, other = spawn("plain", 61500), spawn("other", 61501)
    open_socket(plain, "tcp", "ipv4", address=ADDRESS["ipv4"], port=PORT)
    open_socket(other, "tcp", "ipv4")
    with other.borrowed("tcp-ipv4") as sock:
        neighbours.set_target("tcp", False, sock)
    assert who("tcp", "ipv4") == "plain"
    neighbours.attach("other_drop")
    with refused():
        who("tcp", "ipv4")
    neighbours.attach("other_redirect")
    assert who("tcp", "ipv4") == "other"
    assert namespace.run("ss", "-H", "-l", "-t", "-n").count(f":{PORT}") == 1
