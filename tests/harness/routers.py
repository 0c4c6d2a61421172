# SPDX-License-Identifier: LGPL-2.1-or-later
"""Routing daemons as an operator has them: one beside the broker, which learns what it announces, and one on the router
behind, which hears of it by BGP and installs it. What stands in the router's kernel is what counts."""

import os
import pathlib
import signal
import subprocess
import tempfile

from harness import namespace
from harness.namespace import HOST4, HOST6, REMOTE4
from harness.until import until

PLACE = pathlib.Path("/run/routers")

BIRD_EDGE = f"""
router id {HOST4};
ipv4 table anycast4;
ipv6 table anycast6;
protocol device {{ }}
protocol kernel {{
        ipv4 {{ table anycast4; import where krt_source = 83; export none; }};
        kernel table 153;
        learn;
}}
protocol kernel {{
        ipv6 {{ table anycast6; import where krt_source = 83; export none; }};
        kernel table 153;
        learn;
}}
protocol bgp upstream {{
        local {HOST4} as 65001;
        neighbor {REMOTE4} as 65002;
        connect delay time 1;
        ipv4 {{ table anycast4; import none; export all; next hop self; }};
        ipv6 {{ table anycast6; import none; export all; next hop address {HOST6}; }};
}}
"""

BIRD_ROUTER = f"""
router id {REMOTE4};
protocol device {{ }}
protocol kernel {{ ipv4 {{ export where source = RTS_BGP; }}; }}
protocol kernel {{ ipv6 {{ export where source = RTS_BGP; }}; }}
protocol bgp edge {{
        local {REMOTE4} as 65002;
        neighbor {HOST4} as 65001;
        connect delay time 1;
        ipv4 {{ import all; export none; }};
        ipv6 {{ import all; export none; }};
}}
"""

# FRR 8.4 imports a table of IPv4 alone, see docs/anycast.md.
FRR_EDGE = f"""
ip import-table 153
router bgp 65001
 bgp router-id {HOST4}
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 timers bgp 1 3
 neighbor {REMOTE4} remote-as 65002
 neighbor {REMOTE4} advertisement-interval 0
 address-family ipv4 unicast
  redistribute table 153
  neighbor {REMOTE4} activate
 exit-address-family
"""


def _in_namespace(pid, *command):
    return ["nsenter", f"--net=/proc/{pid}/ns/net", *command]


class Bird:
    def __init__(self, name, text, pid):
        PLACE.mkdir(exist_ok=True)
        conf = PLACE / f"{name}.conf"
        conf.write_text(text)
        self.control = str(PLACE / f"{name}.ctl")
        self.process = subprocess.Popen(_in_namespace(pid, "bird", "-f", "-c", str(conf), "-s", self.control, "-P",
                                                      str(PLACE / f"{name}.pid")), stdin=subprocess.DEVNULL)

    def shows(self, *words):
        return subprocess.run(["birdc", "-s", self.control, "show", *words], capture_output=True, text=True,
                              check=False).stdout

    def end(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)


class Frr:
    """zebra and bgpd, each in the foreground."""

    def __init__(self, name, text, pid):
        PLACE.mkdir(exist_ok=True)
        os.chmod(PLACE, 0o777)
        conf = PLACE / f"{name}.conf"
        conf.write_text(text)
        os.chmod(conf, 0o644)
        self.processes = []
        self.zebra = f"{PLACE}/{name}.zserv"
        for daemon in ("zebra", "bgpd"):
            self.processes.append(subprocess.Popen(_in_namespace(
                pid, f"/usr/lib/frr/{daemon}", "-f", str(conf), "-z", self.zebra, "-i", f"{PLACE}/{name}-{daemon}.pid",
                "--vty_socket", str(PLACE), "-A", "127.0.0.1", "-P", "0"),
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL))

    def end(self):
        for process in self.processes:
            process.send_signal(signal.SIGKILL)
            process.wait(10)


class Withdrawals:
    """Which prefixes a kernel loses from now on, however briefly; `pid` is in its network namespace."""

    MARK = "198.18.255.255"  # of a route that means nothing: once it is told of, all before it has been

    def __init__(self, pid):
        self.pid = pid
        self.told = tempfile.TemporaryFile("w+")
        self.text = ""
        self.process = subprocess.Popen(_in_namespace(pid, "ip", "monitor", "route"), stdin=subprocess.DEVNULL,
                                        stdout=self.told)
        until("it watches", self._marked)

    def _marked(self):
        for what in "add", "del":
            namespace.run(*_in_namespace(self.pid, "ip", "route", what, "blackhole", self.MARK))
        self.told.seek(len(self.text))
        new = self.told.read()
        self.text += new
        return self.MARK in new

    def end(self):
        begun = len(self.text)
        until("it has told all", self._marked)
        self.process.kill()
        self.process.wait(10)
        words = [line.split() for line in self.text[begun:].splitlines() if line.startswith("Deleted ")]
        return {word for line in words for word in line[1:3] if "/" in word}


class Router:
    """What the router's kernel has, by the namespace of its process."""

    def __init__(self, pid):
        self.pid = pid

    def has(self, *prefixes):
        """Whether all of them have a route."""
        return all(self._shown(prefix) for prefix in prefixes)

    def lacks(self, *prefixes):
        return not any(self._shown(prefix) for prefix in prefixes)

    def _shown(self, prefix):
        family = "-6" if ":" in prefix else "-4"
        return namespace.run(*_in_namespace(self.pid, "ip", family, "route", "show", "exact", prefix)) != ""
