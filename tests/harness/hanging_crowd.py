# SPDX-License-Identifier: LGPL-2.1-or-later
"""python3 hanging_crowd.py WAY COUNT UID UIDS [CGROUP...]: as hanging.py, but COUNT messages, sent in turns by UIDS
users from UID on, each a process in one of the cgroups. Says "ready" and how many came off, and ends with its standard
input. Runs as root, who stands for one person with many subordinate uids and many units.

What hangs is the last close of one of COUNT open files of a pipe whose mutex a write(2) keeps; or, where WAY begins
with "file", every close of a file of a silent server, 253 in each message."""

import contextlib
import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys
import time

TOP = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TOP)]

from harness import kernel, silent_file  # noqa: E402  pylint: disable=wrong-import-position

RUNTIME = "/run/sockbroker"
MAX_FDS = 253
# What it is sent to, and with what text. "kept": first KEPT plain records on as many connections, which nobody reads
# once their sender gets no hand any more.
WAYS = {"notify": ("notify", b"X=1"), "control": ("control", b"X=1"), "kept": ("control", b"X=1"),
        "admitted-notify": ("notify", b"FDSTORE=1\nFDNAME=evil"),
        "admitted-control": ("control", b"FDSTORE=1\nFDNAME=evil"),
        "file-notify": ("notify", b"X=1"), "file-control": ("control", b"X=1")}
KEPT = 2300
BARRED = b"keep processes of the broker waiting"  # of the answer to whoever gets no hand
CLONE_NEWNS = 0x00020000


class Crowd:
    """The program, for a with statement; it goes on while the test does other things, until(): it has sent all."""

    def __init__(self, way, count, uid, uids=1, cgroups=()):
        self.name = f"{way}, {count} messages, {uids} uids, {len(cgroups)} cgroups"
        self._log = pathlib.Path(f"/run/hanging-crowd-{os.getpid()}")
        with open(self._log, "w+b") as log:
            self._process = subprocess.Popen([sys.executable, __file__, way, str(count), str(uid), str(uids),
                                              *map(str, cgroups)],
                                             stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT,
                                             start_new_session=True)

    def __enter__(self):
        return self

    def sent(self):
        """How many; None: it is sending."""
        text = self._log.read_text(encoding="utf-8")
        if self._process.poll() is not None:
            raise RuntimeError("the attack did not come off: " + text)
        return int(text.split()[1]) if text.startswith("ready") and text.endswith("\n") else None

    def kill(self):
        """As a crash: all of its processes at once."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(20)
            self._process.stdin.close()

    def __exit__(self, *_):
        self.kill()


def _stuck_pipe(memory, count):
    """So many open files of the read end of a pipe whose mutex is kept: the last close of each waits."""
    read, write = os.pipe()
    go = os.pipe()
    writer = os.fork()
    if writer == 0:
        os.close(read)
        os.read(go[0], 1)
        os.write(write, memoryview(memory))
        os._exit(0)
    os.close(write)
    files = [os.open(f"/proc/self/fd/{read}", os.O_RDONLY | os.O_NONBLOCK) for _ in range(count)]
    os.write(go[1], b".")
    while "request_wait" not in pathlib.Path(f"/proc/{writer}/wchan").read_text(encoding="ascii"):
        os.sched_yield()
    return files


def _connect(name):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM if name == "notify" else socket.SOCK_SEQPACKET)
    sock.connect(f"{RUNTIME}/{name}")
    return sock


def _send(way, fds, uid, cgroup):
    """By a process of its own, which is the last here that has them. False: it is refused, or the broker's close came
    first, and this one hangs."""
    go = os.pipe()
    name, text = WAYS[way]
    sender = os.fork()
    if sender == 0:
        keep = sorted([*fds, go[0]])
        for low, high in zip([2, *keep], [*keep, resource.getrlimit(resource.RLIMIT_NOFILE)[0]]):
            os.closerange(low + 1, high)
        if cgroup is not None:
            (pathlib.Path(cgroup) / "cgroup.procs").write_text("0", encoding="ascii")
        kernel.drop_privileges(uid, uid)
        sock = _connect(name)
        os.read(go[0], 1)
        try:
            socket.send_fds(sock, [text], fds)
        except OSError:
            os._exit(1)
        if not way.startswith("file"):  # at once: the end of a process takes longer than the broker
            for fd in fds:
                os.close(fd)
        os._exit(0)
    if not way.startswith("file"):
        for fd in fds:
            os.close(fd)
    os.write(go[1], b".")
    for fd in go:
        os.close(fd)
    if way.startswith("file"):  # the end of each sender waits, too
        return True
    deadline = time.monotonic() + 0.1
    while (ended := os.waitpid(sender, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            return False
    return ended[1] == 0


def _until_barred(uid):
    """Until what hangs was found, and who has sent it gets no hand any more."""
    if os.fork() == 0:
        kernel.drop_privileges(uid, uid)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with _connect("control") as sock, open(os.devnull, "rb") as one, contextlib.suppress(ConnectionError):
                socket.send_fds(sock, [b"VERB=version"], [one.fileno()])
                if BARRED in sock.recv(4096):
                    os._exit(0)
        os._exit(1)
    assert os.wait()[1] == 0, "nobody was barred"


def _send_plain(uid, count):
    if os.fork() == 0:
        kernel.drop_privileges(uid, uid)
        for _ in range(count):
            with _connect("control") as sock, contextlib.suppress(OSError):
                sock.send(b"x")
        os._exit(0)
    os.wait()


def main(way, count, uid, uids, cgroups):
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
    kernel.unshare(CLONE_NEWNS)
    file = silent_file.SilentFile((silent_file.FLUSH if way.startswith("file") else silent_file.READ,))
    if way.startswith("file"):
        messages = [[file.fd] * MAX_FDS] * count
    else:
        messages = [[fd] for fd in _stuck_pipe(file.memory(), count)]
    sent = 0
    for i, fds in enumerate(messages):
        if way == "kept" and i == 4:
            _until_barred(uid)
            _send_plain(uid, KEPT)
        sent += _send(way, fds, uid + i % uids, cgroups[i % uids % len(cgroups)] if cgroups else None)
    print("ready", sent, flush=True)
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5:])
