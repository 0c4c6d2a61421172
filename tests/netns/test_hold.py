# SPDX-License-Identifier: LGPL-2.1-or-later
"""HoldSec=: a socket outlives its service for so long, and the next instance goes on where the last one ended.

Services here run in no unit, so the broker goes by their processes; tests/system has the same with units."""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import time

import pytest

from harness import broker as broker_module
from harness import client
from harness.until import until
from words import ADDRESS, LOOPBACK, PORT, add_routes, each_family, each_protocol, everywhere, handed_over, listen
from words import open_socket, refused, section, who

HELD = "HoldSec=30\n"


def states(broker, service="web"):
    return sorted(row["state"] for row in broker.list() if row["service"] == service)


def end(one, broker, held="waits"):
    """The service ends, and the broker has noticed."""
    one.kill()
    if held:
        broker.wait_log(held)


def refused_soon(protocol="tcp"):
    """The end of a hold is told when it is decided; the holder closes the socket a moment later. Who comes in between
    waits in a queue that goes."""
    deadline = time.monotonic() + client.TIMEOUT
    while True:
        try:
            who(protocol, "ipv4")
        except ConnectionRefusedError:
            return
        except (ConnectionResetError, TimeoutError):
            assert time.monotonic() < deadline
        else:
            raise AssertionError("somebody answered")


def knock(address, port=PORT):
    """A connection that nobody has accepted yet: the kernel has completed its handshake."""
    waiting = socket.create_connection((address, port), timeout=client.TIMEOUT)
    return waiting, waiting.makefile("rb")


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
    began = time.monotonic()
    with refused():
        who(protocol, "ipv4")
    assert time.monotonic() - began < 1
    assert spawn("web").retrieve().result == "not-held"


def test_after_holdsec_clients_are_refused_and_the_journal_says_so(broker, spawn):
    broker.policy(section("web", 61001, everywhere(), "HoldSec=500ms")).start()
    one = spawn("web")
    handed_over(one, "tcp", "ipv4")
    end(one, broker)
    began = time.monotonic()
    waiting, file = knock(ADDRESS["ipv4"])
    broker.wait_log("expire: .*nobody came for it within 0.500 s")
    assert 0.2 < time.monotonic() - began < 5
    with pytest.raises(ConnectionResetError):
        file.readline()
    waiting.close()
    refused_soon()
    assert states(broker) == []
    assert spawn("web").retrieve().result == "not-held"


def test_a_held_socket_is_given_back_once_to_whom_policy_admits(broker, spawn):
    broker.policy(section("web", 61001, everywhere(), HELD)).start()
    old = spawn("web")
    handed_over(old, "tcp", "ipv4")
    assert spawn("web").retrieve().result == "not-held", "its service lives"
    end(old, broker)
    assert spawn("other", 61002).retrieve("web").result == "not-permitted"
    assert spawn("web").retrieve("nobody").result == "unknown-service"
    first, second = spawn("web"), spawn("web")
    assert first.retrieve().result == "ok"
    assert second.retrieve().result == "not-held"
    assert "refuse" not in broker.log().partition("waits")[2].replace("not-permitted", "").partition("retrieve:")[2]
    # The one that has it now is held again when it goes.
    first.kill()
    broker.wait_log("retrieve: (.*\n)+.*waits")
    assert second.retrieve().result == "ok"
    assert who("tcp", "ipv4") == "web"


def test_who_asks_and_ends_before_it_serves_leaves_it_held(broker, spawn):
    broker.policy(section("web", 61001, everywhere(), HELD)).start()
    old = spawn("web")
    handed_over(old, "tcp", "ipv4")
    end(old, broker)
    waiting, file = knock(ADDRESS["ipv4"])
    short = spawn("web")
    short.control_unread("FDRETRIEVE=1\nFDNAME=web")
    short.kill()
    broker.wait_log("retrieve: (.*\n)+.*waits")
    assert states(broker) == ["held"]
    assert spawn("web").retrieve().result == "ok"
    assert file.readline().startswith(b"web ")
    waiting.close()


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



PROGRAM = """
import os, socket
count = int(os.environ.get("LISTEN_FDS", 0))
if count:
    assert (os.environ["LISTEN_PID"], os.environ["LISTEN_FDNAMES"]) == (str(os.getpid()), "web")
    listener = socket.socket(fileno=3)
    connection, _ = listener.accept()
    connection.sendall(b"the next instance\\n")
print(count)
"""


def retrieve_by_tool(service):
    command = ["setpriv", "--reuid=61001", "--regid=61001", "--clear-groups",
               str(broker_module.BUILD / "sockbrokerctl"), "retrieve", service, "--", "/usr/bin/python3", "-c", PROGRAM]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False)


