# SPDX-License-Identifier: LGPL-2.1-or-later
"""UdpReply=original, row S5: which units have the programs, and which UDP ports, by who was admitted to what."""

import contextlib
import os

import pytest

from harness import namespace, units
from harness.until import until
from test_udp_replies import UID, UNIT, links, pinned, section
from words import PORT, listen


def ports_below_1024():
    namespace.sysctl("net/ipv4/ip_unprivileged_port_start", 1024)


def bound(one, *ports, place="127.0.0.7"):
    """Which of these UDP ports the process may bind, and gives up again."""
    done = []
    for port in ports:
        said = one.open("tried", place, port)
        if said != "EACCES":
            assert len(said) == 16, said
            one.close("tried")
            done.append(port)
    return done


def of_users(**users):
    """A service for each of these users, all in one unit, with ports from 100 on."""
    return "".join(section(name, UNIT, f"User={user}", listen("udp", "192.0.2.0/24", 100 + number), "UdpReply=original")
                   for number, (name, user) in enumerate(users.items()))


def test_s5_a_unit_has_the_ports_of_services_that_admitted_one_of_its_processes(broker, serve):
    ports_below_1024()
    broker.policy(of_users(d1=UID, d2=61009, d3=UID)).start()
    one, other = serve(), serve(uid=61009)
    assert bound(one, 100, 101, 102) == []
    assert one.control("VERB=prepare\nFDNAME=d2").result == "not-permitted"
    one.open("x", "127.0.0.2", 5000)
    assert one.register("d1", "x").result == "ok"
    assert bound(one, 100, 101, 102) == [100], "that of the service which admitted it"
    assert one.control("VERB=prepare\nFDNAME=d3").message.startswith(f"{UNIT} may bind UDP ports 100 102 ")
    assert bound(one, 100, 101, 102) == [100, 102]
    assert other.control("VERB=prepare\nFDNAME=d2").result == "ok"
    assert bound(one, 100, 101, 102) == [100, 101, 102], "what a unit is granted is its cgroup's"
    broker.policy(of_users(d1=UID, d2=61009, d4=UID))
    assert broker.reload()[0] == 0
    assert bound(one, 100, 101, 102) == [100, 101]


def test_s5_a_unit_whose_services_come_to_ask_for_it_has_the_ports_of_all_whose_sockets_it_has(broker, serve):
    ports_below_1024()
    broker.policy(of_users(d1=UID, d2=UID, d3=UID).replace("UdpReply=original", "")).start()
    one = serve()
    for number, name in enumerate(("d1", "d2")):
        one.open(name, "127.0.0.2", 5000 + number)
        assert one.register(name, name).result == "ok"
    assert bound(one, 100, 101, 102) == []
    broker.policy(of_users(d1=UID, d2=UID, d3=UID))
    assert broker.reload()[0] == 0
    assert bound(one, 100, 101, 102) == [100, 101]
    broker.kill()
    broker.start()
    assert bound(one, 100, 101, 102) == [100, 101]


@pytest.mark.parametrize("registers", [True, False], ids=["registered", "prepared"])
def test_s5_a_unit_of_which_a_reload_admits_nobody_any_more_has_no_programs_and_no_port(broker, serve, registers):
    ports_below_1024()
    broker.policy(of_users(d1=UID)).start()
    one = serve()
    if registers:
        one.open("x", "127.0.0.2", 5000)
        assert one.register("d1", "x").result == "ok"
    else:
        assert one.control("VERB=prepare").result == "ok"
    broker.policy(of_users(d1=UID) + "\n# a comment\n")
    assert broker.reload()[0] == 0
    assert bound(one, 100) == [100] and links(broker)
    broker.policy(of_users(d1=61002))
    assert broker.reload()[0] == 0
    assert bound(one, 100) == []
    assert links(broker) == []
    broker.kill()
    broker.start()
    assert bound(one, 100) == []
    assert links(broker) == []


@pytest.mark.parametrize("users", [(UID, 61002), ("daemon", "bin")], ids=["numbers", "names"])
def test_s5_a_start_takes_the_programs_from_whom_its_policy_does_not_admit(broker, serve, users):
    ports_below_1024()
    before, after = users
    broker.policy(of_users(d1=before)).start()
    one = serve(uid=1 if before == "daemon" else before)
    one.open("x", "127.0.0.2", 5000)
    assert one.register("d1", "x").result == "ok"
    broker.kill()
    broker.start()
    assert bound(one, 100) == [100] and links(broker)
    broker.kill()
    broker.policy(of_users(d1=after))
    broker.start()
    until("the programs are gone", lambda: links(broker) == [])
    assert bound(one, 100) == []


