# SPDX-License-Identifier: LGPL-2.1-or-later
"""Descriptors that nobody should hand to a socket broker, and some that are sockets in the wrong state."""

import os
import socket

from harness import kernel

_LOOPBACK = {"ipv4": (socket.AF_INET, "127.0.0.1"), "ipv6": (socket.AF_INET6, "::1")}


def _inet(kind, family):
    """The object to hand over, and what must stay open beside it."""
    domain, address = _LOOPBACK[family]
    if kind == "raw-icmp":
        protocol = socket.IPPROTO_ICMP if family == "ipv4" else socket.IPPROTO_ICMPV6
        return socket.socket(domain, socket.SOCK_RAW, protocol), []
    stream = not kind.startswith("udp")
    sock = socket.socket(domain, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM,
                         kernel.IPPROTO_MPTCP if kind.startswith("mptcp") else 0)
    state = kind.split("-")[1]
    if state == "unbound":
        return sock, []
    if state in ("connected", "accepted") and stream:
        with socket.socket(domain, socket.SOCK_STREAM) as listener:
            listener.bind((address, 0))
            listener.listen()
            sock.connect(listener.getsockname())
            other = listener.accept()[0]
        return (sock, [other]) if state == "connected" else (other, [sock])
    sock.bind((address, 0))
    if state == "listening":
        sock.listen()
    elif state == "connected":
        sock.connect((address, 9))
    return sock, []


def _other(kind):
    if kind == "pipe":
        ends = [os.fdopen(fd, mode) for fd, mode in zip(os.pipe(), ("rb", "wb"))]
        return ends[0], ends[1:]
    if kind == "file":
        return open("/dev/null", "rb"), []  # pylint: disable=consider-using-with
    if kind == "memfd":
        return os.fdopen(os.memfd_create("odd"), "rb"), []
    if kind == "pidfd":
        return os.fdopen(os.pidfd_open(os.getpid()), "rb"), []
    if kind == "o-path":
        return os.fdopen(os.open("/dev/null", os.O_PATH), "rb"), []
    if kind == "netlink":
        return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW), []
    if kind in ("unix", "unix-stream"):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind("\0" + f"odd-{os.getpid()}-{id(sock)}")
        sock.listen()
        return sock, []
    if kind == "unix-dgram":
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        return ours, [theirs]
    raise ValueError(f"no such kind of descriptor: {kind}")


def make(kind, family="ipv4"):
    """(object with fileno(), objects that must stay open)"""
    if kind.startswith(("tcp-", "udp-", "mptcp-", "raw-")):
        return _inet(kind, family)
    return _other(kind)
