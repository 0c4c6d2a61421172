# SPDX-License-Identifier: LGPL-2.1-or-later
"""sockbroker-run --supervise: programs that bind as they always did, as an ordinary user, through the real broker."""

import os
import signal
import socket

import pytest

from harness import sandbox, supervised
from supervising import UID, ask, begin, everything, send
from words import ADDRESS, PREFIXES, add_routes, listen, refused, section


@pytest.fixture(name="web")
def _web(broker):
    return begin(broker)


# One thin path: a stock server.

HTTP = ("import http.server, socket\nclass S(http.server.ThreadingHTTPServer):\n address_family=socket.{family}\n"
        "s=S(({at!r},80),http.server.SimpleHTTPRequestHandler)\nprint('serving',flush=True)\ns.serve_forever()")


@pytest.mark.parametrize("family, at", [("AF_INET", "0.0.0.0"), ("AF_INET", "192.0.2.7"), ("AF_INET6", "::"),
                                        ("AF_INET6", "2001:db8::7")])
def test_s4_a_stock_server_binds_port_80_with_no_privilege(web, family, at):
    with sandbox.Sandboxed("--supervise", "/usr/bin/python3", "-c", HTTP.format(at=at, family=family),
                           ambient="") as server:
        server.lines_until("serving")
        assert {server.status()[name] for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} <= {
            "0000000000000000", server.status()["CapBnd"]}
        addresses = ["2001:db8::7", "2001:db8::99"] if ":" in at else ["192.0.2.7", "192.0.2.200"]
        if at == "::":
            addresses.append("192.0.2.9")  # a dual-stack socket takes both
        for address in addresses:
            with socket.create_connection((address, 80), 20) as connection:
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                assert connection.makefile().readline().startswith("HTTP/1.0 200")
        [entry] = web.list()
        assert (entry["service"], entry["pid"], entry["uid"]) == ("web", server.process.pid, UID)


# What is bound where, and who takes it.

@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("at, v6only, asked, family", [
    ("0.0.0.0", None, ["192.0.2.1", "192.0.2.254"], "ipv4"),
    ("192.0.2.7", None, ["192.0.2.7"], "ipv4"),
    ("::", 1, ["2001:db8::1"], "ipv6"),
    ("::", 0, ["2001:db8::1", "192.0.2.1"], "dual"),
    ("2001:db8::7", None, ["2001:db8::7"], "ipv6"),
    ("::ffff:192.0.2.7", 0, ["192.0.2.7"], "dual"),
])
def test_each_kind_of_socket_serves(web, protocol, at, v6only, asked, family):
    port = 80 if protocol == "tcp" else 5353
    with supervised.Program() as program:
        program.do(f"s = sock({protocol!r}, {at!r}, {port}, {v6only})")
        [entry] = web.list()
        assert (entry["service"], entry["protocol"], entry["family"], entry["pid"]) == (
            "web" if protocol == "tcp" else "dns", protocol, family, program.process.pid)
        assert entry["bound"].partition("]:" if ":" in at else ":")[0].startswith(
            "[fd" if family == "ipv6" else "[::ffff:127." if ":" in at else "127.")
        if protocol == "tcp":
            program.do("serve(s)")
            assert {ask(address, port) for address in asked} == {f"served {program.process.pid}"}
        else:
            for address in asked:
                send(address, port, f"to {address}")
                assert program.do("received(s)") == f"to {address}"
    with refused():
        ask(ADDRESS["ipv4"], 80)


def test_a_port_that_somebody_has_on_all_addresses_is_taken_over_all_the_same(broker):
    add_routes()
    broker.policy(everything("web", ports=8080)).start()
    sandbox.install()
    with socket.create_server(("0.0.0.0", 8080)), supervised.Program() as program:
        program.do("s = sock('tcp', '0.0.0.0', 8080)")
        program.do("serve(s)")
        assert ask("192.0.2.1", 8080) == f"served {program.process.pid}"


