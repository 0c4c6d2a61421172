# SPDX-License-Identifier: LGPL-2.1-or-later
"""Real QUIC sessions, by quic-go of Debian: servers on a socket of the broker, clients that keep their sessions."""

import os
import pathlib
import subprocess

from harness import broker, kernel, service, wire, worker

SOURCE = broker.TOP / "tests/servers/quic.go"
PACKAGES = ("golang-go", "golang-github-lucas-clemente-quic-go-dev")  # of Debian 12
GO = "usr/lib/go/bin/go"
LIBRARIES = "usr/share/gocode"
LIBRARY = f"{LIBRARIES}/src/github.com/lucas-clemente/quic-go"


def build(program, roots):
    """By packages that are installed, or unpacked below one of these directories; None where they are not."""
    go = next((root / GO for root in roots if (root / GO).exists()), None)
    if go is None or not any((root / LIBRARY).exists() for root in roots):
        return None
    environment = {"GO111MODULE": "off", "GOPATH": ":".join(str(root / LIBRARIES) for root in roots),
                   "GOROOT": str(go.parent.parent), "GOCACHE": str(program.parent / "cache"), "CGO_ENABLED": "0"}
    subprocess.run([go, "build", "-o", str(program), str(SOURCE)], check=True, env=os.environ | environment)
    program.chmod(0o755)
    return program


class _Lines:
    """A program that answers each line with one."""

    def __init__(self, command, **named):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **named)

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def end(self):
        self.process.kill()
        self.process.wait()


class Server(worker.Child):
    """In the cgroup of a unit, a socket that this process registers and the program serves; both without privilege."""

    def __init__(self, program, cgroup, uid, address, port):
        super().__init__()
        (pathlib.Path(cgroup) / "cgroup.procs").write_text("0")
        self.socket = service.open_socket("udp", address, port, freebind=":" in address)
        kernel.drop_privileges(uid, uid)
        number = self.socket.fileno()
        self.program = _Lines(["/bin/bash", "-c", f"exec {program} serve 3<&{number}"], pass_fds=(number,))
        assert self.program.process.stdout.readline() == "ready\n"

    def register(self, name):
        return wire.control(f"{service.RUNTIME}/control", f"FDSTORE=1\nFDNAME={name}", [self.socket.fileno()]).result

    def known(self):
        return self.program.ask("known")


class Clients(_Lines):
    """Sessions with one address, from this network namespace."""

    def __init__(self, program, address, port):
        super().__init__([str(program), "dial", f"[{address}]:{port}" if ":" in address else f"{address}:{port}"])

    def begin(self, count):
        """How many are lost, of all so far."""
        return self.ask(f"dial {count}")

    def round(self):
        return self.ask("round")
