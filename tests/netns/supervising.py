# SPDX-License-Identifier: LGPL-2.1-or-later
"""What tests of sockbroker-run --supervise share: policies, and what clients hear."""

import socket

from harness import sandbox
from words import PREFIXES, add_routes, listen, section

UID = 61001


def everything(name, *more, ports=80):
    return section(name, UID, *(listen(protocol, prefix, ports) for protocol in ("tcp", "udp")
                                for prefix in PREFIXES.values()), *more)


def begin(broker):
    """Of these ports of the prefixes one service has each, and sockbroker-run is installed."""
    add_routes()
    broker.policy(everything("web") + everything("dns", ports=5353)).start()
    sandbox.install()
    return broker


def ask(address, port, source=None):
    """What a TCP server says first."""
    with socket.create_connection((address, port), 20, source_address=source) as connection:
        return connection.makefile().readline().strip()


def send(address, port, text):
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(text.encode(), (address, port))
