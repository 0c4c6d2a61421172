# SPDX-License-Identifier: LGPL-2.1-or-later
"""Clients of the test services: one question, one answer, which says who answered and what it saw.

An answer is a line `name peer-address peer-port local-address local-port`; see service.py for the other side.
"""

import collections
import socket
import time

from harness import kernel, worker

TIMEOUT = 20  # seconds, less than the 30 of HoldSec= in tests; a loaded machine is slow, a hang is for ever

# name: who answered; peer, local: addresses and ports as the service saw them; source: where the answer came from.
Answer = collections.namedtuple("Answer", "name peer local source")


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def plain(endpoint):
    """(address, port) of a socket address, a v4-mapped IPv6 address as the IPv4 address it means."""
    return endpoint[0].removeprefix("::ffff:"), endpoint[1]


def parse_answer(text, source):
    name, peer, peer_port, local, local_port = text.decode().split()
    return Answer(name, (peer, int(peer_port)), (local, int(local_port)), plain(source))


class Connection:
    """An established TCP connection whose greeting was read; the service echoes further lines."""

    def __init__(self, address, port, source=None):
        self.sock = socket.socket(family_of(address), socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT)
        try:
            if source is not None:
                self.sock.bind((source, 0))
            self.sock.connect((address, port))
            self.file = self.sock.makefile("rb")
            greeting = self.file.readline()
            if not greeting:
                raise ConnectionResetError("closed before the answer")
            self.answer = parse_answer(greeting, self.sock.getpeername())
        except BaseException:
            self.sock.close()
            raise

    def echo(self, text):
        """Sends a line and returns the one that comes back, which the service puts its name in front of."""
        self.sock.sendall(text.encode() + b"\n")
        return self.file.readline().decode().strip()

    def close(self):
        self.file.close()
        self.sock.close()


def tcp_ask(address, port, source=None):
    connection = Connection(address, port, source)
    connection.close()
    return connection.answer


def udp_ask(address, port, source="loopback"):
    """Asks from an unconnected socket, so that an answer from a wrong address is seen, not dropped.

    source: an address to ask from; "loopback": 127.0.0.1 or ::1; None: as the kernel chooses. ConnectionRefusedError
    when an ICMP error comes back.
    """
    family = family_of(address)
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(TIMEOUT)
        if source == "loopback":
            source = "127.0.0.1" if family == socket.AF_INET else "::1"
        if source is not None:
            sock.bind((source, 0))
        if family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, kernel.IP_RECVERR, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, kernel.IPV6_RECVERR, 1)
        sock.sendto(b"who\n", (address, port))
        text, sender = sock.recvfrom(4096)
        return parse_answer(text, sender)


def ask(protocol, address, port, **named):
    return (tcp_ask if protocol == "tcp" else udp_ask)(address, port, **named)


def connect_to_ports(address, ports, source):
    """Connects to each port of the address and closes the connection again, without waiting for an answer."""
    family = family_of(address)
    for port in ports:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.settimeout(TIMEOUT)
            sock.setsockopt(socket.IPPROTO_IP, kernel.IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((source, 0))
            sock.connect((address, port))


def udp_ask_ports(address, ports, source, window=64):
    """Asks each port of the address from one socket; returns the set of ports that answers say were asked."""
    answered = set()
    with socket.socket(family_of(address), socket.SOCK_DGRAM) as sock:
        sock.settimeout(TIMEOUT)
        sock.bind((source, 0))
        for i in range(0, len(ports), window):
            for port in ports[i:i + window]:
                sock.sendto(b"who\n", (address, port))
            for _ in ports[i:i + window]:
                text, sender = sock.recvfrom(4096)
                answer = parse_answer(text, sender)
                assert answer.local[0] == answer.source[0] == address, answer
                answered.add(answer.local[1])
    return answered


class Client(worker.Child):
    """A client in a process of its own, in a namespace of its own or on the same host."""

    def __init__(self, local=True):
        super().__init__()
        self.local = local
        self.targets = []
        self.answers = []  # names, in order
        self.failures = []

    def ask(self, protocol, address, port):
        source = {} if self.local or protocol == "tcp" else {"source": None}
        return ask(protocol, address, port, **source)

    def work(self):
        protocol, address, port = self.targets[(len(self.answers) + len(self.failures)) % len(self.targets)]
        try:
            self.answers.append(self.ask(protocol, address, port).name)
        except OSError as error:
            self.failures.append(f"{protocol} {address} port {port}: {error!r}")

    def begin(self, targets):
        """From now on asks the targets, (protocol, address, port), in turn, without a pause, between calls."""
        self.targets = targets
        self.busy = True

    def more(self, count):
        """Returns after that many further questions."""
        for _ in range(count):
            self.work()

    def until_answers(self, count):
        """Returns when so many questions were answered, all of them."""
        while len(self.answers) < count:
            self.work()
            if self.failures:
                raise RuntimeError(f"failures: {self.failures}")

    def until(self, name, seconds=25):
        """Returns when every target in turn was answered by `name`."""
        deadline = time.monotonic() + seconds
        while self.answers[-len(self.targets):] != [name] * len(self.targets):
            self.work()
            if time.monotonic() > deadline:
                raise TimeoutError(f"no answer of {name} within {seconds} s, the last: {self.answers[-5:]} "
                                   f"failures: {self.failures[-5:]}")

    def end(self):
        """Stops asking; returns (answers by name, failures)."""
        self.busy = False
        return dict(collections.Counter(self.answers)), self.failures

    def failure_count(self):
        return len(self.failures)
