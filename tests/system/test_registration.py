# SPDX-License-Identifier: LGPL-2.1-or-later
"""Ways into the broker under a real systemd, by the example units as they are installed, and who is turned away."""
import json
import time

import pytest

ECHO_POLICY = """\
[Service echo]
Unit=echo.service
ListenStream=198.51.100.0/24:*
"""


def ask(broker, protocol, address, port, text):
    answer = broker.client(protocol, address, port, text).stdout
    return json.loads(answer) if protocol == "udp" else answer


def test_S4_dynamic_user_registers_by_sd_pid_notify_with_fds_and_receives_its_prefix(broker):
    broker.example("echo", "echo.service")
    broker.run("systemctl start echo.service")
    rows = broker.until_registered("echo", 2)
    assert {(row["protocol"], row["family"], row["unit"], row["state"]) for row in rows} == {
        ("tcp", "dual", "echo.service", "live"), ("udp", "dual", "echo.service", "live")}
    # A uid of the dynamic range, and nothing that it may do beyond its own.
    assert 61184 <= rows[0]["uid"] <= 65519
    pid = broker.show("echo.service", "MainPID")
    assert "CapEff:\t0000000000000000" in broker.out(f"cat /proc/{pid}/status")
    for address in ("198.51.100.1", "198.51.100.254", "2001:db8:2::1", "2001:db8:2:ffff::77"):
        assert ask(broker, "tcp", address, 80, "hi") == "hi"
        assert ask(broker, "tcp", address, 65535, "hi") == "hi"
        # An answer from the very address and port that was asked.
        assert ask(broker, "udp", address, 7777, "hi") == ["hi", address, 7777]


def test_python_service_registers_in_the_ten_lines_of_the_example(broker):
    broker.example("hello", "hello.service")
    broker.run("systemctl start hello.service")
    row, = broker.until_registered("hello", 1)
    assert (row["protocol"], row["family"], row["unit"]) == ("tcp", "dual", "hello.service")
    for address in ("192.0.2.7", "2001:db8:1::7"):
        answer = ask(broker, "tcp", address, 80, "GET / HTTP/1.0\r\n\r\n")
        assert answer.endswith(f"hello, you asked for {address} port 80\n")


QUERY = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x00\x00\x01\x00\x01".decode("latin-1")


def query(broker, address):
    """Asks for an A record by UDP: the address answered, and where the answer came from."""
    done = broker.run(f"""/usr/bin/python3 -c '
import json, socket, sys
client = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(20)
client.sendto(bytes.fromhex(sys.argv[2]), (sys.argv[1], 53))
answer, source = client.recvfrom(512)
print(json.dumps([answer[3] & 15, socket.inet_ntoa(answer[-4:]), source[0], source[1]]))
' {address} {QUERY.encode("latin-1").hex()}""")
    return json.loads(done.stdout)


def test_sockets_of_a_socket_unit_are_registered_by_a_one_shot(broker):
    broker.example("resolver", "resolver.socket", "resolver.service", "resolver-register.service")
    broker.run("systemctl start resolver.socket")
    rows = broker.until_registered("resolver", 4)
    assert {(row["protocol"], row["family"], row["bound"]) for row in rows} == {
        ("udp", "ipv4", "127.0.0.2:53"), ("tcp", "ipv4", "127.0.0.2:53"),
        ("udp", "ipv6", "[fd73:6f63:6b62::2]:53"), ("tcp", "ipv6", "[fd73:6f63:6b62::2]:53")}
    assert {row["unit"] for row in rows} == {"resolver-register.service"}
    assert all(row["uid"] != 0 for row in rows), "the one-shot asks without privilege"
    # The service is started by its first query, which finds its answer, from the address that was asked.
    broker.until("the one-shot to have ended",
                 lambda: broker.show("resolver-register.service", "ActiveState") == "inactive")
    assert broker.show("resolver-register.service", "Result") == "success"
    assert broker.show("resolver.service", "ActiveState") == "inactive"
    assert query(broker, "203.0.113.53") == [0, "203.0.113.53", "203.0.113.53", 53]
    assert broker.show("resolver.service", "ActiveState") == "active"
    assert query(broker, "203.0.113.54") == [0, "203.0.113.54", "203.0.113.54", 53]
    for asked in "2001:db8:3::53", "2001:db8:3:ffff::1":
        for tcp in "+notcp", "+tcp":
            assert broker.out(f"dig +short {tcp} @{asked} example.org AAAA") == asked
            assert broker.out(f"dig +short {tcp} @{asked} example.org A") == "203.0.113.53"
    assert broker.out("dig +short @203.0.113.9 example.org AAAA") == "2001:db8:3::53"
    assert "status: NOERROR" in broker.out("dig @2001:db8:3::53 example.org TXT")
    assert "status: REFUSED" in broker.out("dig @2001:db8:3::53 -c CH example.org A")


