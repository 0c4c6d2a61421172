# SPDX-License-Identifier: LGPL-2.1-or-later
"""Under sockbroker-run --supervise: binds and listens that are repeated, of sockets that were shut down, of processes
and threads that end meanwhile."""

import os
import pathlib
import select
import signal
import subprocess

import pytest

from harness import sandbox, supervised
from supervising import UID, ask, everything
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


@pytest.mark.parametrize("at", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_a_udp_socket_that_has_lost_its_port_gets_another_by_the_same_bind(web, at):
    # pylint: disable=unused-argument
    """One of the kernel's choice is lost when the socket is connected and dissolved."""
    with supervised.Program() as program:
        program.do(f"s = sock('udp', {at!r}, 0); s.connect(({'::1' if ':' in at else '127.0.0.1'!r}, 9))")
        program.do("libc.connect(s.fileno(), bytes(16), 16)")
        assert program.do("s.getsockname()[1]") == 0
        assert program.do(f"s.bind(({at!r}, 0))") is None
        assert program.do("s.getsockname()[1] != 0") is True
        before = program.do("s.getsockname()")
        assert program.do(f"s.bind(({at!r}, 0))") is None, "as it is repeated after a signal"
        assert program.do("s.getsockname()") == before


def test_a_listener_that_was_shut_down_and_listens_again_serves_again(web):
    with supervised.Program() as program:
        program.do("s = sock('tcp', '0.0.0.0', 80)")
        program.do("s.shutdown(socket.SHUT_RD)")
        web.wait_log("gone: tcp socket")
        program.do("s.listen(64); serve(s)")
        assert ask("192.0.2.1", 80) == f"served {program.process.pid}"


@pytest.mark.parametrize("protocol, port", [("tcp", 80), ("udp", 5353)])
def test_a_socket_that_a_reload_took_away_comes_back_by_hand_or_when_it_is_bound_anew(broker, protocol, port):
    """Nobody tells the supervisor what policy says meanwhile, as nobody tells a program that registers by itself."""
    add_routes()
    granted = everything("web", ports=port)
    broker.policy(granted).start()
    sandbox.install()
    with supervised.Program() as program:
        program.do(f"s = sock({protocol!r}, '0.0.0.0', {port})")
        [before] = broker.list()
        broker.policy(everything("other", ports=port).replace(str(UID), "61002")).reload()
        assert broker.list() == []
        broker.policy(granted).reload()
        assert broker.list() == []
        status, said = broker.ctl("register", f"--pid={program.process.pid}", "web", f"{protocol}:{before['bound']}")
        assert status == 0, said
        [after] = broker.list()
        assert {key: after[key] for key in after if key != "since"} == {
            key: before[key] for key in before if key != "since"}
        program.do(f"s.close(); s = sock({protocol!r}, '0.0.0.0', {port})")
        [anew] = broker.list()
        assert anew["cookie"] != after["cookie"] and anew["state"] == "live"


def test_a_repeated_listen_says_what_policy_says_now_and_takes_back_what_it_gives_back(web):
    with supervised.Program() as program:
        program.do("s = sock('tcp', '0.0.0.0', 80); serve(s)")
        [before] = web.list()
        assert program.do("s.listen(5)") is None
        assert web.list() == [before], "it is the same registration"
        web.policy(everything("other", ports=81)).reload()
        assert program.do("s.listen(5)") == "EACCES"
        program.wait_error("unknown-service")
        assert web.list() == []
        web.policy(everything("web")).reload()
        assert program.do("s.listen(5)") is None
        [after] = web.list()
        assert (after["cookie"], after["pid"], after["state"]) == (before["cookie"], program.process.pid, "live")
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


def test_a_broker_that_hangs_is_waited_for_once_and_then_left_alone_for_a_second(web):
    with supervised.Program() as program:
        program.do("""
import time
def took(call):
    begun = time.monotonic()
    try:
        call()
        heard = None
    except OSError as error:
        heard = errno.errorcode[error.errno]
    return heard, time.monotonic() - begun
dual = lambda: names.update(dual=took(lambda: sock('tcp', '::', 80, 0)))
first = threading.Thread(target=dual)""")
        supervisor = pathlib.Path(f"/proc/{program.supervisor()}/syscall")
        web.process.send_signal(signal.SIGSTOP)
        program.do("first.start()")
        supervised.until(lambda: supervisor.read_text().split()[0] in ("7", "271", "47", "45"))
        program.do("near = took(lambda: sock('tcp', '127.0.0.1', 0)); first.join(); "
                   "again = took(lambda: sock('udp', '0.0.0.0', 80))")
        for name, wanted, least, most in (("names['dual']", "EAGAIN", 4, 9),  # once, for both families
                                          ("near", None, 0, 9),  # which waits behind it
                                          ("again", "EAGAIN", 0, 1)):
            heard, seconds = program.do(name)
            assert heard == wanted and least <= seconds < most, (name, heard, seconds)
        web.process.send_signal(signal.SIGCONT)
        supervised.until(lambda: program.do("names.update(s=sock('tcp', '0.0.0.0', 80))") is None)


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


# Before 6.11 a process that nobody has waited for keeps the filter, and with it the supervisor.

def test_who_reads_all_that_it_says_before_he_waits_does_not_wait_for_ever(web):  # pylint: disable=unused-argument
    """As $(program 2>&1) does in a shell: the supervisor has the program's standard error."""
    with subprocess.Popen(sandbox.command("--supervise", "/bin/echo", "said", ambient=""), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert select.select([process.stdout], [], [], sandbox.TIMEOUT)[0]
        said = b""
        while select.select([process.stdout], [], [], sandbox.TIMEOUT)[0] and (more := process.stdout.read1()):
            said += more
        assert said == b"said\n"
        process.kill()  # so that a supervisor that waits for this ends too
        process.wait()


def test_while_anything_of_it_lives_the_supervisor_does_though_nobody_waits_for_the_first(web):
    with supervised.Program() as program:
        program.do("""
read, write = os.pipe()
child = os.fork()
if child == 0:
    os.read(read, 1)
    s = sock('tcp', '0.0.0.0', 80)
    serve(s)
    signal.pause()""")
        child = program.do("child")
        supervisor = program.supervisor()
        ended = os.pidfd_open(supervisor)
        write = os.open(f"/proc/{program.process.pid}/fd/{program.do('write')}", os.O_WRONLY)
        program.process.kill()
        looked = sleeps(supervisor)
        supervised.until(lambda: sleeps(supervisor) >= looked + 2)  # it has looked who lives
        os.write(write, b"x")
        supervised.until(lambda: [entry["pid"] for entry in web.list()] == [child])
        assert ask("192.0.2.1", 80) == f"served {child}"
        os.kill(child, signal.SIGKILL)
        assert select.select([ended], [], [], sandbox.TIMEOUT)[0], "and no longer"
        os.close(write)


def sleeps(pid):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("\nvoluntary_ctxt_switches:\t")[2].split()[0])
