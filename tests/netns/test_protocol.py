# SPDX-License-Identifier: LGPL-2.1-or-later
"""Registering a socket, as the specification tells it: who may, what comes back, hand-over, quota, removal."""

import collections
import json
import os
import socket

import pytest

from harness import wire
from harness.until import until
from words import ADDRESS, PORT, add_routes, each_family, each_protocol, everywhere, handed_over, listen, open_socket
from words import refused, section, who


@each_protocol
@each_family
def test_a_registration_is_answered_listed_and_serves(broker, spawn, protocol, family):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    web = spawn("web", 61001)
    label = open_socket(web, protocol, family)
    with refused():
        who(protocol, family)
    reply = web.register(label)
    assert (reply.result, reply.errno, reply.lines) == ("ok", 0, [])
    assert who(protocol, family) == "web"
    [entry] = broker.list()
    port, cookie = web.facts(label)
    loopback = "127.0.0.1" if family == "ipv4" else "[::1]"
    assert entry["since"] > 1_500_000_000_000_000
    del entry["since"]
    assert entry == {"service": "web", "protocol": protocol, "family": family, "cookie": cookie,
                     "bound": f"{loopback}:{port}", "unit": None, "uid": 61001, "pid": web.pid, "state": "live"}


def test_the_tool_shows_the_same_as_the_socket(broker, spawn):
    broker.policy(section("web", 61001, everywhere())).start()
    handed_over(spawn("web"), "tcp", "ipv4")
    for verb in ("list", "bindings"):
        status, output = broker.ctl("--json=short", verb)
        # What the tool itself asks of the kernel stands behind the rest.
        rows = [{name: value for name, value in row.items() if name not in ("queue", "queue_limit", "drops")}
                for row in json.loads(output)]
        assert status == 0 and rows == broker.ask(f"VERB={verb}").lines
    assert broker.ctl("status")[0] == 0


def test_notify_speaks_sd_notify(broker, spawn):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    web = spawn("web")
    open_socket(web, "tcp", "ipv4")
    web.notify_and_wait("READY=1\nSTATUS=this and other keys are ignored\nFDSTORE=1\nFDNAME=web\nFDPOLL=0",
                        "tcp-ipv4")
    assert who("tcp", "ipv4") == "web"
    web.notify_and_wait("FDSTOREREMOVE=1\nFDNAME=web")
    assert broker.list() == []


@pytest.mark.parametrize("barrier", ["BARRIER=1", "BARRIER=1\n"])
def test_the_barrier_is_closed_after_all_earlier_messages(broker, spawn, barrier):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    web = spawn("web")
    open_socket(web, "udp", "ipv4")
    for _ in range(50):
        web.notify_and_wait("FDSTORE=1\nFDNAME=web", "udp-ipv4", barrier=barrier)
        assert [entry["service"] for entry in broker.list()] == ["web"]
        web.notify("FDSTORE=1\nFDNAME=web", "udp-ipv4")
        web.notify_and_wait("FDSTOREREMOVE=1\nFDNAME=web", barrier=barrier)
        assert broker.list() == []


def test_without_a_name_the_service_is_found_from_who_asks(broker, spawn):
    broker.policy(section("one", 61001, listen("tcp", "192.0.2.0/24"))
                  + section("two", 61002, listen("tcp", "192.0.2.0/25"))
                  + section("three", 61002, listen("tcp", "192.0.2.0/26"))).start()
    for uid, expected in ((61001, "ok"), (61002, "ambiguous"), (61003, "not-permitted"), (0, "not-permitted")):
        if uid == 0:
            with socket.create_server(("127.0.0.1", 0)) as sock:
                reply = broker.ask("FDSTORE=1", [sock.fileno()])
        else:
            asking = spawn("asking", uid)
            open_socket(asking, "tcp", "ipv4")
            reply = asking.register("tcp-ipv4", text="FDSTORE=1")
        assert reply.result == expected, reply
    # What the first one registered is where it belongs.
    assert [line["service"] for line in broker.list()] == ["one"]


