# SPDX-License-Identifier: LGPL-2.1-or-later
"""Row S16 of the talk: what docs/alternatives.md says of bind(2), SO_BINDTODEVICE, VRF, macvlan and namespaces,
each claim shown with the kernel's own means. Redirection, proxies and BPF: test_s16_redirection.py."""

import errno
import pathlib
import re
import socket

import pytest

from harness import client, hosts, kernel, namespace, worker
from words import ADDRESS, PORT, PREFIXES, add_routes, each_family, each_protocol, handed_over, listen, open_socket
from words import section, who

OTHER = {"ipv4": "192.0.2.8", "ipv6": "2001:db8::8"}
ANY = {"ipv4": "0.0.0.0", "ipv6": "::"}
IP_TTL, IP_RECVTTL = 2, 12


def bound(protocol, address, port=PORT, device=None, freebind=True):
    """A plain socket of the test, listening if it can. SO_REUSEADDR, as every server sets for TCP."""
    family = client.family_of(address)
    sock = socket.socket(family, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM)
    try:
        if protocol == "tcp":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, kernel.IPV6_FREEBIND, int(freebind))
        if device:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        sock.bind((address, port))
        if protocol == "tcp":
            sock.listen()
        return sock
    except OSError:
        sock.close()
        raise


def taken(*arguments, **named):
    """The port is another's."""
    with pytest.raises(OSError) as caught:
        bound(*arguments, **named).close()
    return caught.value.errno == errno.EADDRINUSE


@pytest.fixture(name="outside")
def _outside(netns):  # pylint: disable=unused-argument
    """Hosts behind interfaces of their own."""
    made = hosts.Hosts()
    yield made
    made.kill()


class _Moved(worker.Child):
    """A process in a network namespace of its own, which opens sockets there."""

    def __init__(self):
        super().__init__()
        kernel.unshare(kernel.CLONE_NEWNET)
        namespace.run("ip", "link", "set", "lo", "up")
        self.sock = None

    def configure(self, *commands):
        for command in commands:
            namespace.run(*command.split())

    def open(self, protocol, address):
        self.sock = bound(protocol, address)

    def hop_limit(self):
        return hop_limit(self.sock)


@pytest.fixture(name="moved")
def _moved(netns):  # pylint: disable=unused-argument
    process = worker.Worker(_Moved)
    yield process
    process.kill()


def hop_limit(sock):
    """The TTL with which the next datagram arrives."""
    sock.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
    sock.settimeout(client.TIMEOUT)
    _, control, _, _ = sock.recvmsg(100, 256)
    [data] = [data for _, kind, data in control if kind == IP_TTL]
    return int.from_bytes(data[:4], "little")


def send(host, protocol, address):
    """From a host: a byte, by a connection or as a datagram, and no wait for an answer."""
    kind = "SOCK_STREAM" if protocol == "tcp" else "SOCK_DGRAM"
    namespace.run("nsenter", "--net", f"--target={host.pid}", "/usr/bin/python3", "-c", "import socket\n"
                  f"s = socket.socket(socket.{client.family_of(address).name}, socket.{kind})\n"
                  f"s.settimeout({client.TIMEOUT})\ns.connect(('{address}', {PORT}))\ns.send(b'x')\n")


def test_s16_the_page_names_each_of_these_tests_and_none_that_is_not_there():
    tests = pathlib.Path(__file__).resolve().parent
    named = set(re.findall(r"`(test_s\w+)`", (tests.parents[1] / "docs/alternatives.md").read_text()))
    text = "".join(path.read_text() for path in tests.glob("test_*.py"))
    there = set(re.findall(r"^def (test_\w+)\(", text, re.M))
    assert named <= there
    assert {name for name in there - named if name.startswith("test_s16_")} == {
        "test_s16_the_page_names_each_of_these_tests_and_none_that_is_not_there"}


# Addresses on an interface, AnyIP, bind(2).

@each_protocol
@each_family
def test_s16_a_wildcard_bind_takes_the_port_for_all_prefixes(protocol, family):
    add_routes()
    with bound(protocol, ANY[family]):
        assert taken(protocol, ADDRESS[family]) and taken(protocol, ANY[family])


