# SPDX-License-Identifier: LGPL-2.1-or-later
"""sockbrokerctl monitor: events as they happen, for root, who may read as slowly as it likes."""

import json
import os
import pathlib
import re
import select
import signal
import subprocess
import time

import pytest

from harness import broker as broker_module
from harness import client, wire
from harness.until import until
from words import ADDRESS, PORT, add_routes, everywhere, handed_over, section

SECONDS = 20


class Monitor:
    """The tool as a child; `events` are the JSON objects so far."""

    def __init__(self, broker, *arguments, mode="--json=short"):
        read, write = os.pipe2(os.O_CLOEXEC)
        self.process = subprocess.Popen([broker_module.BUILD / "sockbrokerctl", "--runtime-dir", broker.runtime, mode,
                                         "monitor", *arguments], stdout=write, stderr=subprocess.PIPE, text=True,
                                        env={"PATH": os.environ["PATH"], "TZ": "UTC"})
        os.close(write)
        self.pipe = read
        self.text = ""

    def __enter__(self):
        self.wait(lambda: "begin" in self.text)
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stderr.close()
        os.close(self.pipe)

    def wait(self, there):
        deadline = time.monotonic() + SECONDS
        while not there():
            left = deadline - time.monotonic()
            assert left > 0, f"not seen: {self.text}"
            if select.select([self.pipe], [], [], left)[0]:
                data = os.read(self.pipe, 65536).decode()
                assert data, f"it ended: {self.text}"
                self.text += data

    @property
    def events(self):
        return [json.loads(line) for line in self.text[:self.text.rfind("\n") + 1].splitlines()]

    def event(self, action, **fields):
        """Waits for one with these fields."""
        def find():
            return next((event for event in self.events
                         if event["action"] == action and all(event[name] == value for name, value in fields.items())),
                        None)
        self.wait(find)
        return find()

    def end(self, with_signal):
        self.process.send_signal(with_signal)
        return self.process.wait(SECONDS)


def loud_policy(number=100):
    """So many warnings at each reload, an event each: bindings that are given twice."""
    return section("web", 61001, "ListenStream=192.0.2.0/24:80\n" * (number + 1))


def test_a_family_that_a_socket_for_both_gives_up_is_a_hand_over(broker, spawn):
    broker.policy("[Service web]\nUser=61001 61002\n" + everywhere()).start()
    with Monitor(broker) as monitor:
        old, new = spawn("old", 61001), spawn("new", 61002)
        for protocol in ("tcp", "udp"):
            cookie = handed_over(old, protocol, "ipv4", f"{protocol}-dual", service="web", dual=True)
            for family, other in (("ipv4", "IPv6"), ("ipv6", "IPv4")):
                newest = handed_over(new, protocol, family, service="web",
                                     address={"ipv4": "127.0.0.2", "ipv6": "::1"}[family])
                event = monitor.event("handover", service="web", cookie=newest)
                assert event["uid"] == 61002
                assert (event["old"]["cookie"], event["old"]["uid"]) == (cookie, 61001)
                last = family == "ipv6"
                assert ("whose socket goes on with " + other in event["message"]) is not last, event
                states = {row["cookie"]: row["state"] for row in broker.list()}
                assert states[newest] == "live" and states[cookie] == ("draining" if last else "live")


def test_each_kind_of_event_is_told_as_it_happens(broker, spawn):
    add_routes()
    broker.policy(section("web", 61001, everywhere()) + section("dns", 61002, everywhere(9)) +
                  section("held", 61001, "HoldSec=1s", everywhere(11))).start()
    with Monitor(broker) as monitor:
        one = spawn("web", 61001)
        cookie = handed_over(one, "tcp", "ipv4")
        event = monitor.event("register", service="web")
        assert event["message"].endswith(f"serves web (192.0.2.0/24:{PORT})"), "TCP of IPv4 is all that it serves"
        assert event["cookie"] == cookie and event["uid"] == 61001 and event["pid"] > 0 and event["result"] == "ok"
        assert event["protocol"] == "tcp" and event["bound"].startswith("127.0.0.1:") and event["unit"] is None
        assert re.fullmatch(r".*50-test\.conf:2", event["rule"])
        assert abs(event["time"] / 1e6 - time.time()) < 60
        newest = handed_over(one, "tcp", "ipv4", label="newer")
        event = monitor.event("handover", service="web")
        assert event["cookie"] == newest and event["old"]["cookie"] == cookie and event["old"]["uid"] == 61001
        assert one.register("newer", service="dns").result == "not-permitted"
        event = monitor.event("refuse", service="dns")
        assert event["result"] == "not-permitted" and event["uid"] == 61001 and "uid 61001" in event["message"]
        assert broker.ctl("unregister", "web")[0] == 0
        monitor.event("unregister", cookie=newest)
        with pytest.raises(OSError):
            client.ask("tcp", ADDRESS["ipv4"], PORT)
        event = monitor.event("no-socket", service="web")
        assert event["count"] >= 1 and "WhenAbsent=refuse" in event["message"]
        two = spawn("held", 61001)
        held = handed_over(two, "tcp", "ipv4", service="held")
        two.kill()
        monitor.event("hold", cookie=held)
        monitor.event("expire", cookie=held)
        three = spawn("dns", 61002)
        last = handed_over(three, "tcp", "ipv4", service="dns")
        three.kill()
        monitor.event("gone", cookie=last)
        assert broker.reload()[0] == 0
        monitor.event("reload", result="ok")
        broker.policy("[Service web]\nFrob=1\n")
        assert broker.reload()[0] == 1
        monitor.event("reload-failed")
        assert monitor.event("diagnostic")["rule"].endswith("50-test.conf:2")
        times = [event["time"] for event in monitor.events]
        assert times == sorted(times)
        assert monitor.end(signal.SIGINT) == 0


