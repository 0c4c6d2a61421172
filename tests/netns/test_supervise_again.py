# SPDX-License-Identifier: LGPL-2.1-or-later
"""Under sockbroker-run --supervise: binds and listens that are repeated, of sockets that were shut down, of processes
and threads that end meanwhile."""

import os
import pathlib
import signal

import pytest

from harness import sandbox, supervised
from test_supervise import ask, everything
from words import add_routes


@pytest.fixture(name="web")
def _web(broker):
    add_routes()
    broker.policy(everything("web")).start()
    sandbox.install()
    return broker


def test_a_udp_bind_that_was_refused_is_judged_again_when_it_is_repeated(broker):
    add_routes()
    broker.policy(everything("web", "Handover=share", "MaxSockets=1", ports=5353)).start()
    sandbox.install()
    with supervised.Program() as second:
        second.do("t = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)")
        with supervised.Program() as first:
            first.do("s = sock('udp', '0.0.0.0', 5353)")
            for _ in range(3):
                assert second.do("t.bind(('0.0.0.0', 5353))") == "ENOBUFS"
            assert [entry["pid"] for entry in broker.list()] == [first.process.pid]
        supervised.until(lambda: second.do("t.bind(('0.0.0.0', 5353))") is None)
        assert [entry["pid"] for entry in broker.list()] == [second.process.pid]


def test_a_listener_that_was_shut_down_and_listens_again_serves_again(web):
    with supervised.Program() as program:
        program.do("s = sock('tcp', '0.0.0.0', 80)")
        program.do("s.shutdown(socket.SHUT_RD)")
        web.wait_log("gone: tcp socket")
        program.do("s.listen(64); serve(s)")
        assert ask("192.0.2.1", 80) == f"served {program.process.pid}"


def test_a_child_that_dies_while_it_binds_changes_nothing_for_the_others(web):
    with supervised.Program() as program:
        web.process.send_signal(signal.SIGSTOP)
        program.do("child = os.fork()\nif child == 0:\n    sock('tcp', '0.0.0.0', 80)\n    os._exit(0)")
        child = program.do("child")
        supervisor = pathlib.Path(f"/proc/{program.supervisor()}/syscall")
        # it waits for the broker
        supervised.until(lambda: supervisor.read_text().split()[0] in ("7", "271", "47", "45"))
        os.kill(child, signal.SIGKILL)
        program.do("os.waitpid(child, 0)")
        web.process.send_signal(signal.SIGCONT)
        program.do("s = sock('tcp', '0.0.0.0', 80)")
        assert [entry["pid"] for entry in web.list()] == [program.process.pid]


def has_pidfd_of_threads():
    try:
        os.close(os.pidfd_open(os.getpid(), os.O_EXCL))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_pidfd_of_threads(), reason="PIDFD_THREAD is not there before 6.9")
def test_a_thread_binds_after_the_first_one_has_ended(web):  # pylint: disable=unused-argument
    code = ("import ctypes, os, pathlib, socket, threading\n"
            "def run():\n"
            "    while ' Z ' not in pathlib.Path(f'/proc/self/task/{os.getpid()}/stat').read_text(): pass\n"
            "    socket.socket().bind(('127.0.0.1', 8081)); print('bound', flush=True); os._exit(0)\n"
            "threading.Thread(target=run).start()\n"
            "ctypes.CDLL(None).syscall(60, 0)\n")
    status, out, errors = sandbox.run("--supervise", "/usr/bin/python3", "-c", code, ambient="")
    assert (status, out) == (0, "bound\n"), errors
