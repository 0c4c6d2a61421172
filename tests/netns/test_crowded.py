# SPDX-License-Identifier: LGPL-2.1-or-later
"""A user with as many connections to the broker as it may have: whoever asks on one more hears why not, by the library
and by each tool, whether it has sent its request before the broker closed the connection or not."""

import contextlib
import select
import shutil
import socket
import subprocess

import pytest

from harness import broker as broker_module
from harness import sandbox
from harness.kernel import acting_as
from words import add_routes, everywhere, section

UID = 61001
MANY = 900
AS_USER = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
# The command, its exit status, and how often it is tried: each try is one of chance.
TOOLS = {
    "library": ([f"{sandbox.BIN}/library_client", "crowded", "web"], 0, 1),  # tries 400 times itself
    "sockbrokerctl": ([f"{sandbox.BIN}/sockbrokerctl", "list"], 1, 20),
    "sockbroker-run": ([f"{sandbox.BIN}/sockbroker-run", "--service=web", "--listen-stream=127.0.0.1:0", "/bin/true"],
                       77, 20),
}


def connect_until_one_is_answered(stack, broker):
    """Nobody has asked anything on any of them."""
    answered = select.poll()
    with acting_as(UID):
        while not answered.poll(0):
            one = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            one.connect(broker.control_path)  # waits while the queue of the listener is full
            answered.register(one, select.POLLIN)
            assert one.fileno() < MANY


@pytest.mark.parametrize("tool", TOOLS)
def test_who_has_too_many_connections_is_told_so_each_time(broker, tool):
    add_routes()
    broker.policy(section("web", UID, everywhere())).start()
    sandbox.install(broker_module.BUILD / "tests/netns/library_client", broker_module.BUILD / "sockbrokerctl")
    shutil.copy(broker_module.BUILD / "broker/lib/libsockbroker.so.0.1.0", sandbox.BIN / "libsockbroker.so.0")
    command, status, times = TOOLS[tool]
    with contextlib.ExitStack() as stack:
        connect_until_one_is_answered(stack, broker)
        for _ in range(times):
            done = subprocess.run(["env", f"LD_LIBRARY_PATH={sandbox.BIN}", *AS_USER, *command],
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == status and (status == 0 or "rate-limited" in done.stderr), done
