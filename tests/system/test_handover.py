# SPDX-License-Identifier: LGPL-2.1-or-later
"""Restarts, blue/green and canaries by units as they are installed, under load: nothing is lost. With the rows of
docs/reliability.md that need a systemd."""
import pytest

from harness.load import Load
from harness.reliability import CONNECTIONS, Traffic, failures, nothing_lost, record, rounds

BLUE_GREEN = [("tcp", address, 8081, "bluegreen") for address in ("192.0.2.5", "2001:db8:1::5")]
ECHO = [("tcp", "198.51.100.5", 80, "echo"), ("udp", "198.51.100.5", 7777, "echo"),
        ("tcp", "2001:db8:2::5", 80, "echo")]


@pytest.fixture(name="load")
def _load(broker):
    """load(targets): clients within the machine, for a with statement."""
    def begin(targets, **options):
        return Traffic(Load(targets, program="/usr/lib/sockbroker-tests/load", **options,
                            prefix=["nsenter", "--target", str(broker.leader), "--all", "--"]))

    return begin


@pytest.fixture(name="instances")
def _instances(broker):
    """instances(NAME...): starts them as an operator does."""
    broker.example("bluegreen", "bluegreen@.service")

    def start(*names):
        for name in names:
            broker.units.append(f"bluegreen@{name}.service")
            broker.run(f"systemctl start bluegreen@{name}")

    return start


def restart(broker, unit):
    """As often as the table wants it, without meeting the limit of starts."""
    broker.run(f"systemctl reset-failed {unit}; systemctl restart {unit}")


def ask(broker):
    return broker.client("tcp", "192.0.2.9", 8081, "hi\n").stdout


def states(broker):
    return {row["unit"]: row["state"] for row in broker.registered("bluegreen")}


