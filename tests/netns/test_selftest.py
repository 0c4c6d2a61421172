# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the kernel's selftest of sk_lookup shows of the hook, shown of the broker: redirect, drop, reuseport, reject."""

import socket

import pytest

from harness import client, kernel, oddities, wire
from harness.kernel import acting_as
from harness.service import open_socket as open_socket_here
from words import ADDRESS, LOOPBACK, PORT, add_routes, each_family, each_protocol, everywhere, handed_over, listen
from words import open_socket, refused, section, who


@each_protocol
@each_family
@pytest.mark.parametrize("differs", ["port", "address", "both"])
def test_redirect_to_another_port_or_address(broker, spawn, protocol, family, differs):
    add_routes()
    asked_port = PORT if differs == "address" else PORT + 1
    broker.policy(section("web", 61001, everywhere(asked_port))).start()
    web = spawn("web")
    address = ADDRESS[family] if differs == "port" else LOOPBACK[family]
    handed_over(web, protocol, family, address=address, port=PORT, freebind=True)
    answer = client_answer(protocol, family, asked_port)
    assert answer.name == "web"
    assert answer.local == (ADDRESS[family], asked_port)
    # What the kernel cannot change for UDP: the answer carries the port that the socket is bound to.
    assert answer.source == (ADDRESS[family], PORT if protocol == "udp" else asked_port)


def client_answer(protocol, family, port):
    return client.ask(protocol, ADDRESS[family], port)


@each_protocol
def test_redirect_of_ipv4_to_a_dual_stack_ipv6_socket(broker, spawn, protocol):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    web = spawn("web")
    handed_over(web, protocol, "ipv6", address="127.0.0.1", dual=True)
    assert [line["family"] for line in broker.list()] == ["dual"]
    for family in ("ipv4", "ipv6"):
        answer = client_answer(protocol, family, PORT)
        assert answer.name == "web" and answer.local == answer.source == (ADDRESS[family], PORT)


@each_protocol
def test_a_dual_stack_socket_fills_only_the_family_that_is_not_given(broker, spawn, protocol):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    web = spawn("web")
    open_socket(web, protocol, "ipv6", "dual", address="127.0.0.1", dual=True)
    open_socket(web, protocol, "ipv4", address="127.0.0.5")
    assert web.register("dual", f"{protocol}-ipv4").result == "ok"
    assert who(protocol, "ipv4") == who(protocol, "ipv6") == "web"
    web.close("dual")
    assert who(protocol, "ipv4") == "web"
    with refused():
        who(protocol, "ipv6")


@each_protocol
@each_family
def test_drop_is_seen_at_once(broker, spawn, remote, protocol, family):
    """TCP: a RST; UDP: an ICMP error. On the same host and from afar. Though somebody is bound to the very address."""
    add_routes()
    open_socket(spawn("plain", 61500), protocol, family, address=ADDRESS[family], port=PORT, freebind=True)
    assert who(protocol, family) == "plain"
    broker.policy(section("web", 61001, everywhere(), "WhenAbsent=refuse")).start()
    with refused():
        who(protocol, family)
    with refused():
        remote.ask(protocol, ADDRESS[family], PORT)
    assert broker.status()[1]["web"]["no_socket"] >= 2


@each_protocol
@each_family
def test_pass_goes_on_to_the_ordinary_lookup(broker, spawn, protocol, family):
    add_routes()
    open_socket(spawn("plain", 61500), protocol, family, address=ADDRESS[family], port=PORT, freebind=True)
    broker.policy(section("web", 61001, everywhere(), "WhenAbsent=pass")).start()
    assert who(protocol, family) == "plain"
    web = spawn("web")
    handed_over(web, protocol, family)
    assert who(protocol, family) == "web"
    web.kill()
    assert who(protocol, family) == "plain"


@each_protocol
@each_family
def test_only_the_registered_socket_of_a_reuseport_group_gets_traffic(broker, spawn, protocol, family):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    registered, joined = spawn("registered", 61001), spawn("joined", 61001)
    handed_over(registered, protocol, family, service="web", port=PORT, reuseport=True)
    open_socket(joined, protocol, family, port=PORT, reuseport=True)
    seen_directly = {client.ask(protocol, LOOPBACK[family], PORT).name for _ in range(60)}
    assert seen_directly == {"registered", "joined"}, "the two are one group: asked directly, the kernel spreads"
    assert {who(protocol, family) for _ in range(60)} == {"registered"}


