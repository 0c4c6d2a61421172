# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which binding takes a packet that several cover, and what bindings without an address cover."""

from harness import client
from words import PORT, add_routes, handed_over, listen, open_socket, refused, section, who


def test_more_specific_bindings_win(broker, spawn):
    """Longest prefix, then the exact port, then the narrower range, then any."""
    add_routes()
    rules = [("host", "192.0.2.7/32", "*"), ("exact", "192.0.2.0/24", "8080"), ("narrow", "192.0.2.0/24", "8000-8100"),
             ("wide", "192.0.2.0/24", "8000-9000"), ("any", "192.0.2.0/24", "*"), ("half", "192.0.2.128/25", "8080")]
    broker.policy("".join(section(name, 61001 + i, listen("tcp", prefix, ports))
                          for i, (name, prefix, ports) in enumerate(rules))).start()
    for i, (name, _, _) in enumerate(rules):
        handed_over(spawn(name, 61001 + i), "tcp", "ipv4")
    for address, port, expected in (("192.0.2.7", 8080, "host"), ("192.0.2.8", 8080, "exact"),
                                    ("192.0.2.8", 8081, "narrow"), ("192.0.2.8", 8100, "narrow"),
                                    ("192.0.2.8", 8101, "wide"), ("192.0.2.8", 9001, "any"), ("192.0.2.8", 1, "any"),
                                    ("192.0.2.200", 8080, "half"), ("192.0.2.200", 8081, "narrow")):
        assert client.tcp_ask(address, port, source="127.0.0.1").name == expected, (address, port)


def test_ports_alone_serve_both_families_and_not_loopback(broker, spawn):
    add_routes()
    broker.policy(section("web", 61001, f"ListenStream={PORT}")).start()
    web = spawn("web")
    open_socket(web, "tcp", "ipv4")
    open_socket(web, "tcp", "ipv6")
    assert web.register("tcp-ipv4", "tcp-ipv6").result == "ok"
    assert who("tcp", "ipv4") == who("tcp", "ipv6") == "web"
    for address in ("127.0.0.1", "::1"):
        with refused():
            client.tcp_ask(address, PORT)
