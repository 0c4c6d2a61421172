# SPDX-License-Identifier: LGPL-2.1-or-later
"""python3 every_kind.py SEED COUNT UID GID: hands descriptors of every kind that a Linux process can hold to the
broker, at random: alone and several, nested, corked, lingering, whose close or fstat waits for a silent file server.
Ends when all of it has ended, and prints how often each kind was sent as JSON. A program, not a fork of a test: threads
of the test may hold locks.

Uses silent_file.make_device() of its parent, in the same mount namespace."""

import array
import collections
import contextlib
import ctypes
import json
import os
import pathlib
import random
import resource
import select
import signal
import socket
import struct
import sys
import time

TOP = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TOP)]

from harness import kernel, silent_file  # noqa: E402  pylint: disable=wrong-import-position

RUNTIME = "/run/sockbroker"
FOLDERS = ("/run/silent-flush", "/run/silent-fstat")  # beside silent_file.MOUNTED, whose reads are silent
SERVICES = ("web", "evil", "evil-held", "nosuch")
_libc = ctypes.CDLL(None, use_errno=True)

# System calls that Python 3.11 has no name for: their numbers are the same on every architecture, but for the last.
PIDFD_OPEN, IO_URING_SETUP, LANDLOCK_CREATE_RULESET, MEMFD_SECRET = 434, 425, 444, 447
X86_64 = {"userfaultfd": 323, "inotify": 294, "fanotify": 300, "timerfd": 283, "signalfd": 289, "mq_open": 240}


def _call(number, *arguments):
    fd = _libc.syscall(ctypes.c_long(number), *arguments)
    if fd < 0:
        raise OSError(ctypes.get_errno(), f"system call {number}")
    return fd


def _x86_64(name, *arguments):
    if os.uname().machine != "x86_64":
        raise OSError(f"no number for {name}")
    return _call(X86_64[name], *arguments)


# --- sockets


def _tcp_listener():
    return socket.create_server(("127.0.0.1", 0)).detach()


def _full_listener():
    """With connections that nobody accepted, all of which its last close ends."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    for _ in range(100):
        client = socket.socket()
        client.setblocking(False)
        with contextlib.suppress(OSError):
            client.connect(listener.getsockname())
        client.detach()
    return listener.detach()


def _connection():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        return client, listener.accept()[0]


def _lingering():
    """Its last close waits, for what it has sent to be read."""
    client, server = _connection()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 30))
    client.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            client.send(bytes(65536))
    server.detach()
    return client.detach()


def _udp():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock.detach()


def _corked(memory):
    """getsockname(2), and putting it into a sockmap, take the lock that a writer keeps."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    if os.fork() == 0:
        with contextlib.suppress(OSError):
            sock.sendto(b"x", socket.MSG_MORE, sock.getsockname())
            sock.sendmsg([memoryview(memory)], [], socket.MSG_MORE, sock.getsockname())
        os._exit(0)
    return sock.detach()


def _nested(inside, depth=1):
    """A UNIX socket in whose queue others lie."""
    for _ in range(depth):
        one, other = socket.socketpair(socket.AF_UNIX, random.choice([socket.SOCK_DGRAM, socket.SOCK_STREAM]))
        with contextlib.suppress(OSError):
            socket.send_fds(other, [b"x"], [inside] * random.randint(1, 8))
        if random.random() < 0.5:
            other.close()
        else:
            other.detach()
        inside = one.detach()
    return inside