def test_a_line_each_for_people_and_only_of_the_services_that_are_named(broker, spawn):
    broker.policy(section("web", 61001, everywhere()) + section("dns-a", 61001, everywhere(9))).start()
    with Monitor(broker, "dns-*",
                 mode="--json=off") as named, Monitor(broker, "--no-legend", mode="--json=off") as all_of_them:
        one = spawn("web", 61001)
        handed_over(one, "tcp", "ipv4", label="web", service="web")
        handed_over(one, "tcp", "ipv4", label="dns", service="dns-a")
        for monitor in named, all_of_them:
            monitor.wait(lambda monitor=monitor: "register dns-a" in monitor.text)
        assert "web" not in named.text and "register web" in all_of_them.text
        line, = [line for line in named.text.splitlines() if "register dns-a" in line]
        assert re.fullmatch(r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d register dns-a: tcp socket 127\.0\.0\.1:\d+ of .*"
                            r"uid 61001.* serves dns-a .*50-test\.conf:\d+\)", line), line
        assert named.end(signal.SIGTERM) == 0
        assert all_of_them.end(signal.SIGINT) == 0 and all_of_them.process.stderr.read() == ""


def test_a_broker_that_hangs_is_an_error_however_short_its_time_is(broker):
    broker.policy("").start()
    os.kill(broker.process.pid, signal.SIGSTOP)
    try:
        for arguments, least, most in (["--timeout=1s"], 1, 4.9), (["--timeout=1h"], 5, 20):
            started = time.monotonic()
            status, said = broker.ctl("--json=short", "monitor", *arguments)
            assert status == 1 and "does not answer" in said and '"result":"no-answer"' in said.replace(" ", "")
            assert least <= time.monotonic() - started < most
    finally:
        os.kill(broker.process.pid, signal.SIGCONT)


def test_it_ends_after_its_time_and_when_the_broker_goes(broker):
    broker.policy("").start()
    started = time.monotonic()
    assert broker.ctl("monitor", "--timeout=200ms")[0] == 0 and time.monotonic() - started >= 0.2
    with Monitor(broker) as monitor:
        broker.stop()
        monitor.event("stop")
        assert monitor.process.wait(SECONDS) == 3 and "the broker has ended" in monitor.process.stderr.read()
    broker.start()
    with Monitor(broker) as monitor:
        broker.kill()
        assert monitor.process.wait(SECONDS) == 3
    assert broker.ctl("monitor")[0] == 3, "nobody is there"
    broker.start()
    with Monitor(broker) as monitor:
        assert broker.ctl("--bpffs", str(broker.bpffs), "unload")[0] == 0
        monitor.event("unload")
        assert monitor.process.wait(SECONDS) == 3


def test_a_broker_that_hangs_is_an_error(broker):
    broker.policy("").start()
    broker.process.send_signal(signal.SIGSTOP)
    try:
        status, text = broker.ctl("monitor")
    finally:
        broker.process.send_signal(signal.SIGCONT)
    assert status == 1 and "does not answer" in text


def test_only_root_may(broker, spawn):
    broker.policy(section("web", 61001, everywhere())).start()
    reply = spawn("web", 61001).control("VERB=monitor")
    assert reply.result == "not-root" and "journal" in reply.message


def memory(broker):
    fields = pathlib.Path(f"/proc/{broker.process.pid}/status").read_text(encoding="ascii")
    return int(re.search(r"VmRSS:\s+(\d+)", fields).group(1)) * 1024


def read_all(connection, last):
    """Lines until one of the event `last`."""
    lines = []
    while not any(line["action"] == last for line in lines):
        lines += [json.loads(line) for line in connection.sock.recv(wire.RECORD).decode().splitlines()]
    return lines


def test_a_reader_that_does_not_read_costs_nobody_anything_and_is_told_what_it_missed(broker):
    broker.policy(loud_policy()).start()
    with wire.Control(broker.control_path) as slow, wire.Control(broker.control_path) as other:
        for one in slow, other:
            one.send("VERB=monitor")
            assert json.loads(one.sock.recv(wire.RECORD))["action"] == "begin"

        def reloads(count):
            told = 0
            for _ in range(count):
                assert broker.ask("VERB=reload").result == "ok"
                told += len(read_all(other, "reload"))
            return told
        told = reloads(40)
        before = memory(broker)
        told += reloads(40)
        assert told >= 8000
        assert memory(broker) - before < 4 << 20, "the queue is bounded"
        assert broker.ctl("unregister", "web")[0] == 1  # an event that comes last
        assert read_all(other, "refuse")
        seen = read_all(slow, "refuse")
        missed = [line for line in seen if line["action"] == "missed"]
        assert missed and "too slow" in missed[0]["message"]
        assert sum(line["count"] for line in missed) + len(seen) - len(missed) == told + 1


def test_many_monitors_are_bounded_and_those_that_left_make_room(broker):
    broker.policy("").start()
    made = []
    for _ in range(32):
        made.append(wire.Control(broker.control_path))
        made[-1].send("VERB=monitor")
        assert json.loads(made[-1].sock.recv(wire.RECORD))["action"] == "begin"
    reply = broker.ask("VERB=monitor")
    assert reply.result == "busy" and "32" in reply.message
    for one in made:
        one.sock.close()

    def room():
        with wire.Control(broker.control_path) as one:
            one.send("VERB=monitor")
            return one.sock.recv(wire.RECORD).startswith(b"{")
    until("a monitor has room", room)
