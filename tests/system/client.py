#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs inside the machine: clients of the services under test, and senders of registrations.

    client.py tcp ADDRESS PORT TEXT      what came back
    client.py udp ADDRESS PORT TEXT      what came back, and the address and port it came from
    client.py hammer ADDRESS PORT [http]           connects one after the other, see hammering.py
    client.py store SERVICE ADDRESS PORT [hold]    listens and registers by the notify socket; hold: serves as an echo
    client.py register SERVICE ADDRESS PORT        listens and registers by the control socket; the answer
    client.py serve NAME                 answers lines on the listener that systemd has passed, until SIGTERM
    client.py many SERVICE,... COUNT               listens so many times, registers all for each service, and stays
    client.py helped SERVICE ADDRESS PORT PAUSE    serves as an echo what a child registered; waits before each accept
    client.py control LINES              one request to the control socket, and its answer

Its exit status is 0 where the network did not refuse.
"""
import json
import os
import select
import signal
import socket
import sys
import time

import hammering
from hammering import family

PATIENCE = 30  # seconds: whoever waits here for an answer tells by it that none came, and not how soon


def tcp(address: str, port: str, text: str) -> None:
    with socket.create_connection((address, int(port)), timeout=PATIENCE) as client:
        client.sendall(text.encode())
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while part := client.recv(65536):
            answer += part
    print(answer.decode(), end="")


def udp(address: str, port: str, text: str) -> None:
    """Unconnected, so that an answer from the wrong address is seen rather than lost; refusals need IP_RECVERR."""
    with socket.socket(family(address), socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE)
        client.sendto(text.encode(), (address, int(port)))
        answer, source = client.recvfrom(65536)
    print(json.dumps([answer.decode("latin-1"), source[0], source[1]]))


def hammer(address: str, port: str, protocol: str = "echo") -> None:
    hammering.run(protocol, address, int(port))


def store(service: str, address: str, port: str, hold: str = "") -> None:
    with socket.create_server((address, int(port)), family=family(address)) as listener, \
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as broker:
        broker.connect("/run/sockbroker/notify")
        socket.send_fds(broker, [f"FDSTORE=1\nFDNAME={service}".encode()], [listener.fileno()])
        print("sent", flush=True)
        if not hold:
            # Stay until it was read, since who is gone cannot be asked for its unit; yet read it may be much later.
            ours, theirs = os.pipe()
            socket.send_fds(broker, [b"BARRIER=1"], [theirs])
            os.close(theirs)
            select.select([ours], [], [])
            return
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(connection.recv(65536))


def register(service: str, address: str, port: str) -> None:
    with socket.create_server((address, int(port)), family=family(address)) as listener, \
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as broker:
        broker.settimeout(PATIENCE)
        broker.connect("/run/sockbroker/control")
        socket.send_fds(broker, [f"FDSTORE=1\nFDNAME={service}".encode()], [listener.fileno()])
        print(broker.recv(65536).decode(), end="", flush=True)


def serve(name: str) -> None:
    """One after the other; leaves at SIGTERM what it has not accepted to the next instance, which has the same
    listener."""
    ended = []
    wake = socket.socketpair()
    for end in wake:
        end.setblocking(False)
    signal.set_wakeup_fd(wake[1].fileno())
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    listener = socket.socket(fileno=3)
    listener.setblocking(False)
    while select.select([listener, wake[0]], [], []) and not ended:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            continue
        with connection:
            connection.settimeout(PATIENCE)
            connection.sendall(name.encode() + b" " + connection.recv(4096))


def many(services: str, count: str) -> None:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(count))]
    for service in services.split(","):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as broker:
            broker.settimeout(PATIENCE)
            broker.connect("/run/sockbroker/control")
            socket.send_fds(broker, [f"FDSTORE=1\nFDNAME={service}".encode()], [one.fileno() for one in listeners])
            print(broker.recv(65536).decode(), flush=True)
    signal.pause()


def helped(service: str, address: str, port: str, pause: str) -> None:
    """A script with a helper: it listens and serves, a process that ends at once registers."""
    with socket.create_server((address, int(port)), family=family(address)) as listener:
        if os.fork() == 0:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as broker:
                broker.settimeout(PATIENCE)
                broker.connect("/run/sockbroker/control")
                socket.send_fds(broker, [f"FDSTORE=1\nFDNAME={service}".encode()], [listener.fileno()])
                print(broker.recv(65536).decode(), flush=True)
            os._exit(0)
        os.wait()
        while True:
            select.select([listener], [], [])
            time.sleep(float(pause))
            connection, _ = listener.accept()
            with connection:
                connection.sendall(connection.recv(65536))


def control(lines: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as broker:
        broker.settimeout(PATIENCE)
        broker.connect("/run/sockbroker/control")
        broker.send(lines.replace("\\n", "\n").encode())
        while True:
            record = broker.recv(65536).decode()
            print(record, end="")
            if record.startswith("RESULT=") or not record:
                return


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        {"tcp": tcp, "udp": udp, "hammer": hammer, "store": store, "register": register, "many": many,
         "serve": serve, "helped": helped, "control": control}[sys.argv[1]](*sys.argv[2:])
    except OSError as refusal:
        sys.exit(f"{type(refusal).__name__}: {refusal}")
