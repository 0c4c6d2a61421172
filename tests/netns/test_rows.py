# SPDX-License-Identifier: LGPL-2.1-or-later
"""Rows of the talk that say where packets go: S1 prefixes and ports, S2 all ports, S3 many, S4 no privilege, S6 here."""

import pytest

from harness import client, kernel, namespace, talk
from words import listen

FAMILIES = {"ipv4": ("1.0.0.0/24", "1.0.0.1", "127.0.0.1"),
            "ipv6": ("2606:4700::/32", "2606:4700::1", "::1")}


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


def test_s1_each_prefix_and_port_reaches_its_service(broker, spawn, remote):
    namespace.add_local_routes(*talk.PREFIXES)
    broker.policy(talk.POLICY).start()
    talk.start_services(spawn)
    for protocol, address, port, expected in talk.QUESTIONS:
        for answer in (client.ask(protocol, address, port), remote.ask(protocol, address, port)):
            assert answer.name == expected, (protocol, address, port)
            assert answer.local == (address, port), "the service sees the address and port that were asked"
            assert answer.source == (address, port), "the answer comes from the address and port that were asked"


def test_s1_other_ports_and_protocols_of_the_prefixes_are_nobodys(broker, spawn):
    namespace.add_local_routes(*talk.PREFIXES)
    broker.policy(talk.POLICY).start()
    talk.start_services(spawn)
    for protocol, address, port in (("udp", "1.0.0.1", 54), ("tcp", "1.0.0.1", 53), ("udp", "172.65.128.1", 80),
                                    ("udp", "172.65.128.1", 53), ("udp", "2606:4700::1", 80), ("tcp", "1.0.0.1", 81),
                                    ("tcp", "2606:4700:7000::1", 53), ("udp", "2400:cb01::1", 53)):
        with pytest.raises(OSError):
            client.ask(protocol, address, port)


def test_s1_a_default_route_binding_leaves_loopback_alone(broker, spawn):
    """http has 0.0.0.0/0 and ::/0, which do not cover 127.0.0.0/8 and ::1."""
    namespace.add_local_routes(*talk.PREFIXES)
    broker.policy(talk.POLICY).start()
    talk.start_services(spawn)
    for address in ("127.0.0.1", "127.9.9.9", "::1"):
        with pytest.raises(ConnectionRefusedError):
            client.tcp_ask(address, 80)


def test_s1_ipv6_rules_say_nothing_of_ipv4(broker, spawn):
    namespace.add_local_routes("1.0.0.0/24", "2606:4700::/32")
    broker.policy("[Service web]\nUser=61001\nListenStream=[::]/0:80\n").start()
    web = spawn("web")
    web.open("dual", "tcp", "127.0.0.1", dual=True)
    assert web.register("dual").result == "ok"
    assert client.tcp_ask("2606:4700::1", 80).name == "web"
    with pytest.raises(ConnectionRefusedError):
        client.tcp_ask("1.0.0.1", 80)


def test_s2_all_tcp_ports_reach_one_socket(broker, spawn, family):
    prefix, address, loopback = FAMILIES[family]
    namespace.add_local_routes(prefix)
    broker.policy("[Service all]\nUser=61001\n" + listen("tcp", prefix, "*")).start()
    everything = spawn("all")
    everything.open("tcp", "tcp", loopback)
    assert everything.register("tcp").result == "ok"
    everything.only_note_ports("tcp")
    for first in range(1, 65536, 4096):  # no more than the listener's queue holds
        ports = range(first, min(first + 4096, 65536))
        client.connect_to_ports(address, ports, loopback)
        assert everything.wait_seen_ports(ports[-1]) == ports[-1]
    everything.resume("tcp")
    assert client.tcp_ask(address, 65535).local == (address, 65535)


def test_s2_all_udp_ports_reach_one_socket(broker, spawn, family):
    prefix, address, loopback = FAMILIES[family]
    namespace.add_local_routes(prefix)
    broker.policy("[Service all]\nUser=61001\n" + listen("udp", prefix, "*")).start()
    everything = spawn("all")
    everything.open("udp", "udp", loopback)
    assert everything.register("udp").result == "ok"
    assert client.udp_ask_ports(address, range(1, 65536), loopback) == set(range(1, 65536))