def test_who_may_register(broker, spawn):
    """All of Unit=, User=, Group= that are given must match, one value each; root gets no bypass."""
    rule = listen("tcp", "192.0.2.0/24")
    broker.policy("[Service user]\nUser=61001\nUser=61002\n" + rule
                  + "[Service group]\nGroup=61003\n" + rule.replace("2.0/24", "2.0/25")
                  + "[Service both]\nUser=61001\nGroup=61003\n" + rule.replace("2.0/24", "2.0/26")
                  + "[Service nobody]\n" + rule.replace("2.0/24", "2.0/27")
                  + "[Service root]\nUser=0\n" + rule.replace("2.0/24", "2.0/28")
                  + "[Service unit]\nUser=61001\nUnit=some.service\n" + rule.replace("2.0/24", "2.0/29")).start()
    peers = {}
    for uid, gid in ((61001, 61001), (61002, 61002), (61005, 61003), (61001, 61003)):
        peers[uid, gid] = spawn(f"{uid}", uid, None, gid)
        open_socket(peers[uid, gid], "tcp", "ipv4")
    admitted = {("user", 61001, 61001), ("user", 61002, 61002), ("user", 61001, 61003), ("group", 61005, 61003),
                ("group", 61001, 61003), ("both", 61001, 61003)}
    for service in ("user", "group", "both", "nobody", "root", "unit"):
        for (uid, gid), one in peers.items():
            expected = "ok" if (service, uid, gid) in admitted else "not-permitted"
            assert one.register("tcp-ipv4", service=service).result == expected, (service, uid, gid)
        with socket.create_server(("127.0.0.1", 0)) as sock:
            reply = broker.ask(f"FDSTORE=1\nFDNAME={service}", [sock.fileno()])
            assert reply.result == ("ok" if service == "root" else "not-permitted"), service


def test_the_checks_come_in_their_order(broker, spawn):
    """malformed, unknown-service, not-permitted, the socket, quota, busy: the first that fails is the answer."""
    add_routes()
    broker.policy(section("web", 61001, listen("tcp", "192.0.2.0/24"), "Handover=refuse", "MaxSockets=1")).start()
    web, stranger = spawn("web", 61001), spawn("stranger", 61002)
    handed_over(web, "tcp", "ipv4", "first")
    open_socket(web, "tcp", "ipv4", "good")
    for one in (web, stranger):
        one.hold("bad", "tcp-unconnected")
    steps = [
        (stranger, "FDSTORE=2\nFDNAME=nothing", ["bad"], "malformed"),
        (stranger, "FDSTORE=1\nFDNAME=nothing", ["bad"], "unknown-service"),
        (stranger, "FDSTORE=1\nFDNAME=web", ["bad"], "not-permitted"),
        (web, "FDSTORE=1\nFDNAME=web", ["bad"], "not-listening"),
        (web, "FDSTORE=1\nFDNAME=web", ["good"], "busy"),
    ]
    for one, text, labels, expected in steps:
        assert one.control(text, *labels).result == expected
    broker.policy(section("web", 61001, listen("tcp", "192.0.2.0/24"), listen("udp", "192.0.2.0/24"),
                          "Handover=refuse", "MaxSockets=1"))
    assert broker.reload()[0] == 0
    open_socket(web, "udp", "ipv4")
    assert web.register("good", "udp-ipv4", service="web").result == "quota", "quota comes before busy"


def test_a_message_is_one_transaction(broker, spawn):
    """A good socket beside a bad one changes nothing, whichever comes first."""
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    old, new = spawn("old", 61001), spawn("new", 61001)
    handed_over(old, "tcp", "ipv4", service="web")
    before = broker.snapshot()
    open_socket(new, "tcp", "ipv4")
    open_socket(new, "udp", "ipv4")
    new.hold("bad", "udp-unbound")
    for labels in (("tcp-ipv4", "bad"), ("bad", "tcp-ipv4"), ("tcp-ipv4", "udp-ipv4", "bad")):
        assert new.register(*labels, service="web").result == "wrong-socket"
        assert broker.snapshot() == before
        assert who("tcp", "ipv4") == "old"
        with refused():
            who("udp", "ipv4")
    assert new.register("tcp-ipv4", "udp-ipv4", service="web").result == "ok"
    assert who("tcp", "ipv4") == who("udp", "ipv4") == "new"


def test_two_sockets_of_one_protocol_and_family_in_a_message_need_share(broker, spawn):
    broker.policy(section("web", 61001, everywhere())).start()
    web = spawn("web")
    open_socket(web, "tcp", "ipv4", "one")
    open_socket(web, "tcp", "ipv4", "two")
    assert web.register("one", "two").result == "wrong-socket"
    assert broker.list() == []


def test_a_socket_that_no_binding_can_use_is_refused(broker, spawn):
    broker.policy(section("web", 61001, listen("tcp", "192.0.2.0/24"))).start()
    web = spawn("web")
    for protocol, family, expected in (("udp", "ipv4", "wrong-socket"), ("tcp", "ipv6", "wrong-socket"),
                                       ("tcp", "ipv4", "ok")):
        assert web.register(open_socket(web, protocol, family)).result == expected


