# SPDX-License-Identifier: LGPL-2.1-or-later
"""Under load: what operators do to a stock nginx under sockbroker-run --supervise costs no client its connection. With
SOCKBROKER_LONG ten thousand connections and more each."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import time

import pytest

import under_load
from harness import sandbox, servers, supervised
from harness.hammer import Hammer, has_ended, nothing_failed, only_accepted_ones_failed
from under_load import CONNECTIONS, ROUNDS, UID
from words import handed_over, listen, section

NGINX = servers.NGINX.format(daemon="off", more="").replace('"served\\n"', '"nginx, you asked\\n"')


class Nginx:
    def __init__(self, configuration=NGINX):
        self.program = servers.program(servers.SERVERS[1], "nginx", None)
        if self.program is None:
            pytest.skip("nginx is not installed")
        servers.FOLDER.mkdir(mode=0o755)
        os.chown(servers.FOLDER, UID, UID)
        (servers.FOLDER / "nginx.conf").write_text(configuration)
        self.words = [str(self.program), "-e", "stderr", "-c", "/run/server/nginx.conf"]
        self.process = None

    def start(self):
        command = sandbox.command("--supervise", *self.words, ambient="")
        with open(servers.FOLDER / "log", "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return self

    def become_daemon(self):
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(30)
        (servers.FOLDER / "nginx.conf").write_text(NGINX.replace("daemon off", "daemon on"))
        assert self.start().process.wait(30) == 0
        supervised.until(pid_or_none)  # written by the child, when its parent has ended

    def pid(self):
        return int((servers.FOLDER / "pid").read_text())

    def workers(self):
        return set(pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split())

    def reload(self):
        under_load.reload(self, signal.SIGHUP)

    def end(self):
        with contextlib.suppress(OSError, ValueError):
            os.kill(self.pid(), signal.SIGKILL)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@pytest.fixture(name="serve")
def _serve(broker):
    """serve(configuration, sockets, policy lines): an nginx that serves port 80 of both families."""
    started = []

    def begin(configuration, sockets, *lines):
        def make():
            started.append(Nginx(configuration).start())
            return started[0]
        nginx = under_load.begin(broker, make, sockets, *lines)
        supervised.until(nginx.workers)  # until it starts them, a signal only leaves a mark that nobody looks at
        return nginx

    yield begin
    for nginx in started:
        nginx.end()
        for pid in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (pid / "comm").read_text().strip() == "nginx" and (pid / "root").samefile("/") and \
                        os.readlink(pid / "ns/net") == os.readlink("/proc/self/ns/net"):
                    os.kill(int(pid.name), signal.SIGKILL)


def test_a_start_is_not_warned_of_the_family_that_comes_second(broker, serve, spawn):
    """Of a service that has only one family the journal tells, and so would have told of nginx."""
    serve(NGINX, 2, section("half", 61002, listen("tcp", "192.0.2.0/24", 8080), listen("tcp", "2001:db8::/64", 8080)))
    half = spawn("half", 61002)
    handed_over(half, "tcp", "ipv4")
    broker.wait_log("warn: half was registered by .* serves IPv4 only")
    assert broker.log().count("warn: ") == 1
    assert "warning" not in (servers.FOLDER / "log").read_text()


@pytest.fixture(name="nginx")
def _nginx(serve):
    return serve(NGINX, 2, "HoldSec=30", "Handover=replace")


def test_a_reload_loses_nothing(broker, nginx):
    hammers = under_load.clients()
    under_load.again_and_again(hammers, nginx.reload)
    nothing_failed(hammers, "nginx -s reload")
    assert broker.process.poll() is None


def test_a_reload_of_workers_with_sockets_of_their_own_loses_nothing(serve):
    nginx = serve(NGINX.replace(":80;", ":80 reuseport;").replace(" 80;", " 80 reuseport;"), 4, "Handover=share")
    hammers = under_load.clients()
    under_load.again_and_again(hammers, nginx.reload)
    nothing_failed(hammers, "nginx -s reload, reuseport")


def test_a_configuration_test_loses_nothing(broker, nginx):  # pylint: disable=unused-argument
    hammers = [Hammer("192.0.2.7", 80)]

    def check_configuration():
        status, _, said = sandbox.run("--supervise", "--no-register", *nginx.words, "-t", ambient="")
        assert status == 0 and "test is successful" in said, said
    under_load.again_and_again(hammers, check_configuration)
    nothing_failed(hammers, "nginx -t")
    assert {one["pid"] for one in broker.list()} == {nginx.process.pid}


def test_an_upgrade_of_the_program_loses_nothing(broker, nginx):
    """SIGUSR2: the new master inherits the sockets, over execve(2). nginx does so only where it is a daemon."""
    nginx.become_daemon()
    under_load.wait_for_sockets(broker, 2)
    hammers = under_load.clients()
    for _ in range(max(1, ROUNDS // 3)):
        old = nginx.pid()
        os.kill(old, signal.SIGUSR2)
        supervised.until(lambda: pid_or_none() not in (old, None))  # pylint: disable=cell-var-from-loop
        os.kill(old, signal.SIGQUIT)
        for hammer in hammers:
            hammer.more(CONNECTIONS)
        supervised.until(lambda: not (servers.FOLDER / "pid.oldbin").exists())
    nothing_failed(hammers, "nginx USR2")
    assert [one for one in broker.list() if one["state"] == "live"]


def test_a_daemon_is_known_by_the_process_that_serves(broker, nginx):
    """The process that called listen(2) has ended: its child has the sockets, and they are not held."""
    nginx.become_daemon()
    supervised.until(lambda: {(one["pid"], one["state"]) for one in broker.list()} == {(nginx.pid(), "live")})


def pid_or_none():
    try:
        return int((servers.FOLDER / "pid").read_text())
    except (OSError, ValueError):
        return None


def kill_9(broker, nginx):
    """All of it at once, until the broker holds its sockets. The times before and after."""
    before = time.monotonic()
    under_load.stop(nginx.process.pid)  # it forks nobody any more who would be left
    workers = nginx.workers()
    nginx.process.kill()
    nginx.process.wait()
    for pid in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    supervised.until(lambda: all(map(has_ended, workers)))
    after = time.monotonic()
    under_load.wait_until_held(broker)
    return before, after


def test_kill_9_with_hold_sec_loses_no_client_that_waits(broker, nginx):
    """Connections that nginx has accepted die with it. All that come while nobody is there are answered by the next."""
    for _ in range(ROUNDS):
        cookies = {one["cookie"] for one in broker.list()}
        kill_9(broker, nginx)
        waiting = [socket.create_connection((address, 80), 20) for _ in range(10)
                   for address in ("192.0.2.7", "2001:db8::7")]
        nginx.start()
        for connection in waiting:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            connection.settimeout(20)
            with connection:
                assert b"200 OK" in connection.recv(4096)
        assert {one["cookie"] for one in broker.list()} == cookies
        under_load.wait_for_sockets(broker, 2)


def test_kill_9_with_hold_sec_under_load_loses_only_what_was_accepted(broker, nginx):
    hammers = under_load.clients()

    def die_and_start_again():
        death = kill_9(broker, nginx)
        nginx.start()
        under_load.wait_for_sockets(broker, 2)
        return death
    deaths = under_load.again_and_again(hammers, die_and_start_again)
    only_accepted_ones_failed(hammers, deaths, "kill -9 of nginx")
