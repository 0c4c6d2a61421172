# SPDX-License-Identifier: LGPL-2.1-or-later
"""docs/examples: a service in each language registers its listener and serves a prefix, as an ordinary user. C and
Python always, the others with SOCKBROKER_LONG where their compilers are. And those that take over what is held serve
all of it."""

import contextlib
import os
import pathlib
import shutil
import socket
import struct
import subprocess

import pytest

from harness import broker as broker_module
from harness import client
from harness.until import until
from holding import HELD, states
from words import ADDRESS, PORT, add_routes, everywhere, open_socket, section

UID = 61001
EXAMPLES = broker_module.TOP / "docs/examples"
ROOM = pathlib.Path("/run/examples")
# Debian's, if it is there: others are newer, and take what it does not know.
RUSTC = shutil.which("rustc", path="/usr/bin") or "rustc"
# The tool that it takes, how it is built, and what is started.
LANGUAGES = {
    "C": ("gcc", ["gcc", "-Wall", "-Wextra", "-Werror", "serve.c", "-Iinclude", "-Llib", "-lsockbroker", "-o", "c"],
          ["./c"]),
    "Python": ("python3", None, ["/usr/bin/python3", "serve.py"]),
    "Go": ("go", ["go", "build", "-o", "go-serve", "serve.go"], ["./go-serve"]),
    "Rust": (RUSTC, [RUSTC, "--edition", "2021", "-Llib", "-o", "rust", "serve.rs"], ["./rust"]),
    "Node": ("node", None, ["node", "serve.mjs"]),
}
LONG = pytest.mark.skipif("SOCKBROKER_LONG" not in os.environ, reason="takes seconds to compile: SOCKBROKER_LONG")


@pytest.mark.parametrize("language",
                         ["C", "Python", *(pytest.param(name, marks=LONG) for name in ("Go", "Rust", "Node"))])
def test_the_example_serves_a_prefix(broker, language):
    tool, build, command = LANGUAGES[language]
    if not shutil.which(tool):
        pytest.skip(f"there is no {tool}")
    add_routes()
    broker.policy(section("web", UID, everywhere())).start()
    furnish()
    with running(build, command) as service:
        assert service.stdout.readline() == "ready\n"
        assert ask() == f"web in {language}\n"
        for half_closed in (False, True) * 50:
            reset(half_closed)
        assert ask() == f"web in {language}\n", "clients that reset their connections end no service"


def furnish():
    shutil.copytree(EXAMPLES, ROOM)
    (ROOM / "include").mkdir()
    (ROOM / "lib").mkdir()
    shutil.copy(broker_module.TOP / "broker/lib/sockbroker.h", ROOM / "include")
    for name in ("libsockbroker.so", "libsockbroker.so.0"):
        shutil.copy(broker_module.BUILD / "broker/lib/libsockbroker.so", ROOM / "lib" / name)
    shutil.copy(broker_module.BUILD / "sockbrokerctl", ROOM)


@contextlib.contextmanager
def running(build, command):
    environment = {"PATH": f"{ROOM}:{os.environ['PATH']}", "LD_LIBRARY_PATH": str(ROOM / "lib"), "HOME": "/run",
                   "GOCACHE": "/run/go", "GO111MODULE": "off"}
    if build:
        subprocess.run(build, cwd=ROOM, env=os.environ | environment | {"HOME": os.environ.get("HOME", "/run")},
                       check=True)
    with subprocess.Popen(command, cwd=ROOM, env=environment, user=UID, group=UID, extra_groups=[],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as service:
        try:
            yield service
        finally:
            service.kill()


def ask(said=b""):
    with socket.create_connection((ADDRESS["ipv4"], PORT), timeout=client.TIMEOUT) as asking:
        asking.sendall(said)
        return asking.makefile().readline()


def reset(half_closed):
    """A client that has gone before it is answered: who writes to it hears ECONNRESET, or, where it had closed its half
    before, EPIPE, with SIGPIPE."""
    with socket.create_connection((ADDRESS["ipv4"], PORT), timeout=client.TIMEOUT) as asking:
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if half_closed:
            asking.shutdown(socket.SHUT_WR)


# Around the example of sockbroker_register(3).
SERVES_ALL = """
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

static int none(void) { return -ENOENT; }

int main(void) {
        struct pollfd ready[8];
        sockbroker_client *broker = NULL;
        int *fds = NULL, n = sockbroker_new(&broker, NULL);
        if (n == 0)
                n = listeners_of_web(broker, none, &fds);
        if (n < 1 || n > 8)
                return 1;
        for (int i = 0; i < n; i++)
                ready[i] = (struct pollfd){ .fd = fds[i], .events = POLLIN };
        puts("ready");
        fflush(stdout);
        for (;;) {
                poll(ready, n, -1);
                for (int i = 0; i < n; i++) {
                        int client = ready[i].revents ? accept(ready[i].fd, NULL, NULL) : -1;
                        if (client >= 0) {
                                dprintf(client, "web\\n");
                                close(client);
                        }
                }
        }
}
"""


def example_of_the_manual():
    page = (broker_module.TOP / "docs/man/sockbroker_register.3").read_text(encoding="utf-8")
    code = page.partition('.\\" c\n')[2].partition("\n.EE")[0]
    return code.replace("\\-", "-").replace("\\e", "\\")


# The service, how its program is built, what is started, what it says when it has begun, what a client says.
TAKING_OVER = {
    "serve.c": ("web", *LANGUAGES["C"][1:], "ready\n", b""),
    "manual": ("web", ["gcc", "-Wall", "-Wextra", "-Werror", "manual.c", "-Iinclude", "-Llib", "-lsockbroker", "-o",
                       "manual"], ["./manual"], "ready\n", b""),
    "steady.py": ("steady", None, ["/usr/bin/python3", "steady.py"], "has the socket of the instance before it\n",
                  b"hello\n"),
}


@pytest.mark.parametrize("program", TAKING_OVER)
def test_of_several_held_sockets_none_is_left_to_itself(broker, spawn, program):
    """Clients of one that is open and not accepted from would wait for good."""
    name, build, command, begun, hello = TAKING_OVER[program]
    add_routes()
    broker.policy(section(name, UID, everywhere(), HELD, "Handover=share")).start()
    furnish()
    (ROOM / "manual.c").write_text(example_of_the_manual() + SERVES_ALL, encoding="utf-8")
    shutil.copy(broker_module.TOP / "units/examples/steady.py", ROOM)
    old = spawn(name)
    for label in "ab":
        open_socket(old, "tcp", "ipv4", label)
        assert old.register(label).result == "ok"
    old.kill()
    until("both to be held", lambda: states(broker, name) == ["held"] * 2)
    with running(build, command) as service:
        assert service.stdout.readline() == begun
        assert states(broker, name) == ["live"] * 2
        assert all(ask(hello) for _ in range(20))
