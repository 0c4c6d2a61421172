# SPDX-License-Identifier: LGPL-2.1-or-later
"""The two sockets of the broker as any client may speak to them: plain Python, nothing but the socket module."""

import json
import os
import select
import socket

RECORD = 65536
TIMEOUT = 25  # seconds; only what fails waits so long


def _send(sock, text, fds):
    data = text.encode() if isinstance(text, str) else text
    if fds:
        socket.send_fds(sock, [data], list(fds))
    else:
        sock.send(data)


def notify(path, text, fds=()):
    """One datagram, as sd_pid_notify_with_fds(3) sends it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(TIMEOUT)
        sock.connect(path)
        _send(sock, text, fds)


def barrier(path, text="BARRIER=1"):
    """Returns when the broker has dealt with all that the caller sent before (sd_notify_barrier(3))."""
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    try:
        notify(path, text, [theirs])
        os.close(theirs)
        poll = select.poll()
        poll.register(ours, 0)
        if not poll.poll(TIMEOUT * 1000):
            raise TimeoutError("the broker did not close the descriptor of BARRIER=1")
    finally:
        os.close(ours)


class Reply(dict):
    """RESULT=, ERRNO= and MESSAGE= as `result`, `errno`, `message`; `lines`: the JSON objects before them; `warnings`:
    the values of WARNING=."""

    def __init__(self, fields, lines, warnings=()):
        super().__init__(fields)
        self.lines = lines
        self.warnings = list(warnings)
        self.result = fields["RESULT"]
        self.errno = int(fields["ERRNO"])
        self.message = fields["MESSAGE"]

    def __reduce__(self):
        return Reply, (dict(self), self.lines, self.warnings)


def _reply(text, lines):
    fields = [line.split("=", 1) for line in text.splitlines()]
    return Reply(dict(fields), lines, [value for key, value in fields if key == "WARNING"])


class Control:
    """A connection to the control socket; requests may follow one another."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.connect(path)  # waits while the queue of the listener is full
        self.sock.settimeout(TIMEOUT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, text, fds=()):
        _send(self.sock, text, fds)

    def receive(self):
        lines = []
        while True:
            record = self.sock.recv(RECORD + 1)
            if not record:
                raise ConnectionResetError("the broker closed the control connection")
            assert len(record) <= RECORD, f"record of {len(record)} bytes"
            assert record.endswith(b"\n"), f"record ends within a line: {record[-80:]}"
            text = record.decode()
            if text.startswith("RESULT="):
                return _reply(text, lines)
            lines += [json.loads(line) for line in text.splitlines()]

    def receive_with_descriptors(self):
        lines = []
        while True:
            record, received, _, _ = socket.recv_fds(self.sock, RECORD, 253)
            if not record:
                raise ConnectionResetError("the broker closed the control connection")
            text = record.decode()
            if text.startswith("RESULT="):
                return _reply(text, lines), received
            assert not received, "descriptors come with the RESULT= record"
            lines += [json.loads(line) for line in text.splitlines()]

    def request(self, text, fds=()):
        self.send(text, fds)
        return self.receive()


def retrieve(path, text, fds=()):
    """FDRETRIEVE=1 or MIGRATE=1 on a connection of its own: the answer, and the descriptors that came with its last
    record."""
    with Control(path) as connection:
        connection.send(text, fds)
        return connection.receive_with_descriptors()


def control(path, text, fds=()):
    """One request on a connection of its own."""
    with Control(path) as connection:
        return connection.request(text, fds)
