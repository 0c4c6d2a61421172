# SPDX-License-Identifier: LGPL-2.1-or-later
"""UdpReply=original beside datagrams of invented sources: what becomes of the answers to 1,000 clients that wait. An
answer leaves from the asked address, or from the socket's own where the client was forgotten; never from another
client's."""

import collections
import math
import os
import select
import socket
import struct
import time

import pytest

from harness import client, kernel, units, worker
from waiting import inside
from words import PORT, add_routes, each_family
from test_udp_replies import SERVER, UID, UNIT, addresses, conflicts, original

LONG = "SOCKBROKER_LONG" in os.environ
CLIENTS = 1000 if LONG else 200
ENOUGH = 8000 if LONG else 200  # answers
SETS, WAYS = 7680, 4  # of clients that are remembered
TABLE = SETS * WAYS


def forgotten(invented):
    """The share of clients that so many others displace: as many as there are ways came into the same set later."""
    later = (invented + CLIENTS / 2) / SETS
    return 1 - sum(math.exp(-later) * later ** number / math.factorial(number) for number in range(WAYS))


class Server(units.Server):
    """Keeps the questions of clients until it is told to answer; what others send is read and thrown away."""

    def be_slow(self):
        self.silent = True
        self.thrown_away = 0

    def _receive(self, sock):
        super()._receive(sock)
        if self.silent:
            before = len(self.asked)
            self.asked = [one for one in self.asked if one[1].startswith(b"question")]
            self.thrown_away += before - len(self.asked)

    def answer_all(self):
        """How many could not even be sent: IPv4 from a loopback address to another host."""
        refused = 0
        for sock, data, peer in self.asked:
            try:
                sock.sendto(data, peer)
            except OSError:
                refused += 1
        self.asked.clear()
        return refused


class Clients:
    """Each with a port of its own, on the remote host. Not connected, so that answers of any source are seen."""

    def __init__(self, remote, family, count):
        self.asked = addresses(family, 20)
        with inside(remote.pid):
            self.sockets = [socket.socket(client.family_of(self.asked[0]), socket.SOCK_DGRAM) for _ in range(count)]
        for sock in self.sockets:
            sock.bind(("", 0))
            sock.setblocking(False)
        self.numbers = {sock.fileno(): number for number, sock in enumerate(self.sockets)}

    def address_of(self, number):
        return self.asked[number % len(self.asked)]

    def ask(self, some):
        for number in some:
            self.sockets[number].sendto(b"question %d" % number, (self.address_of(number), PORT))

    def answers(self, idle=1.0):
        """How many came from the asked address, and from which others, until none comes any more."""
        seen = collections.Counter()
        poll = select.epoll()
        for sock in self.sockets:
            poll.register(sock, select.EPOLLIN)
        while ready := poll.poll(idle):
            for fd, _ in ready:
                number = self.numbers[fd]
                data, source = self.sockets[number].recvfrom(100)
                assert data == b"question %d" % number, "somebody else's answer"
                seen["asked" if source[:2] == (self.address_of(number), PORT) else source[0]] += 1
        poll.close()
        return seen

    def close(self):
        for sock in self.sockets:
            sock.close()


class Flood(worker.Child):
    """Datagrams of sources that nobody has, or that others have; in the network namespace that it was made in."""

    def __init__(self, family, port=0):
        super().__init__()
        self.sock = socket.socket(socket.AF_INET if family == "ipv4" else socket.AF_INET6, socket.SOCK_DGRAM)
        if family == "ipv4":
            self.sock.setsockopt(socket.IPPROTO_IP, kernel.IP_TRANSPARENT, 1)
        else:
            self.sock.setsockopt(socket.IPPROTO_IPV6, kernel.IPV6_TRANSPARENT, 1)
        self.sock.bind(("", port))
        self.family = family
        self.targets = addresses(family, 20)
        self.sent = 0

    def _from(self, number):
        if self.family == "ipv4":
            source = (0x0A800000 + number).to_bytes(4, "big")
            return socket.IPPROTO_IP, kernel.IP_PKTINFO, struct.pack("=i4sI", 0, source, 0)
        source = (0xFD09_0000_0001 << 80 | number).to_bytes(16, "big")
        return socket.IPPROTO_IPV6, kernel.IPV6_PKTINFO, source + bytes(4)

    def send(self, count):
        """Each from an address of its own."""
        for _ in range(count):
            self.sent += 1
            self.sock.sendmsg([b"x"], [self._from(self.sent % (1 << 22))], 0, (self.targets[self.sent % 20], PORT))

    def work(self):
        self.send(64)

    def begin(self):
        self.busy = True

    def stop(self):
        """How many were sent."""
        self.busy = False
        return self.sent


@pytest.fixture(name="begin")
def _begin(broker, remote, slice_):
    """begin(family): (the server, its clients, a flood)."""
    started = []

    def start(family):
        add_routes()
        broker.policy(original()).start()
        started.append(worker.Worker(Server, slice_.unit(UNIT), UID))
        started[0].open(family, SERVER[family], PORT)
        assert started[0].register("dns", family).result == "ok"
        with inside(remote.pid):
            started.append(worker.Worker(Flood, family))
        return started[0], Clients(remote, family, CLIENTS), started[1]

    yield start
    for one in started:
        one.kill()


def asked_and_answered_after(server, clients, meanwhile):
    """All clients ask; the server answers when `meanwhile` is over. What came, and how many answers were not sent."""
    server.be_slow()
    for first in range(0, CLIENTS, 100):
        clients.ask(range(first, first + 100))
        server.waiting(first + 100)
    meanwhile()
    refused = server.answer_all()
    seen = clients.answers()
    return seen, refused


@each_family
@pytest.mark.parametrize("invented", [TABLE // 16, TABLE // 2, *([0, TABLE, 4 * TABLE] if LONG else [])])
def test_s5_invented_sources_between_question_and_answer(broker, begin, family, invented):
    """As many clients are forgotten as chance puts four others into their set. None leaves from another's address."""
    server, clients, flood = begin(family)
    seen, refused = asked_and_answered_after(server, clients, lambda: flood.call("send", invented, timeout=60))
    clients.close()
    own = seen.pop(SERVER[family], 0)
    print(f"{family}, {invented} invented sources: of {CLIENTS} answers {seen['asked']} from the asked address, "
          f"{own} from the socket's own, {refused} not sent")
    assert set(seen) <= {"asked"} and seen["asked"] + own + refused == CLIENTS
    assert own == 0 or family == "ipv6", "no IPv4 leaves from a loopback address"
    expected = forgotten(invented)
    chance = 5 * math.sqrt(expected * (1 - expected) / CLIENTS) + 2 / CLIENTS
    assert abs((own + refused) / CLIENTS - expected) <= chance, f"expected {expected:.4f} of them to be forgotten"
    assert conflicts(broker) == 0


@each_family
def test_s5_clients_of_a_server_that_answers_at_once_beside_a_flood(broker, begin, family):
    """What is lost is lost in the full queue of the socket. What is answered is answered from the asked address."""
    _, clients, flood = begin(family)
    flood.begin()
    begun, total, asked = time.monotonic(), collections.Counter(), 0
    while total.total() < ENOUGH and time.monotonic() - begun < 60:
        clients.ask(range(CLIENTS))
        asked += CLIENTS
        total += clients.answers(0.3)
    rate = flood.stop() / (time.monotonic() - begun)
    clients.close()
    print(f"{family}, {rate:.0f} invented sources a second: of {asked} questions {total['asked']} answered from the "
          f"asked address, {total.total() - total['asked']} from another")
    assert set(total) == {"asked"}
    assert conflicts(broker) == 0