def test_sockbrokerctl_retrieve_passes_held_sockets_on_as_systemd_would(broker, spawn):
    broker.policy(section("web", 61001, everywhere(), HELD)
                  + section("other", 61002, listen("tcp", "198.51.100.0/24"))).start()
    first = retrieve_by_tool("web")
    assert (first.returncode, first.stdout, first.stderr) == (0, "0\n", ""), "nothing is held, the program runs"
    refused_one = retrieve_by_tool("other")
    assert refused_one.returncode != 0 and "not-permitted" in refused_one.stderr and not refused_one.stdout
    old = spawn("web")
    handed_over(old, "tcp", "ipv4")
    end(old, broker)
    waiting, file = knock(ADDRESS["ipv4"])
    done = retrieve_by_tool("web")
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
    assert file.readline() == b"the next instance\n"
    waiting.close()


COUNT = "echo $LISTEN_FDS ${LISTEN_PIDFDID-unset}; read line"
RETRIEVE = {
    "sockbrokerctl": ["sockbrokerctl", "retrieve", "web", "--"],
    "sockbroker-run": ["sockbroker-run", f"--profile={broker_module.TOP}/sandbox/profiles/default.profile",
                       "--service=web", "--retrieve"],
}


@pytest.mark.parametrize("tool", RETRIEVE)
def test_all_sockets_of_a_service_are_passed_on_however_many_messages_they_take(broker, spawn, tool):
    """256 may be shared, a message carries 253; and whose LISTEN_PIDFDID= was inherited says nothing of the program."""
    broker.policy(section("web", 61001, everywhere(), HELD, "Handover=share")).start()
    old = spawn("web")
    labels = [f"tcp-{i}" for i in range(256)]
    for label in labels:
        open_socket(old, "tcp", "ipv4", label)
    assert old.register(*labels[:200]).result == old.register(*labels[200:]).result == "ok"
    old.kill()
    until("all to be held", lambda: states(broker).count("held") == 256)
    command = ["setpriv", "--reuid=61001", "--regid=61001", "--clear-groups", "env", "LISTEN_PIDFDID=12345",
               str(broker_module.BUILD / RETRIEVE[tool][0]), *RETRIEVE[tool][1:], "/bin/bash", "-c", COUNT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout.readline() == "256 unset\n"
        assert set(states(broker)) == {"live"}


def test_each_socket_is_held_as_itself_where_one_came_twice(broker, spawn):
    broker.policy(section("web", 61001, everywhere(), HELD, "Handover=share")).start()
    old = spawn("web")
    for label in "ab":
        open_socket(old, "tcp", "ipv4", label)
    assert old.register("a", "a", "b").result == "ok"
    cookies = sorted(row["cookie"] for row in broker.list())
    assert len(set(cookies)) == 2
    old.kill()
    until("both to be held", lambda: states(broker).count("held") == 2)
    assert sorted(row["cookie"] for row in broker.list()) == cookies


def test_what_the_broker_does_not_know_among_passed_descriptors_is_closed_and_no_reason_not_to_start(spawn):
    """Another version's, or an administrator's. Some of them close only when their owner likes: nobody waits for it."""
    broker = broker_module.Broker(activated=True)
    try:
        add_routes()
        read, write = os.pipe()
        pipe = os.fdopen(write, "w")
        far, stream = socket.socketpair()
        lingering = socket.create_server(("127.0.0.1", 0))
        client_end = socket.create_connection(lingering.getsockname())
        served, _ = lingering.accept()
        served.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 30))
        served.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:  # what nobody reads keeps its close(2)
                served.send(bytes(1 << 20))
        served.setblocking(True)
        third = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        third.bind("/run/third")
        strangers = [pipe, stream, open("/proc/self/status", encoding="ascii"), third, served, lingering,
                     *(open("/dev/null", encoding="ascii") for _ in range(10))]
        # Before, between and behind the two that are meant.
        broker.activated[:0] = strangers[:2]
        broker.activated[3:3] = strangers[2:4]
        broker.activated += strangers[4:]
        broker.policy(section("web", 61001, everywhere(), HELD)).start()
        assert broker.status()[0]["state"] == "running"
        handed_over(spawn("web"), "tcp", "ipv4")
        assert who("tcp", "ipv4") == "web"
        log = broker.log()
        assert log.count("that is nothing of the broker's; it is closed") == 10
        assert "more such descriptors are closed" in log
        for one in strangers:
            broker.activated.remove(one)
            one.close() if one is not served else None
        assert os.read(read, 1) == b"" and far.recv(1) == b"", "nobody has them any more"
        client_end.close()
        served.close()
        broker.stop()
    finally:
        broker.discard()