@pytest.mark.parametrize("at", ["0.0.0.0", "::"])
def test_who_has_the_port_of_the_place_on_all_addresses_keeps_nobody_from_port_80(web, at):
    squatted = socket.create_server(("::", 20080), family=socket.AF_INET6, dualstack_ipv6=True)
    with squatted, supervised.Program() as program:
        program.do(f"s = sock('tcp', '{at}', 80)")
        program.do("serve(s)")
        for address in ["192.0.2.1", "2001:db8::1"] if ":" in at else ["192.0.2.1"]:
            assert ask(address, 80) == f"served {program.process.pid}"
        assert "somebody has port 20080 on all addresses" in program.errors()


def test_a_bind_that_no_service_takes_is_refused_and_in_the_journal(web):
    with supervised.Program() as program:
        assert program.do("sock('tcp', '0.0.0.0', 81)") == "EACCES"
        web.wait_log(r"refuse: .*takes a socket bound to tcp 0\.0\.0\.0:81")
        program.wait_error("grant it in conf.d")
        assert program.do("sock('tcp', '198.51.100.1', 80)") == "EACCES"
        assert program.do("sock('udp', '::', 54)") == "EACCES"
        assert web.list() == []
    with supervised.Program("--service=dns") as program:
        assert program.do("sock('tcp', '0.0.0.0', 80)") == "EACCES"
        assert program.do("sock('tcp', '0.0.0.0', 5353).fileno() > 0") is True
    with supervised.Program(uid=61002) as program:
        assert program.do("sock('tcp', '0.0.0.0', 80)") == "EACCES"


@pytest.mark.parametrize("protocol, at", [("udp", "224.0.0.251"), ("udp", "ff05::fb"), ("udp", "255.255.255.255")])
def test_what_never_comes_to_the_dispatch_is_no_services_whatever_it_has(broker, protocol, at):
    broker.policy(section("mdns", UID, "ListenDatagram=5353")).start()
    sandbox.install()
    with supervised.Program() as program:
        assert program.do(f"sock({protocol!r}, {at!r}, 5353)") == "EACCES"
        program.wait_error("never reach the dispatch")
        assert broker.list() == []
    with supervised.Program("--bind=tcp:*") as program:  # the kernel's, and the program's own
        assert program.do(f"sock({protocol!r}, {at!r}, 5353).fileno() > 0") is True


def test_one_that_handover_refuse_refuses_is_in_use(broker):
    broker.policy(everything("web", "Handover=refuse")).start()
    sandbox.install()
    with supervised.Program() as first, supervised.Program() as second:
        first.do("s = sock('tcp', '0.0.0.0', 80)")
        assert second.do("sock('tcp', '0.0.0.0', 80)") == "EADDRINUSE"
        assert second.do("sock('tcp', '::', 80, 1).fileno() > 0") is True
        first.do("s.close()")
        assert second.do("sock('tcp', '0.0.0.0', 80).fileno() > 0") is True


def test_two_that_bind_at_once_and_one_is_refused_at_listen(broker):
    broker.policy(everything("web", "Handover=refuse")).start()
    sandbox.install()
    with supervised.Program() as first, supervised.Program() as second:
        first.do("s = sock('tcp', '0.0.0.0', 80, listen=False)")
        second.do("s = sock('tcp', '0.0.0.0', 80, listen=False)")
        first.do("s.listen(5)")
        assert second.do("s.listen(5)") == "EADDRINUSE"
        assert second.do("s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)") == 0
        first.do("s.close()")
        assert second.do("s.listen(5)") is None  # and may try again


def test_one_program_with_several_services(web):
    with supervised.Program() as program:
        program.do("a = sock('tcp', '0.0.0.0', 80); serve(a, 'a'); b = sock('tcp', '0.0.0.0', 5353); serve(b, 'b')")
        assert ask("192.0.2.1", 80).startswith("a ") and ask("192.0.2.1", 5353).startswith("b ")


