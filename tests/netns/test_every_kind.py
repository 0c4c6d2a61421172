# SPDX-License-Identifier: LGPL-2.1-or-later
"""Random descriptors of every kind beside an honest service: nothing that a process can hold, and no combination of it,
keeps the broker or the honest waiting, and nothing is left of it."""

import collections
import concurrent.futures
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from harness import every_kind, hostile, long, silent_file, worker
from harness.namespace import own_uid
from harness.pace import Pace
from harness.until import until
from words import add_routes, everywhere, open_socket, section, who

HONEST = 61001
ADMITTED = 61900  # a group, whose members register what they like for the services "evil" and "evil-held"
# descriptors of one attacker; then all that hangs is let go, so that the next is not barred from the start
AT_ONCE = 20
PARTS, MESSAGES = (11, 200) if long.LONG else (1, 100)  # and in each of them
SENT = collections.Counter()  # in all parts
# Whatever the kernel of this machine does not have; of these there must be some among thousands.
REQUIRED = {"tcp-listener", "full-listener", "lingering", "locked-pipe", "corked-udp", "fuse-flush", "fuse-fstat",
            "nested", "nested-hanging", "unix-listener", "epoll-of-epoll", "pidfd", "memfd", "raw-of-a-user-namespace"}
USUAL, SLOWEST = 0.25, 2.5  # seconds that 9 of 10 honest requests, and all of them, may take on a busy machine


def attackers(seed, messages=MESSAGES):
    """One after the other; how often each kind was sent."""
    sent = collections.Counter()
    for number in range(messages // AT_ONCE):
        done = subprocess.run(
            [sys.executable, every_kind.__file__, str(seed + number), str(AT_ONCE), str(own_uid(number % 50)),
             str(ADMITTED if number % 2 else own_uid(number % 50))],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=60, check=True)
        sent.update(json.loads(done.stdout))
    return sent


def descriptors(pid):
    return len(list(pathlib.Path(f"/proc/{pid}/fd").iterdir()))


def configure(broker):
    silent_file.make_device()
    for folder in every_kind.FOLDERS:
        pathlib.Path(folder).mkdir(mode=0o777)
        os.chmod(folder, 0o777)
    broker.policy(section("web", HONEST, everywhere(80)) + f"[Service evil]\nGroup={ADMITTED}\n" + everywhere(81)
                  + f"[Service evil-held]\nGroup={ADMITTED}\nHoldSec=1\n" + everywhere(82)).start()


def seed_of(part):
    seed = int(os.environ.get("SOCKBROKER_SEED", time.time_ns() // 1000 % 1_000_000)) + 1000 * part
    print(f"SOCKBROKER_SEED={seed}")
    return seed


def test_a_broker_that_is_killed_amid_random_descriptors_has_a_successor_at_once(broker, spawn):
    add_routes()
    configure(broker)
    web = spawn("web", HONEST)
    open_socket(web, "tcp", "ipv4")
    with concurrent.futures.ThreadPoolExecutor(1) as beside:
        attack = beside.submit(attackers, seed_of(0), 4 * AT_ONCE)
        while True:
            last = attack.done()
            assert web.register("tcp-ipv4").result == "ok"
            broker.process.send_signal(signal.SIGKILL)
            broker.process.wait(15)
            began = time.monotonic()
            broker.start()
            assert time.monotonic() - began < 10
            assert web.register("tcp-ipv4").result == "ok"
            assert who("tcp", "ipv4", 80) == "web"
            if last:
                break
            with contextlib.suppress(concurrent.futures.TimeoutError):
                attack.result(0.5)
    until("sockets of those who are gone to be forgotten", lambda: {row["service"] for row in broker.list()} <= {"web"})
    broker.stop()
    until("nothing to be left", lambda: not broker.processes())


@pytest.mark.parametrize("part", range(PARTS))
def test_random_descriptors_of_every_kind_keep_nobody_waiting_and_leave_nothing(broker, part):
    configure(broker)
    for name, count in (("sb-door", 1), ("sb-intake", 2), ("sb-disposal", 2)):
        until(f"all of {name}", lambda name=name, count=count: len(broker.helpers(name)) >= count)
    names = ("sb-zygote", "sb-door", "sb-intake", "sb-disposal", "sb-holder", "names")
    before = {name: len(broker.helpers(name)) for name in names}
    seed = seed_of(part)
    pace = Pace()
    good = worker.Worker(hostile.Honest, HONEST, "web")
    try:
        waited = good.latencies(0.2)
        open_before = descriptors(broker.process.pid)
        with concurrent.futures.ThreadPoolExecutor(1) as beside:
            attack = beside.submit(attackers, seed)
            while not attack.done():
                waited += good.latencies(0.5)
                broker.log()  # or its standard error blocks the writer of the journal
        sent = attack.result()
        ordered = sorted(waited)
        print(f"{sum(sent.values())} descriptors of {len(sent)} kinds, {len(ordered)} honest requests, median "
              f"{ordered[len(ordered) // 2] * 1e3:.1f} ms, 99 % {ordered[int(len(ordered) * 0.99)] * 1e3:.1f} ms, "
              "slowest "
              f"{ordered[-1] * 1e3:.1f} ms: {dict(sent)}")
        SENT.update(sent)
        assert part < 10 or (sum(SENT.values()) > 2000 and set(SENT) >= REQUIRED), SENT
        assert ordered[int(len(ordered) * 0.9)] < pace.allows(USUAL) and ordered[-1] < pace.allows(SLOWEST)
        until("all that was left behind to be gone",
              lambda: {name: len(broker.helpers(name)) for name in names} == before)
        until("descriptors to be closed", lambda: descriptors(broker.process.pid) <= open_before + 40)
        until("sockets of those who are gone to be forgotten",
              lambda: {row["service"] for row in broker.list()} <= {"web"})
    finally:
        good.kill()
    broker.stop()
