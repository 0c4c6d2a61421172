# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sandboxed services under a real systemd: behind sockbroker-run, and by the drop-ins for units without it."""
import json

import pytest
from conftest import EXAMPLES

from test_registration import ask, query

PASSED_ECHO = """\
import os, socket
names = os.environ["LISTEN_FDNAMES"].split(":")
assert int(os.environ["LISTEN_PID"]) == os.getpid()
listener = socket.socket(fileno=3)
if "NOTIFY_SOCKET" in os.environ:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.connect(os.environ["NOTIFY_SOCKET"])
        manager.send(b"READY=1\\nSTATUS=" + ",".join(names).encode())
while True:
    connection, _ = listener.accept()
    with connection:
        connection.sendall(connection.recv(65536))
"""

POLICY = """\
[Service walled]
Unit=walled.service
ListenStream=198.51.100.0/24:80
ListenStream=[2001:db8:2::]/48:80
"""

WALLED = """\
[Service]
ExecStart=/usr/bin/sockbroker-run {options} /usr/bin/python3 /etc/walled.py
DynamicUser=yes
{lines}
"""


def walled(broker, options, lines=""):
    broker.policy("walled.conf", POLICY)
    broker.run("systemctl reload sockbrokerd")
    broker.write("/etc/walled.py", PASSED_ECHO)
    broker.unit("walled.service", WALLED.format(options=options, lines=lines))


