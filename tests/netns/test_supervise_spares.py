# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sockets that take the place of what the program opens: held ones, and those of a .socket unit."""

import contextlib
import os
import re
import socket

import pytest

from harness import kernel, long, sandbox, supervised
from supervising import UID, ask, everything, send
from words import PREFIXES, add_routes, listen, refused, section


@pytest.fixture(name="web")
def _web(broker):
    add_routes()
    broker.policy(everything("web", "HoldSec=30") + everything("dns", "HoldSec=30", ports=5353)).start()
    sandbox.install()
    return broker


def passed(*sockets):
    """Words before a command: with these sockets as systemd passes them, (name, socket) each."""
    fds = [os.dup(sock.fileno()) for _, sock in sockets]
    for fd in fds:
        os.set_inheritable(fd, True)
    moves = " ".join(f"{3 + i}<&{fd}" for i, fd in enumerate(fds))
    names = ":".join(name for name, _ in sockets)
    return ["/bin/bash", "-c", f'LISTEN_FDS={len(fds)} LISTEN_PID=$$ LISTEN_FDNAMES={names} exec "$@" {moves}',
            "-"], fds


def die(program, broker, holds=1):
    """And the broker has so many holds in the journal then."""
    program.process.kill()
    program.process.wait()
    broker.wait_log("(?s)" + "hold: .*" * holds)


class Passed(supervised.Program):
    def __init__(self, sockets, *options, before=()):
        words, self.fds = passed(*sockets)
        super().__init__(*options, before=[*words, *before], pass_fds=self.fds)


@pytest.mark.parametrize("at, v6only", [("0.0.0.0", None), ("::", 1), ("::", 0)])
def test_a_held_listener_goes_to_the_next_instance_with_its_clients(web, at, v6only):
    address = "192.0.2.1" if at == "0.0.0.0" else "2001:db8::1"
    with supervised.Program() as first:
        first.do(f"s = sock('tcp', {at!r}, 80, {v6only})")
        [before] = web.list()
        waiting = [socket.create_connection((address, 80), 20) for _ in range(5)]
        die(first, web)
        waiting += [socket.create_connection((address, 80), 20) for _ in range(5)]
    with supervised.Program() as second:
        second.do(f"s = sock('tcp', {at!r}, 80, {v6only}); serve(s)")
        for connection in waiting:
            assert connection.makefile().readline().strip() == f"served {second.process.pid}"
        [entry] = web.list()
        assert (entry["cookie"], entry["pid"], entry["state"]) == (before["cookie"], second.process.pid, "live")
        # And again: it is the second one's now.
        die(second, web, 2)


def test_a_bind_at_a_v4_mapped_address_is_not_given_a_held_listener_of_ipv6_alone(web):
    code = "a = sock('tcp', '::ffff:192.0.2.7', 80, 0); b = sock('tcp', '2001:db8::7', 80)"
    with supervised.Program() as first:
        first.do(code)
        before = {entry["cookie"] for entry in web.list()}
        waiting = [socket.create_connection((address, 80), 20) for address in ("192.0.2.7", "2001:db8::7")]
        die(first, web, 2)
    with supervised.Program() as second:
        second.do(code + "; serve(a); serve(b)")
        for connection in waiting:
            assert connection.makefile().readline().strip() == f"served {second.process.pid}"
        assert {entry["cookie"] for entry in web.list()} == before


@pytest.mark.parametrize("four, six", [(["HoldSec=30"], []), ([], ["HoldSec=30"]), (["HoldSec=30"], ["HoldSec=30"])])
def test_a_held_listener_of_two_services_goes_to_the_next_instance_whichever_of_them_holds_it(broker, four, six):
    add_routes()
    broker.policy(section("four", UID, listen("tcp", PREFIXES["ipv4"], 80), *four)
                  + section("six", UID, listen("tcp", PREFIXES["ipv6"], 80), *six)).start()
    sandbox.install()
    with supervised.Program() as first:
        first.do("s = sock('tcp', '::', 80, 0)")
        [before] = {entry["cookie"] for entry in broker.list()}
        waiting = [socket.create_connection((address, 80), 20) for address in ("192.0.2.1", "2001:db8::1")]
        die(first, broker, len(four) + len(six))
    with supervised.Program() as second:
        second.do("s = sock('tcp', '::', 80, 0); serve(s)")
        for connection in waiting:
            assert connection.makefile().readline().strip() == f"served {second.process.pid}"
        assert {(entry["service"], entry["cookie"], entry["pid"], entry["state"]) for entry in broker.list()} == {
            (name, before, second.process.pid, "live") for name in ("four", "six")}
        supervised.until(lambda: sockets_of(second.supervisor()) == [])
        assert ask("192.0.2.1", 80) == f"served {second.process.pid}"


