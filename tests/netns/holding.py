# SPDX-License-Identifier: LGPL-2.1-or-later
"""What tests of HoldSec= do: a service ends, clients knock while nobody is there, and hear of the end of a hold."""

import socket
import time

from harness import client
from words import PORT, who

HELD = "HoldSec=30\n"


def states(broker, service="web"):
    return sorted(row["state"] for row in broker.list() if row["service"] == service)


def end(one, broker, held="waits"):
    """The service ends, and the broker has noticed."""
    one.kill()
    if held:
        broker.wait_log(held)


def refused_soon(protocol="tcp"):
    """The end of a hold is told when it is decided; the holder closes the socket a moment later. Who comes in between
    waits in a queue that goes."""
    deadline = time.monotonic() + client.TIMEOUT
    while True:
        try:
            who(protocol, "ipv4")
        except ConnectionRefusedError:
            return
        except (ConnectionResetError, TimeoutError):
            assert time.monotonic() < deadline
        else:
            raise AssertionError("somebody answered")


def knock(address, port=PORT):
    """A connection that nobody has accepted yet: the kernel has completed its handshake."""
    waiting = socket.create_connection((address, port), timeout=client.TIMEOUT)
    return waiting, waiting.makefile("rb")
