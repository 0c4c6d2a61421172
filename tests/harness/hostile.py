# SPDX-License-Identifier: LGPL-2.1-or-later
"""Peers that mean harm, each with a process and a uid of its own, and an honest one that notes how long it waits."""

import contextlib
import errno
import os
import socket
import time

from harness import kernel, wire, worker

RUNTIME = "/run/sockbroker"
CONNECTIONS = 32  # what one uid may have
ENOUGH = 20  # latencies, to say what nine of ten are below


class Hostile(worker.Child):
    """Does harm in small steps between calls. `uid` for good, so that nothing it does is root's."""

    def __init__(self, uid):
        super().__init__()
        kernel.drop_privileges(uid, uid)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.connections = []
        self.sent = 0
        self.work = lambda: None

    def begin(self, kind, *arguments):
        getattr(self, "_begin_" + kind)(*arguments)
        self.busy = True

    def count(self):
        return self.sent

    def _connect(self, count=CONNECTIONS):
        for _ in range(count):
            one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            one.connect(f"{RUNTIME}/control")
            one.setblocking(False)
            self.connections.append(one)

    def _send_all(self, text, fds=(), read=True):
        for number, one in enumerate(self.connections):
            try:
                while True:
                    socket.send_fds(one, [text], fds)
                    self.sent += 1
            except OSError as full:  # ETOOMANYREFS: more descriptors on their way than the kernel allows one user
                if full.errno not in (errno.EAGAIN, errno.ETOOMANYREFS):
                    one.close()  # it was dropped, so another one is made
                    self._connect(1)
                    self.connections[number] = self.connections.pop()
                    continue
            with contextlib.suppress(OSError):
                while read and one.recv(wire.RECORD):
                    pass

    def _begin_control(self):
        """Requests that are refused, as many as fit, on all its connections."""
        self._connect()
        self.work = lambda: self._send_all(b"FDSTORE=1\nFDNAME=web", [self.listener.fileno()])

    def _begin_verb(self, text):
        self._connect()
        self.work = lambda: self._send_all(text)

    def _begin_deaf(self, text):
        """Never reads an answer; a connection that was dropped for it is made again."""
        self._connect()

        def work():
            try:
                self._send_all(text, read=False)
            except OSError:
                for one in self.connections:
                    one.close()
                self.connections = []
                self._connect()
            time.sleep(0.01)
        self.work = work

    def _begin_descriptors(self):
        """The most that one message can carry, in each."""
        self._connect()
        fds = [self.listener.fileno()] * 253
        self.work = lambda: self._send_all(b"FDSTORE=1\nFDNAME=web", fds)

    def _begin_notify(self, text=b"FDSTORE=1\nFDNAME=web"):
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        peer.connect(f"{RUNTIME}/notify")

        def work():
            for _ in range(64):
                socket.send_fds(peer, [text], [self.listener.fileno()] if text.startswith(b"FDSTORE") else [])
                self.sent += 1
        self.work = work

    def _begin_connections(self):
        """Made and closed as fast as they go, without a word."""
        def work():
            for _ in range(200):
                one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                one.setblocking(False)
                try:
                    one.connect(f"{RUNTIME}/control")
                    self.connections.append(one)
                    self.sent += 1
                except BlockingIOError:
                    one.close()
            for one in self.connections:
                one.close()
            self.connections = []
        self.work = work

    def _begin_churn(self, service):
        """What policy lets it do, again and again: each step is a journal entry."""
        self._connect(1)
        connection = self.connections[0]
        connection.setblocking(True)

        def work():
            socket.send_fds(connection, [f"FDSTORE=1\nFDNAME={service}".encode()], [self.listener.fileno()])
            connection.send(f"FDSTOREREMOVE=1\nFDNAME={service}".encode())
            connection.recv(wire.RECORD)
            connection.recv(wire.RECORD)
            self.sent += 2
        self.work = work


class Honest(worker.Child):
    """Registers a socket of its own every few milliseconds."""

    def __init__(self, uid, service):
        super().__init__()
        kernel.drop_privileges(uid, uid)
        self.request = f"FDSTORE=1\nFDNAME={service}"
        self.listener = socket.create_server(("127.0.0.1", 0))

    def latencies(self, seconds, pause=0.005):
        """In seconds, of all that it did in that time on one connection, and of ENOUGH at least."""
        with wire.Control(f"{RUNTIME}/control") as connection:
            return timed(seconds, pause, lambda: _taken(connection.request(self.request, [self.listener.fileno()])))

    def notify_latencies(self, seconds):
        """The same by `notify`, until a barrier says that it was dealt with."""
        def ask():
            wire.notify(f"{RUNTIME}/notify", self.request, [self.listener.fileno()])
            wire.barrier(f"{RUNTIME}/notify")
        return timed(seconds, 0.005, ask)

    def connect_latencies(self, seconds):
        """With a connection of its own for each."""
        return timed(seconds, 0, lambda: _taken(
            wire.control(f"{RUNTIME}/control", self.request, [self.listener.fileno()])))


def _taken(reply):
    assert reply.result == "ok", reply


def timed(seconds, pause, ask):
    """How long each call took, in seconds: for so long, and ENOUGH of them at least."""
    taken = []
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(taken) < ENOUGH:
        begin = time.monotonic()
        ask()
        taken.append(time.monotonic() - begin)
        time.sleep(pause)
    return taken


def many_uids(first, count, text):
    """One request of each of many uids, as a user with subordinate ones can make (subuid(5)); returns the results."""
    results = []
    for uid in range(first, first + count):
        os.setresuid(uid, uid, 0)
        try:
            results.append(wire.control(f"{RUNTIME}/control", text).result)
        finally:
            os.setresuid(0, 0, 0)
    return results
