# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is lost: connections and queries from the same host and from another one, as many as the machine takes, while
something happens to the service, the policy or the broker. The rows of docs/reliability.md that need no systemd."""

import contextlib
import os
import random
import re
import resource
import signal
import socket
import time

import pytest

from harness import broker as broker_module
from harness import kernel, namespace, pins, wire
from harness.load import Load
from harness.reliability import CONNECTIONS, Traffic, failures, nothing_lost, record, rounds
from harness.until import until
from waiting import pass_on
from words import ADDRESS, LOOPBACK, PORT, add_routes, everywhere, listen, section

GROUP = 7100  # TCP listeners of all instances, one SO_REUSEPORT group
OTHER = section("other", 61002, listen("tcp", "198.51.100.0/24"), listen("udp", "198.51.100.0/24"))
WEB = section("web", 61001, everywhere())
TARGETS = [(protocol, address, PORT, "web") for protocol in ("tcp", "udp") for address in ADDRESS.values()] + [
    (protocol, "198.51.100.9", PORT, "other") for protocol in ("tcp", "udp")]


class Stage:
    """A broker, a service `web` whose instances take turns, and one that stays as it is."""

    def __init__(self, broker, spawn, remote, web=WEB):
        add_routes()
        namespace.add_local_routes("198.51.100.0/24")
        self.broker, self.spawn, self.remote = broker, spawn, remote
        self.number = 0
        broker.policy(web + OTHER).start()
        other = spawn("other", 61002)
        other.for_load()
        for protocol in ("tcp", "udp"):
            other.open(protocol, protocol, "127.0.0.2", PORT)
        assert other.register(*other.labels()).result == "ok"
        self.now = self.instance()

    def new(self):
        self.number += 1
        one = self.spawn(f"web-{self.number}")
        one.for_load()
        return one

    def instance(self):
        """The next instance of web, with sockets of its own, which are handed over in one message, and with the
        migration program."""
        one = self.new()
        for family, address in LOOPBACK.items():
            one.open(f"tcp-{family}", "tcp", address, GROUP, reuseport=True)
            one.open(f"udp-{family}", "udp", address, PORT, reuseport=True)
        assert one.register_migrating(*one.labels(), service="web")[0].result == "ok"
        return one

    def traffic(self, targets=None, **options):
        """Of a client on the same host, and of another one."""
        return Traffic(Load(targets or TARGETS, **options), Load(targets or TARGETS, self.remote.pid, **options))

    def during(self, row, event, times, act):
        """The event again and again, connections and queries all the while: none fails."""
        with self.traffic() as traffic:
            traffic.more(50)
            for _ in range(times):
                act(traffic)
                traffic.more(CONNECTIONS // times)
            nothing_lost(row, event, traffic.end(), times)


@pytest.fixture(name="stage")
def _stage(broker, spawn, remote):
    return Stage(broker, spawn, remote)


# Hand-over.


def test_hand_over_where_the_old_listener_closes_at_once_and_migrates(stage):
    namespace.sysctl("net/ipv4/tcp_migrate_req", 0)

    def hand_over(_):
        old, stage.now = stage.now, stage.instance()
        labels = old.labels()
        old.finish_load(*labels)  # what it has accepted, and for UDP what its queue holds
        for label in labels:
            old.close(label)
        old.kill()

    stage.during("hand-over-migrate", "hand-over, the old instance closes at once; one `SO_REUSEPORT` group, "
                 "with the migration program", rounds(4, 50), hand_over)


def test_hand_over_where_the_old_one_accepts_until_it_has_drained(stage):
    def hand_over(_):
        old, stage.now = stage.now, stage.instance()
        status, said = stage.broker.ctl("wait", "web", "--for=drained", "--timeout=60s")
        assert status == 0, said
        old.finish_load(*old.labels())
        old.kill()

    stage.during("hand-over-drain", "hand-over, the old instance accepts until `sockbrokerctl wait --for=drained` is "
                                    "over",
                 rounds(1, 5), hand_over)


def test_hand_over_of_the_same_socket(stage):
    def hand_over(_):
        old, stage.now = stage.now, stage.new()
        labels = old.labels()
        for label in labels:
            pass_on(old, stage.now, label)
        assert stage.now.register(*labels, service="web").result == "ok"
        old.finish_load(*labels)
        old.kill()

    stage.during("hand-over-same", "hand-over, the same socket is passed on", rounds(4, 50), hand_over)


# Policy.


def test_policy_reload_taken_and_refused(stage):
    number = iter(range(1 << 30))

    def reload(_):
        more = section("more", 61003, *[listen("tcp", f"203.0.{i}.0/24", 1 + next(number)) for i in range(50)])
        stage.broker.policy(WEB + OTHER + more)
        assert stage.broker.reload()[0] == 0

    def reload_error(_):
        stage.broker.policy(WEB + OTHER + "Nonsense=1\n")
        assert stage.broker.reload()[0] != 0

    stage.during("reload", "policy reload, 50 other bindings each time", rounds(5, 200), reload)
    stage.during("reload-error", "policy reload that is refused", rounds(5, 200), reload_error)


# The broker.


def test_broker_restarted_stopped_and_killed(stage):
    def restart(_):
        stage.broker.stop()
        stage.broker.start()

    def stop_and_start(traffic):
        stage.broker.stop()
        traffic.more(CONNECTIONS // 10)
        stage.broker.start()

    def kill(traffic):
        stage.broker.kill()
        traffic.more(CONNECTIONS // 10)
        stage.broker.start()

    stage.during("restart", "broker restarted", rounds(1, 20), restart)
    stage.during("stop-start", "broker stopped, started later", rounds(1, 20), stop_and_start)
    stage.during("kill", "broker killed (`kill -9`), started later", rounds(1, 20), kill)


def test_broker_killed_at_random_again_and_again(stage):
    """At its start, in the midst of it, while it takes registrations and a policy."""
    chance = random.Random(4)
    before = sorted(line["cookie"] for line in stage.broker.list())

    def kill(_):
        stage.broker.kill()
        stage.broker.start(until_ready=False)
        time.sleep(chance.uniform(0, 0.6))  # the moment of death, whatever the broker is at by then
        if chance.random() < 0.5:
            stage.broker.policy(WEB + OTHER
                                + section("more", 61003, listen("tcp", "203.0.113.0/24", chance.randint(1, 99))))

    times = rounds(4, 200)
    with stage.traffic() as traffic:
        for _ in range(times):
            kill(traffic)
            traffic.more(CONNECTIONS // times)
        stage.broker.kill()
        stage.broker.start()
        traffic.more(50)
        nothing_lost("kill-random", "broker killed at random moments of its start and work, in a row", traffic.end(),
                     times)
    assert sorted(line["cookie"] for line in stage.broker.list()) == before


@pytest.mark.skipif("SOCKBROKER_TRIAL" in os.environ, reason="another build is made from the broker itself, not of a "
                                                             "trial")
def test_upgrade(stage):
    """Another build: same source, another version. Its program takes the place of the running one in the link."""
    old = (broker_module.BUILD / "sockbrokerd").read_bytes()
    version = stage.broker.ask("VERB=version").lines[0]["version"]
    word = re.compile(rb"(?<!_)" + re.escape(version.encode()) + rb"\0")  # not libbpf's, LIBBPF_0.1.0
    assert word.search(old)
    other = version[:-1] + ("8" if version[-1] == "9" else "9")
    with open("/run/sockbrokerd", "wb") as file:
        file.write(word.sub(other.encode() + b"\0", old))
    os.chmod("/run/sockbrokerd", 0o755)
    programs = ["/run/sockbrokerd", broker_module.BUILD / "sockbrokerd"]
    seen, loaded = [], set()

    def upgrade(_):
        stage.broker.stop()
        stage.broker.program = programs[len(seen) % 2]
        stage.broker.start()
        seen.append(stage.broker.ask("VERB=version").lines[0]["version"])
        loaded.add(pins.program_of_link(stage.broker.bpffs / "dispatch"))

    stage.during("upgrade", "upgrade: stopped, another build started, program replaced by link update", rounds(2, 20),
                 upgrade)
    assert seen[:2] == [other, version] and len(loaded) == len(seen), "each brought a program of its own"


# Those that mean harm, and scarcity.


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


# The service.


HELD = section("web", 61001, everywhere(), "HoldSec=30")


def go_away_and_come_back(stage):
    """The service has ended; the next instance, a tenth of a second later, asks the broker for its sockets."""
    stage.now.kill()
    time.sleep(0.1)
    stage.now = stage.new()
    deadline = time.monotonic() + 15
    while (reply := stage.now.retrieve("web")).result != "ok":
        assert reply.result == "not-held" and time.monotonic() < deadline, reply  # its end is not noticed yet


def test_service_restarted_with_hold(broker, spawn, remote):
    """It answers what it has accepted, and ends without a thought for what is in its queues."""
    stage = Stage(broker, spawn, remote, HELD)

    def restart(_):
        stage.now.finish_accepted(*stage.now.labels())
        go_away_and_come_back(stage)

    stage.during("hold-restart", "service restarted, away for 100 ms, `HoldSec=30`", rounds(3, 50), restart)


def test_service_killed_with_hold(broker, spawn, remote):
    """Lost is at most what it had accepted or read and not answered; whoever waits in its queues is served by the
    next."""
    stage = Stage(broker, spawn, remote, HELD)
    times = rounds(3, 50)
    with stage.traffic() as traffic:
        traffic.more(50)
        for _ in range(times):
            go_away_and_come_back(stage)
            traffic.more(CONNECTIONS // times)
        result = traffic.end()
    record("hold-killed", "service killed (`kill -9`), away for 100 ms, `HoldSec=30`", result, times, promised=False)
    failed = failures(result)
    assert set(failed.get("tcp", {})) <= {"short", "reset"} and set(failed.get("udp", {})) <= {"timed_out"}, failed
    assert sum(failed.get("tcp",
                          {}).values()) <= times * 2 * 16 and sum(failed.get("udp", {}).values()) <= times * 2, failed


def no_limit_on_icmp():
    """By default the kernel tells a client of closed UDP ports no more than one a second; here each answer is
    counted."""
    namespace.sysctl("net/ipv4/icmp_ratelimit", 0)
    namespace.sysctl("net/ipv6/icmp/ratelimit", 0)
    for name in ("icmp_msgs_per_sec", "icmp_msgs_burst"):
        if os.path.exists(f"/proc/sys/net/ipv4/{name}"):
            namespace.sysctl(f"net/ipv4/{name}", 1_000_000)


def test_service_killed_without_hold_is_refused_at_once_and_hangs_nobody(stage):
    """Lost is what had reached the dead one; who comes later is refused. Nobody waits, until the next one serves."""
    no_limit_on_icmp()
    times, window = rounds(1, 20), 16
    with stage.traffic(window=window, timeout=2) as traffic:
        traffic.more(50)
        for _ in range(times):
            stage.now.kill()
            traffic.more(CONNECTIONS // times)
            stage.now = stage.instance()
            traffic.until_answered_by(f"web-{stage.number}")
            traffic.more(CONNECTIONS // times)
        result = traffic.end()
    record("service-killed", "service killed, another instance started later, no `HoldSec=`", result, times,
           promised=False)
    failed = failures(result)
    # Those that it had accepted end (short), those in its queue are reset.
    assert set(failed["tcp"]) <= {"refused", "reset", "short"} and failed["tcp"]["refused"] > 0, failed
    assert failed["tcp"].get("reset", 0) + failed["tcp"].get("short", 0) <= times * 2 * window
    # A datagram that the dead one had not read is lost, as in any queue; the client cannot be told.
    assert set(failed["udp"]) <= {"refused", "timed_out"} and failed["udp"]["refused"] > 0, failed
    assert failed["udp"].get("timed_out", 0) <= times * 2 * window


def packets(pid):
    """What the host of that process has sent and got: (TCP segments sent, received, sent again, ICMP errors
    received)."""
    with open(f"/proc/{pid}/net/snmp", encoding="ascii") as file:
        lines = [line.split() for line in file]
    counters = {f"{names[0]}{name}": int(value) for names, values in zip(lines[::2], lines[1::2])
                for name, value in zip(names[1:], values[1:])}
    with open(f"/proc/{pid}/net/snmp6", encoding="ascii") as file:
        six = dict(line.split() for line in file)
    return [counters["Tcp:OutSegs"], counters["Tcp:InSegs"], counters["Tcp:RetransSegs"],
            counters["Icmp:InDestUnreachs"] + int(six["Icmp6InDestUnreachs"])]


def test_without_hold_a_dead_services_clients_are_refused_within_one_round_trip(stage):
    """One packet there, one back: a SYN and a RST, a datagram and an ICMP error."""
    no_limit_on_icmp()
    stage.now.kill()
    before = packets(stage.remote.pid)
    with Traffic(Load(TARGETS[:4], stage.remote.pid)) as traffic:
        traffic.more(rounds(200, CONNECTIONS))
        result = traffic.end()
    sent, received, again, errors = (now - then for now, then in zip(packets(stage.remote.pid), before))
    record("refused", "no live socket, no `HoldSec=`: each is refused, one packet there and one back", result,
           promised=False)
    tcp, udp = result["tcp"], result["udp"]
    assert tcp["refused"] == tcp["begun"] == sent == received and again == 0, result
    assert udp["refused"] == udp["begun"] == errors, result
