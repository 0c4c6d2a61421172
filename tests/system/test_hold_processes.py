# SPDX-License-Identifier: LGPL-2.1-or-later
"""HoldSec= where a process ends and its unit goes on: workers, helpers, and units of many."""
import time

import pytest

from held import ADDRESS, FRESH, repeated_packets, until_bus, until_state

POLICY = """\
[Service steady]
Unit={unit}
ListenStream=203.0.113.0/24:*
HoldSec={hold}
"""
WORKER = """\
[Service]
ExecStart=/bin/sh -c '/opt/system-tests/client.py store steady 127.0.0.1 8099 hold & exec sleep infinity'
[Install]
WantedBy=multi-user.target
"""


@pytest.fixture
def worker(broker):
    """A worker of a unit that goes on without it; its row."""
    broker.policy("steady.conf", POLICY.format(unit="worker.service", hold=5))
    broker.run("systemctl reload sockbrokerd")
    broker.unit("worker.service", WORKER)
    broker.run("systemctl start worker.service")
    until_bus(broker)
    one, = broker.until_registered("steady", 1)
    assert one["unit"] == "worker.service"
    return one


def test_clients_of_a_dead_worker_hang_no_longer_than_holdsec_though_its_unit_goes_on(broker, worker, message_ids):
    cursor = broker.cursor()
    broker.run(f"kill -9 {worker['pid']}")
    until_state(broker, "held")
    began = time.monotonic()
    waiting = broker.start(f"/opt/system-tests/client.py tcp {ADDRESS} 443 queued")
    waiting.communicate(timeout=40)
    assert waiting.returncode != 0 and time.monotonic() - began < 20, "reset, when the hold was over"
    broker.until("nothing registered", lambda: not broker.registered("steady"))
    before = repeated_packets(broker)
    assert "ConnectionRefusedError" in broker.client("tcp", FRESH, 443, "x", check=False).stderr
    assert repeated_packets(broker) == before
    assert broker.show("worker.service", "ActiveState") == "active"
    assert len(broker.entries(cursor, message_ids["expire"])) == len(broker.entries(cursor, message_ids["hold"])) == 1


def test_the_next_worker_of_the_same_unit_has_the_socket_of_a_dead_one(broker, worker):
    broker.policy("steady.conf", POLICY.format(unit="worker.service", hold=60))  # it takes its time to start
    broker.run("systemctl reload sockbrokerd")
    broker.run(f"kill -9 {worker['pid']}")
    until_state(broker, "held")
    waiting = broker.start(f"/opt/system-tests/client.py tcp {ADDRESS} 443 queued")
    main = broker.show("worker.service", "MainPID")
    broker.start("echo $$ >/sys/fs/cgroup/system.slice/worker.service/cgroup.procs; "
                 "exec sockbrokerctl retrieve steady -- /opt/system-tests/client.py serve next")
    assert waiting.communicate(timeout=40)[0] == "next queued"
    now = until_state(broker, "live")
    assert (now["cookie"], now["unit"]) == (worker["cookie"], "worker.service") and str(now["pid"]) != main


HELPED = """\
[Service]
ExecStart=/opt/system-tests/client.py helped steady 127.0.0.1 8099 {pause}
"""


@pytest.mark.parametrize("pause", ["0", "2.5"])
def test_what_a_helper_registered_goes_on_being_served_after_the_helpers_end(broker, pause):
    """Its hold is over HoldSec= after the helper's end, unless the broker has seen meanwhile that somebody reads it."""
    hold = 4 if pause == "0" else 8  # it is over, or must not be before somebody reads
    broker.policy("steady.conf", POLICY.format(unit="helped.service", hold=hold))
    broker.run("systemctl reload sockbrokerd")
    broker.unit("helped.service", HELPED.format(pause=pause))
    cursor = broker.cursor()
    broker.run("systemctl start helped.service")
    until_state(broker, "held")
    if pause == "0":
        broker.until_said(cursor, "sockbrokerd.service", "the tcp socket 127.0.0.1:8099 of steady is not held any "
                                                         f"more: nobody came for it within {hold} s")
    else:  # long enough in the queue to be seen there
        assert broker.client("tcp", ADDRESS, 443, "seen").stdout == "seen"
        broker.until_said(cursor, "sockbrokerd.service",
                          "others than the process that registered it read a socket of steady, it is not held")
    assert until_state(broker, "live")
    assert broker.client("tcp", ADDRESS, 443, "served").stdout == "served"
    # With the unit all is over; only what is kept still waits for the next instance.
    broker.run("systemctl kill -s KILL helped.service")
    if pause == "0":
        broker.until("nothing registered", lambda: not broker.registered("steady"))
    else:
        until_state(broker, "held")


NEST = """\
[Service]
Delegate=yes
ExecStart=/bin/sh -c 'cd /sys/fs/cgroup/system.slice/nest.service && mkdir inner && \\
        (echo 0 >inner/cgroup.procs; exec /opt/system-tests/client.py store steady 127.0.0.1 8099 hold) & \\
        exec sleep infinity'
"""


def test_what_ends_within_a_unit_of_many_is_gone_although_the_unit_goes_on(broker):
    """A user manager, a container, a delegated subtree: the broker goes by the process."""
    broker.policy("steady.conf", POLICY.format(unit="nest.service", hold=5))
    broker.run("systemctl reload sockbrokerd")
    broker.unit("nest.service", NEST)
    broker.run("systemctl start nest.service")
    one, = broker.until_registered("steady", 1)
    assert one["unit"] == "nest.service"
    broker.run("systemctl restart sockbrokerd")
    until_bus(broker)
    assert broker.registered("steady") == [one], "live, as before"
    broker.run(f"kill -9 {one['pid']}")
    until_state(broker, "held")
    assert broker.show("nest.service", "ActiveState") == "active"
    broker.until("a refusal", lambda: "ConnectionRefusedError" in broker.client(
        "tcp", ADDRESS, 443, "x", check=False).stderr)