def test_sockets_of_a_socket_unit_are_registered_by_its_own_command_from_systemd_256_on(broker):
    broker.example("resolver", "resolver.socket", "resolver.service")
    broker.run("cp -r /usr/share/doc/sockbroker/examples/resolver.socket.d /etc/systemd/system/ && "
               "systemctl daemon-reload")
    cursor = broker.cursor()
    started = broker.run("systemctl start resolver.socket", check=False).returncode == 0
    if int(broker.out("systemctl --version").split()[1]) < 256:
        # As the drop-in itself warns.
        said = " ".join(entry["MESSAGE"] for entry in broker.entries(cursor, "_SYSTEMD_UNIT=resolver.socket"))
        assert started and "no sockets were passed" in said
        return
    assert started
    rows = broker.registered("resolver")
    assert len(rows) == 4 and {row["unit"] for row in rows} == {"resolver.socket"}
    assert query(broker, "203.0.113.53") == [0, "203.0.113.53", "203.0.113.53", 53]


@pytest.fixture(name="broken")
def _broken(broker):
    """A broker that cannot start, until the function that this is is called; and way (b) as the manual says."""
    broker.example("resolver", "resolver.socket", "resolver.service", "resolver-register.service")
    broker.run("cp -r /usr/share/doc/sockbroker/examples/resolver.socket.d /etc/systemd/system/ && "
               "systemctl enable resolver-register.service")
    broker.run("touch /run/broken")
    broker.drop_in("sockbrokerd.service", "[Service]\nExecStartPre=/bin/sh -c '! test -e /run/broken'\n")
    assert broker.run("systemctl restart sockbrokerd.service", check=False).returncode != 0
    yield lambda: broker.run("rm /run/broken")
    broker.run("rm -f /run/broken; systemctl disable resolver-register.service")


def test_a_broker_that_cannot_start_holds_no_socket_unit_up_and_has_the_sockets_when_it_is_back(broker, broken):
    began = time.monotonic()
    broker.run("systemctl start resolver.socket", timeout=60)
    assert time.monotonic() - began < 30, "a start limit of the boot"
    assert broker.show("resolver.socket", "ActiveState") == "active"
    broken()
    rows = broker.until_registered("resolver", 4)
    assert {row["state"] for row in rows} == {"live"}
    assert query(broker, "203.0.113.3") == [0, "203.0.113.3", "203.0.113.3", 53]
    broker.run("systemctl stop sockbrokerd.service && sockbrokerctl --timeout=30s unload && "
               "systemctl start sockbrokerd.service")
    broker.until_registered("resolver", 4)
    assert broker.show("resolver.socket", "Result") == "success"


def test_sockets_of_a_socket_unit_survive_a_restart_of_their_service(broker):
    broker.example("resolver", "resolver.socket", "resolver.service", "resolver-register.service")
    broker.run("systemctl start resolver.socket")
    before = {row["cookie"] for row in broker.until_registered("resolver", 4)}
    broker.run("systemctl restart resolver.service")
    assert query(broker, "203.0.113.1") == [0, "203.0.113.1", "203.0.113.1", 53]
    assert {row["cookie"] for row in broker.registered("resolver")} == before


