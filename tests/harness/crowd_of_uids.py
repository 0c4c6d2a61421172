# SPDX-License-Identifier: LGPL-2.1-or-later
"""python3 crowd_of_uids.py BROKER UID UIDS MESSAGES CGROUP...: UIDS users from UID on, each a process in one of the
cgroups, send MESSAGES to `notify`, each with 253 descriptors of a file whose close hangs the uid BROKER. Nobody who has
sent one is there any more when the broker looks who it was. Says "done" when all have sent what they wanted, and ends
with its standard input. Runs as root, who stands for a user with many subordinate uids."""

import os
import pathlib
import signal
import socket
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TOP)]

from harness import kernel, silent_file  # noqa: E402  pylint: disable=wrong-import-position

NOTIFY = "/run/sockbroker/notify"
MAX_FDS = 253
CLONE_NEWNS = 0x00020000
AT_ONCE = 100  # processes


class Crowd:
    """The program, for a with statement."""

    def __init__(self, uid, uids, messages, cgroups):
        self._log = pathlib.Path(f"/run/crowd-of-uids-{os.getpid()}")
        with open(self._log, "w+b") as log:
            self._process = subprocess.Popen([sys.executable, __file__, str(os.getuid()), str(uid), str(uids),
                                              str(messages), *map(str, cgroups)],
                                             stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT,
                                             start_new_session=True)

    def __enter__(self):
        return self

    def done(self):
        text = self._log.read_text(encoding="utf-8")
        if self._process.poll() is not None or text not in ("", "done\n"):
            raise RuntimeError("the attack did not come off: " + text)
        return text == "done\n"

    def __exit__(self, *_):
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(20)
            self._process.stdin.close()


def _send(fd, uid, messages, cgroup):
    if cgroup is not None:
        (pathlib.Path(cgroup) / "cgroup.procs").write_text("0", encoding="ascii")
    kernel.drop_privileges(uid, uid)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.connect(NOTIFY)
        for _ in range(messages):
            socket.send_fds(notify, [b"X=1"], [fd] * MAX_FDS)


def main(broker, uid, uids, messages, cgroups):
    kernel.unshare(CLONE_NEWNS)
    file = silent_file.SilentFile((silent_file.FLUSH,), silent_to=broker)
    running = 0
    for i in range(uids):
        if os.fork() == 0:
            _send(file.fd, uid + i, messages, cgroups[i % len(cgroups)] if cgroups else None)
            os._exit(0)
        running += 1
        if running == AT_ONCE:
            os.wait()
            running -= 1
    for _ in range(running):
        os.wait()
    print("done", flush=True)
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:5]), sys.argv[5:])
