# SPDX-License-Identifier: LGPL-2.1-or-later
"""UdpReply=original in a booted machine, row S5: two stock name servers on port 53 of prefixes of their own, from unit
files, with no privilege and no .socket unit; and sockets that PID 1 makes for servers that set no source."""
import pytest

UNBOUND = """\
server:
  do-daemonize: no
  use-syslog: no
  username: ""
  chroot: ""
  directory: ""
  pidfile: ""
  interface: 0.0.0.0
  interface: ::
  access-control: 0.0.0.0/0 allow
  access-control: ::0/0 allow
  module-config: "iterator"
  local-zone: "example.org." static
  local-data: "example.org. A {answer}"
remote-control:
  control-enable: no
"""
UNIT = """\
[Service]
DynamicUser=yes
ExecStart=/usr/bin/sockbroker-run --supervise --profile=interfaces --bind=tcp:53 --bind=udp:53 \
/usr/sbin/unbound -d -p -c /etc/unbound/{name}.conf
"""
SERVERS = {"auth": ("203.0.113.0/24", "[2001:db8:3::]/48", "192.0.2.1"),
           "cache": ("198.51.100.0/24", "[2001:db8:2::]/48", "192.0.2.2")}
ASKED = {"auth": ("203.0.113.7", "203.0.113.99", "2001:db8:3::7", "2001:db8:3::99"),
         "cache": ("198.51.100.7", "198.51.100.99", "2001:db8:2::7", "2001:db8:2::99")}
PLAIN = """\
import socket
sock = socket.socket(fileno=3)
while True:
    data, peer = sock.recvfrom(4096)
    sock.sendto(data, peer)
"""
CLIENT = """\
import socket
for address in "203.0.113.7", "203.0.113.8":
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.connect((address, 53))
        sock.send(b"x")
        print(sock.recv(9).decode())
"""


def policy(name, prefixes, units):
    bindings = "".join(f"Listen{kind}={prefix}:53\n" for kind in ("Stream", "Datagram") for prefix in prefixes)
    return f"[Service {name}]\nUnit={units}\n{bindings}UdpReply=original\n"


def links(machine):
    return machine.out("ls /run/sockbroker/bpf/dispatch | grep ^cgroup_ | sort || true").split()


def pinned(machine, *units):
    numbers = [int(machine.out(f"stat -c %i /sys/fs/cgroup/system.slice/{unit}")) for unit in units]
    return sorted(f"cgroup_{number:016x}_{hook}" for number in numbers
                  for hook in ("bind4", "bind6", "sendmsg4", "sendmsg6"))


@pytest.fixture
def two(broker):
    for name, (ipv4, ipv6, answer) in SERVERS.items():
        broker.write(f"/etc/unbound/{name}.conf", UNBOUND.format(answer=answer))
        broker.unit(f"{name}.service", UNIT.format(name=name))
        broker.policy(f"{name}.conf", policy(name, (ipv4, ipv6), f"{name}.service"))
    broker.run("systemctl reload sockbrokerd && systemctl start auth.service cache.service")
    for name in SERVERS:
        broker.until_registered(name, 4)
    return broker


def test_s5_two_stock_name_servers_on_port_53_with_no_privilege_answer_from_the_asked_addresses(two):
    for name, (_, _, answer) in SERVERS.items():
        for tcp in "+notcp", "+tcp":
            for address in ASKED[name]:
                assert two.out(f"dig +short +tries=2 {tcp} @{address} example.org A") == answer
        pids = two.out(f"cat /sys/fs/cgroup/system.slice/{name}.service/cgroup.procs").split()
        assert {two.out(f"sed -n 's/^CapEff:[[:space:]]*//p' /proc/{pid}/status") for pid in pids} == {"0" * 16}
    assert links(two) == pinned(two, "auth.service", "cache.service")
    two.run("systemctl restart auth.service")
    two.until_registered("auth", 4)
    two.until("links of the new instance alone", lambda: links(two) == pinned(two, "auth.service", "cache.service"))
    assert two.out(f"dig +short +tries=2 @{ASKED['auth'][0]} example.org A") == SERVERS["auth"][2]
    two.run("systemctl stop auth.service cache.service")
    two.until("nothing to be left", lambda: links(two) == [])


def test_s5_sockets_that_pid_1_makes_answer_from_the_asked_address_too(broker):
    broker.write("/opt/plain.py", PLAIN)
    broker.unit("plain.socket", "[Socket]\nListenDatagram=127.0.0.77:53\nFileDescriptorName=plain\n")
    broker.unit("plain.service", "[Service]\nDynamicUser=yes\nExecStart=/usr/bin/python3 /opt/plain.py\n")
    broker.unit("plain-register.service", "[Service]\nType=oneshot\nDynamicUser=yes\nSockets=plain.socket\n"
                "ExecStart=/usr/bin/sockbrokerctl register\n")
    broker.policy("plain.conf", policy("plain", ("203.0.113.0/24", "[2001:db8:3::]/48"),
                                       "plain.socket plain.service plain-register.service"))
    broker.run("systemctl reload sockbrokerd && systemctl start plain.socket plain-register.service")
    broker.until_registered("plain", 1)
    assert broker.run("python3 -", text=CLIENT).stdout.split() == ["x", "x"]
    broker.run("systemctl stop plain.service plain.socket")
    broker.until("nothing to be left", lambda: links(broker) == [])
