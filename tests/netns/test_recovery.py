# SPDX-License-Identifier: LGPL-2.1-or-later
"""A broker that dies between any two changes of what outlives it leaves a state that the next start repairs.

Each scenario is carried out again and again, and each time the broker is killed one change later: a bpf(2) call, a
change of a file, a plain store into a pinned map. Clients then see the state before or the state after, never a third;
the next start comes up by itself, `list`, records and sockmap agree, and a registration works.
`tests/recovery` kills at every point and prints the table; here the longer scenarios leave some out.
"""

import os

import pytest

from harness import client, faults, pins
from words import PORT, add_routes, listen, section

PINS = {"meta", "arena", "tables", "services", "records", "counters", "sockets", "registrants", "names",
        "binding_counters", "counted", "slots", "flows", "replies", "questions", "answered", "units", "program",
        "link"} | {
        # What else a broker without capabilities opens.
        "probe", "migrate", "copy", "copy_result", "parking", "parking_result", "staging", "explain", "explain_trace",
        "answer_bind4", "answer_bind6", "answer_sendmsg4", "answer_sendmsg6", "grace", "grace_inner", "loaded",
        "notify", "unheard", "unheard_groups", "groups"}
PROGRAMS = {"program", "probe", "migrate", "copy", "parking", "explain", "answer_bind4", "answer_bind6",
            "answer_sendmsg4", "answer_sendmsg6", "notify"}
TABLE = os.environ.get("SOCKBROKER_RECOVERY_TABLE")  # a file: every point, and the table goes there
WEB, POOL, PROBE = 61001, 61002, 61003
# What clients ask.
TCP, UDP = ("tcp", "192.0.2.7", PORT), ("udp", "192.0.2.7", PORT)
SHARED, FIRST, SECOND = ("tcp", "192.0.2.8", 81), ("tcp", "192.0.2.9", 91), ("tcp", "192.0.2.9", 92)
GUEST, OTHER, CHECK = ("tcp", "192.0.2.10", 80), ("tcp", "192.0.2.11", 80), ("tcp", "192.0.2.12", 80)


def policy(number):
    """Two that differ in a rule of web, in which of two services there is, and in what is counted."""
    web = (listen("tcp", "192.0.2.7/32"), listen("udp", "192.0.2.7/32"), listen("tcp", "192.0.2.9/32", 90 + number))
    guest = section(f"guest-{number}", 61010 + number, listen("tcp", "192.0.2.10/31", 80),
                    "Accounting=binding" if number == 1 else "")
    return (section("web", WEB, *web) + section("pool", POOL, listen("tcp", "192.0.2.8/32", 81), "Handover=share")
            + guest + section("probe", PROBE, listen("tcp", "192.0.2.12/32", 80)))


