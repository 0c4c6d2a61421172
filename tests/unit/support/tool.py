# SPDX-License-Identifier: LGPL-2.1-or-later
"""sockbrokerctl from outside, and a peer on its control socket that says what a script says."""

import array
import json
import os
import socket
import subprocess
import threading

CTL = os.environ["SOCKBROKERCTL"]


def ctl(*arguments, env=None, **options):
    environment = {**os.environ, "NO_COLOR": "1", **(env or {})}
    return subprocess.run([CTL, *map(str, arguments)], capture_output=True, text=True, env=environment, **options)


class Peer(threading.Thread):
    """A control socket; answers each request with what `script(request text, number of fds)` yields, then hangs up."""

    def __init__(self, folder, script):
        super().__init__(daemon=True)
        self.runtime_dir = folder
        self.requests = []
        self.script = script
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(folder / "control"))
        self.listener.listen()
        self.start()

    def run(self):
        connection, _ = self.listener.accept()
        with connection:
            while True:
                data, ancillary, _, _ = connection.recvmsg(8192, 4096)
                if not data:
                    return
                fds = array.array("i")
                for _, _, payload in ancillary:
                    fds.frombytes(payload)
                cookies = [socket.socket(fileno=fd).getsockname() for fd in fds]
                self.requests.append((data.decode(), cookies))
                for record in self.script(data.decode()):
                    if record is None:
                        return
                    connection.send(record.encode())


SINCE = "Mon 2024-03-04 05:06:07 UTC"  # 1709528767654321
OK = "RESULT=ok\nERRNO=0\nMESSAGE=\n"
ROW = {
    "service": "dns", "protocol": "udp", "family": "ipv4", "cookie": "000000000000002a", "bound": "127.0.0.2:53",
    "unit": None, "uid": 61001, "pid": 77, "state": "live", "since": 1709528767654321,
}  # fmt: skip


def rows(*objects):
    return "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in objects)
