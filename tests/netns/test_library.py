# SPDX-License-Identifier: LGPL-2.1-or-later
"""libsockbroker against a real broker, used from C by an ordinary user: each function keeps what sockbroker.h promises,
and valgrind finds no error, no leak and no descriptor left open."""

import os
import pathlib
import shutil
import socket
import subprocess

import pytest

from harness import broker as broker_module
from harness import client
from words import ADDRESS, PORT, add_routes, everywhere, section

UID = 61001
ROOM = pathlib.Path("/run/library")  # the build tree may be closed to that user
VALGRIND = ["valgrind", "--quiet", "--error-exitcode=99", "--leak-check=full", "--show-leak-kinds=all",
            "--errors-for-leak-kinds=all"]


def valgrind():
    """Of descriptors that are left open it tells up to 3.23 alone: 3.24 takes it for an error, and cannot be told
    otherwise, that the library asks which numbers are free."""
    version = subprocess.run(["valgrind", "--version"], capture_output=True, text=True, check=True).stdout
    numbers = tuple(int(number) for number in version.strip().removeprefix("valgrind-").split(".")[:2])
    return VALGRIND if numbers >= (3, 24) else [*VALGRIND, "--track-fds=yes"]


@pytest.fixture(name="web")
def _web(broker):
    add_routes()
    ROOM.mkdir()
    shutil.copy(broker_module.BUILD / "tests/netns/library_client", ROOM)
    shutil.copy(broker_module.BUILD / "broker/lib/libsockbroker.so.0.1.0", ROOM / "libsockbroker.so.0")
    return broker.policy(section("web", UID, everywhere(), "HoldSec=30"))


def started(*arguments, before=(), stdin=subprocess.DEVNULL):
    environment = {"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": str(ROOM), "LC_ALL": "C"}
    return subprocess.Popen([*before, str(ROOM / "library_client"), *arguments], user=UID, group=UID, extra_groups=[],
                            cwd="/", env=environment, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True)


def run(*arguments, before=()):
    process = started(*arguments, before=before)
    said = "".join(process.communicate(timeout=60))
    assert process.returncode == 0, said
    return said


@pytest.mark.parametrize("part", ["blocking", "polling"])
def test_each_function_keeps_what_the_header_promises_and_valgrind_finds_nothing(web, part):
    web.start()
    assert shutil.which("valgrind"), "valgrind is missing: .ci/install"
    said = run(part, "web", before=valgrind())
    # Of descriptors valgrind tells each that is open at the end, but for the three that it was started with.
    assert "Open file descriptor" not in said.replace("<inherited from parent>", ""), said
    assert web.list() == [] or part == "polling", "what was removed is not there"


def test_what_a_service_leaves_is_retrieved_by_its_next_instance(web):
    web.start()
    first = started("serve", "web", "first")
    assert first.stdout.readline() == "registered\n", first.stderr.read()
    assert ask() == "first"
    first.kill()
    first.wait()
    web.wait_log(r"waits")
    with socket.create_connection((ADDRESS["ipv4"], PORT), timeout=client.TIMEOUT) as waiting:
        second = started("serve", "web", "second")
        assert second.stdout.readline() == "retrieved\n", second.stderr.read()
        assert waiting.makefile().readline() == "second\n", "and who has waited meanwhile is served"
    second.kill()
    second.wait()


def test_what_a_process_has_no_descriptors_for_stays_held(web):
    web.start()
    first = started("serve", "web", "first")
    assert first.stdout.readline() == "registered\n", first.stderr.read()
    first.kill()
    first.wait()
    web.wait_log(r"waits")
    with socket.create_connection((ADDRESS["ipv4"], PORT), timeout=client.TIMEOUT) as waiting:
        second = started("scarce", "web", "second", stdin=subprocess.PIPE)
        assert second.stdout.readline() == "refused\n", second.stderr.read()
        assert [row["state"] for row in web.list()] == ["held"]
        print(file=second.stdin, flush=True)
        assert second.stdout.readline() == "retrieved\n", second.stderr.read()
        assert waiting.makefile().readline() == "second\n"
    second.kill()
    second.wait()


def ask():
    with socket.create_connection((ADDRESS["ipv4"], PORT), timeout=client.TIMEOUT) as asking:
        return asking.makefile().readline().strip()


def test_what_was_displaced_is_waited_for(web):
    web.policy(section("web", UID, everywhere())).start()
    run("drain", "web")


def test_a_child_does_not_use_what_its_parent_made(web):
    web.start()
    run("fork", "web")


def test_children_that_were_made_during_requests_keep_neither_connections_nor_the_descriptor_busy(web):
    """They have each file of their parent: closing it there ends nothing."""
    web.start()
    with started("fork-amid", "web", stdin=subprocess.PIPE) as program:
        assert program.stdout.readline() == "answered\n", program.stderr.read()
        web.stop()
        web.start()
        assert "".join(program.communicate("\n", timeout=60)) == ""
        assert program.returncode == 0


def test_a_thread_that_is_cancelled_in_a_request_ends_alone_and_leaves_nothing_open(web):
    web.start()
    run("cancelled", "web")


def test_a_broker_that_is_absent_or_silent_is_an_error_in_time(web):
    run("absent")
    web.runtime.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(web.control_path)
        os.chmod(web.control_path, 0o666)
        listener.listen(0)  # after the first connections not even one is taken
        run("silent")


def test_what_systemd_passes_is_registered_by_its_name(web):
    web.policy(section("web", UID, everywhere())).start()
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    process = subprocess.run(
        ["/bin/bash", "-c", f'LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=web:other exec setpriv --reuid={UID} '
                            f'--regid={UID} '
         f'--clear-groups {ROOM}/library_client passed web 3<&{sockets[0].fileno()} 4<&{sockets[1].fileno()}'],
        pass_fds=[one.fileno() for one in sockets], env={"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": str(ROOM)},
        capture_output=True, text=True, check=False, timeout=60)
    assert process.returncode == 0, process.stderr
    assert [entry["bound"] for entry in web.list()] == [f"127.0.0.1:{sockets[0].getsockname()[1]}"]
    for one in sockets:
        one.close()
