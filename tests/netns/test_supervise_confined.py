# SPDX-License-Identifier: LGPL-2.1-or-later
"""What confines the supervisor and its program, what a unit may have that does not let it be, and ways round it that a
program may be given."""

import ctypes
import os
import pathlib
import socket
import struct
import subprocess

import pytest

from harness import sandbox, supervised
from supervising import UID, everything
from test_supervise_spares import Passed
from words import add_routes


@pytest.fixture(name="web")
def _web(broker):
    add_routes()
    broker.policy(everything("web", ports=80)).start()
    sandbox.install()
    return broker


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
