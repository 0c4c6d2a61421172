# SPDX-License-Identifier: LGPL-2.1-or-later
"""A service without any privilege: opens ordinary sockets, hands them to the broker, answers who it is.

The launcher's part comes first, as PID 1 would do it for a .socket unit: sockets on ports below 1024 are bound as
root, then root is left for good. What follows runs as an ordinary uid with no capability.
"""

import os
import selectors
import socket
import struct
import time

from harness import kernel, load, namespace, oddities, wire, worker
from harness.client import family_of, plain

RUNTIME = "/run/sockbroker"


def open_socket(protocol, address, port, *, reuseport=False, dual=False, freebind=False, backlog=4096):
    """A listening TCP or bound UDP socket. dual: an IPv6 socket at a v4-mapped address, which takes both families."""
    family = socket.AF_INET6 if dual else family_of(address)
    sock = socket.socket(family, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM)
    if reuseport:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if protocol == "tcp":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if freebind:
        level = (socket.IPPROTO_IPV6, kernel.IPV6_FREEBIND) if family == socket.AF_INET6 else (
            socket.IPPROTO_IP, kernel.IP_FREEBIND)
        sock.setsockopt(*level, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual else 1)
    if dual:
        address = "::ffff:" + address if ":" not in address else address
    sock.bind((address, port))
    if protocol == "tcp":
        sock.listen(backlog)
    sock.setblocking(False)
    return sock


def ask_for_asked_address(sock):
    """Makes recvmsg tell the address that the client asked, and lets answers leave from it."""
    sock.setsockopt(socket.IPPROTO_IP, kernel.IP_PKTINFO, 1)
    sock.setsockopt(socket.IPPROTO_IP, kernel.IP_RECVORIGDSTADDR, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, kernel.IPV6_RECVPKTINFO, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, kernel.IPV6_RECVORIGDSTADDR, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, kernel.IPV6_FREEBIND, 1)


def read_asked_address(control):
    """From control messages of a datagram: (address, port) that was asked, and the control message to answer with."""
    asked = answer = None
    for level, kind, data in control:
        if (level, kind) == (socket.IPPROTO_IP, kernel.IP_ORIGDSTADDR):
            asked = socket.inet_ntoa(data[4:8]), int.from_bytes(data[2:4], "big")
        elif (level, kind) == (socket.IPPROTO_IPV6, kernel.IPV6_ORIGDSTADDR):
            asked = socket.inet_ntop(socket.AF_INET6, data[8:24]), int.from_bytes(data[2:4], "big")
        elif (level, kind) == (socket.IPPROTO_IP, kernel.IP_PKTINFO):
            # struct in_pktinfo: interface 0 is any; ipi_spec_dst of the answer is the asked ipi_addr.
            answer = level, kind, struct.pack("=i4s4s", 0, data[8:12], bytes(4))
        elif (level, kind) == (socket.IPPROTO_IPV6, kernel.IPV6_PKTINFO):
            answer = level, kind, data[:16] + bytes(4)
    return asked, answer


