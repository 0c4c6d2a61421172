# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is lost while the service ends and comes back, with HoldSec= and without: further rows of
docs/reliability.md."""

import os
import time


from harness import namespace
from harness.load import Load
from harness.reliability import CONNECTIONS, Traffic, failures, record, rounds
from stage import TARGETS, Stage
from words import everywhere, section


HELD = section("web", 61001, everywhere(), "HoldSec=30")


def go_away_and_come_back(stage):
    """The service has ended; the next instance, a tenth of a second later, asks the broker for its sockets."""
    stage.now.kill()
    time.sleep(0.1)
    stage.now = stage.new()
    deadline = time.monotonic() + 25
    while (reply := stage.now.retrieve("web")).result != "ok":
        assert reply.result == "not-held" and time.monotonic() < deadline, reply  # its end is not noticed yet


def test_service_restarted_with_hold(broker, spawn, remote):
    """It answers what it has accepted, and ends without a thought for what is in its queues."""
    stage = Stage(broker, spawn, remote, HELD)

    def restart(_):
        stage.now.finish_accepted(*stage.now.labels())
        go_away_and_come_back(stage)

    stage.during("hold-restart", "service restarted, away for 100 ms, `HoldSec=30`", rounds(3, 50), restart)


def test_service_killed_with_hold(broker, spawn, remote):
    """Lost is at most what it had accepted or read and not answered; whoever waits in its queues is served by the
    next."""
    stage = Stage(broker, spawn, remote, HELD)
    times = rounds(3, 50)
    with stage.traffic() as traffic:
        traffic.more(50)
        for _ in range(times):
            go_away_and_come_back(stage)
            traffic.more(CONNECTIONS // times)
        result = traffic.end()
    record("hold-killed", "service killed (`kill -9`), away for 100 ms, `HoldSec=30`", result, times, promised=False)
    failed = failures(result)
    assert set(failed.get("tcp", {})) <= {"short", "reset"} and set(failed.get("udp", {})) <= {"timed_out"}, failed
    assert sum(failed.get("tcp",
                          {}).values()) <= times * 2 * 16 and sum(failed.get("udp", {}).values()) <= times * 2, failed


def no_limit_on_icmp():
    """By default the kernel tells a client of closed UDP ports no more than one a second; here each answer is
    counted."""
    namespace.sysctl("net/ipv4/icmp_ratelimit", 0)
    namespace.sysctl("net/ipv6/icmp/ratelimit", 0)
    for name in ("icmp_msgs_per_sec", "icmp_msgs_burst"):
        if os.path.exists(f"/proc/sys/net/ipv4/{name}"):
            namespace.sysctl(f"net/ipv4/{name}", 1_000_000)


def test_service_killed_without_hold_is_refused_at_once_and_hangs_nobody(stage):
    """Lost is what had reached the dead one; who comes later is refused. Nobody waits, until the next one serves."""
    no_limit_on_icmp()
    times, window = rounds(1, 20), 16
    with stage.traffic(window=window, timeout=2) as traffic:
        traffic.more(50)
        for _ in range(times):
            stage.now.kill()
            traffic.more(CONNECTIONS // times)
            stage.now = stage.instance()
            traffic.until_answered_by(f"web-{stage.number}")
            traffic.more(CONNECTIONS // times)
        result = traffic.end()
    record("service-killed", "service killed, another instance started later, no `HoldSec=`", result, times,
           promised=False)
    failed = failures(result)
    # Those that it had accepted end (short), those in its queue are reset.
    assert set(failed["tcp"]) <= {"refused", "reset", "short"} and failed["tcp"]["refused"] > 0, failed
    assert failed["tcp"].get("reset", 0) + failed["tcp"].get("short", 0) <= times * 2 * window
    # A datagram that the dead one had not read is lost, as in any queue; the client cannot be told.
    assert set(failed["udp"]) <= {"refused", "timed_out"} and failed["udp"]["refused"] > 0, failed
    assert failed["udp"].get("timed_out", 0) <= times * 2 * window


def packets(pid):
    """What the host of that process has sent and got: (TCP segments sent, received, sent again, ICMP errors
    received)."""
    with open(f"/proc/{pid}/net/snmp", encoding="ascii") as file:
        lines = [line.split() for line in file]
    counters = {f"{names[0]}{name}": int(value) for names, values in zip(lines[::2], lines[1::2])
                for name, value in zip(names[1:], values[1:])}
    with open(f"/proc/{pid}/net/snmp6", encoding="ascii") as file:
        six = dict(line.split() for line in file)
    return [counters["Tcp:OutSegs"], counters["Tcp:InSegs"], counters["Tcp:RetransSegs"],
            counters["Icmp:InDestUnreachs"] + int(six["Icmp6InDestUnreachs"])]


def test_without_hold_a_dead_services_clients_are_refused_within_one_round_trip(stage):
    """One packet there, one back: a SYN and a RST, a datagram and an ICMP error."""
    no_limit_on_icmp()
    stage.now.kill()
    before = packets(stage.remote.pid)
    with Traffic(Load(TARGETS[:4], stage.remote.pid)) as traffic:
        traffic.more(rounds(200, CONNECTIONS))
        result = traffic.end()
    sent, received, again, errors = (now - then for now, then in zip(packets(stage.remote.pid), before))
    record("refused", "no live socket, no `HoldSec=`: each is refused, one packet there and one back", result,
           promised=False)
    tcp, udp = result["tcp"], result["udp"]
    assert tcp["refused"] == tcp["begun"] == sent == received and again == 0, result
    assert udp["refused"] == udp["begun"] == errors, result
