# SPDX-License-Identifier: LGPL-2.1-or-later
"""A server and a client host, each a process in namespaces of its own, joined by a veth pair.

The server takes all of one /16 (IPv6: /112) as local; a variant (variants.py) makes the kernel find the server's one
socket for it. With veth the receiving half of the network stack runs on the sender's processor, so the client is
kept on the first processor and the reader on the last one.
"""

import collections
import json
import os
import socket
import struct
import time

from traffic import loops, variants
from harness import kernel, namespace, worker

SOURCES = {4: [f"10.9.0.{2 + i}" for i in range(8)], 6: [f"fd09::{2 + i:x}" for i in range(8)]}
RECEIVE_BUFFER = 64 << 20
_SO_MEMINFO, _DROPS = 55, 8  # include/uapi/asm-generic/socket.h, SK_MEMINFO_DROPS of linux/sock_diag.h


def pin(which):
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[which]})


def hardware_address(device):
    return json.loads(namespace.run("ip", "-j", "link", "show", "dev", device))[0]["address"]


def know(device, addresses, mac):
    namespace.run("ip", "-batch", "-", text="".join(
        f"neigh replace {address} lladdr {mac} dev {device} nud permanent\n" for address in addresses))


class _Server(worker.Child):
    def __init__(self, name, protocol, family, decoy):
        super().__init__()
        namespace.enter()
        self.protocol = protocol
        self.variant = variants.make(name, protocol, family)
        bits = "/16" if family == 4 else "/112"
        namespace.add_local_routes(loops.PREFIX[family] + bits)
        self.decoy = self._open(family, self.variant.decoy, True) if decoy else None
        self.socket = self._open(family, self.variant.bound, decoy)
        self.variant.start(self.socket)

    def _open(self, family, address, shared):
        sock = socket.socket(loops.family_number(family),
                             socket.SOCK_STREAM if self.protocol == "tcp" else socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if self.variant.transparent:
            sock.setsockopt(*((socket.IPPROTO_IP, kernel.IP_TRANSPARENT) if family == 4 else
                              (socket.IPPROTO_IPV6, kernel.IPV6_TRANSPARENT)), 1)
        if family == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, kernel.IPV6_FREEBIND, 1)  # IPv4's local route suffices for bind(2)
        sock.bind((address, loops.PORT))
        if self.protocol == "tcp":
            sock.listen(4096)
        else:
            sock.setsockopt(socket.SOL_SOCKET, 33, RECEIVE_BUFFER)  # SO_RCVBUFFORCE
        return sock

    def join(self, pid):
        """A veth pair to the namespace of the process; returns the hardware address of our end."""
        namespace.run("ip", "link", "add", "host", "type", "veth", "peer", "name", "remote", "netns", str(pid))
        namespace.run("ip", "-batch", "-", text="addr add 10.9.0.1/24 dev host\naddr add fd09::1/64 dev host nodad\n"
                                                "link set host up\nroute add 198.18.0.0/15 via 10.9.0.2\n"
                                                f"route add {loops.CLIENTS[6]}/112 via fd09::2\n")
        for name in ("all", "host"):
            namespace.sysctl(f"net/ipv4/conf/{name}/rp_filter", 0)
        return hardware_address("host")

    def know(self, mac):
        """Neighbours by heart, so that no first packet waits for their resolution."""
        know("host", SOURCES[4] + SOURCES[6], mac)

    def pin(self, which):
        pin(which)

    def sysctl(self, name, value):
        namespace.sysctl(name, value)

    def begin(self, echo=False):
        self.receiver = loops.Receiver(self.protocol, self.socket.fileno(), echo)

    def finish(self):
        """What the socket got since begin(); nothing more is on its way."""
        return self.receiver.finish()

    def references(self):
        """Of the listener, as /proc/net/tcp tells it: the column behind the inode."""
        inode = str(os.fstat(self.socket.fileno()).st_ino)
        with open("/proc/thread-self/net/tcp", encoding="ascii") as file:
            for line in file:
                fields = line.split()
                if fields[9] == inode:
                    return int(fields[10])
        raise RuntimeError("the listener is not in /proc/net/tcp")

    def watch_references(self, seconds):
        """{number of references: how often it was seen}"""
        seen = collections.Counter()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            seen[self.references()] += 1
        return dict(seen)

    def lookups(self):
        """Decided by the program, as the broker tells it; only of "ours"."""
        return self.variant.lookups()

    def dropped(self):
        """Datagrams that found the socket but no room in its buffer, ever."""
        return struct.unpack("9I", self.socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36))[_DROPS]

    def astray(self):
        """What the decoy got that is bound where traffic goes when dispatch does not work."""
        self.decoy.setblocking(False)
        count = 0
        while True:
            try:
                if self.protocol == "tcp":
                    self.decoy.accept()[0].close()
                else:
                    self.decoy.recv(16)
            except BlockingIOError:
                return count
            count += 1

    def counters(self):
        """TCP and IP counters of the namespace, from /proc/net/netstat and /proc/net/snmp, as TcpExt.ListenDrops."""
        result = {}
        for path in ("/proc/thread-self/net/netstat", "/proc/thread-self/net/snmp"):
            with open(path, encoding="ascii") as file:
                lines = [line.split() for line in file]
            for names, values in zip(lines[::2], lines[1::2]):
                result |= {f"{names[0].rstrip(':')}.{name}": int(value) for name, value in zip(names[1:], values[1:])}
        return result

    def end(self):
        self.variant.end()