@each_protocol
@each_family
def test_s16_one_bind_serves_one_address_and_one_port(spawn, protocol, family):
    """So a prefix is a socket for each address, and a range one for each port."""
    add_routes()
    open_socket(spawn("one"), protocol, family, address=ADDRESS[family], port=PORT, freebind=True)
    assert client.ask(protocol, ADDRESS[family], PORT).name == "one"
    for address, port in ((OTHER[family], PORT), (ADDRESS[family], PORT + 1)):
        with pytest.raises(ConnectionRefusedError):
            client.ask(protocol, address, port)


def test_s16_an_anyip_route_lets_ipv4_bind_and_ipv6_with_freebind_only():
    add_routes()
    bound("tcp", ADDRESS["ipv4"]).close()
    bound("tcp", ADDRESS["ipv6"]).close()
    with pytest.raises(OSError) as caught:
        bound("tcp", ADDRESS["ipv6"], freebind=False)
    assert caught.value.errno == errno.EADDRNOTAVAIL


@each_protocol
@each_family
def test_s16_the_broker_shares_one_port_of_all_addresses_out_where_bind_cannot(broker, spawn, protocol, family):
    """The contrast: a service on a prefix beside one on all addresses, without a wildcard bind."""
    add_routes()
    everything = "0.0.0.0/0" if family == "ipv4" else "::/0"
    broker.policy(section("all", 61001, listen(protocol, everything)) +
                  section("some", 61002, listen(protocol, PREFIXES[family]))).start()
    for name, uid, loopback in (("all", 61001, "127.0.0.2"), ("some", 61002, "127.0.0.3")):
        own = {"address": loopback, "dual": True} if family == "ipv6" else {"address": loopback}
        handed_over(spawn(name, uid), protocol, family, **own)
    assert who(protocol, family) == "some"
    namespace.add_local_routes("198.51.100.0/24", "2001:db8:1::/64")
    assert client.ask(protocol, "198.51.100.7" if family == "ipv4" else "2001:db8:1::7", PORT).name == "all"


def test_s16_a_port_that_everybody_may_bind_is_a_port_of_every_address(spawn):
    """ip_unprivileged_port_start, and CAP_NET_BIND_SERVICE alike: nothing says whose an address is."""
    add_routes()
    web, thief = spawn("web"), spawn("thief", 61666)
    with pytest.raises(PermissionError):
        web.open("before", "tcp", ADDRESS["ipv4"], 80)
    namespace.sysctl("net/ipv4/ip_unprivileged_port_start", 80)
    thief.open("its", "tcp", ADDRESS["ipv4"], 80)
    with pytest.raises(OSError) as caught:
        web.open("late", "tcp", ADDRESS["ipv4"], 80)
    assert caught.value.errno == errno.EADDRINUSE
    assert client.tcp_ask(ADDRESS["ipv4"], 80).name == "thief"


# SO_BINDTODEVICE, VRF.

@each_protocol
@each_family
def test_s16_a_device_tells_interfaces_apart_and_not_prefixes(outside, protocol, family):
    """Two sockets, one port: the interface decides. Of one interface all prefixes are the first one's."""
    add_routes()
    near, far = outside.add("near"), outside.add("far")
    with bound(protocol, ANY[family], device="near") as one, bound(protocol, ANY[family], device="far") as other:
        assert taken(protocol, ANY[family], device="near") and taken(protocol, ADDRESS[family], device="near")
        for host, sock in ((near, one), (far, other)):
            sock.settimeout(client.TIMEOUT)
            for address in ADDRESS[family], OTHER[family]:
                assert reached(host, protocol, address, sock) == address


def reached(host, protocol, address, sock):
    """The address that the socket's next client has asked; who sends is the host."""
    if protocol == "udp":
        level, option = (socket.IPPROTO_IP, kernel.IP_PKTINFO) if ":" not in address else (
            socket.IPPROTO_IPV6, kernel.IPV6_RECVPKTINFO)
        sock.setsockopt(level, option, 1)
    send(host, protocol, address)
    if protocol == "tcp":
        with sock.accept()[0] as connection:
            return connection.getsockname()[0]
    _, control, _, _ = sock.recvmsg(100, 100)
    data = control[0][2]
    return socket.inet_ntoa(data[8:12]) if ":" not in address else socket.inet_ntop(socket.AF_INET6, data[:16])


