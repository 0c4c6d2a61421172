# SPDX-License-Identifier: LGPL-2.1-or-later
"""Uids are free for who has subordinate ones (subuid(5)). However many of them hand over descriptors that whoever
closes them never comes back from, `notify` goes on for everybody else: what counts is the unit, or the slice of the
user, in which they run."""

import contextlib
import os
import signal
import socket
import time

import pytest

from harness import crowd_of_uids, kernel, long, silent_file, units
from harness.namespace import own_uid, sysctl
from harness.pace import Pace
from harness.until import until
from words import PREFIXES, add_routes, everywhere, handed_over, listen, section, who

ROOM = 16384  # descriptors of one process of the broker: with it 33 of those have room for 541,000
UIDS, MESSAGES = 400, 6  # 607,000 descriptors
PATIENCE = 2.5  # of an honest peer, as in test_flood.py


def honest_requests(web, attack):
    """Until the attack has sent all: how long each took, by both sockets."""
    took = {"notify": [], "control": []}
    while not attack.done() or len(took["notify"]) < 20:
        for name, act in {"notify": lambda: web.notify_and_wait("FDSTORE=1\nFDNAME=web", "tcp-ipv4"),
                          "control": lambda: web.register("tcp-ipv4")}.items():
            began = time.monotonic()
            act()
            took[name].append(time.monotonic() - began)
    return took


# The crowd's cgroups, and which of them the journal names.
CROWDS = {
    "one unit": (["evil.service"], ["evil.service"]),
    "the sessions of one user": (["user-1000.slice/session-1.scope", "user-1000.slice/session-2.scope",
                                  "user-1000.slice/user@1000.service/app.slice/evil.service"], ["user-1000.slice"]),
    "five units": ([f"evil{i}.service" for i in range(5)], [f"evil{i}.service" for i in range(5)]),
    "a unit of the container that the broker is in": (["box.scope/system.slice/evil.service"], ["evil.service"]),
}


def in_container(cgroup):
    """A command that is executed where this is the root of all cgroups, as far as it can see."""
    mount = 'mount -t cgroup2 none /sys/fs/cgroup && exec "$@"'
    return units.command_in(cgroup, "unshare", "--cgroup", "--mount", "/bin/sh", "-c", mount, "-")


@pytest.mark.parametrize("crowd", long.some(CROWDS, "the sessions of one user", "five units"))
def test_notify_goes_on_beside(broker, spawn, slice_, crowd):
    cgroups, named = CROWDS[crowd]
    where = [slice_.path / name for name in cgroups]
    for path in where:
        path.mkdir(parents=True)
    silent_file.make_device()
    sysctl("net/unix/max_dgram_qlen", 512)
    add_routes()
    broker.before = ["prlimit", f"--nofile={ROOM}:{ROOM}"]
    if "container" in crowd:
        broker.before = [*in_container(slice_.path / "box.scope"), *broker.before]
    broker.policy(section("web", 61001, everywhere())).start()
    web = spawn("web")
    handed_over(web, "tcp", "ipv4")
    pace = Pace()
    with crowd_of_uids.Crowd(own_uid(100), UIDS, MESSAGES, where) as attack:
        took = honest_requests(web, attack)
        for name, all_of_it in took.items():
            print(f"{crowd}: {name}: {len(all_of_it)}, median {sorted(all_of_it)[len(all_of_it) // 2] * 1e3:.1f} ms, "
                  f"slowest {max(all_of_it) * 1e3:.1f} ms")
        assert max(map(max, took.values())) < pace.allows(PATIENCE)
        assert who("tcp", "ipv4") == "web"
        for name in named:
            broker.wait_log(rf"messages of {name} to notify are dropped")
    for name in named:
        broker.wait_log(rf"{name} is heard on notify again; [1-9][0-9]* of its messages were dropped")
    until("nothing of it to be left", lambda: not broker.helpers("sb-quarantine"))


def test_where_nobody_is_in_a_group_all_processes_have_room(broker, spawn):
    """What is full and cannot end, since as many are ending as may be, does not keep what is for it in the queue."""
    silent_file.make_device()
    sysctl("net/unix/max_dgram_qlen", 512)
    add_routes()
    broker.before = ["prlimit", "--nofile=2048:2048"]  # 1,500 of others in a process, of which a uid has a third
    broker.policy(section("web", 61001, everywhere())).start()
    web = spawn("web")
    handed_over(web, "tcp", "ipv4")
    pace = Pace()
    with crowd_of_uids.Crowd(own_uid(100), 64, 3, []) as attack:  # 49,000
        took = honest_requests(web, attack)
        assert max(map(max, took.values())) < pace.allows(PATIENCE)


UNITS = 200


def unit_that_notifies(number, cgroup, go, start):
    """As a service with a user of its own that has just been started."""
    child = os.fork()
    if child == 0:
        try:
            os.close(start)
            (cgroup / "cgroup.procs").write_text("0", encoding="ascii")
            kernel.drop_privileges(61184 + number, 61184 + number)
            with socket.create_server(("127.0.0.1", 0)) as listener, \
                    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
                notify.connect("/run/sockbroker/notify")
                os.read(go, 1)
                socket.send_fds(notify, [b"FDSTORE=1\nFDNAME=s%d" % number], [listener.fileno()])
                signal.pause()
        finally:
            os._exit(1)
    return child


@pytest.mark.parametrize("beside", ["nothing", "a crowd"])
def test_many_units_that_notify_at_once_are_all_served(broker, slice_, beside):
    silent_file.make_device()
    sysctl("net/unix/max_dgram_qlen", 512)
    add_routes()
    broker.before = ["prlimit", f"--nofile={ROOM}:{ROOM}"]
    broker.policy("".join(f"[Service s{i}]\nUnit=s{i}.service\n" + listen("tcp", PREFIXES["ipv4"], 1000 + i)
                          for i in range(UNITS))).start()
    go, start = os.pipe()
    children = [unit_that_notifies(i, slice_.unit(f"s{i}.service"), go, start) for i in range(UNITS)]
    os.close(go)
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: [(os.kill(child, signal.SIGKILL), os.waitpid(child, 0)) for child in children])
        if beside == "a crowd":
            stack.enter_context(crowd_of_uids.Crowd(own_uid(100), UIDS, MESSAGES, [slice_.unit("evil.service")]))
            broker.wait_log("messages of evil.service to notify are dropped")
        began = time.monotonic()
        os.close(start)
        until("all units to be served", lambda: len(broker.list()) == UNITS)
        print(f"beside {beside}: {UNITS} units were served within {time.monotonic() - began:.2f} s")
