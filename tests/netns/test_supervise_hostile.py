# SPDX-License-Identifier: LGPL-2.1-or-later
"""Programs that mean harm to their supervisor, and machines that do not let it be."""

import contextlib
import ctypes
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import time

import pytest

from harness import broker as broker_module
from harness import namespace, sandbox, supervised
from supervising import UID, ask, everything
from test_supervise_spares import Passed
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
    import select  # pylint: disable=import-outside-toplevel
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


def test_the_supervisor_is_confined(web):  # pylint: disable=unused-argument
    with supervised.Program() as program:
        program.do("s = sock('tcp', '0.0.0.0', 80)")
        pid = program.supervisor()
        proc = pathlib.Path(f"/proc/{pid}")
        status = dict(line.split(":\t", 1) for line in (proc / "status").read_text().splitlines() if ":\t" in line)
        assert (status["Seccomp"], status["NoNewPrivs"], int(status["CapEff"], 16)) == ("2", "1", 0)
        assert status["Uid"].split() == [str(UID)] * 4
        assert (proc / "fd").stat().st_uid == 0  # not dumpable
        assert program.do(f"open('/proc/{pid}/mem')") in ("EACCES", "EPERM")
        links = sorted(os.readlink(proc / "fd" / fd) for fd in os.listdir(proc / "fd"))
        assert links[:2] == ["/dev/null", "/dev/null"] and links[-1].startswith("pipe:"), links
        assert [link for link in links[2:-1] if "pidfd" not in link] == ["anon_inode:seccomp notify"], links
        assert os.readlink(proc / "cwd") == "/"


# What a unit may have that does not let it be. The outer launcher's profile is the unit's filter.

def outer(profile, *words):
    path = pathlib.Path("/run/outer.profile")
    path.write_text(f"default: log\n{profile}\n")
    status, output, said = sandbox.run("--no-register", f"--profile={path}", "/run/bin/sockbroker-run", "--supervise",
                                       *words, "/bin/echo", "started", ambient="")
    assert "started" not in output
    return status, said


@pytest.mark.parametrize("profile",
                         ["errno EPERM pidfd_getfd", "kill pidfd_getfd", "errno EPERM seccomp", "kill seccomp"])
def test_a_unit_whose_filter_lacks_a_call_is_told_the_line(web, profile):  # pylint: disable=unused-argument
    status, said = outer(profile)
    assert status == 71 and "SystemCallFilter=seccomp pidfd_getfd" in said, (status, said)


def test_without_landlock_it_works(web):  # pylint: disable=unused-argument
    path = pathlib.Path("/run/outer.profile")
    path.write_text("default: log\nkill landlock_create_ruleset landlock_restrict_self\n")
    assert sandbox.run("--no-register", f"--profile={path}", "/run/bin/sockbroker-run", "--supervise", "/bin/echo",
                       "started", ambient="")[1] == "started\n"


def test_a_unit_without_unix_sockets_is_told_the_line(web):  # pylint: disable=unused-argument
    status, said = outer("allow socket arg0 in {AF_INET, AF_INET6}")
    assert status == 69 and "RestrictAddressFamilies=AF_UNIX" in said, (status, said)


def test_a_unit_without_namespaces_is_told_the_line(web):  # pylint: disable=unused-argument
    status, said = outer("errno EPERM unshare", "--user-namespace=yes")
    assert status == 71 and "RestrictNamespaces=user" in said, (status, said)


def test_a_second_supervisor_of_calls_is_told(web):  # pylint: disable=unused-argument
    path = pathlib.Path("/run/outer.profile")
    path.write_text("default: log\nallow read\n")
    status, output, said = sandbox.run("--supervise", f"--profile={path}", "/run/bin/sockbroker-run", "--supervise",
                                       "/bin/echo", "started", ambient="")
    assert (status, output) == (71, "") and "only one can be" in said, (status, said)


def test_the_program_itself_cannot_bind_though_the_supervisor_is_not_asked(web):  # pylint: disable=unused-argument
    """Landlock is the second wall (6.7): what the kernel's own list says of the program."""
    with supervised.Program() as program:
        assert program.do("s = sock('tcp', '127.0.0.1', 8080, listen=False); s.getsockname()[1]") is None
        assert program.do("libc.syscall(425, 8, 0)") == -1  # io_uring_setup
        assert program.do("ctypes.get_errno() in (errno.ENOSYS, errno.EPERM)") is True
    with socket.socket() as free:
        free.bind(("127.0.0.1", 8080))


# A ring of io_uring(7) that the program has from outside, and what a request to bind a UDP socket heard.
RING = r"""
import mmap
params = names["params"]
ring = mmap.mmap(names["ring"], 4096, mmap.MAP_SHARED)
entries = mmap.mmap(names["ring"], 4096, mmap.MAP_SHARED, offset=0x10000000)  # IORING_OFF_SQES
def asked():
    tail, array, completions = params[11], params[16], params[25]
    address = struct.pack("!2xH4x8x", 8081)
    address = b"\2\0" + address[2:]
    buffer = ctypes.create_string_buffer(address)
    # IORING_OP_BIND, flags, ioprio, descriptor, length of the address, address
    entries[:64] = struct.pack("BBHiQQ40x", 56, 0, 0, s.fileno(), 16, ctypes.addressof(buffer))
    ring[array:array + 4] = struct.pack("I", 0)
    ring[tail:tail + 4] = struct.pack("I", struct.unpack("I", ring[tail:tail + 4])[0] + 1)
    if libc.syscall(426, names["ring"], 1, 1, 1, 0, 0) < 0:
        return errno.errorcode[ctypes.get_errno()]
    return struct.unpack("Qi", ring[completions:completions + 12])[1]
s = socket.socket(type=socket.SOCK_DGRAM)
"""