def test_s16_a_vrf_has_sockets_and_routes_of_its_own(outside):
    """What is not bound to it does not hear of its packets; what is finds only what its table leads to."""
    try:
        namespace.run("ip", "link", "add", "blue", "type", "vrf", "table", "10")
    except RuntimeError as error:
        pytest.skip(f"this kernel has no VRF: {error}")
    namespace.run("ip", "link", "set", "blue", "up")
    host = outside.add("inside")
    namespace.run("ip", "link", "set", "inside", "master", "blue")
    namespace.run("ip", "route", "add", "local", PREFIXES["ipv4"], "dev", "blue", "table", "10")
    add_routes()  # whether the source of an answer is local is asked of table local, not of the VRF's
    with bound("tcp", "0.0.0.0"):
        with pytest.raises(OSError):  # not even a RST finds its way, which no socket binds to the VRF
            host.ask("tcp", ADDRESS["ipv4"], PORT)
        with bound("tcp", "0.0.0.0", device="blue") as sock:
            sock.settimeout(client.TIMEOUT)
            assert reached(host, "tcp", ADDRESS["ipv4"], sock) == ADDRESS["ipv4"]
    # Whoever is not in the VRF has no way to the network behind it.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        with pytest.raises(OSError) as caught:
            sock.connect(("10.9.1.2", 9))
        assert caught.value.errno == errno.ENETUNREACH
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"blue")
        sock.connect(("10.9.1.2", 9))


# macvlan.

def test_s16_macvlan_is_a_machine_of_its_own_that_the_host_does_not_reach(remote, moved):
    """The same address: another host connects, the host that carries it does not, though it is one hop away."""
    namespace.run("ip", "link", "add", "mv", "link", "host", "type", "macvlan", "mode", "bridge")
    namespace.run("ip", "link", "set", "mv", "netns", str(moved.pid))
    moved.configure("ip addr add 10.9.0.7/24 dev mv", "ip link set mv up")
    moved.open("tcp", "10.9.0.7")
    send(remote, "tcp", "10.9.0.7")
    macs = namespace.run("nsenter", "--net", f"--target={remote.pid}", "ip", "neigh")
    of = {line.split()[0]: line.split()[4] for line in macs.splitlines() if "lladdr" in line}
    assert "10.9.0.7" in of and of["10.9.0.7"] != host_mac("host"), "a MAC for each, which a switch has to learn"
    with pytest.raises(OSError) as caught:
        socket.create_connection(("10.9.0.7", PORT), client.TIMEOUT).close()
    assert caught.value.errno == errno.EHOSTUNREACH


def host_mac(interface):
    return re.search(r"link/ether (\S+)", namespace.run("ip", "link", "show", interface))[1]


# Namespaces.

def test_s16_a_namespace_behind_a_veth_is_one_hop_more_and_the_broker_none(broker, spawn, remote, moved):
    namespace.run("ip", "link", "add", "in", "type", "veth", "peer", "name", "out", "netns", str(moved.pid))
    namespace.run("ip", "addr", "add", "10.8.0.1/24", "dev", "in")
    namespace.run("ip", "link", "set", "in", "up")
    namespace.sysctl("net/ipv4/ip_forward", 1)
    moved.configure("ip addr add 10.8.0.2/24 dev out", "ip link set out up", "ip route add default via 10.8.0.1")
    moved.open("udp", "10.8.0.2")
    send(remote, "udp", "10.8.0.2")
    assert moved.hop_limit() == 63

    namespace.add_local_routes(PREFIXES["ipv4"])
    broker.policy(section("web", 61001, listen("udp", PREFIXES["ipv4"]))).start()
    web = spawn("web")
    handed_over(web, "udp", "ipv4")
    web.pause("udp-ipv4")
    send(remote, "udp", ADDRESS["ipv4"])
    with web.borrowed("udp-ipv4") as sock:
        assert hop_limit(sock) == 64
