# SPDX-License-Identifier: LGPL-2.1-or-later
"""The control plane of the real broker: what a load consists of, registrations, memory."""

import collections
import json
import os
import pathlib
import random
import resource
import socket
import threading
import time

from traffic import rounds
from harness import broker, exporter, kernel, namespace, wire, worker
from harness.broker import BUILD

UID = 61001
MILLION = 1000000
REQUEST = b"FDSTORE=1\nFDNAME=bench"


def policy_of(bindings, seed=1):
    """Host prefixes in no order, one service, and one binding that what is registered needs."""
    numbers = random.Random(seed).sample(range(1 << 24), bindings - 1)
    lines = [f"ListenStream=20.{n >> 16}.{n >> 8 & 255}.{n & 255}/32:443\n" for n in numbers]
    return f"[Service bench]\nUser={UID}\nListenStream=192.0.2.0/24:443\n" + "".join(lines)


def load_parts(sizes, repeats):
    """Parse, compile, write, each by itself, and two-LPM's updates; see load_bench.cc."""
    os.mkdir("/run/load")
    kernel.mount("bpf", "/run/load", "bpf", 0, "mode=0755")
    result = []
    for size in sizes:
        pins = f"/run/load/{size}"
        os.mkdir(pins, 0o700)
        result.append(json.loads(namespace.run(str(BUILD / "tests/bench/traffic/load_bench"), pins, str(size),
                                               str(repeats))))
    return result


class Started:
    """A broker with a capacity, for a with statement, whose bpffs and files are gone with the namespaces."""

    def __init__(self, bindings=None, text=None):
        self.broker = broker.Broker()
        if bindings is not None:
            (self.broker.config / "sockbrokerd.conf").write_text(f"[Broker]\nMaxBindings={bindings}\n")
        self.broker.policy(text or policy_of(1))

    def __enter__(self):
        return self.broker.start()

    def __exit__(self, *_):
        self.broker.discard()


def _status(pid, key):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        for line in file:
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
    return 0


def memory(pid):
    """Resident bytes, and those that only this process has: programs and libraries are not among them."""
    return {"resident": _status(pid, "VmRSS"), "anonymous": _status(pid, "RssAnon")}


def map_bytes(pid):
    """Of all BPF maps that the process holds, as the kernel accounts for them."""
    total, seen = 0, set()
    for name in os.listdir(f"/proc/{pid}/fdinfo"):
        with open(f"/proc/{pid}/fdinfo/{name}", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file.read().splitlines() if ":" in line)
        if "map_id" in fields and fields["map_id"] not in seen:
            seen.add(fields["map_id"])
            total += int(fields["memlock"])
    return total


def cpu_seconds(pid):
    """User and system time of all threads, in ns resolution where the kernel has it."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as file:
            total += int(file.read().split()[0])
    return total / 1e9


def with_descendants(pid):
    """The broker's process and those that work for it, as they are just now."""
    found = [pid]
    for one in found:
        for task in os.listdir(f"/proc/{one}/task"):
            with open(f"/proc/{one}/task/{task}/children", encoding="ascii") as file:
                found += map(int, file.read().split())
    return found


def drain_log(made, stop):
    """Its standard error is read, as journald would, so that it never waits for us."""
    while not stop.wait(0.05):
        made.log()


class _Registrant(worker.Child):
    def __init__(self, path):
        super().__init__()
        kernel.drop_privileges(UID, UID)
        self.control = wire.Control(path)
        self.sockets = [socket.create_server(("127.0.0.1", 0))]

    def _one(self, window, in_flight, sock):
        """in_flight: the sockets whose answers have not come; each stays open until then."""
        socket.send_fds(self.control.sock, [REQUEST], [sock.fileno()])
        in_flight.append(sock)
        if len(in_flight) == window:
            self._answer_one(in_flight)

    def _answer_one(self, in_flight):
        self._answer()
        answered = in_flight.popleft()
        if answered not in self.sockets:
            answered.close()

    def _answer(self):
        reply = self.control.receive()
        if reply.result != "ok":
            raise RuntimeError(f"a registration was refused: {dict(reply)}")

    def many(self, seconds, new, window=32):
        """Registers without a pause, the same socket or a new one each time; returns (registrations, seconds)."""
        begin = time.monotonic()
        done, in_flight = 0, collections.deque()
        while time.monotonic() - begin < seconds:
            for _ in range(32):
                self._one(window, in_flight, socket.create_server(("127.0.0.1", 0)) if new else self.sockets[0])
                done += 1
        while in_flight:
            self._answer_one(in_flight)
        return done, time.monotonic() - begin

    def latencies(self, pause=0.001, least=200, stop_path=None):
        """Of one registration after another, until the file is there; in seconds."""
        result = []
        while len(result) < least or (stop_path and not os.path.exists(stop_path)):
            begin = time.perf_counter()
            self.control.send(REQUEST, [self.sockets[0].fileno()])
            self._answer()
            result.append(time.perf_counter() - begin)
            time.sleep(pause)
        return result


    def one_of_each(self, services):
        """A live socket of each service; their sockets stay open until the broker and this process end."""
        for name in services:
            self.sockets.append(socket.create_server(("127.0.0.1", 0)))
            self.control.send(f"FDSTORE=1\nFDNAME={name}", [self.sockets[-1].fileno()])
            self._answer()


