# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a policy does to this host where that is probably not meant: told by verify, by reload and by status."""

import json
import socket

import pytest

from harness import namespace, wire
from words import add_routes, handed_over, listen, section

HOST = namespace.HOST4


def told(broker, *arguments):
    """Exit status, and what is warned of."""
    status, text = broker.ctl("--config-dir", str(broker.config), "--json=short", *arguments)
    value = json.loads(text)
    if arguments[0] == "status":
        return status, value["warnings"]
    return status, [f"{row['file']}:{row['line']}: {row['message']}" for row in value]


@pytest.fixture(name="taken")
def _taken(remote):  # pylint: disable=unused-argument
    """A listener on an address of this host."""
    with socket.create_server((HOST, 8080)) as one:
        yield one


@pytest.mark.parametrize("verb", ["verify", "reload", "status"])
def test_s15_a_listener_that_a_binding_takes_over_is_named_with_the_line(broker, taken, verb):
    # pylint: disable=unused-argument
    broker.policy(section("web", 61001, listen("tcp", "192.0.2.0/24", 80),
                          listen("tcp", f"{HOST}/32", "8000-8999"))).start()
    add_routes()
    status, (warning, ) = told(broker, verb)
    assert status == 0 and "50-test.conf:4: " in warning
    assert f"listens on tcp {HOST}:8080 of this host" in warning and "root" in warning and "web" in warning


def test_a_socket_that_is_registered_for_the_service_is_no_strangers(broker):
    add_routes()
    broker.policy("[Service web]\nGroup=0\nListenStream=192.0.2.0/24:8080\n").start()
    with socket.create_server(("0.0.0.0", 8080)) as one:
        assert len(told(broker, "verify")[1]) == 1
        assert wire.control(broker.control_path, "FDSTORE=1\nFDNAME=web", [one.fileno()]).result == "ok"
        assert told(broker, "verify", "--runtime-dir", str(broker.runtime)) == (0, [])
        assert told(broker, "status") == (0, [])


def test_s15_strict_fails_for_them_and_the_text_alone_has_none(broker, taken):  # pylint: disable=unused-argument
    broker.policy(section("web", 61001, listen("tcp", f"{HOST}/32", 8080)))
    assert told(broker, "verify")[0] == 0
    status, warnings = told(broker, "verify", "--strict")
    assert status == 1 and len(warnings) == 1
    assert told(broker, "verify", "--strict", "--offline") == (0, [])


def test_s15_a_prefix_of_which_nothing_is_local_until_there_is_a_route(broker):
    broker.policy(section("web", 61001, listen("tcp", "192.0.2.0/24", 80), listen("udp", "2001:db8::/64", 80)))
    _, (warning, ) = told(broker, "verify")
    assert ":3: ListenStream=: no address of 192.0.2.0/24 and 1 more prefix is local" in warning
    add_routes()
    assert told(broker, "verify") == (0, [])
    namespace.run("ip", "route", "del", "local", "2001:db8::/64", "dev", "lo")
    assert ":4: ListenDatagram=: no address of 2001:db8::/64 is local" in told(broker, "verify")[1][0]
    namespace.run("ip", "-6", "route", "add", "local", "2001:db8::7", "dev", "lo", "table", "77")
    assert told(broker, "verify") == (0, []), "a route of any table, for some of it"


def test_s15_udp_of_the_ports_that_clients_of_this_host_ask_from(broker, remote):  # pylint: disable=unused-argument
    broker.policy(section("game", 61001, listen("udp", f"{HOST}/32", "*")))
    _, (warning, ) = told(broker, "verify")
    assert f":3: ListenDatagram=: {HOST} is an address of this host" in warning
    namespace.sysctl("net/ipv4/ip_local_port_range", "20000 20100")
    broker.policy(section("game", 61001, listen("udp", f"{HOST}/32", "20200-30000")))
    assert told(broker, "verify") == (0, [])


def test_s10_udp_of_a_port_that_the_kernel_gives_to_anybody_until_it_is_reserved(broker):
    add_routes()
    broker.policy(section("vpn", 61001, listen("udp", "192.0.2.0/24", 51820)))
    status, (warning, ) = told(broker, "verify")
    assert status == 0 and ":3: ListenDatagram=: the kernel gives the port of service vpn" in warning
    assert warning.endswith("add 51820 to net.ipv4.ip_local_reserved_ports")
    namespace.sysctl("net/ipv4/ip_local_reserved_ports", "80,51000-51002,51820")
    assert told(broker, "verify") == (0, [])


def test_status_says_of_a_policy_on_disk_that_it_is_not_in_force(broker, taken):  # pylint: disable=unused-argument
    broker.policy("").start()
    assert told(broker, "status") == (0, [])
    broker.policy(section("web", 61001, listen("tcp", f"{HOST}/32", 8080)))
    status, (warning, ) = told(broker, "status")
    assert status == 0 and warning == (f"{broker.config}/conf.d: the policy on disk is not the one in force, see "
                                       "sockbrokerctl diff for what a reload would do")
    (broker.config / "conf.d/50-test.conf").unlink()
    assert told(broker, "status") == (0, []), "the broker may have another directory"
    broker.policy("nonsense\n")
    assert broker.reload()[0] == 1
    assert told(broker, "status") == (1, []), "that is what degraded means"


@pytest.mark.parametrize("verb", ["verify", "reload", "status"])
def test_s15_a_group_of_sockets_that_spans_two_services_is_named(broker, spawn, verb):
    add_routes()
    broker.policy(section("one", 61001, listen("udp", "192.0.2.0/25", 53))
                  + section("two", 61001, listen("udp", "192.0.2.128/25", 53))).start()
    both = spawn("one")
    for label, service in (("a", "one"), ("b", "two")):
        handed_over(both, "udp", "ipv4", label, service=service, port=5353, reuseport=True)
    status, (warning, ) = told(broker, verb)
    assert status == 0 and ":1: services one and two have sockets bound to udp 127.0.0.1:5353" in warning, warning
    both.close("b")
    assert told(broker, verb) == (0, [])
