# SPDX-License-Identifier: LGPL-2.1-or-later
"""Clients of tubular, as udpgrm is one, at the socket of their own: SERVICE# with descriptors, and OK as the answer.
What they send is a registration like any other."""

import array
import os
import socket

import pytest

from words import LOOPBACK, PORT, add_routes, each_family, everywhere, listen, refused, section, who

PATH = "/run/sockbroker/tubular"


@pytest.fixture(name="broker")
def _broker(broker_with_sockets):
    """With the sockets that sockbrokerd.socket and sockbrokerd-tubular.socket make."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.bind(PATH)
    os.chmod(PATH, 0o666)
    made.listen(64)
    broker_with_sockets.activated.append(made)
    broker_with_sockets.environment["LISTEN_FDNAMES"] = "sockbrokerd.socket:sockbrokerd.socket:tubular"
    return broker_with_sockets


def register(label, *sockets, path=PATH):
    """As udpgrm does it: a connection for each registration."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(20)
        connection.connect(path)
        numbers = array.array("i", [one.fileno() for one in sockets])
        connection.sendmsg([label], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)] if sockets else [])
        return connection.recv(1024)


def udp(family):
    one = socket.socket(socket.AF_INET6 if family == "ipv6" else socket.AF_INET, socket.SOCK_DGRAM)
    one.bind((LOOPBACK[family], PORT))
    return one


@each_family
def test_a_label_is_registered_and_answered_with_ok(broker, family):
    add_routes()
    broker.policy(section("udp_server", 0, everywhere())).start()
    with refused():
        who("udp", family)
    with udp(family) as server:
        assert register(b"udp_server#", server) == b"OK"
        [entry] = broker.list()
        assert (entry["service"], entry["uid"], entry["pid"],
                entry["protocol"]) == ("udp_server", 0, os.getpid(), "udp")
        with socket.socket(server.family, socket.SOCK_DGRAM) as client:
            client.sendto(b"hello", ({"ipv4": "192.0.2.9", "ipv6": "2001:db8::9"}[family], PORT))
            server.settimeout(20)
            assert server.recvfrom(10)[0] == b"hello"
    broker.wait_log(r"register: udp socket .* serves udp_server")


def test_several_descriptors_are_one_registration(broker):
    """udpgrm sends all sockets of a generation."""
    broker.policy(section("udp_server", 0, listen("udp", "192.0.2.0/24"), "Handover=share")).start()
    sockets = []
    for _ in range(3):
        sockets.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sockets[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sockets[-1].bind(("127.0.0.1", PORT))
    assert register(b"udp_server#", *sockets) == b"OK"
    assert len(broker.list()) == 3


def test_policy_decides_as_everywhere(broker):
    broker.policy(section("other", 61001, everywhere()) + section("mine", 0, listen("tcp", "192.0.2.0/24", 81))).start()
    with udp("ipv4") as server:
        for label, code in ((b"other#", b"not-permitted"), (b"nothing#", b"unknown-service"),
                            (b"mine#", b"wrong-socket")):
            answer = register(label, server)
            assert answer.startswith(b"RESULT=" + code + b"\n"), answer
            broker.wait_log(rf"refuse: .*\(service={label[:-1].decode()}")
    assert broker.list() == []


@pytest.mark.parametrize("text",
                         [b"mine", b"#", b"mine\nMIGRATE=1#", b"FDSTORE=1\nFDNAME=mine\n", b"mine#" + b"x" * 5000])
def test_all_else_is_malformed_and_closed(broker, text):
    broker.policy(section("mine", 0, everywhere())).start()
    with udp("ipv4") as server:
        assert register(text, server).startswith(b"RESULT=malformed\n")
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as ours:
        with os.fdopen(writing, "wb") as theirs:
            assert register(text, theirs).startswith(b"RESULT=malformed\n")
        assert ours.read() == b"", "closed by the broker too"
    assert broker.list() == []


def test_nothing_but_registrations(broker):
    broker.policy(section("mine", 0, everywhere())).start()
    for text in (b"VERB=unload", b"VERB=status"):
        assert register(text).startswith(b"RESULT=malformed\n")
    assert broker.ask("VERB=version").result == "ok"


def test_a_refusal_names_nothing_that_such_a_client_cannot_send(broker):
    broker.policy(section("mine", 0, everywhere())).start()
    answer = register(b"mine#")
    assert answer.startswith(b"RESULT=malformed\nERRNO=74\nMESSAGE=mine# came without a descriptor; "), answer
    assert b"FDSTORE" not in answer and b"sd_pid_notify" not in answer
    assert register(b"mine").startswith(b"RESULT=malformed\nERRNO=74\nMESSAGE=this socket takes SERVICE# and ")


def test_a_label_means_nothing_to_the_control_socket(broker):
    broker.policy(section("mine", 0, everywhere())).start()
    with udp("ipv4") as server:
        assert register(b"mine#", server, path=broker.control_path).startswith(b"RESULT=malformed\n")


def test_it_works_on_after_the_broker_and_its_door_were_replaced(broker):
    broker.policy(section("mine", 0, everywhere())).start()
    with udp("ipv4") as server:
        assert register(b"mine#", server) == b"OK"
        os.kill(broker.helper("sb-door"), 9)
        assert register(b"mine#", server) == b"OK"
        broker.kill()
        broker.start()
        assert register(b"mine#", server) == b"OK"


def test_without_the_socket_there_is_none(broker_with_sockets):
    broker_with_sockets.policy(section("mine", 0, everywhere())).start()
    with udp("ipv4") as server, pytest.raises(FileNotFoundError):
        register(b"mine#", server)
    assert broker_with_sockets.ask("VERB=version").result == "ok"