def confined(broker, unit):
    """What /proc says of the unit's main process."""
    pid = broker.show(unit, "MainPID")
    status = dict(line.split(":\t", 1) for line in broker.out(f"cat /proc/{pid}/status").splitlines() if ":\t" in line)
    assert {name: int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == dict.fromkeys(
        ("CapInh", "CapPrm", "CapEff", "CapAmb"), 0)
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert int(status["Uid"].split()[0]) >= 61184, "a dynamic user"
    return pid


def test_S4_a_server_behind_sockbroker_run_serves_its_prefixes(broker):
    walled(broker, "--service=walled --listen-stream=127.0.0.1:0 --listen-stream=[::1]:0",
           "Type=notify\nAmbientCapabilities=CAP_NET_BIND_SERVICE")
    broker.run("systemctl start walled.service")
    assert broker.show("walled.service", "StatusText") == "walled,walled"
    confined(broker, "walled.service")
    assert {(row["family"], row["unit"]) for row in broker.registered("walled")} == {
        ("ipv4", "walled.service"), ("ipv6", "walled.service")}
    for address in ("198.51.100.7", "198.51.100.200"):
        assert ask(broker, "tcp", address, 80, "hi") == "hi"
    broker.run("systemctl stop walled.service")
    assert broker.show("walled.service", "Result") == "success"


def test_a_refusal_fails_the_start_with_what_the_broker_says(broker):
    walled(broker, "--service=nosuch --listen-stream=127.0.0.1:0", "Type=exec")
    cursor = broker.cursor()
    broker.run("systemctl start walled.service", check=False)
    broker.until("the unit to fail", lambda: broker.show("walled.service", "ActiveState") == "failed")
    assert broker.show("walled.service", "ExecMainStatus") == "77"
    assert any("unknown-service" in entry["MESSAGE"]
               for entry in broker.entries(cursor, "_SYSTEMD_UNIT=walled.service"))


@pytest.mark.parametrize("profile", ["default", "strict"])
def test_S17_a_server_with_no_network_of_its_own_serves_its_prefixes(broker, profile):
    """The example: sockets of a .socket unit, PrivateNetwork=yes, the profile strict."""
    broker.example("resolver", "resolver.socket", "resolver.service", "resolver-register.service")
    broker.run(f"cp -r {EXAMPLES}/resolver.service.d /etc/systemd/system/")
    if profile != "strict":
        broker.run(f"sed -i s/--profile=strict/--profile={profile}/ "
                   "/etc/systemd/system/resolver.service.d/50-sandbox.conf")
    broker.run("systemctl daemon-reload && systemctl start resolver.socket")
    broker.until_registered("resolver", 4)
    for address in ("203.0.113.53", "203.0.113.54"):
        assert query(broker, address) == [0, address, address, 53]
    assert query(broker, "2001:db8:3::53")[2:] == ["2001:db8:3::53", 53]
    assert query(broker, "2001:db8:3:ffff::99")[2:] == ["2001:db8:3:ffff::99", 53]
    pid = confined(broker, "resolver.service")
    assert broker.out(f"readlink /proc/{pid}/ns/net") != broker.out("readlink /proc/1/ns/net")
    links = json.loads(broker.out(f"nsenter --target {pid} --net ip -json link"))
    assert {link["ifname"] for link in links if link["operstate"] == "UP" or "LOWER_UP" in link["flags"]} <= {"lo"}


def test_S17_it_hands_its_sockets_over_itself_and_keeps_them_over_a_restart(broker):
    walled(broker, "--profile=strict --service=walled", "PrivateNetwork=yes\nRestart=on-failure")
    broker.unit("walled.socket", "[Socket]\nListenStream=127.0.0.9:80\n")
    broker.run("systemctl start walled.socket walled.service")
    row, = broker.until_registered("walled", 1)
    assert ask(broker, "tcp", "198.51.100.9", 80, "hi") == "hi"
    broker.run("systemctl restart walled.service")
    assert ask(broker, "tcp", "198.51.100.9", 80, "hi") == "hi"
    assert [again["cookie"] for again in broker.registered("walled")] == [row["cookie"]]


def attempts(broker, unit):
    """The answers of attempts.py, which the unit runs once."""
    cursor = broker.cursor()
    broker.run(f"systemctl start {unit}")
    said = [entry["MESSAGE"] for entry in broker.entries(cursor, f"_SYSTEMD_UNIT={unit}")
            if entry["MESSAGE"].startswith("{")]
    assert said, "the unit said nothing"
    return json.loads(said[0])


TRIES = ("[Service]\nType=oneshot\nDynamicUser=yes\n"
         "ExecStart={before}/usr/bin/python3 /opt/system-tests/attempts.py\n{lines}\n")
ALLOWED = {"udp", "unix", "code"}  # by the profile default and by 50-sandbox.conf
CANNOT_TELL = {"freebind"}  # a unit cannot; a profile can


def test_S4_the_drop_in_for_units_refuses_what_it_says(broker):
    broker.unit("tries.service", TRIES.format(before="", lines=""))
    free = attempts(broker, "tries.service")
    assert {name for name, answer in free.items() if answer is None} >= {"udp", "unix", "code", "netlink", "freebind"}
    broker.run(f"mkdir /etc/systemd/system/tries.service.d && cp {EXAMPLES}/sandbox/50-sandbox.conf "
               "/etc/systemd/system/tries.service.d/ && systemctl daemon-reload")
    shut = attempts(broker, "tries.service")
    assert {name for name, answer in shut.items() if answer is None} == ALLOWED | CANNOT_TELL
    assert set(shut.values()) <= {None, "EPERM", "EAFNOSUPPORT"}, shut
    assert len(shut) >= 11
    broker.run(f"cp {EXAMPLES}/sandbox/60-sandbox-strict.conf /etc/systemd/system/tries.service.d/ && "
               "systemctl daemon-reload")
    broker.unit("tries.socket", "[Socket]\nListenStream=127.0.0.9:81\nService=tries.service\n")
    broker.run("systemctl start tries.socket")
    strict = attempts(broker, "tries.service")
    assert {name for name, answer in strict.items() if answer is None} == CANNOT_TELL


@pytest.mark.parametrize("profile, allowed", [("default", ALLOWED), ("strict", set())])
def test_S4_the_profiles_refuse_the_same_and_more_under_systemd(broker, profile, allowed):
    broker.unit("tries.service", TRIES.format(before=f"/usr/bin/sockbroker-run --profile={profile} ", lines=""))
    broker.unit("tries.socket", "[Socket]\nListenStream=127.0.0.9:81\nService=tries.service\n")
    broker.run("systemctl start tries.socket")
    answers = attempts(broker, "tries.service")
    assert {name for name, answer in answers.items() if answer is None} == allowed
    assert set(answers.values()) <= {None, "EPERM"}, answers


def test_the_drop_in_exposes_little_and_lets_the_examples_serve(broker):
    broker.example("hello", "hello.service")
    broker.run(f"mkdir /etc/systemd/system/hello.service.d && cp {EXAMPLES}/sandbox/50-sandbox.conf "
               "/etc/systemd/system/hello.service.d/ && systemctl daemon-reload && systemctl start hello.service")
    broker.until_registered("hello", 1)
    for address in ("192.0.2.7", "2001:db8:1::7"):
        assert ask(broker, "tcp", address, 80, "GET / HTTP/1.0\r\n\r\n").endswith(f"you asked for {address} port 80\n")
    confined(broker, "hello.service")
    exposure = broker.out("systemd-analyze security --no-pager hello.service | tail -1")
    assert float(exposure.split(": ")[1].split()[0]) < 2.0, exposure


@pytest.mark.parametrize("lines, runs", [("", True), ("ProtectHome=yes", False)], ids=["as it is", "hidden"])
def test_a_user_manager_runs_what_a_sandboxed_program_asks_for_unless_it_is_hidden(broker, lines, runs):
    broker.run("echo 'u mallory 61010 - /tmp' | systemd-sysusers -")
    # A machine with an empty /etc has no PAM, which is what sets this otherwise.
    broker.write("/etc/systemd/system/user@61010.service.d/no-pam.conf",
                 "[Service]\nPAMName=\nEnvironment=XDG_RUNTIME_DIR=/run/user/61010\n")
    broker.write("/etc/systemd/user/out.service", "[Service]\nType=oneshot\nExecStart=/bin/sh -c "
                 "'grep ^NoNewPrivs /proc/self/status >/tmp/out'\n")
    broker.unit("asks.service", "[Service]\nType=oneshot\nUser=mallory\nEnvironment=XDG_RUNTIME_DIR=/run/user/61010\n"
                f"ExecStart=/usr/bin/sockbroker-run --no-register systemctl --user start out.service\n{lines}\n")
    broker.units.append("user@61010.service")
    broker.run("rm -f /tmp/out; chmod 1777 /tmp; systemctl start user@61010.service")
    assert (broker.run("systemctl start asks.service", check=False).returncode == 0) == runs
    assert broker.run("cat /tmp/out", check=False).stdout == ("NoNewPrivs:\t0\n" if runs else "")
