# SPDX-License-Identifier: LGPL-2.1-or-later
"""Descriptors of every kind that may be handed to the broker, most of which it must refuse. The names are those of
tests/data/protocol_mistakes.json."""

import os
import socket
import struct

from harness import kernel

IPPROTO_UDPLITE = 136


def _inet(domain, kind, protocol=0):
    return socket.socket(domain, kind, protocol)


def _bound(sock, port=0):
    sock.bind(("127.0.0.1" if sock.family == socket.AF_INET else "::1", port))
    return sock


def _listener(domain, protocol=0):
    sock = _bound(_inet(domain, socket.SOCK_STREAM, protocol))
    sock.listen(8)
    return sock


def _connected(domain):
    """Both ends of a TCP connection: the one that connected, the one that was accepted."""
    with _listener(domain) as listener:
        client = _inet(domain, socket.SOCK_STREAM)
        client.connect(listener.getsockname())
        return client, listener.accept()[0]


def _shut_down(domain):
    sock = _listener(domain)
    sock.shutdown(socket.SHUT_RD)
    return sock


def _udp_connected(domain, port):
    sock = _bound(_inet(domain, socket.SOCK_DGRAM))
    sock.connect((sock.getsockname()[0], port))
    return sock


def _foreign_listener(domain):
    ours = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        kernel.unshare(kernel.CLONE_NEWNET)
        sock = _inet(domain, socket.SOCK_STREAM)
        sock.listen(8)
        return sock
    finally:
        kernel.setns(ours, kernel.CLONE_NEWNET)
        os.close(ours)


def _pipe():
    read, write = os.pipe()
    return os.fdopen(write, "wb"), os.fdopen(read, "rb")


def _file(fd):
    return os.fdopen(fd, "rb")


# kind -> what makes it, of a socket domain: the object, or the object and what must stay open with it
_MAKERS = {
    "tcp-listener": _listener,
    "tcp-unconnected": lambda domain: _inet(domain, socket.SOCK_STREAM),
    "tcp-bound": lambda domain: _bound(_inet(domain, socket.SOCK_STREAM)),
    "tcp-connected": _connected,
    "tcp-accepted": lambda domain: _connected(domain)[::-1],
    "tcp-shut-down": _shut_down,
    "mptcp-listener": lambda domain: _listener(domain, kernel.IPPROTO_MPTCP),
    "mptcp-unconnected": lambda domain: _inet(domain, socket.SOCK_STREAM, kernel.IPPROTO_MPTCP),
    "udp-bound": lambda domain: _bound(_inet(domain, socket.SOCK_DGRAM)),
    "udp-unbound": lambda domain: _inet(domain, socket.SOCK_DGRAM),
    "udp-connected": lambda domain: _udp_connected(domain, 9),
    "udp-connected-port-0": lambda domain: _udp_connected(domain, 0),
    "udplite-bound": lambda domain: _bound(_inet(domain, socket.SOCK_DGRAM, IPPROTO_UDPLITE)),
    "raw": lambda domain: _inet(domain, socket.SOCK_RAW, socket.IPPROTO_UDP),
    "foreign-netns-listener": _foreign_listener,
    "packet": lambda _: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, struct.unpack("H", b"\x08\x00")[0]),
    "netlink": lambda _: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "unix-stream": lambda _: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM),
    "pipe": lambda _: _pipe(),
    "memfd": lambda _: _file(os.memfd_create("odd")),
    "eventfd": lambda _: _file(os.eventfd(0)),
    "pidfd": lambda _: _file(os.pidfd_open(os.getpid())),
    "file": lambda _: open("/proc/self/exe", "rb"),  # pylint: disable=consider-using-with
    "o-path": lambda _: _file(os.open("/proc/self/exe", os.O_PATH)),
}


def kernel_has(kind):
    """UDP-Lite has left the newest kernels, and MPTCP may be configured out."""
    protocols = {"udplite": (socket.SOCK_DGRAM, IPPROTO_UDPLITE), "mptcp": (socket.SOCK_STREAM, kernel.IPPROTO_MPTCP)}
    protocol = protocols.get(kind.partition("-")[0])
    if protocol is None:
        return True
    try:
        socket.socket(socket.AF_INET, *protocol).close()
        return True
    except OSError:
        return False


def make(kind, family="ipv4"):
    """(object with fileno(), objects that must stay open with it). Some kinds need root."""
    made = _MAKERS[kind](socket.AF_INET if family == "ipv4" else socket.AF_INET6)
    return (made[0], list(made[1:])) if isinstance(made, tuple) else (made, [])
