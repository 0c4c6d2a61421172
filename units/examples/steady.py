#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A server that may crash and be restarted without a client noticing more than a pause: its policy says HoldSec=, and
before it makes a socket of its own it asks the broker for the one of the instance before it.

Both requests go to the control socket, which answers. What it must never do: close the socket on its way out, as that
is what the next instance gets.
"""
import os
import select
import signal
import socket
import sys

SERVICE = "steady"
SO_ATTACH_REUSEPORT_EBPF = 52


def ask(request: str, *sockets: socket.socket) -> tuple[dict, list[int]]:
    """One request to the broker: its answer, and the descriptors that came with it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as broker:
        broker.connect("/run/sockbroker/control")
        socket.send_fds(broker, [request.encode()], [one.fileno() for one in sockets])
        while True:
            record, fds, _, _ = socket.recv_fds(broker, 65536, 253)
            if not record:
                raise ConnectionResetError("the broker closed the connection")
            if record.startswith(b"RESULT="):
                return dict(line.split("=", 1) for line in record.decode().splitlines()), fds


def take_over_or_make() -> list[socket.socket]:
    answer, fds = ask(f"FDRETRIEVE=1\nFDNAME={SERVICE}")
    if fds:
        print("has the socket of the instance before it", flush=True)
        return [socket.socket(fileno=fd) for fd in fds]
    # SO_REUSEPORT: two instances may stand side by side, and in one group that has the broker's migration program
    # nothing that waits in one is lost when it closes.
    listener = socket.create_server(
        ("::ffff:127.0.0.7", 8082), family=socket.AF_INET6, dualstack_ipv6=True, reuse_port=True, backlog=4096)
    answer, programs = ask(f"FDSTORE=1\nFDNAME={SERVICE}\nMIGRATE=1", listener)
    if answer["RESULT"] != "ok":
        sys.exit(f"the broker refused: {answer['MESSAGE']}")
    for program in programs:
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, program)
        os.close(program)
    print("has a socket of its own", flush=True)
    return [listener]


# SIGTERM ends it between two connections: the one that it has accepted is nobody else's.
ended, on_signal = socket.socketpair()
for end in ended, on_signal:
    end.setblocking(False)
signal.set_wakeup_fd(on_signal.fileno())
signal.signal(signal.SIGTERM, lambda *_: None)

# All that were held: who waits in one that nobody accepts from waits in vain.
listeners = take_over_or_make()
for listener in listeners:
    listener.setblocking(False)
while ended not in (ready := select.select([*listeners, ended], [], [])[0]):
    for listener in ready:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:  # two instances side by side have one queue
            continue
        with connection:
            try:
                connection.settimeout(1)
                connection.sendall(connection.recv(4096) or str(os.getpid()).encode())
            except OSError:
                pass  # that client's own affair
