# SPDX-License-Identifier: LGPL-2.1-or-later
"""A reload of a million bindings beside everything else: registrations go on, each reload has its own answer, a peer
that leaves and a broker that ends disturb nothing."""

import os
import select
import signal
import socket
import time

import pytest

from harness import kernel, wire
from words import PORT, add_routes, everywhere, handed_over, listen, open_socket, section, who

MILLION = 1_000_000
SMALL = section("web", 61001, listen("tcp", "192.0.2.0/24"))
LONGEST = float(os.environ.get("SOCKBROKER_REGISTRATION_SECONDS", "1"))
SHARE = 3  # or of the time that the reload takes, on a slow machine: the loop that stood still would take all of it


@pytest.fixture(name="million")
def _million(broker):
    """A broker with room for a million bindings, and a function that makes them the policy, with a port of choice."""
    add_routes()
    (broker.config / "sockbrokerd.conf").write_text(f"[Broker]\nMaxBindings={MILLION + 100}\n")
    broker.policy(SMALL).start()

    def write(port=80):
        lines = [f"ListenStream=10.{i >> 16}.{i >> 8 & 255}.{i & 255}:{port}\n" for i in range(MILLION)]
        broker.policy("[Service many]\nUser=61002\n" + "".join(lines), "90-many.conf")

    write()
    return write


def test_registrations_go_on_during_a_reload_of_a_million_bindings(broker, million, spawn):
    web = spawn("web", 61001)
    for label in ("one", "two"):
        open_socket(web, "tcp", "ipv4", label)
    assert web.register("one").result == "ok"
    for port in (80, 81):
        million(port)
        waits = []
        with wire.Control(broker.control_path) as control:
            began = time.monotonic()
            control.send("VERB=reload")
            while not select.select([control.sock], [], [], 0)[0]:
                asked = time.monotonic()
                reply = web.register("two" if len(waits) % 2 == 0 else "one")
                waits.append(time.monotonic() - asked)
                assert reply.result == "ok", reply
            took = time.monotonic() - began
            assert control.receive().result == "ok"
        print(f"reload of a million bindings: {took:.2f} s, {len(waits)} registrations meanwhile, the longest "
              f"{max(waits) * 1000:.1f} ms, median {sorted(waits)[len(waits) // 2] * 1000:.1f} ms")
        assert len(waits) >= 10, "there must be something to wait for, or this says nothing"
        assert max(waits) < max(LONGEST, took / SHARE)
        assert who("tcp", "ipv4", PORT) == "web"
    assert broker.status()[0]["policy"]["bindings"] == MILLION + 1


def test_each_reload_is_answered_by_its_own_result(broker, million, spawn):  # pylint: disable=unused-argument
    with wire.Control(broker.control_path) as first, wire.Control(broker.control_path) as second:
        first.send("VERB=reload")
        broker.policy("nonsense\n", "99-bad.conf")
        second.send("VERB=reload")
        assert broker.ask("VERB=version").result == "ok", "others are not kept waiting"
        first.receive()  # it may have read the directory before or after
        reply = second.receive()
        assert reply.result == "malformed" and reply.message == "policy refused, 1 error, the running policy stays"
        assert [line["line"] for line in reply.lines] == [1]
        (broker.config / "conf.d/99-bad.conf").unlink()
        first.send("VERB=reload")
        broker.ask("VERB=version")
        (broker.config / "conf.d/90-many.conf").unlink()
        second.send("VERB=reload")
        first.receive()
        reply = second.receive()
        assert reply.result == "ok" and "1 services, 1 bindings" in reply.message


def test_what_was_admitted_under_the_old_policy_is_judged_by_the_new_one_at_its_switch(broker, million, spawn):
    web = spawn("web", 61001)
    open_socket(web, "tcp", "ipv4", "late")
    broker.policy(SMALL.replace("61001", "61003"))
    with wire.Control(broker.control_path) as control:
        control.send("VERB=reload")
        assert web.register("late").result == "ok", "the policy in force admits it still"
        assert who("tcp", "ipv4", PORT) == "web"
        assert control.receive().result == "ok"
    assert broker.list() == []
    assert web.register("late").result == "not-permitted"


def test_a_peer_that_leaves_during_its_reload_costs_nobody_anything(broker, million, spawn):
    with wire.Control(broker.control_path) as control:
        control.send("VERB=reload")
    broker.wait_log(r"reload: policy taken: 2 services, 1000001 bindings")
    handed_over(spawn("web", 61001), "tcp", "ipv4")
    assert who("tcp", "ipv4", PORT) == "web"


def test_sighup_and_the_end_of_the_broker_during_a_reload(broker, million, spawn):
    web = spawn("web", 61001)
    handed_over(web, "tcp", "ipv4")
    broker.process.send_signal(signal.SIGHUP)
    broker.ask("VERB=version")  # the signal was taken before this was read
    broker.stop()
    assert who("tcp", "ipv4", PORT) == "web"
    broker.start()
    assert who("tcp", "ipv4", PORT) == "web"
    assert broker.status()[0]["policy"]["bindings"] == MILLION + 1


