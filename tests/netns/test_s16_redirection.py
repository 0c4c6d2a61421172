# SPDX-License-Identifier: LGPL-2.1-or-later
"""Row S16 of the talk: what docs/alternatives.md says of TPROXY, NAT, proxies, tun, SO_REUSEPORT and other programs at
the hook, each claim shown with the kernel's own means. bind(2), devices, namespaces: test_s16_alternatives.py."""

import contextlib
import ctypes
import errno
import fcntl
import os
import pathlib
import select
import socket
import struct
import subprocess

import pytest

from harness import client, kernel, namespace, service, worker
from words import ADDRESS, LOOPBACK, PORT, PREFIXES, add_routes, each_family, everywhere, handed_over, listen, section
from words import who

HIDDEN = 7099  # where a rule or a proxy leads to
SO_ORIGINAL_DST = 80  # linux/netfilter_ipv4.h
SO_ATTACH_REUSEPORT_CBPF = 51
NETLINK_NETFILTER = 12
IP_TRANSPARENT = {"ipv4": (socket.IPPROTO_IP, kernel.IP_TRANSPARENT),
                  "ipv6": (socket.IPPROTO_IPV6, kernel.IPV6_TRANSPARENT)}
PROXYD = "/usr/lib/systemd/systemd-socket-proxyd"
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000


def rules(family, chain, rule):
    """One rule of nftables for the traffic of ADDRESS and PORT."""
    table = "ip" if family == "ipv4" else "ip6"
    namespace.run("nft", "-f", "-", text=f"table {table} test {{\n chain it {{\n type {chain};\n"
                                         f"{table} daddr {ADDRESS[family]} {rule}\n }}\n}}\n")


# TPROXY.

def tproxy(family, one, more=""):
    """Leads the port to the service's socket, as root: the service can make neither half of it."""
    to = LOOPBACK[family] if family == "ipv4" else f"[{LOOPBACK[family]}]"
    rules(family, "filter hook prerouting priority mangle", f"tcp dport {PORT} tproxy to {to}:{HIDDEN} {more}")
    one.open("tcp", "tcp", LOOPBACK[family], HIDDEN)
    with pytest.raises(PermissionError):
        one.set_option("tcp", *IP_TRANSPARENT[family], 1)


def make_transparent(one, family):
    with one.borrowed("tcp") as sock:
        sock.setsockopt(*IP_TRANSPARENT[family], 1)


@each_family
def test_s16_tproxy_takes_a_privilege_of_the_service(spawn, remote, family):
    one = spawn("one")
    add_routes()
    tproxy(family, one)
    with pytest.raises(ConnectionRefusedError):
        remote.ask("tcp", ADDRESS[family], PORT)
    make_transparent(one, family)
    answer = remote.ask("tcp", ADDRESS[family], PORT)
    assert answer.name == "one" and answer.local == answer.source == (ADDRESS[family], PORT)


@each_family
def test_s16_tproxy_by_mark_misses_clients_on_the_same_host_and_by_an_anyip_route_does_not(
        spawn, remote, family):
    """As the kernel's tproxy.rst has it, the address is not local, and a mark leads in what comes from outside. What
    the host sends itself takes its way out."""
    one = spawn("one")
    tproxy(family, one, "meta mark set 1 accept")
    make_transparent(one, family)
    option = "-4" if family == "ipv4" else "-6"
    namespace.run("ip", option, "rule", "add", "fwmark", "1", "lookup", "100")
    namespace.run("ip", option, "route", "add", "local", "default", "dev", "lo", "table", "100")
    assert remote.ask("tcp", ADDRESS[family], PORT).name == "one"
    with pytest.raises(OSError) as caught:
        client.tcp_ask(ADDRESS[family], PORT)
    assert caught.value.errno == errno.ENETUNREACH
    add_routes()
    assert client.tcp_ask(ADDRESS[family], PORT).name == "one"


# DNAT.

def test_s16_dnat_leaves_the_service_with_another_address_and_an_entry_for_each_connection(spawn, remote):
    add_routes()
    one = spawn("one")
    one.open("tcp", "tcp", namespace.HOST4, HIDDEN)
    rules("ipv4", "nat hook prerouting priority dstnat", f"tcp dport {PORT} dnat to {namespace.HOST4}:{HIDDEN}")
    before = tracked()
    answer = remote.ask("tcp", ADDRESS["ipv4"], PORT)
    assert answer.local == (namespace.HOST4, HIDDEN) and answer.source == (ADDRESS["ipv4"], PORT)
    for _ in range(10):
        remote.ask("tcp", ADDRESS["ipv4"], PORT)
    assert tracked() >= before + 11
    one.close("tcp")
    with socket.create_server((namespace.HOST4, HIDDEN)) as server:
        remote.begin([("tcp", ADDRESS["ipv4"], PORT)])
        server.settimeout(client.TIMEOUT)
        with server.accept()[0] as connection:
            assert connection.getsockname() == (namespace.HOST4, HIDDEN)
            _, port, address = struct.unpack("!HH4s8x", connection.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16))
            assert (socket.inet_ntoa(address), port) == (ADDRESS["ipv4"], PORT)