class _Crowd(worker.Child):
    """Clients of one user, each with a connection of its own, who register a new socket as soon as the one before has
    its answer."""

    def __init__(self, path, uid, clients):
        super().__init__()
        kernel.drop_privileges(uid, uid)
        self.controls = [wire.Control(path) for _ in range(clients)]
        self.sockets = [None] * clients

    def _ask(self, number):
        self.sockets[number] = socket.create_server(("127.0.0.1", 0))
        self.controls[number].send(REQUEST, [self.sockets[number].fileno()])

    def _answer(self, number):
        reply = self.controls[number].receive()
        if reply.result != "ok":
            raise RuntimeError(f"a registration was refused: {dict(reply)}")
        self.sockets[number].close()

    def many(self, seconds):
        """Returns how many were registered."""
        begin = time.monotonic()
        done = 0
        for number in range(len(self.controls)):
            self._ask(number)
        while time.monotonic() - begin < seconds:
            for number in range(len(self.controls)):
                self._answer(number)
                self._ask(number)
                done += 1
        for number in range(len(self.controls)):
            self._answer(number)
        return done + len(self.controls)


def _registrant(made):
    return worker.Worker(_Registrant, made.control_path)


class _Beside:
    """Registrations one after another for the time of a with statement; `latencies` is there afterwards."""

    def __init__(self, one):
        self._one = one
        self._stop = pathlib.Path("/run/stop")
        self.latencies = []

    def __enter__(self):
        self._one.connection.send(("latencies", (), {"stop_path": str(self._stop)}))
        return self

    def __exit__(self, *_):
        self._stop.touch()
        self.latencies = self._one._result("latencies", 120)  # pylint: disable=protected-access


def registrations(seconds, count):
    """A second, by wall clock and by CPU second of the broker; a registrant on the other processor keeps it busy."""
    result = {}
    with Started() as made:
        stop = threading.Event()
        reader = threading.Thread(target=drain_log, args=(made, stop))
        one = _registrant(made)
        reader.start()
        try:
            for kind, new in (("same socket", False), ("new socket each", True)):
                wall, cpu = [], []
                for _ in range(count):
                    before = cpu_seconds(made.process.pid)
                    done, took = one.many(seconds, new)
                    cpu.append(done / (cpu_seconds(made.process.pid) - before))
                    wall.append(done / took)
                result[kind] = {"wall": rounds.spread(wall), "cpu": rounds.spread(cpu)}
        finally:
            stop.set()
            reader.join()
            one.kill()
    return result


CROWD = {"daemon": 1, "bin": 2}  # two users, since each may have 32 connections


def registrations_of_a_crowd(by_name, seconds, count):
    """A second, of 64 clients at once, and by CPU second of the broker and all processes that work for it."""
    users = CROWD if by_name else CROWD.values()
    with Started(text=policy_of(1).replace(f"User={UID}", "User=" + " ".join(map(str, users)))) as made:
        stop = threading.Event()
        reader = threading.Thread(target=drain_log, args=(made, stop))
        crowds = [worker.Worker(_Crowd, made.control_path, uid, 32) for uid in CROWD.values()]
        reader.start()
        try:
            wall, cpu = [], []
            for _ in range(count):
                processes = with_descendants(made.process.pid)
                before, begin = sum(map(cpu_seconds, processes)), time.monotonic()
                for crowd in crowds:
                    crowd.connection.send(("many", (seconds,), {}))
                done = sum(crowd._result("many", 120) for crowd in crowds)  # pylint: disable=protected-access
                wall.append(done / (time.monotonic() - begin))
                cpu.append(done / (sum(map(cpu_seconds, processes)) - before))
        finally:
            stop.set()
            reader.join()
            for crowd in crowds:
                crowd.kill()
    return {"wall": rounds.spread(wall), "cpu": rounds.spread(cpu)}


