# SPDX-License-Identifier: LGPL-2.1-or-later
"""The real sockbrokerd as a child of the test, with a policy of the test's own, and the words spoken to it."""

import contextlib
import fcntl
import json
import os
import pathlib
import re
import select
import signal
import socket
import subprocess
import time

from harness import wire

TOP = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("SOCKBROKER_BUILD", TOP / "build"))
# tests/sandbox/try_out: a broker that tells what its filter would refuse, and makes one such call itself.
TRIAL = pathlib.Path(os.environ["SOCKBROKER_TRIAL"]) if "SOCKBROKER_TRIAL" in os.environ else None
TIMEOUT = 25  # seconds, less than the 30 of HoldSec= in tests
LOG_ROOM = 1 << 20  # bytes of standard error that wait to be read while a test does something else


def _environment(**more):
    keep = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "ASAN_OPTIONS")}
    return keep | more


class Broker:
    """Everything of it lies under /run, which is the test's own (see namespace.enter())."""

    def __init__(self, activated=False, netns=None, program="sockbrokerd"):
        """netns: a name that `ip netns` knows; the broker is started there and has the places of that name."""
        self.program = BUILD / program
        self.netns = netns
        self.runtime = pathlib.Path("/run/sockbroker")
        self.bpffs = self.runtime / "bpf"
        self.config = pathlib.Path("/run/config")
        self.state = pathlib.Path("/run/state")
        if netns is not None:
            self.bpffs = self.bpffs / "netns" / netns
            self.runtime = self.config = self.runtime / "netns" / netns
            self.state = pathlib.Path(f"/run/state-{netns}")
        self.before = []  # words in front of the command; they must end in an exec
        self.environment = {}  # more of it, for the next start
        (self.config / "conf.d").mkdir(parents=True)
        self.state.mkdir()
        self.control_path = str(self.runtime / "control")
        self.notify_path = str(self.runtime / "notify")
        self.process = None
        self.served = False
        self.activated = self._make_sockets() if activated else []
        self._log = ""
        self._log_pipe = None

    def _make_sockets(self):
        """The two sockets as a socket unit makes them: messages wait in them while no broker runs."""
        self.runtime.mkdir()
        made = []
        for kind, path in ((socket.SOCK_DGRAM, self.notify_path), (socket.SOCK_SEQPACKET, self.control_path)):
            sock = socket.socket(socket.AF_UNIX, kind)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            sock.bind(path)
            os.chmod(path, 0o666)
            if kind == socket.SOCK_SEQPACKET:
                sock.listen(128)
            made.append(sock)
        return made

    # Its life.

    def options(self):
        if self.netns is not None:
            return ["--netns", self.netns, "--state-dir", str(self.state)]
        return ["--config-dir", str(self.config), "--runtime-dir", str(self.runtime),
                "--bpffs", str(self.bpffs), "--state-dir", str(self.state)]

    def start(self, until_ready=True):
        """Starts it and waits until it says READY=1."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            path = "/run/ready"
            pathlib.Path(path).unlink(missing_ok=True)
            ready.bind(path)
            os.chmod(path, 0o666)
            command = [*self.before, str(self.program), *self.options()]
            if self.netns is not None:
                command = ["nsenter", f"--net=/run/netns/{self.netns}", *command]
            # Out of the way of 3 and up, whatever their numbers are here.
            fds = [fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, 200) for sock in self.activated]
            if fds:
                # The child's pid must stand in LISTEN_PID, and its descriptors start at 3; it has none of them twice.
                moves = " ".join([f"{3 + i}<&{fd}" for i, fd in enumerate(fds)] + [f"{fd}<&-" for fd in fds])
                command = ["/bin/bash", "-c", f'LISTEN_FDS={len(fds)} LISTEN_PID=$$ exec "$@" {moves}', "-", *command]
            read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            os.set_blocking(write, True)
            fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, LOG_ROOM)
            self._log_pipe = read
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=write, stderr=write,
                                            pass_fds=fds, env=_environment(NOTIFY_SOCKET=path, **self.environment))
            os.close(write)
            for fd in fds:
                os.close(fd)
            if until_ready:
                self._wait_ready(ready)
            self.served = True
        return self

    def _wait_ready(self, ready):
        ended = os.pidfd_open(self.process.pid)
        try:
            deadline = time.monotonic() + TIMEOUT
            while True:
                readable, _, _ = select.select([ready, ended], [], [], max(0, deadline - time.monotonic()))
                if ready in readable:
                    if "READY=1" in ready.recv(4096).decode().splitlines():
                        return
                elif ended in readable:
                    raise RuntimeError(f"sockbrokerd ended with {self.process.wait()} before READY=1:\n{self.log()}")
                else:
                    raise TimeoutError(f"sockbrokerd did not say READY=1 within {TIMEOUT} s:\n{self.log()}")
        finally:
            os.close(ended)

    def stop(self):
        """As systemctl stop would end it. Dispatch goes on."""
        self._end(signal.SIGTERM)
        assert self.process.returncode == 0, f"exit status {self.process.returncode} on SIGTERM:\n{self.log()}"

    def kill(self):
        self._end(signal.SIGKILL)

    def _end(self, with_signal):
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
        self.process.wait(TIMEOUT)
        self._wait_refused()
        self.log()

    def _wait_refused(self):
        """The process that accepts connections ends a moment after the broker; until then it resets them."""
        deadline = time.monotonic() + TIMEOUT
        while not self.activated and time.monotonic() < deadline:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
                sock.settimeout(1)
                try:
                    sock.connect(self.control_path)
                except (ConnectionRefusedError, FileNotFoundError):
                    return
                except OSError:
                    pass
            time.sleep(0.01)

    def discard(self):
        """At the end of a test, however it went."""
        if self.process is not None and self.process.poll() is None:
            self._end(signal.SIGKILL)
        for sock in self.activated:
            sock.close()
        # A preloaded library of the tests makes calls of its own.
        if TRIAL and self.served and self.program.resolve() == TRIAL and "LD_PRELOAD" not in self.environment:
            told = set(re.findall(r"^sandbox trial: (\w+.*)$", self.log(), re.M))
            assert {line.split()[0] for line in told} == {"getpriority"}, f"the filter would refuse {sorted(told)}"

    def log(self):
        """All that it wrote to standard error so far, over all its lives."""
        while self._log_pipe is not None:
            try:
                data = os.read(self._log_pipe, 65536)
            except BlockingIOError:
                break
            if not data:
                os.close(self._log_pipe)
                self._log_pipe = None
            self._log += data.decode(errors="replace")
        return self._log

    def wait_log(self, pattern):
        """Returns when a line that matches was written; the match."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            found = re.search(pattern, self.log())
            if found:
                return found
            left = deadline - time.monotonic()
            if left <= 0 or self._log_pipe is None:
                raise TimeoutError(f"nothing in the log matches {pattern!r}:\n{self._log}")
            select.select([self._log_pipe], [], [], left)

    def processor_nsec(self):
        """What its loop has used of a processor so far."""
        return int(pathlib.Path(f"/proc/{self.process.pid}/schedstat").read_text().split()[0])

    def price_of(self, act, times=5):
        """What its loop uses of a processor for it: the least of so many times, since the kernel counts interrupts for
        others, too."""
        found = []
        for _ in range(times):
            before = self.processor_nsec()
            act()
            found.append(self.processor_nsec() - before)
        return min(found)

    def processes(self):
        """Pids of all processes of brokers in this network namespace, of those that were killed as well."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and os.readlink(entry / "exe") == str(self.program) and \
                        os.readlink(entry / "ns/net") == os.readlink("/proc/self/ns/net"):
                    found.append(int(entry.name))
        return found

    def helpers(self, name):
        """Pids of its processes of that name, as in /proc/PID/comm."""
        def below(pid):
            for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
                for child in map(int, (task / "children").read_text(encoding="ascii").split()):
                    yield child
                    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                        yield from below(child)
        found = []
        for pid in below(self.process.pid):
            with contextlib.suppress(OSError):
                if pathlib.Path(f"/proc/{pid}/comm").read_text(encoding="ascii").strip() == name:
                    found.append(pid)
        return found

    def helper(self, name):
        """The one of that name; what is made after READY=1 may take a moment."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            found = self.helpers(name)
            if len(found) == 1:
                return found[0]
            if time.monotonic() > deadline:
                raise TimeoutError(f"processes named {name}: {found}")
            time.sleep(0.001)

    # Its policy.

    def policy(self, text, name="50-test.conf"):
        """Writes one policy file; a running broker takes no notice before reload()."""
        (self.config / "conf.d" / name).write_text(text)
        return self

    def reload(self):
        """By the tool, as an operator does; returns (exit status, output)."""
        return self.ctl("reload")

    def _place(self):
        return ["--runtime-dir", str(self.runtime)] if self.netns is None else ["--netns", self.netns]

    def ctl(self, *arguments):
        done = subprocess.run([str(BUILD / "sockbrokerctl"), *self._place(), *arguments],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
                              timeout=60, env=_environment())
        return done.returncode, done.stdout

    # What it says.

    def ask(self, text, fds=()):
        return wire.control(self.control_path, text, fds)

    def list(self):
        reply = self.ask("VERB=list")
        assert reply.result == "ok", reply
        return reply.lines

    def serving(self):
        """Cookies of the live sockets by (service, protocol, family)."""
        return {(entry["service"], entry["protocol"], entry["family"]): entry["cookie"]
                for entry in self.list() if entry["state"] == "live"}

    def status(self):
        """(the line of the broker itself, lines of services by name)"""
        reply = self.ask("VERB=status")
        assert reply.result == "ok", reply
        return reply.lines[0], {line["service"]: line for line in reply.lines[1:]}

    def snapshot(self):
        """All that must stay when a request or a policy is refused."""
        bindings = self.ask("VERB=bindings").lines
        return json.dumps([self.list(), bindings], sort_keys=True)