def test_s5_after_a_start_a_unit_has_the_ports_of_its_sockets_and_asks_for_others_again(broker, serve):
    ports_below_1024()
    broker.policy(of_users(d1=UID, d2=UID)).start()
    one = serve()
    one.open("x", "127.0.0.2", 5000)
    assert one.register("d1", "x").result == "ok"
    assert one.control("VERB=prepare\nFDNAME=d2").result == "ok"
    broker.kill()
    assert bound(one, 100, 101) == [100, 101]
    broker.start()
    assert bound(one, 100, 101) == [100]
    assert one.control("VERB=prepare\nFDNAME=d2").result == "ok"
    assert bound(one, 100, 101) == [100, 101]


@pytest.fixture(name="socket_unit")
def _socket_unit():
    """The cgroup of a .socket unit where units are by default: it is found by its name alone."""
    folder = units.root() / "system.slice"
    there = folder.exists()
    folder.mkdir(exist_ok=True)
    path = folder / f"sbtest{os.getpid()}.socket"
    path.mkdir()
    yield path
    path.rmdir()
    if not there:
        with contextlib.suppress(OSError):  # somebody uses it by now
            folder.rmdir()


def test_s5_a_socket_unit_has_the_programs_while_who_hands_its_sockets_over_is_admitted(broker, serve, slice_,
                                                                                        socket_unit):
    def text(user):
        return section("dns", f"{UNIT} {socket_unit.name}", f"User={user}", listen("udp", "192.0.2.0/24"),
                       "UdpReply=original")
    broker.policy(text(UID)).start()
    one = serve()
    one.open("x", "127.0.0.2", PORT)
    assert one.register("dns", "x").result == "ok"
    of_both = sorted(pinned(slice_.path / UNIT) + pinned(socket_unit))
    assert links(broker) == of_both
    broker.kill()
    broker.start()
    assert links(broker) == of_both
    broker.policy(text(61002))
    assert broker.reload()[0] == 0
    assert links(broker) == []


def test_s5_ports_for_which_a_unit_has_no_room_are_told(broker, serve):
    """By patterns that are not alike: of one value of Unit= so many are an error, or a warning."""
    ports_below_1024()
    broker.policy("".join(section(f"d{number:02}", UNIT if number < 20 else "d*.service",
                                  listen("udp", "192.0.2.0/24", 100 + number), "UdpReply=original")
                          for number in range(35))).start()
    one = serve()
    for number in range(34, 2, -1):
        reply = one.control(f"VERB=prepare\nFDNAME=d{number:02}")
        assert (reply.result, reply.warnings) == ("ok", []), reply
    reply = one.control("VERB=prepare\nFDNAME=d02")
    assert reply.result == "ok"
    [warning] = reply.warnings
    assert f"{UNIT} has 32 UDP ports" in warning and "may not bind 102;" in warning, warning
    broker.wait_log("diagnostic: .*may not bind 102;.*")
    one.open("x", "127.0.0.2", 5000)
    [warning] = [text for text in one.register("d01", "x").warnings if "no unit can have more" in text]
    assert "may not bind 101 102;" in warning, warning
    assert bound(one, *range(100, 135)) == list(range(103, 135)), "who came first has its ports"
    assert broker.reload()[0] == 0
    broker.wait_log("(?s)may not bind 101 102;.*may not bind 101 102;")


def test_s5_a_unit_that_keeps_a_socket_of_each_of_its_lives_leaves_room_for_others(broker, serve, slice_):
    """The kernel keeps a cgroup for as long as a socket lives that was made in it. One place for each such life would
    let a unit that restarts take those of all."""
    most = 64
    broker.policy(of_users(d1=UID) + section("other", "other.service", listen("udp", "192.0.2.0/24", 200),
                                             "UdpReply=original")).start()
    elsewhere = slice_.unit("elsewhere.service")
    one = serve()

    def live_again(life):
        one.open(f"of {life}", "127.0.0.2", 6000 + life)
        (elsewhere / "cgroup.procs").write_text(str(one.pid))
        slice_.remove(UNIT)
        (slice_.unit(UNIT) / "cgroup.procs").write_text(str(one.pid))

    for life in range(most):
        assert one.control("VERB=prepare").result == "ok", life
        live_again(life)
    reply = one.control("VERB=prepare")
    assert reply.result == "internal" and f"{UNIT} has the programs in {most} cgroups" in reply.message, reply
    assert serve("other.service").control("VERB=prepare").result == "ok"
    one.close("of 0")
    until("a place", lambda: one.control("VERB=prepare").result == "ok")
