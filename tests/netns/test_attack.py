# SPDX-License-Identifier: LGPL-2.1-or-later
"""Peers with ordinary uids that mean harm: what they do costs them, and nobody else."""

import contextlib
import errno
import os
import pathlib
import re
import resource
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

from harness import long, namespace, wire
from harness.kernel import acting_as
from harness.namespace import own_uid
from words import everywhere, listen, section

FOREVER = struct.pack("ii", 1, 3600)  # SO_LINGER for an hour


@contextlib.contextmanager
def frozen(broker):
    """What is sent meanwhile is all there when the broker goes on. The process that accepts connections stands still,
    too."""
    door = broker.helper("sb-door")
    broker.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, broker.process.pid, os.WSTOPPED | os.WNOWAIT)
    os.kill(door, signal.SIGSTOP)
    while pathlib.Path(f"/proc/{door}/stat").read_text(encoding="ascii").rsplit(") ", 1)[1][0] != "T":
        os.sched_yield()
    try:
        yield
    finally:
        os.kill(door, signal.SIGCONT)
        broker.process.send_signal(signal.SIGCONT)


def connection_whose_close_waits():
    """A TCP connection with data that nobody will ever read: close(2) of its last descriptor waits for an hour. The
    other ends are kept by the caller."""
    listener = socket.create_server(("127.0.0.1", 0))
    sock = socket.create_connection(listener.getsockname())
    reader, _ = listener.accept()
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.send(bytes(65536))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, FOREVER)
    return sock, (listener, reader)


def test_what_one_user_has_on_its_way_keeps_no_user_of_another_namespace_from_sending():
    """Of these tests themselves: the kernel counts descriptors on their way for each uid over all namespaces."""
    with contextlib.ExitStack() as stack:
        def send(uid, count):
            ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            for end in ends:
                stack.enter_context(end)
            ends[0].setblocking(False)
            with acting_as(uid):
                for _ in range(count):
                    socket.send_fds(ends[0], [b"x"], [ends[1].fileno()] * 253)

        limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limit)
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, limit[1]))
        with pytest.raises(OSError) as refusal:
            send(own_uid(), 4)
        assert refusal.value.errno == errno.ETOOMANYREFS
        with namespace.Namespace():
            send(own_uid(), 2)


HOW = {
    "refused": [b"FDSTORE=1"],
    "too-long": [b"X" * 5000],
    "malformed": [b"VERB=version"],
    "behind-the-end": [b"", b"FDSTORE=1"],  # an empty record ends the connection: what follows is never read
}


@pytest.mark.parametrize("how", long.some(HOW, "refused", "behind-the-end"))
@pytest.mark.parametrize("kind", ["control", "notify"])
def test_a_descriptor_whose_close_waits_keeps_nobody_waiting(broker, kind, how):
    broker.policy(section("web", 61001, everywhere())).start()
    trap, kept = connection_whose_close_waits()
    with frozen(broker), acting_as(own_uid()):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET if kind == "control" else socket.SOCK_DGRAM) as peer:
            peer.connect(broker.control_path if kind == "control" else broker.notify_path)
            for record in HOW[how][:-1]:
                peer.send(record)
            socket.send_fds(peer, HOW[how][-1:], [trap.fileno()])
        trap.close()  # the descriptor in the queue is the last one now
    assert broker.ask("VERB=version").result == "ok"
    wire.barrier(broker.notify_path)
    for end in kept:
        end.close()


def test_a_connection_that_is_turned_away_keeps_nobody_waiting(broker):
    broker.policy(section("web", 61001, everywhere())).start()
    trap, kept = connection_whose_close_waits()
    with contextlib.ExitStack() as stack:
        for _ in range(32):
            with acting_as(own_uid()):
                stack.enter_context(wire.Control(broker.control_path))
        with frozen(broker), acting_as(own_uid()), wire.Control(broker.control_path) as surplus:
            surplus.send("FDSTORE=1", [trap.fileno()])
            trap.close()
    assert broker.ask("VERB=version").result == "ok"
    for end in kept:
        end.close()


