# SPDX-License-Identifier: LGPL-2.1-or-later
"""Services that start before, after or without the broker, and what each of them learns."""

WAITING_POLICY = "[Service echo]\nUnit=waiting.service\nListenStream=198.51.100.0/24:*\n"
WAITING_UNIT = """\
[Service]
DynamicUser=yes
ExecStart=/opt/system-tests/client.py store echo 127.0.0.9 7000 hold
"""


def test_a_service_started_before_the_broker_brings_the_socket_unit_and_its_message_waits(broker):
    broker.example("echo", "echo.service")
    broker.run("systemctl stop sockbrokerd.socket sockbrokerd.service")
    broker.run("systemctl start echo.service")  # Type=notify: ready once the broker has read the message
    assert broker.show("sockbrokerd.service", "ActiveState") == "active"
    assert len(broker.registered("echo")) == 2
    assert broker.client("tcp", "198.51.100.1", 80, "hi").stdout == "hi"


def test_a_message_sent_while_the_broker_is_stopped_is_handled_on_start(broker):
    broker.policy("echo.conf", WAITING_POLICY)
    broker.unit("waiting.service", WAITING_UNIT)
    # The start that the message calls for stays half-way until the test lets it go on.
    broker.drop_in("sockbrokerd.service",
                   "[Service]\nExecStartPre=/bin/sh -c 'until test -e /run/go-on; do sleep 0.05; done'\n")
    # New sockets, on which no broker has ever set an option: what the socket unit sets must do.
    broker.run("rm -f /run/go-on; systemctl stop sockbrokerd.socket sockbrokerd.service")
    broker.run("systemctl start sockbrokerd.socket")
    cursor = broker.cursor()
    broker.run("systemctl start waiting.service")
    broker.until_said(cursor, "waiting.service", "sent")
    broker.until("the socket unit to call for the broker",
                 lambda: broker.show("sockbrokerd", "ActiveState") == "activating")
    assert broker.pid() == 0
    broker.run("touch /run/go-on")
    row, = broker.until_registered("echo", 1)
    assert row["unit"] == "waiting.service" and row["uid"] >= 61184
    assert broker.client("tcp", "198.51.100.1", 80, "hi").stdout == "hi"


def test_without_the_broker_a_service_finds_no_socket_and_fails_in_words(broker):
    broker.example("echo", "echo.service")
    broker.example("hello", "hello.service")
    broker.run("systemctl stop sockbrokerd.socket sockbrokerd.service")
    broker.run("systemctl mask --runtime sockbrokerd.socket sockbrokerd.service")
    for unit in ("echo.service", "hello.service"):
        cursor = broker.cursor()
        broker.drop_in(unit, "[Service]\nRestart=no\n")
        broker.run(f"systemctl start {unit}", check=False)
        broker.until(f"{unit} to fail", lambda: broker.show(unit, "ActiveState") == "failed")
        said = " ".join(entry["MESSAGE"] for entry in broker.entries(cursor, f"_SYSTEMD_UNIT={unit}"))
        assert "cannot reach the broker, is sockbrokerd.socket active?" in said and "No such file" in said


def test_a_broker_that_cannot_start_never_takes_its_socket_unit_down(broker):
    broker.drop_in("sockbrokerd.service", "[Service]\nExecStart=\nExecStart=/bin/false\n")
    broker.run("systemctl restart sockbrokerd", check=False)
    # More often than the start limit of other units (5 in 10 s), with a message that calls for it all the while.
    broker.unit("waiting.service", WAITING_UNIT)
    broker.policy("echo.conf", WAITING_POLICY)
    cursor = broker.cursor()
    broker.run("systemctl start waiting.service")
    broker.until_said(cursor, "waiting.service", "sent")
    broker.until("seven attempts", lambda: int(broker.show("sockbrokerd", "NRestarts")) >= 7, 60)
    assert broker.show("sockbrokerd.socket", "ActiveState") == "active"
    broker.run("rm /run/systemd/system/sockbrokerd.service.d/test.conf && systemctl daemon-reload")
    # By itself, and what waited is handled.
    broker.until("the broker", lambda: broker.show("sockbrokerd", "ActiveState") == "active")
    broker.until_registered("echo", 1)


IN_FLIGHT = """\
import socket, time
here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
for _ in range(2):
    socket.send_fds(here, [b"x"], [here.fileno()] * 200)
print("in flight", flush=True)
time.sleep(1000)
"""


def test_a_broker_starts_although_one_of_another_namespace_has_descriptors_in_flight(broker):
    # All are of one user, and the kernel counts what a user has in flight.
    broker.write("/run/in-flight.py", IN_FLIGHT)
    broker.unit("in-flight.service",
                "[Service]\nUser=sockbroker\nExecStart=/usr/bin/python3 /run/in-flight.py\n")
    cursor = broker.cursor()
    broker.run("systemctl start in-flight.service")
    broker.until_said(cursor, "in-flight.service", "in flight")
    broker.run("systemctl restart sockbrokerd.service")
    assert broker.show("sockbrokerd.service", "ActiveState") == "active"