class _Client(worker.Child):
    def __init__(self, family, one, seed, beside=None, clients=0):
        super().__init__()
        if beside is None:
            kernel.unshare(kernel.CLONE_NEWNET)
        else:
            with open(f"/proc/{beside}/ns/net", encoding="ascii") as file:
                kernel.setns(file.fileno(), kernel.CLONE_NEWNET)
        self.family = family
        self.targets = loops.Targets(family, seed, one, clients)
        self.clients = clients
        self.socket = None
        self.seed = seed
        self.macs = b""

    def configure(self, server_mac):
        """Returns its own hardware address."""
        namespace.run("ip", "link", "set", "lo", "up")
        addresses = [f"addr add {a}/24 dev remote\n" for a in SOURCES[4]]
        addresses += [f"addr add {a}/64 dev remote nodad\n" for a in SOURCES[6]]
        namespace.run("ip", "-batch", "-", text="".join(addresses) + "link set remote up\n"
                                                                     "route add default via 10.9.0.1\n")
        namespace.run("ip", "-6", "route", "add", "default", "via", "fd09::1")
        if self.clients:
            namespace.add_local_routes(loops.CLIENTS[4] + "/16", loops.CLIENTS[6] + "/112")
        know("remote", ["10.9.0.1", "fd09::1"], server_mac)
        return hardware_address("remote")

    def prepare_flood(self, server_mac):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # protocol 0: receives nothing
        self.socket.setsockopt(263, 20, 1)  # SOL_PACKET, PACKET_QDISC_BYPASS
        self.socket.bind(("remote", 0))
        mine = self.socket.getsockname()[4]
        self.macs = bytes.fromhex(server_mac.replace(":", "")) + mine

    def pin(self, which):
        pin(which)

    def udp(self, seconds, most=0):
        if self.socket is None:
            self.socket = socket.socket(loops.family_number(self.family), socket.SOCK_DGRAM)
            if self.clients and self.family == 6:  # a local route does not make an address a source there
                self.socket.setsockopt(socket.IPPROTO_IPV6, kernel.IPV6_FREEBIND, 1)
        return loops.udp_send(self.socket.fileno(), self.targets, seconds, most)

    def tcp(self, seconds, most=0, window=64):
        return loops.tcp_connect(self.family, self.targets, SOURCES[self.family], seconds, window, most)

    def flood(self, seconds):
        self.seed += 1
        return loops.syn_flood(self.socket.fileno(), self.macs, self.targets, self.seed, seconds)


class Call:
    """A call of a worker that goes on while others are made."""

    def __init__(self, host, method, *arguments, **named):
        self._host, self._method = host, method
        host.connection.send((method, arguments, named))

    def result(self, timeout=30):
        return self._host._result(self._method, timeout)  # pylint: disable=protected-access


class Pair:
    """Both hosts of one variant, for a with statement. `clients`: the datagrams are questions of as many, each to an
    address of its own, and the server answers."""

    def __init__(self, name, protocol, family, decoy=False, flooders=0, clients=0):
        self.name, self.protocol = name, protocol
        one = variants.base(name) == "bind-exact"
        self.hosts = []
        self.echo = clients > 0
        try:
            self.server = self._host(_Server, name, protocol, family, decoy)
            self.client = self._host(_Client, family, one, 1, None, clients)
            self.mac = self.server.join(self.client.pid)
            self.server.know(self.client.configure(self.mac))
            self.flooders = [self._host(_Client, family, one, 100 + i, self.client.pid) for i in range(flooders)]
            for i, flooder in enumerate(self.flooders):
                flooder.prepare_flood(self.mac)
                flooder.pin(0 if i % 2 == 0 else -1)
            if not flooders:
                self.client.pin(0)
                self.server.pin(-1)
        except BaseException:
            self.close()
            raise

    def _host(self, *what):
        self.hosts.append(worker.Worker(*what))
        return self.hosts[-1]

    def traffic(self, seconds, most=0):
        """One slice: (what the client sent, what the server's socket got)."""
        self.server.begin(self.echo)
        sent = self.client.udp(seconds, most) if self.protocol == "udp" else self.client.tcp(seconds, most)
        return sent, self.server.finish()

    def close(self):
        if self.hosts and self.hosts[0].alive:
            try:
                self.hosts[0].end()
            except Exception:  # pylint: disable=broad-except
                pass
        for host in reversed(self.hosts):
            host.kill()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
