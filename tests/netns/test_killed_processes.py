# SPDX-License-Identifier: LGPL-2.1-or-later
"""A process of the broker that dies before any of its calls costs at most the request that it was at. The broker
answers and serves, the next request is carried out, another process takes its place, and nothing is left behind.

What makes it busy is done again and again, and each time it is killed one call later (tests/support/fault_points.cc).
With SOCKBROKER_LONG=1 before every call, otherwise before some."""

import contextlib
import os
import signal
import socket
import threading
import time

import pytest

from harness import client, faults, kernel, long, pins, routes, silent_file, wire, worker
from harness.namespace import own_uid
from harness.pace import slowness
from harness.until import until
from holding import HELD, states
from words import ADDRESS, PORT, PREFIXES, add_routes, everywhere, section, who

MANAGER = "/run/manager"
PROCESSES = ("sb-zygote", "sb-door", "sb-intake", "sb-disposal", "names")
AT_ONCE = 2.0  # seconds for an answer, on a machine that is busy with other tests
NAMED = ("daemon", 1)  # an account that every Debian has


class Manager:
    """PID 1 as far as the broker and its holders speak to it: it keeps what it is given, and closes barriers."""

    def __init__(self):
        self.stored = {}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(MANAGER)
        os.chmod(MANAGER, 0o777)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        while True:
            data, fds, _, _ = socket.recv_fds(self._socket, 4096, 253)
            words = dict(line.partition("=")[::2] for line in data.decode().splitlines())
            if "END" in words:
                return
            if "READY" in words:
                self._ready.set()
            if "FDSTORE" in words:
                self.stored[words["FDNAME"]] = fds.pop()
            if "FDSTOREREMOVE" in words and words["FDNAME"] in self.stored:
                os.close(self.stored.pop(words["FDNAME"]))
            for fd in fds:
                os.close(fd)

    def start(self, broker):
        self._ready.clear()
        broker.start(until_ready=False)
        assert self._ready.wait(25), broker.log()

    def end(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"END=1", MANAGER)
        self._thread.join(10)
        for fd in self.stored.values():
            os.close(fd)
        self._socket.close()


class Slow(worker.Child):
    """A stranger, who sends to `notify` what takes a moment to close."""

    def __init__(self, uid):
        super().__init__()
        kernel.drop_privileges(uid, uid)
        silent_file.enter_namespaces()
        _, flushes = os.pipe2(os.O_NONBLOCK)
        self.file = silent_file.SilentFile(flush_after=0.06, flushes=flushes)

    def end(self):
        self.file.end()

    def send(self, count):
        for _ in range(count):
            wire.notify("/run/sockbroker/notify", "X=1", [self.file.fd])


