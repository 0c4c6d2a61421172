# SPDX-License-Identifier: LGPL-2.1-or-later
"""docs/moving.md under load: whoever dispatched before goes, and no connection is lost. From an old wildcard listener:
test_neighbours.py, row S10."""

import os
import socket

import pytest

from harness import namespace
from harness.load import Load, failed
from words import ADDRESS, PORT, add_routes, each_family, everywhere, section

IP_TRANSPARENT, IPV6_TRANSPARENT = 19, 75
TO = {"ipv4": "127.0.0.1", "ipv6": "::1"}


@pytest.fixture(name="moving")
def _moving(spawn, remote):
    """A server that serves already, and clients of another host that ask it without a pause from when they are
    called."""
    add_routes()

    def begin(family):
        old = spawn("web-1")
        old.for_load()
        old.open("tcp", "tcp", TO[family], 7099)
        return old, lambda: Load([("tcp", ADDRESS[family], PORT, "web")], remote.pid)

    return begin


@each_family
def test_from_another_sk_lookup_program_as_tubulars_with_the_same_server(broker, moving, neighbours, family):
    old, clients_of = moving(family)
    with old.borrowed("tcp") as sock:
        neighbours.set_target("tcp", family == "ipv6", sock)
    neighbours.attach("other_redirect")
    with clients_of() as load:
        load.until_answered_by("web-1", 50)
        broker.policy(section("web", 61001, everywhere())).start()
        load.more(100)  # nobody has registered: the other program's choice stands
        assert old.register("tcp", service="web").result == "ok"
        load.more(120)  # the first of them had begun before
        before = broker.status()[1]["web"]["assigned"]
        assert before >= 100, "it is the broker that decides now"
        while neighbours._links:  # pylint: disable=protected-access
            os.close(neighbours._links.pop())  # tubectl unload
        load.more(200)
        counts = load.end()["tcp"]
    assert failed(counts) == {} and counts["ok"] >= 450


@each_family
def test_from_tproxy_to_a_server_without_a_privilege(broker, spawn, moving, family):
    old, clients_of = moving(family)
    with old.borrowed("tcp") as sock:
        sock.setsockopt(*((socket.IPPROTO_IP, IP_TRANSPARENT) if family == "ipv4"
                          else (socket.IPPROTO_IPV6, IPV6_TRANSPARENT)), 1)
    table, to = ("ip", TO[family]) if family == "ipv4" else ("ip6", f"[{TO[family]}]")
    namespace.run("nft", "-f", "-", text=f"""
table {table} old {{
        chain divert {{
                type filter hook prerouting priority mangle; policy accept;
                {table} daddr {ADDRESS[family]} tcp dport {PORT} tproxy to {to}:7099
        }}
}}
""")
    with clients_of() as load:
        load.until_answered_by("web-1", 50)
        broker.policy(section("web", 61001, everywhere())).start()
        new = spawn("web-2")
        new.for_load()
        new.open("tcp", "tcp", TO[family])
        assert new.register("tcp", service="web").result == "ok"
        load.more(100)  # TPROXY comes before dispatch
        namespace.run("nft", "delete", "table", table, "old")
        load.until_answered_by("web-2", 100)
        load.more(100)  # handshakes that TPROXY has begun are over
        old.finish_load("tcp")
        old.kill()
        load.more(100)
        counts = load.end()["tcp"]
    assert failed(counts) == {} and counts["instances"]["web-1"] >= 100 and counts["instances"]["web-2"] >= 200
