# SPDX-License-Identifier: LGPL-2.1-or-later
"""Programs that mean harm to their supervisor."""

import contextlib
import os
import pathlib
import re
import select
import signal
import socket
import time

import pytest

from harness import broker as broker_module
from harness import namespace, sandbox, supervised
from supervising import UID, ask, everything
from words import add_routes

OTHER = 61002
ATTACK = broker_module.BUILD / "tests/netns/bind_attack"


@pytest.fixture(name="web")
def _web(broker):
    add_routes()
    broker.policy(everything("web", ports=80) + everything("attack", "MaxSockets=8", ports=8080)
                  + everything("other", ports=8443).replace(str(UID), str(OTHER))).start()
    sandbox.install(ATTACK)
    return broker


def attack(mode, times):
    status, output, said = sandbox.run("--supervise", "/run/bin/bind_attack", mode, str(times), ambient="")
    assert status == 0, (status, output, said[-2000:])
    return {name: int(number) for name, number in re.findall(r"(\w+) (\d+)", output)}


@pytest.mark.parametrize("uid, heard, gets", [(UID, None, "taken"), (OTHER, "EADDRINUSE", None)],
                         ids=["of the same user", "of another"])
def test_a_listener_that_closes_leaves_what_waits_in_it_to_its_own_user_at_most(broker, uid, heard, gets):
    """As docs/sandbox.md says of the same user: the kernel lets it join, whomever policy admits. Here policy tells the
    two by Group=, as it does by units."""
    add_routes()
    broker.policy(everything("web", f"Group={UID}", ports=80) + everything("attack", "Group=61003", ports=81)).start()
    sandbox.install()
    with supervised.Program() as program, supervised.Program(uid=uid, gid=61003) as attacker:
        program.do("s = sock('tcp', '0.0.0.0', 80)")
        at = program.do("s.getsockname()")
        assert attacker.do("sock('tcp', '0.0.0.0', 80)") == "EACCES"
        reuse = "early=lambda s: s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)"
        assert attacker.do(f"s = sock('tcp', {at[0]!r}, {at[1]}, {reuse}); serve(s, 'taken')") == heard
        waiting = [socket.create_connection(("192.0.2.1", 80), 20) for _ in range(5)]
        program.do("s.close()")
        for connection in waiting:
            with contextlib.suppress(ConnectionResetError), connection:
                assert connection.makefile().readline().split()[:1] == ([gets] if gets else [])
        with pytest.raises(ConnectionRefusedError):
            ask("192.0.2.1", 80)


@pytest.mark.parametrize("mode, times", [("race", 3000), ("swap", 100), ("v6only", 500)])
def test_what_is_rewritten_in_flight_is_bound_nowhere_else(web, mode, times):  # pylint: disable=unused-argument
    counts = attack(mode, times)
    assert counts["escaped"] == 0 and counts["lost"] == 0 and counts["bound"] > 0 and counts["refused"] > 0, counts


def test_a_bind_to_port_0_gets_no_port_of_the_programs_choice(web):  # pylint: disable=unused-argument
    """With IP_LOCAL_PORT_RANGE (6.3) it would get the one port that its range has, at any address. What remains are
    the ports of net.ipv4.ip_local_port_range that net.ipv4.ip_local_reserved_ports does not have."""
    namespace.sysctl("net/ipv4/ip_local_port_range", "40000 40003")
    namespace.sysctl("net/ipv4/ip_local_reserved_ports", "40001")
    with supervised.Program() as program:
        assert program.do("sock('tcp', '0.0.0.0', 40002)") == "EACCES"
        program.do("s = socket.socket()")
        assert program.do("s.setsockopt(0, 51, struct.pack('=I', 40002 << 16 | 40002))") == "EPERM"
        for kind in ("STREAM", "DGRAM"):
            program.do("all = []")
            program.do(f"""
try:
    while True:
        all.append(socket.socket(socket.AF_INET, socket.SOCK_{kind}))
        all[-1].bind(('192.0.2.7', 0))
except OSError as error:
    assert error.errno == errno.EADDRINUSE""")
            assert program.do("sorted(s.getsockname()[1] for s in all[:-1])") == [40000, 40002, 40003]


FREEBIND = "s.getsockopt(socket.IPPROTO_IPV6, 78)"


def test_a_socket_keeps_no_option_of_its_supervisors_by_which_it_takes_anybodys_address(broker):
    """IPV6_FREEBIND, which no profile permits: of UDP it has it when it is bound, for its answers, and not before."""
    add_routes()
    broker.policy(everything("dns", ports=53) + everything("web", ports=8080)).start()
    sandbox.install()
    with supervised.Program() as program:
        for at in "::", "2001:db8::7":
            program.do("s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)")
            assert program.do(f"s.bind(({at!r}, 53))") == "EACCES", "UDP keeps its port, and no user may have this one"
            assert program.do(FREEBIND) == 0
            assert program.do("s.bind(('2001:db8:1::1', 0))") == "EADDRNOTAVAIL"
            program.do(f"s = sock('tcp', {at!r}, 53); serve(s)")
            assert program.do(FREEBIND) == 0
            assert ask("2001:db8::7", 53) == f"served {program.process.pid}"
            program.do(f"s.close(); s = sock('udp', {at!r}, 8080)")
            assert program.do(FREEBIND) == 1
            program.do("s.close()")


def test_a_signal_every_50_microseconds_makes_no_bind_fail(web):  # pylint: disable=unused-argument
    assert attack("signals", 2000) == {"bound": 2000, "refused": 0, "escaped": 0, "lost": 0}