class World:
    """A broker, services that it serves, and what each process is made busy with."""

    def __init__(self, broker, spawn, process):
        self.broker, self.spawn, self.process = broker, spawn, process
        self.points = faults.FaultPoints(process=process)
        self.manager = Manager()
        broker.environment = self.points.environment
        broker.before = ["env", f"NOTIFY_SOCKET={MANAGER}"]
        self.maker = self.slow = None
        own = ()
        if process == "sb-quarantine":
            silent_file.make_device()
            self.slow = worker.Worker(Slow, own_uid(7))
        if process == "sockbroker-routes":
            own = ("LocalRoutes=yes", "Announce=any")
            (broker.config / "sockbrokerd.conf").write_text("[Broker]\nAnnounceUpSec=0\n")
            self.maker = routes.RouteMaker(broker)
            self.maker.environment = self.points.environment
            self.maker.start()
        else:
            add_routes()
        broker.policy(section("web", 61001, everywhere(), *own) + section("held", 61002, everywhere(81), HELD)
                      + section("named", NAMED[0], everywhere(82)))
        self.start()
        self.web, self.named, self.stranger = spawn("web"), spawn("named", NAMED[1]), spawn("web", own_uid(3))
        for one in (self.web, self.named, self.stranger):
            one.open("tcp", "tcp", "127.0.0.1")
        self.web.open("udp", "udp", "127.0.0.1", PORT)
        for one, labels in ((self.web, ("tcp", "udp")), (self.named, ("tcp",))):
            assert one.register(*labels).result == "ok"
        self.settle()
        self.before = self.open_descriptors()

    def start(self):
        self.manager.start(self.broker)
        self.settle()

    def settle(self):
        """All processes are there, and none too many."""
        def counts():
            return [len(self.broker.helpers(name)) for name in PROCESSES]
        hands = min(max(os.cpu_count(), 2), 4)
        until(f"all processes: {PROCESSES}", lambda: counts() == [1, 1, hands, hands, 2])

    def open_descriptors(self):
        return len(os.listdir(f"/proc/{self.broker.process.pid}/fd"))

    # What keeps a process busy. Each may fail where that process dies in it, but for want of an answer.

    def intake(self):
        assert self.web.register("tcp", "udp").result == "ok"
        self.web.notify_and_wait("FDSTORE=1\nFDNAME=web", "udp")

    def disposal(self):
        """Refused on both sockets, and left unread in a connection that has ended."""
        assert self.stranger.register("tcp").result == "not-permitted"
        self.stranger.notify_and_wait("FDSTORE=1\nFDNAME=web", "tcp")
        self.left_unread()

    def left_unread(self):
        with socket.create_server(("127.0.0.1", 0)) as one, wire.Control(self.broker.control_path) as connection:
            connection.send("VERB=version", [one.fileno()])
            connection.send("VERB=version", [one.fileno()])

    def door(self):
        assert self.broker.ask("VERB=version").result == "ok"
        self.left_unread()
        assert self.web.register("tcp").result == "ok"

    def holder(self):
        """Registered, held, given back, and given up."""
        first, second = self.spawn("held", 61002), self.spawn("held", 61002)
        try:
            first.open("tcp", "tcp", "127.0.0.1")
            assert first.register("tcp").result == "ok"
            assert client.ask("tcp", ADDRESS["ipv4"], 81).name == "held"
            first.kill()
            until("it to be held, or lost", lambda: states(self.broker, "held") != ["live"])
            assert second.retrieve().result == "ok"
            assert client.ask("tcp", ADDRESS["ipv4"], 81).name == "held"
            assert self.broker.ask("VERB=unregister\nFDNAME=held").result == "ok"
        finally:
            first.kill()
            second.kill()
            self.broker.ask("VERB=unregister\nFDNAME=held")
            until("PID 1 to have forgotten it", lambda: not self.manager.stored)

    def names(self):
        """Of the two one answers, and the other puts another one in its place."""
        assert self.broker.reload()[0] == 0  # which asks again
        _, answers = self.broker.helpers("names")
        os.kill(answers, signal.SIGKILL)
        until("another one, or none", lambda: answers not in (now := self.broker.helpers("names")) and len(now) != 1)
        assert self.broker.reload()[0] == 0
        assert self.named.register("tcp").result == "ok"

    def zygote(self):
        """It forks another hand, and reaps the one before."""
        hand = self.broker.helpers("sb-intake")[0]
        os.kill(hand, signal.SIGKILL)
        until("another one", lambda: self.broker.process.poll() is not None
              or hand not in (now := self.broker.helpers("sb-intake")) and len(now) >= 2)
        assert self.web.register("tcp").result == "ok"

    def quarantine(self):
        """It takes what the slow one sends, but the first, and closes all of it in the end."""
        self.slow.send(2)
        until("a process that keeps it", lambda: self.broker.helpers("sb-quarantine"))
        self.slow.send(3)
        self.web.notify_and_wait("FDSTORE=1\nFDNAME=web", "udp")

    def routes(self):
        """Announced, and withdrawn."""
        assert self.web.register("tcp").result == "ok"
        self.announced_are(set(PREFIXES.values()))
        assert self.broker.ask("VERB=unregister\nFDNAME=web").result == "ok"
        self.announced_are(set())

    def announced_are(self, prefixes):
        until("its routes", lambda: routes.announced() == prefixes or self.maker.process.poll() is not None)

    # What must hold after each death.

    def repair(self):
        """What systemd does: a broker without its zygote has ended. Without who looks up names it goes on by what it
        knew, until it is started again."""
        if self.process == "sb-zygote" and self.has_no_zygote():  # and not one that it had just forked
            assert self.broker.process.wait(25) == 1
            self.start()
        elif self.process == "names" and not self.has_names():
            self.check_answers()
            self.broker.kill()
            self.start()
        elif self.process == "sockbroker-routes":
            self.maker.process.wait(25)
            self.check_answers()
            self.maker.start()
            self.announced_are(set(PREFIXES.values()))
            until("local routes", lambda: routes.local() == set(PREFIXES.values()))

    def has_no_zygote(self):
        """It may be on its way out still."""
        def gone():
            try:
                return not self.broker.helpers("sb-zygote")
            except FileNotFoundError:
                return True
        with contextlib.suppress(AssertionError):
            until("it to be gone", gone, 1)
        return gone()

    def has_names(self):
        with contextlib.suppress(AssertionError):
            until("both", lambda: len(self.broker.helpers("names")) == 2, 2)
        return bool(self.broker.helpers("names"))

    def check_answers(self):
        began = time.monotonic()
        assert self.broker.ask("VERB=version").result == "ok"
        assert self.web.register("tcp", "udp").result == "ok"
        assert self.named.register("tcp").result == "ok"
        took = time.monotonic() - began
        assert took < AT_ONCE or took < AT_ONCE * slowness()
        assert who("tcp", "ipv4") == who("udp", "ipv4") == "web"
        assert who("tcp", "ipv4", 82) == "named"

    def check(self):
        self.check_answers()
        self.settle()
        folder = self.broker.bpffs / "dispatch"
        noted = pins.records(folder)
        assert {slot: cookie for slot, (_, cookie, _) in noted.items()} == pins.sockets(folder)
        assert sorted(noted.values()) == sorted((row["service"], row["cookie"], row["uid"])
                                                for row in self.broker.list())
        assert {row["service"] for row in self.broker.list()} == {"web", "named"}

    def end(self):
        until("descriptors to be closed", lambda: self.open_descriptors() <= self.before + 2)
        for name in ("sb-holder", "sb-quarantine"):
            until(f"the last {name} to end", lambda name=name: not self.broker.helpers(name))
        self.broker.stop()
        until("nothing to be left", lambda: not self.broker.processes())


