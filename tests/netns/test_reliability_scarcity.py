# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is lost while somebody means harm, or while there is too little of something: further rows of
docs/reliability.md."""

import contextlib
import os
import resource
import signal
import socket


from harness import kernel, namespace, wire
from harness.reliability import CONNECTIONS, rounds
from harness.until import until
from stage import OTHER, WEB, Stage
from words import everywhere, listen, section


def children_of(uid, *loops):
    """A process for each endless loop."""
    pids = []
    for loop in loops:
        pids.append(os.fork())
        if pids[-1] == 0:
            with contextlib.suppress(BaseException):
                kernel.die_with_parent(signal.SIGKILL)
                os.setresuid(uid, uid, uid)
                kernel.die_with_parent(signal.SIGKILL)
                while True:
                    with contextlib.suppress(OSError):
                        loop()
            os._exit(1)
    return pids


@contextlib.contextmanager
def hostile(*loops):
    pids = children_of(namespace.own_uid(), *loops)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def many_descriptors(broker):
    def send():
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer, socket.create_server(("127.0.0.1", 0)) as one:
            peer.connect(broker.notify_path)
            while True:
                socket.send_fds(peer, [b"FDSTORE=1\nFDNAME=web"], [one.fileno()] * 253)

    return send


def requests_without_a_reader(broker):
    def send():
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(wire.Control(broker.control_path)) for _ in range(32)]
            for number in range(1000):
                peers[number % 32].sock.setblocking(False)
                peers[number % 32].send("VERB=list" if number % 2 else "X" * 5000)

    return send


def answers(broker):
    """Without a free descriptor it closes the connection, or says `malformed`: it cannot tell who asks."""
    try:
        return broker.ask("VERB=version").result == "ok"
    except ConnectionError:
        return False


def test_flood_by_hostile_peers_and_descriptors_exhausted(stage):
    broker = stage.broker
    with hostile(many_descriptors(broker), requests_without_a_reader(broker)):
        stage.during("flood", "two hostile processes flood both sockets; registrations go on", rounds(2, 20),
                     lambda _: stage.now.register(*stage.now.labels(), service="web"))
        limit = resource.prlimit(broker.process.pid, resource.RLIMIT_NOFILE)
        used = os.listdir(f"/proc/{broker.process.pid}/fd")
        free = next(number for number in range(limit[0]) if str(number) not in used)
        resource.prlimit(broker.process.pid, resource.RLIMIT_NOFILE, (free, limit[1]))
        until("a client that the broker has no descriptor for", lambda: not answers(broker))
        stage.during("descriptors", "the broker has no free descriptor, two hostile processes flood both sockets", 1,
                     lambda traffic: traffic.more(CONNECTIONS))
    resource.prlimit(broker.process.pid, resource.RLIMIT_NOFILE, limit)
    until("an answer", lambda: answers(broker))
    stage.now = stage.instance()
    assert broker.serving()["web", "tcp", "ipv4"] == stage.now.facts("tcp-ipv4")[1]


def test_maps_full(broker, spawn, remote):
    (broker.config / "sockbrokerd.conf").write_text("[Broker]\nMaxBindings=16\nMaxServices=3\nMaxSockets=9\n")
    # They share: one that is displaced would make room for those that serve.
    stage = Stage(broker, spawn, remote, section("web", 61001, everywhere(), "Handover=share"))
    greedy = spawn("web-greedy")
    greedy.for_load()
    results = []
    while len(results) < 4:  # of nine places six are taken
        label = f"tcp-{len(results)}"
        greedy.open(label, "tcp", "127.0.0.1")
        results.append(greedy.register(label, service="web").result)
        if results[-1] != "ok":
            greedy.close(label)  # nobody will come
    assert results == ["ok", "ok", "ok", "quota"]

    def more(_):
        one = stage.new()
        one.open("tcp", "tcp", "127.0.0.1")
        assert one.register("tcp", service="web").result == "quota"
        one.kill()
        broker.policy(WEB + OTHER + section("more", 61003, *[listen("tcp", f"203.0.{i}.0/24") for i in range(20)]))
        assert broker.reload()[0] != 0

    stage.during("maps-full", "the maps are full: sockets refused by quota, a policy refused by `MaxBindings=`",
                 rounds(2, 20), more)
