# SPDX-License-Identifier: LGPL-2.1-or-later
"""As test_supervise_load.py, a stock HAProxy in master-worker mode with several threads: reload, configuration test and
kill -9 under load. Installed or, with SOCKBROKER_LONG, unpacked from Debian's package."""

import contextlib
import os
import pathlib
import signal
import subprocess
import time

import pytest

import under_load
from harness import sandbox, servers, supervised
from harness.hammer import has_ended, nothing_failed, only_accepted_ones_failed
from under_load import UID

[SERVER] = [server for server in servers.SERVERS if server.name == "HAProxy -W"]
SHARDS = servers.HAPROXY_SHARDS


def tree(pid):
    """A process and all below it."""
    children = []
    with contextlib.suppress(OSError):
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in tree(int(child)))]


class Haproxy:
    def __init__(self, configuration):
        root = servers.root_of(SERVER)
        self.program = servers.program(SERVER, "haproxy", root)
        if self.program is None:
            pytest.skip("haproxy is not installed, and only SOCKBROKER_LONG unpacks it")
        self.environment = servers.environment(SERVER, root)
        servers.FOLDER.mkdir(mode=0o755)
        os.chown(servers.FOLDER, UID, UID)
        (servers.FOLDER / "conf").write_text(configuration)
        self.process = None

    def start(self):
        command = sandbox.command("--supervise", str(self.program), *SERVER.arguments, ambient="")
        with open(servers.FOLDER / "log", "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=self.environment)
        return self

    def workers(self):
        return set(tree(self.process.pid)[1:])

    def reload(self):
        under_load.reload(self, signal.SIGUSR2)

    def kill_9(self):
        """All of it at once. The times before and after."""
        before = time.monotonic()
        under_load.stop(self.process.pid)  # it forks nobody any more who would be left
        pids = tree(self.process.pid)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        supervised.until(lambda: all(map(has_ended, pids)))
        return before, time.monotonic()


@pytest.fixture(name="serve")
def _serve(broker):
    """serve(configuration, policy lines): an HAProxy that serves port 80 of both families."""
    started = []

    def begin(configuration, *lines):
        def make():
            started.append(Haproxy(configuration).start())
            return started[0]
        return under_load.begin(broker, make, 2, *lines)

    yield begin
    for one in started:
        one.kill_9()
        print((servers.FOLDER / "log").read_text()[-2000:])


each_layout = pytest.mark.parametrize("configuration, lines", [
    (servers.HAPROXY, ["Handover=replace"]),
    (servers.HAPROXY.replace("expose-fd listeners", ""), ["Handover=replace"]),
    (SHARDS, ["Handover=share"]),
], ids=["passed_on", "bound_again", "shards"])


@each_layout
def test_a_reload_loses_nothing(broker, serve, configuration, lines):
    haproxy = serve(configuration, *lines)
    hammers = under_load.clients()
    under_load.again_and_again(hammers, haproxy.reload)
    nothing_failed(hammers, "haproxy SIGUSR2")
    assert broker.process.poll() is None


def test_a_configuration_test_loses_nothing(broker, serve):
    haproxy = serve(SHARDS, "Handover=share")
    hammers = under_load.clients()
    before = broker.list()

    def check_configuration():
        words = ["--supervise", "--no-register", str(haproxy.program), "-c", "-f", "/run/server/conf"]
        done = subprocess.run(sandbox.command(*words, ambient=""), env=haproxy.environment, capture_output=True,
                              text=True, timeout=sandbox.TIMEOUT, check=False)
        assert done.returncode == 0, done.stderr
    under_load.again_and_again(hammers, check_configuration)
    nothing_failed(hammers, "haproxy -c")
    assert broker.list() == before


@each_layout
def test_kill_9_with_hold_sec_under_load_loses_only_what_was_accepted(broker, serve, configuration, lines):
    haproxy = serve(configuration, "HoldSec=30", *lines)
    number = len(broker.list())
    hammers = under_load.clients()

    def die_and_start_again():
        death = haproxy.kill_9()
        under_load.wait_until_held(broker)
        haproxy.start()
        under_load.wait_for_sockets(broker, number)
        return death
    deaths = under_load.again_and_again(hammers, die_and_start_again)
    only_accepted_ones_failed(hammers, deaths, "kill -9 of haproxy")
