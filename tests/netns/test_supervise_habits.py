# SPDX-License-Identifier: LGPL-2.1-or-later
"""Under sockbroker-run --supervise: what some programs do and most do not."""

import os
import pathlib
import signal
import socket
import struct
import subprocess

import pytest

from harness import broker as broker_module
from harness import namespace, sandbox, supervised
from supervising import UID, ask, everything
from test_supervise_again import has_pidfd_of_threads
from words import add_routes

THREAD = broker_module.BUILD / "tests/netns/supervised_thread"


@pytest.fixture(name="web")
def _web(broker):
    add_routes()
    broker.policy(everything("web") + everything("high", ports=8080)).start()
    sandbox.install(THREAD)
    return broker


# A worker that calls listen(2) on its parent's listener, as asyncio does with a socket that it is given.

LISTEN_IN_A_CHILD = """
child = os.fork()
if child == 0:
    try:
        s.listen(64)
    except OSError as error:
        os._exit(error.errno)
    os._exit(0)
names["heard"] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])"""


def test_a_worker_that_listens_again_while_the_broker_is_away_ends_nothing(web):
    with supervised.Program() as program:
        program.do("s = sock('tcp', '0.0.0.0', 80); serve(s)")
        web.stop()
        program.do(LISTEN_IN_A_CHILD)
        assert program.do("names['heard']") == 0
        assert ask("192.0.2.1", 80) == f"served {program.process.pid}"


def test_a_worker_that_may_not_listen_again_ends_nothing(web):
    with supervised.Program() as program:
        program.do("s = sock('tcp', '0.0.0.0', 80); serve(s)")
        web.policy(everything("other")).reload()
        program.do(LISTEN_IN_A_CHILD)
        assert program.do("errno.errorcode[names['heard']]") == "EACCES"
        assert program.do("s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)") == 1


# An older listener, displaced in all that it serves or in one family of two.
older = pytest.mark.parametrize("at, v6only", [("0.0.0.0", None), ("::", 0)], ids=["displaced", "in one family"])


@older
def test_a_worker_of_the_instance_before_that_listens_again_takes_nothing_back(web, at, v6only):
    with supervised.Program() as old, supervised.Program() as new:
        old.do(f"s = sock('tcp', {at!r}, 80, {v6only}); serve(s)")
        new.do("s = sock('tcp', '0.0.0.0', 80); serve(s)")
        before = {entry["cookie"]: entry["state"] for entry in web.list()}
        for _ in range(2):
            old.do(LISTEN_IN_A_CHILD)
            assert old.do("names['heard']") == 0
            assert ask("192.0.2.1", 80) == f"served {new.process.pid}"
            if at == "::":
                assert ask("2001:db8::1", 80) == f"served {old.process.pid}"
        assert {entry["cookie"]: entry["state"] for entry in web.list()} == before


# A socket for each family, as most servers open them.

def test_who_binds_both_families_is_not_warned_and_who_binds_one_is_once(web):
    with supervised.Program() as both, supervised.Program() as half:
        both.do("four = sock('tcp', '0.0.0.0', 80); six = sock('tcp', '::', 80, 1)")
        half.do("s = sock('tcp', '0.0.0.0', 8080)")
        web.wait_log(f"warn: high was registered by .*pid {half.process.pid}.* serves IPv4 only")
        assert web.log().count("warn: ") == 1, "of web it would have come before"
        assert both.errors() == half.errors() == ""


