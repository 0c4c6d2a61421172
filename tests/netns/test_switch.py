# SPDX-License-Identifier: LGPL-2.1-or-later
"""A block of addresses that goes to one service or to another as a whole, switched by reloads of the real daemon as
fast as it takes them, under traffic of two hosts. Old and new divide the work between host prefixes and the prefix
that covers them in opposite ways: who took one step from each would be answered by a third service, which never must.
"""

import os
import time

import pytest

from harness import hosts, namespace, wire
from words import listen

SECONDS = float(os.environ.get("SOCKBROKER_SWITCH_SECONDS", "6"))
ENOUGH = SECONDS * 10  # reloads
PORTS = (53, 80, 443)
HOSTS = {"ipv4": [f"192.0.2.{i}" for i in range(256)], "ipv6": [f"2001:db8::{i:x}" for i in range(256)]}
BLOCKS = {"ipv4": "192.0.2.0/24", "ipv6": "2001:db8::/64"}
BOTH = ("tcp", "udp")


def service(name, *lines, absent="refuse"):
    uids = {"a": 61001, "b": 61002, "mixed": 61003, "ghost": 61004}
    return f"[Service {name}]\nUser={uids[name]}\nWhenAbsent={absent}\n" + "".join(lines)


# Somewhere else, so that each service is in both policies and keeps its sockets.
ELSEWHERE = {name: "".join(listen(protocol, prefix, 9) for protocol in BOTH
                           for prefix in (f"198.51.100.{n}/32", f"2001:db8:1::{n}/128"))
             for n, name in enumerate(("a", "b", "mixed", "ghost"), 1)}


def divided(each_host, absent, covering):
    """The block port by port and host by host to one service, the prefix that covers them to another."""
    block = "".join(listen(protocol, prefix, "*") for protocol in BOTH for prefix in BLOCKS.values())
    singles = "".join(listen(protocol, address, f"{PORTS[0]}-{PORTS[-1]}")
                      for protocol in BOTH for family in HOSTS.values() for address in family)
    parts = {each_host: singles, covering: block}
    return "".join(service(name, ELSEWHERE[name], parts.get(name, ""), absent=absent if name == each_host else "refuse")
                   for name in ELSEWHERE)


POLICIES = (divided("ghost", "next", "a"), divided("b", "refuse", "mixed"))


@pytest.fixture(name="traffic")
def _traffic(broker, spawn):
    """Two hosts, of which one asks over UDP and one over TCP, all of the block, both families, without a pause."""
    namespace.add_local_routes(*BLOCKS.values())
    broker.policy(POLICIES[0]).start()
    for uid, name in enumerate(("a", "b", "mixed"), 61001):
        one = spawn(name, uid)
        for label in BOTH:
            one.open(label, label, "127.0.0.1", dual=True)
        assert one.register(*BOTH).result == "ok"
    made = hosts.Hosts()
    clients = {protocol: made.add(protocol) for protocol in BOTH}
    for protocol, one in clients.items():
        one.begin([(protocol, address, port) for n, addresses in enumerate(zip(*HOSTS.values()))
                   for address in addresses for port in (PORTS[n % len(PORTS)],)])
        one.until_answers(50)
    yield clients
    made.kill()


def replace_policy(broker, text):
    """As an editor does: the new text takes the name in one step."""
    aside = broker.config / "aside"
    aside.write_text(text)
    aside.replace(broker.config / "conf.d/50-test.conf")


def test_a_block_switches_as_a_whole_under_traffic(broker, traffic):
    reloads = 0
    end = time.monotonic() + SECONDS
    with wire.Control(broker.control_path) as control:
        while time.monotonic() < end or reloads < ENOUGH:  # however slow the machine
            reloads += 1
            replace_policy(broker, POLICIES[reloads % 2])
            reply = control.request("VERB=reload")
            assert reply.result == "ok", reply
    for protocol, one in traffic.items():
        answers, failures = one.end()
        print(f"{reloads} reloads, {protocol}: {answers}, {len(failures)} lost")
        assert failures == [], "nothing is lost"
        assert set(answers) == {"a", "b"}, "the old rules or the new, and never a mix"
        assert min(answers.values()) > sum(answers.values()) / 10, answers
    status = broker.status()[1]
    assert status["mixed"]["lookups"] == 0
    assert status["a"]["no_socket"] == status["b"]["no_socket"] == 0
    assert status["ghost"]["no_socket"] == status["a"]["lookups"], "each step to the covering prefix was of one policy"


MANY_SOURCES = "".join(f"Source=10.{i}.0.0/16\n" for i in range(200))
WRONG = {
    "half a file": POLICIES[1][:len(POLICIES[1]) // 2].rstrip("0123456789:-"),
    "an unknown key": POLICIES[1] + "Sauce=10.0.0.0/8\n",
    "over MaxBindings=": POLICIES[1] + "[Service b]\n" + MANY_SOURCES,
    "a binding of two services": POLICIES[1] + service("a", listen("tcp", BLOCKS["ipv4"], "*")),
}


def test_a_policy_that_is_refused_leaves_the_old_rules_and_loses_nothing(broker, traffic):
    broker.policy("[Service late]\nUser=61009\nListenStream=9\n", "60-late.conf")  # another file is no way around it
    for _ in range(10):
        for what, text in WRONG.items():
            replace_policy(broker, text)
            reply = broker.ask("VERB=reload")
            assert reply.result == "malformed" and "the running policy stays" in reply.message, what
            assert broker.status()[0]["state"] == "degraded"
    for one in traffic.values():
        one.more(100)
        answers, failures = one.end()
        assert failures == [] and set(answers) == {"a"}
    (broker.config / "conf.d/60-late.conf").unlink()
    replace_policy(broker, POLICIES[1])
    assert broker.ask("VERB=reload").result == "ok"
    for protocol, one in traffic.items():
        assert one.ask(protocol, HOSTS["ipv4"][7], PORTS[0]).name == "b"
