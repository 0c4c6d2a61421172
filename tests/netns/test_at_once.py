# SPDX-License-Identifier: LGPL-2.1-or-later
"""Many honest requests of one user at the same moment: each is answered, none refused for their number."""

import collections
import os
import signal
import socket

from harness import kernel, wire, worker
from words import LOOPBACK, add_routes, listen, section
from test_limits import limits

UID = 61001
COUNT = 100


class Crowd(worker.Child):
    """Services of one user, each with a connection and a socket of its own."""

    def __init__(self, path, count):
        super().__init__()
        kernel.drop_privileges(UID, UID)
        self.path = path
        self.sockets = [socket.create_server((LOOPBACK["ipv4"], 0)) for _ in range(count)]
        self.connections = []

    def ask(self):
        for one in self.sockets:
            self.connections.append(wire.Control(self.path))
            self.connections[-1].send("FDSTORE=1\nFDNAME=web", [one.fileno()])

    def results(self):
        """How often which. Whoever has his answer hangs up, as clients do."""
        found = collections.Counter()
        for connection in self.connections:
            with connection:
                found[connection.receive().result] += 1
        return found


def crowd_of(broker):
    add_routes()
    limits(broker, RateLimitBurst=0)
    broker.policy(section("web", UID, listen("tcp", "192.0.2.0/24"), "Handover=share"))
    return worker.Worker(Crowd, broker.control_path, COUNT)


def test_services_of_one_user_that_start_while_the_broker_is_away_are_all_registered_when_it_is_back(
        broker_with_sockets):
    broker_with_sockets.activated[1].listen(4096)
    crowd = crowd_of(broker_with_sockets)
    crowd.ask()
    broker_with_sockets.start()
    assert crowd.results() == {"ok": COUNT}
    crowd.kill()


def test_so_are_those_that_come_while_it_is_kept_from_its_work(broker):
    crowd = crowd_of(broker)
    broker.start()
    os.kill(broker.process.pid, signal.SIGSTOP)
    crowd.ask()
    os.kill(broker.process.pid, signal.SIGCONT)
    assert crowd.results() == {"ok": COUNT}
    crowd.kill()
