# SPDX-License-Identifier: LGPL-2.1-or-later
"""What an operator sees of the broker: running, stopped, hung, unloaded; sockets with their queues."""

import json
import os
import signal
import socket
import subprocess
import time

from harness import broker as broker_module
from harness import client
from words import ADDRESS, PORT, add_routes, everywhere, handed_over, section


def told(broker, *arguments):
    """Status, the value that --json prints."""
    done = subprocess.run([broker_module.BUILD / "sockbrokerctl", "--runtime-dir", broker.runtime, "--bpffs",
                           broker.bpffs, "--json=short", *arguments], capture_output=True, text=True, timeout=30,
                          check=False)
    return done.returncode, json.loads(done.stdout)


def as_nobody():
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)


def test_status_tells_a_stopped_broker_from_an_unloaded_one(broker, spawn):
    add_routes()
    broker.policy(section("web", 61001, everywhere()) + section("dns", 61002, everywhere(9))).start()
    one = spawn("web", 61001)
    cookie = handed_over(one, "tcp", "ipv4")
    newest = handed_over(one, "tcp", "ipv4", label="newer")
    assert client.ask("tcp", ADDRESS["ipv4"], PORT).name == "web"
    running = told(broker, "status")
    listed = told(broker, "list")
    broker.stop()
    status, said = told(broker, "status")
    assert status == 3 and said["state"] == "stopped" and said["dispatches"] is True
    of_policy = ("bindings", "announced", "drained")
    counted = [{name: value for name, value in row.items() if name not in of_policy} for row in running[1]["services"]]
    assert said["services"] == counted, "as the broker counted them"
    assert said["services"][1]["live"] == said["services"][1]["draining"] == 1
    assert told(broker, "status", "web")[0] == 0, "it serves, whoever runs"
    assert told(broker, "status", "dns")[0] == 3
    assert told(broker, "status", "none")[0] == 4
    status, rows = told(broker, "list")
    assert status == 0 and {(row["cookie"], row["state"]) for row in rows} == {(cookie, "draining"), (newest, "live")}
    def drop_queue(row):
        return {key: value for key, value in row.items() if not key.startswith("queue")}
    assert sorted(map(str, map(drop_queue, rows))) == sorted(map(str, map(drop_queue, listed[1])))
    assert client.ask("tcp", ADDRESS["ipv4"], PORT).name == "web"
    status, text = broker.ctl("--bpffs", str(broker.bpffs), "unload")
    assert status == 0, text
    status, said = told(broker, "status")
    assert status == 3 and said["dispatches"] is False and said["reason"] == "unloaded: nothing is dispatched"
    assert told(broker, "list") == (3, told(broker, "list")[1]) and told(broker, "list")[1]["result"] == "unreachable"
    status, said = broker.ctl("--bpffs", str(broker.bpffs), "list")
    assert status == 3 and "unloaded: nothing is dispatched" in said


def told_nobody(broker, *arguments):
    """Of one who is not root: status, and all that was said."""
    with open(broker_module.BUILD / "sockbrokerctl", "rb") as program:
        done = subprocess.run([f"/proc/self/fd/{program.fileno()}", "--runtime-dir", broker.runtime, "--bpffs",
                               broker.bpffs, *arguments], pass_fds=[program.fileno()], preexec_fn=as_nobody,
                              capture_output=True, text=True, timeout=20, check=False)
    return done.returncode, done.stdout + done.stderr


def test_others_than_root_are_told_that_they_cannot_know(broker):
    broker.policy(section("web", 61001, everywhere())).start()
    broker.stop()
    status, said = told_nobody(broker, "status")
    assert status == 3 and "not running, whether dispatch goes on only root can see" in said
    assert "listed" not in said, "how many services there are is not known either"
    status, said = told_nobody(broker, "list")
    assert status == 3 and "only root can see" in said
    status, said = told_nobody(broker, "status", "web")
    assert status == 3 and "only root can see" in said and "no policy names" not in said
    assert told(broker, "status", "none")[0] == 4


def test_status_of_a_degraded_broker_is_1(broker):
    broker.policy("").start()
    assert broker.ctl("status")[0] == 0
    broker.policy("[Service web]\nFrob=1\n")
    assert broker.reload()[0] == 1
    assert told(broker, "status")[0] == 1


def test_a_stopped_process_is_a_hang_and_says_so(broker):
    broker.policy("").start()
    os.kill(broker.process.pid, signal.SIGSTOP)
    try:
        status, said = told(broker, "list", "--timeout=1s")
        assert status == 1 and said["result"] == "no-answer" and "does not answer" in said["message"]
        started = time.monotonic()
        assert broker.ctl("unload", "--timeout=1s")[0] == 1
        assert time.monotonic() - started < 10
    finally:
        os.kill(broker.process.pid, signal.SIGCONT)


def test_list_has_the_accept_queue_and_its_limit(broker, spawn):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    one = spawn("web", 61001)
    handed_over(one, "tcp", "ipv4")
    row = told(broker, "list", "web")[1][0]
    assert row["queue"] == 0 and row["queue_limit"] > 0 and row["drops"] == 0
    os.kill(one.pid, signal.SIGSTOP)
    waiting = []
    for _ in range(3):
        waiting.append(socket.create_connection((ADDRESS["ipv4"], PORT), timeout=8))
    row = told(broker, "list", "web")[1][0]
    assert row["queue"] == 3
    status, text = broker.ctl("list", "--no-legend", "w*")
    assert status == 0 and f" 3/{row['queue_limit']} " in text
    os.kill(one.pid, signal.SIGCONT)
    for connection in waiting:
        connection.close()


def test_list_has_the_datagrams_that_a_udp_socket_dropped(broker, spawn):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    one = spawn("web", 61001)
    handed_over(one, "udp", "ipv4")
    assert told(broker, "list")[1][0]["drops"] == 0
    os.kill(one.pid, signal.SIGSTOP)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _ in range(4000):  # more than a default buffer holds
            sock.sendto(b"x" * 1000, (ADDRESS["ipv4"], PORT))
    row = told(broker, "list")[1][0]
    os.kill(one.pid, signal.SIGCONT)
    assert row["queue"] > 0 and row["drops"] > 0 and row["queue_limit"] is None
