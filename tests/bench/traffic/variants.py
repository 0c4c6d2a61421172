# SPDX-License-Identifier: LGPL-2.1-or-later
"""The ways by which packets for a whole prefix find one socket. Each is set up in the caller's namespaces.

A name is the way, and, where it has them, the number of bindings: "ours 65536".
"""

import os
import subprocess

from traffic import loops
from harness import broker, namespace, units

MANY = 65536
ALL = ["bind", "bind-exact", "tproxy", "tproxy-marked", "floor", "two-lpm 1",
       f"two-lpm {MANY}", "ours 1", f"ours {MANY}"]
UID = 61001


def base(name):
    return name.split()[0]


class Variant:
    """`bound`: where the server binds its socket; `decoy`: where a socket is bound that must get nothing."""

    transparent = False

    def __init__(self, protocol, family, bindings):
        self.protocol, self.family, self.bindings = protocol, family, bindings
        self.loopback = "127.0.0.1" if family == 4 else "::1"
        self.any = "0.0.0.0" if family == 4 else "::"
        self.bound, self.decoy = self.loopback, self.any

    def start(self, sock):
        """The socket is open; from the return on it gets the traffic."""

    def end(self):
        """What would outlive the namespaces."""


class Bind(Variant):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.bound, self.decoy = self.any, self.loopback


class BindExact(Variant):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.bound = "10.77.77.77" if self.family == 4 else "fd77::4d4d"


class Tproxy(Variant):
    """The shortest rule there is: no mark and no policy routing, which the local route makes unnecessary."""

    transparent = True
    verdict = ""

    def start(self, sock):
        ip, to, bits = ("ip", self.loopback, 16) if self.family == 4 else ("ip6", f"[{self.loopback}]", 112)
        namespace.run("nft", "-f", "-", text=f"""
table {ip} bench {{
        chain divert {{
                type filter hook prerouting priority mangle; policy accept;
                {ip} daddr {loops.PREFIX[self.family]}/{bits} {self.protocol} dport {loops.PORT} \\
                        tproxy to {to}:{loops.PORT} {self.verdict}
        }}
}}
""")


class TproxyMarked(Tproxy):
    """As Documentation/networking/tproxy.rst has it: the addresses are not local, a mark leads the packet in."""

    verdict = "meta mark set 1 accept"

    def start(self, sock):
        option, prefix, everything = ("-4", "10.77.0.0/16", "0.0.0.0/0") if self.family == 4 else (
            "-6", "fd77::/112", "::/0")
        namespace.run("ip", option, "route", "del", "local", prefix, "dev", "lo")
        namespace.run("ip", option, "rule", "add", "fwmark", "1", "lookup", "100")
        namespace.run("ip", option, "route", "add", "local", everything, "dev", "lo", "table", "100")
        super().start(sock)


class Baseline(Variant):
    """A program of baselines.bpf.c."""

    program = ""

    def start(self, sock):
        command = [str(broker.BUILD / "tests/bench/traffic/attach_baseline"), self.program, self.protocol,
                   loops.PREFIX[self.family], str(self.bindings), str(sock.fileno())]
        # Ends with its standard input, hence with us.
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        pass_fds=[sock.fileno()])
        if self.process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"{' '.join(command)} ended with {self.process.wait()}")

    def end(self):
        self.process.stdin.close()
        self.process.wait()


class Floor(Baseline):
    program = "floor"


class TwoLpm(Baseline):
    program = "two-lpm"


def hosts(family, count):
    """The first addresses of PREFIX."""
    if family == 4:
        return [f"10.77.{i >> 8}.{i & 255}/32" for i in range(count)]
    return [f"[fd77::{i:x}]/128" for i in range(count)]


class Ours(Variant):
    """The real broker with a real policy; the socket is handed over by an ordinary user."""

    who, lines = f"User={UID}", ""

    def start(self, sock):
        self.broker = broker.Broker()
        key = "ListenStream" if self.protocol == "tcp" else "ListenDatagram"
        prefixes = hosts(self.family, MANY) if self.bindings == MANY else [
            "10.77.0.0/16" if self.family == 4 else "[fd77::]/112"]
        text = "".join(f"{key}={prefix}:{loops.PORT}\n" for prefix in prefixes)
        self.broker.policy(f"[Service bench]\n{self.who}\n{self.lines}{text}").start()
        os.setresuid(UID, UID, 0)  # SCM_CREDENTIALS tells the real uid
        try:
            reply = self.broker.ask("FDSTORE=1\nFDNAME=bench", [sock.fileno()])
        finally:
            os.setresuid(0, 0, 0)
        if reply.result != "ok":
            raise RuntimeError(f"the broker refused the socket: {dict(reply)}")

    def lookups(self):
        return self.broker.status()[1]["bench"]["lookups"]

    def end(self):
        self.broker.discard()


class Unit(Ours):
    """Of a unit, for programs in its cgroup; the socket is bound to an address from which answers can leave."""

    who = "Unit=bench.service"

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.bound = "10.77.77.77" if self.family == 4 else "fd77::4d4d"
        self.slice = units.Slice()
        (self.slice.unit("bench.service") / "cgroup.procs").write_text("0")

    def end(self):
        super().end()
        (units.root() / "cgroup.procs").write_text("0")
        self.slice.end()


class Stay(Unit):
    lines = "UdpFlows=stay\n"


class Reply(Unit):
    lines = "UdpReply=original\n"


_CLASSES = {"bind": Bind, "bind-exact": BindExact, "tproxy": Tproxy,
            "tproxy-marked": TproxyMarked, "floor": Floor, "two-lpm": TwoLpm, "ours": Ours, "unit": Unit,
            "stay": Stay, "reply": Reply}


def make(name, protocol, family):
    kind, _, bindings = name.partition(" ")
    return _CLASSES[kind](protocol, family, int(bindings or 1))