def test_in_a_pid_namespace_of_its_own_it_is_warned_at_once(web):
    """The broker does not know the program, so the supervisor registers as itself."""
    with supervised.Program(before=["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]) as program:
        program.do("four = sock('tcp', '0.0.0.0', 80); six = sock('tcp', '::', 80, 1)")
        _, warning = program.errors().splitlines()
        assert warning.startswith("sockbroker-run: web: warning: ") and "serves IPv4 only" in warning


# A helper that has a listener which its parent's program has replaced, and never accepts from it.

@older
@pytest.mark.parametrize("same_program", [True, False])
def test_a_displaced_listener_that_somebody_still_has_is_not_put_in_front_again(web, same_program, at, v6only):
    with supervised.Program() as old, supervised.Program() as new:
        old.do(f"""
s = sock('tcp', {at!r}, 80, {v6only}, listen=False)
read, write = os.pipe()
child = os.fork()
if child == 0:
    s.listen(64)
    os.write(write, b'x')
    signal.pause()
os.read(read, 1)""")
        [displaced] = [entry["cookie"] for entry in web.list()]
        newest = old if same_program else new
        newest.do("t = sock('tcp', '0.0.0.0', 80); serve(t)")
        before = {entry["cookie"]: entry["state"] for entry in web.list()}
        child = old.do("child")
        os.kill(child, signal.SIGKILL)
        old.do("os.waitpid(child, 0)")
        supervised.until(lambda: {entry["cookie"]: entry["pid"] for entry in web.list()}[displaced] == old.process.pid)
        assert {entry["cookie"]: entry["state"] for entry in web.list()} == before
        assert ask("192.0.2.1", 80) == f"served {newest.process.pid}"
        if at == "::":
            old.do("serve(s, 'old')")
            assert ask("2001:db8::1", 80).startswith("old ")


# A program of the server's own that chooses within its SO_REUSEPORT group. The profiles permit none, a drop-in may.

MAY_CHOOSE = "include default\nallow setsockopt arg1 == SOL_SOCKET and arg2 == 51  # SO_ATTACH_REUSEPORT_CBPF\n"

def test_with_reuse_port_the_programs_own_choice_within_its_group_stays(broker):
    add_routes()
    broker.policy(everything("web", "ReusePort=yes")).start()
    sandbox.install()
    profile = pathlib.Path("/run/may-choose.profile")
    profile.write_text(MAY_CHOOSE)
    with supervised.Program(f"--profile={profile}") as program:
        program.do("first = sock('tcp', '0.0.0.0', 80); serve(first, 'first')")
        assert program.do("""
code = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0))  # BPF_RET | BPF_K: always the first
first.setsockopt(socket.SOL_SOCKET, 51, struct.pack("@HP", 1, ctypes.addressof(code)))""") is None
        program.do("s = sock('tcp', '0.0.0.0', 80); serve(s, 'second')")
        for _ in range(2):
            assert {ask("192.0.2.1", 80) for _ in range(30)} == {f"first {program.process.pid}"}
            program.do(LISTEN_IN_A_CHILD)


# Erlang (RabbitMQ, ejabberd), which gives what it accepts the options of the listener, each by its own call.

@pytest.mark.parametrize("family, address", [("socket.AF_INET", "192.0.2.1"), ("socket.AF_INET6", "2001:db8::1")])
def test_what_is_accepted_gets_the_priority_and_class_of_its_listener(web, family, address):
    # pylint: disable=unused-argument
    with supervised.Program() as program:
        program.do(f"s = sock('tcp', '::' if {family} == socket.AF_INET6 else '0.0.0.0', 80)")
        with socket.create_connection((address, 80)):
            program.do("c = s.accept()[0]")
            for level, name in (("IPPROTO_IP", "IP_TOS"), ("SOL_SOCKET", "SO_PRIORITY")):
                option = f"socket.{level}, socket.{name}"
                assert program.do(f"c.setsockopt({option}, s.getsockopt({option}))") is None
            assert program.do("c.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, 7)") == "EPERM"  # the kernel's


# What others see of the program.

def test_peers_of_a_unix_socket_see_the_programs_user(web):  # pylint: disable=unused-argument
    """And the pid of the supervisor, which calls listen(2): left to the kernel, a thread could swap the socket."""
    folder = pathlib.Path("/run/own")
    folder.mkdir()
    os.chown(folder, UID, UID)
    with supervised.Program(cwd=folder) as program, socket.socket(socket.AF_UNIX) as client:
        program.do("u = socket.socket(socket.AF_UNIX); u.bind('a.sock'); u.listen(1)")
        client.connect("/run/own/a.sock")
        pid, uid, gid = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        assert (pid, uid, gid) == (program.supervisor(), UID, UID)


@pytest.mark.parametrize("family, address, size", [("AF_INET", b"\2\0\0\x50" + bytes(4), 16),
                                                   ("AF_INET", b"\0\0\0\x50" + bytes(4), 16),
                                                   ("AF_INET6", b"\x0a\0\0\x50" + bytes(20), 28)])
def test_a_name_that_was_asked_for_is_told_as_the_kernel_tells_names(web, family, address, size):
    # pylint: disable=unused-argument
    """Many programs give bind(2) the size of sockaddr_storage."""
    with supervised.Program("--asked-names") as program:
        program.do(f"s = socket.socket(socket.{family}); r = libc.bind(s.fileno(), {address!r} + bytes(104), 128)")
        program.do("n = ctypes.c_int(128); b = ctypes.create_string_buffer(128); "
                   "q = libc.getsockname(s.fileno(), b, ctypes.byref(n))")
        assert program.do("r, q, n.value") == (0, 0, size)
        assert program.do("struct.unpack('=H', b.raw[:2])[0], b.raw[2:4]") == (
            getattr(socket, family), b"\0\x50")


def test_a_negative_length_is_the_callers_mistake_and_nothing_is_written(web):  # pylint: disable=unused-argument
    with supervised.Program("--asked-names") as program:
        program.do("s = sock('tcp', '0.0.0.0', 80); n = ctypes.c_int(-1); b = ctypes.create_string_buffer(128)")
        program.do("q = libc.getsockname(s.fileno(), b, ctypes.byref(n)), errno.errorcode[ctypes.get_errno()]")
        assert program.do("q, n.value, b.raw == bytes(128)") == ((-1, "EINVAL"), -1, True)


# A resolver, which binds each query to a port of the kernel's choice.

def test_however_many_sockets_are_bound_as_asked_meanwhile_one_that_listens_late_serves(web):
    with supervised.Program() as program:
        program.do("""
s = sock('tcp', '0.0.0.0', 80, listen=False)
for _ in range(16400):
    sock('udp', '127.0.0.1', 0).close()
s.listen(5)
serve(s)""")
        assert ask("192.0.2.1", 80) == f"served {program.process.pid}"
        assert [entry["pid"] for entry in web.list()] == [program.process.pid]


# A configuration test.

@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("at", ["0.0.0.0", "::"])
def test_a_configuration_test_of_a_high_port_is_in_nobodys_way(web, protocol, at):
    """Any user may bind such a port, so the test has it as it asks for, and the server has it on loopback."""
    code = f"s = sock({protocol!r}, {at!r}, 8080)"
    with supervised.Program("--no-register") as test, supervised.Program() as server:
        assert test.do(code) is None
        assert server.do(code) is None
        assert test.do("s.close()") is None
        assert test.do(code) is None
        assert [entry["pid"] for entry in web.list()] == [server.process.pid]


def test_a_configuration_test_beside_a_socket_unit_of_another_user(web):  # pylint: disable=unused-argument
    with socket.create_server(("127.0.0.2", 8080)), supervised.Program("--no-register") as test:
        assert test.do("s = sock('tcp', '0.0.0.0', 8080)") is None


# A server that sends before anybody has asked.

def test_a_udp_server_cannot_begin_from_the_port_that_it_serves_at(web):  # pylint: disable=unused-argument
    namespace.run("ip", "link", "add", "out", "type", "veth", "peer", "name", "peer")
    namespace.run("ip", "address", "add", "198.51.100.1/24", "dev", "out")
    namespace.run("ip", "address", "add", "2001:db8:1::1/64", "dev", "out", "nodad")
    for end in ("out", "peer"):
        namespace.run("ip", "link", "set", end, "up")
    with supervised.Program("--bind=udp:8080") as program:
        program.do("four = sock('udp', '0.0.0.0', 8080); six = sock('udp', '::', 8080, 1)")
        assert program.do("four.sendto(b'x', ('198.51.100.9', 123))") == "EINVAL"
        assert program.do("six.getsockname()[0].startswith('fd73:')") is True
        assert program.do("six.sendto(b'x', ('2001:db8:1::9', 123))") == 1
        program.do("other = sock('udp', '0.0.0.0', 8081)")
        assert program.do("other.sendto(b'x', ('198.51.100.9', 123))") == 1


# What is shared between threads and processes.

def thread(mode):
    status, output, errors = sandbox.run("--supervise", "/run/bin/supervised_thread", mode, ambient="")
    assert status == 0, errors
    return output


@pytest.mark.skipif(not has_pidfd_of_threads(), reason="PIDFD_THREAD is not there before 6.9")
def test_a_thread_binds_its_own_descriptor_and_not_that_of_the_first_one(web):  # pylint: disable=unused-argument
    assert thread("own") == "1 8081 0\n"


def test_a_child_that_has_its_parents_memory(web):
    assert thread("vfork") == "0 0\n"
    web.wait_log("register: tcp socket")


# How it is started.

@pytest.mark.parametrize("closed", ["<&-", "<&- >&-", "<&- >&- 2>&-", "2>&-"])
def test_it_is_started_with_closed_standard_streams(web, closed):
    """No socket takes their numbers, in which the supervisor would look for its standard error."""
    code = ("import signal, socket; s = socket.create_server(('', 80)); t = socket.create_server(('', 8080)); "
            "signal.pause()")
    words = sandbox.command("--supervise", "/usr/bin/python3", "-c", code, ambient="")
    with subprocess.Popen(["/bin/bash", "-c", f'exec "$@" {closed}', "-", *words]) as process:
        try:
            web.wait_log("(?s)" + "register: .*" * 2)
            assert {entry["pid"] for entry in web.list()} == {process.pid}
        finally:
            process.kill()
