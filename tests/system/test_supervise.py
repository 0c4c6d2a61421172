# SPDX-License-Identifier: LGPL-2.1-or-later
"""sockbroker-run --supervise in units: a stock server, here Python's, and what units have that gets in its way."""
import pytest

ADDRESS, PREFIX = "198.51.100.7", "198.51.100.0/24"
RUN = "/usr/bin/sockbroker-run --supervise {options} /usr/bin/python3 -m http.server 80"
POLICY = f"[Service plain]\nUnit=plain.service\nListenStream={PREFIX}:80\n"


@pytest.fixture
def unit(broker):
    """unit(lines, options, policy lines): writes plain.service and its policy; the test starts it."""
    def write(*lines, options="", policy=""):
        broker.policy("plain.conf", POLICY + policy)
        broker.unit("plain.service", "[Service]\n" + f"ExecStart={RUN.format(options=options)}\nDynamicUser=yes\n"
                    "WorkingDirectory=/usr/share/doc\n" + "".join(f"{line}\n" for line in lines))
        broker.run("systemctl daemon-reload && systemctl reload sockbrokerd")
        return broker
    return write


def started(broker):
    broker.run("systemctl start plain.service && sockbrokerctl wait plain --for=live --timeout=50s")
    return broker


def answer(broker):
    return broker.out(f"curl -s -o /dev/null -w '%{{http_code}}' http://{ADDRESS}/")


def test_s4_a_stock_server_on_port_80_in_a_unit_with_no_privilege(unit):
    broker = started(unit("CapabilityBoundingSet=", "NoNewPrivileges=yes"))
    assert answer(broker) == "200"
    [row] = broker.registered("plain")
    assert (str(row["pid"]), row["unit"]) == (broker.show("plain.service", "MainPID"), "plain.service")
    broker.run("systemctl stop plain.service")
    assert broker.show("plain.service", "Result") == "success"
    assert broker.run(f"curl -s http://{ADDRESS}/", check=False).returncode == 7  # refused at once


def test_kill_9_of_a_stock_server_with_hold_sec_answers_all_who_wait(unit):
    broker = started(unit("Restart=always", "RestartSec=5", policy="HoldSec=30\n"))
    [before] = broker.registered("plain")
    broker.run("systemctl kill --signal=KILL plain.service")
    broker.until("it to be held", lambda: [row["state"] for row in broker.registered("plain")] == ["held"])
    waiting = [broker.start(f"curl -s -o /dev/null -w '%{{http_code}}' --max-time 40 http://{ADDRESS}/")
               for _ in range(5)]
    assert [one.communicate(timeout=60)[0] for one in waiting] == ["200"] * 5
    [after] = broker.registered("plain")
    assert (after["cookie"], after["state"]) == (before["cookie"], "live") and after["pid"] != before["pid"]


def test_s17_a_stock_server_in_a_network_namespace_with_nothing_in_it(unit):
    broker = unit("PrivateNetwork=yes", "Sockets=plain.socket")
    broker.unit("plain.socket", "[Socket]\nListenStream=127.0.0.44:8044\nFileDescriptorName=plain\n")
    broker.run("systemctl daemon-reload && systemctl start plain.socket")
    started(broker)
    assert answer(broker) == "200"
    [row] = broker.registered("plain")
    assert (row["bound"], row["unit"]) == ("127.0.0.44:8044", "plain.service")


@pytest.mark.parametrize("lines, options, said", [
    (("SystemCallFilter=@system-service",), "", "SystemCallFilter=seccomp pidfd_getfd"),
    (("SystemCallFilter=@system-service", "SystemCallErrorNumber=EPERM"), "", "SystemCallFilter=seccomp pidfd_getfd"),
    (("RestrictNamespaces=yes",), "--user-namespace=yes", "RestrictNamespaces=user"),
    (("RestrictAddressFamilies=AF_INET AF_INET6",), "", "RestrictAddressFamilies=AF_UNIX"),
])
def test_what_gets_in_its_way_is_named_before_the_program_starts(unit, lines, options, said):
    broker = unit(*lines, options=options)
    cursor = broker.cursor()
    broker.run("systemctl start plain.service", check=False)
    broker.until("its end", lambda: broker.show("plain.service", "ActiveState") == "failed")
    assert any(said in entry["MESSAGE"] for entry in broker.journal(cursor, "_SYSTEMD_UNIT=plain.service")), \
        broker.out("journalctl -q -u plain.service -n 20 -o cat")


def test_with_the_line_and_all_else_that_hardens_a_unit_it_runs(unit):
    broker = started(unit(
        "SystemCallFilter=@system-service", "SystemCallFilter=~@privileged @resources",
        "SystemCallFilter=seccomp pidfd_getfd",
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX", "RestrictNamespaces=yes", "PrivateUsers=yes",
        "PrivateDevices=yes",
        "ProtectSystem=strict", "ProtectProc=invisible", "ProcSubset=pid", "MemoryDenyWriteExecute=yes",
        "LockPersonality=yes",
        "ProtectKernelTunables=yes", "ProtectControlGroups=yes", "SystemCallArchitectures=native",
        "CapabilityBoundingSet=", options="--profile=strict"))
    assert answer(broker) == "200"