def tracked():
    return int(pathlib.Path("/proc/sys/net/netfilter/nf_conntrack_count").read_text(encoding="ascii"))


def forget_all():
    """As conntrack -F: IPCTNL_MSG_CT_DELETE of nfnetlink, with no filter."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as sock:
        sock.send(struct.pack("=IHHII4x", 20, 1 << 8 | 2, 5, 1, 0))  # NLM_F_REQUEST | NLM_F_ACK
        assert struct.unpack_from("=i", sock.recv(4096), 16)[0] == 0


def test_s16_dnat_of_udp_answers_from_the_asked_address_while_conntrack_remembers(remote):
    add_routes()
    rules("ipv4", "nat hook prerouting priority dstnat", f"udp dport {PORT} dnat to {namespace.HOST4}:{HIDDEN}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((namespace.HOST4, HIDDEN))
        server.settimeout(client.TIMEOUT)
        asking = there(remote, f"s.sendto(b'x', ('{ADDRESS['ipv4']}', {PORT}))\n"
                               "for _ in range(2):\n print(*s.recvfrom(9)[1], flush=True)")
        with asking:
            _, peer = server.recvfrom(9)
            server.sendto(b"y", peer)
            assert asking.stdout.readline().split() == [ADDRESS["ipv4"], str(PORT)]
            forget_all()
            server.sendto(b"y", peer)
            assert asking.stdout.readline().split() == [namespace.HOST4, str(HIDDEN)]


def there(host, code):
    """A program on another host, with an IPv4 datagram socket s."""
    code = ("import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
            f"s.settimeout({client.TIMEOUT})\n{code}")
    return subprocess.Popen(["nsenter", "--net", f"--target={host.pid}", "/usr/bin/python3", "-c", code],
                            stdout=subprocess.PIPE, text=True)


# Proxies.

@pytest.mark.skipif(not os.path.exists(PROXYD), reason="systemd-socket-proxyd is not installed")
def test_s16_behind_systemd_socket_proxyd_the_proxy_is_the_client(spawn, remote):
    add_routes()
    spawn("one").open("tcp", "tcp", "127.0.0.1", HIDDEN)
    with proxyd(ADDRESS["ipv4"]):
        answer = remote.ask("tcp", ADDRESS["ipv4"], PORT)
    assert answer.name == "one" and answer.source == (ADDRESS["ipv4"], PORT)
    assert answer.peer[0] == "127.0.0.1" and answer.local == ("127.0.0.1", HIDDEN), "neither end is the client's"


@contextlib.contextmanager
def proxyd(address):
    """As a .socket unit starts it."""
    with socket.create_server((address, PORT)) as listener:
        command = 'exec 3<&"$1"; LISTEN_FDS=1 LISTEN_PID=$$ exec "$2" "$3"'
        process = subprocess.Popen(["/bin/bash", "-c", command, "-", str(listener.fileno()), PROXYD,
                                    f"127.0.0.1:{HIDDEN}"], pass_fds=[listener.fileno()])
        try:
            yield
        finally:
            process.terminate()
            process.wait(client.TIMEOUT)


class _Proxy(worker.Child):
    """An ordinary user's, or root's."""

    def __init__(self, uid):
        super().__init__()
        if uid:
            kernel.drop_privileges(uid, uid)

    def connect_as(self, source, *option):
        """A connection to the server that seems to come from its client, as mmproxy makes it."""
        with socket.socket() as sock:
            sock.setsockopt(*option, 1)
            sock.settimeout(client.TIMEOUT)
            sock.bind((source, 0))
            sock.connect(("127.0.0.1", HIDDEN))
            return sock.getsockname()[0]


def test_s16_a_proxy_that_shows_the_clients_address_takes_a_privilege_and_a_route(spawn):
    """IP_TRANSPARENT, and a rule that leads the answers of the server back into the host."""
    spawn("one").open("tcp", "tcp", "127.0.0.1", HIDDEN)
    proxies = [worker.Worker(_Proxy, 61002), worker.Worker(_Proxy, 0)]
    try:
        with pytest.raises(PermissionError):
            proxies[0].connect_as("198.51.100.7", *IP_TRANSPARENT["ipv4"])
        with pytest.raises(OSError) as caught:  # a foreign address to bind to is anybody's, to connect from it is not
            proxies[0].connect_as("198.51.100.7", socket.IPPROTO_IP, kernel.IP_FREEBIND)
        assert caught.value.errno in (errno.EINVAL, errno.ENETUNREACH)
        with pytest.raises(OSError):  # the answer has no way back
            proxies[1].connect_as("198.51.100.7", *IP_TRANSPARENT["ipv4"])
        namespace.add_local_routes("198.51.100.0/24")
        assert proxies[1].connect_as("198.51.100.7", *IP_TRANSPARENT["ipv4"]) == "198.51.100.7"
    finally:
        for proxy in proxies:
            proxy.kill()


# tun.

class _Tun(worker.Child):
    def __init__(self):
        super().__init__()
        self.tun = os.open("/dev/net/tun", os.O_RDWR)  # udev lets everybody
        kernel.drop_privileges(61001, 61001)

    def attach(self):
        fcntl.ioctl(self.tun, TUNSETIFF, struct.pack("16sH22x", b"tun0", IFF_TUN | IFF_NO_PI))

    def read_tcp(self):
        """The first TCP packet over IPv4: destination, port, flags."""
        while True:
            assert select.select([self.tun], [], [], client.TIMEOUT)[0], "no packet"
            packet = os.read(self.tun, 2000)
            if packet[0] >> 4 == 4 and packet[9] == socket.IPPROTO_TCP:
                return socket.inet_ntoa(packet[16:20]), int.from_bytes(packet[22:24], "big"), packet[33]


def test_s16_behind_a_tun_device_of_its_own_a_service_gets_packets_not_connections(remote):
    one = worker.Worker(_Tun)
    try:
        with pytest.raises(PermissionError):
            one.attach()
        namespace.run("ip", "tuntap", "add", "tun0", "mode", "tun", "user", "61001")
        namespace.run("ip", "link", "set", "tun0", "up")
        namespace.run("ip", "route", "add", PREFIXES["ipv4"], "dev", "tun0")
        namespace.sysctl("net/ipv4/ip_forward", 1)
        one.attach()
        with there(remote, f"socket.socket().connect_ex(('{ADDRESS['ipv4']}', {PORT}))") as asking:
            assert one.read_tcp() == (ADDRESS["ipv4"], PORT, 2), "a SYN, which its own stack has to answer"
            asking.kill()
    finally:
        one.kill()


# SO_REUSEPORT.

def test_s16_a_reuseport_group_is_of_one_address_and_port_and_open_to_its_uid(spawn):
    add_routes()
    first, same, other = spawn("first"), spawn("same"), spawn("other", 61002)
    first.open("tcp", "tcp", ADDRESS["ipv4"], PORT, reuseport=True)
    with pytest.raises(OSError) as caught:
        other.open("tcp", "tcp", ADDRESS["ipv4"], PORT, reuseport=True)
    assert caught.value.errno == errno.EADDRINUSE
    same.open("tcp", "tcp", ADDRESS["ipv4"], PORT, reuseport=True)
    assert {who("tcp", "ipv4") for _ in range(100)} == {"first", "same"}
    other.open("tcp", "tcp", "192.0.2.8", PORT, reuseport=True)
    assert client.tcp_ask("192.0.2.8", PORT).name == "other"


class _Group(worker.Child):
    """An ordinary user's server with two UDP sockets in one group."""

    def __init__(self):
        super().__init__()
        kernel.drop_privileges(61001, 61001)
        self.group = [service.open_socket("udp", ADDRESS["ipv4"], PORT, reuseport=True) for _ in range(2)]

    def choose(self, number):
        """A program of one instruction, BPF_RET | BPF_K."""
        code = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, number))
        program = struct.pack("@HP", 1, ctypes.addressof(code))
        self.group[0].setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, program)

    def received(self):
        counts = [0, 0]
        for number, sock in enumerate(self.group):
            with contextlib.suppress(BlockingIOError):
                while sock.recv(9):
                    counts[number] += 1
        return counts


