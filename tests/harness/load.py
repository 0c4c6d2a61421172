# SPDX-License-Identifier: LGPL-2.1-or-later
"""tests/load for Python: clients as many as the machine takes (load.c), and services that keep up with them
(answer.c)."""

import ctypes
import json
import subprocess
import threading
import time

from harness.broker import BUILD

CAUSES = ["refused", "reset", "timed_out", "misdirected", "short", "other"]


def failed(counts):
    """{cause: number} of one protocol, without those that did not occur."""
    return {cause: counts[cause] for cause in CAUSES if counts[cause]}


class Load:
    """The clients: ask the targets, (protocol, address, port, service), in turn until end(). For a with statement.

    namespace_of: a process in whose network namespace they run, the caller's if None. prefix: a command to start them
    by.
    """

    def __init__(self, targets, namespace_of=None, window=16, timeout=5, prefix=(), program=BUILD / "tests/load/load"):
        enter = ["nsenter", f"--net=/proc/{namespace_of}/ns/net"] if namespace_of else []
        words = [",".join(map(str, target)) for target in targets]
        self.protocols = sorted({target[0] for target in targets})
        self._process = subprocess.Popen(
            [*prefix, *enter, str(program), "--window", str(window), "--timeout", str(timeout), *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def counts(self):
        """So far, by protocol: begun, ok, each cause, longest_*_ms, answers by instance; and seconds."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def finished(self):
        """Of the protocol that is behind, those that have ended."""
        counts = self.counts()
        return min(sum(counts[name][cause] for cause in ["ok", *CAUSES]) for name in self.protocols)

    def more(self, number, seconds=60):
        """Returns after so many more of each protocol, well or not."""
        self._until(self.finished() + number, self.finished, seconds)

    def until_answered_by(self, instance, number=1, seconds=60):
        """Returns when that instance has given so many answers of each protocol."""
        def answers():
            counts = self.counts()
            return min(counts[name]["instances"].get(instance, 0) for name in self.protocols)

        self._until(number, answers, seconds)

    def _until(self, goal, value, seconds):
        deadline = time.monotonic() + seconds
        while value() < goal:
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {seconds} s: {goal}, counts: {self.counts()}")
            time.sleep(0.005)

    def end(self):
        """Begins nothing more, waits for the ends of all, and returns the counts."""
        self._process.stdin.close()
        counts = json.loads(self._process.stdout.readline())
        self._process.wait(30)
        return counts

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # The end of its input ends it, also where the process here is a nsenter around it.
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(30)


class Answerer:
    """A thread of the service that answers on one of its sockets."""

    def __init__(self, sock, name):
        library = ctypes.CDLL(str(BUILD / "tests/load/load-answer.so"))
        self._function = library.sb_answer_tcp if sock.type == 1 else library.sb_answer_udp
        self._function.restype = ctypes.c_long
        self._stop = ctypes.c_int(0)
        self._answered = 0
        self._thread = threading.Thread(target=self._run, args=(sock.fileno(), name.encode()), daemon=True)
        self._thread.start()

    def _run(self, fd, name):
        self._answered = self._function(fd, name, ctypes.byref(self._stop))

    def finish(self, unread=False):
        """Answers what was accepted and, but for `unread`, what datagrams there are; returns how many it answered in
        all."""
        self._stop.value = 2 if unread else 1
        self._thread.join()
        return self._answered
