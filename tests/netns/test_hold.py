# SPDX-License-Identifier: LGPL-2.1-or-later
"""HoldSec=: a socket outlives its service for so long, and the next instance goes on where the last one ended.

Services here run in no unit, so the broker goes by their processes; tests/system has the same with units."""

import json
import socket
import time

import pytest

from harness import client, namespace
from harness.until import until
from holding import HELD, end, knock, refused_soon, states
from words import ADDRESS, LOOPBACK, PORT, add_routes, each_family, each_protocol, everywhere, handed_over, listen
from words import open_socket, refused, section, who


@pytest.fixture(name="broker")
def _broker(broker):
    add_routes()
    yield broker


@each_family
def test_clients_queue_in_a_held_listener_and_the_next_instance_serves_them(broker, spawn, family):
    broker.policy(section("web", 61001, everywhere(), HELD)).start()
    old = spawn("web")
    cookie = handed_over(old, "tcp", family)
    end(old, broker)
    assert states(broker) == ["held"]
    waiting = [knock(ADDRESS[family]) for _ in range(20)]

    new = spawn("web")
    reply = new.retrieve()
    assert reply.result == "ok", reply
    assert [(row["cookie"], row["state"], row["pid"]) for row in reply.lines] == [(f"{cookie}", "live", new.pid)]
    for sock, file in waiting:
        assert file.readline().startswith(b"web "), "who queued is served by the next instance"
        sock.close()
    assert who("tcp", family) == "web"
    assert states(broker) == ["live"]


@each_family
def test_datagrams_wait_in_the_buffer_of_a_held_socket(broker, spawn, family):
    broker.policy(section("web", 61001, everywhere(), HELD)).start()
    old = spawn("web")
    handed_over(old, "udp", family)
    end(old, broker)
    with socket.socket(client.family_of(ADDRESS[family]), socket.SOCK_DGRAM) as asking:
        asking.settimeout(client.TIMEOUT)
        asking.bind((LOOPBACK[family], 0))
        asking.sendto(b"x", (ADDRESS[family], PORT))
        assert spawn("web").retrieve().result == "ok"
        assert asking.recvfrom(4096)[0].startswith(b"web ")


@each_protocol
def test_without_holdsec_clients_of_a_dead_service_are_refused_at_once(broker, spawn, protocol):
    broker.policy(section("web", 61001, everywhere())).start()
    one = spawn("web")
    handed_over(one, protocol, "ipv4")
    one.kill()
    before = namespace.tcp_counter("TCPSynRetrans")
    with refused():
        who(protocol, "ipv4")
    assert namespace.tcp_counter("TCPSynRetrans") == before, "the first packet was answered"
    assert spawn("web").retrieve().result == "not-held"


def test_after_holdsec_clients_are_refused_and_the_journal_says_so(broker, spawn):
    broker.policy(section("web", 61001, everywhere(), "HoldSec=1500ms")).start()
    one = spawn("web")
    handed_over(one, "tcp", "ipv4")
    began = time.monotonic()
    end(one, broker)
    waiting, file = knock(ADDRESS["ipv4"])
    broker.wait_log("expire: .*nobody came for it within 1.500 s")
    assert 1.4 < time.monotonic() - began < 15
    with pytest.raises(ConnectionResetError):
        file.readline()
    waiting.close()
    refused_soon()
    assert states(broker) == []
    assert spawn("web").retrieve().result == "not-held"


@each_protocol
def test_a_socket_of_its_own_takes_the_place_of_the_held_one(broker, spawn, protocol):
    broker.policy(section("web", 61001, everywhere(), HELD)).start()
    old = spawn("web")
    handed_over(old, protocol, "ipv4", reuseport=True)
    end(old, broker)
    new = spawn("web-two")
    cookie = handed_over(new, protocol, "ipv4", service="web", reuseport=True)
    assert [(row["cookie"], row["state"]) for row in broker.list()] == [(f"{cookie}", "live")]
    assert who(protocol, "ipv4") == "web-two"


@pytest.mark.parametrize("labels", [("dual", "tcp-ipv4"), ("tcp-ipv4", "dual")])
def test_a_socket_that_comes_again_beside_one_that_takes_a_family_of_it_stays_with_the_broker(broker, spawn, labels):
    broker.policy(section("web", 61001, everywhere(), HELD)).start()
    one = spawn("web")
    dual = handed_over(one, "tcp", "ipv4", "dual", dual=True)
    open_socket(one, "tcp", "ipv4", address="127.0.0.2")
    assert one.register(*labels).result == "ok"
    assert {row["cookie"] for row in broker.list()} == {dual, one.facts("tcp-ipv4")[1]}
    end(one, broker)
    until("both to be held", lambda: states(broker) == ["held", "held"])


def test_a_held_socket_makes_nobody_busy(broker, spawn):
    broker.policy(section("web", 61001, everywhere(), HELD, "Handover=refuse", "MaxSockets=1")).start()
    old = spawn("web")
    handed_over(old, "tcp", "ipv4")
    end(old, broker)
    handed_over(spawn("web-two"), "tcp", "ipv4", service="web")
    assert who("tcp", "ipv4") == "web-two"
    assert states(broker) == ["live"]


