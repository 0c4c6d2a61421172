# SPDX-License-Identifier: LGPL-2.1-or-later
"""loops.h for Python: the fast loops of the benchmark, by ctypes. Each function blocks its process."""

import ctypes
import pathlib
import socket
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from harness.broker import BUILD  # noqa: E402

PORT = 443
PREFIX = {4: "10.77.0.0", 6: "fd77::"}
CLIENTS = {4: "198.18.0.0", 6: "fd98::"}  # a /16 and a /112 again
_SOCKADDR = 28  # struct sockaddr_in6, for both families


class Outcome(ctypes.Structure):
    _fields_ = [("done", ctypes.c_long), ("failed", ctypes.c_long), ("seconds", ctypes.c_double),
                ("cpu_seconds", ctypes.c_double), ("error", ctypes.c_int)]

    def plain(self):
        return {name: getattr(self, name) for name, _ in self._fields_}


class _Library:
    def __init__(self):
        self._dll = None

    def __call__(self, name, *arguments, result=Outcome):
        if self._dll is None:
            self._dll = ctypes.CDLL(str(BUILD / "tests/bench/traffic/traffic-loops.so"))
        function = getattr(self._dll, name)
        function.restype = result
        outcome = function(*arguments)
        return outcome.plain() if result is Outcome else outcome


_call = _Library()


def family_number(family):
    return socket.AF_INET if family == 4 else socket.AF_INET6


class Targets:
    """Destinations within the /16 (IPv6: /112) of PREFIX, random and prepared, or one and the same. With `clients`, as
    many of them, each asked by a client of CLIENTS of its own."""

    def __init__(self, family, seed, one=False, clients=0):
        number = family_number(family)
        self.pointer = ctypes.c_void_p(_call("sb_make_targets", number, socket.inet_pton(number, PREFIX[family]), PORT,
                                             clients or 262144, seed, int(one), result=ctypes.c_void_p))
        if clients and _call("sb_set_sources", self.pointer, socket.inet_pton(number, CLIENTS[family]),
                             result=ctypes.c_int):
            raise MemoryError("no memory for the addresses of clients")


def udp_send(fd, targets, seconds, most=0):
    return _call("sb_udp_send", fd, targets.pointer, ctypes.c_double(seconds), ctypes.c_long(most))


class Receiver:
    """Reads datagrams or accepts connections in a thread until it is told that no more will come. `echo`: answers
    too."""

    def __init__(self, protocol, fd, echo=False):
        self._stop = ctypes.c_int(0)
        self._outcome = None
        name = "sb_tcp_accept" if protocol == "tcp" else "sb_udp_echo" if echo else "sb_udp_receive"
        self._thread = threading.Thread(target=self._run, args=(name, fd))
        self._thread.start()

    def _run(self, name, fd):
        self._outcome = _call(name, fd, ctypes.byref(self._stop))

    def finish(self):
        self._stop.value = 1
        self._thread.join()
        return self._outcome


def _sockaddr(family, address):
    number = family_number(family)
    packed = socket.inet_pton(number, address)
    head = number.to_bytes(2, sys.byteorder) + bytes(2)
    return (head + packed if family == 4 else head + bytes(4) + packed).ljust(_SOCKADDR, b"\0")


def tcp_connect(family, targets, sources, seconds, window=64, most=0):
    packed = b"".join(_sockaddr(family, source) for source in sources)
    return _call("sb_tcp_connect", targets.pointer, packed, len(sources), window, ctypes.c_double(seconds),
                 ctypes.c_long(most))


def syn_flood(fd, macs, targets, seed, seconds):
    return _call("sb_syn_flood", fd, macs, targets.pointer, seed, ctypes.c_double(seconds))
