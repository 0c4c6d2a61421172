#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""One instance of several: bluegreen.py INSTANCE answers each line with its name and the line.

What makes a change of instances lose nothing: the listener is in the SO_REUSEPORT group of all instances (same address,
port and user), and has the broker's
migration program, so that what waits in it when it closes goes to another one of the group; READY=1 is said when the
broker has agreed, so that `systemctl start` returns when this instance serves; on SIGHUP it registers again, which
makes it the newest, hence the one that serves; on SIGTERM what has been accepted, or waits to be, is answered first.
The unit does the rest: it sends SIGTERM only when nothing new can come.
"""
import os
import selectors
import signal
import socket
import sys

SERVICE = "bluegreen"
SO_ATTACH_REUSEPORT_EBPF = 52


def register(listener: socket.socket) -> None:
    """By the control socket, which answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as broker:
        broker.connect("/run/sockbroker/control")
        socket.send_fds(broker, [f"FDSTORE=1\nFDNAME={SERVICE}\nMIGRATE=1".encode()], [listener.fileno()])
        record, programs, _, _ = socket.recv_fds(broker, 65536, 1)
    answer = dict(line.split("=", 1) for line in record.decode().splitlines())
    if answer["RESULT"] != "ok":
        sys.exit(answer["MESSAGE"])
    for program in programs:
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, program)
        os.close(program)


def tell_systemd(state: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        path = os.environ["NOTIFY_SOCKET"]
        manager.connect("\0" + path[1:] if path[0] == "@" else path)
        manager.send(state.encode())


name = f"{SERVICE}-{sys.argv[1]}"
listener = socket.create_server(
    ("::ffff:127.0.0.6", 8081), family=socket.AF_INET6, dualstack_ipv6=True, reuse_port=True, backlog=4096)
listener.setblocking(False)
signals, on_signal = socket.socketpair()
for end in signals, on_signal:
    end.setblocking(False)
signal.set_wakeup_fd(on_signal.fileno())
for number in signal.SIGTERM, signal.SIGHUP:
    signal.signal(number, lambda *_: None)
watched = selectors.DefaultSelector()
connections = set()


def accept() -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        connection.setblocking(False)
        connections.add(connection)
        watched.register(connection, selectors.EVENT_READ, lambda one=connection: answer(one))


def answer(connection: socket.socket) -> None:
    try:
        connection.send(name.encode() + b" " + connection.recv(4096))
    except OSError as error:
        print(f"lost a client: {error}", flush=True)
    watched.unregister(connection)
    connections.discard(connection)
    connection.close()


watched.register(listener, selectors.EVENT_READ, accept)
watched.register(signals, selectors.EVENT_READ)
register(listener)
tell_systemd("READY=1")
stopping = False
while not stopping:
    for key, _ in watched.select():
        if key.fileobj is not signals:
            key.data()
            continue
        for number in signals.recv(64):
            if number == signal.SIGHUP:
                register(listener)
            stopping = stopping or number == signal.SIGTERM
accept()
watched.unregister(listener)
watched.unregister(signals)
listener.close()
while connections and (ready := watched.select(1)):  # who says nothing for a second is left alone
    for key, _ in ready:
        key.data()
