# SPDX-License-Identifier: LGPL-2.1-or-later
"""What tests of HoldSec= wait for in a machine."""

ADDRESS = "203.0.113.7"


def until_bus(broker):
    """The broker has a connection to the bus, over which it asks PID 1."""
    broker.until("the bus",
                 lambda: broker.run("busctl --no-pager list | grep -q sockbrokerd", check=False).returncode == 0)


def until_state(broker, state):
    return broker.until(f"state {state}", lambda: (rows := broker.registered("steady")) and rows[0]["state"] == state
                        and rows[0])
