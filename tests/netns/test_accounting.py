# SPDX-License-Identifier: LGPL-2.1-or-later
"""Accounting=binding: each binding of the service is counted for itself; `bindings` tells."""

import pytest

from harness import client, namespace
from words import LOOPBACK, add_routes, handed_over, listen, section

POLICY = section("web", 61001, "Accounting=binding", listen("tcp", "192.0.2.0/28", 80),
                 listen("tcp", "192.0.2.16/28", 80), listen("tcp", "2001:db8::/64", "1000-2000"),
                 "ListenStream=9000") + section("plain", 61002, listen("tcp", "192.0.2.32/28", 80))
RANGE = {"192.0.2.0/28": "192.0.2.1", "192.0.2.16/28": "192.0.2.17", "2001:db8::/64": "2001:db8::1"}


@pytest.fixture(name="web")
def _web(broker, spawn):
    add_routes()
    namespace.add_local_routes("10.0.0.0/8")
    broker.policy(POLICY).start()
    web = spawn("web", 61001)
    for family in LOOPBACK:
        handed_over(web, "tcp", family)
    return web


def counts(broker):
    """{prefix or None: (lookups, no_socket)} of web; those of plain are null."""
    found = {}
    for line in broker.ask("VERB=bindings").lines:
        assert list(line)[-2:] == ["lookups", "no_socket"], "behind all other fields"
        if line["service"] == "web":
            found[line["prefix"]] = (line["lookups"], line["no_socket"])
        else:
            assert line["lookups"] is None and line["no_socket"] is None
    return found


def ask(prefix, times):
    for _ in range(times):
        assert client.tcp_ask(RANGE[prefix], 1234 if ":" in prefix else 80).name == "web"


def test_each_binding_is_counted_for_itself(broker, web):
    ask("192.0.2.0/28", 3)
    ask("2001:db8::/64", 2)
    client.tcp_ask("10.1.1.1", 9000)
    client.tcp_ask("2001:db8::7", 9000)
    expected = {"192.0.2.0/28": (3, 0), "192.0.2.16/28": (0, 0), "2001:db8::/64": (2, 0), None: (2, 0)}
    assert counts(broker) == expected, "ports alone are one line for both families"
    web.close("tcp-ipv4")
    with pytest.raises(ConnectionRefusedError):
        client.tcp_ask("192.0.2.17", 80)
    assert counts(broker) == expected | {"192.0.2.16/28": (1, 1)}


def test_counters_stay_over_reloads_and_restarts(broker, web):  # pylint: disable=unused-argument
    ask("192.0.2.0/28", 3)
    broker.policy(POLICY.replace("192.0.2.16/28", "192.0.2.48/28"))
    assert broker.reload()[0] == 0
    assert counts(broker)["192.0.2.0/28"] == (3, 0)
    assert counts(broker)["192.0.2.48/28"] == (0, 0)
    broker.kill()
    ask("192.0.2.0/28", 2)
    broker.start()
    assert counts(broker)["192.0.2.0/28"] == (5, 0)
    assert broker.status()[1]["web"]["lookups"] == 5


def test_a_source_is_counted_for_itself(broker, web):  # pylint: disable=unused-argument
    broker.policy(section("web", 61001, "Accounting=binding", listen("tcp", "192.0.2.0/28", 80),
                          "Source=127.0.0.0/8 10.0.0.0/8", "Interface=lo"))
    assert broker.reload()[0] == 0
    assert client.tcp_ask("192.0.2.1", 80, source="127.0.0.1").name == "web"
    for _ in range(2):
        assert client.tcp_ask("192.0.2.1", 80, source="10.1.2.3").name == "web"
    assert {(line["source"], line["interface"], line["lookups"])
            for line in broker.ask("VERB=bindings").lines} == {("127.0.0.0/8", "lo", 1), ("10.0.0.0/8", "lo", 2)}


def test_there_may_be_so_many(broker, web):  # pylint: disable=unused-argument
    broker.stop()
    broker.ctl("--bpffs", str(broker.bpffs), "unload")
    (broker.config / "sockbrokerd.conf").write_text("[Broker]\nMaxAccountedBindings=5\n")
    broker.start()
    assert broker.ask("VERB=status").lines[0]["state"] == "running"
    broker.policy(POLICY + section("web", 61001, listen("tcp", "192.0.2.64/28", 80)))
    status, said = broker.reload()
    assert status == 1
    assert "6 bindings of services with Accounting=binding are more than MaxAccountedBindings=5 allows, raise" in said
    assert "192.0.2.64/28" not in counts(broker)