def _unix_listener(inside):
    """With a connection that nobody accepted, in whose queue a descriptor lies."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(b"")
    listener.listen(8)
    with contextlib.suppress(OSError):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client.connect(listener.getsockname())
        socket.send_fds(client, [b"x"], [inside])
        client.detach()
    return listener.detach()


def _in_a_cycle():
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with contextlib.suppress(OSError):
        socket.send_fds(one, [b"x"], [other.fileno(), one.fileno()])
    other.detach()
    return one.detach()


def _foreign(kind):
    """Of a network namespace of its own, whose root the sender is."""
    def make():
        kernel.unshare(kernel.CLONE_NEWNET)
        family, number, protocol = kind
        sock = socket.socket(family, number, protocol)
        if number == socket.SOCK_STREAM:
            sock.listen(8)
        return sock.detach()
    return make


# --- others


def _locked_pipe(memory):
    """close(2) takes a lock that a writer keeps."""
    read, write = os.pipe()
    if os.fork() == 0:
        with contextlib.suppress(OSError):
            os.write(write, memoryview(memory))
        os._exit(0)
    os.close(write)
    return read


def _epoll_of_epoll():
    inner = select.epoll()
    inner.register(_tcp_listener())
    outer = select.epoll()
    outer.register(inner.fileno())
    os.dup(inner.fileno())
    return os.dup(outer.fileno())


def _io_uring():
    return _call(IO_URING_SETUP, 8, ctypes.create_string_buffer(120))


def _userfaultfd():
    return _x86_64("userfaultfd", 1 | os.O_CLOEXEC)  # UFFD_USER_MODE_ONLY


def _mqueue():
    attributes = struct.pack("8l", 0, 1, 8, 0, 0, 0, 0, 0)
    name = f"sb{os.getpid()}".encode()
    return _x86_64("mq_open", name, os.O_RDWR | os.O_CREAT, 0o600, attributes)


def _signalfd():
    return _x86_64("signalfd", -1, struct.pack("Q", 1 << (signal.SIGUSR1 - 1)), 8, 0)


def _opened(path, flags=os.O_RDONLY):
    return lambda: os.open(path, flags)


PLAIN = {
    "tcp-listener": _tcp_listener, "full-listener": _full_listener, "tcp-connection": lambda: _connection()[0].detach(),
    "lingering": _lingering, "udp": _udp, "unix-in-a-cycle": _in_a_cycle,
    "tcp-of-a-user-namespace": _foreign((socket.AF_INET, socket.SOCK_STREAM, 0)),
    "raw-of-a-user-namespace": _foreign((socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)),
    "packet-of-a-user-namespace": _foreign((socket.AF_PACKET, socket.SOCK_RAW, 3)),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).detach(),
    "alg": lambda: socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET).detach(),
    "vsock": lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).detach(),
    "mptcp": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, kernel.IPPROTO_MPTCP).detach(),
    "pipe": lambda: os.pipe()[0], "epoll": lambda: os.dup(select.epoll().fileno()), "epoll-of-epoll": _epoll_of_epoll,
    "eventfd": lambda: os.eventfd(0), "timerfd": lambda: _x86_64("timerfd", time.CLOCK_MONOTONIC, 0),
    "signalfd": _signalfd,
    "inotify": lambda: _x86_64("inotify", 0), "fanotify": lambda: _x86_64("fanotify", 0x200, 0),  # FAN_REPORT_FID
    "memfd": lambda: os.memfd_create("x"), "memfd-huge": lambda: os.memfd_create("x", 4),
    "memfd-secret": lambda: _call(MEMFD_SECRET, 0), "io_uring": _io_uring, "userfaultfd": _userfaultfd,
    "mqueue": _mqueue, "pidfd": lambda: os.pidfd_open(os.getpid()),
    "landlock": lambda: _call(LANDLOCK_CREATE_RULESET, struct.pack("Q", 1), ctypes.c_size_t(8), 0),
    "terminal": lambda: os.openpty()[0], "null": _opened("/dev/null", os.O_RDWR), "directory": _opened("/"),
    "path": _opened("/", os.O_PATH), "namespace": _opened("/proc/self/ns/user"),
    "own-memory": _opened("/proc/self/mem", os.O_RDWR), "proc": _opened("/proc/self/maps"),
}


class Maker:
    """Descriptors by the name of their kind, beside file servers that are silent in one way each."""

    def __init__(self):
        self.pages = silent_file.SilentFile((silent_file.READ,))
        self.flush = silent_file.SilentFile((silent_file.FLUSH,), FOLDERS[0], opened=False)
        self.fstat = silent_file.SilentFile((silent_file.GETATTR,), FOLDERS[1], opened=False)
        self.kinds = [*PLAIN, "locked-pipe", "corked-udp", "fuse-flush", "fuse-fstat", "nested", "nested-deep",
                      "nested-hanging", "unix-listener"]

    def make(self, kind):
        if kind in PLAIN:
            return PLAIN[kind]()
        if kind == "locked-pipe":
            return _locked_pipe(self.pages.memory())
        if kind == "corked-udp":
            return _corked(self.pages.memory())
        if kind == "fuse-flush":
            return os.open(self.flush.path, os.O_RDONLY)
        if kind == "fuse-fstat":
            return os.open(self.fstat.path, os.O_PATH)
        if kind == "nested-hanging":
            return _nested(_locked_pipe(self.pages.memory()), random.randint(1, 3))
        if kind == "nested-deep":
            return _nested(_lingering(), 6)
        inside = PLAIN[random.choice(["tcp-listener", "lingering", "pipe", "eventfd"])]()
        return _unix_listener(inside) if kind == "unix-listener" else _nested(inside)

    def end(self):
        for one in (self.pages, self.flush, self.fstat):
            one.end()


def _send(fds):
    """In one of the ways that there are, and without waiting for an answer."""
    text = random.choice([f"FDSTORE=1\nFDNAME={name}".encode() for name in SERVICES]
                         + [b"FDSTORE=1", b"BARRIER=1", b"X=1", b"",
                                                                                        b"FDSTORE=1\n" * 500])
    kind, name = random.choice([(socket.SOCK_SEQPACKET, "control"), (socket.SOCK_SEQPACKET, "control"),
                                (socket.SOCK_DGRAM, "notify")])
    sock = socket.socket(socket.AF_UNIX, kind)
    sock.settimeout(0.2)
    sock.connect(f"{RUNTIME}/{name}")
    for _ in range(random.choice([1, 1, 3])):
        sock.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
    if random.random() < 0.5:
        with contextlib.suppress(OSError):
            sock.recv(65536)


def _one(maker, seed, report):
    """A process each: what it makes may keep itself waiting, and ends with the file servers."""
    random.seed(seed)
    child = os.fork()
    if child != 0:
        return child
    sent = []
    try:
        fds = []
        for kind in random.choices(maker.kinds, k=random.choice([1, 1, 1, 2, 4])):
            with contextlib.suppress(OSError):
                fds += [maker.make(kind)] * random.choice([1, 1, 1, 16])
                sent.append(kind)
        _send(fds)
        os.write(report, json.dumps(sent).encode() + b"\n")
    except OSError:
        pass
    finally:
        os._exit(0)


def main(seed, count, uid, gid):
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    kernel.drop_privileges(uid, gid)
    silent_file.enter_namespaces()
    maker = Maker()
    read, write = os.pipe()
    os.set_blocking(read, False)
    tally, text, children = collections.Counter(), b"", []
    for number in range(count):
        children.append(_one(maker, seed * 1_000_003 + number, write))
        deadline = time.monotonic() + 0.3  # those that hang in their own making or closing are left to themselves
        while os.waitpid(children[-1], os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                break
            time.sleep(0.001)
        else:
            children.pop()
    maker.end()
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    os.close(write)
    with contextlib.suppress(BlockingIOError):
        while data := os.read(read, 65536):
            text += data
    for line in text.splitlines():
        tally.update(json.loads(line))
    print(json.dumps(tally), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