def test_held_listeners_for_which_the_supervisor_has_too_few_descriptors_stay_held(broker):
    add_routes()
    broker.policy(section("web", UID, listen("tcp", PREFIXES["ipv4"], "80-119"), "HoldSec=1min",
                          "Handover=share")).start()
    sandbox.install()
    with supervised.Program() as first:
        first.do("all = [sock('tcp', '0.0.0.0', port) for port in range(80, 120)]")
        first.process.kill()
        first.process.wait()
        supervised.until(lambda: [row["state"] for row in broker.list()] == ["held"] * 40)
    held = {row["cookie"] for row in broker.list()}
    with supervised.Program(before=["prlimit", "--nofile=40:40"]) as second:
        assert second.do("s = sock('tcp', '0.0.0.0', 80)") == "EAGAIN"
        second.wait_error("raise LimitNOFILE=")
        assert {row["cookie"] for row in broker.list() if row["state"] == "held"} == held
    # Its program may raise the soft limit, so to have few of that is no reason.
    with supervised.Program(before=["prlimit", "--nofile=40:1024"]) as third:
        third.do("all = [sock('tcp', '0.0.0.0', port) for port in range(80, 100)]")
        third.do("import resource")
        assert third.do("resource.getrlimit(resource.RLIMIT_NOFILE)") == (40, 1024), "that is the supervisor's affair"
        assert {row["cookie"] for row in broker.list() if row["pid"] == third.process.pid} == held


def test_what_the_program_has_set_before_holds_for_the_socket_in_its_place(web):
    with supervised.Program() as first:
        first.do("s = sock('tcp', '0.0.0.0', 80)")
        die(first, web)
    with supervised.Program() as second:
        more = [(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1000), (socket.IPPROTO_TCP, socket.TCP_SYNCNT, 3),
                (socket.IPPROTO_TCP, socket.TCP_LINGER2, 7), (socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, 20000),
                (socket.IPPROTO_IP, 21, 5),  # IP_MINTTL
                (socket.SOL_SOCKET, socket.SO_INCOMING_CPU, 0),
                (socket.SOL_SOCKET, 37, 1 << 4),  # SO_TIMESTAMPING, SOF_TIMESTAMPING_SOFTWARE
                (socket.SOL_SOCKET, 47, 1_000_000)]  # SO_MAX_PACING_RATE
        second.do(f"names['more'] = {more!r}")
        second.do("""
def early(s):
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 7)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 9))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 50000)
    s.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 16)
    s.setsockopt(socket.IPPROTO_TCP, 13, b"reno")
    for level, option, value in names["more"]:
        s.setsockopt(level, option, value)
    s.setblocking(False)
    names["fd"] = s.fileno()
s = sock('tcp', '0.0.0.0', 80, early=early)""")
        assert second.do("s.fileno() == names['fd']") is True
        assert second.do("s.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)") == 1
        assert second.do("s.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT)") > 0
        assert second.do("struct.unpack('ii', s.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))") == (1, 9)
        assert second.do("s.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)") == 100000
        assert second.do("s.getsockopt(socket.IPPROTO_IP, socket.IP_TOS)") == 16
        assert second.do("s.getsockopt(socket.IPPROTO_TCP, 13, 16).rstrip(b'\\0')") == b"reno"
        assert [second.do(f"s.getsockopt({level}, {option})") for level, option, _ in more] == [
            value for _, _, value in more]
        assert second.do("os.get_blocking(s.fileno())") is False
        assert second.do("os.get_inheritable(s.fileno())") is False
        second.do("s.close()")
        # Its number and its flag are the program's choice.
        second.do("s = sock('tcp', '0.0.0.0', 80, early=lambda s: os.set_inheritable(s.fileno(), True))")
        assert second.do("os.get_inheritable(s.fileno())") is True


