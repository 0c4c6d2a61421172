# SPDX-License-Identifier: LGPL-2.1-or-later
"""HoldSec=: who gets held sockets back, by which tool, and what the broker takes up of those that it is passed."""

import contextlib
import os
import select
import socket
import struct
import subprocess

import pytest

from harness import broker as broker_module
from harness import faults, kernel, wire
from harness.until import until
from holding import HELD, end, knock, states
from words import ADDRESS, add_routes, everywhere, handed_over, listen, open_socket, section, who


@pytest.fixture(name="broker")
def _broker(broker):
    add_routes()
    yield broker


def start_with(broker, stored, name):
    """A start for which PID 1 has kept a socket, by this name."""
    broker.activated.append(stored)
    broker.environment["LISTEN_FDNAMES"] = "a:b:" + name
    broker.start()
    broker.activated.remove(stored)


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
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)


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


@pytest.mark.parametrize("tool, status", [("sockbrokerctl", 1), ("sockbroker-run", 71)])
def test_sockets_for_which_there_are_too_few_descriptors_stay_held(broker, spawn, tool, status):
    broker.policy(section("web", 61001, everywhere(), HELD, "Handover=share")).start()
    old = spawn("web")
    labels = [f"tcp-{i}" for i in range(20)]
    for label in labels:
        open_socket(old, "tcp", "ipv4", label)
    assert old.register(*labels).result == "ok"
    old.kill()
    until("all to be held", lambda: states(broker).count("held") == 20)
    command = ["setpriv", "--reuid=61001", "--regid=61001", "--clear-groups", "prlimit", "--nofile=20:",
               str(broker_module.BUILD / RETRIEVE[tool][0]), *RETRIEVE[tool][1:], "/bin/true"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status and "LimitNOFILE=" in done.stderr, done
    assert states(broker) == ["held"] * 20


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
        broker.wait_log("more such descriptors are closed")
        assert broker.log().count("that is nothing of the broker's; it is closed") == 10
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
            start_with(broker, stored, name.format(int(f"{cookie}", 16)))
        assert states(broker) == ["held"]
        assert spawn("web").retrieve().result == "ok"
        assert file.readline().startswith(b"web ")
        waiting.close()
    finally:
        broker.discard()


def test_after_a_restart_who_asks_before_the_holder_has_the_socket_waits_for_it(spawn):
    """A message that has waited for the broker is among the first things that it reads."""
    broker = broker_module.Broker(activated=True)
    points = faults.FaultPoints(process="sb-holder")
    broker.environment = points.environment
    try:
        add_routes()
        broker.policy(section("web", 61001, everywhere(), HELD)).start()
        old = spawn("web")
        cookie = handed_over(old, "tcp", "ipv4")
        with old.borrowed("tcp-ipv4") as stored, contextlib.ExitStack() as stack:
            broker.kill()
            old.kill()
            with kernel.acting_as(61001):
                asking = stack.enter_context(wire.Control(broker.control_path))
                asking.send("FDRETRIEVE=1\nFDNAME=web")
            points.arm(kill_at=1, waits=True)
            start_with(broker, stored, "0")
            until("the holder to wait", lambda: points.count() >= 1)
            assert broker.ask("VERB=version").result == "ok"
            assert not select.select([asking.sock], [], [], 0.3)[0], "it is not known yet whether the holder keeps it"
            points.go_on()
            reply, fds = asking.receive_with_descriptors()
            assert len(fds) == 1, reply
            with socket.socket(fileno=fds[0]) as given:
                assert kernel.socket_cookie(given) == cookie
    finally:
        points.go_on()
        broker.discard()


def test_a_start_without_any_policy_that_could_be_in_force_gives_no_held_socket_up(spawn):
    """The one on disk has an error, and its copy is lost: dispatch goes on by the rules of the kernel, and a client
    waits for 30 s, since no policy says how long."""
    broker = broker_module.Broker(activated=True)
    try:
        add_routes()
        policy = section("web", 61001, everywhere(), "HoldSec=20\n")
        broker.policy(policy).start()
        old = spawn("web")
        handed_over(old, "tcp", "ipv4")
        with old.borrowed("tcp-ipv4") as stored:
            broker.kill()
            for copy in broker.state.iterdir():
                copy.unlink()
            broker.policy("nonsense\n")
            start_with(broker, stored, "0")
        assert "no copy of a last-known-good policy" in str(broker.status()[0])
        assert states(broker) == ["live"]
        end(old, broker, "web is gone, its .* waits 30 s for the next instance")
        waiting, file = knock(ADDRESS["ipv4"])
        assert spawn("web").retrieve().result == "unknown-service"
        assert broker.policy(policy).reload()[0] == 0
        assert states(broker) == ["held"]
        assert spawn("web").retrieve().result == "ok"
        assert file.readline().startswith(b"web ")
        waiting.close()
    finally:
        broker.discard()