def test_clients_do_not_queue_while_somebody_else_can_serve_them(broker, spawn):
    broker.policy(section("web", 61001, everywhere(), HELD)).start()
    blue, green = spawn("blue"), spawn("green")
    handed_over(blue, "tcp", "ipv4", service="web")
    handed_over(green, "tcp", "ipv4", service="web")
    assert who("tcp", "ipv4") == "green"
    end(green, broker)
    assert who("tcp", "ipv4") == "blue", "the one in reserve serves"
    assert states(broker) == ["held", "live"]
    again = spawn("green-two")
    assert again.retrieve("web").result == "ok"
    assert who("tcp", "ipv4") == "green-two", "and its place is the newest's again"
    assert states(broker) == ["draining", "live"]


def test_a_displaced_listener_that_its_owner_closes_is_closed(broker, spawn):
    broker.policy(section("web", 61001, everywhere(), HELD)).start()
    one = spawn("web")
    handed_over(one, "tcp", "ipv4", "old")
    handed_over(one, "tcp", "ipv4", "new")
    waiting, file = knock(ADDRESS["ipv4"])
    assert file.readline().startswith(b"web ")
    waiting.close()
    assert states(broker) == ["draining", "live"]
    one.close("old")
    until("the broker to have no descriptor of it any more", lambda: states(broker) == ["live"])


def test_a_displaced_socket_is_not_held(broker, spawn):
    broker.policy(section("web", 61001, everywhere(), HELD)).start()
    blue, green = spawn("blue"), spawn("green")
    handed_over(blue, "tcp", "ipv4", service="web")
    handed_over(green, "tcp", "ipv4", service="web")
    end(blue, broker, "gone: ")
    assert states(broker) == ["live"]
    assert who("tcp", "ipv4") == "green"


def test_flows_of_a_held_socket_go_to_those_that_share_and_come_back(broker, spawn):
    broker.policy(section("web", 61001, everywhere(), HELD, "Handover=share")).start()
    one, two = spawn("one"), spawn("two")
    handed_over(one, "tcp", "ipv4", service="web")
    handed_over(two, "tcp", "ipv4", service="web")
    assert {who("tcp", "ipv4") for _ in range(64)} == {"one", "two"}
    end(two, broker)
    assert {who("tcp", "ipv4") for _ in range(64)} == {"one"}
    assert states(broker) == ["held", "live"]
    assert spawn("three").retrieve("web").result == "ok"
    assert {who("tcp", "ipv4") for _ in range(64)} == {"one", "three"}
    # The last one's clients queue.
    end(one, broker, "retrieve: (.*\n)+.*waits")
    assert {who("tcp", "ipv4") for _ in range(16)} == {"three"}


def test_a_reload_without_holdsec_ends_the_hold(broker, spawn):
    broker.policy(section("web", 61001, everywhere(), HELD)).start()
    one = spawn("web")
    handed_over(one, "tcp", "ipv4")
    end(one, broker)
    broker.policy(section("web", 61001, everywhere(), "HoldSec=20"))
    assert broker.reload()[0] == 0
    assert states(broker) == ["held"]
    broker.policy(section("web", 61001, everywhere()))
    assert broker.reload()[0] == 0
    broker.wait_log("expire: .*HoldSec= is 0 now")
    until("to be closed", lambda: states(broker) == [])
    with refused():
        who("tcp", "ipv4")


@pytest.mark.parametrize("lines, why", [
    ([], "HoldSec= is 0 now"),
    (["HoldSec=1"], "it has waited for as long as HoldSec= is now"),
    ([HELD, "Handover=share", "ReusePort=yes"], "Handover=share with ReusePort=yes holds none"),
    (["HoldSec=25", "ReusePort=yes"], None),
])
def test_diff_and_reload_name_a_held_socket_that_the_policy_gives_up(broker, spawn, lines, why):
    broker.policy(section("web", 61001, everywhere(), HELD)).start()
    one, other = spawn("web"), spawn("other")
    handed_over(one, "tcp", "ipv4")
    handed_over(other, "udp", "ipv4", service="web")  # is live, and stays whatever is held
    end(one, broker)
    since = time.monotonic()
    until("HoldSec=1 is over", lambda: time.monotonic() > since + 1.1)
    broker.policy(section("web", 61001, everywhere(), *lines))
    expected = [] if why is None else [("tcp", "held", why)]
    for verb in ("diff", "reload"):
        rows = [row for row in json.loads(broker.ctl(verb, "--json=short")[1]) if row.get("kind") == "socket"]
        assert [(row["protocol"], row["state"], row["why"]) for row in rows] == expected
    until("to be closed", lambda: states(broker) == (["live"] if why else ["held", "live"]))


