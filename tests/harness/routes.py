# SPDX-License-Identifier: LGPL-2.1-or-later
"""The real sockbroker-routes as a child of the test, the routes in the kernel, and the words that a broker speaks to
it."""

import contextlib
import ipaddress
import os
import pathlib
import signal
import socket
import struct
import subprocess

from harness import broker as broker_module
from harness import namespace
from harness.until import until

PROTOCOL, TABLE = 83, 153
LOCAL, ANNOUNCE = 0, 1
MAGIC = 0x31524253
BEGIN, PREFIXES, END = 1, 2, 3
IN_RECORD = 3000


def _shown(*what):
    """Prefixes of routes that `ip route show` names, in both families; a table that nobody has made is empty."""
    found = set()
    for family, whole in (("-4", 32), ("-6", 128)):
        done = subprocess.run(["ip", family, "route", "show", *what], capture_output=True, text=True, check=False)
        for line in done.stdout.splitlines():
            words = line.split()
            prefix = words[1] if words[0] in ("local", "blackhole") else words[0]
            found.add(prefix if "/" in prefix else f"{prefix}/{whole}")
    return found


def local():
    """Prefixes of the broker's local routes."""
    return _shown("table", "local", "type", "local", "proto", str(PROTOCOL))


def announced(table=TABLE):
    """Prefixes that stand where routing daemons look."""
    return _shown("table", str(table), "type", "blackhole", "proto", str(PROTOCOL))


class RouteMaker:
    """Started as systemd would start it at the first word, but here by the test."""

    def __init__(self, broker):
        self.broker = broker
        self.process = None
        self.environment = {}  # more of it, for the next start

    @property
    def path(self):
        return str(self.broker.runtime / "routes")

    def start(self):
        """Returns when it listens."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        self.broker.runtime.mkdir(exist_ok=True)
        # Standard error is the test's own.
        self.process = subprocess.Popen(
            [str(broker_module.BUILD / "sockbroker-routes"), "--config-dir", str(self.broker.config),
             "--runtime-dir", str(self.broker.runtime)], stdin=subprocess.DEVNULL,
            env=os.environ | self.environment)
        until("it listens", lambda: self.listens() or self.process.poll() is not None)
        assert self.process.poll() is None
        return self

    def listens(self):
        # Num RefCount Protocol Flags Type St Inode Path; the flag is that of a listener (__SO_ACCEPTCON).
        sockets = [line.split() for line in pathlib.Path("/proc/net/unix").read_text(encoding="ascii").splitlines()]
        return any(words[-1] == self.path and words[3] == "00010000" for words in sockets)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def discard(self):
        if self.process is not None and self.process.poll() is None:
            self.kill()


def wire_prefix(prefix):
    network = ipaddress.ip_network(prefix)
    return struct.pack("=BB16s", 0 if network.version == 4 else 1, network.prefixlen, network.network_address.packed)


def record(step, kind, prefixes=(), number=0, count=None, magic=MAGIC):
    head = struct.pack("=IBBHI", magic, step, kind, len(prefixes) if count is None else count, number)
    return head + b"".join(one if isinstance(one, bytes) else wire_prefix(one) for one in prefixes)


def in_order(prefixes):
    """As a list has them: IPv4 first, by address, then length."""
    wire = [one if isinstance(one, bytes) else wire_prefix(one) for one in prefixes]
    return sorted(wire, key=lambda one: one[:1] + one[2:] + one[1:2])


class Talk:
    """A broker's words, or those of somebody who has its socket."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(25)
        self.sock.connect(path)

    def send(self, data):
        self.sock.send(data)

    def tell(self, kind, prefixes, number=1):
        """A whole list; the report."""
        prefixes = in_order(prefixes)
        self.send(record(BEGIN, kind))
        for at in range(0, len(prefixes), IN_RECORD):
            self.send(record(PREFIXES, kind, prefixes[at:at + IN_RECORD]))
        self.send(record(END, kind, number=number))
        while True:
            report = self.report()
            if report["kind"] == kind and report["number"] == number:
                return report

    def report(self):
        data = self.sock.recv(4096)
        assert data, "it has hung up"
        names = ("number", "standing", "others", "refused", "added", "removed", "errnum")
        _, kind, reason, _, _, _, *rest = struct.unpack("=IBBBB16s7I", data)
        return {"kind": kind, "reason": reason, **dict(zip(names, rest, strict=True))}

    def hung_up(self):
        """Whether the other end closes, after whatever it still says."""
        try:
            while self.sock.recv(4096):
                pass
        except ConnectionResetError:
            pass
        return True

    def close(self):
        self.sock.close()


def flush(table):
    for family in ("-4", "-6"):
        namespace.run("ip", family, "route", "flush", "table", str(table), "proto", str(PROTOCOL))
