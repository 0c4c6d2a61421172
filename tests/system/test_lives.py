# SPDX-License-Identifier: LGPL-2.1-or-later
"""Nothing that works may stop working because the control plane stops, dies, or is given a bad policy."""
import json
import re
import time

import pytest

BAD = "[Service echo]\nUnit=echo.service\nListenStream=198.51.100.0/33:80\n"


@pytest.fixture
def echo(broker):
    broker.example("echo", "echo.service")
    broker.run("systemctl start echo.service")
    broker.until_registered("echo", 2)
    return broker


def serving(broker):
    return broker.client("tcp", "198.51.100.3", 4321, "hi").stdout == "hi"


@pytest.mark.parametrize("command", [
    "systemctl kill -s KILL sockbrokerd", "systemctl restart sockbrokerd", "systemctl stop sockbrokerd",
    "systemctl reload sockbrokerd", "systemctl daemon-reexec"])
def test_S7_not_one_connection_fails_during(echo, command):
    before = {row["cookie"]: row for row in echo.registered("echo")}
    clients = echo.hammer("198.51.100.1", 80)
    for _ in range(3):
        pid = echo.pid()
        echo.run(command)
        clients.wait_for_more(echo)
        if "stop" in command:
            assert echo.show("sockbrokerd", "ActiveState") == "inactive"
            echo.run("systemctl start sockbrokerd")
        if "reload" not in command and "reexec" not in command:
            echo.until("another broker", lambda: echo.pid() not in (0, pid) and echo.show(
                "sockbrokerd", "ActiveState") == "active")
        clients.wait_for_more(echo)
    counts = clients.end()
    assert (counts["failed"], counts["errors"]) == (0, []) and counts["good"] > 1000
    # What the kernel held was taken up as it was.
    assert {row["cookie"]: row for row in echo.registered("echo")} == before



def link(broker):
    """Ids of the link that the namespace runs and of the program in it."""
    # check: bpftool 7.5 shows it and then ends with whatever errno an earlier call has left.
    shown = json.loads(broker.run("bpftool -j link show pinned /run/sockbroker/bpf/dispatch/link", check=False).stdout)
    return shown["id"], shown["prog_id"]


def test_S7_an_upgrade_of_the_package_fails_not_one_connection(echo):
    """Another build in the place of the old one while that runs, another unit file, and what a package's script
    does."""
    daemon, unit = "/usr/lib/sockbroker/sockbrokerd", "sockbrokerd.service"
    before, (link_before, program_before) = echo.registered("echo"), link(echo)
    version = echo.status()["version"]
    newer = version[:-1] + "9"
    clients = echo.hammer("198.51.100.1", 80)
    try:
        # Not LIBBPF_0.1.0 and its like, which are names of symbols.
        echo.run(f"LC_ALL=C sed 's/\\([^_]\\){re.escape(version)}/\\1{newer}/g' {daemon} > /opt/newer && chmod 755 "
                 "/opt/newer && "
                 f"mount --bind /opt/newer {daemon}")
        echo.run(f"sed 's/^Description=.*/& (newer)/' /usr/lib/systemd/system/{unit} > /etc/systemd/system/{unit}")
        clients.wait_for_more(echo)
        echo.run("systemctl daemon-reload && systemctl try-restart sockbrokerd.service")
        assert echo.status()["version"] == newer
        assert echo.show(unit, "Description").endswith("(newer)")
        clients.wait_for_more(echo, 1000)
        link_after, program_after = link(echo)
        assert link_after == link_before and program_after != program_before, "the program was replaced in its link"
        assert echo.registered("echo") == before
    finally:
        echo.run(f"umount --lazy {daemon}; rm -f /opt/newer /etc/systemd/system/{unit}; systemctl daemon-reload")
    echo.run("systemctl try-restart sockbrokerd.service")
    assert echo.status()["version"] == version
    clients.wait_for_more(echo)
    counts = clients.end()
    assert (counts["failed"], counts["errors"]) == (0, []) and counts["good"] > 1000
    # A new registration is the other build's work.
    echo.run("systemctl restart echo.service")
    echo.until_registered("echo", 2)
    assert serving(echo)


def test_a_bad_policy_at_reload_is_refused_and_the_running_rules_stay(echo, message_ids):
    bindings = echo.rows("bindings")
    echo.policy("echo.conf", BAD)
    cursor = echo.cursor()
    done = echo.run("systemctl reload sockbrokerd", check=False)
    assert done.returncode != 0
    status = echo.status()
    assert status["state"] == "degraded"
    assert "policy refused" in status["reason"]
    assert echo.show("sockbrokerd", "ActiveState") == "active"
    assert echo.rows("bindings") == bindings
    assert serving(echo)
    said = " ".join(entry["MESSAGE"] for entry in echo.entries(cursor, message_ids["diagnostic"]))
    assert "/etc/sockbroker/conf.d/echo.conf:3" in said
    assert echo.entries(cursor, message_ids["reload-failed"])

    echo.example("echo")
    assert echo.status()["state"] == "running"
    assert echo.entries(cursor, message_ids["reload"])