@each_family
def test_a_hand_over_within_a_reuseport_group(broker, spawn, family):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    old, new = spawn("old", 61001), spawn("new", 61001)
    for protocol in ("tcp", "udp"):
        handed_over(old, protocol, family, service="web", port=PORT, reuseport=True)
        assert {who(protocol, family) for _ in range(20)} == {"old"}
        handed_over(new, protocol, family, service="web", port=PORT, reuseport=True)
        assert {who(protocol, family) for _ in range(20)} == {"new"}


REJECTED = {
    # what is handed over: (service's protocol, code)
    "tcp-connected": ("tcp", "not-listening"),
    "tcp-accepted": ("tcp", "not-listening"),
    "tcp-bound": ("tcp", "not-listening"),
    "tcp-shut-down": ("tcp", "not-listening"),
    "udp-connected": ("udp", "wrong-socket"),
    "udp-unbound": ("udp", "wrong-socket"),
    "udp-bound": ("tcp", "wrong-socket"),
    "tcp-listener": ("udp", "wrong-socket"),
    "raw": ("tcp", "wrong-socket"),
    "mptcp-listener": ("tcp", "mptcp"),
}


@each_family
@pytest.mark.parametrize("kind", REJECTED)
def test_what_the_hook_would_reject_the_broker_refuses(broker, spawn, kind, family):
    if not oddities.kernel_has(kind):
        pytest.skip("this kernel has no such socket")
    protocol, code = REJECTED[kind]
    add_routes()
    broker.policy(section("web", 61001, *[listen(protocol, p) for p in ("192.0.2.0/24", "2001:db8::/64")])).start()
    web = spawn("web", 61001, {"odd": (kind, family)})
    before = broker.snapshot()
    reply = web.register("odd", service="web")
    assert reply.result == code, reply
    assert reply.errno != 0 and reply.message
    assert broker.snapshot() == before


@each_protocol
def test_a_socket_of_another_namespace_is_refused(broker, spawn, protocol):
    """The kernel would take it, and clients would hang."""
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    web = spawn("web", 61001, {"foreign": (protocol, "127.0.0.1", PORT, {"foreign": True})})
    assert web.register("foreign").result == "foreign-netns"
    assert broker.list() == []


@each_family
def test_a_listener_that_was_shut_down_is_refused_to_clients_found_and_forgotten(broker, spawn, family):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    web = spawn("web")
    handed_over(web, "tcp", family)
    web.shutdown(f"tcp-{family}")
    with refused():
        who("tcp", family)
    assert broker.status()[1]["web"]["errors"]["state"] >= 1
    assert broker.list() == []


@each_family
def test_the_displaced_serves_again_when_the_newest_was_shut_down(broker, spawn, family):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    old, new = spawn("old", 61001), spawn("new", 61001)
    for one in (old, new):
        handed_over(one, "tcp", family, service="web")
    assert who("tcp", family) == "new"
    new.shutdown(f"tcp-{family}")
    assert who("tcp", family) == "old"
    assert [line["state"] for line in broker.list()] == ["live"]


@each_family
def test_a_udp_socket_that_its_owner_connected_takes_nothing_more(broker, spawn, family):
    add_routes()
    broker.policy(section("dns", 61001, everywhere())).start()
    dns = spawn("dns")
    handed_over(dns, "udp", family)
    dns.connect(f"udp-{family}", LOOPBACK[family], 9)
    with refused():
        who("udp", family)
    assert broker.status()[1]["dns"]["errors"]["state"] >= 1
    assert broker.list() == []


def test_a_udp_socket_that_stays_in_the_kernels_map_when_it_is_closed_is_found_and_forgotten(broker):
    """Its owner has made it one of IPv4: the kernel then closes it as one that is in no map."""
    add_routes()
    broker.policy(section("dns", 61001, everywhere())).start()
    with open_socket_here("udp", LOOPBACK["ipv4"], PORT, dual=True) as sock:
        with acting_as(61001):
            assert wire.control(broker.control_path, "FDSTORE=1\nFDNAME=dns", [sock.fileno()]).result == "ok"
        sock.connect(("::ffff:127.0.0.1", 9))
        sock.setsockopt(socket.IPPROTO_IPV6, kernel.IPV6_ADDRFORM, socket.AF_INET)
        kernel.disconnect(sock)
    assert broker.list() == []
    with refused():
        who("udp", "ipv4")
