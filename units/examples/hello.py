#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Way (a) in Python: a web server that may bind nothing but loopback, and serves whole prefixes.

One dual-stack listener takes IPv4 and IPv6 lookups. It asks on the control socket, which answers: whoever is refused
must not go on as if it served. The same two lines to /run/sockbroker/notify, in the words of sd_notify(3), carry no
answer, see echo.c; then the journal alone has the verdict.
"""
import socket
import sys


def register(service: str, *sockets: socket.socket) -> dict[str, str]:
    """Hands sockets to the broker, and returns its answer: RESULT=ok or a code, MESSAGE= for a person."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as broker:
        broker.connect("/run/sockbroker/control")
        socket.send_fds(broker, [f"FDSTORE=1\nFDNAME={service}".encode()], [s.fileno() for s in sockets])
        return dict(line.split("=", 1) for line in broker.recv(65536).decode().splitlines())


# The port is of no account to TCP clients: they see the one they asked for. The address is this service's own, so that
# no other server is in the way, or in one SO_REUSEPORT group with it. SO_REUSEPORT lets a new instance join the old
# one's group, so that no half-open connection is lost when it takes over.
listener = socket.create_server(
    ("::ffff:127.0.0.4", 8080), family=socket.AF_INET6, dualstack_ipv6=True, reuse_port=True, backlog=1024)
try:
    answer = register("hello", listener)
except OSError as error:
    sys.exit(f"cannot reach the broker, is sockbrokerd.socket active?: {error}")
if answer.get("RESULT") != "ok":
    sys.exit(f"hello: {answer.get('RESULT')}: {answer.get('MESSAGE')}")
print("hello: registered, serving", flush=True)

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