class World:
    """A broker with fault points, and the services that use it. They outlive every broker."""

    def __init__(self, broker, spawn):
        self.broker, self.points = broker, faults.FaultPoints()
        broker.environment = self.points.environment
        self.sockets_limit = 24
        self.services = {}
        for name, uid in (("one", WEB), ("two", WEB), ("pool", POOL), ("guest", 61011), ("probe", PROBE)):
            self.services[name] = spawn(name, uid)
        for name in ("one", "two"):
            self.services[name].open("tcp", "tcp", "127.0.0.1")
            self.services[name].open("udp", "udp", "127.0.0.1", PORT, reuseport=True)
        for label in range(7):
            self.services["pool"].open(str(label), "tcp", "127.0.0.1")
        self.services["guest"].open("tcp", "tcp", "127.0.0.1")
        self.services["probe"].open("tcp", "tcp", "127.0.0.1")
        self.owners = {self.services[name].facts(label)[1]: uid for name, uid, labels in (
            ("one", WEB, ("tcp", "udp")), ("two", WEB, ("tcp", "udp")), ("pool", POOL, map(str, range(7))),
            ("guest", 61011, ("tcp",)), ("probe", PROBE, ("tcp",))) for label in labels}
        add_routes()
        self.number = 1
        self.configure()

    def configure(self):
        (self.broker.config / "sockbrokerd.conf").write_text(
            f"[Broker]\nMaxBindings=64\nMaxServices=6\nMaxSockets={self.sockets_limit}\nMaxAccountedBindings=4\n")
        self.broker.policy(policy(self.number))

    def start(self):
        self.broker.start()

    def register(self, name, *labels, service):
        reply = self.services[name].register(*labels, service=service)
        assert reply.result == "ok", reply

    def unregister(self, service):
        assert self.broker.ask(f"VERB=unregister\nFDNAME={service}").result in ("ok", "not-held")

    def answers(self, *questions):
        return tuple(answer(*question) for question in questions)

    def check(self):
        """What must hold after any start."""
        listed = self.broker.list()
        folder = self.broker.bpffs / "dispatch"
        sockets, noted = pins.sockets(folder), pins.records(folder)
        assert {slot: cookie for slot, (_, cookie, _) in noted.items()} == sockets, "a slot without an owner, or empty"
        assert sorted(noted.values()) == sorted((line["service"], line["cookie"], line["uid"]) for line in listed)
        assert len({line["cookie"] for line in listed}) == len(listed)
        assert all(self.owners[line["cookie"]] == line["uid"] for line in listed), "a wrong owner"
        assert set(os.listdir(folder)) == PINS
        status, services = self.broker.status()
        assert status["state"] == "running", status
        assert status["capacity"]["sockets"] == self.sockets_limit, "a growth that was never finished"
        assert set(services) == {"web", "pool", f"guest-{self.number}", "probe"}
        self.register("probe", "tcp", service="probe")
        assert self.answers(CHECK) == ("probe",)
        self.unregister("probe")

    def no_slot_is_lost(self):
        """As many as the broker was made for can still be registered, one after the other."""
        extra = []
        for service in ("web", "pool", "probe"):
            self.unregister(service)
        used = len(self.broker.list())
        for i in range(self.sockets_limit - used):
            label = f"extra-{i}"
            cookie = self.services["pool"].open(label, "tcp", "127.0.0.1")[1]
            self.owners[cookie] = POOL
            self.register("pool", label, service="pool")
            extra.append(label)
        assert len(pins.sockets(self.broker.bpffs / "dispatch")) == self.sockets_limit
        for label in extra:
            self.services["pool"].close(label)


def answer(*question):
    """Who answers, None where the client is refused."""
    try:
        return client.ask(*question).name
    except ConnectionRefusedError:
        return None


class Scenario:
    """prepare() brings the world into the state before; act() is what the broker dies in. `before` and `after` are the
    answers to `questions`, set by prepare()."""

    questions = (TCP, UDP)
    step = 3  # 1: every point

    def __init__(self, world):
        self.world = world
        self.before = self.after = None
        self.rounds = 0

    def settled(self, seen):
        """What clients must see after the next start, from what they saw before it."""
        return seen


class HandOver(Scenario):
    """Both sockets of web in one message, so both change in one step; the loser stays in reserve."""

    def prepare(self):
        if self.world.answers(TCP) == (None,):
            self.world.register("one", "tcp", "udp", service="web")
        self.before = self.world.answers(*self.questions)
        self.new = "two" if self.before[0] == "one" else "one"
        self.after = (self.new, self.new)

    def act(self):
        self.world.register(self.new, "tcp", "udp", service="web")


class Register(Scenario):
    """The first sockets of a service."""

    def prepare(self):
        self.world.unregister("web")
        self.before, self.after = (None, None), ("one", "one")

    def act(self):
        self.world.register("one", "tcp", "udp", service="web")


class Unregister(Register):
    """Of two sockets that serve and one in reserve."""

    def prepare(self):
        self.world.register("two", "tcp", service="web")
        self.world.register("one", "tcp", "udp", service="web")
        self.before, self.after = ("one", "one"), (None, None)

    def act(self):
        self.world.unregister("web")


