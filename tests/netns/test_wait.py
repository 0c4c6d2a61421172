# SPDX-License-Identifier: LGPL-2.1-or-later
"""sockbrokerctl wait: what deployments and ExecStop= build on. Its promise: a service that closes its displaced sockets
when the wait is over loses nothing."""

import os
import signal
import socket
import subprocess
import time

import pytest

from harness import broker as broker_module
from waiting import COUNT, HalfOpen, outcomes
from words import ADDRESS, PORT, add_routes, everywhere, handed_over, section, who

HANDSHAKE = 4  # seconds, as sockbrokerctl(1) says


class Waiting:
    """`sockbrokerctl wait web` in the background, as an ordinary user."""

    def __init__(self, *arguments):
        # The build tree may be closed to that user, so the program is opened before.
        with open(broker_module.BUILD / "sockbrokerctl", "rb") as program:
            self.process = subprocess.Popen(
                [f"/proc/self/fd/{program.fileno()}", "--runtime-dir", "/run/sockbroker", "wait", *arguments],
                pass_fds=[program.fileno()], user=61009, group=61009, extra_groups=[], cwd="/",
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.begun = time.monotonic()

    def goes_on(self):
        return self.process.poll() is None

    def end(self, seconds=20):
        """(exit status, what it said, seconds that it took)"""
        said, _ = self.process.communicate(timeout=seconds)
        return self.process.returncode, said, time.monotonic() - self.begun


def wait(*arguments):
    return Waiting(*arguments).end()


@pytest.fixture(name="web")
def _web(broker):
    add_routes()
    return broker.policy(section("web", 61001, everywhere())).start()


def displaced(spawn, *labels_of):
    """Two services of `web`, the first displaced on each (protocol, family)."""
    old, new = spawn("old"), spawn("new")
    for protocol, family in labels_of:
        for one in (old, new):
            handed_over(one, protocol, family, service="web", reuseport=True)
    return old, new


def test_live_ends_with_the_first_socket_that_serves_and_outlives_the_broker(web, spawn):
    waiting = Waiting("web", "--for=live")
    one = spawn("web")
    web.kill()
    assert waiting.goes_on()
    web.start()
    assert waiting.goes_on(), "nobody serves yet"
    handed_over(one, "udp", "ipv6")
    assert waiting.end()[:2] == (0, "")
    assert wait("web", "--for=live", "--timeout=0")[:2] == (0, "")


def test_what_does_not_come_in_time_is_named_with_a_status_of_its_own(web, spawn):
    assert wait("web", "--for=live", "--timeout=200ms")[:2] == (
        4, "sockbrokerctl: timed out: service web has no live socket\n")
    assert wait("web", "--for=drained", "--timeout=0")[:2] == (0, ""), "nothing was displaced"
    old, _ = displaced(spawn, ("tcp", "ipv4"))
    bound = f"127.0.0.1:{old.facts('tcp-ipv4')[0]}"
    assert wait("web", "--for=drained", "--timeout=0")[:2] == (
        4, f"sockbrokerctl: timed out: socket {bound} of service web may have half-open handshakes\n")
    web.stop()
    status, said, _ = wait("web", "--for=live", "--timeout=100ms")
    assert status == 3 and said.startswith("sockbrokerctl: timed out: cannot connect to /run/sockbroker/control")


@pytest.mark.parametrize("state", ["live", "drained"])
def test_a_broker_that_hangs_is_an_error_unless_a_time_was_given(web, state):
    os.kill(web.process.pid, signal.SIGSTOP)
    waits = [Waiting("web", f"--for={state}", *time) for time in ((), ("--timeout=10s",), ("--timeout=infinity",))]
    no_answer = "the broker at /run/sockbroker/control does not answer; see systemctl status sockbrokerd"
    status, said, seconds = waits[0].end()
    assert status == 1 and said.startswith(f"sockbrokerctl: {no_answer}") and 4.5 < seconds < 9
    assert waits[1].goes_on()
    status, said, seconds = waits[1].end()
    assert status == 3 and said.startswith(f"sockbrokerctl: timed out: {no_answer}") and 9.5 < seconds < 20
    assert waits[2].goes_on()
    os.kill(web.process.pid, signal.SIGCONT)
    if state == "live":
        assert waits[2].goes_on(), "nobody serves"
        waits[2].process.kill()
    waits[2].end()


def test_drained_waits_for_queues_and_handshakes_of_tcp(web, spawn):
    old = spawn("old")
    handed_over(old, "tcp", "ipv4", service="web")
    old.pause("tcp-ipv4")
    clients = [socket.create_connection((ADDRESS["ipv4"], PORT)) for _ in range(3)]
    assert wait("web", "--for=drained", "--timeout=0")[:2] == (0, ""), "a socket that serves is not waited for"
    handed_over(spawn("new"), "tcp", "ipv4", service="web")
    waiting = Waiting("web", "--for=drained")
    bound = f"127.0.0.1:{old.facts('tcp-ipv4')[0]}"
    assert wait("web", "--for=drained", "--timeout=100ms")[:2] == (
        4, f"sockbrokerctl: timed out: socket {bound} of service web has 3 connections in its queue\n")
    time.sleep(HANDSHAKE + 0.3)  # then handshakes alone would not keep it
    assert waiting.goes_on(), "three connections are not accepted"
    assert old.control("FDSTOREREMOVE=1\nFDNAME=web").result == "ok"
    time.sleep(0.3)  # the time of some looks
    assert waiting.goes_on(), "and that the broker knows it no more changes nothing of it"
    old.resume("tcp-ipv4")
    assert waiting.end()[0] == 0
    for one in clients:
        with one:
            assert one.makefile().readline().startswith("old ")


def test_drained_waits_for_datagrams_that_nobody_has_read(web, spawn):
    old = spawn("old")
    for family in ("ipv4", "ipv6"):
        handed_over(old, "udp", family, service="web", reuseport=True)
    old.pause("udp-ipv6")
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as asking:
        asking.settimeout(20)
        asking.sendto(b"who\n", (ADDRESS["ipv6"], PORT))
        new = spawn("new")
        for family in ("ipv4", "ipv6"):
            handed_over(new, "udp", family, service="web", reuseport=True)
        status, said, _ = wait("web", "--for=drained", "--timeout=100ms")
        assert status == 4 and "socket [::1]:7000 of service web has " in said and " bytes in its queue" in said
        elsewhere = subprocess.run(["unshare", "--net", str(broker_module.BUILD / "sockbrokerctl"), "wait", "web",
                                    "--for=drained", "--timeout=10s"], capture_output=True, text=True, check=False)
        assert elsewhere.returncode == 1, "in another network namespace nothing is seen, and that is an error"
        assert "the kernel does not show the socket " in elsewhere.stderr
        old.resume("udp-ipv6")
        assert asking.recv(100).startswith(b"old ")
    assert wait("web", "--for=drained", "--timeout=1s")[0] == 0, "datagrams have no handshakes"


def test_drained_when_the_displaced_is_closed_and_after_a_restart_of_the_broker(web, spawn):
    old = spawn("old")
    handed_over(old, "tcp", "ipv4", service="web")
    old.pause("tcp-ipv4")
    with socket.create_connection((ADDRESS["ipv4"], PORT)):  # nobody will ever accept it
        handed_over(spawn("new"), "tcp", "ipv4", service="web")
        waiting = Waiting("web", "--for=drained")
        web.kill()
        web.start()
        assert waiting.goes_on()
        old.kill()
        assert waiting.end()[:2] == (0, "")


def test_nothing_is_lost_when_the_old_one_closes_as_soon_as_the_wait_is_over(web, spawn, remote):
    """Handshakes that were half-open at the hand-over, and whose next packets are lost for a while."""
    old, new = spawn("old"), spawn("new")
    handed_over(old, "tcp", "ipv4", service="web")
    half_open = HalfOpen(remote, "ipv4")
    handed_over(new, "tcp", "ipv4", service="web")
    waiting = Waiting("web", "--for=drained")
    time.sleep(1.5)  # the first repetition of the kernel's part is answered in vain
    half_open.lift()
    status, _, took = waiting.end()
    assert status == 0 and took >= HANDSHAKE
    old.close("tcp-ipv4")
    assert outcomes(half_open) == {"old": COUNT}
    assert who("tcp", "ipv4") == "new"