@pytest.fixture(name="world")
def _world(broker, spawn, request):
    made = World(broker, spawn, request.param)
    yield made
    made.manager.end()
    if made.slow is not None:
        made.slow.end()
        made.slow.kill()
    if made.maker is not None:
        made.maker.discard()


def rounds(world, act, step):
    """How many times it died."""
    killed, number = 0, 1
    while True:
        world.points.arm(kill_at=number)
        # TimeoutError, which is an OSError too, is never the answer.
        try:
            act()
        except TimeoutError:
            raise
        except (OSError, AssertionError):
            pass
        with contextlib.suppress(AssertionError):
            until("the last calls", lambda: world.points.count() >= number, 0.5)
        names = world.points.disarm()
        if len(names) < number:
            return killed
        killed += 1
        try:
            world.repair()
            world.check()
        except AssertionError as error:
            raise AssertionError(f"{world.process} died before call {number}: {names[-6:]}") from error
        number += 1 if long.LONG else step


# Before every so many calls, and how often at least.
@pytest.mark.parametrize("world,step,least", [("sb-intake", 9, 3), ("sb-disposal", 9, 3), ("sb-door", 13, 3),
                                              ("sb-holder", 13, 3), ("names", 5, 2), ("sb-zygote", 9, 3),
                                              ("sb-quarantine", 7, 3),
                                              ("sockbroker-routes", 4, 2)],
                         indirect=["world"])
def test_a_process_that_dies_at_any_point_costs_a_request_at_most(world, step, least):
    act = getattr(world, world.process.rpartition("-")[2])
    killed = rounds(world, act, step)
    print(f"{world.process}: died {killed} times")
    assert killed >= least
    act()
    world.check()
    world.end()
