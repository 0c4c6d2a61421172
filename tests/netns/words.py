# SPDX-License-Identifier: LGPL-2.1-or-later
"""Small words of the namespace tests: protocols, families, policy lines, sockets that are handed over."""

import contextlib

import pytest

from harness import client, namespace

PORT = 7000  # the one that tests ask, unless a row wants another
PREFIXES = {"ipv4": "192.0.2.0/24", "ipv6": "2001:db8::/64"}
ADDRESS = {"ipv4": "192.0.2.7", "ipv6": "2001:db8::7"}
LOOPBACK = {"ipv4": "127.0.0.1", "ipv6": "::1"}

each_protocol = pytest.mark.parametrize("protocol", ["tcp", "udp"])
each_family = pytest.mark.parametrize("family", ["ipv4", "ipv6"])


def listen(protocol, prefix, ports=PORT):
    """The line of a binding, IPv6 in brackets."""
    if ":" in prefix:
        address, slash, length = prefix.partition("/")
        prefix = f"[{address}]{slash}{length}"
    key = "ListenStream" if protocol == "tcp" else "ListenDatagram"
    return f"{key}={prefix}:{ports}\n"


def section(name, uid, *lines):
    return f"[Service {name}]\nUser={uid}\n" + "".join(line.rstrip("\n") + "\n" for line in lines)


def everywhere(ports=PORT):
    """Bindings of both protocols and families on the test prefixes."""
    return "".join(listen(protocol, prefix, ports) for protocol in ("tcp", "udp") for prefix in PREFIXES.values())


def add_routes():
    namespace.add_local_routes(*PREFIXES.values())


def open_socket(one, protocol, family, label=None, **options):
    """A socket on loopback, UDP on the port that is asked since answers carry it. Returns its label."""
    label = label or f"{protocol}-{family}"
    port = options.pop("port", PORT if protocol == "udp" else 0)
    one.open(label, protocol, options.pop("address", LOOPBACK[family]), port, **options)
    return label


def handed_over(one, protocol, family, label=None, service=None, **options):
    """Opens a socket and registers it; the broker must agree. Returns its cookie."""
    label = open_socket(one, protocol, family, label, **options)
    reply = one.register(label, service=service)
    assert reply.result == "ok", reply
    return one.facts(label)[1]


def who(protocol, family, port=PORT):
    """Name of the service that answers."""
    return client.ask(protocol, ADDRESS[family], port).name


@contextlib.contextmanager
def refused():
    """What the client must see at once: a RST or an ICMP error, not a hang."""
    with pytest.raises(ConnectionRefusedError):
        yield