class Service(worker.Child):
    """The child. `sockets` holds its sockets by label; those that answer are watched."""

    def __init__(self, name, uid, launched, gid):
        super().__init__()
        self.name = name
        self.runtime = RUNTIME
        self.sockets = {}
        self.connections = set()
        self.seen_ports = set()
        self.kept = []
        self.answers_load = False
        self.answerers = {}
        self.inbox = None
        for label, wanted in launched.items():
            if len(wanted) == 2:
                self.hold(label, *wanted)
            else:
                self._launch(label, *wanted)
        kernel.drop_privileges(uid, gid)

    def _launch(self, label, protocol, address, port, options):
        options = dict(options)
        foreign = options.pop("foreign", False)
        if foreign:
            ours = os.open("/proc/self/ns/net", os.O_RDONLY)
            kernel.unshare(kernel.CLONE_NEWNET)
            namespace.run("ip", "link", "set", "lo", "up")
        self._keep(label, open_socket(protocol, address, port, **options))
        if foreign:
            kernel.setns(ours, kernel.CLONE_NEWNET)
            os.close(ours)

    def _keep(self, label, sock):
        self.sockets[label] = sock
        if sock.type == socket.SOCK_DGRAM:
            ask_for_asked_address(sock)
        if self.answers_load:
            self.answerers[label] = load.Answerer(sock, self.name)
        else:
            self.resume(label)

    # What a test asks of a service.

    def open(self, label, protocol, address, port=0, **options):
        """Opens a socket under `label` and answers on it; returns (port, cookie)."""
        self._keep(label, open_socket(protocol, address, port, **options))
        return self.facts(label)

    def hold(self, label, kind, family="ipv4"):
        """Keeps a descriptor of a kind that oddities.py knows, to hand it over."""
        self.sockets[label], beside = oddities.make(kind, family)
        self.kept += beside

    def facts(self, label):
        return self.sockets[label].getsockname()[1], kernel.socket_cookie(self.sockets[label])

    def wait_at_most(self, seconds):
        """For each answer of the broker, from now on."""
        wire.TIMEOUT = seconds

    def connect_unix(self, path):
        """Connects to a seqpacket socket there, and leaves it."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(path)

    def register(self, *labels, service=None, text=None):
        """FDSTORE=1 on the control socket, with the sockets of these labels in one message."""
        text = text or f"FDSTORE=1\nFDNAME={service or self.name}"
        return self.control(text, *labels)

    def control(self, text, *labels):
        return wire.control(f"{self.runtime}/control", text, self._fds(labels))

    def register_migrating(self, *labels, service=None):
        """The same with MIGRATE=1; attaches the program that comes with the answer to these listeners."""
        text = f"FDSTORE=1\nFDNAME={service or self.name}\nMIGRATE=1"
        reply, programs = wire.retrieve(f"{self.runtime}/control", text, self._fds(labels))
        for program in programs:
            for label in labels:
                self.sockets[label].setsockopt(socket.SOL_SOCKET, kernel.SO_ATTACH_REUSEPORT_EBPF, program)
            os.close(program)
        return reply, len(programs)

    def retrieve(self, service=None):
        """FDRETRIEVE=1; serves on what comes back, under the labels retrieved-0 and so on. Returns the answer."""
        reply, fds = wire.retrieve(f"{RUNTIME}/control", f"FDRETRIEVE=1\nFDNAME={service or self.name}")
        for i, fd in enumerate(fds):
            sock = socket.socket(fileno=fd)
            sock.setblocking(False)
            self._keep(f"retrieved-{i}", sock)
        return reply

    def control_unread(self, text):
        """A request whose answer stays in the socket until the service ends. Returns when the answer is there."""
        connection = wire.Control(f"{RUNTIME}/control")
        connection.send(text)
        connection.sock.recv(1, socket.MSG_PEEK)
        self.kept.append(connection)

    def notify(self, text, *labels):
        """The same by sd_notify(3): no answer, so a barrier tells when it was dealt with."""
        wire.notify(f"{self.runtime}/notify", text, self._fds(labels))

    def notify_and_wait(self, text, *labels, barrier="BARRIER=1"):
        self.notify(text, *labels)
        wire.barrier(f"{self.runtime}/notify", barrier)

    def _fds(self, labels):
        return [self.sockets[label].fileno() for label in labels]

    def pause(self, label):
        """Leaves what arrives on the socket in its queue."""
        self.selector.unregister(self.sockets[label])

    def resume(self, label):
        sock = self.sockets[label]
        on_readable = self._accept if sock.type == socket.SOCK_STREAM else self._receive
        watch = self.selector.modify if sock in self.selector.get_map() else self.selector.register
        watch(sock, selectors.EVENT_READ, lambda: on_readable(sock))

    def close(self, label):
        if label in self.answerers:
            self.finish_load(label)
        sock = self.sockets.pop(label)
        if sock in self.selector.get_map():
            self.selector.unregister(sock)
        sock.close()

    def wait_for_queue(self, label, connections):
        """Returns when so many wait to be accepted: tcpi_unacked of struct tcp_info, for a listener."""
        def queued():
            info = self.sockets[label].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
            return struct.unpack_from("=I", info, 24)[0]

        deadline = time.monotonic() + 25
        while queued() < connections:
            if time.monotonic() > deadline:
                raise TimeoutError(f"only {queued()} of {connections} connections wait")

    def receive_at(self, path):
        """Where another may pass a socket on; take_received() takes it under the label that comes with it."""
        self.inbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.inbox.bind(path)

    def take_received(self):
        with self.inbox:
            label, fds, _, _ = socket.recv_fds(self.inbox, 64, 1)
        self._keep(label.decode(), socket.socket(fileno=fds[0]))

    def for_load(self):
        """From now on answers on sockets that it opens or receives in threads of C, to clients of load.Load."""
        self.answers_load = True

    def finish_load(self, *labels):
        """Answers what was accepted, then leaves the sockets alone, which stay open; returns the number of answers."""
        return sum(self.answerers.pop(label).finish() for label in labels)

    def finish_accepted(self, *labels):
        """The same, and leaves what datagrams there are unread."""
        return sum(self.answerers.pop(label).finish(unread=True) for label in labels)

    def shutdown(self, label):
        self.sockets[label].shutdown(socket.SHUT_RD)

    def connect(self, label, address, port):
        self.sockets[label].connect((address, port))

    def service_name(self):
        return self.name

    def capabilities(self):
        return os.getresuid(), os.getresgid(), os.getgroups(), kernel.capabilities()

    def set_option(self, label, level, option, value):
        self.sockets[label].setsockopt(level, option, value)

    def fileno(self, label):
        return self.sockets[label].fileno()

    def labels(self):
        return list(self.sockets)

    def wait_seen_ports(self, count):
        """Returns how many different ports were asked so far, when it is at least that many."""
        self.serve_until(lambda: len(self.seen_ports) >= count, f"{count} ports, only {len(self.seen_ports)} seen")
        return len(self.seen_ports)

    def only_note_ports(self, label):
        """From now on accepts connections, notes the port that was asked, and closes them."""
        def accept():
            for _ in range(256):
                try:
                    connection, _ = sock.accept()
                except BlockingIOError:
                    return
                self.seen_ports.add(connection.getsockname()[1])
                connection.close()

        sock = self.sockets[label]
        self.selector.modify(sock, selectors.EVENT_READ, accept)

    # What a service does.

    def _accept(self, listener):
        for _ in range(64):
            try:
                connection, peer = listener.accept()
            except BlockingIOError:
                return
            except OSError:
                continue
            local = connection.getsockname()
            self.seen_ports.add(local[1])
            connection.setblocking(False)
            try:
                connection.send(self._answer(peer, local))
            except OSError:
                connection.close()
                continue
            self.connections.add(connection)
            self.selector.register(connection, selectors.EVENT_READ, lambda c=connection: self._echo(c))

    def _echo(self, connection):
        try:
            data = connection.recv(4096)
            if data:
                connection.send(self.name.encode() + b": " + data)
                return
        except OSError:
            pass
        self.selector.unregister(connection)
        self.connections.discard(connection)
        connection.close()

    def _receive(self, sock):
        for _ in range(64):
            try:
                _, control, _, peer = sock.recvmsg(4096, 256)
            except BlockingIOError:
                return
            except OSError:
                continue
            asked, source = read_asked_address(control)
            self.seen_ports.add(asked[1])
            sock.sendmsg([self._answer(peer, asked)], [source], 0, peer)

    def _answer(self, peer, local):
        peer, local = plain(peer), plain(local)
        return f"{self.name} {peer[0]} {peer[1]} {local[0]} {local[1]}\n".encode()


class ServiceHandle(worker.Worker):
    """The parent's handle on a service."""

    def borrowed(self, label):
        """The service's socket in the caller, for a with statement: as a privileged loader would get at it."""
        pidfd = os.pidfd_open(self.pid)
        try:
            return socket.socket(fileno=kernel.pidfd_getfd(pidfd, self.fileno(label)))
        finally:
            os.close(pidfd)


def spawn(name, uid, launched=None, gid=None):
    """A service. launched: what is opened as root before it drops to uid, by label: (protocol, address, port, options)
    of a socket, or (kind, family) of an oddity."""
    return ServiceHandle(Service, name, uid, launched or {}, gid or uid)