def test_a_fast_reader_of_a_long_answer_keeps_nobody_waiting(broker):
    broker.policy("[Service many]\nUser=61001\n" + "".join(
        f"ListenStream=10.{i >> 8}.{i & 255}.0/24:80\n" for i in range(30_000))).start()
    ends = []
    with frozen(broker):
        greedy, honest = wire.Control(broker.control_path), wire.Control(broker.control_path)
        greedy.send("VERB=bindings")
        honest.send("VERB=version")

    def read_all():
        while not greedy.sock.recv(wire.RECORD).startswith(b"RESULT="):
            pass
        ends.append(time.monotonic())

    reader = threading.Thread(target=read_all)
    reader.start()
    assert honest.receive().result == "ok"
    answered = time.monotonic()
    reader.join()
    assert answered < ends[0], f"answered {answered - ends[0]:.3f} s after the long answer was over"
    for connection in greedy, honest:
        connection.sock.close()


def test_users_with_many_uids_keep_nobody_from_connecting(broker, spawn):
    """A user may have 65,536 uids of his own (subuid(5)), each with its share of connections."""
    broker.policy(section("web", 61001, everywhere())).start()
    web = spawn("web")
    web.open("tcp", "tcp", "127.0.0.1")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    idle = []
    try:
        for uid in range(own_uid(1), own_uid(21)):
            with acting_as(uid):
                for _ in range(32):
                    idle.append(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
                    idle[-1].connect(broker.control_path)
                    with contextlib.suppress(OSError):
                        idle[-1].send(b"VERB=bindings")  # read by nobody
        assert broker.ask("VERB=version").result == "ok"
        assert web.register("tcp").result == "ok"
    finally:
        for connection in idle:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [line["service"] for line in broker.list()] == ["web"]


def test_requests_without_a_name_cost_no_look_up_of_every_account(broker):
    """Whoever names no service is compared with the accounts of all of them, and NSS is slow."""
    broker.policy("".join(f"[Service n{i}]\nUser=nosuchuser{i}\nListenStream=10.{i >> 8}.{i & 255}.0/24:80\n"
                          for i in range(1000))).start()
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:
        hostile = []
        with frozen(broker):
            for _ in range(32):
                with acting_as(own_uid()):
                    hostile.append(stack.enter_context(wire.Control(broker.control_path)))
                    for _ in range(8):
                        hostile[-1].send("FDSTORE=1", [listener.fileno()])
            began = time.monotonic()
        for connection in hostile:
            for _ in range(8):
                assert connection.receive().result == "not-permitted"
        took = time.monotonic() - began
    began = time.monotonic()
    assert broker.ctl("reload")[0] == 0  # looks up each of them, once
    once = time.monotonic() - began
    assert took < 20 * once, f"256 requests took {took:.2f} s, looking up all accounts once {once:.2f} s"


def as_output_of(uid, text, connection):
    """A program that runs as that user, and whose output is somebody's connection, writes the text."""
    subprocess.run(["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "printf", "%s", text],
                   stdin=subprocess.DEVNULL, stdout=connection.sock, check=True)


DEPUTIES = {  # of whom, what it writes, and what the user whose connection it is reads
    "unload": (0, "VERB=unload", "not-root"),
    "reload": (0, "VERB=reload", "not-root"),
    "diff": (0, "VERB=diff", "not-root"),
    "keep": (0, "VERB=keep", "not-root"),
    "monitor": (0, "VERB=monitor", "not-root"),
    "drain": (0, "VERB=drain\nFDNAME=web", "not-root"),
    "undrain": (0, "VERB=undrain\nFDNAME=web", "not-root"),
    "unregister, by root": (0, "VERB=unregister\nFDNAME=web", "not-permitted"),
    "unregister, by the owner": (61001, "VERB=unregister\nFDNAME=web", "not-permitted"),
    "remove": (61001, "FDSTOREREMOVE=1\nFDNAME=web", "not-permitted"),
    "hold": (61001, "VERB=hold\nFDNAME=web\nTIMEOUT_USEC=0", "not-permitted"),
    "retrieve": (61001, "FDRETRIEVE=1\nFDNAME=web", "not-permitted"),
}


def test_a_program_that_writes_to_a_users_connection_asks_for_nothing_with_its_own_rights(broker, spawn):
    """Its standard output is what the user has given it, and its words are too: sudo, cron jobs, hooks."""
    broker.policy(section("web", 61001, everywhere(), "HoldSec=60")).start()
    web = spawn("web")
    web.open("tcp", "tcp", "127.0.0.1")
    assert web.register("tcp").result == "ok"
    before = broker.snapshot()
    for name, (uid, text, result) in DEPUTIES.items():
        with acting_as(own_uid(1)):
            connection = wire.Control(broker.control_path)
        with connection:
            as_output_of(uid, text, connection)
            reply = connection.receive()
            assert reply.result == result, (name, reply)
            assert f"uid {uid} asks this on a connection that uid {own_uid(1)} has made" in reply.message
    assert broker.snapshot() == before


def test_who_connects_as_root_and_asks_as_another_is_that_one(broker):
    broker.policy(section("web", 61001, everywhere())).start()
    with wire.Control(broker.control_path) as connection, socket.create_server(("127.0.0.1", 0)) as listener:
        with acting_as(61001):
            assert connection.request("FDSTORE=1\nFDNAME=web", [listener.fileno()]).result == "ok"
            assert connection.request("VERB=reload").result == "not-root"
            assert connection.request("FDSTOREREMOVE=1\nFDNAME=web").result == "ok"


def test_who_connects_as_another_still_registers_as_himself(broker):
    broker.policy(section("web", 61001, everywhere())).start()
    with acting_as(own_uid(1)):
        connection = wire.Control(broker.control_path)
    with connection, socket.create_server(("127.0.0.1", 0)) as listener, acting_as(61001):
        assert connection.request("FDSTORE=1\nFDNAME=web", [listener.fileno()]).result == "ok"


def register_for_ever(broker, uid, listener, progress):
    """A child that registers the same socket again and again; a byte for each answer."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os.setresuid(uid, uid, uid)
            with wire.Control(broker.control_path) as connection:
                while connection.request("FDSTORE=1\nFDNAME=web", [listener.fileno()]).result == "ok":
                    os.write(progress, b".")
        os._exit(0)
    return child


def test_a_service_that_registers_without_end_does_not_fill_the_journal(broker):
    """An entry of each kind says so at once, and one after the window how many there were."""
    broker.policy(section("web", 61001, listen("udp", "192.0.2.0/24", 53))).start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one, \
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other, wire.Control(broker.control_path) as connection:
        for sock in (one, other):
            sock.bind(("127.0.0.1", 0))  # a port that is none of the service's

        def register(sock):
            with acting_as(61001):
                return connection.request("FDSTORE=1\nFDNAME=web", [sock.fileno()])

        for i in range(1000):
            assert register((one, other)[i % 2]).result == "ok"
            broker.log()  # read, or what writes it stands still
        for kind in "register", "handover":
            broker.wait_log(f'web has 600 entries of kind "{kind}" in less than 30 s')
        log = broker.log()
        for kind in "register", "handover":
            assert len(re.findall(rf"^{kind}: .* serves ", log, re.M)) == 600
            assert log.count(f'web has 600 entries of kind "{kind}" in less than 30 s') == 1
        assert len(re.findall("^warn: ", log, re.M)) == 2, "once for each socket"
        assert broker.reload()[0] == 0
        assert register(one).warnings
        broker.wait_log("(?s)reload: .*warn: ")


def test_a_registration_cut_short_by_kill_leaves_one_registration_of_a_socket(broker):
    """Between the switch and the removal of the old slot the same socket is in two of them."""
    broker.policy(section("web", 61001, everywhere())).start()
    read, write = os.pipe()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for _ in range(12):
            child = register_for_ever(broker, 61001, listener, write)
            os.read(read, 1)
            broker.kill()
            os.waitpid(child, 0)
            broker.start()
            assert len(broker.list()) == 1
    os.close(read)
    os.close(write)