def test_sockets_are_handed_over_again_when_the_socket_unit_makes_new_ones(broker):
    broker.example("resolver", "resolver.socket", "resolver.service", "resolver-register.service")
    broker.run("systemctl start resolver.socket")
    before = {row["cookie"] for row in broker.until_registered("resolver", 4)}
    broker.run("systemctl stop resolver.service resolver.socket && systemctl start resolver.socket")
    broker.until("four other sockets", lambda: len(
        {row["cookie"] for row in broker.registered("resolver") if row["state"] == "live"} - before) == 4)
    assert query(broker, "203.0.113.2") == [0, "203.0.113.2", "203.0.113.2", 53]


def one_shot(broker, name, command, *lines):
    broker.unit(name, "[Service]\nType=oneshot\n" + "".join(f"{line}\n" for line in lines) + f"ExecStart={command}\n")


REGISTER = "/opt/system-tests/client.py register echo 127.0.0.9 7000"


def refusal(broker, cursor, message_ids):
    entry, = broker.until("the entry", lambda: broker.journal(cursor, message_ids["refuse"]))
    return entry


def test_a_unit_that_policy_does_not_name_is_refused_and_the_journal_says_who_what_why(broker, message_ids):
    broker.policy("echo.conf", ECHO_POLICY)
    broker.run("systemctl reload sockbrokerd")
    cursor = broker.cursor()
    one_shot(broker, "stranger.service", REGISTER, "DynamicUser=yes")
    broker.run("systemctl start stranger.service")
    entry = refusal(broker, cursor, message_ids)
    assert entry["SOCKBROKER_ACTION"] == "refuse"
    assert entry["SOCKBROKER_RESULT"] == "not-permitted"
    assert entry["SOCKBROKER_SERVICE"] == "echo"
    assert entry["SOCKBROKER_UNIT"] == "stranger.service"
    assert int(entry["SOCKBROKER_UID"]) >= 61184
    assert int(entry["OBJECT_PID"]) > 1
    assert entry["_SYSTEMD_UNIT"] == "sockbrokerd.service"
    assert entry["SOCKBROKER_RULE"] == "/etc/sockbroker/conf.d/echo.conf:1"
    # The same in words, as the catalog has it.
    shown = broker.out(f"journalctl -x --no-pager -n 1 {message_ids['refuse']}")
    assert "stranger.service" in shown and "not-permitted" in shown and "Subject: A request for service echo" in shown
    # And in the answer.
    said = broker.out("journalctl -q -o cat _SYSTEMD_UNIT=stranger.service")
    assert "RESULT=not-permitted" in said
    assert broker.registered("echo") == []


def test_root_speaks_for_a_process_of_its_own_unit_and_of_no_other(broker):
    broker.policy("echo.conf", ECHO_POLICY)
    broker.run("systemctl reload sockbrokerd")
    ask = ("/bin/sh -c 'exec /opt/system-tests/client.py control "
           "\"VERB=match\\nPROTOCOL=tcp\\nADDRESS=0.0.0.0\\nPORT=7\\nPID=$$(systemctl show -P "
           "MainPID echo.service)\"'")
    broker.unit("echo.service", f"[Service]\nDynamicUser=yes\nExecStart=sleep infinity\nExecStartPost=+{ask}\n")
    broker.run("systemctl start echo.service")
    one_shot(broker, "stranger.service", ask, "CapabilityBoundingSet=")
    broker.run("systemctl start stranger.service")
    broker.run("journalctl --sync")
    said = {unit: broker.out(f"journalctl -q -o cat _SYSTEMD_UNIT={unit}.service") for unit in ("echo", "stranger")}
    assert "RESULT=ok" in said["echo"] and '"service":"echo"' in said["echo"], said
    assert "RESULT=not-permitted" in said["stranger"], said
    assert "it runs in echo.service, the sender in stranger.service" in said["stranger"], said


