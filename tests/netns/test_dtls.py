# SPDX-License-Identifier: LGPL-2.1-or-later
"""DTLS as it is: sessions of a stock openssl s_server, which knows nothing of the broker, over hand-overs.
UdpReply=original and UdpFlows=stay together. Each instance has one session, as this server does, and the next takes
over all new ones."""

import os
import select
import shutil
import signal
import subprocess

import pytest

from harness import sandbox, supervised, units
from waiting import inside
from words import ADDRESS, PORT, add_routes, listen

LONG = "SOCKBROKER_LONG" in os.environ
HANDOVERS = 100 if LONG else 3
UID = 61001
UNIT = "dtls.service"
PSK = ["-dtls1_2", "-quiet", "-psk", "1a2b3c4d", "-cipher", "PSK"]

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="there is no openssl")


class Talker:
    """A program whose peer says its lines, and which says what its peer is told."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def say(self, text):
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def hears(self, text, seconds=10):
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            return False
        return os.read(self.process.stdout.fileno(), 4096) == text.encode() + b"\n"

    def end(self):
        self.process.kill()
        self.process.communicate()


class Session:
    """One server, and the client whose session it has."""

    def __init__(self, broker, remote, cgroup, family, options):
        words = sandbox.command("--supervise", "/usr/bin/openssl", "s_server", *PSK, *options, "-nocert",
                                f"-{family[-1]}", "-accept", str(PORT), ambient="", uid=UID)
        self.server = Talker(units.command_in(cgroup, *words))
        supervised.until(lambda: self.server.process.poll() is not None or any(
            (row["pid"], row["state"]) == (self.server.process.pid, "live") for row in broker.list()))
        address = ADDRESS[family]
        with inside(remote.pid):
            self.client = Talker(["openssl", "s_client", *PSK, "-connect",
                                  f"[{address}]:{PORT}" if ":" in address else f"{address}:{PORT}"])
        self.number = 0

    def goes_on(self, seconds=10):
        """A line there and one back."""
        self.number += 1
        self.client.say(f"question {self.number}")
        if not self.server.hears(f"question {self.number}", seconds):
            return False
        self.server.say(f"answer {self.number}")
        return self.client.hears(f"answer {self.number}")

    def end(self):
        self.client.end()
        self.server.end()


@pytest.fixture(name="begin")
def _begin(broker, remote, slice_):
    """begin(family, policy lines): each call of what it returns starts one more server, with a session."""
    sessions = []

    def start(family, *lines):
        if LONG:
            signal.alarm(900)  # two hundred programs start, one after the other
        add_routes()
        broker.policy(f"[Service dtls]\nUnit={UNIT}\n{listen('udp', '192.0.2.0/24')}{listen('udp', '2001:db8::/64')}"
                      "UdpReply=original\nMaxSockets=1000\n" + "".join(lines)).start()
        sandbox.install()
        cgroup = slice_.unit(UNIT)

        def one_more(*options):
            sessions.append(Session(broker, remote, cgroup, family, options))
            return sessions[-1]
        return one_more

    yield start
    for one in sessions:
        one.end()


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_dtls_sessions_over_many_hand_overs(begin, family):
    one_more = begin(family, "UdpFlows=stay\n")
    sessions = [one_more()]
    assert sessions[0].goes_on()
    for number in range(HANDOVERS):
        sessions.append(one_more())
        assert sessions[-1].goes_on(), "a new session is the newest's"
        assert sessions[0].goes_on()
        if number % 10 == 9:  # a flow that is silent for two minutes is over
            assert [one.goes_on() for one in sessions] == [True] * len(sessions)
    assert [one.goes_on() for one in sessions] == [True] * (HANDOVERS + 1)


def test_without_stay_a_session_is_over_at_the_first_hand_over(begin):
    one_more = begin("ipv4")
    old = one_more()
    assert old.goes_on()
    assert one_more().goes_on()
    assert not old.goes_on(seconds=2)


def test_a_server_that_connects_its_socket_to_the_client_cannot_work(begin):
    """-listen answers the first datagram statelessly, then connects: from loopback to another host there is no way."""
    one_more = begin("ipv4", "UdpFlows=stay\n")
    assert not one_more("-listen").goes_on(seconds=2)
