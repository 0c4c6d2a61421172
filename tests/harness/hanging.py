# SPDX-License-Identifier: LGPL-2.1-or-later
"""python3 hanging.py KIND WAY UID: hands a descriptor over that makes whoever touches it sleep until this program ends,
says "ready", and ends with its standard input. A program, not a fork of a test: threads of the test may hold locks.

Uses silent_file.make_device() of its parent, in the same mount namespace."""

import contextlib
import os
import pathlib
import socket
import struct
import subprocess
import sys
import time

TOP = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TOP)]

from harness import kernel, silent_file  # noqa: E402  pylint: disable=wrong-import-position

RUNTIME = "/run/sockbroker"


def _pipe(file):
    """close(2) of a pipe takes its lock, which the writer keeps while it waits for the page."""
    memory = file.memory()
    read, write = os.pipe()
    writer = os.fork()
    if writer == 0:
        os.close(read)
        os.write(write, memoryview(memory))
        os._exit(0)
    os.close(write)
    return read, writer


def _udp(file):
    """Of a UDP socket getsockname(2), and putting it into a sockmap, take the lock that a corked sendmsg(2) keeps."""
    memory = file.memory()
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    writer = os.fork()
    if writer == 0:
        sock.sendto(b"x", socket.MSG_MORE, sock.getsockname())
        sock.sendmsg([memoryview(memory)], [], socket.MSG_MORE, sock.getsockname())
        os._exit(0)
    return sock.detach(), writer


def _file(_):
    """Each close(2) of it, not only the last, asks its server."""
    return os.open(f"{silent_file.MOUNTED}/file", os.O_RDONLY), None


def _bound_udp():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock


def _listener():
    return socket.create_server(("127.0.0.1", 0))


def _cork(sock, file):
    """Its lock is kept from now on."""
    memory = file.memory()
    writer = os.fork()
    if writer == 0:
        sock.sendto(b"x", socket.MSG_MORE, sock.getsockname())
        sock.sendmsg([memoryview(memory)], [], socket.MSG_MORE, sock.getsockname())
        os._exit(0)
    return writer, sock


def _linger(sock, _):
    """The listener becomes a connection whose last close(2) waits for data that nobody reads. This side has closed
    it."""
    sink = _listener()
    sock.shutdown(socket.SHUT_RDWR)
    sock.connect(sink.getsockname())
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 3600))
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.send(bytes(1 << 20))
    sock.close()
    return None, sink


KINDS = {"pipe": (_pipe, (silent_file.READ,)), "udp": (_udp, (silent_file.READ,)),
         "file": (_file, (silent_file.FLUSH,))}
# What was taken and registered as it should be, and is made to hang then: of a service with HoldSec= the broker has it.
AFTERWARDS = {"locked": (_bound_udp, _cork), "lingering": (_listener, _linger)}
WAYS = {"barrier": ("control", b"BARRIER=1"), "registration": ("control", b"FDSTORE=1\nFDNAME=web"),
        "nonsense": ("control", b"X=1"), "notify": ("notify", b"FDSTORE=1\nFDNAME=web"),
        # Of one whom policy lets register: it is looked at, too.
        "admitted": ("control", b"FDSTORE=1\nFDNAME=evil"), "admitted-notify": ("notify", b"FDSTORE=1\nFDNAME=evil")}


class Hanging:
    """The program, for a with statement: within it the descriptor has been handed over and keeps its toucher
    waiting."""

    def __init__(self, kind, way, uid):
        # Its standard error into a file: what is left of it for a moment holds no pipe of the test's open.
        with open(f"/run/hanging-{kind}-{way}-{uid}", "w+b") as log:
            self._process = subprocess.Popen([sys.executable, __file__, kind, way, str(uid)], stdin=subprocess.PIPE,
                                             stdout=subprocess.PIPE, stderr=log)
        if self._process.stdout.readline() != b"ready\n":
            raise RuntimeError("the attack did not come off: " + pathlib.Path(log.name).read_text(encoding="utf-8"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()


def _waits_for_a_page(pid):
    return "request_wait" in pathlib.Path(f"/proc/{pid}/wchan").read_text(encoding="ascii")


def _register(kind, file):
    make, spoil = AFTERWARDS[kind]
    sock = make()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
        control.connect(f"{RUNTIME}/control")
        socket.send_fds(control, [WAYS["admitted"][1]], [sock.fileno()])
        answer = control.recv(4096)
    if b"RESULT=ok" not in answer:
        raise RuntimeError(answer)
    done = spoil(sock, file)
    while done[0] is not None and not _waits_for_a_page(done[0]):
        os.sched_yield()
    return done


def _hand_over(kind, way, file):
    """The writer, and the socket, which keeps the message; None: the last close was this side's, which hangs now."""
    name, text = WAYS[way]
    fd, writer = KINDS[kind][0](file)
    while writer is not None and not _waits_for_a_page(writer):
        os.sched_yield()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM if name == "notify" else socket.SOCK_SEQPACKET)
    sock.connect(f"{RUNTIME}/{name}")
    if kind == "file":
        socket.send_fds(sock, [text], [fd])
        return writer, sock
    closed = os.pipe()
    sender = os.fork()
    if sender == 0:  # the only one that has it once the line below has run
        os.read(closed[0], 1)
        socket.send_fds(sock, [text], [fd])
        os.close(fd)
        os._exit(0)
    os.close(fd)
    os.write(closed[1], b".")
    deadline = time.monotonic() + 1
    while os.waitpid(sender, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            return None
    return writer, sock


def main(kind, way, uid):
    kernel.drop_privileges(uid, uid)
    silent_file.enter_namespaces()
    while True:
        file = silent_file.SilentFile(KINDS[kind][1] if kind in KINDS else (silent_file.READ,))
        done = _register(kind, file) if kind in AFTERWARDS else _hand_over(kind, way, file)
        if done is not None:
            break
        file.end()
    os.write(1, b"ready\n")
    while os.read(0, 1):
        pass
    file.end()
    if done[0] is not None:
        os.waitpid(done[0], 0)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
