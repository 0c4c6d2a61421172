# SPDX-License-Identifier: LGPL-2.1-or-later
"""Hand-over, case by case: what becomes of handshakes and connections that the old listener has when the new one takes
over, what of the old one afterwards. docs/reliability.md says what a service must do so that nothing is lost."""

import os

import pytest

from harness import client, namespace
from harness.until import until
from waiting import COUNT, Established, HalfOpen, half_open_in_kernel, outcomes, pass_on
from words import LOOPBACK, add_routes, everywhere, handed_over
from words import open_socket, refused, section, who

GROUP = 7100  # the port that both sockets of one SO_REUSEPORT group are bound to


# name: (one SO_REUSEPORT group, tcp_migrate_req or "program": the broker's is attached, the old socket afterwards, who
# answers)
HALF_OPEN = {
    "the old one completes its half-open handshakes while it is open": (False, 0, "open", "old"),
    "half-open handshakes of a closed listener are reset": (False, 0, "closed", "reset"),
    "without migration they are reset within a group too": (True, 0, "closed", "reset"),
    "they migrate within a group": (True, 1, "closed", "new"),
    "they migrate by the program": (True, "program", "closed", "new"),
    "being in a group alone leaves them with the old one": (True, 1, "open", "old"),
}
UNACCEPTED = {
    "unaccepted connections stay with the old one": (False, 0, "open", "old"),
    "unaccepted connections of a closed listener are reset": (False, 0, "closed", "reset"),
    "without migration they are reset within a group too": (True, 0, "closed", "reset"),
    "they migrate within a group": (True, 1, "closed", "new"),
    "they migrate by the program": (True, "program", "closed", "new"),
    "the program alone leaves them with the old one": (True, "program", "open", "old"),
}
COOKIES = {
    "a cookie of the old one is refused by the new one": (False, 0, "open", "reset"),
    "it is refused though the old one is closed": (False, 0, "closed", "reset"),
    "it is taken by a new one that has sent cookies itself": ("primed", 0, "open", "new"),
    "it is taken by such a one though the old one is closed": ("primed", 0, "closed", "new"),
    "it is taken by the new one of a group": (True, 0, "open", "new"),
    "it is taken by the new one of a group though the old one is closed": (True, 0, "closed", "new"),
    "migration does not matter to it": (True, 1, "closed", "new"),
    "nor does the program": (True, "program", "closed", "new"),
}


@pytest.mark.parametrize("what, cookies, cases", [
    (HalfOpen, 1, HALF_OPEN), (Established, 1, UNACCEPTED), (HalfOpen, 2, COOKIES), (Established, 2, UNACCEPTED)],
                         ids=["half-open", "unaccepted", "half-open-by-cookie", "unaccepted-by-cookie"])
def test_what_waits_at_a_hand_over(broker, spawn, remote, what, cookies, cases):
    add_routes()
    namespace.sysctl("net/ipv4/tcp_syncookies", cookies)
    broker.policy(section("web", 61001, everywhere())).start()
    for family in ("ipv4", "ipv6"):
        seen = {}
        for name, (group, migrate, after, _) in cases.items():
            program = migrate == "program"
            namespace.sysctl("net/ipv4/tcp_migrate_req", 0 if program else migrate)
            old, new = spawn("old"), spawn("new")
            seen[name] = one_hand_over(remote, family, old, new, what, group, after, program)
            assert who("tcp", family) == "new"
            old.kill()
            new.kill()
        assert seen == {name: {case[3]: COUNT} for name, case in cases.items()}, family


def one_hand_over(remote, family, old, new, what, group, after, program):
    # pylint: disable=too-many-arguments,too-many-positional-arguments
    bound = {"port": GROUP, "reuseport": True} if group is True else {}
    label = f"tcp-{family}"
    open_socket(old, "tcp", family, **bound)
    assert register(old, label, program) == "ok"
    old.pause(label)
    waiting = what(remote, family)
    with open("/proc/sys/net/ipv4/tcp_syncookies", encoding="ascii") as cookies:
        remembered = what is HalfOpen and cookies.read().strip() == "1"
    assert half_open_in_kernel(family) == (COUNT if remembered else 0)

    open_socket(new, "tcp", family, **bound)
    if group == "primed":
        client.Connection(LOOPBACK[family], new.facts(label)[0]).close()
    assert register(new, label, program) == "ok"
    if after == "closed":
        old.close(label)
    else:
        old.resume(label)
    waiting.lift()
    return outcomes(waiting)


def register(one, label, program):
    """program: with MIGRATE=1, and the program that comes with the answer attached."""
    if not program:
        return one.register(label, service="web").result
    reply, programs = one.register_migrating(label, service="web")
    assert programs == 1
    return reply.result