def test_s3_hundreds_of_prefixes_and_services_without_a_wildcard_bind(broker, spawn):
    """107 IPv4 and 50 IPv6 AnyIP prefixes, 285 services: the first 157 have one prefix each for both protocols'
    ports 80 and 53, the others further ports of the same prefixes."""
    prefixes = [f"10.{i}.0.0/16" for i in range(107)] + [f"2001:db8:{i:x}::/48" for i in range(50)]
    namespace.add_local_routes(*prefixes)
    services, policy = [], ""
    for i in range(285):
        prefix, port = prefixes[i % len(prefixes)], 80 if i < len(prefixes) else 443
        services.append((f"s{i}", 61001 + i, prefix, port))
        policy += f"[Service s{i}]\nUser={61001 + i}\n{listen('tcp', prefix, port)}{listen('udp', prefix, port)}"
    broker.policy(policy).start()
    for name, uid, prefix, _ in services:
        started = spawn(name, uid)
        loopback = "::1" if ":" in prefix else "127.0.0.1"
        started.open("tcp", "tcp", loopback)
        started.open("udp", "udp", loopback)
        assert started.register("tcp", "udp").result == "ok"
    for name, _, prefix, port in services:
        for host in ("1", "ff9") if ":" in prefix else ("0.1", "255.254"):
            address = prefix.split("/")[0] + host if ":" in prefix else prefix.removesuffix("0.0/16") + host
            assert client.tcp_ask(address, port).name == name
            assert client.udp_ask(address, port).name == name
    assert wildcard_binds() == []
    assert len(broker.list()) == 570
    assert not [line for line in broker.list() if line["bound"].startswith(("0.0.0.0:", "[::]:"))]


def wildcard_binds():
    """Local addresses of all listening TCP and bound UDP sockets of the namespace that are a wildcard."""
    lines = namespace.run("ss", "-H", "-l", "-n", "-t", "-u").splitlines()
    assert len(lines) >= 570
    return [line for line in lines if line.split()[4].startswith(("0.0.0.0:", "*:", "[::]:"))]


def test_s4_the_service_has_no_privilege_at_all(broker, spawn):
    namespace.add_local_routes("1.0.0.0/24", "2606:4700::/32")
    broker.policy("[Service web]\nUser=61001\nListenStream=1.0.0.0/24:80\nListenStream=[2606:4700::]/32:80\n").start()
    web = spawn("web", 61001)
    web.open("tcp4", "tcp", "127.0.0.1")
    web.open("tcp6", "tcp", "::1")
    uids, gids, groups, capabilities = web.capabilities()
    assert uids == gids == (61001, 61001, 61001) and groups == []
    assert capabilities == {"CapInh": 0, "CapPrm": 0, "CapEff": 0, "CapBnd": 0, "CapAmb": 0}
    assert web.register("tcp4", "tcp6").result == "ok"
    for label, level, option in (("tcp4", 0, kernel.IP_TRANSPARENT), ("tcp6", 41, kernel.IPV6_TRANSPARENT)):
        with pytest.raises(PermissionError):
            web.set_option(label, level, option, 1)
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as knob:
        assert int(knob.read()) > 80, "no knob of the kernel has helped the service"
    with pytest.raises(PermissionError):
        web.open("low", "tcp", "127.0.0.1", 80)
    # And yet it serves port 80 of every address.
    assert client.tcp_ask("1.0.0.1", 80).name == "web"
    assert client.tcp_ask("2606:4700::1", 80).name == "web"


def test_s6_a_client_on_the_same_host_reaches_the_address(broker, spawn, family):
    prefix, address, loopback = FAMILIES[family]
    namespace.add_local_routes(prefix)
    broker.policy("[Service here]\nUser=61001\n" + listen("tcp", prefix, 80) + listen("udp", prefix, 5300)).start()
    here = spawn("here", 61001)
    here.open("tcp", "tcp", loopback)
    here.open("udp", "udp", loopback, 5300)
    assert here.register("tcp", "udp").result == "ok"
    # From wherever the kernel chooses, which may be the very address that is asked, and from loopback.
    for source in (None, loopback):
        assert client.tcp_ask(address, 80, source=source).local == (address, 80)
        answer = client.udp_ask(address, 5300, source=source)
        assert answer.name == "here"
        assert answer.local == answer.source == (address, 5300)
