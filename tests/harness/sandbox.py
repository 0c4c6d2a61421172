# SPDX-License-Identifier: LGPL-2.1-or-later
"""sockbroker-run in front of a program, as a unit with a user and ambient capabilities would start it."""

import os
import pathlib
import select
import shutil
import subprocess
import time

from harness import broker

# /run is the test's own: what an ordinary user is to read or execute is copied there, for the tree may lie where it
# cannot.
BIN = pathlib.Path("/run/bin")
PROFILES = pathlib.Path("/run/sockbroker/sandbox")
# What the launcher starts with: a port below 1024, and enough to show that all of it is given up.
AMBIENT = "+net_bind_service,+net_raw,+setpcap"
TIMEOUT = 25


def install(*programs):
    """Copies programs and the profiles. After a broker has started, if there is to be one: it makes /run/sockbroker."""
    BIN.mkdir(mode=0o755, exist_ok=True)
    copied = []
    for program in (broker.BUILD / "sockbroker-run", *map(pathlib.Path, programs)):
        copied.append(pathlib.Path(shutil.copy(program, BIN)))
        copied[-1].chmod(0o755)
    PROFILES.mkdir(mode=0o755, parents=True, exist_ok=True)
    for profile in (broker.TOP / "sandbox/profiles").glob("*.profile"):
        (PROFILES / profile.name).write_bytes(profile.read_bytes())
        (PROFILES / profile.name).chmod(0o644)
    return copied[1:]


def command(*words, uid=61001, gid=None, ambient=AMBIENT):
    given = ["--ambient-caps", ambient, "--inh-caps", ambient] if ambient else []
    return ["setpriv", f"--reuid={uid}", f"--regid={gid or uid}", "--clear-groups", *given, str(BIN / "sockbroker-run"),
            *map(str, words)]


def run(*words, **named):
    """To its end: (exit status, standard output, standard error)."""
    done = subprocess.run(command(*words, **named), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=TIMEOUT, check=False)
    return done.returncode, done.stdout, done.stderr


class Sandboxed:
    """A program behind sockbroker-run, whose lines are read as it writes them."""

    def __init__(self, *words, **named):
        self.process = subprocess.Popen(command(*words, **named), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE)
        os.set_blocking(self.process.stdout.fileno(), False)
        self._text = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        # Before 6.11 a supervisor learns of the end, and closes what it has inherited, when somebody has waited for it.
        self.process.wait()
        self.process.communicate()

    def say(self, text):
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def lines_until(self, last):
        """The lines up to one that is `last`, without it, that were not given out yet."""
        deadline = time.monotonic() + TIMEOUT
        while f"{last}\n".encode() not in self._text:
            left = deadline - time.monotonic()
            assert left > 0, f"no {last!r} within {TIMEOUT} s after {self._text.decode()}"
            select.select([self.process.stdout], [], [], left)
            data = self.process.stdout.read()
            if data == b"":
                _, said = self.process.communicate()
                raise AssertionError(f"ended with {self.process.returncode}: {self._text.decode()}{said.decode()}")
            self._text += data or b""
        lines, _, self._text = self._text.partition(f"{last}\n".encode())
        return lines.decode().splitlines()

    def status(self):
        """/proc/PID/status of the program."""
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
