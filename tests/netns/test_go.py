# SPDX-License-Identifier: LGPL-2.1-or-later
"""Go as Debian 13 has it, whose listeners are MPTCP ones unless a program says otherwise: unchanged under
sockbroker-run --supervise, and registered by themselves. Its packages are unpacked, nothing is installed."""

import os
import pathlib
import re
import socket
import subprocess

import pytest

from harness import broker as broker_module
from harness import client, kernel, sandbox, servers
from harness.until import until
from test_unmodified import ask as ask_server
from words import ADDRESS, PORT, add_routes, everywhere, listen, section

pytestmark = pytest.mark.skipif("SOCKBROKER_LONG" not in os.environ, reason="compiles for a minute: SOCKBROKER_LONG")

UID = 61001
PACKAGE = "golang-1.24-go"
MPTCP = 262
EXAMPLE = broker_module.TOP / "docs/examples/serve.go"
WITHOUT_MPTCP = "//go:debug multipathtcp=0\n"


@pytest.fixture(name="build", scope="module")
def _build(tmp_path_factory):
    """build(name, source): the program, made by Go 1.24 of a module that says so."""
    done = subprocess.run([broker_module.TOP / "tests/servers/unpack", "--suite=trixie", PACKAGE], capture_output=True,
                          text=True, timeout=300, check=False)
    if done.returncode != 0:
        pytest.skip(f"{PACKAGE} of Debian 13 is not to be had here: {done.stderr.strip().splitlines()[-1:]}")
    go = pathlib.Path(done.stdout.strip()) / "usr/lib/go-1.24"
    folder = tmp_path_factory.mktemp("go")

    def build(name, source):
        (folder / name).mkdir()
        (folder / name / "main.go").write_text(source)
        (folder / name / "go.mod").write_text("module served\n\ngo 1.24\n")
        environment = {"GOROOT": str(go), "GOCACHE": str(folder / "cache"), "GOPATH": str(folder / "path"),
                       "GOTOOLCHAIN": "local", "GOPROXY": "off", "GOFLAGS": "-mod=mod", "CGO_ENABLED": "0",
                       "PATH": "/usr/bin:/bin"}
        subprocess.run([go / "bin/go", "build", "-o", "program"], cwd=folder / name, env=environment, check=True,
                       timeout=600)
        return folder / name / "program"

    return build


@pytest.fixture(name="server", scope="module")
def _server(build):
    return build("server", servers.GO)


def protocols_of_listeners(pid):
    """SO_PROTOCOL of those that the process has."""
    found = []
    pidfd = os.pidfd_open(pid)
    for fd, link in kernel.descriptors(pid).items():
        if link.startswith("socket:"):
            with socket.socket(fileno=kernel.pidfd_getfd(pidfd, fd)) as sock:
                if sock.family != socket.AF_UNIX and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    found.append(sock.getsockopt(socket.SOL_SOCKET, 38))
    os.close(pidfd)
    return found


def test_its_listener_is_an_mptcp_one_where_nothing_comes_between(server):
    with subprocess.Popen([server]) as process:
        try:
            until("it listens", lambda: protocols_of_listeners(process.pid))
            assert protocols_of_listeners(process.pid) == [MPTCP]
        finally:
            process.kill()


def test_s4_under_supervise_it_listens_by_tcp_unchanged_and_serves(broker, remote, server):
    add_routes()
    broker.policy(section("web", UID, *(listen("tcp", prefix, 80) for prefix in ("192.0.2.0/24", "2001:db8::/64"))))
    broker.start()
    [program] = sandbox.install(server)
    with sandbox.Sandboxed("--supervise", program, ambient="", uid=UID) as running:
        until("it serves", lambda: [row["state"] for row in broker.list()] == ["live"])
        assert {(row["protocol"], row["family"]) for row in broker.list()} == {("tcp", "dual")}
        assert protocols_of_listeners(running.process.pid) == [socket.IPPROTO_TCP]
        [like_it] = [one for one in servers.SERVERS if one.name == "Go, net/http"]
        for address in ADDRESS.values():
            assert ask_server(remote, "tcp", address, like_it) == "yes"


def started(broker, program):
    """What the example says first, as an ordinary user: its output, and on failure what it was answered."""
    add_routes()
    broker.policy(section("web", UID, everywhere())).start()
    [program] = sandbox.install(program)
    return subprocess.Popen([program], user=UID, group=UID, extra_groups=[], stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_listener_that_it_registers_by_itself_is_answered_with_what_to_do(broker, build):
    source = EXAMPLE.read_text()
    assert WITHOUT_MPTCP in source
    with started(broker, build("default", source.replace(WITHOUT_MPTCP, ""))) as process:
        said = process.communicate(timeout=client.TIMEOUT)[1]
        assert process.returncode == 1
    assert re.search(r"RESULT=mptcp\n", said) and "ListenConfig.SetMultipathTCP(false)" in said, said
    assert broker.list() == []


def test_the_example_serves_with_this_go_too(broker, build):
    with started(broker, build("example", EXAMPLE.read_text())) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            with socket.create_connection((ADDRESS["ipv4"], PORT), timeout=client.TIMEOUT) as asking:
                assert asking.makefile().readline() == "web in Go\n"
        finally:
            process.kill()