def test_a_registration_is_told_in_the_journal_with_the_rule_that_admitted_it(broker, message_ids):
    broker.policy("echo.conf", ECHO_POLICY)
    broker.run("systemctl reload sockbrokerd")
    cursor = broker.cursor()
    one_shot(broker, "echo.service", REGISTER, "DynamicUser=yes")
    broker.run("systemctl start echo.service")
    entry, = broker.until("the entry", lambda: broker.journal(cursor, message_ids["register"]))
    assert (entry["SOCKBROKER_SERVICE"], entry["SOCKBROKER_UNIT"], entry["SOCKBROKER_RESULT"]) == (
        "echo", "echo.service", "ok")
    assert (entry["SOCKBROKER_PROTOCOL"], entry["SOCKBROKER_BOUND"]) == ("tcp", "127.0.0.9:7000")
    assert entry["SOCKBROKER_RULE"] == "/etc/sockbroker/conf.d/echo.conf:2"
    # The one-shot has ended, and its socket with it; nobody is left to hang in front of it.
    broker.until("the socket to be gone", lambda: broker.registered("echo") == [])
    assert "ConnectionRefusedError" in broker.client("tcp", "198.51.100.1", 80, "hi", check=False).stderr


FORGE = """\
cgroup=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)
mkdir -p $cgroup/system.slice/x.service/system.slice/echo.service
echo $$ > $cgroup/system.slice/x.service/system.slice/echo.service/cgroup.procs
grep ^0:: /proc/self/cgroup
exec """ + REGISTER + "\n"


@pytest.mark.parametrize("named, verdict", [("echo.service", "not-permitted"), ("x.service", "ok")])
def test_a_unit_name_forged_in_a_delegated_cgroup_counts_as_the_unit_that_forged_it(broker, message_ids, named,
                                                                                  verdict):
    broker.policy("echo.conf", ECHO_POLICY.replace("echo.service", named))
    broker.run("systemctl reload sockbrokerd")
    broker.write("/run/forge", FORGE)
    cursor = broker.cursor()
    one_shot(broker, "x.service", "/bin/sh /run/forge", "DynamicUser=yes", "Delegate=yes")
    broker.run("systemctl start x.service")
    said = [entry["MESSAGE"] for entry in broker.entries(cursor, "_SYSTEMD_UNIT=x.service")]
    assert "0::/system.slice/x.service/system.slice/x.service/system.slice/echo.service" in said, "the forgery failed"
    assert f"RESULT={verdict}" in said
    kind = message_ids["refuse" if verdict == "not-permitted" else "register"]
    entry, = broker.until("the entry", lambda: broker.journal(cursor, kind))
    assert entry["SOCKBROKER_UNIT"] == "x.service"


def test_a_unit_name_forged_by_a_user_manager_counts_as_the_user_manager(broker, message_ids):
    broker.policy("echo.conf", ECHO_POLICY)
    broker.run("systemctl reload sockbrokerd")
    broker.run("echo 'u mallory 61010 - /tmp' | systemd-sysusers -")
    # A machine with an empty /etc has no PAM, which is what sets this otherwise.
    broker.write("/etc/systemd/system/user@61010.service.d/no-pam.conf",
                 "[Service]\nPAMName=\nEnvironment=XDG_RUNTIME_DIR=/run/user/61010\n")
    broker.run("systemctl daemon-reload")
    broker.write("/etc/systemd/user/echo.service", f"[Service]\nType=oneshot\nExecStart={REGISTER}\n"
                 "ExecStartPre=grep ^0:: /proc/self/cgroup\n")
    cursor = broker.cursor()
    broker.units.append("user@61010.service")
    broker.run("systemctl start user@61010.service")
    broker.run("setpriv --reuid=61010 --regid=61010 --clear-groups env XDG_RUNTIME_DIR=/run/user/61010 "
               "systemctl --user start echo.service")
    said = [entry["MESSAGE"] for entry in broker.entries(cursor, "_UID=61010")]
    assert any(text.startswith("0::/user.slice/") and text.endswith("/echo.service") for text in said)
    assert "RESULT=not-permitted" in said
    entry = refusal(broker, cursor, message_ids)
    assert (entry["SOCKBROKER_UNIT"], entry["SOCKBROKER_UID"]) == ("user@61010.service", "61010")