# What a program may set of a socket under the profiles and the kernel tells, beside what is above. Of IPv6: 41.
RARE = {"udp": [(1, 42, 8), (1, 63, 1), (0, 25, 1), (0, 33, 9), (0, 34, 0), (0, 49, 1), (41, 77, 1), (41, 70, 0),
                (41, 72, 1), (41, 18, 9), (41, 19, 0), (41, 29, 0)],
        "tcp": [(6, 36, 1), (1, 64, 1)]}


@pytest.mark.parametrize("protocol", RARE)
def test_what_is_set_rarely_too(web, protocol):
    code = f"s = sock({protocol!r}, '::', 5353, 1, early=early)"
    with supervised.Program() as first, supervised.Program() as second:
        first.do(code.replace("early=early", ""))
        [held] = [entry["cookie"] for entry in web.list()]
        die(first, web)
        second.do(f"names['set'] = {RARE[protocol]!r}")
        second.do("""
def early(s):
    names["before"] = [s.getsockopt(level, option) for level, option, _ in names["set"]]
    for level, option, value in names["set"]:
        s.setsockopt(level, option, value)
    names["after"] = [s.getsockopt(level, option) for level, option, _ in names["set"]]""")
        second.do(code)
        assert [entry["cookie"] for entry in web.list()] == [held]
        assert second.do("[a == b for a, b in zip(names['before'], names['after'])]") == [False] * len(RARE[protocol])
        assert second.do("[s.getsockopt(level, option) for level, option, _ in names['set']]") == second.do(
            "names['after']")


def test_a_held_udp_socket_too(web):
    with supervised.Program() as first:
        first.do("s = sock('udp', '0.0.0.0', 5353)")
        die(first, web)
        send("192.0.2.1", 5353, "while nobody was there")
    with supervised.Program() as second:
        second.do("s = sock('udp', '0.0.0.0', 5353)")
        assert second.do("received(s)") == "while nobody was there"
        assert [entry["pid"] for entry in web.list()] == [second.process.pid]


@pytest.mark.parametrize("udp", long.some([[("0.0.0.0", None), ("::", 1)], [("::", 0)]], [("::", 0)]))
def test_held_sockets_that_nobody_asks_for_are_given_up_and_nobody_waits_in_them(web, udp):
    with supervised.Program() as first:
        first.do("a = sock('tcp', '0.0.0.0', 80); b = sock('tcp', '::', 80, 1)")
        first.do(f"c = [sock('udp', at, 5353, v6only) for at, v6only in {udp!r}]")
        die(first, web, 2 + len(udp))
    with supervised.Program() as second:
        second.do("s = sock('tcp', '0.0.0.0', 80); serve(s); t = sock('tcp', '0.0.0.0', 5353)")
        pid = second.supervisor()
        assert len(sockets_of(pid)) == 1 + len(udp)
        [early] = [entry for entry in web.list() if (entry["protocol"], entry["family"]) == ("tcp", "ipv6")]
        waiting = socket.create_connection(("2001:db8::1", 80), 20)
        supervised.until(lambda: sockets_of(pid) == [])
        with pytest.raises(ConnectionResetError):
            waiting.recv(1)
        web.wait_log(f"gone: tcp socket {re.escape(early['bound'])}")
        supervised.until(lambda: len(web.list()) == 2)
        assert {(entry["service"], entry["protocol"], entry["family"]) for entry in web.list()} == {
            ("web", "tcp", "ipv4"), ("dns", "tcp", "ipv4")}
        with refused():
            ask("2001:db8::1", 80)
        assert ask("192.0.2.1", 80) == f"served {second.process.pid}"


def test_a_program_that_binds_again_and_again_puts_the_end_of_those_off_by_nothing(web):
    with supervised.Program() as first:
        first.do("a = sock('tcp', '0.0.0.0', 80); b = sock('tcp', '::', 80, 1)")
        die(first, web, 2)
    with supervised.Program() as second:
        second.do("s = sock('tcp', '0.0.0.0', 80)")
        waiting = socket.create_connection(("2001:db8::1", 80), 20)
        waiting.settimeout(0.5)
        for _ in range(30):
            second.do("t = sock('tcp', '0.0.0.0', 80, listen=False); t.close()")
            with contextlib.suppress(TimeoutError):
                with pytest.raises(ConnectionResetError):
                    waiting.recv(1)
                break
        else:
            pytest.fail("the client waits for longer than 15 s")


