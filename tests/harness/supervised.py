# SPDX-License-Identifier: LGPL-2.1-or-later
"""A program under sockbroker-run --supervise that does what a test says, line by line, and tells what it heard."""

import ast
import contextlib
import os
import pathlib
import select
import subprocess
import time

from harness import sandbox

# What the program knows. It is any program: nothing of it knows of the broker.
PROGRAM = r'''
import ctypes, errno, os, select, signal, socket, struct, subprocess, sys, threading, traceback
libc = ctypes.CDLL(None, use_errno=True)
def sock(protocol, address, port, v6only=None, listen=True, early=lambda s: None, family=None):
    family = family or (socket.AF_INET6 if ":" in address else socket.AF_INET)
    s = socket.socket(family, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM)
    if v6only is not None:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
    early(s)
    s.bind((address, port))
    if protocol == "tcp" and listen:
        s.listen(64)
    return s
def serve(s, name="served"):
    def run():
        while True:
            connection = s.accept()[0]
            connection.sendall(f"{name} {os.getpid()}\n".encode())
            connection.close()
    threading.Thread(target=run, daemon=True).start()
def received(s):
    assert select.select([s], [], [], 10)[0], "nothing came"
    return s.recvfrom(100)[0].decode()
names = {}
print("there", flush=True)
for line in sys.stdin:
    try:
        code = bytes.fromhex(line.strip()).decode()
        try:
            result = eval(code, globals())
        except SyntaxError:
            result = exec(code, globals())
        print("=" + repr(result))
    except OSError as error:
        print("!" + errno.errorcode.get(error.errno, str(error)))
    except BaseException:
        print("?" + repr(traceback.format_exc()))
    print("done", flush=True)
'''


class Program(sandbox.Sandboxed):
    def __init__(self, *options, uid=61001, gid=None, before=(), cwd=None, ready=True, pass_fds=()):
        self.options = options
        self.said = b""
        words = ["--supervise", *options, "/usr/bin/python3", "-c", PROGRAM]
        self.words = [*before, *sandbox.command(*words, uid=uid, gid=gid, ambient="")]
        self.process = subprocess.Popen(self.words, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, cwd=cwd, pass_fds=pass_fds)
        for fd in pass_fds:
            os.close(fd)
        os.set_blocking(self.process.stdout.fileno(), False)
        os.set_blocking(self.process.stderr.fileno(), False)
        self._text = b""
        if ready:
            self.lines_until("there")

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self.errors()
        self.process.stderr.close()

    def errors_at_end(self):
        return self.said.decode()

    def lines_until(self, last):
        deadline = time.monotonic() + sandbox.TIMEOUT
        while f"{last}\n".encode() not in self._text:
            left = deadline - time.monotonic()
            assert left > 0, f"no {last!r} within {sandbox.TIMEOUT} s after {self._text.decode()} {self.errors()}"
            select.select([self.process.stdout], [], [], left)
            data = self.process.stdout.read()
            if data == b"":
                raise AssertionError(f"ended with {self.process.wait()}: {self._text.decode()}{self.errors()}")
            self._text += data or b""
        lines, _, self._text = self._text.partition(f"{last}\n".encode())
        return lines.decode().splitlines()

    def do(self, code):
        """The value of the expression (or None of statements), or the name of the errno that it failed with."""
        self.say(code.encode().hex() + "\n")
        answer = self.lines_until("done")[-1]
        if answer[0] == "!":
            return answer[1:]
        assert answer[0] == "=", ast.literal_eval(answer[1:])
        try:
            return ast.literal_eval(answer[1:])
        except (ValueError, SyntaxError):
            return answer[1:]

    def errors(self):
        """What came on standard error so far."""
        self.said += self.process.stderr.read() or b""
        return self.said.decode()

    def wait_error(self, text):
        deadline = time.monotonic() + sandbox.TIMEOUT
        while text not in self.errors():
            left = deadline - time.monotonic()
            assert left > 0, f"no {text!r} in {self.errors()!r}"
            select.select([self.process.stderr], [], [], left)

    def supervisor(self):
        """Its pid."""
        [pid] = [int(path.parent.name) for path in pathlib.Path("/proc").glob("[0-9]*/comm")
                 if _is_supervisor_of(path, self.process.pid)]
        return pid


def start(*words, uid=61001, before=()):
    """Any program, by itself."""
    return subprocess.Popen([*before, *sandbox.command("--supervise", *words, uid=uid, ambient="")],
                            stdin=subprocess.DEVNULL)


def _is_supervisor_of(comm, pid):
    with contextlib.suppress(OSError):
        if comm.read_text().strip() != "sockbroker-sup":
            return False
        # All descriptors of the pair are closed; what tells them apart is the program's standard error.
        return os.readlink(comm.parent / "fd/2") == os.readlink(f"/proc/{pid}/fd/2")
    return False


def until(true):
    """Waits for what makes no event."""
    deadline = time.monotonic() + sandbox.TIMEOUT
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