@pytest.mark.parametrize("lost", [False, True], ids=["kernel-state-kept", "kernel-state-lost"])
def test_a_bad_policy_at_start_leaves_the_policy_last_taken_in_force(echo, message_ids, lost):
    bindings = echo.rows("bindings")
    echo.policy("echo.conf", BAD)
    echo.run("systemctl stop sockbrokerd.socket sockbrokerd.service")
    if lost:
        echo.run("sockbrokerctl unload")  # as after a boot
        assert echo.out("ls /run/sockbroker/bpf/dispatch") == ""
        assert not echo.client("tcp", "198.51.100.3", 4321, "hi", check=False).stdout
    else:
        assert serving(echo)
    cursor = echo.cursor()
    echo.run("systemctl start sockbrokerd.socket sockbrokerd.service")
    status = echo.status()
    assert status["state"] == "degraded"
    assert "last-known-good policy is in force" in status["reason"]
    assert echo.rows("bindings") == bindings
    assert echo.entries(cursor, message_ids["reload-failed"])
    if lost:
        echo.run("systemctl restart echo.service")  # nobody but the service has its socket
        echo.until_registered("echo", 2)
    assert serving(echo)

    echo.example("echo")
    assert (echo.status()["state"], echo.status()["reason"]) == ("running", None)
    assert serving(echo)


def test_a_policy_on_trial_goes_back_though_the_broker_was_killed(echo):
    """Within the unit's sandbox, which lets it write the record and read the boot id."""
    bindings, pid = echo.rows("bindings"), echo.pid()
    echo.policy("other.conf", "[Service other]\nUnit=other.service\nListenStream=198.51.100.0/24:81\n")
    echo.run("sockbrokerctl reload --confirm=1h")
    on_trial = echo.rows("bindings")
    assert len(on_trial) > len(bindings)
    echo.run("systemctl kill -s KILL sockbrokerd")
    echo.until("the next broker", lambda: echo.pid() not in (0, pid) and echo.show(
        "sockbrokerd", "ActiveState") == "active")
    assert echo.status()["policy"]["trial_until"] is not None and echo.rows("bindings") == on_trial
    echo.run("systemctl stop sockbrokerd.socket sockbrokerd.service && "
             "sed -i 's/^until .*/until 1/' /var/lib/sockbroker/trial && "
             "systemctl start sockbrokerd.socket sockbrokerd.service")
    assert "was not kept in time" in echo.status()["reason"] and echo.rows("bindings") == bindings
    assert serving(echo)


def test_a_bad_policy_at_the_very_first_start_is_no_outage_of_the_broker_itself(broker):
    broker.run("systemctl stop sockbrokerd.socket sockbrokerd.service && sockbrokerctl unload && "
               "rm -rf /var/lib/sockbroker")
    broker.policy("echo.conf", BAD)
    broker.run("systemctl start sockbrokerd.service")
    assert broker.status()["state"] == "degraded"
    assert broker.rows("bindings") == []
    broker.example("echo")
    assert broker.status()["state"] == "running"


def test_unload_alone_takes_dispatch_away_and_systemd_does_not_bring_it_back(echo):
    echo.run("sockbrokerctl unload")
    echo.until("the broker to end", lambda: echo.show("sockbrokerd", "ActiveState") == "inactive")
    assert echo.out("ls /run/sockbroker/bpf/dispatch") == ""
    assert "ConnectionRefusedError" in echo.client("tcp", "198.51.100.3", 4321, "hi", check=False).stderr
    assert echo.show("sockbrokerd", "NRestarts") == "0"
    # The next message does, and a registration is a message.
    echo.run("systemctl restart echo.service")
    assert serving(echo)


def test_a_journal_that_hangs_does_not_delay_an_answer_and_losses_are_counted(echo, message_ids):
    cursor = echo.cursor()
    journald = echo.show("systemd-journald", "MainPID")
    many = "[Service echo]\n" + "Unit=not-a-unit\n" * 1500  # a hundred entries each time
    echo.policy("many.conf", many)
    echo.run(f"kill -STOP {journald}")
    try:
        for _ in range(24):  # more than the queues of the kernel and of the broker hold
            began = time.monotonic()
            assert "RESULT=malformed" in echo.client("control", "VERB=reload").stdout
            assert time.monotonic() - began < 15
        began = time.monotonic()
        lost = echo.status()["journal_lost"]
        assert lost > 0
        assert serving(echo)
        assert time.monotonic() - began < 15
    finally:
        echo.run(f"kill -CONT {journald}")
    entries = echo.until("the losses to be told", lambda: echo.journal(cursor, message_ids["lost"]))
    assert str(lost) in entries[0]["MESSAGE"] or int(echo.status()["journal_lost"]) >= lost