@pytest.mark.parametrize("what", [HalfOpen, Established])
def test_of_a_hundred_that_wait_in_a_closed_listener_none_is_lost_with_the_migration_program(
        broker, spawn, remote, what):
    """With tcp_migrate_req=0, attached by services without a capability; the broker may be gone by then."""
    add_routes()
    namespace.sysctl("net/ipv4/tcp_syncookies", 1)
    namespace.sysctl("net/ipv4/tcp_migrate_req", 0)
    broker.policy(section("web", 61001, everywhere())).start()
    for family in ("ipv4", "ipv6"):
        old, new = spawn("old"), spawn("new")
        label = open_socket(old, "tcp", family, port=GROUP, reuseport=True)
        assert register(old, label, program=True) == "ok"
        old.pause(label)
        waiting = what(remote, family, 100)
        open_socket(new, "tcp", family, port=GROUP, reuseport=True)
        assert register(new, label, program=True) == "ok"
        if family == "ipv6":
            broker.kill()
        old.kill()
        waiting.lift()
        assert outcomes(waiting) == {"new": 100}
        new.kill()


def test_the_program_comes_with_an_answer_that_says_ok_and_with_no_other(broker, spawn):
    broker.policy(section("web", 61001, everywhere())).start()
    web, stranger = spawn("web"), spawn("stranger", uid=61002)
    for one, result in ((web, "ok"), (stranger, "not-permitted")):
        label = open_socket(one, "tcp", "ipv4", reuseport=True)
        reply, programs = one.register_migrating(label, service="web")
        assert (reply.result, programs) == (result, int(result == "ok"))
    before = len(os.listdir(f"/proc/{broker.process.pid}/fd"))
    for _ in range(50):
        assert web.register_migrating("tcp-ipv4", service="web")[1] == 1
    until("the broker keeps no copy",
          lambda: len(os.listdir(f"/proc/{broker.process.pid}/fd")) <= before)


def test_nothing_is_lost_when_the_same_socket_is_passed_on(broker, spawn, remote):
    """As a .socket unit does: the next instance has the very socket, and needs neither group nor migration."""
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    for what, cookies in ((HalfOpen, 1), (HalfOpen, 2), (Established, 1)):
        namespace.sysctl("net/ipv4/tcp_syncookies", cookies)
        old, new = spawn("old"), spawn("new")
        cookie = handed_over(old, "tcp", "ipv4", service="web")
        old.pause("tcp-ipv4")
        waiting = what(remote, "ipv4")
        pass_on(old, new, "tcp-ipv4")
        old.kill()
        assert new.register("tcp-ipv4", service="web").result == "ok"
        assert [(row["cookie"], row["state"]) for row in broker.list()] == [(cookie, "live")]
        waiting.lift()
        assert outcomes(waiting) == {"new": COUNT}
        new.kill()


def reserve(broker, spawn, protocol, family, names=("a", "b", "c")):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    services = {}
    for name in names:
        services[name] = spawn(name)
        handed_over(services[name], protocol, family, service="web", reuseport=True)
        assert who(protocol, family) == name
    assert [row["state"] for row in broker.list()].count("draining") == len(names) - 1
    return services


@pytest.mark.parametrize("protocol, family, control_plane", [
    ("tcp", "ipv4", "there"), ("tcp", "ipv6", "gone"), ("udp", "ipv4", "gone"), ("udp", "ipv6", "back")])
def test_the_displaced_serve_again_newest_first_broker_or_no_broker(broker, spawn, protocol, family, control_plane):
    """At once: it is the kernel's dispatch that falls to the next one, not the broker."""
    services = reserve(broker, spawn, protocol, family)
    if control_plane != "there":
        broker.kill()
    if control_plane == "back":
        broker.start()
    for name, heir in (("c", "b"), ("b", "a")):
        services[name].kill()
        assert who(protocol, family) == heir
    if control_plane == "gone":
        broker.start()
    assert [row["state"] for row in broker.list()] == ["live"]
    services["a"].kill()
    with refused():
        who(protocol, family)
    assert broker.list() == []


def test_the_middle_one_goes_without_a_trace_and_who_hands_over_again_is_the_newest(broker, spawn):
    services = reserve(broker, spawn, "tcp", "ipv4", ("a", "b", "c", "d"))
    services["c"].kill()
    assert who("tcp", "ipv4") == "d"
    assert services["a"].register("tcp-ipv4", service="web").result == "ok"
    assert who("tcp", "ipv4") == "a"
    for name, heir in (("a", "d"), ("d", "b")):
        services[name].kill()
        assert who("tcp", "ipv4") == heir


def test_refuse_answers_busy_and_names_who_holds_it(broker, spawn):
    add_routes()
    broker.policy(section("web", 61001, everywhere(), "Handover=refuse")).start()
    first, second = spawn("first"), spawn("second")
    handed_over(first, "tcp", "ipv4", service="web")
    open_socket(second, "tcp", "ipv4")
    reply = second.register("tcp-ipv4", service="web")
    assert reply.result == "busy" and f"pid {first.pid}" in reply.message, reply
    assert who("tcp", "ipv4") == "first"
    broker.kill()
    broker.start()
    assert second.register("tcp-ipv4", service="web").result == "busy", "the next broker knows too"
    first.kill()
    assert second.register("tcp-ipv4", service="web").result == "ok"
    assert who("tcp", "ipv4") == "second"