def test_a_dynamic_user_may_be_named_by_user_though_its_name_exists_only_while_it_runs(broker):
    broker.write("/etc/nsswitch.conf", "passwd: files systemd\ngroup: files systemd\n")
    broker.example("echo", "echo.service")
    broker.policy("echo.conf", ECHO_POLICY.replace("Unit=echo.service", "User=echo"))
    broker.run("systemctl reload sockbrokerd")  # a warning, for nobody has that name yet
    assert broker.run("getent passwd echo", check=False).returncode != 0
    broker.policy("echo.conf", ECHO_POLICY.replace("Unit=echo.service", "User=echo") +
                  "ListenDatagram=198.51.100.0/24:7777\n")
    broker.run("systemctl reload sockbrokerd && systemctl start echo.service")
    assert len(broker.until_registered("echo", 2)) == 2


def test_a_one_shot_with_a_dynamic_user_loses_no_socket_at_a_reload_and_a_restart(broker):
    """Its account is gone as soon as it has ended; the name in the policy is what admitted it."""
    broker.policy("50-echo.conf", "[Service echo]\nUser=echo-register\nListenStream=198.51.100.0/24:*\n")
    broker.unit("echo.socket",
                "[Socket]\nListenStream=127.0.0.1:7007\nFileDescriptorName=echo\nAccept=no\n"
                "Service=echo-server.service\n")
    broker.unit("echo-server.service", "[Service]\nExecStart=/bin/true\n")
    broker.unit("echo-register.service",
                "[Service]\nType=oneshot\nDynamicUser=yes\nSockets=echo.socket\nExecStart=/usr/bin/sockbrokerctl "
                "register\n")
    broker.run("systemctl reload sockbrokerd && systemctl start echo.socket && systemctl start echo-register.service")
    row, = broker.until_registered("echo", 1)
    assert 61184 <= row["uid"] <= 65519
    assert broker.run("getent passwd echo-register", check=False).returncode != 0, "the account went with the one-shot"
    broker.policy("60-more.conf", "[Service more]\nUser=0\nListenStream=198.51.100.0/24:8080\n")
    broker.run("systemctl reload sockbrokerd.service")
    assert broker.until_registered("echo", 1) == [row]
    broker.run("systemctl restart sockbrokerd.service")
    assert broker.until_registered("echo", 1) == [row]
    broker.run("systemctl reload sockbrokerd.service")
    assert broker.until_registered("echo", 1) == [row]
    # Whoever gets that number next is not admitted by it.
    broker.policy("50-echo.conf", "[Service echo]\nUser=another\nListenStream=198.51.100.0/24:*\n")
    broker.run("systemctl reload sockbrokerd.service")
    assert broker.registered("echo") == []


def test_an_example_that_is_refused_does_not_say_that_it_serves(broker):
    broker.example("hello", "hello.service")
    broker.policy("hello.conf", "[Service hello]\nUnit=another.service\nListenStream=192.0.2.0/24:80\n")
    broker.run("systemctl reload sockbrokerd")
    cursor = broker.cursor()
    broker.run("mkdir -p /run/systemd/system/hello.service.d && printf '[Service]\\nRestart=no\\n' "
               ">/run/systemd/system/hello.service.d/once.conf && systemctl daemon-reload && systemctl start "
               "hello.service")
    broker.until("it has ended", lambda: broker.show("hello.service", "ActiveState") == "failed")
    said = [entry["MESSAGE"] for entry in broker.entries(cursor, "_SYSTEMD_UNIT=hello.service")]
    broker.run("rm -r /run/systemd/system/hello.service.d && systemctl daemon-reload && systemctl reset-failed "
               "hello.service")
    assert any("not-permitted: not admitted to service hello: Unit=another.service at " in text for text in said), said
    assert not any("serving" in text for text in said), said


