# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is lost: connections and queries from the same host and from another one, as many as the machine takes, while
something happens to the service, the policy or the broker. The rows of docs/reliability.md that need no systemd."""

import os
import random
import re
import time

import pytest

from harness import broker as broker_module
from harness import namespace, pins
from harness.reliability import CONNECTIONS, nothing_lost, rounds
from stage import OTHER, WEB
from waiting import pass_on
from words import listen, section


# Hand-over.


def test_hand_over_where_the_old_listener_closes_at_once_and_migrates(stage):
    namespace.sysctl("net/ipv4/tcp_migrate_req", 0)

    def hand_over(_):
        old, stage.now = stage.now, stage.instance()
        labels = old.labels()
        old.finish_load(*labels)  # what it has accepted, and for UDP what its queue holds
        for label in labels:
            old.close(label)
        old.kill()

    stage.during("hand-over-migrate", "hand-over, the old instance closes at once; one `SO_REUSEPORT` group, "
                 "with the migration program", rounds(4, 50), hand_over)


def test_hand_over_where_the_old_one_accepts_until_it_has_drained(stage):
    def hand_over(_):
        old, stage.now = stage.now, stage.instance()
        status, said = stage.broker.ctl("wait", "web", "--for=drained", "--timeout=60s")
        assert status == 0, said
        old.finish_load(*old.labels())
        old.kill()

    stage.during("hand-over-drain", "hand-over, the old instance accepts until `sockbrokerctl wait --for=drained` is "
                                    "over",
                 rounds(1, 5), hand_over)


def test_hand_over_of_the_same_socket(stage):
    def hand_over(_):
        old, stage.now = stage.now, stage.new()
        labels = old.labels()
        for label in labels:
            pass_on(old, stage.now, label)
        assert stage.now.register(*labels, service="web").result == "ok"
        old.finish_load(*labels)
        old.kill()

    stage.during("hand-over-same", "hand-over, the same socket is passed on", rounds(4, 50), hand_over)


# Policy.


def test_policy_reload_taken_and_refused(stage):
    number = iter(range(1 << 30))

    def reload(_):
        more = section("more", 61003, *[listen("tcp", f"203.0.{i}.0/24", 1 + next(number)) for i in range(50)])
        stage.broker.policy(WEB + OTHER + more)
        assert stage.broker.reload()[0] == 0

    def reload_error(_):
        stage.broker.policy(WEB + OTHER + "Nonsense=1\n")
        assert stage.broker.reload()[0] != 0

    stage.during("reload", "policy reload, 50 other bindings each time", rounds(5, 200), reload)
    stage.during("reload-error", "policy reload that is refused", rounds(5, 200), reload_error)


# The broker.


def test_broker_restarted_stopped_and_killed(stage):
    def restart(_):
        stage.broker.stop()
        stage.broker.start()

    def stop_and_start(traffic):
        stage.broker.stop()
        traffic.more(CONNECTIONS // 10)
        stage.broker.start()

    def kill(traffic):
        stage.broker.kill()
        traffic.more(CONNECTIONS // 10)
        stage.broker.start()

    stage.during("restart", "broker restarted", rounds(1, 20), restart)
    stage.during("stop-start", "broker stopped, started later", rounds(1, 20), stop_and_start)
    stage.during("kill", "broker killed (`kill -9`), started later", rounds(1, 20), kill)


def test_broker_killed_at_random_again_and_again(stage):
    """At its start, in the midst of it, while it takes registrations and a policy."""
    chance = random.Random(4)
    before = sorted(line["cookie"] for line in stage.broker.list())

    def kill(_):
        stage.broker.kill()
        stage.broker.start(until_ready=False)
        time.sleep(chance.uniform(0, 0.6))  # the moment of death, whatever the broker is at by then
        if chance.random() < 0.5:
            stage.broker.policy(WEB + OTHER
                                + section("more", 61003, listen("tcp", "203.0.113.0/24", chance.randint(1, 99))))

    times = rounds(4, 200)
    with stage.traffic() as traffic:
        for _ in range(times):
            kill(traffic)
            traffic.more(CONNECTIONS // times)
        stage.broker.kill()
        stage.broker.start()
        traffic.more(50)
        nothing_lost("kill-random", "broker killed at random moments of its start and work, in a row", traffic.end(),
                     times)
    assert sorted(line["cookie"] for line in stage.broker.list()) == before


@pytest.mark.skipif("SOCKBROKER_TRIAL" in os.environ, reason="another build is made from the broker itself, not of a "
                                                             "trial")
def test_upgrade(stage):
    """Another build: same source, another version. Its program takes the place of the running one in the link."""
    old = (broker_module.BUILD / "sockbrokerd").read_bytes()
    version = stage.broker.ask("VERB=version").lines[0]["version"]
    word = re.compile(rb"(?<!_)" + re.escape(version.encode()) + rb"\0")  # not libbpf's, LIBBPF_0.1.0
    assert word.search(old)
    other = version[:-1] + ("8" if version[-1] == "9" else "9")
    with open("/run/sockbrokerd", "wb") as file:
        file.write(word.sub(other.encode() + b"\0", old))
    os.chmod("/run/sockbrokerd", 0o755)
    programs = ["/run/sockbrokerd", broker_module.BUILD / "sockbrokerd"]
    seen, loaded = [], set()

    def upgrade(_):
        stage.broker.stop()
        stage.broker.program = programs[len(seen) % 2]
        stage.broker.start()
        seen.append(stage.broker.ask("VERB=version").lines[0]["version"])
        loaded.add(pins.program_of_link(stage.broker.bpffs / "dispatch"))

    stage.during("upgrade", "upgrade: stopped, another build started, program replaced by link update", rounds(2, 20),
                 upgrade)
    assert seen[:2] == [other, version] and len(loaded) == len(seen), "each brought a program of its own"
