# SPDX-License-Identifier: LGPL-2.1-or-later
"""UdpReply=original for more than one answer to a question: sessions beside datagrams of invented sources, and a client
that asks one address and another all the time."""

import json
import select
import socket
import threading
import time

import pytest

from harness import client, namespace, units, worker
from waiting import inside
from words import PORT, add_routes, each_family, listen
from test_udp_replies import SERVER, UID, UNIT, original, section
from test_udp_spoofed import LONG, TABLE, Clients, Flood

SESSIONS = 200
# In a set that three of them share, one may give way to the flood: expected of 1 run in 45, of two sets in 1 of 4,000.
MAY_BE_FORGOTTEN = 1
ROUNDS = 100 if LONG else 10  # of half a second
MOVING = {"ipv4": ("192.0.2.1", "198.51.100.2"), "ipv6": ("2001:db8::1", "2001:db9::2")}


class Server(units.Server):
    """Answers each question at once, and knows who asked."""

    def begin(self):
        self.peers = {}

    def _receive(self, sock):
        if self.silent:
            super()._receive(sock)
            return
        for _ in range(256):
            try:
                data, peer = sock.recvfrom(65535)
            except BlockingIOError:
                return
            if data.startswith(b"question"):
                self.peers[data] = sock, peer
                sock.sendto(data, peer)

    def read_all(self):
        """What has come: after a flood, the queue has room again."""
        for sock in self.sockets.values():
            self.serve_until(lambda sock=sock: not select.select([sock], [], [], 0)[0], "an empty queue")

    def known(self, count):
        self.serve_until(lambda: len(self.peers) >= count, f"{count} sessions")

    def push(self):
        """One datagram more to each. How many could not be sent."""
        refused = 0
        for data, (sock, peer) in self.peers.items():
            try:
                sock.sendto(data, peer)
            except OSError:
                refused += 1
        return refused

    def answer_without_end(self, seconds):
        """To the first that has asked: (how many were sent, how many could not be)."""
        [(sock, _, peer), *_] = self.asked
        sent = refused = 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for _ in range(100):
                try:
                    sock.sendto(b"answer", peer)
                    sent += 1
                except OSError:
                    refused += 1
        return sent, refused


@each_family
@pytest.mark.parametrize("invented", [TABLE // 2, *([TABLE, 4 * TABLE] if LONG else [])])
def test_s5_sessions_beside_invented_sources(broker, remote, slice_, family, invented):
    """A client that has asked again after an answer gives way to none that was never answered, unless its set is full
    of such clients."""
    add_routes()
    broker.policy(original()).start()
    server = worker.Worker(Server, slice_.unit(UNIT), UID)
    with inside(remote.pid):
        flood = worker.Worker(Flood, family)
    try:
        server.begin()
        server.open(family, SERVER[family], PORT)
        assert server.register("dns", family).result == "ok"
        clients = Clients(remote, family, SESSIONS)
        flood.call("send", TABLE, timeout=60)  # as the table is where a flood goes on
        server.read_all()
        for _ in range(3):
            clients.ask(range(SESSIONS))
            server.known(SESSIONS)
            assert clients.answers() == {"asked": SESSIONS}
        flood.call("send", invented, timeout=120)
        refused = server.push()
        seen = clients.answers()
        clients.close()
        print(f"{family}, {invented} invented sources: of {SESSIONS} sessions {seen['asked']} heard from the address "
              f"that they asked, {refused} were not sent")
        assert sum(seen.values()) + refused == SESSIONS
        assert seen["asked"] >= SESSIONS - MAY_BE_FORGOTTEN
    finally:
        server.kill()
        flood.kill()


class Asker(worker.Child):
    """From one port, in the network namespace that it was made in, in which it counts what comes back by its source."""

    def __init__(self, family):
        super().__init__()
        self.sock = socket.socket(client.family_of(MOVING[family][0]), socket.SOCK_DGRAM)
        self.sock.bind(("", 0))
        self.targets = [(address, PORT) for address in MOVING[family]]
        ip = "ip" if family == "ipv4" else "ip6"
        rules = "".join(f"{ip} saddr {address} udp sport {PORT} counter drop\n"
                        for address in (*MOVING[family], SERVER[family]))
        chain = f"type filter hook prerouting priority -300;\n{rules}udp sport {PORT} counter drop\n"
        namespace.run("nft", "-f", "-", text=f"table {ip} seen {{ chain in {{ {chain} }}\n}}\n")
        self.list = "nft", "-j", "list", "table", ip, "seen"

    def once(self):
        self.sock.sendto(b"question", self.targets[0])

    def to_and_fro(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for _ in range(50):
                for target in self.targets:
                    self.sock.sendto(b"question", target)

    def counted(self):
        """Of the first address, of the second, of the socket's own, of any other."""
        rules = [entry["rule"] for entry in json.loads(namespace.run(*self.list))["nftables"] if "rule" in entry]
        return [next(part["counter"]["packets"] for part in rule["expr"] if "counter" in part) for rule in rules]


@each_family
def test_s5_answers_while_a_client_moves_to_and_fro_between_two_addresses(broker, remote, slice_, family):
    """Each leaves from one of the two: none from half of the one and half of the other, and hardly any from the
    socket's own, while the client is noted anew. More do when the machine takes the processor away from who notes it:
    so at most rounds."""
    networks = [f"{address.rpartition('.')[0]}.0/24" if family == "ipv4" else f"{address[:9]}:/64"
                for address in MOVING[family]]
    namespace.add_local_routes(*networks)
    broker.policy(section("dns", UNIT, *(listen("udp", network) for network in networks), "UdpReply=original")).start()
    server = worker.Worker(Server, slice_.unit(UNIT), UID)
    with inside(remote.pid):
        asker = worker.Worker(Asker, family)
    try:
        server.open(family, SERVER[family], PORT)
        server.be_silent(True)
        assert server.register("dns", family).result == "ok"
        asker.once()
        server.waiting(1)
        before = [0, 0, 0, 0]
        few = 0
        for _ in range(ROUNDS):
            asking = threading.Thread(target=asker.call, args=("to_and_fro", 0.5))
            asking.start()
            sent, refused = server.call("answer_without_end", 0.5)
            asking.join()
            counted = asker.counted()
            first, second, own, other = (now - then for now, then in zip(counted, before))
            before = counted
            print(f"{family}: of {sent} answers {first} left from the one address, {second} from the other, {own} from "
                  f"the socket's own, {other} from any else, {refused} were not sent")
            assert other == 0
            few += own + refused <= sent / 5000
        assert min(counted[:2]) > 0
        assert few >= ROUNDS * 0.7
    finally:
        server.kill()
        asker.kill()