def test_in_a_user_namespace_of_its_own(unit):
    broker = started(unit(options="--user-namespace=yes"))
    assert answer(broker) == "200"
    pid = broker.show("plain.service", "MainPID")
    assert broker.out(f"readlink /proc/{pid}/ns/user") != broker.out("readlink /proc/1/ns/user")
    assert broker.registered("plain")[0]["uid"] == int(broker.out(f"stat -c %u /proc/{pid}"))


def test_a_bind_that_policy_does_not_grant_fails_and_is_in_the_journal_of_both(unit):
    broker = unit()
    broker.policy("plain.conf", POLICY.replace(":80", ":81"))
    broker.run("systemctl reload sockbrokerd")
    cursor = broker.cursor()
    broker.run("systemctl start plain.service", check=False)
    broker.until("its end", lambda: broker.show("plain.service", "ActiveState") == "failed")
    said = "\n".join(entry["MESSAGE"] for entry in broker.journal(cursor, "_SYSTEMD_UNIT=plain.service"))
    assert "PermissionError: [Errno 13]" in said and "grant it in conf.d" in said, said
    refusals = broker.entries(cursor, "SOCKBROKER_ACTION=refuse", "SOCKBROKER_UNIT=plain.service")
    assert any("tcp" in entry["MESSAGE"] and ":80" in entry["MESSAGE"] for entry in refusals), refusals


def test_root_registers_a_program_that_binds_by_itself_from_its_own_unit_alone(broker):
    broker.policy("plain.conf", POLICY)
    # Started again should it end early, of whatever cause: what counts is who may speak for it.
    broker.unit("plain.service", """[Unit]
StartLimitIntervalSec=0
[Service]
Restart=on-failure
ExecStart=/usr/bin/python3 -m http.server 80
ExecStartPost=+/usr/bin/sockbrokerctl register --pid=${MAINPID} --timeout=30s plain
DynamicUser=yes
AmbientCapabilities=CAP_NET_BIND_SERVICE
WorkingDirectory=/usr/share/doc
""")
    broker.run("systemctl daemon-reload && systemctl reload sockbrokerd && systemctl start --no-block plain.service")
    broker.until("plain.service", lambda: broker.show("plain.service", "ActiveState") == "active", timeout=60)
    assert answer(broker) == "200"
    [row] = broker.registered("plain")
    pid = broker.show("plain.service", "MainPID")
    assert (str(row["pid"]), row["unit"]) == (pid, "plain.service") and row["uid"] != 0
    said = broker.run(f"systemd-run --quiet --pipe --wait --unit=thief.service sockbrokerctl register --pid={pid} "
                      "plain "
                      "tcp:0.0.0.0:80", check=False)
    assert said.returncode == 1 and f"PID={pid} is not believed" in said.stderr, said
    assert [row["pid"] for row in broker.registered("plain")] == [int(pid)]


BOMB = """\
import os, socket
kept = []
while True:
    try:
        os.fork()
    except OSError:
        pass  # TasksMax=
    sock = socket.socket()
    kept = [*kept[-3:], sock]
    try:
        sock.bind(("0.0.0.0", 8080))
        sock.listen()
    except OSError:
        pass
"""


def test_a_fork_bomb_stays_within_its_unit_and_goes_with_it(unit):
    broker = unit()
    broker.policy("bomb.conf", f"[Service bomb]\nUnit=bomb.service\nListenStream={PREFIX}:8080\nMaxSockets=16\n")
    broker.write("/etc/bomb.py", BOMB)
    broker.unit("bomb.service", "[Service]\nExecStart=/usr/bin/sockbroker-run --supervise /usr/bin/python3 "
                                "/etc/bomb.py\n"
                # where the kernel counts no tasks of a unit, of a user
                "DynamicUser=yes\nTasksMax=64\nLimitNPROC=64\n")
    broker.run("systemctl reload sockbrokerd && systemctl start bomb.service")
    processes = "cat /sys/fs/cgroup/system.slice/bomb.service/cgroup.procs | wc -l"
    broker.until("it to have the processes that it may", lambda: int(broker.out(processes)) >= 60, timeout=60)
    broker.until("it to bind", lambda: broker.registered("bomb"))
    started(broker)
    assert int(broker.out(processes)) <= 65
    assert answer(broker) == "200"
    broker.run("systemctl kill --signal=KILL bomb.service")
    broker.until("it to end", lambda: broker.show("bomb.service", "ActiveState") == "failed")
    broker.until("nothing of it to be left", lambda: not broker.registered("bomb"))
    assert broker.run("cat /sys/fs/cgroup/system.slice/bomb.service/cgroup.procs", check=False).stdout == ""
    assert answer(broker) == "200"