TUBULAR_CLIENT = """\
import array, socket, time
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.5", 7053))
connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
connection.connect("/run/sockbroker/tubular")
connection.sendmsg([b"udp_server#"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [server.fileno()]))])
print("answer:", connection.recv(1024).decode().splitlines()[0], flush=True)
time.sleep(1000)
"""


def test_clients_of_tubular_register_at_a_socket_that_is_off_until_it_is_enabled(broker):
    broker.policy("udp.conf", "[Service udp_server]\nUnit=grm.service\nListenDatagram=198.51.100.0/24:7053\n")
    broker.run("systemctl reload sockbrokerd.service")
    assert broker.run("systemctl is-enabled sockbrokerd-tubular.socket", check=False).stdout.strip() == "disabled"
    assert broker.run("test -e /run/sockbroker/tubular", check=False).returncode == 1
    try:
        broker.run("systemctl enable sockbrokerd-tubular.socket && systemctl restart sockbrokerd.service")
        assert broker.show("sockbrokerd-tubular.socket", "SubState") == "running"
        cursor = broker.cursor()
        broker.write("/run/tubular_client.py", TUBULAR_CLIENT)
        broker.unit("grm.service", "[Service]\nDynamicUser=yes\nExecStart=/usr/bin/python3 /run/tubular_client.py\n")
        broker.run("systemctl start grm.service")
        broker.until_said(cursor, "grm.service", "answer: OK")
        row, = broker.until_registered("udp_server", 1)
        assert (row["unit"], row["protocol"]) == ("grm.service", "udp")
        # Of another unit.
        broker.unit("other.service", "[Service]\nDynamicUser=yes\nExecStart=/usr/bin/python3 /run/tubular_client.py\n")
        broker.run("systemctl stop grm.service && systemctl start other.service")
        broker.until_said(cursor, "other.service", "answer: RESULT=not-permitted")
        # And off again.
        broker.run("systemctl disable --now sockbrokerd-tubular.socket && systemctl restart sockbrokerd.service")
        assert broker.run("test -e /run/sockbroker/tubular", check=False).returncode == 1
    finally:
        broker.run("systemctl disable --now sockbrokerd-tubular.socket; systemctl stop grm.service other.service",
                   check=False)


LABEL_WITHOUT_A_SOCKET = """python3 -c '
import socket
connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
connection.settimeout(30)
connection.connect("/run/sockbroker/tubular")
connection.send(b"udp_server#")
print(connection.recv(1024).decode())'"""
BROKER_AND_SOCKETS = "sockbrokerd.service", "sockbrokerd.socket", "sockbrokerd-tubular.socket"


def test_a_stop_of_the_brokers_socket_stops_that_for_clients_of_tubular_too(broker):
    def active():
        return [broker.show(unit, "ActiveState") for unit in BROKER_AND_SOCKETS]

    try:
        broker.run("systemctl enable sockbrokerd-tubular.socket && systemctl restart sockbrokerd.service")
        assert active() == ["active"] * 3
        broker.run("systemctl stop sockbrokerd.socket sockbrokerd.service")
        assert active() == ["inactive"] * 3
        assert broker.run("test -e /run/sockbroker/tubular", check=False).returncode == 1
        broker.run("systemctl start sockbrokerd.service")
        assert active() == ["active"] * 3
        # The broker has it: it says why a label is refused.
        assert "RESULT=malformed" in broker.out(LABEL_WITHOUT_A_SOCKET), "the broker reads there"
        broker.run("systemctl restart sockbrokerd.socket && systemctl start sockbrokerd.service")  # which waits for it
        assert active() == ["active"] * 3
    finally:
        broker.run("systemctl disable --now sockbrokerd-tubular.socket; systemctl start sockbrokerd.service",
                   check=False)