@each_protocol
@each_family
def test_replace_lets_the_newest_serve_and_the_displaced_again_when_it_goes(broker, spawn, protocol, family):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    services = [spawn(f"web-{i}", 61001) for i in range(3)]
    for i, one in enumerate(services):
        handed_over(one, protocol, family, service="web", reuseport=True)
        assert who(protocol, family) == f"web-{i}"
    assert sorted(line["state"] for line in broker.list()) == ["draining", "draining", "live"]
    services[2].kill()
    assert who(protocol, family) == "web-1", "at once, before the broker could know"
    services[1].close(f"{protocol}-{family}")
    assert who(protocol, family) == "web-0"
    assert [(line["pid"], line["state"]) for line in broker.list()] == [(services[0].pid, "live")]
    services[0].kill()
    with refused():
        who(protocol, family)
    assert broker.list() == []


@each_protocol
def test_the_displaced_serves_again_with_the_broker_stopped(broker, spawn, protocol):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    old, new = spawn("old", 61001), spawn("new", 61001)
    for one in (old, new):
        handed_over(one, protocol, "ipv4", service="web", reuseport=True)
    broker.stop()
    assert who(protocol, "ipv4") == "new"
    new.kill()
    assert who(protocol, "ipv4") == "old"
    old.kill()
    with refused():
        who(protocol, "ipv4")


def test_the_same_socket_twice_is_one_registration(broker, spawn):
    add_routes()
    broker.policy(section("web", 61001, everywhere(), "MaxSockets=1", "Handover=refuse")).start()
    web = spawn("web")
    cookie = handed_over(web, "tcp", "ipv4")
    assert web.register("tcp-ipv4").result == "ok"
    assert [line["cookie"] for line in broker.list()] == [cookie]
    assert who("tcp", "ipv4") == "web"


@each_protocol
def test_a_socket_closed_before_the_answer_is_no_fault_of_the_broker(broker, protocol):
    """Its sender closes it at once: it is registered and gone, or the answer says what its owner did."""
    broker.policy(section("web", 0, everywhere())).start()
    answers = collections.Counter()
    with wire.Control(broker.control_path) as control:
        for _ in range(30):
            for _ in range(32):
                with socket.socket(socket.AF_INET,
                                   socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM) as sock:
                    sock.bind(("127.0.0.1", 0))
                    if protocol == "tcp":
                        sock.listen()
                    control.send("FDSTORE=1\nFDNAME=web", [sock.fileno()])
            for _ in range(32):
                reply = control.receive()
                answers[reply.result] += 1
                assert reply.result == "ok" or "closed" in reply.message, reply
    assert set(answers) <= {"ok", "not-listening" if protocol == "tcp" else "wrong-socket"}, answers
    until("nothing is listed", lambda: broker.list() == [])


def test_refuse_keeps_the_one_that_serves_until_it_goes(broker, spawn):
    add_routes()
    broker.policy(section("web", 61001, everywhere(), "Handover=refuse")).start()
    first, second = spawn("first", 61001), spawn("second", 61001)
    handed_over(first, "tcp", "ipv4", service="web")
    before = broker.snapshot()
    open_socket(second, "tcp", "ipv4")
    open_socket(second, "tcp", "ipv6")
    assert second.register("tcp-ipv4", service="web").result == "busy"
    assert second.register("tcp-ipv4", "tcp-ipv6", service="web").result == "busy"
    assert broker.snapshot() == before and who("tcp", "ipv4") == "first"
    assert second.register("tcp-ipv6", service="web").result == "ok", "another family is not busy"
    first.close("tcp-ipv4")
    assert second.register("tcp-ipv4", service="web").result == "ok", "the sockmap was asked which still live"
    assert who("tcp", "ipv4") == "second"


def test_the_quota_counts_as_it_would_be_after_the_switch(broker, spawn):
    add_routes()
    broker.policy(section("web", 61001, everywhere(), "MaxSockets=2")).start()
    web, other = spawn("web"), spawn("other")
    for protocol, family in (("tcp", "ipv4"), ("tcp", "ipv6"), ("udp", "ipv4")):
        open_socket(web, protocol, family)
        open_socket(other, protocol, family, reuseport=True, port=PORT + 1)
    assert web.register("tcp-ipv4", "tcp-ipv6", "udp-ipv4").result == "quota"
    assert broker.list() == []
    assert web.register("tcp-ipv4", "tcp-ipv6").result == "ok"
    before = broker.snapshot()
    assert web.register("udp-ipv4").result == "quota"
    assert broker.snapshot() == before
    assert other.register("tcp-ipv4", "tcp-ipv6", service="web").result == "ok", "these displace as many"
    web.close("tcp-ipv6")
    other.close("tcp-ipv6")
    assert web.register("udp-ipv4").result == "ok", "the dead are not counted"


