# SPDX-License-Identifier: LGPL-2.1-or-later
"""Clients on hosts of their own, each behind an interface of its own of the caller's namespace, with any addresses.

A packet of such a host comes in by that interface, from that address: what Source= and Interface= look at.
"""

from harness import client, kernel, namespace, worker


class _Host(client.Client):
    def __init__(self):
        super().__init__(local=False)
        kernel.unshare(kernel.CLONE_NEWNET)
        namespace.run("ip", "link", "set", "lo", "up")

    def configure(self, number, addresses):
        """Interface `outside` with the addresses; everything else is behind the caller's namespace."""
        own = (f"10.9.{number}.2/24", f"fd09:{number}::2/64", *addresses)
        lines = "".join(f"addr add {address} dev outside{' nodad' if ':' in address else ''}\n" for address in own)
        namespace.run("ip", "-batch", "-", text=f"{lines}link set outside up\n"
                                                f"route add default via 10.9.{number}.1\n")
        namespace.run("ip", "-6", "route", "add", "default", "via", f"fd09:{number}::1")

    def ask_from(self, source, protocol, address, port):
        """Name of the service that answers a question from this address."""
        return client.ask(protocol, address, port, source=source).name


class Hosts:
    """Made one by one; kill() ends them all. Their interfaces here go with them."""

    def __init__(self):
        self._made = []

    def add(self, interface, *addresses):
        """A host behind `interface`, which is made; it asks from these addresses. Returns its Worker."""
        host = worker.Worker(_Host)
        self._made.append(host)
        number = len(self._made)
        namespace.run("ip", "link", "add", interface, "type", "veth", "peer", "name", "outside", "netns", str(host.pid))
        routes = "".join(f"route add {address} dev {interface}\n" for address in addresses)
        namespace.run("ip", "-batch", "-", text=f"addr add 10.9.{number}.1/24 dev {interface}\n"
                                                f"addr add fd09:{number}::1/64 dev {interface} nodad\n"
                                                f"link set {interface} up\n{routes}")
        for name in ("all", interface):
            namespace.sysctl(f"net/ipv4/conf/{name}/rp_filter", 0)
        host.configure(number, addresses)
        return host

    def kill(self):
        for host in self._made:
            host.kill()
