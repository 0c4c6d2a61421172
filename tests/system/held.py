# SPDX-License-Identifier: LGPL-2.1-or-later
"""What tests of HoldSec= wait for in a machine."""

ADDRESS = "203.0.113.7"
# One that no test has connected to: where a connection of the same addresses and ports has ended within a minute, the
# kernel answers the first packet of another one with an ACK, and refuses the next.
FRESH = "203.0.113.78"


def until_bus(broker):
    """The broker has a connection to the bus, over which it asks PID 1."""
    broker.until("the bus",
                 lambda: broker.run("busctl --no-pager list | grep -q sockbrokerd", check=False).returncode == 0)


def repeated_packets(broker):
    """How often the first packet of a connection was sent again so far: nobody had answered it."""
    names, values = broker.out("grep ^TcpExt: /proc/net/netstat").splitlines()
    return values.split()[names.split().index("TCPSynRetrans")]


def until_state(broker, state):
    return broker.until(f"state {state}", lambda: (rows := broker.registered("steady")) and rows[0]["state"] == state
                        and rows[0])