def test_a_service_that_policy_loses_is_not_held(broker, spawn):
    broker.policy(section("web", 61001, everywhere(), HELD)).start()
    one = spawn("web")
    handed_over(one, "tcp", "ipv4")
    end(one, broker)
    broker.policy("")
    assert broker.reload()[0] == 0
    with refused():
        who("tcp", "ipv4")
    assert broker.list() == []


def test_a_socket_that_its_owner_shut_down_is_not_held(broker, spawn):
    broker.policy(section("web", 61001, everywhere(), HELD)).start()
    one = spawn("web")
    handed_over(one, "tcp", "ipv4")
    one.shutdown("tcp-ipv4")
    assert states(broker) == []
    with refused():
        who("tcp", "ipv4")
    one.kill()
    assert spawn("web").retrieve().result == "not-held"


def test_unregister_ends_a_hold(broker, spawn):
    broker.policy(section("web", 61001, everywhere(), HELD)).start()
    one = spawn("web")
    handed_over(one, "tcp", "ipv4")
    end(one, broker)
    assert broker.ctl("unregister", "web")[0] == 0
    with refused():
        who("tcp", "ipv4")


def test_status_says_what_is_held_and_that_it_ends_with_a_broker_of_no_manager(broker, spawn):
    broker.policy(section("web", 61001, everywhere(), HELD)).start()
    one = spawn("web")
    handed_over(one, "tcp", "ipv4")
    end(one, broker)
    status = broker.status()[0]
    assert status["sockets"] == {"live": 0, "draining": 0, "held": 1}


def test_a_socket_of_two_services_is_held_for_each(broker, spawn):
    broker.policy(section("web", 61001, everywhere(), HELD)
                  + section("other", 61001, listen("tcp", "192.0.2.0/24", 7001), "HoldSec=1")).start()
    one = spawn("web")
    handed_over(one, "tcp", "ipv4")
    assert one.register("tcp-ipv4", service="other").result == "ok"
    end(one, broker, "web is gone(.*\n)+.*other is gone|other is gone(.*\n)+.*web is gone")
    broker.wait_log("expire: .* of other")
    assert (states(broker, "web"), states(broker, "other")) == (["held"],
                                                                ["live"]), "somebody has it: the broker itself"
    new = spawn("web")
    assert new.retrieve().result == "ok"
    new.kill()
    broker.wait_log("retrieve: (.*\n)+.*web is gone")
    assert broker.ctl("unregister", "web")[0] == 0
    until("every descriptor is closed", lambda: broker.list() == [])


def hold(one, span, service="web"):
    return one.control(f"VERB=hold\nFDNAME={service}\nTIMEOUT_USEC={int(span * 1e6)}")


def test_hold_is_for_who_registered_and_for_root(broker, spawn):
    broker.policy(section("web", 61001, everywhere(), HELD)
                  + section("plain", 61001, listen("tcp", "198.51.100.0/24"))).start()
    one, other = spawn("web"), spawn("other", 61002)
    assert hold(one, 60).result == "not-held", "it has registered nothing"
    handed_over(one, "tcp", "ipv4")
    assert one.register("tcp-ipv4", service="plain").result == "ok"
    assert hold(one, 60, "plain").result == "not-held" and "HoldSec=" in hold(one, 60, "plain").message
    assert hold(one, 60, "nobody").result == "unknown-service"
    refusal = hold(other, 60)
    assert refusal.result == "not-permitted" and "only root may" in refusal.message
    assert hold(one, 60).message == "a stop of web counts as a crash for 60 s: 1 socket will wait so long"
    assert broker.ctl("hold", "web", "--timeout=5min") == (
        0, "a stop of web counts as a crash for 300 s: 1 socket will wait so long\n")
    assert broker.ctl("hold", "web", "--timeout=0")[0] == 0
    for without in ([], ["--timeout=13h"], ["--timeout=infinity"]):
        status, said = broker.ctl("hold", "web", *without)
        assert status == 2 and "hold needs --timeout=SPAN" in said
    broker.wait_log("keep: a stop of web counts as a crash for 60 s.* asked by pid .*uid 61001")


def test_hold_lengthens_a_shorter_holdsec_and_the_next_instance_ends_it(broker, spawn):
    """Outside units nothing tells a stop from a crash."""
    broker.policy(section("web", 61001, everywhere(), "HoldSec=200ms")).start()
    one = spawn("web")
    handed_over(one, "tcp", "ipv4")
    assert hold(one, 2).result == "ok"
    began = time.monotonic()
    end(one, broker)
    waiting, file = knock(ADDRESS["ipv4"])
    broker.wait_log("expire: .*nobody came for it within the time that sockbrokerctl hold gave")
    assert 1.5 < time.monotonic() - began < 15
    with pytest.raises(ConnectionResetError):
        file.readline()
    waiting.close()

    two = spawn("web")
    handed_over(two, "tcp", "ipv4")
    assert hold(two, 60).result == "ok"
    end(two, broker, "hold gave(.*\n)+.*waits")
    three = spawn("web")
    assert three.retrieve().result == "ok"
    three.kill()
    broker.wait_log("retrieve: (.*\n)+.*nobody came for it within 0.200 s")
    refused_soon()