def test_a_ring_of_io_uring_that_the_program_has_inherited_binds_nothing(web):  # pylint: disable=unused-argument
    """IORING_OP_BIND (6.11) passes no filter, nor for UDP Landlock; a profile of one's own may allow io_uring."""
    params = ctypes.create_string_buffer(120)
    ring = ctypes.CDLL(None, use_errno=True).syscall(425, 8, params)
    if ring < 0:
        pytest.skip("this kernel has no io_uring")
    path = pathlib.Path("/run/all.profile")
    path.write_text("default: log\nallow io_uring_enter\n")
    with open(ring, "rb", buffering=0) as file, Passed([("ring", file)], f"--profile={path}") as program:
        program.do(f"names.update(ring=3, params={struct.unpack('30I', params)!r})")
        assert program.do(RING) is None
        heard = program.do("asked()")
        assert program.do("s.getsockname()") == ("0.0.0.0", 0)
        assert heard == "ENOSYS"


def test_an_mptcp_socket_that_the_program_was_given_is_no_way_round_the_policy(web):
    """It can make none itself. Nor is one of any service's, for dispatch takes none."""
    try:
        given = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
    except OSError:
        pytest.skip("this kernel has no MPTCP")
    with given, Passed([("given@", given)]) as program:
        assert program.do("s = socket.socket(fileno=3)") is None, program.errors()
        for port in 80, 8888:
            assert program.do(f"s.bind(('0.0.0.0', {port}))") == "EACCES"
        program.wait_error("no socket of protocol 262")
        assert program.do("s.bind(('127.0.0.1', 8888))") is None
    assert web.list() == []


def test_a_landlock_domain_of_the_programs_own_does_not_hold_for_its_unix_sockets(web):
    # pylint: disable=unused-argument
    """They are made by the supervisor, which is not in it: where the user may, and nowhere else."""
    folder = pathlib.Path("/run/own")
    folder.mkdir()
    os.chown(folder, UID, UID)
    with supervised.Program(cwd=folder) as program:
        program.do("""
rules = libc.syscall(444, struct.pack("Q", 1 << 8 | 1 << 9), 8, 0)  # landlock_create_ruleset(2): MAKE_REG, MAKE_SOCK
assert rules >= 0 and libc.syscall(446, rules, 0) == 0, ctypes.get_errno()""")
        assert program.do("open('file', 'w')") == "EACCES"
        assert program.do("socket.socket(socket.AF_UNIX).bind('socket')") is None
        assert (folder / "socket").stat().st_uid == UID
        assert program.do("socket.socket(socket.AF_UNIX).bind('/run/socket')") == "EACCES"


# Whether a process may look into its child, of the same uid: read its memory, and take a descriptor. In a domain of its
# own, or in one that the child has inherited; the domain restricts next to nothing.
LOOKS = r"""
import ctypes, errno, os, signal, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def restrict():
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    rules = libc.syscall(444, struct.pack("Q", 1 << 6), 8, 0)  # landlock_create_ruleset(2): MAKE_CHAR
    if rules < 0:
        sys.exit(print("no Landlock"))
    assert libc.syscall(446, rules, 0) == 0, ctypes.get_errno()
def named(result):
    return "ok" if result >= 0 else errno.errorcode[ctypes.get_errno()]
domain, namespace = sys.argv[1:]
if domain == "shared":
    restrict()
read, write = os.pipe()
child = os.fork()
if child == 0:
    libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
    if namespace == "user":
        assert libc.unshare(0x10000000) == 0, ctypes.get_errno()  # CLONE_NEWUSER
    os.write(write, b"x")
    signal.pause()
os.read(read, 1)
if domain == "own":
    restrict()
memory = ctypes.create_string_buffer(8)
vector = struct.pack("QQ", ctypes.addressof(memory), 8)
print(named(libc.process_vm_readv(child, vector, 1, vector, 1, 0)),
      named(libc.syscall(438, os.pidfd_open(child), 0, 0)))  # pidfd_getfd
"""


@pytest.mark.parametrize("namespace", ["same", "user"])
@pytest.mark.parametrize("domain, wanted", [("none", "ok ok"), ("own", "EPERM EPERM"), ("shared", "ok ok")])
def test_with_a_landlock_domain_of_its_own_a_supervisor_could_not_work(domain, wanted, namespace):
    """Why it has none, see docs/unmodified.md: the program would have to be in it too, and be restricted by it."""
    done = subprocess.run(["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "/usr/bin/python3", "-c",
                           LOOKS, domain, namespace], capture_output=True, text=True, timeout=30, check=False)
    if done.stdout == "no Landlock\n":
        pytest.skip("this kernel has no Landlock")
    assert (done.stdout, done.returncode) == (wanted + "\n", 0), done.stderr