def test_only_the_rightful_may_remove(broker, spawn):
    """Outside units, who registered is the uid. Others who are admitted to the service remove nothing of it."""
    add_routes()
    broker.policy("[Service web]\nUser=61001\nUser=61002\n" + everywhere()).start()
    mine, same_uid, admitted, stranger = (spawn(name, uid) for name, uid in (
        ("mine", 61001), ("same-uid", 61001), ("admitted", 61002), ("stranger", 61003)))
    handed_over(mine, "tcp", "ipv4", service="web")
    before = broker.snapshot()
    for text in ("FDSTOREREMOVE=1\nFDNAME=web", "VERB=unregister\nFDNAME=web"):
        assert stranger.control(text).result == "not-permitted"
        assert admitted.control(text).result != "ok"
        assert broker.snapshot() == before
        assert who("tcp", "ipv4") == "mine"
    stranger.notify_and_wait("FDSTOREREMOVE=1\nFDNAME=web")
    assert broker.snapshot() == before
    handed_over(admitted, "udp", "ipv4", service="web")
    assert same_uid.control("FDSTOREREMOVE=1\nFDNAME=web").result == "ok"
    assert [line["uid"] for line in broker.list()] == [61002], "and only their own"
    with refused():
        who("tcp", "ipv4")
    assert who("udp", "ipv4") == "admitted"


def test_root_may_unregister_what_is_not_its_own(broker, spawn):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    handed_over(spawn("web"), "tcp", "ipv4")
    assert broker.ctl("unregister", "web")[0] == 0
    assert broker.list() == []
    assert broker.ask("VERB=unregister\nFDNAME=nothing").result == "unknown-service"


def test_only_root_may_reload_and_unload(broker, spawn):
    broker.policy(section("web", 61001, everywhere())).start()
    web = spawn("web")
    for verb in ("reload", "unload"):
        reply = web.control(f"VERB={verb}")
        assert reply.result == "not-root" and reply.errno != 0
    for verb in ("status", "list", "bindings", "version"):
        assert web.control(f"VERB={verb}").result == "ok", "anyone may read"


def test_nothing_is_held_yet(broker, spawn):
    broker.policy(section("web", 61001, everywhere())).start()
    assert spawn("web").control("FDRETRIEVE=1\nFDNAME=web").result == "not-held"


@each_protocol
@each_family
def test_clients_of_a_dead_service_are_refused_at_once(broker, spawn, remote, protocol, family):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    web = spawn("web")
    handed_over(web, protocol, family)
    assert remote.ask(protocol, ADDRESS[family], PORT).name == "web"
    web.kill()
    with refused():
        who(protocol, family)
    with refused():
        remote.ask(protocol, ADDRESS[family], PORT)
    assert broker.list() == []


def test_the_exit_of_the_registrant_means_nothing_by_itself(broker, spawn):
    """A helper registers a socket that another process keeps."""
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    web = spawn("web", 61002)
    open_socket(web, "tcp", "ipv4")
    helper = os.fork()
    if helper == 0:
        with web.borrowed("tcp-ipv4") as sock:
            os.setresgid(61001, 61001, 61001)
            os.setresuid(61001, 61001, 61001)
            reply = wire.control(broker.control_path, "FDSTORE=1\nFDNAME=web", [sock.fileno()])
        os._exit(0 if reply.result == "ok" else 1)
    assert os.waitpid(helper, 0)[1] == 0
    assert who("tcp", "ipv4") == "web"
    assert [line["pid"] for line in broker.list()] == [helper]
    web.kill()
    with refused():
        who("tcp", "ipv4")


def test_several_requests_on_one_connection_and_none_disturbs_another(broker, spawn):
    """One that never reads its answers and one that sends nothing cost the others nothing."""
    many = "".join(listen("tcp", f"10.{i}.{j}.0/24") for i in range(32) for j in range(64))
    broker.policy(section("web", 61001, listen("tcp", "192.0.2.0/24"), many)).start()
    hanging = [wire.Control(broker.control_path) for _ in range(8)]
    for one in hanging[::2]:
        one.send("VERB=bindings")
    web = spawn("web")
    with wire.Control(broker.control_path) as connection:
        for _ in range(3):
            assert len(connection.request("VERB=bindings").lines) == 2049
            assert connection.request("VERB=list").result == "ok"
            assert connection.request("rubbish").result == "malformed"
    handed_over(web, "tcp", "ipv4")
    assert len(hanging[0].receive().lines) == 2049
    for one in hanging:
        one.sock.close()
