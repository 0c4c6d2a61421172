# SPDX-License-Identifier: LGPL-2.1-or-later
"""docs/examples: a service in each language registers its listener and serves a prefix, as an ordinary user. C and
Python always, the others with SOCKBROKER_LONG where their compilers are."""

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
EXAMPLES = broker_module.TOP / "docs/examples"
ROOM = pathlib.Path("/run/examples")
# The tool that it takes, how it is built, and what is started.
LANGUAGES = {
    "C": ("gcc", ["gcc", "-Wall", "-Wextra", "-Werror", "serve.c", "-Iinclude", "-Llib", "-lsockbroker", "-o", "c"],
          ["./c"]),
    "Python": ("python3", None, ["/usr/bin/python3", "serve.py"]),
    "Go": ("go", ["go", "build", "-o", "go-serve", "serve.go"], ["./go-serve"]),
    "Rust": ("rustc", ["rustc", "--edition", "2021", "-Llib", "-o", "rust", "serve.rs"], ["./rust"]),
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
    shutil.copytree(EXAMPLES, ROOM)
    (ROOM / "include").mkdir()
    (ROOM / "lib").mkdir()
    shutil.copy(broker_module.TOP / "broker/lib/sockbroker.h", ROOM / "include")
    for name in ("libsockbroker.so", "libsockbroker.so.0"):
        shutil.copy(broker_module.BUILD / "broker/lib/libsockbroker.so", ROOM / "lib" / name)
    shutil.copy(broker_module.BUILD / "sockbrokerctl", ROOM)
    environment = {"PATH": f"{ROOM}:{os.environ['PATH']}", "LD_LIBRARY_PATH": str(ROOM / "lib"), "HOME": "/run",
                   "GOCACHE": "/run/go", "GO111MODULE": "off"}
    if build:
        subprocess.run(build, cwd=ROOM, env=os.environ | environment | {"HOME": os.environ.get("HOME", "/run")},
                       check=True)
    with subprocess.Popen(command, cwd=ROOM, env=environment, user=UID, group=UID, extra_groups=[],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as service:
        try:
            assert service.stdout.readline() == "ready\n"
            with socket.create_connection((ADDRESS["ipv4"], PORT), timeout=client.TIMEOUT) as asking:
                assert asking.makefile().readline() == f"web in {language}\n"
        finally:
            service.kill()
