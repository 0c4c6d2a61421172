# SPDX-License-Identifier: LGPL-2.1-or-later
"""A forked child that carries out the methods of one object when its parent asks.

The child is forked, not executed, so that it needs no file that an unprivileged user could not read, and starts
in a few milliseconds. It shares no descriptor with its parent but one pipe, and dies with it.
"""

import gc
import multiprocessing
import os
import selectors
import signal
import time
import traceback

from harness import kernel


class Child:
    """Base of what runs in the child: answers calls, watches descriptors, works in between while `busy`."""

    def __init__(self):
        self.selector = selectors.DefaultSelector()
        self.busy = False
        self._connection = None

    def serve_until(self, condition, what, seconds=25):
        """Does what it does for others until the condition holds; for calls that wait for something."""
        deadline = time.monotonic() + seconds
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"not within {seconds} s: {what}")
            for key, _ in self.selector.select(left):
                if key.fileobj is not self._connection:
                    key.data()
                else:
                    # A call is being carried out; there is no other one yet, so the parent is gone.
                    os._exit(0)

    def work(self):
        """One short step, again and again between calls while `busy`."""

    def run(self, connection):
        self._connection = connection
        self.selector.register(connection, selectors.EVENT_READ, lambda: self._answer_call(connection))
        while True:
            for key, _ in self.selector.select(0 if self.busy else None):
                key.data()
            if self.busy:
                self.work()

    def _answer_call(self, connection):
        try:
            method, arguments, named = connection.recv()
        except EOFError:
            os._exit(0)
        try:
            connection.send((True, getattr(self, method)(*arguments, **named)))
        except Exception as error:  # pylint: disable=broad-except
            error.add_note("in the child:\n" + traceback.format_exc())
            connection.send((False, error))


def _child_main(connection, factory, arguments):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Objects of the parent must not be collected here: they would close descriptors that are ours by then.
    gc.freeze()
    keep = connection.fileno()
    os.closerange(3, keep)
    os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX"))
    try:
        child = factory(*arguments)
        kernel.die_with_parent(signal.SIGKILL)
        connection.send((True, None))
        child.run(connection)
    except BaseException as error:  # pylint: disable=broad-except
        try:
            error.add_note("in the child:\n" + traceback.format_exc())
            connection.send((False, error))
        except Exception:  # pylint: disable=broad-except
            traceback.print_exc()
    finally:
        os._exit(1)


class Worker:
    """The parent's handle. Any method of the child's object can be called on it."""

    def __init__(self, factory, *arguments):
        self.connection, theirs = multiprocessing.Pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _child_main(theirs, factory, arguments)
        theirs.close()
        self.alive = True
        self._result("start", 60)

    def call(self, method, *arguments, timeout=60, **named):
        self.connection.send((method, arguments, named))
        return self._result(method, timeout)

    def _result(self, what, timeout):
        if not self.connection.poll(timeout):
            raise TimeoutError(f"{what} in child {self.pid} did not end within {timeout} s")
        try:
            good, value = self.connection.recv()
        except EOFError:
            raise RuntimeError(f"child {self.pid} ended during {what}") from None
        if not good:
            raise value
        return value

    def __getattr__(self, method):
        if method.startswith("_"):
            raise AttributeError(method)
        return lambda *arguments, **named: self.call(method, *arguments, **named)

    def kill(self):
        """Ends the child as a crash would, and waits for the end: the kernel has closed its sockets by then."""
        if self.alive:
            self.alive = False
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.connection.close()