@pytest.mark.parametrize("name", ["held-{:016x}", "0", "unknown"])
def test_a_held_socket_is_taken_up_by_whatever_name_the_manager_keeps_it(spawn, name):
    """The first is how versions before this one called it."""
    broker = broker_module.Broker(activated=True)
    try:
        add_routes()
        broker.policy(section("web", 61001, everywhere(), HELD)).start()
        old = spawn("web")
        cookie = handed_over(old, "tcp", "ipv4")
        with old.borrowed("tcp-ipv4") as stored:
            broker.kill()
            old.kill()
            waiting, file = knock(ADDRESS["ipv4"])
            broker.activated.append(stored)
            broker.environment["LISTEN_FDNAMES"] = "a:b:" + name.format(int(f"{cookie}", 16))
            broker.start()
            broker.activated.remove(stored)
        assert states(broker) == ["held"]
        assert spawn("web").retrieve().result == "ok"
        assert file.readline().startswith(b"web ")
        waiting.close()
    finally:
        broker.discard()


def wait_in_queue(protocol):
    """A client whose connection or datagram nobody has read; it hears of a refusal."""
    if protocol == "tcp":
        return knock(ADDRESS["ipv4"])[0]
    asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asking.settimeout(client.TIMEOUT)
    asking.bind((LOOPBACK["ipv4"], 0))
    asking.connect((ADDRESS["ipv4"], PORT))
    asking.send(b"x")
    return asking


@each_protocol
def test_clients_of_a_listener_that_its_owner_closed_hang_no_longer_than_holdsec(broker, spawn, protocol):
    """The owner lives, so nobody hears of it; the broker has the last descriptor."""
    broker.policy(section("web", 61001, everywhere(), "HoldSec=1")).start()
    one = spawn("web")
    handed_over(one, protocol, "ipv4")
    one.close(f"{protocol}-ipv4")
    began = time.monotonic()
    with wait_in_queue(protocol) as waiting:
        broker.wait_log("expire: what came on the .* of web has waited 1 s and nobody reads it")
        assert 0.9 < time.monotonic() - began < 3
        if protocol == "tcp":
            with pytest.raises(ConnectionResetError):
                waiting.recv(1)
    until("to be found gone", lambda: states(broker) == [])
    with refused():
        who(protocol, "ipv4")
    # The service is as good as any first one.
    handed_over(one, protocol, "ipv4")
    assert who(protocol, "ipv4") == "web"


@each_protocol
def test_an_unread_socket_that_somebody_has_still_loses_its_hold_and_nothing_else(broker, spawn, protocol):
    broker.policy(section("web", 61001, everywhere(), "HoldSec=1")).start()
    one = spawn("web")
    cookie = handed_over(one, protocol, "ipv4")
    one.pause(f"{protocol}-ipv4")
    with wait_in_queue(protocol) as waiting:
        broker.wait_log("expire: .*who has it still goes on")
        assert [(row["cookie"], row["state"]) for row in broker.list()] == [(f"{cookie}", "live")]
        one.resume(f"{protocol}-ipv4")
        assert waiting.recv(4096).startswith(b"web ")
    assert who(protocol, "ipv4") == "web"
    one.kill()
    refused_soon(protocol)


def test_a_queue_that_is_never_empty_but_read_keeps_its_hold(broker, spawn):
    broker.policy(section("web", 61001, everywhere(), "HoldSec=1")).start()
    one = spawn("web")
    handed_over(one, "tcp", "ipv4")
    one.pause("tcp-ipv4")
    waiting = [knock(ADDRESS["ipv4"]) for _ in range(40)]
    with one.borrowed("tcp-ipv4") as listener:
        for _ in range(30):  # three times HoldSec=
            listener.accept()[0].close()
            time.sleep(0.1)
    one.kill()
    broker.wait_log("waits 1.000 s|waits 1 s")
    assert "nobody reads it" not in broker.log() and states(broker) == ["held"]
    for sock, _ in waiting:
        sock.close()


def test_a_broker_that_was_stopped_for_long_does_not_take_it_for_nobody_reading(broker, spawn):
    broker.policy(section("web", 61001, everywhere(), "HoldSec=1")).start()
    one = spawn("web")
    handed_over(one, "tcp", "ipv4")
    broker.process.send_signal(signal.SIGSTOP)
    with wait_in_queue("tcp") as waiting:
        assert waiting.recv(4096).startswith(b"web ")
        one.pause("tcp-ipv4")
        with wait_in_queue("tcp"):
            time.sleep(1.5)
            broker.process.send_signal(signal.SIGCONT)
            broker.status()
            one.resume("tcp-ipv4")
    assert who("tcp", "ipv4") == "web"
    end(one, broker)
    assert "nobody reads it" not in broker.log()


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
    assert 1.5 < time.monotonic() - began < 5
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
