# SPDX-License-Identifier: LGPL-2.1-or-later
"""Any user may keep the kernel's lock of all interfaces for long: he takes thousands of them down, in a network
namespace of his own. Who asks the broker waits for no look at the interfaces."""

import pathlib
import subprocess
import time

import pytest

from harness import namespace
from harness.until import until
from words import everywhere, section

SLOW = 1.0  # seconds of a look, while there is this file
FILE = pathlib.Path("/run/slow")
SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <net/if.h>
#include <poll.h>
#include <unistd.h>

struct if_nameindex *if_nameindex(void)
{
        struct if_nameindex *(*real)(void) = (struct if_nameindex *(*)(void))dlsym(RTLD_NEXT, "if_nameindex");
        if (access("/run/slow", F_OK) == 0)
                poll(0, 0, MILLISECONDS);
        return real();
}
"""


@pytest.fixture(name="slow")
def _slow(broker):
    source, library = pathlib.Path("/run/links.c"), pathlib.Path("/run/links.so")
    source.write_text(SOURCE.replace("MILLISECONDS", str(int(SLOW * 1000))))
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    broker.environment["LD_PRELOAD"] = str(library)


def test_nobody_waits_for_a_look_at_the_interfaces(broker, slow):  # pylint: disable=unused-argument
    broker.policy(section("web", 61001, everywhere(), "Interface=lan0")).start()
    FILE.touch()
    namespace.run("ip", "link", "add", "lan0", "type", "veth", "peer", "name", "lan1")
    slowest, end = 0, time.monotonic() + 2 * SLOW
    while time.monotonic() < end:
        began = time.monotonic()
        assert broker.ask("VERB=version").result == "ok"
        slowest = max(slowest, time.monotonic() - began)
    assert slowest < SLOW * 0.8, "as long as a look, if it waited for one"
    broker.wait_log("rules follow a change of interfaces")
    # What changes during a look is seen too, by the one after it.
    namespace.run("ip", "link", "del", "lan0")
    namespace.run("ip", "link", "add", "lan0", "type", "veth", "peer", "name", "lan1")
    until("two more looks", lambda: broker.log().count("rules follow a change of interfaces") >= 2)