def test_without_sa_restart_such_a_signal_may_end_a_bind_and_does_nothing_else(web):  # pylint: disable=unused-argument
    counts = attack("hard", 1000)
    assert counts["bound"] + counts["lost"] == 1000 and counts["bound"] > 500, counts


def test_a_storm_costs_the_supervisor_nothing_that_stays(web):
    with supervised.Program() as program:
        program.do("s = sock('tcp', '0.0.0.0', 80); serve(s)")
        pid = program.supervisor()
        before = resident(pid)
        program.do("p = subprocess.run(['/run/bin/bind_attack', 'storm', '300'], capture_output=True, text=True)")
        assert program.do("p.stdout") == "bound 8 refused 0 escaped 0 lost 0\n"
        assert resident(pid) < before + 4096, "KiB"
        supervised.until(lambda: len(os.listdir(f"/proc/{pid}/fd")) <= 4 + 64)
        assert ask("192.0.2.1", 80) == f"served {program.process.pid}"
    assert len(program.errors_at_end().splitlines()) < 200
    assert web.process.poll() is None


def test_while_one_storms_others_are_served_and_nothing_is_left_of_it(web):
    with supervised.Program() as storm, supervised.Program(uid=OTHER) as program:
        ended = os.pidfd_open(storm.supervisor())
        storm.do("p = subprocess.Popen(['/run/bin/bind_attack', 'storm', '100000000'], start_new_session=True)")
        web.wait_log("register: .* attack")
        took = []
        for _ in range(20):
            begun = time.monotonic()
            program.do("s = sock('tcp', '0.0.0.0', 8443); serve(s)")
            assert ask("192.0.2.1", 8443) == f"served {program.process.pid}"
            took.append(time.monotonic() - begun)
        assert storm.do("p.poll()") is None
        assert max(took) < 20, took
        storm.do("os.killpg(p.pid, signal.SIGKILL)")
        storm.process.kill()
        storm.process.wait()
        assert ends(ended)
        supervised.until(lambda: {entry["service"] for entry in web.list()} == {"other"})


def resident(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1])


def test_a_supervisor_that_is_killed_leaves_the_program_serving_and_its_door_closed(web):
    # pylint: disable=unused-argument
    with supervised.Program() as program:
        program.do("s = sock('tcp', '0.0.0.0', 80); serve(s)")
        os.kill(program.supervisor(), signal.SIGKILL)
        supervised.until(lambda: program.do("sock('tcp', '0.0.0.0', 8080)") == "ENOSYS")
        assert program.do("sock('tcp', '127.0.0.1', 8080)") == "ENOSYS"
        assert ask("192.0.2.1", 80) == f"served {program.process.pid}"


def test_a_supervisor_that_may_have_no_descriptors_ends_and_does_not_spin(web):  # pylint: disable=unused-argument
    """prlimit(2) of another process wants the same user, and poll(2) refuses more entries than the limit."""
    with supervised.Program() as program:
        program.do("s = sock('tcp', '0.0.0.0', 80); serve(s)")
        pid = program.supervisor()
        ended = os.pidfd_open(pid)
        program.do(f"import resource; resource.prlimit({pid}, resource.RLIMIT_NOFILE, (1, 1))")
        assert program.do("sock('tcp', '0.0.0.0', 8080)") in ("EAGAIN", "ENOSYS")
        assert ends(ended)
        program.wait_error("the supervisor ends")
        assert program.do("sock('tcp', '127.0.0.1', 8080)") == "ENOSYS"
        assert ask("192.0.2.1", 80) == f"served {program.process.pid}"


def test_a_supervisor_that_is_stopped_keeps_nobody_from_killing_the_program(web):  # pylint: disable=unused-argument
    with supervised.Program() as program:
        pid = program.supervisor()
        ended = os.pidfd_open(pid)
        os.kill(pid, signal.SIGSTOP)
        program.say(b"sock('tcp', '0.0.0.0', 80)".hex() + "\n")
        supervised.until(lambda: pathlib.Path(f"/proc/{program.process.pid}/wchan").read_text() not in ("", "0")
                         or program.status()["State"][0] in "SD")
        program.process.kill()
        assert program.process.wait(20) == -signal.SIGKILL
        os.kill(pid, signal.SIGCONT)
        assert ends(ended)


def ends(pidfd):
    return select.select([pidfd], [], [], sandbox.TIMEOUT)[0] == [pidfd]


def test_the_supervisor_ends_with_the_last_process_and_not_before(web):  # pylint: disable=unused-argument
    with supervised.Program() as program:
        pid = program.supervisor()
        ended = os.pidfd_open(pid)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM,
                       signal.SIGIO, signal.SIGPWR, signal.SIGPROF, signal.SIGXCPU, signal.SIGRTMIN + 1):
            os.kill(pid, number)
        program.do("""
read, write = os.pipe()
child = os.fork()
if child == 0:
    os.close(write)
    os.read(read, 1)
    s = sock('tcp', '0.0.0.0', 80)
    serve(s)
    signal.pause()
os.close(read)""")
        child = program.do("child")
        program.process.kill()
        program.process.wait()
        # The pipe's end has told the child, which binds when its parent is gone.
        supervised.until(lambda: listens(child))
        assert ask("192.0.2.1", 80) == f"served {child}"
        os.kill(child, signal.SIGKILL)
        assert ends(ended)


def listens(pid):
    del pid
    try:
        ask("192.0.2.1", 80)
    except ConnectionRefusedError:
        return False
    return True