class Share(Scenario):
    """A seventh socket for a service that spreads its flows over more than a record holds."""

    questions = (SHARED,) * 4
    step = 4

    def prepare(self):
        self.world.unregister("pool")
        self.world.register("pool", *map(str, range(6)), service="pool")
        self.before = self.after = ("pool",) * 4

    def act(self):
        self.world.register("pool", "6", service="pool")


class Reload(Scenario):
    """Another policy: a rule of web moves, a service with a socket goes, one comes."""

    questions = (TCP, UDP, FIRST, SECOND, GUEST, OTHER)
    step = 4

    def prepare(self):
        world = self.world
        if world.number == 2:
            world.number = 1
            world.configure()
            assert world.broker.reload()[0] == 0
        world.register("one", "tcp", "udp", service="web")
        world.register("guest", "tcp", service="guest-1")
        self.before = ("one", "one", "one", None, "guest", "guest")
        self.after = ("one", "one", None, "one", None, None)

    def act(self):
        self.world.number = 2
        self.world.configure()
        status, output = self.world.broker.reload()
        assert status == 0, output

    def settled(self, seen):
        return self.after  # the next start reads the new policy


class Start(Scenario):
    """A broker that takes up what another one left."""

    step = 10

    def prepare(self):
        self.world.register("two", "tcp", service="web")
        self.world.register("one", "tcp", "udp", service="web")
        self.before = self.after = ("one", "one")

    def act(self):
        self.world.broker.kill()
        self.world.start()


class Growth(Start):
    """A limit was raised: the maps are made anew, larger, with all that they hold."""

    step = 14

    def act(self):
        self.world.broker.kill()
        self.world.sockets_limit += 1
        self.world.configure()
        self.world.start()


class Unload(Scenario):
    """The operator takes dispatch away."""

    step = 5

    def prepare(self):
        self.world.register("one", "tcp", "udp", service="web")
        self.before, self.after = ("one", "one"), (None, None)

    def act(self):
        status, output = self.world.broker.ctl("unload")
        assert status == 0, output
        self.world.broker.process.wait(25)


class FirstStart(Scenario):
    """Nothing is in the kernel, as after a boot."""

    step = 20

    def prepare(self):
        assert self.world.broker.ctl("unload")[0] == 0
        self.world.broker.process.wait(25)
        self.before = self.after = (None, None)

    def act(self):
        self.world.start()


@pytest.mark.parametrize("scenario", [Register, HandOver, Share, Unregister, Reload, Start, Growth, Unload, FirstStart])
def test_a_kill_at_any_point_is_repaired_by_the_next_start(broker, spawn, scenario):
    world = World(broker, spawn)
    world.start()
    one = scenario(world)
    step = 1 if TABLE else one.step
    number, rows = 1, []
    while True:
        one.prepare()
        world.points.arm(kill_at=number)
        try:
            one.act()
        except (OSError, RuntimeError, AssertionError):
            broker.process.wait(25)
        names = world.points.disarm()
        if len(names) < number:
            break
        assert broker.process.wait(25) == -9, f"point {number}: not killed"
        where = f"{scenario.__name__} killed before point {number}, {names[-1]}"
        seen = world.answers(*one.questions)
        assert seen in (one.before, one.after), where
        broker.kill()
        world.start()
        settled = world.answers(*one.questions)
        assert settled == one.settled(seen), where
        try:
            world.check()
        except AssertionError as error:
            raise AssertionError(where) from error
        what = "nothing new" if one.before == one.after else "the state " + ("before" if seen == one.before
                                                                             else "after")
        rows.append((number, names[-1], f"clients saw {what}"))
        number += step
    if broker.process.poll() is not None:
        world.start()
    assert world.answers(*one.questions) == one.after, "carried out to the end"
    world.check()
    world.no_slot_is_lost()
    table = [f"{scenario.__name__}: {len(rows)} of {len(names)} points, each repaired by the next start",
             *("{:6d}  before: {:30s} {}".format(*row) for row in rows)]
    print("\n".join(table))
    if TABLE:
        with open(TABLE, "a", encoding="ascii") as file:
            file.write("\n".join(table) + "\n\n")
    assert len(rows) >= 3
