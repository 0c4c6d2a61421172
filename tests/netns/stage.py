# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where rows of docs/reliability.md are played: a broker, a service `web` whose instances take turns, one that stays as
it is, and clients on the same host and on another one."""

from harness import namespace
from harness.load import Load
from harness.reliability import CONNECTIONS, Traffic, nothing_lost
from words import ADDRESS, LOOPBACK, PORT, add_routes, everywhere, listen, section

GROUP = 7100  # TCP listeners of all instances, one SO_REUSEPORT group
OTHER = section("other", 61002, listen("tcp", "198.51.100.0/24"), listen("udp", "198.51.100.0/24"))
WEB = section("web", 61001, everywhere())
TARGETS = [(protocol, address, PORT, "web") for protocol in ("tcp", "udp") for address in ADDRESS.values()] + [
    (protocol, "198.51.100.9", PORT, "other") for protocol in ("tcp", "udp")]


class Stage:
    """A broker, a service `web` whose instances take turns, and one that stays as it is."""

    def __init__(self, broker, spawn, remote, web=WEB):
        add_routes()
        namespace.add_local_routes("198.51.100.0/24")
        self.broker, self.spawn, self.remote = broker, spawn, remote
        self.number = 0
        broker.policy(web + OTHER).start()
        other = spawn("other", 61002)
        other.for_load()
        for protocol in ("tcp", "udp"):
            other.open(protocol, protocol, "127.0.0.2", PORT)
        assert other.register(*other.labels()).result == "ok"
        self.now = self.instance()

    def new(self):
        self.number += 1
        one = self.spawn(f"web-{self.number}")
        one.for_load()
        return one

    def instance(self):
        """The next instance of web, with sockets of its own, which are handed over in one message, and with the
        migration program."""
        one = self.new()
        for family, address in LOOPBACK.items():
            one.open(f"tcp-{family}", "tcp", address, GROUP, reuseport=True)
            one.open(f"udp-{family}", "udp", address, PORT, reuseport=True)
        assert one.register_migrating(*one.labels(), service="web")[0].result == "ok"
        return one

    def traffic(self, targets=None, **options):
        """Of a client on the same host, and of another one."""
        return Traffic(Load(targets or TARGETS, **options), Load(targets or TARGETS, self.remote.pid, **options))

    def during(self, row, event, times, act):
        """The event again and again, connections and queries all the while: none fails."""
        with self.traffic() as traffic:
            traffic.more(50)
            for _ in range(times):
                act(traffic)
                traffic.more(CONNECTIONS // times)
            nothing_lost(row, event, traffic.end(), times)