def test_s16_a_bpf_program_of_the_service_chooses_within_its_group_without_a_privilege():
    """With ReusePort=yes the broker leaves the choice to it."""
    add_routes()
    group = worker.Worker(_Group)
    try:
        for chosen in (1, 0):
            group.choose(chosen)
            for _ in range(50):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                    sock.sendto(b"x", (ADDRESS["ipv4"], PORT))
            assert group.received()[chosen] == 50
    finally:
        group.kill()


# Other programs at the hook, and what never comes to it.

def test_s16_dispatch_is_one_of_64_programs_of_a_namespace(broker, spawn, neighbours):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    handed_over(spawn("web"), "tcp", "ipv4")
    for _ in range(63):
        neighbours.attach("other_pass")
    with pytest.raises(OSError) as caught:
        neighbours.attach("other_pass")
    assert caught.value.errno == errno.E2BIG
    assert who("tcp", "ipv4") == "web"


def test_s16_multicast_and_broadcast_never_come_to_dispatch(broker, spawn, remote):
    broker.policy(section("web", 61001, listen("udp", "0.0.0.0/0"))).start()
    handed_over(spawn("web"), "udp", "ipv4", dual=True, address="127.0.0.1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        plain.bind(("0.0.0.0", PORT + 1))
        plain.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP,
                         socket.inet_aton("239.1.2.3") + socket.inet_aton(namespace.HOST4))
        plain.settimeout(client.TIMEOUT)
        with there(remote, "s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)\n"
                           f"for p in {PORT}, {PORT + 1}:\n for a in '239.1.2.3', '10.9.0.255':\n"
                           "  s.sendto(b'x', (a, p))"):
            assert plain.recv(9) + plain.recv(9) == b"xx", "both are let in"
    assert remote.ask("udp", namespace.HOST4, PORT).name == "web"
    assert broker.status()[1]["web"]["assigned"] == 1