def _percentiles(values):
    ordered = sorted(values)
    return {"count": len(ordered), "median_ms": ordered[len(ordered) // 2] * 1e3,
            "p99_ms": ordered[int(len(ordered) * 0.99)] * 1e3, "max_ms": ordered[-1] * 1e3}


def latency_beside_reload(bindings, reloads):
    """One registration after another while policies of so many bindings take turns."""
    texts = [policy_of(bindings, seed) for seed in (1, 2)]
    with Started(bindings, texts[0]) as made:
        one = _registrant(made)
        try:
            quiet = one.latencies()
            took = []
            with _Beside(one) as beside:
                for number in range(reloads):
                    made.policy(texts[(number + 1) % 2])
                    begin = time.monotonic()
                    status, output = made.reload()
                    if status != 0:
                        raise RuntimeError(f"the reload was refused: {output}")
                    took.append(time.monotonic() - begin)
                    made.log()
        finally:
            one.kill()
    return {"bindings": bindings, "reload_s": rounds.spread(took), "quiet": _percentiles(quiet),
            "beside": _percentiles(beside.latencies)}


def latency_beside_scrapes(services, scrapes):
    """One registration after another while sockbroker-exporter is asked ten times a second at most; each service has a
    socket."""
    names = [f"s{number}" for number in range(services)]
    policy = policy_of(1) + "".join(f"[Service {name}]\nUser={UID}\nListenStream=10.{i >> 8}.{i & 255}.0/24:80\n"
                                    for i, name in enumerate(names))
    with Started(text=policy) as made:
        one = _registrant(made)
        stop = threading.Event()
        reader = threading.Thread(target=drain_log, args=(made, stop))
        reader.start()
        try:
            one.one_of_each(names)
            with exporter.started(made) as url:
                exporter.scrape(url)
                quiet = one.latencies(least=scrapes * 50)
                took = []
                with _Beside(one) as beside:
                    for _ in range(scrapes):
                        begin = time.monotonic()
                        exporter.scrape(url)
                        took.append(time.monotonic() - begin)
                        time.sleep(0.1)
        finally:
            stop.set()
            reader.join()
            one.kill()
    return {"services": services, "scrape_ms": rounds.spread([1e3 * seconds for seconds in took]),
            "longest_scrape_ms": 1e3 * max(took), "quiet": _percentiles(quiet),
            "beside": _percentiles(beside.latencies)}


def _longest_answer(path, stop_path):
    """Of one trivial request after another, until the file is there; in seconds."""
    longest = 0
    control = wire.Control(path)
    while not os.path.exists(stop_path):
        begin = time.perf_counter()
        control.send("VERB=version")
        control.receive()
        longest = max(longest, time.perf_counter() - begin)
        time.sleep(0.0005)
    return longest


class _Asking(worker.Child):
    def longest(self, path, stop_path):
        return _longest_answer(path, stop_path)


def _longest_beside_reload(made, text, name):
    """In ms, of the trivial requests while the broker reloads this policy. The name is new for each call."""
    made.policy(text)
    stop = f"/run/stop-{name}"
    asking = worker.Worker(_Asking)
    try:
        asking.connection.send(("longest", (made.control_path, stop), {}))
        time.sleep(0.2)
        status, output = made.reload()
        if status != 0:
            raise RuntimeError(f"the reload was refused: {output}")
        time.sleep(0.2)
        pathlib.Path(stop).touch()
        return 1e3 * asking._result("longest", 120)  # pylint: disable=protected-access
    finally:
        asking.kill()
        made.log()


def pauses(services, repeats):
    """The longest wait for an answer while so many services come, half of them go, and the others."""
    one_each = "".join(f"[Service s{i}]\nUser=1\nListenStream=10.{i >> 8}.{i & 255}.0/24:80\n" for i in range(services))
    half = one_each[:one_each.index(f"[Service s{services // 2}]")]
    result = {"come": [], "half go": [], "go": []}
    started = Started(text=policy_of(1))
    (started.broker.config / "sockbrokerd.conf").write_text("[Broker]\nMaxBindings=200000\nMaxServices=65536\n")
    with started as made:
        for number in range(repeats):
            for name, text in (("come", one_each), ("half go", half), ("go", policy_of(1))):
                result[name].append(_longest_beside_reload(made, text, f"{name}-{number}"))
    return {"services": services, "longest_ms": {name: rounds.spread(each) for name, each in result.items()},
            "longest_of_all_ms": max(max(each) for each in result.values())}


def pauses_for_names(services, sockets, names, repeats):
    """The longest wait for an answer beside a reload that asks whether each of so many sockets of each service may
    stay: all of its names of User= but the last, which admits, are nobody's."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    nobody = "".join(f"User=nosuch{i}\n" for i in range(names - 1))
    text = "".join(f"[Service s{i}]\n{nobody}User=root\nHandover=share\nListenStream=10.{i}.0.0/16:80\n"
                   for i in range(services))
    started = Started(text=text)
    (started.broker.config / "sockbrokerd.conf").write_text("[Broker]\nMaxSockets=16384\n")
    with started as made, wire.Control(made.control_path) as one:
        ours = [[socket.create_server(("127.0.0.1", 0)) for _ in range(sockets)] for _ in range(services)]
        for number, each in enumerate(ours):
            one.send(f"FDSTORE=1\nFDNAME=s{number}", [sock.fileno() for sock in each])
            reply = one.receive()
            if reply.result != "ok":
                raise RuntimeError(f"a registration was refused: {dict(reply)}")
        longest = [_longest_beside_reload(made, text, f"names-{number}") for number in range(repeats)]
    return {"sockets": services * sockets, "names": names, "longest_ms": rounds.spread(longest),
            "longest_of_all_ms": max(longest)}


def footprint(bindings, capacity=None):
    """Memory of the broker and of its maps after a start with so many bindings."""
    with Started(capacity, policy_of(bindings)) as made:
        made.ask("VERB=version")
        settled = memory(made.process.pid)
        return {"bindings": bindings, "capacity": capacity or 65536, **settled,
                "maps": map_bytes(made.process.pid)}