def sockets_of(pid):
    return [fd for fd, link in kernel.descriptors(pid).items() if link.startswith("socket:")]


def socket_unit(protocol, address, port, *, dual=False):
    """As PID 1 makes it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual else 1)
    sock.bind((address, port))
    if protocol == "tcp":
        sock.listen(100)
    return sock


def test_a_udp_port_of_a_socket_unit_serves_an_unmodified_program(broker):
    add_routes()
    broker.policy(everything("dns", ports=53)).start()
    sandbox.install()
    with Passed([("dns", socket_unit("udp", "127.0.0.2", 53)), ("dns", socket_unit("udp", "::1", 53))]) as program:
        program.do("s = sock('udp', '0.0.0.0', 53); t = sock('udp', '::', 53, 1)")
        assert program.do("os.environ.get('LISTEN_FDS')") is None
        send("192.0.2.1", 53, "four")
        send("2001:db8::1", 53, "six")
        assert program.do("received(s)") == "four" and program.do("received(t)") == "six"
        assert {entry["pid"] for entry in broker.list()} == {program.process.pid}
        # However often: a server that binds anew on a reload has the same socket.
        program.do("s.close(); s = sock('udp', '0.0.0.0', 53)")
        send("192.0.2.1", 53, "again")
        assert program.do("received(s)") == "again"
        assert program.do("sock('udp', '0.0.0.0', 54)") == "EACCES"


def test_s17_a_stock_server_in_a_network_namespace_with_nothing_in_it(web):
    """PrivateNetwork=yes: what counts is the namespace of the socket."""
    with Passed([("web", socket_unit("tcp", "127.0.0.2", 8080))], "--profile=interfaces",
                before=["unshare", "--net"]) as program:
        assert program.do("[name for _, name in socket.if_nameindex()]") == ["lo"]
        program.do("s = sock('tcp', '0.0.0.0', 80); serve(s)")
        assert ask("192.0.2.1", 80) == f"served {program.process.pid}"
        assert program.do("sock('tcp', '0.0.0.0', 5353)") == "EADDRNOTAVAIL"  # no .socket unit for that one
        program.wait_error("FileDescriptorName=SERVICE")
    assert [entry for entry in web.list() if entry["service"] == "dns"] == []


def test_a_second_bind_does_not_make_the_first_ones_listener_sleep(web):  # pylint: disable=unused-argument
    unit = socket_unit("tcp", "127.0.0.2", 8080)
    with Passed([("web", unit)]) as program:
        program.do("s = sock('tcp', '0.0.0.0', 80, early=lambda s: s.setblocking(False))")
        assert os.get_blocking(unit.fileno()) is False
        program.do("t = sock('tcp', '0.0.0.0', 80)")
        assert os.get_blocking(unit.fileno()) is False
        assert program.do("os.get_blocking(s.fileno())") is False
    with Passed([("web", unit)]) as program:
        program.do("s = sock('tcp', '0.0.0.0', 80)")
        assert os.get_blocking(unit.fileno()) is True


def test_sockets_without_a_service_are_passed_on_to_the_program(web):  # pylint: disable=unused-argument
    local = socket.socket(socket.AF_UNIX)
    local.bind("/run/local.sock")
    local.listen(1)
    with Passed([("web", socket_unit("tcp", "127.0.0.2", 8080)), ("control", local)], "--service=web") as program:
        assert program.do("os.environ['LISTEN_FDS'], os.environ['LISTEN_FDNAMES']") == ("1", "control")
        assert program.do("int(os.environ['LISTEN_PID']) == os.getpid()") is True
        assert program.do("socket.socket(fileno=3).getsockname()") == "/run/local.sock"


def test_a_registration_that_is_refused_leaves_the_socket_units_listener_alone(broker):
    broker.policy(everything("web", "Handover=refuse")).start()
    sandbox.install()
    unit = socket_unit("tcp", "127.0.0.2", 8080)
    with supervised.Program() as other, Passed([("web", unit)]) as program:
        program.do("s = sock('tcp', '0.0.0.0', 80, listen=False)")
        other.do("s = sock('tcp', '0.0.0.0', 80)")
        assert program.do("s.listen(5)") == "EADDRINUSE"
        assert unit.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
