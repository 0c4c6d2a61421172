# SPDX-License-Identifier: LGPL-2.1-or-later
"""Under sockbroker-run --supervise: processes that end, and others of the program that have their sockets."""

import contextlib
import os
import signal

import pytest

from harness import kernel, sandbox, supervised
from supervising import ask, everything
from test_supervise_again import sleeps
from words import add_routes

# The first listens, the second is its child and the third the second's. Those whose parent has ended are the program's.
LAUNCHED = """
libc.prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
read, write = os.pipe()
first = os.fork()
if first == 0:
    sockets = [sock('tcp', '0.0.0.0', 80) for _ in range(COUNT)]
    if os.fork() == 0 and os.fork() == 0:
        for s in sockets:
            serve(s)
        os.write(write, f"{os.getppid()} {os.getpid()}".encode())
    signal.pause()
second, third = map(int, os.read(read, 99).split())
"""


@pytest.fixture(name="launched")
def _launched():
    """launched(program, count): the three processes, when the third accepts from so many listeners."""
    children = []

    def launch(program, count=1):
        program.do(LAUNCHED.replace("COUNT", str(count)))
        pids_of = program.do("(first, second, third)")
        children.extend(map(os.pidfd_open, pids_of))
        return pids_of

    yield launch
    for pidfd in children:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)


def end(program, pid):
    """And nobody has to wait for it any more."""
    assert program.do(f"os.kill({pid}, 9); os.waitpid({pid}, 0)") is None


def pids(broker):
    return [entry["pid"] for entry in broker.list()]


def start(broker, *more):
    add_routes()
    broker.policy(everything("web", *more)).start()
    sandbox.install()


def test_an_heir_that_ends_before_the_broker_looks_has_an_heir_itself(broker, launched):
    start(broker)
    with supervised.Program() as program:
        first, second, third = launched(program)
        assert pids(broker) == [first]
        supervisor = program.supervisor()
        broker.process.send_signal(signal.SIGSTOP)
        try:
            end(program, first)
            # It has the listener, and a connection to the broker.
            supervised.until(lambda: len(sockets_of(supervisor)) == 2)
            end(program, second)
        finally:
            broker.process.send_signal(signal.SIGCONT)
        supervised.until(lambda: pids(broker) == [third])
        assert ask("192.0.2.1", 80) == f"served {third}"


def test_an_heir_is_told_of_when_the_broker_is_back(broker, launched):
    start(broker)
    with supervised.Program() as program:
        first, second, third = launched(program)
        supervisor = program.supervisor()
        broker.stop()
        looked = sleeps(supervisor)
        end(program, first)
        supervised.until(lambda: sleeps(supervisor) >= looked + 3)
        broker.start()
        supervised.until(lambda: pids(broker) in ([second], [third]))
        [entry] = broker.list()
        assert entry["state"] == "live"


def test_all_of_many_sockets_have_their_heir(broker, launched):
    start(broker, "Handover=share")
    with supervised.Program() as program:
        first, second, third = launched(program, 70)
        assert pids(broker) == [first] * 70
        assert pidfds(program.supervisor()) <= 2, "one for each process"
        end(program, first)
        supervised.until(lambda: set(pids(broker)) <= {second, third})
        assert [entry["state"] for entry in broker.list()] == ["live"] * 70


def test_the_heir_of_an_undumpable_program_is_found_too_and_what_it_serves_is_not_held(broker, launched):
    start(broker, "HoldSec=1")
    with supervised.Program("--user-namespace=yes") as program:
        program.do("files = [os.open('/dev/null', os.O_RDONLY) for _ in range(200)]")
        program.do("libc.prctl(4, 0, 0, 0, 0)")  # PR_SET_DUMPABLE
        first, second, third = launched(program)
        assert pids(broker) == [first]
        end(program, first)
        supervised.until(lambda: pids(broker) in ([second], [third]))
        assert [entry["state"] for entry in broker.list()] == ["live"]
        assert ask("192.0.2.1", 80) == f"served {third}"


def sockets_of(pid):
    return [fd for fd, link in kernel.descriptors(pid).items() if link.startswith("socket:")]


def pidfds(pid):
    return sum("pidfd" in link for link in kernel.descriptors(pid).values())
