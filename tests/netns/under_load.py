# SPDX-License-Identifier: LGPL-2.1-or-later
"""A stock server under sockbroker-run --supervise that serves port 80 of both families, and clients of it while an
operator does something. With SOCKBROKER_LONG ten thousand connections and more."""

import contextlib
import os
import pathlib
import signal as signals

from harness import sandbox, supervised
from harness.hammer import Hammer
from words import add_routes, listen, section

UID = 61001
LONG = "SOCKBROKER_LONG" in os.environ
ROUNDS, CONNECTIONS = (20, 600) if LONG else (3, 150)


def begin(broker, make, sockets, *lines):
    """What make() returns, once so many of its sockets are live. `lines`: of the policy."""
    add_routes()
    broker.policy(section("web", UID, listen("tcp", "192.0.2.0/24", 80), listen("tcp", "2001:db8::/64", 80),
                          *lines)).start()
    sandbox.install()
    server = make()
    wait_for_sockets(broker, sockets)
    return server


def wait_for_sockets(broker, number):
    supervised.until(lambda: len([one for one in broker.list() if one["state"] == "live"]) >= number)


def wait_until_held(broker):
    supervised.until(lambda: all(one["state"] == "held" for one in broker.list()))


def stop(pid):
    """Returns when it does nothing any more."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signals.SIGSTOP)
    supervised.until(lambda: stat_of(pid) in "TZX")


def stat_of(pid):
    """The letter of its state; X: it is not there any more."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def reload(server, signal):
    """Returns when the workers of before have answered all they had, and ended."""
    before = server.workers()
    server.process.send_signal(signal)
    supervised.until(lambda: server.workers() and not before & server.workers())


def clients():
    return [Hammer("192.0.2.7", 80), Hammer("2001:db8::7", 80)]


def again_and_again(hammers, act):
    """What act() returned each time; after each so many connections more."""
    results = []
    for _ in range(ROUNDS):
        results.append(act())
        for hammer in hammers:
            hammer.more(CONNECTIONS // len(hammers))
    return results
