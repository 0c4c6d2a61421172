# SPDX-License-Identifier: LGPL-2.1-or-later
"""Row S11 with the units as they are installed, and a broker that was taken over in the unit's own sandbox."""
import errno
import json
import pathlib
import socket
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import takeover  # noqa: E402

SIDES = ("left", "right")
PORT = 8000

# Registers its listener with the broker of a namespace and says its own name to whoever connects; or registers alone.
SERVICE = """\
import socket, sys
name, netns, stays = sys.argv[1:]
listener = socket.create_server(("127.0.0.1", 0))
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as broker:
    broker.connect(f"/run/sockbroker/netns/{netns}/control")
    socket.send_fds(broker, [f"FDSTORE=1\\nFDNAME={name}".encode()], [listener.fileno()])
    print(broker.recv(4096).decode().partition("\\n")[0], flush=True)
while stays == "stay":
    connection, _ = listener.accept()
    with connection:
        connection.recv(64)
        connection.sendall(name.encode())
"""

WEB = """\
[Unit]
Wants=sockbrokerd@%i.socket
After=sockbrokerd@%i.socket
[Service]
ExecStart=/usr/bin/python3 /etc/s11.py web-%i %i stay
DynamicUser=yes
NetworkNamespacePath=/run/netns/%i
"""


@pytest.fixture
def sides(broker):
    broker.write("/etc/s11.py", SERVICE)
    broker.unit("web@.service", WEB)
    for side in SIDES:
        broker.run(f"ip netns add {side} && ip -n {side} link set lo up && "
                   f"ip -n {side} route add local 192.0.2.0/24 dev lo")
        broker.write(f"/etc/sockbroker/netns/{side}/conf.d/web.conf",
                     f"[Service web-{side}]\nUnit=web@{side}.service\nListenStream=192.0.2.0/24:{PORT}\n"
                     f"[Service any]\nUser=0\nListenStream={PORT + 1}\n")
        broker.run(f"systemctl start sockbrokerd@{side}.socket sockbrokerd@{side}.service web@{side}.service")
    yield broker
    for side in SIDES:
        broker.run(f"systemctl stop web@{side} sockbrokerd@{side}.socket sockbrokerd@{side}.service; "
                   f"sockbrokerctl --netns={side} unload; systemctl reset-failed; ip netns del {side}", check=False)
    broker.run("rm -rf /etc/s11.py /var/lib/sockbroker/netns")


def listed(machine, side, verb="list"):
    return json.loads(machine.out(f"sockbrokerctl --netns={side} --json=short {verb}"))


def answer(machine, side):
    return machine.run(f"ip netns exec {side} /opt/system-tests/client.py tcp 192.0.2.77 {PORT} x", check=False).stdout


def test_S11_brokers_of_two_namespaces_have_the_same_prefixes_and_nothing_in_common(sides):
    for side in SIDES:
        sides.until(f"the socket of {side}", lambda side=side: listed(sides, side))
        assert [row["service"] for row in listed(sides, side)] == [f"web-{side}"]
        assert {row["service"] for row in listed(sides, side, "bindings")} == {f"web-{side}", "any"}
        assert answer(sides, side) == f"web-{side}"
        places = sides.out(f"stat -c '%A %U' /run/sockbroker/netns/{side} /run/sockbroker/netns/{side}/control "
                           f"/run/sockbroker/bpf/netns/{side}/dispatch /var/lib/sockbroker/netns/{side}").splitlines()
        assert places == ["drwxr-xr-x root", "srw-rw-rw- root", "drwx------ sockbroker", "drwx------ sockbroker"]
        sides.run(f"systemctl reload sockbrokerd@{side}")
    # the machine's own has no part in it
    assert not sides.registered("web-left") and sides.status()["state"] == "running"

    assert sides.out("ip netns exec left python3 /etc/s11.py any left once") == "RESULT=ok"
    assert sides.out("ip netns exec left python3 /etc/s11.py any right once") == "RESULT=foreign-netns"

    # What ends one leaves the other.
    sides.run("systemctl kill -s KILL sockbrokerd@left && sockbrokerctl --netns=right unload")
    assert (answer(sides, "left"), answer(sides, "right")) == ("web-left", "")
    sides.until("the other broker", lambda: [row["service"] for row in listed(sides, "left")] == ["web-left"])


