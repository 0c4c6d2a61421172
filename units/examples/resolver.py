#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Way (b): a name server that knows nothing of the broker. It takes the sockets that PID 1 passes, as any socket-
activated service does, and answers each query for an A or AAAA record with the address that was asked; where that is of
the other family, with one of its own.

All it adds to a common server: a UDP answer leaves from the address that the client asked, which the kernel tells by
IP_PKTINFO (IPV6_PKTINFO) and takes back the same way; in IPv6 because the socket unit says FreeBind=yes.
"""
import os
import selectors
import socket
import struct
import sys

IP_PKTINFO = 8  # linux/in.h; not in every version of Python's socket module
IN = 1
OWN = {1: (socket.AF_INET, "203.0.113.53"), 28: (socket.AF_INET6, "2001:db8:3::53")}  # A and AAAA


def answer(query: bytes, asked: str) -> bytes:
    """One question in, the same question and one record out (RFC 1035, 4.1); no record for another type than A and
    AAAA, and anything but one question of class IN is refused."""
    identity, flags, questions = struct.unpack("!HHH", query[:6])
    end = query.index(b"\0", 12) + 5
    kind, class_ = struct.unpack("!HH", query[end - 4:end])
    good = questions == 1 and class_ == IN
    record = b""
    if good and kind in OWN:
        family, own = OWN[kind]
        address = socket.inet_pton(family, asked if (":" in asked) == (family == socket.AF_INET6) else own)
        record = struct.pack("!HHHIH", 0xC00C, kind, IN, 0, len(address)) + address
    header = struct.pack("!HHHHHH", identity, 0x8400 | flags & 0x0100 | (0 if good else 5), 1, int(bool(record)), 0, 0)
    return header + query[12:end] + record


def serve_datagram(server: socket.socket) -> None:
    query, ancillary, _, client = server.recvmsg(512, 256)
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
            # struct in_pktinfo: interface, local address, address in the header of the packet
            asked = socket.inet_ntoa(data[8:12])
            back = [(level, kind, struct.pack("=I", 0) + data[8:12] + bytes(4))]
        elif (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            asked = socket.inet_ntop(socket.AF_INET6, data[:16])
            back = [(level, kind, data[:16] + struct.pack("=I", 0))]
        else:
            continue
        server.sendmsg([answer(query, asked)], back, 0, client)


def serve_connection(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.settimeout(1)
        size, = struct.unpack("!H", connection.recv(2, socket.MSG_WAITALL))
        reply = answer(connection.recv(size, socket.MSG_WAITALL), connection.getsockname()[0])
        connection.sendall(struct.pack("!H", len(reply)) + reply)


ready = selectors.DefaultSelector()
for fd in range(3, 3 + int(os.environ.get("LISTEN_FDS", "0"))):
    passed = socket.socket(fileno=fd)
    if passed.type == socket.SOCK_STREAM:
        ready.register(passed, selectors.EVENT_READ, serve_connection)
    elif passed.family == socket.AF_INET:
        passed.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        ready.register(passed, selectors.EVENT_READ, serve_datagram)
    else:
        passed.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        ready.register(passed, selectors.EVENT_READ, serve_datagram)
if not ready.get_map():
    sys.exit("no sockets were passed, start resolver.socket")

while True:
    for key, _ in ready.select():
        try:
            key.data(key.fileobj)
        except (OSError, ValueError, IndexError, struct.error) as error:
            print(f"a query was not answered: {error}", flush=True)
