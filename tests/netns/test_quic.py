# SPDX-License-Identifier: LGPL-2.1-or-later
"""QUIC as it is: sessions of quic-go, whose server knows nothing of the broker, over hand-overs to processes of other
users with sockets of their own. UdpReply=original and UdpFlows=stay together."""

import os
import pathlib
import shutil

import pytest

from harness import http3, quic, worker
from waiting import inside
from words import ADDRESS, PORT, add_routes, listen

LONG = "SOCKBROKER_LONG" in os.environ
SESSIONS, HANDOVERS = (1000, 100) if LONG else (100, 5)
LOOPBACK = {"ipv4": "127.0.1.{}", "ipv6": "fd00:53::{}"}
UNIT = "quic.service"


@pytest.fixture(name="built", scope="module")
def _built(tmp_path_factory):
    """By Go of packages that are installed, or with SOCKBROKER_LONG unpacked."""
    unpacked = http3.unpacked("", *quic.PACKAGES) if LONG else None
    roots = [pathlib.Path("/"), *([unpacked] if isinstance(unpacked, pathlib.Path) else [])]
    return quic.build(tmp_path_factory.mktemp("quic") / "quic", roots) or pytest.skip(
        unpacked if isinstance(unpacked, str) else f"there is no {' or no '.join(quic.PACKAGES)}")


@pytest.fixture(name="program")
def _program(built, netns):  # pylint: disable=unused-argument
    return shutil.copy(built, "/run/quic")  # where an ordinary user may read


@pytest.fixture(name="hand_over")
def _hand_over(broker, program, slice_):
    """hand_over(family): a new server, which serves from now on; `hand_over.servers`: all, the first first."""
    servers = []
    cgroup = slice_.unit(UNIT)

    def start(family):
        number = len(servers) + 1
        servers.append(worker.Worker(quic.Server, program, cgroup, 61001 + number % 2, LOOPBACK[family].format(number),
                                     PORT))
        assert servers[-1].register("quic") == "ok", broker.log()

    start.servers = servers
    yield start
    for one in servers:
        one.kill()


@pytest.fixture(name="dial")
def _dial(remote, program):
    """dial(family): what keeps sessions, on another host."""
    made = []

    def start(family):
        with inside(remote.pid):
            made.append(quic.Clients(program, ADDRESS[family], PORT))
        return made[-1]

    yield start
    for one in made:
        one.end()


def begin(broker, *more):
    add_routes()
    broker.policy(f"[Service quic]\nUnit={UNIT}\n{listen('udp', '192.0.2.0/24')}{listen('udp', '2001:db8::/64')}"
                  "UdpReply=original\n" + "".join(more)).start()


@pytest.mark.parametrize("family, stay", [("ipv4", True), ("ipv6", True), ("ipv4", False)])
def test_quic_sessions_over_many_hand_overs(broker, hand_over, dial, family, stay):
    """With stay none is lost; without all that began before are, which shows that the test can tell."""
    sessions, handovers = (SESSIONS, HANDOVERS) if stay else (100, 1)
    begin(broker, "UdpFlows=stay\n" if stay else "")
    hand_over(family)
    clients = dial(family)
    assert clients.begin(sessions) == 0
    assert clients.round() == 0
    for _ in range(handovers):
        hand_over(family)
        assert clients.begin(2) == 0, "new sessions are served"
        assert clients.round() == (0 if stay else sessions)
        assert hand_over.servers[-1].known() == 2, "new sessions go to the newest"
    assert hand_over.servers[0].known() == sessions
