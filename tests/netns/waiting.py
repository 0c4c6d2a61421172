# SPDX-License-Identifier: LGPL-2.1-or-later
"""Connections of the remote host that wait at a hand-over: half-open, or established and not accepted; and sockets that
are passed on."""

import collections
import contextlib
import socket

from harness import client, kernel, namespace
from words import ADDRESS, PORT

COUNT = 20


@contextlib.contextmanager
def inside(pid):
    """What is opened meanwhile belongs to the network namespace of that process."""
    with open("/proc/self/ns/net", encoding="ascii") as ours, open(f"/proc/{pid}/ns/net", encoding="ascii") as theirs:
        kernel.setns(theirs.fileno(), kernel.CLONE_NEWNET)
        try:
            yield
        finally:
            kernel.setns(ours.fileno(), kernel.CLONE_NEWNET)


def connect(family):
    sock = socket.socket(client.family_of(ADDRESS[family]), socket.SOCK_STREAM)
    sock.settimeout(20)
    sock.connect((ADDRESS[family], PORT))
    return sock


class HalfOpen:
    """Connections from the remote host whose last ACK of the handshake is lost until lift()."""

    def __init__(self, remote, family, count=COUNT):
        self.remote = remote
        with inside(remote.pid):
            namespace.run("nft", "-f", "-", text="table inet lost { chain out { type filter hook output priority 0;\n"
                                                 "tcp flags & (syn|ack|rst|fin|psh) == ack drop\n}\n}\n")
            self.sockets = [connect(family) for _ in range(count)]

    def lift(self):
        with inside(self.remote.pid):
            namespace.run("nft", "delete", "table", "inet", "lost")


class Established:
    """Connections from the remote host that nobody has accepted yet."""

    def __init__(self, remote, family, count=COUNT):
        with inside(remote.pid):
            self.sockets = [connect(family) for _ in range(count)]

    def lift(self):
        pass


def outcomes(connections):
    """How often each service answered, or "reset"."""
    seen = collections.Counter()
    for sock in connections.sockets:
        with sock:
            try:
                sock.sendall(b"hello\n")
                seen[sock.makefile().readline().split()[0]] += 1
            except ConnectionResetError:
                seen["reset"] += 1
    return dict(seen)


def half_open_in_kernel(family):
    """Handshakes that the host remembers: state SYN_RECV."""
    path = "/proc/self/net/tcp" if family == "ipv4" else "/proc/self/net/tcp6"
    with open(path, encoding="ascii") as table:
        return sum(line.split()[3] == "03" for line in table)


def pass_on(old, new, label):
    """Gives a socket of one service to another process, as PID 1 does for a .socket unit."""
    new.receive_at("\0pass-on")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as carrier, old.borrowed(label) as passed:
        carrier.connect("\0pass-on")
        socket.send_fds(carrier, [label.encode()], [passed.fileno()])
    new.take_received()