CONNECT = "import socket, sys; socket.socket(socket.AF_UNIX, int(sys.argv[2])).connect(sys.argv[1])"


def test_S11_a_broker_reaches_no_socket_of_another_one(sides):
    """All have the same user, and whoever makes routes asks for no more than that."""
    kinds = {"routes": int(socket.SOCK_SEQPACKET), "links": int(socket.SOCK_DGRAM)}
    sides.run("systemctl start sockbroker-routes.socket sockbroker-routes@left.socket sockbroker-routes@right.socket")
    sides.run("systemctl restart sockbrokerd sockbrokerd@left sockbrokerd@right")

    def reaches(unit, folder, name):
        pid = sides.show(unit, "MainPID")
        return sides.run(f"nsenter -t {pid} -m python3 -c '{CONNECT}' /run/sockbroker{folder}/{name} {kinds[name]}",
                         check=False).returncode == 0

    try:
        for name in kinds:
            assert reaches("sockbrokerd", "", name) and reaches("sockbrokerd@left", "/netns/left", name)
            assert not reaches("sockbrokerd@left", "/netns/right", name)
            assert not reaches("sockbrokerd@left", "", name)
            assert not reaches("sockbrokerd", "/netns/left", name)
    finally:
        sides.run("systemctl stop sockbroker-routes@left.socket sockbroker-routes@right.socket", check=False)


def test_S11_a_namespace_that_comes_late_is_served_when_it_is_there(broker):
    broker.run("systemctl start sockbrokerd@late.socket; systemctl start --no-block sockbrokerd@late.service")
    try:
        broker.until("a first failure", lambda: int(broker.show("sockbrokerd@late", "NRestarts")) > 0)
        broker.run("ip netns add late")
        broker.until("the broker", lambda: broker.show("sockbrokerd@late", "ActiveState") == "active")
        assert broker.show("sockbrokerd@late.socket", "ActiveState") == "active"
    finally:
        broker.run("systemctl stop sockbrokerd@late.socket sockbrokerd@late.service; "
                   "sockbrokerctl --netns=late unload; systemctl reset-failed; ip netns del late", check=False)


def test_S11_a_namespace_that_is_removed_ends_though_its_broker_and_its_routes_run(broker):
    """With its interfaces, dispatch, and whoever makes its routes; and the broker says what has happened, until another
    namespace has its name and it is restarted."""
    def status():
        done = broker.run("sockbrokerctl --netns=gone --json=short status", check=False)
        return done.returncode, json.loads(done.stdout)

    def is_there(link):
        return broker.run(f"ip link show {link}", check=False).returncode == 0

    def make():
        broker.run("ip netns add gone && ip -n gone link set lo up && "
                   "ip link add gone-out type veth peer name gone-in netns gone")

    broker.write("/etc/sockbroker/netns/gone/conf.d/web.conf", "[Service web]\nUser=root\nLocalRoutes=yes\n"
                 "ListenStream=192.0.2.0/24:80\nInterface=gone-in\n")
    try:
        make()
        broker.run("systemctl start sockbrokerd@gone.socket sockbroker-routes@gone.socket sockbrokerd@gone.service")
        broker.until("the route", lambda: broker.run("ip -n gone route show table local | grep 192.0.2.0/24",
                                                     check=False).returncode == 0)
        assert status()[0] == 0
        broker.run("ip netns del gone")
        broker.until("its interfaces to go", lambda: not is_there("gone-out"))
        broker.until("dispatch to end", lambda: not status()[1]["dispatches"])
        code, said = status()
        assert code == 1 and said["state"] == "degraded"
        assert "network namespace gone was removed" in said["reason"]
        assert "systemctl restart sockbrokerd@gone.service" in said["reason"]
        broker.until("whoever made its routes to end",
                     lambda: broker.show("sockbroker-routes@gone.service", "ActiveState") == "inactive")
        broker.run("systemctl reload sockbrokerd@gone")
        assert broker.show("sockbroker-routes@gone.service", "ActiveState") == "inactive", "and it is not started again"
        make()
        assert status()[0] == 1, "another one of this name"
        broker.run("systemctl restart sockbrokerd@gone.service")
        code, said = status()
        assert code == 0 and said["dispatches"]
        # Where it is not to come again: what the kernel has of it takes memory until then.
        broker.run("ip netns del gone; systemctl stop sockbrokerd@gone.socket")
        broker.run("sockbrokerctl --netns=gone unload")
        assert broker.out("ls /run/sockbroker/bpf/netns/gone/dispatch") == ""
    finally:
        broker.run("systemctl stop sockbrokerd@gone.socket sockbrokerd@gone.service sockbroker-routes@gone.socket "
                   "sockbroker-routes@gone.service; sockbrokerctl --netns=gone unload; systemctl reset-failed; "
                   "ip netns del gone; ip link del gone-out; rm -rf /var/lib/sockbroker/netns/gone", check=False)