def test_blue_green_by_two_instances_of_a_template(broker, instances, load):
    """green takes over, blue goes; and the other way round."""
    instances("blue")
    times = rounds(1, 6)
    with load(BLUE_GREEN) as traffic:
        traffic.more(100)
        old, new = "blue", "green"
        for _ in range(times):
            instances(new)
            broker.run("sockbrokerctl wait bluegreen --for=live --timeout=30s")
            assert states(broker) == {f"bluegreen@{old}.service": "draining", f"bluegreen@{new}.service": "live"}
            traffic.until_answered_by(f"bluegreen-{new}")
            # There and back before it is done: the old one takes back, and over again.
            for name, other in ((old, new), (new, old)):
                broker.run(f"systemctl reload bluegreen@{name}")
                broker.until(f"{name} to serve", lambda n=name, o=other: states(broker) == {
                    f"bluegreen@{o}.service": "draining", f"bluegreen@{n}.service": "live"})
            broker.run(f"systemctl stop bluegreen@{old}")
            assert broker.show(f"bluegreen@{old}", "Result") == "success"
            traffic.more(CONNECTIONS // times)
            old, new = new, old
        result = traffic.end()
    nothing_lost("blue-green", "blue/green by two instances of `bluegreen@.service`", result, times)
    assert set(result["tcp"]["instances"]) == {"bluegreen-blue", "bluegreen-green"}


def test_blue_serves_again_when_green_crashes_and_a_stop_without_successor_waits_for_nothing(broker, instances):
    instances("blue", "green")
    assert ask(broker) == "bluegreen-green hi\n"
    broker.run("systemctl kill -s KILL bluegreen@green")
    broker.until("blue to serve", lambda: ask(broker) == "bluegreen-blue hi\n")
    # ExecStop= has nothing to wait for: nobody has displaced it.
    broker.run("sockbrokerctl wait bluegreen --for=drained --timeout=0")
    cursor = broker.cursor()
    broker.run("systemctl stop bluegreen@blue", timeout=30)
    assert not broker.journal(cursor, "SYSLOG_IDENTIFIER=sockbrokerctl")
    assert broker.registered("bluegreen") == []


def test_a_canary_among_several_instances_of_a_template(broker, instances, load):
    """Handover=share: each has its part of the clients; the canary comes and goes and nobody notices."""
    broker.run("cp /usr/share/doc/sockbroker/examples/conf.d/bluegreen-share.conf /etc/sockbroker/conf.d/ && "
               "cp -r /usr/share/doc/sockbroker/examples/bluegreen@.service.d /etc/systemd/system/ && "
               "systemctl daemon-reload && systemctl reload sockbrokerd")
    instances("1", "2", "3")
    times = rounds(1, 6)
    with load(BLUE_GREEN) as traffic:
        traffic.more(100)
        for _ in range(times):
            instances("canary")
            assert set(states(broker).values()) == {"live"} and len(states(broker)) == 4
            traffic.until_answered_by("bluegreen-canary")
            traffic.more(CONNECTIONS // times)
            broker.run("systemctl stop bluegreen@canary")
            assert len(states(broker)) == 3
        result = traffic.end()
    broker.run("systemctl kill -s KILL 'bluegreen@*'")  # no need to wait for each
    nothing_lost("canary", "`Handover=share`: a canary beside three instances comes and goes", result, times)
    answers = result["tcp"]["instances"]
    assert set(answers) == {f"bluegreen-{name}" for name in ("1", "2", "3", "canary")}
    several = [answers[f"bluegreen-{name}"] for name in "123"]
    assert min(several) > max(several) / 2, "in equal parts"


LINES_SOCKET = """\
[Unit]
Wants=lines-register.service
[Socket]
ListenStream=127.0.0.3:8082
Backlog=4096
FileDescriptorName=lines
"""
LINES_REGISTER = """\
[Service]
Type=oneshot
Sockets=lines.socket
ExecStart=/usr/bin/sockbrokerctl register
DynamicUser=yes
"""
LINES_SERVICE = """\
[Unit]
Requires=lines.socket
[Service]
ExecStart=/opt/system-tests/client.py serve lines
DynamicUser=yes
"""
LINES_POLICY = "[Service lines]\nUnit=lines-register.service\nListenStream=192.0.2.0/24:8082\n"


def test_restart_of_a_service_whose_sockets_a_socket_unit_holds(broker, load):
    """The same socket is passed on by PID 1: nothing needs to be waited for, handed over or migrated."""
    broker.policy("lines.conf", LINES_POLICY)
    broker.run("systemctl reload sockbrokerd")
    for name, text in (("lines.socket", LINES_SOCKET), ("lines-register.service", LINES_REGISTER),
                       ("lines.service", LINES_SERVICE)):
        broker.unit(name, text)
    broker.run("systemctl start lines.socket")
    broker.until_registered("lines", 1)
    times = rounds(2, 20)
    with load([("tcp", "192.0.2.5", 8082, "lines")]) as traffic:
        traffic.more(50)
        for _ in range(times):
            restart(broker, "lines.service")
            traffic.more(CONNECTIONS // times)
        result = traffic.end()
    nothing_lost("socket-unit", "service restarted, its `.socket` unit holds the socket", result, times)


@pytest.fixture(name="echo")
def _echo(broker):
    broker.example("echo", "echo.service")
    broker.run("systemctl start echo.service")
    broker.until_registered("echo", 2)
    return broker


STEADY = [("tcp", "203.0.113.5", 443, "echo"), ("tcp", "2001:db8:4::5", 443, "echo")]


def test_restart_of_a_service_with_hold(broker, load):
    """The next instance retrieves the socket of the one before it. While none is there clients wait in its queue."""
    broker.example("steady", "steady.service")
    broker.run("systemctl start steady.service")
    before = broker.until_registered("steady", 1)[0]["cookie"]
    times = rounds(2, 20)
    with load(STEADY) as traffic:
        traffic.more(50)
        for _ in range(times):
            restart(broker, "steady.service")
            traffic.more(CONNECTIONS // times)
        result = traffic.end()
    nothing_lost("systemctl-restart-hold", "`systemctl restart` of the service, `HoldSec=30`", result, times)
    assert broker.until_registered("steady", 1)[0]["cookie"] == before


def test_service_restart_without_hold(echo, load):
    times = rounds(2, 20)
    with load(ECHO, timeout=2) as traffic:
        traffic.more(50)
        for _ in range(times):
            restart(echo, "echo.service")
            traffic.more(CONNECTIONS // times)
        result = traffic.end()
    record("service-restart", "`systemctl restart` of the service, no `HoldSec=`", result, times, promised=False)
    failed = failures(result)
    assert set(failed["tcp"]) <= {"refused", "reset", "short"}, failed
    assert set(failed.get("udp", {})) <= {"refused", "timed_out"}, failed
    assert result["tcp"]["longest_ms"] < 2000


def test_broker_and_manager_by_systemctl(echo, load):
    times = rounds(1, 20)
    for row, command in (("systemctl-restart", "systemctl restart sockbrokerd"),
                         ("systemctl-reload", "systemctl reload sockbrokerd"),
                         ("daemon-reexec", "systemctl daemon-reexec")):
        with load(ECHO) as traffic:
            traffic.more(50)
            for _ in range(times):
                echo.run(f"systemctl reset-failed; {command}")
                traffic.more(CONNECTIONS // times)
            nothing_lost(row, f"`{command}`", traffic.end(), times)
    assert len(echo.registered("echo")) == 2