def test_a_socket_of_both_families_whose_families_are_of_two_services(broker):
    add_routes()
    broker.policy(section("four", UID, listen("tcp", PREFIXES["ipv4"], 80))
                  + section("six", UID, listen("tcp", PREFIXES["ipv6"], 80))).start()
    sandbox.install()
    with supervised.Program() as program:
        program.do("s = sock('tcp', '::', 80, 0); serve(s)")
        assert {entry["service"] for entry in broker.list()} == {"four", "six"}
        assert ask("192.0.2.1", 80) == ask("2001:db8::1", 80) == f"served {program.process.pid}"


def test_the_newer_instance_takes_over_and_both_are_one_group(web):
    with supervised.Program() as old, supervised.Program() as new:
        for program in (old, new):
            program.do("s = sock('tcp', '0.0.0.0', 80); serve(s)")
        entries = {entry["state"]: entry for entry in web.list()}
        assert entries["live"]["pid"] == new.process.pid and entries["draining"]["pid"] == old.process.pid
        assert entries["live"]["bound"] == entries["draining"]["bound"]
        assert ask("192.0.2.1", 80) == f"served {new.process.pid}"


# How programs do it.

def test_children_threads_and_programs_that_are_executed(web):
    with supervised.Program() as program:
        program.do("""
read, write = os.pipe()
if os.fork() == 0:
    s = sock('tcp', '0.0.0.0', 80)
    os.write(write, b'x')
    serve(s)
    signal.pause()
os.read(read, 1)""")
        [entry] = web.list()
        assert entry["pid"] != program.process.pid
        assert ask("192.0.2.1", 80) == f"served {entry['pid']}"
        program.do("t = threading.Thread(target=lambda: names.update(s=sock('tcp', '::', 80, 1))); t.start(); t.join()")
        assert {entry["pid"] for entry in web.list() if entry["family"] == "ipv6"} == {program.process.pid}
        code = "import socket; s = socket.create_server(('', 5353)); input()"
        program.do(f"p = subprocess.Popen([sys.executable, '-c', {code!r}], stdin=subprocess.PIPE, close_fds=False)")
        web.wait_log("register: .*dns")
        assert [entry["pid"] for entry in web.list() if entry["service"] == "dns"] == [program.do("p.pid")]
        os.kill(entry["pid"], signal.SIGKILL)
        program.do("p.kill()")


def test_listen_without_bind_is_on_loopback(web):
    with supervised.Program() as program:
        program.do("s = socket.socket(); s.listen(1)")
        assert program.do("s.getsockname()[0]") == "127.0.0.1"
        program.do("s = socket.socket(socket.AF_INET6); s.listen(1)")
        assert program.do("s.getsockname()[0]") == "::1"
        assert web.list() == []


def test_a_bind_that_is_repeated_is_done_and_another_is_not(web):  # pylint: disable=unused-argument
    with supervised.Program() as program:
        program.do("s = sock('tcp', '0.0.0.0', 80, listen=False)")
        assert program.do("s.bind(('0.0.0.0', 80))") is None
        assert program.do("s.bind(('0.0.0.0', 5353))") == "EINVAL"
        program.do("t = sock('tcp', '127.0.0.1', 8080)")
        assert program.do("t.bind(('0.0.0.0', 80))") == "EINVAL"


def test_a_program_that_asks_for_its_name_may_be_told_what_it_asked_for(web):  # pylint: disable=unused-argument
    with supervised.Program("--asked-names") as program:
        program.do("s = sock('tcp', '0.0.0.0', 80); t = sock('tcp', '::', 80, 1); serve(s)")
        assert program.do("s.getsockname(), t.getsockname()[:2]") == (("0.0.0.0", 80), ("::", 80))
        assert program.do("sock('tcp', '127.0.0.1', 8080).getsockname()") == ("127.0.0.1", 8080)
        program.do("n = ctypes.c_int(4); b = ctypes.create_string_buffer(16); "
                   "r = libc.getsockname(s.fileno(), b, ctypes.byref(n))")
        assert program.do("r, n.value, b.raw[:6]") == (0, 16, b"\2\0\0\x50\0\0")
        assert program.do("ctypes.set_errno(0); r = libc.getsockname(s.fileno(), 8, ctypes.byref(n))") is None
        assert program.do("r, ctypes.get_errno() == errno.EFAULT") == (-1, True)
        assert ask("192.0.2.1", 80) == f"served {program.process.pid}"


