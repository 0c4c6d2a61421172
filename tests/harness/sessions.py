# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sessions over UDP, as QUIC, DTLS, games and WireGuard have them: a server that knows them by an id, wherever they
come from, and clients that number what they send. One that reaches a server which does not know it is lost."""

import secrets
import selectors
import socket

from harness import client, kernel, service, wire, worker

TIMEOUT = 20


class Server(worker.Child):
    """Answers "ok N" to the next number of a session that it has, which 0 begins, and "lost N" to all else."""

    def __init__(self, uid, address, port):
        super().__init__()
        self.socket = service.open_socket("udp", address, port, freebind=":" in address)
        service.ask_for_asked_address(self.socket)
        self.socket.setsockopt(socket.SOL_SOCKET, kernel.SO_RCVBUFFORCE, 8 << 20)
        self.sessions = {}
        self.selector.register(self.socket, selectors.EVENT_READ, self._receive)
        kernel.drop_privileges(uid, uid)

    def register(self, name):
        reply = wire.control(f"{service.RUNTIME}/control", f"FDSTORE=1\nFDNAME={name}", [self.socket.fileno()])
        return reply.result, kernel.socket_cookie(self.socket)

    def known(self):
        return len(self.sessions)

    def _receive(self):
        for _ in range(64):
            try:
                data, control, _, peer = self.socket.recvmsg(256, 256)
            except BlockingIOError:
                return
            asked, source = service.read_asked_address(control)
            session, number = map(int, data.split())
            known = number == 0 or self.sessions.get((session, asked)) == number - 1
            if known:
                self.sessions[session, asked] = number
            self.socket.sendmsg([f"{'ok' if known else 'lost'} {number}".encode()], [source], 0, peer)


class Clients:
    """Sessions of connected sockets, so that only answers of the asked address and port count."""

    def __init__(self, address, port, count):
        self.sockets = []
        self.ids = []
        self.numbers = []
        self.lost = set()
        self.target = address, port
        self.port = 20000  # of the next; one that another had is a flow of his
        self.begin(count)

    def begin(self, count):
        for _ in range(count):
            sock = socket.socket(client.family_of(self.target[0]), socket.SOCK_DGRAM)
            sock.bind(("", self.port))
            self.port += 1
            sock.settimeout(TIMEOUT)
            sock.connect(self.target)
            self.sockets.append(sock)
            self.ids.append(secrets.randbits(64))
            self.numbers.append(0)

    def move(self):
        """All go on from a port that nobody had, as a client does behind a NAT that has forgotten it."""
        moved, kept = list(self.sockets), (self.ids, self.numbers)
        self.sockets, self.ids, self.numbers = [], [], []
        self.begin(len(moved))
        self.ids, self.numbers = kept
        for sock in moved:
            sock.close()

    def round(self, at_once=200):
        """Each sends its next number and reads the answer; lost is who was not known, or had none."""
        for first in range(0, len(self.sockets), at_once):
            some = range(first, min(first + at_once, len(self.sockets)))
            for i in some:
                self.sockets[i].send(f"{self.ids[i]} {self.numbers[i]}".encode())
            for i in some:
                try:
                    answer = self.sockets[i].recv(256).decode()
                except OSError as error:
                    answer = repr(error)
                if answer != f"ok {self.numbers[i]}":
                    self.lost.add(i)
                self.numbers[i] += 1

    def close(self):
        for sock in self.sockets:
            sock.close()
