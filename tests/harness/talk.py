# SPDX-License-Identifier: LGPL-2.1-or-later
"""Row S1 of the talk as data: policy, four services, questions to ask. The demo shows it, a test proves it."""

from harness import service

PREFIXES = ["1.0.0.0/24", "162.159.0.0/16", "172.65.128.0/24", "198.51.100.0/24", "203.0.113.0/24",
            "2606:4700::/32", "2400:cb00::/32", "2001:db8::/32"]

POLICY = """\
[Service resolver]
User=61001
ListenDatagram=1.0.0.0/24:53
ListenDatagram=[2606:4700::]/32:53

[Service auth]
User=61002
ListenDatagram=162.159.0.0/16:53
ListenDatagram=[2400:cb00::]/32:53

[Service http]
User=61003
ListenStream=0.0.0.0/0:80
ListenStream=[::]/0:80

[Service tcp-proxy]
User=61004
ListenStream=172.65.128.0/24:80
ListenStream=[2606:4700:7000::]/48:80
"""

# (protocol, address, port, the service that must answer)
QUESTIONS = [
    ("udp", "1.0.0.1", 53, "resolver"),
    ("udp", "1.0.0.77", 53, "resolver"),
    ("udp", "1.0.0.254", 53, "resolver"),
    ("udp", "2606:4700::1111", 53, "resolver"),
    ("udp", "2606:4700:ffff::1001", 53, "resolver"),
    ("udp", "162.159.0.1", 53, "auth"),
    ("udp", "162.159.36.1", 53, "auth"),
    ("udp", "162.159.255.254", 53, "auth"),
    ("udp", "2400:cb00::1", 53, "auth"),
    ("udp", "2400:cb00:2049:1::a29f:1804", 53, "auth"),
    ("tcp", "172.65.128.1", 80, "tcp-proxy"),
    ("tcp", "172.65.128.200", 80, "tcp-proxy"),
    ("tcp", "2606:4700:7000::1", 80, "tcp-proxy"),
    ("tcp", "2606:4700:7000:ffff::2", 80, "tcp-proxy"),
    ("tcp", "1.0.0.1", 80, "http"),
    ("tcp", "162.159.36.1", 80, "http"),
    ("tcp", "198.51.100.7", 80, "http"),
    ("tcp", "203.0.113.250", 80, "http"),
    ("tcp", "2606:4700::1111", 80, "http"),
    ("tcp", "2001:db8::80", 80, "http"),
]


def start_services(spawn=service.spawn):
    """The four services, each under a uid of its own with no capability, registered for IPv4 and IPv6.

    UDP answers leave from the port that the socket is bound to, so the launcher binds port 53 as root. The TCP
    services bind any free port themselves, since it is never seen. A socket at a v4-mapped address takes both families.
    """
    launched = {"resolver": {"udp": ("udp", "127.0.0.2", 53, {"dual": True})},
                "auth": {"udp": ("udp", "127.0.0.3", 53, {"dual": True})}}
    started = []
    for uid, name in enumerate(("resolver", "auth", "http", "tcp-proxy"), start=61001):
        one = spawn(name, uid, launched.get(name))
        started.append(one)
        if name not in launched:
            one.open("tcp4", "tcp", "127.0.0.1")
            one.open("tcp6", "tcp", "::1")
        reply = one.register(*one.labels())
        if reply.result != "ok":
            raise RuntimeError(f"the broker refused {name}: {reply.result}: {reply.message}")
    return started