@pytest.fixture(name="slow_readers")
def _slow_readers(broker):
    """Reloads a policy of many bindings, time and again, each with a reader of `bindings` that has only begun to
    read."""
    many = 200_000
    (broker.config / "sockbrokerd.conf").write_text(f"[Broker]\nMaxBindings={many}\n")
    lines = "".join(f"ListenStream=10.{i >> 16}.{i >> 8 & 255}.{i & 255}:80\n" for i in range(many))
    broker.policy("[Service many]\nUser=61002\n" + lines).start()
    readers = []

    def reload():
        readers.append(wire.Control(broker.control_path))
        readers[-1].send("VERB=bindings")
        readers[-1].sock.recv(wire.RECORD)
        assert broker.ask("VERB=reload").result == "ok"
        return readers

    yield reload
    for reader in readers:
        reader.sock.close()


def test_slow_readers_of_bindings_keep_one_old_policy_and_not_each(slow_readers):
    """An answer ends when its policy is replaced for the second time."""
    for _ in range(4):
        readers = slow_readers()
    replies = [reader.receive() for reader in readers]
    assert [reply.result for reply in replies] == ["busy", "busy", "busy", "ok"]
    assert replies[0].message == "the policy was replaced twice while this was read, ask again"
    assert readers[0].request("VERB=version").result == "ok", "the connection goes on"


def test_the_memory_of_old_policies_is_given_back_beside_slow_readers(broker, slow_readers):
    def resident():
        with open(f"/proc/{broker.process.pid}/status", encoding="ascii") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))

    used = []
    for _ in range(12):
        slow_readers()
        used.append(resident())
    assert max(used) < used[2] + 16_000, f"KiB after each reload: {used}"


def test_degraded_is_told_with_the_time_since_which_it_is(broker):
    before = time.time()
    broker.policy(SMALL).start()
    assert broker.status()[0]["degraded_since"] is None
    broker.policy("nonsense\n", "99-bad.conf")
    while time.time() < broker.status()[0]["since"] / 1e6 + 1.1:
        broker.ask("VERB=version")  # so that a time of the start would be seen in a text of whole seconds
    since = []
    for _ in range(2):
        asked = time.time()
        assert broker.reload()[0] == 1
        since.append(broker.status()[0]["degraded_since"] / 1e6)
        assert broker.ctl("status")[1].splitlines()[1] == "     State: degraded since " + time.strftime(
            "%a %Y-%m-%d %H:%M:%S %Z", time.localtime(int(since[0])))
    assert before < since[0] < asked and since[0] == since[1], "since the first refusal"
    (broker.config / "conf.d/99-bad.conf").unlink()
    assert broker.reload()[0] == 0
    assert broker.status()[0]["degraded_since"] is None


def test_what_systemd_is_told_follows_each_reload_at_once(broker, tmp_path):  # pylint: disable=unused-argument
    broker.policy(SMALL).start()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        os.unlink("/run/ready")
        manager.bind("/run/ready")  # where the broker was told that its manager listens
        os.chmod("/run/ready", 0o666)
        manager.settimeout(20)

        def told():
            while True:
                lines = manager.recv(4096).decode().splitlines()
                for line in lines:
                    if line.startswith("STATUS="):
                        return line

        broker.policy("nonsense\n", "99-bad.conf")
        assert broker.reload()[0] == 1
        assert told() == ("STATUS=1 services, 1 bindings, degraded: policy refused, 1 error, the running policy stays "
                          "(the "
                          f"first: {broker.config}/conf.d/99-bad.conf:1: neither [Service NAME] nor Key=Value nor a "
                          "comment)")
        (broker.config / "conf.d/99-bad.conf").unlink()
        broker.process.send_signal(signal.SIGHUP)
        assert told() == "STATUS=1 services, 1 bindings"


def test_a_file_system_mounted_over_the_policies_is_told_to_need_a_restart(broker, spawn):
    """As a merge of systemd-sysext or systemd-confext does it: Landlock's rules are of the directories below."""
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    handed_over(spawn("web"), "tcp", "ipv4")
    for folder in ("up", "work"):
        os.makedirs(f"/run/merge/{folder}/conf.d" if folder == "up" else "/run/merge/work")
    kernel.mount("overlay", str(broker.config), "overlay", 0,
                 f"lowerdir={broker.config},upperdir=/run/merge/up,workdir=/run/merge/work")
    broker.policy(section("more", 61001, listen("tcp", "198.51.100.0/24")), "60-more.conf")
    status, said = broker.reload()
    assert status != 0 and "restart sockbrokerd" in said
    assert who("tcp", "ipv4") == "web", "the running policy stays"
    broker.stop()
    broker.start()
    assert broker.status()[0]["state"] == "running" and set(broker.status()[1]) == {"web", "more"}
    assert who("tcp", "ipv4") == "web"
    assert broker.reload()[0] == 0