@pytest.mark.parametrize("at, asked", [("0.0.0.0", ["192.0.2.1"]), ("::", ["2001:db8::1", "192.0.2.1"])])
def test_a_program_that_would_listen_by_mptcp_listens_by_tcp(web, at, asked):
    """As Go does by itself from 1.24 on: it opens an MPTCP socket, and where there are none a TCP one."""
    with supervised.Program() as program:
        program.do("""
def listener(family):
    try:
        return socket.socket(family, socket.SOCK_STREAM, 262)
    except OSError as error:
        names["refused"] = errno.errorcode[error.errno]
        return socket.socket(family, socket.SOCK_STREAM)""")
        program.do(f"s = listener(socket.AF_INET6 if ':' in {at!r} else socket.AF_INET)")
        program.do(f"s.bind(({at!r}, 80)); s.listen(64); serve(s)")
        assert program.do("names['refused']") == "EPROTONOSUPPORT"
        assert program.do("s.getsockopt(socket.SOL_SOCKET, 38)") == socket.IPPROTO_TCP  # SO_PROTOCOL
        assert {ask(address, 80) for address in asked} == {f"served {program.process.pid}"}
        assert {entry["protocol"] for entry in web.list()} == {"tcp"}


def test_a_udp_port_below_the_unprivileged_ones_says_what_to_do(broker):
    broker.policy(everything("dns", ports=53)).start()
    sandbox.install()
    with supervised.Program() as program:
        assert program.do("sock('udp', '0.0.0.0', 53)") == "EACCES"
        program.wait_error("ListenDatagram=127.0.0.2:53, FileDescriptorName=dns")


@pytest.mark.parametrize("profile", ["default", "strict", "interfaces"])
def test_each_profile_lets_it_bind(web, profile):  # pylint: disable=unused-argument
    with supervised.Program(f"--profile={profile}") as program:
        program.do("s = sock('tcp', '0.0.0.0', 80)")
        assert program.do("s.fileno() > 0") is True
        if profile == "strict":
            assert program.do("socket.socket(socket.AF_UNIX)") == "EPERM"


def test_a_configuration_test_registers_nothing_and_needs_no_broker(web):
    with supervised.Program() as running:
        running.do("s = sock('tcp', '0.0.0.0', 80); serve(s)")
        before = web.list()
        web.stop()
        with supervised.Program("--no-register") as program:
            for at in ("'0.0.0.0'", "'192.0.2.7'", "'::'"):
                program.do(f"s = sock('tcp', {at}, 80)")
            program.do("u = sock('udp', '0.0.0.0', 53)")
            assert ask("192.0.2.1", 80) == f"served {running.process.pid}"
        web.start()
        assert web.list() == before


def test_without_a_broker_the_program_is_not_started(netns):  # pylint: disable=unused-argument
    sandbox.install()
    status, output, said = sandbox.run("--supervise", "/bin/echo", "started", ambient="")
    assert (status, output) == (69, "") and "sockbrokerd.socket" in said, said


def test_in_a_pid_namespace_of_its_own_the_supervisor_stands_for_the_program(web):
    """The broker knows the program by another number, and says that it does not believe PID=."""
    with supervised.Program(before=["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]) as program:
        program.do("s = sock('tcp', '0.0.0.0', 80); serve(s)")
        assert ask("192.0.2.1", 80).startswith("served ")
        [entry] = web.list()
        assert (entry["service"], entry["uid"]) == ("web", UID)


def test_a_program_that_has_its_supervisor_for_a_child_is_told(web):  # pylint: disable=unused-argument
    """Orphans are the children of process 1, so one that waits until it has none waits for ever."""
    with supervised.Program(before=["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]) as program:
        assert program.do("os.waitpid(-1, os.WNOHANG)") == (0, 0)
        program.wait_error("the supervisor is a child of the program, which is process 1")
    with supervised.Program() as program:
        assert program.do("os.waitpid(-1, os.WNOHANG)") == "ECHILD"
        assert program.errors() == ""
