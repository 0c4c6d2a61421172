# SPDX-License-Identifier: LGPL-2.1-or-later
"""Processes that hold the sockets of services with HoldSec=: each has one service, and there are 64 at most."""

from harness.until import until
from words import add_routes, listen, open_socket, section

MOST = 64


def register(web, name):
    open_socket(web, "tcp", "ipv4", name)
    assert web.register(name, service=name).result == "ok"


def test_a_service_beyond_the_limit_is_served_and_not_held_and_shares_nobodys_holder(broker, spawn):
    add_routes()
    ports = {f"s{i:02}": 8000 + i for i in range(MOST + 1)}
    last = f"s{MOST:02}"
    broker.before = ["prlimit", "--nofile=4096:4096"]
    broker.policy("".join(section(name, 61001, listen("tcp", "192.0.2.0/24", port), "HoldSec=30")
                          for name, port in ports.items())).start()
    web = spawn("web")
    for name in ports:
        register(web, name)
    assert len(broker.helpers("sb-holder")) == MOST
    broker.wait_log(f"{last} has registered now are not held: the broker holds those of {MOST} services at most")
    assert any("sockets of 1 services with HoldSec= are not held" in one for one in broker.status()[0]["warnings"])
    web.kill()
    until("all others are held", lambda: sum(one["state"] == "held" for one in broker.list()) == MOST)
    assert {one["service"] for one in broker.list() if one["state"] == "held"} == set(ports) - {last}
