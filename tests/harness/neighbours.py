# SPDX-License-Identifier: LGPL-2.1-or-later
"""Loads tests/netns/neighbours.bpf.c: other people's sk_lookup, TC and XDP programs beside the broker's."""

import ctypes
import json
import os

from harness import broker, kernel
from harness.namespace import run

PORT = 7000  # kPort of the program
_BPF_SK_LOOKUP = 36  # enum bpf_attach_type
_PINS = "/run/neighbours/all"


def _kind(protocol, ipv6):
    return (2 if protocol == "udp" else 0) + (1 if ipv6 else 0)


class Neighbours:
    """The programs, loaded into a bpffs of their own; links end with close()."""

    def __init__(self):
        self._libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
        self._links = []
        os.mkdir("/run/neighbours")
        kernel.mount("bpf", "/run/neighbours", "bpf")
        run("bpftool", "prog", "loadall", str(broker.BUILD / "tests/netns/neighbours.bpf.o"), _PINS,
            "pinmaps", f"{_PINS}/maps")

    def _get(self, name):
        fd = self._libbpf.bpf_obj_get(f"{_PINS}/{name}".encode())
        if fd < 0:
            raise OSError(-fd, f"bpf_obj_get {name}")
        return fd

    def attach(self, name):
        """Attaches an sk_lookup program behind those that are attached already."""
        program = self._get(name)
        netns = os.open("/proc/self/ns/net", os.O_RDONLY)
        link = self._libbpf.bpf_link_create(program, netns, _BPF_SK_LOOKUP, None)
        os.close(netns)
        os.close(program)
        if link < 0:
            raise OSError(-link, f"bpf_link_create {name}")
        self._links.append(link)

    def set_target(self, protocol, ipv6, sock):
        """Where other_redirect and other_replace send their traffic."""
        fd = self._get("maps/others")
        key, value = ctypes.c_uint32(_kind(protocol, ipv6)), ctypes.c_uint64(sock.fileno())
        result = self._libbpf.bpf_map_update_elem(fd, ctypes.byref(key), ctypes.byref(value), ctypes.c_uint64(0))
        os.close(fd)
        if result < 0:
            raise OSError(-result, "bpf_map_update_elem others")

    def find_by_tc(self, interface):
        run("tc", "qdisc", "add", "dev", interface, "clsact")
        run("tc", "filter", "add", "dev", interface, "ingress", "bpf", "da", "object-pinned", f"{_PINS}/find_tc")

    def find_by_xdp(self, interface):
        run("ip", "link", "set", "dev", interface, "xdpgeneric", "pinned", f"{_PINS}/find_xdp")

    def found(self, protocol, ipv6):
        """The bound port of the listener that the packet program found last, 0 for none."""
        entries = json.loads(run("bpftool", "-j", "map", "dump", "pinned", f"{_PINS}/maps/found"))
        return entries[_kind(protocol, ipv6)]["formatted"]["value"]

    def close(self):
        for link in self._links:
            os.close(link)