def test_a_broker_taken_over_in_its_unit_can_do_no_more_than_the_manual_says(broker):
    if broker.run("test -x /usr/lib/sockbroker-tests/sockbrokerd-takeover", check=False).returncode != 0:
        pytest.skip("built without -Dsandbox_tests=true")
    if not takeover.landlock_version():
        pytest.skip("this kernel has no Landlock")
    victim = broker.start("exec python3 -c \"import os, socket; s = socket.socket(socket.AF_UNIX); "
                          "s.bind('\\0sockbroker-victim'); s.listen(1); print(os.getpid(), flush=True); os.read(0, "
                          "1)\"")
    pid = victim.stdout.readline().strip()
    broker.drop_in("sockbrokerd.service",
                   "[Service]\nExecStart=\nExecStart=/usr/lib/sockbroker-tests/sockbrokerd-takeover\n"
                   f"Environment=SOCKBROKER_VICTIM={pid}\n")
    broker.run("mkdir -p /etc/sockbroker/conf.d")
    cursor = broker.cursor()
    broker.run("systemctl restart sockbrokerd")
    log = "\n".join(entry["MESSAGE"] for entry in broker.entries(cursor, "_SYSTEMD_UNIT=sockbrokerd.service"))
    try:
        # These two are read-only mounts as well. And it is in an empty network namespace.
        assert takeover.met(log) == takeover.meets() | {"write-etc": errno.EROFS, "write-a-policy": errno.EROFS,
                                                             "move-a-pin-out": errno.EXDEV,
                                                        "abstract-socket": errno.ECONNREFUSED,
                                                             "add-a-route": errno.EAFNOSUPPORT}
        assert broker.status()["state"] == "running"
        assert broker.run(f"test -d /proc/{pid}", check=False).returncode == 0
    finally:
        victim.stdin.close()
        victim.wait(10)
        broker.run("ip route del local 198.51.100.1 dev lo; rm -f /var/lib/sockbroker/policy.mine", check=False)


def test_a_load_taken_over_in_its_unit_makes_no_socket_and_touches_nothing_but_pins(broker):
    if broker.run("test -x /usr/lib/sockbroker-tests/sockbrokerd-takeover", check=False).returncode != 0:
        pytest.skip("built without -Dsandbox_tests=true")
    victim = broker.start("exec python3 -c \"import os, socket; s = socket.socket(socket.AF_UNIX); "
                          "s.bind('\\0sockbroker-victim'); s.listen(1); print(os.getpid(), flush=True); os.read(0, "
                          "1)\"")
    pid = victim.stdout.readline().strip()
    broker.drop_in("sockbrokerd-load.service",
                   "[Service]\nExecStart=\nExecStart=/usr/lib/sockbroker-tests/sockbrokerd-takeover --load\n"
                   f"Environment=SOCKBROKER_TAKEOVER_LOAD=1 SOCKBROKER_VICTIM={pid}\n")
    broker.run("mkdir -p /etc/sockbroker/conf.d")
    cursor = broker.cursor()
    broker.run("systemctl restart sockbrokerd")
    log = "\n".join(entry["MESSAGE"] for entry in broker.entries(cursor, "_SYSTEMD_UNIT=sockbrokerd-load.service"))
    try:
        met = takeover.met(log)
        can = {name for name, error in met.items() if error == 0}
        assert can == takeover.LOAD_CAN, met
        assert {met[name]
                for name in ("tcp-socket", "udp-socket", "raw-socket", "packet-socket", "netfilter", "abstract-socket",
                                       "add-a-route", "make-a-socket-file")} <= {errno.EPERM, errno.EAFNOSUPPORT}
        assert broker.status()["state"] == "running", "what it did to the pins it made good itself"
        assert broker.run(f"test -d /proc/{pid}", check=False).returncode == 0
    finally:
        victim.stdin.close()
        victim.wait(10)
