#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Way (a) in Python: a web server that may bind nothing but loopback, and serves whole prefixes.

One dual-stack listener takes IPv4 and IPv6 look-ups. What it must never do: assume that it was registered. The
notify socket carries no answer (that is what the control socket is for, see install.md); the journal has the verdict.
"""
import os
import socket
import sys


def register(service: str, *sockets: socket.socket) -> None:
    """Hands sockets to the broker, as sd_notify(3) would, and returns when it has read the message."""
    read_end, write_end = os.pipe()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as broker:
        broker.connect("/run/sockbroker/notify")
        socket.send_fds(broker, [f"FDSTORE=1\nFDNAME={service}".encode()], [s.fileno() for s in sockets])
        socket.send_fds(broker, [b"BARRIER=1"], [write_end])
    os.close(write_end)
    os.read(read_end, 1)  # end-of-file: the broker has closed its copy
    os.close(read_end)


# The port is of no account to TCP clients: they see the one they asked for. The address is this service's own, so that no
# other server is in the way, or in one SO_REUSEPORT group with it. SO_REUSEPORT lets a new instance join the
# old one's group, so that no half-open connection is lost when it takes over.
listener = socket.create_server(
    ("::ffff:127.0.0.4", 8080), family=socket.AF_INET6, dualstack_ipv6=True, reuse_port=True, backlog=1024)
try:
    register("hello", listener)
except OSError as error:
    sys.exit(f"cannot reach the broker, is sockbrokerd.socket active?: {error}")
print("handed over, serving", flush=True)

while True:
    connection, client = listener.accept()
    with connection:
        asked, port = connection.getsockname()[:2]
        body = f"hello, you asked for {asked.removeprefix('::ffff:')} port {port}\n"
        try:
            connection.settimeout(1)
            connection.recv(4096)
            connection.sendall(f"HTTP/1.0 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        except OSError as error:
            print(f"lost {client[0]}: {error}", flush=True)
