# SPDX-License-Identifier: LGPL-2.1-or-later
"""Units where no systemd runs: cgroups of the names that PID 1 would give them, in a slice of the test's own, and
servers in them that know nothing of the broker."""

import contextlib
import errno
import itertools
import json
import os
import pathlib
import selectors
import socket
import struct
import subprocess
import time

from harness import kernel, service, wire, worker

_numbers = itertools.count()


def root():
    """Where the one hierarchy is mounted that BPF knows."""
    for line in pathlib.Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind = line.split()[:3]
        if kind == "cgroup2":
            return pathlib.Path(place)
    raise RuntimeError("no cgroup2 is mounted")


class Slice:
    """A slice with units; all of it goes at the end, when its processes have ended."""

    def __init__(self):
        self.path = root() / f"sbtest{os.getpid()}n{next(_numbers)}.slice"
        self.path.mkdir()

    def unit(self, name):
        path = self.path / name
        path.mkdir()
        return path

    def remove(self, name):
        """As PID 1 does when a unit has stopped."""
        (self.path / name).rmdir()

    def end(self):
        """A supervisor outlives its program for a moment."""
        (self.path / "cgroup.kill").write_text("1")
        deadline = time.monotonic() + 25
        while "populated 1" in (self.path / "cgroup.events").read_text():
            if time.monotonic() > deadline:
                raise TimeoutError(f"processes are left in {self.path}")
            time.sleep(0.01)
        for path, _, _ in os.walk(self.path, topdown=False):
            os.rmdir(path)


def command_in(cgroup, *words):
    """A command that is executed in it."""
    return ["/bin/sh", "-c", f'echo 0 >{cgroup}/cgroup.procs && exec "$@"', "-", *map(str, words)]


def attached():
    """Types of the programs by cgroup, of all cgroups of this machine that have any of ours."""
    done = subprocess.run(["bpftool", "-j", "cgroup", "tree", str(root())], capture_output=True, text=True, check=True,
                          env={"PATH": os.environ["PATH"] + ":/usr/sbin"})
    ours = {"bind4", "bind6", "sendmsg4", "sendmsg6"}
    found = {}
    for entry in json.loads(done.stdout or "[]"):
        names = {program["name"] for program in entry["programs"]} & ours
        if names:
            found[entry["cgroup"]] = names
    return found


class Server(worker.Child):
    """A process of a unit, without privilege: plain recvfrom(2) and sendto(2), as a server from before IP_PKTINFO."""

    def __init__(self, cgroup, uid):
        super().__init__()
        (pathlib.Path(cgroup) / "cgroup.procs").write_text("0")
        self.sockets = {}
        self.asked = []
        self.silent = False
        kernel.drop_privileges(uid, uid)

    def open(self, label, address, port, dual=False):
        """The socket's cookie, or the name of the error."""
        try:
            sock = service.open_socket("udp", address, port, dual=dual, freebind=":" in address)
        except OSError as error:
            return errno.errorcode[error.errno]
        self.sockets[label] = sock
        self.selector.register(sock, selectors.EVENT_READ, lambda: self._receive(sock))
        return kernel.socket_cookie(sock)

    def open_tcp(self, address, port):
        try:
            service.open_socket("tcp", address, port).close()
        except OSError as error:
            return errno.errorcode[error.errno]
        return None

    def control(self, text, *labels):
        return wire.control(f"{service.RUNTIME}/control", text, [self.sockets[label].fileno() for label in labels])

    def register(self, name, *labels):
        return self.control(f"FDSTORE=1\nFDNAME={name}", *labels)

    def close(self, label):
        self.selector.unregister(self.sockets[label])
        self.sockets.pop(label).close()

    def be_silent(self, silent):
        """Receives and keeps what it would answer."""
        self.silent = silent

    def waiting(self, count):
        self.serve_until(lambda: len(self.asked) >= count, f"{count} questions")
        return len(self.asked)

    def answer_all(self):
        for sock, data, peer in self.asked:
            sock.sendto(data, peer)
        self.asked.clear()

    def answer_from(self, label, source):
        """To the first that waits, from a source that the program chose itself (IP_PKTINFO)."""
        _, data, peer = self.asked.pop(0)
        if ":" in source:
            control = socket.IPPROTO_IPV6, kernel.IPV6_PKTINFO, socket.inet_pton(socket.AF_INET6, source) + bytes(4)
        else:
            control = socket.IPPROTO_IP, kernel.IP_PKTINFO, struct.pack("=i4s4s", 0, socket.inet_aton(source), bytes(4))
        self.sockets[label].sendmsg([data], [control], 0, peer)

    def answer_in_segments(self, label, size):
        """UDP_SEGMENT: one call, datagrams of `size`."""
        _, data, peer = self.asked.pop(0)
        control = socket.IPPROTO_UDP, 103, struct.pack("=H", size)
        self.sockets[label].sendmsg([data], [control], 0, peer)

    def answer_connected(self, label):
        """By a socket that it connects to the client, from its own address."""
        _, data, peer = self.asked.pop(0)
        with socket.socket(self.sockets[label].family, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.connect(peer)
            sock.send(data)
            return sock.getsockname()[0]

    def _receive(self, sock):
        for _ in range(256):
            try:
                data, peer = sock.recvfrom(65535)
            except BlockingIOError:
                return
            if self.silent:
                self.asked.append((sock, data, peer))
            else:
                with contextlib.suppress(OSError):  # EINVAL: from loopback to another host
                    sock.sendto(data, peer)
